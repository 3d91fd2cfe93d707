"""Predictions of a test split in the form that gluebenchmark.com takes."""

from __future__ import annotations

import pathlib

import numpy as np
from absl import logging

from xdistil_tf import files
from xdistil_tf.data import readers
from xdistil_tf.data.glue import DIAGNOSTIC, GLUE, SUBMISSIONS
from xdistil_tf.models.folders import Labels
from xdistil_tf.predict import Predictor, progress_bar

_CHUNK = 4096  # Texts tokenized and sorted by length together.

_LOWEST, _HIGHEST = 0.0, 5.0  # Of STS-B's scores.


def write_submission(
    predictor: Predictor,
    task_dir: files.Path,
    task: str,
    split: str,
    folder: files.Path,
    batch_size: int = 64,
) -> pathlib.Path:
    """Writes `<folder>/<name of GLUE>.tsv`: `index`, counted from 0, and `prediction`.

    Args:
      predictor: A model of the task; for `ax` one of MNLI.
      task_dir: The task's folder.
      task: A name of GLUE.
      split: `test`, of MNLI also `test_matched` (the same) and `test_mismatched`.
      folder: Where the files of all tasks go.
      batch_size: Texts of a forward pass.

    Returns:
      The file.

    Raises:
      FileNotFoundError: If the split has no file.
      ValueError: If GLUE takes no such predictions, or the model has other classes or texts.
    """
    name = readers.task_name(task)
    if (name, split) not in SUBMISSIONS:
        raise ValueError(
            f"GLUE takes no predictions of {split!r} of {task!r}. Expected one of "
            f"{[f'{a} {b}' for a, b in SUBMISSIONS]}."
        )
    labels = predictor.labels
    _check_model(labels, name)
    data = readers.read_task(
        task_dir, name, labels=labels.labels or None, splits=[split], allow_empty=True
    )
    examples = data.splits[split]
    file, official = SUBMISSIONS[name, split]
    if len(examples) != official:
        logging.warning(
            "%s has %d rows, GLUE's own has %d: it takes no other number.",
            pathlib.Path(task_dir) / split, len(examples), official,
        )  # fmt: skip
    path = pathlib.Path(folder) / f"{file}.tsv"
    with files.replaced_file(path, "w") as handle, progress_bar(len(examples)) as bar:
        handle.write("index\tprediction\n")
        for start in range(0, len(examples), _CHUNK):
            chunk = examples[start : start + _CHUNK]
            texts_b = [one.text_b for one in chunk] if data.pair else None
            scores = predictor.scores([one.text for one in chunk], texts_b, batch_size, bar.update)
            for number, row in enumerate(scores, start=start):
                handle.write(f"{number}\t{_said(row, labels)}\n")
    return path


def _check_model(labels: Labels, task: str) -> None:
    """Refuses a model of another task, unless its own is not known by name."""
    of_mnli = task == DIAGNOSTIC and labels.task == "mnli"
    expected = readers.glue_labels(task)
    fits = labels.task == task or of_mnli if labels.task in GLUE else True
    if not fits or set(labels.labels) != set(expected) or labels.pair != bool(GLUE[task].text_b):
        raise ValueError(
            f"The model was trained on {labels.task or 'another task'} ({labels.task_type}, "
            f"classes {list(labels.labels)}). Expected one of "
            f"{'mnli' if task == DIAGNOSTIC else task} (classes {list(expected)})."
        )


def _said(scores: np.ndarray, labels: Labels) -> str:
    if labels.task_type == "regression":
        return f"{min(max(float(scores[0]), _LOWEST), _HIGHEST):.3f}"
    return labels.labels[int(scores.argmax())]
