"""The nine GLUE tasks: their columns, labels in BERT's order, and metrics."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class GlueTask:
    """Where a GLUE task keeps what.

    Columns are header names. `positions` are used for files without a header
    (only CoLA's train and dev): column number of each name, and how many there are.
    """

    text: str
    text_b: str | None = None
    label: str = "label"
    labels: tuple[str, ...] | None = ("0", "1")
    metric: str = "accuracy"
    task_type: str = "classification"
    positions: Mapping[str, int] | None = None
    width: int = 0


_ENTAILMENT = ("entailment", "not_entailment")

# File name of a split, where it is not the split's own.
SPLIT_FILES: Mapping[str, tuple[str, ...]] = {
    "train": ("train",),
    "dev": ("dev", "dev_matched"),
    "dev_mismatched": ("dev_mismatched",),
    "test": ("test", "test_matched"),
    "test_mismatched": ("test_mismatched",),
}

GLUE: Mapping[str, GlueTask] = {
    "sst-2": GlueTask("sentence"),
    "cola": GlueTask("sentence", metric="matthews", positions={"label": 1, "sentence": 3}, width=4),
    "mrpc": GlueTask("#1 String", "#2 String", label="Quality", metric="f1_accuracy"),
    "qqp": GlueTask("question1", "question2", label="is_duplicate", metric="f1_accuracy"),
    "sts-b": GlueTask(
        "sentence1",
        "sentence2",
        label="score",
        labels=None,
        metric="pearson_spearman",
        task_type="regression",
    ),
    "mnli": GlueTask(
        "sentence1",
        "sentence2",
        label="gold_label",
        labels=("contradiction", "entailment", "neutral"),
    ),
    "qnli": GlueTask("question", "sentence", labels=_ENTAILMENT),
    "rte": GlueTask("sentence1", "sentence2", labels=_ENTAILMENT),
    "wnli": GlueTask("sentence1", "sentence2"),
}
