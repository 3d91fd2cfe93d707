"""Scores a model: predictions on records, task metrics, a stage's objective, latency."""

from __future__ import annotations

import dataclasses
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from xdistil_tf import files
from xdistil_tf.data.examples import Example
from xdistil_tf.data.layouts import Columns
from xdistil_tf.data.readers import read_task
from xdistil_tf.data.record_set import RecordSet
from xdistil_tf.data.split import Splits
from xdistil_tf.data.task_info import TaskInfo, load_task_info
from xdistil_tf.data.task_records import write_task_records
from xdistil_tf.data.tokenization import load_tokenizer
from xdistil_tf.data.tokenizer import check_same_vocabulary
from xdistil_tf.models import folders
from xdistil_tf.predictions import Predictions, logits_function, predict_records

# (predictions, what they mean, the texts where they are known) -> more figures.
Judge = Callable[[Predictions, TaskInfo, Sequence[Example]], dict[str, Any]]


class EvaluatedModel:
    """A model folder that is scored on data with labels.

    Args:
      model_dir: A model, run or distill folder.
      precision: `float32`, `bfloat16` or `mixed_float16`.
      batch_size: Examples of a forward pass.

    Raises:
      FileNotFoundError: If there is no model.
      ValueError: If it was not trained on a task.
    """

    def __init__(self, model_dir: str, precision: str = "float32", batch_size: int = 128):
        self._folder = pathlib.Path(folders.find(model_dir))
        self._labels = folders.read_labels(self._folder)
        if self._labels is None:
            raise ValueError(
                f"{self._folder} has no labels.json: it was not trained on a task here. Expected "
                "a folder of distill or train; an encoder gets a head by fine-tuning."
            )
        self._precision = precision
        self._batch_size = batch_size

    def on_task(
        self,
        task_dir: str,
        task: str | None = None,
        split: str = "dev",
        columns: Columns = Columns(),
        max_bad_rows: int = 0,
        languages: Sequence[str] = (),
        judge: Judge | None = None,
    ) -> dict[str, Any]:
        """Scores a split of a task folder.

        Args:
          task_dir: The folder.
          task: `None`: the one it was trained on.
          split: The split.
          columns, max_bad_rows, languages: As `read_task` takes them.
          judge: Is given predictions, task and examples; what it returns is added to the result.

        Returns:
          The content of `metrics.json`.
        """
        data = read_task(
            task_dir,
            task or self._labels.task or self._labels.task_type,
            columns,
            max_bad_rows,
            languages,
            self._labels.labels,
            (split,),
        )
        if not data.splits.get(split):
            raise ValueError(f"{task_dir} has no split {split!r}, or it is empty.")
        trained = files.read_json(self._folder / "xdistil.json")
        with tempfile.TemporaryDirectory() as folder:
            splits = Splits([], [], [], {split: data.splits[split]}, [], {})
            info = write_task_records(
                splits,
                dataclasses.replace(data, labels=self._labels.labels),
                load_tokenizer(self._folder),
                folder,
                trained["max_seq_length"],
                num_shards=1,
            )
            records = RecordSet(info.pattern(split))
            return self._scored(records, info, split, judge, data.splits[split])

    def on_records(
        self, pattern: str, judge: Judge | None = None, languages: Sequence[str] = ()
    ) -> dict[str, Any]:
        """Scores records, which must be of the same tokenizer and labels; all else as above."""
        records = RecordSet(pattern)
        info = load_task_info(records.paths[0].parent)
        differences = check_same_vocabulary(
            load_tokenizer(self._folder), load_tokenizer(info.tokenizer_folder)
        )
        if differences:
            raise ValueError(
                f"{info.folder} has other ids than the model: {'; '.join(differences)}."
            )
        if info.labels != self._labels.labels:
            raise ValueError(
                f"{info.folder} has the labels {info.labels}. Expected {self._labels.labels}."
            )
        split = records.paths[0].stem.rsplit("-", 3)[0]
        return self._scored(records, info, split, judge, languages=languages)

    def _scored(
        self,
        records: RecordSet,
        task: TaskInfo,
        split: str,
        judge: Judge | None,
        examples: Sequence[Example] = (),
        languages: Sequence[str] = (),
    ) -> dict[str, Any]:
        model = folders.load_model(self._folder, self._precision, only_run=True)
        predictions = predict_records(logits_function(model), records, task, self._batch_size)
        if languages:
            predictions = predictions.of_languages(languages)
        judged = judge(predictions, task, examples) if judge else {}
        return {
            "model": str(self._folder),
            "split": split,
            "examples": len(predictions.ids),
            "metric": task.metric,
            "metrics": predictions.metrics(task),
            "by_language": predictions.by_language(task),
            **judged,
        }


def own_records(model_dir: str, split: str) -> str:
    """The records of a split that a distill folder holds beside its models.

    Raises:
      ValueError: If it holds none.
    """
    folder = pathlib.Path(model_dir) / "records"
    if not (folder / "task.json").is_file():
        raise ValueError(
            f"Expected --task_dir or --records. Only a distill folder has records of its own, and "
            f"{model_dir} is none."
        )
    return load_task_info(folder).pattern(split)


def latency_ms(model, batch_size: int, length: int, repeats: int = 20) -> float:
    """Median milliseconds of one call on ids of this shape, after a warm-up."""
    batch = {
        "input_ids": tf.ones([batch_size, length], tf.int32),
        "input_mask": tf.ones([batch_size, length], tf.int32),
        "segment_ids": tf.zeros([batch_size, length], tf.int32),
    }
    step = logits_function(model)
    for _ in range(3):
        step(batch).numpy()
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        step(batch).numpy()
        seconds.append(time.perf_counter() - began)
    return 1000 * statistics.median(seconds)


def parameter_counts(model) -> dict[str, int]:
    """`parameters` and `parameters_without_embeddings`, trainable or not, without tables of ids."""
    floating = {
        name: int(np.prod(v.shape))
        for name, v in model.named_variables().items()
        if v.dtype.is_floating
    }
    embedding = {
        id(v) for layer in model.parts.get("embedding", ()) for v in layer.trainable_variables
    }
    # The word table itself; positions and normalisation are counted with the rest.
    tables = [
        int(np.prod(v.shape))
        for v in model.named_variables().values()
        if id(v) in embedding and v.shape.rank == 2
    ]
    total = sum(floating.values())
    return {"parameters": total, "parameters_without_embeddings": total - sum(tables)}
