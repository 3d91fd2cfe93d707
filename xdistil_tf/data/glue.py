"""The GLUE tasks: their columns, labels in BERT's order, metrics, and files of submissions."""

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
    "ax": GlueTask(
        "sentence1",
        "sentence2",
        labels=("contradiction", "entailment", "neutral"),
        metric="matthews",
    ),
    "qnli": GlueTask("question", "sentence", labels=_ENTAILMENT),
    "rte": GlueTask("sentence1", "sentence2", labels=_ENTAILMENT),
    "wnli": GlueTask("sentence1", "sentence2"),
}

# The folder of each task as GLUE's archives have it.
FOLDERS: Mapping[str, str] = {
    "sst-2": "SST-2",
    "cola": "CoLA",
    "mrpc": "MRPC",
    "qqp": "QQP",
    "sts-b": "STS-B",
    "mnli": "MNLI",
    "qnli": "QNLI",
    "rte": "RTE",
    "wnli": "WNLI",
}

# A model of MNLI is asked about it; there is nothing to train on.
DIAGNOSTIC = "ax"
DIAGNOSTIC_FILES = ("test", "diagnostic", "AX")

# (task, split) -> the file of a submission to gluebenchmark.com, and how many predictions it has.
SUBMISSIONS: Mapping[tuple[str, str], tuple[str, int]] = {
    ("cola", "test"): ("CoLA", 1063),
    ("sst-2", "test"): ("SST-2", 1821),
    ("mrpc", "test"): ("MRPC", 1725),
    ("sts-b", "test"): ("STS-B", 1379),
    ("qqp", "test"): ("QQP", 390965),
    ("mnli", "test"): ("MNLI-m", 9796),
    ("mnli", "test_matched"): ("MNLI-m", 9796),
    ("mnli", "test_mismatched"): ("MNLI-mm", 9847),
    ("qnli", "test"): ("QNLI", 5463),
    ("rte", "test"): ("RTE", 3000),
    ("wnli", "test"): ("WNLI", 146),
    (DIAGNOSTIC, "test"): ("AX", 1104),
}
