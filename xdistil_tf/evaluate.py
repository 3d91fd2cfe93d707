"""Scores a model: predictions on records, task metrics, a stage's objective, latency."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import tensorflow as tf

from xdistil_tf import metrics, outputs
from xdistil_tf.data.pipeline import Batches, data_error
from xdistil_tf.data.record_set import RecordSet
from xdistil_tf.data.task_records import TaskInfo
from xdistil_tf.objective import Objective

Features = Mapping[str, tf.Tensor]


@dataclasses.dataclass
class Predictions:
    """What a model said about each record, beside what is true.

    Attributes:
      ids: bytes, one a record.
      languages: One a record.
      scores: Logits `[C]` of each record, or `[W, C]` of its words in tagging.
      gold: Label id, value, or label ids of its words.
    """

    ids: list[bytes] = dataclasses.field(default_factory=list)
    languages: list[str] = dataclasses.field(default_factory=list)
    scores: list[np.ndarray] = dataclasses.field(default_factory=list)
    gold: list = dataclasses.field(default_factory=list)

    def add(self, batch: Mapping[str, np.ndarray], logits: np.ndarray, task_type: str) -> None:
        """Adds the records of a batch whose gold is known, without filler rows."""
        gold = batch["label_values" if task_type == "regression" else "label_ids"]
        for row in np.flatnonzero(batch["example_weights"] > 0):
            known = batch["label_weights"][row] > 0
            if not np.any(known):
                continue
            self.ids.append(batch["id"][row])
            self.languages.append(batch["language"][row].decode("utf-8"))
            tagging = task_type == "tagging"
            self.scores.append(logits[row][known] if tagging else logits[row])
            self.gold.append(gold[row][known] if tagging else gold[row])

    def sorted_by_id(self, ids: Sequence[bytes]) -> Predictions:
        """The same in the order of `ids`."""
        place = {name: index for index, name in enumerate(ids)}
        order = sorted(range(len(self.ids)), key=lambda index: place[self.ids[index]])
        return Predictions(
            *([getattr(self, field.name)[i] for i in order] for field in dataclasses.fields(self))
        )

    def metrics(self, task: TaskInfo) -> dict[str, float]:
        """The task's metrics, the primary one under its name with `standard_error`."""
        gold, predicted = self._comparable(task)
        return metrics.compute(task.metric, gold, predicted)

    def by_language(self, task: TaskInfo) -> dict:
        """Metrics of each language, empty where there is only one."""
        if len(set(self.languages)) < 2:
            return {}
        gold, predicted = self._comparable(task)
        return metrics.compute_by_language(task.metric, gold, predicted, self.languages)

    def _comparable(self, task: TaskInfo):
        if task.task_type != "tagging":
            scores = np.stack(self.scores)
            return np.asarray(self.gold), scores[:, 0] if task.task_type == "regression" else scores
        names = task.labels
        gold = [[names[i] for i in row] for row in self.gold]
        return gold, [[names[i] for i in np.argmax(row, -1)] for row in self.scores]


def predict_records(
    model, records: RecordSet, task: TaskInfo, batch_size: int = 128, max_length: int | None = None
) -> Predictions:
    """Runs a model over all records, in their order.

    Raises:
      ValueError: If no record has a known label, or a record is damaged.
    """
    batches = Batches(records, batch_size, shuffle=False, max_length=max_length)
    step = tf.function(
        lambda batch: model(batch, training=False, request={"logits": None})["logits"],
        reduce_retracing=True,
    )
    predictions = Predictions()
    for batch in _once(batches):
        logits = step(batch).numpy()
        predictions.add(_arrays(batch), logits, task.task_type)
    if not predictions.ids:
        raise ValueError(
            f"{records.paths[0]} and its set have no labels to compare with. Choose another split."
        )
    return predictions.sorted_by_id(records.ids.tolist())


class StageScorer:
    """Measures a stage's objective and the task's metrics on data that it does not train on.

    Args:
      model: The model in training.
      batches: The data, unshuffled.
      objective: The stage's.
      teacher: `(features, request) -> outputs`, where a term needs one.
      task: For metrics; `None` where there is no labelled task.
      samples: Rows of features and logits -> Markdown, or `None`.
    """

    def __init__(
        self,
        model,
        batches: Batches,
        objective: Objective,
        teacher: Callable | None,
        task: TaskInfo | None,
        samples: Callable[[Mapping[str, np.ndarray], np.ndarray], str] | None = None,
    ):
        self._batches = batches
        self._objective = objective
        self._task = task if task is not None and "logits" in model.available else None
        self._samples = samples
        request = dict(objective.student_request)
        if self._task is not None:
            request = outputs.merge_requests(request, {"logits": None})

        @tf.function(reduce_retracing=True)
        def step(batch):
            given = model(batch, training=False, request=request)
            wanted = teacher(batch, objective.teacher_request) if teacher is not None else {}
            sums = objective.numerators(batch, given, wanted), objective.denominators(batch)
            return *sums, given.get("logits", tf.zeros([0]))

        self._step = step

    def measure(self) -> tuple[dict[str, float], str | None]:
        """Metrics by name (`objective` among them) and sample predictions."""
        numerators = dict.fromkeys(self._objective.term_names, 0.0)
        denominators = dict(numerators)
        predictions, samples = Predictions(), None
        for batch in _once(self._batches):
            *sums, logits = self._step(batch)
            for total, part in zip((numerators, denominators), sums, strict=True):
                for name in total:
                    total[name] += float(part[name])
            if self._task is not None:
                arrays = _arrays(batch)
                predictions.add(arrays, logits.numpy(), self._task.task_type)
                if samples is None and self._samples is not None:
                    samples = self._samples(arrays, logits.numpy())
        result = {"objective": self._total(numerators, denominators)}
        if predictions.ids:
            result |= predictions.metrics(self._task)
        return result, samples

    def _total(self, numerators: dict[str, float], denominators: dict[str, float]) -> float:
        return sum(
            term.weight * numerators[term.name] / denominators[term.name]
            for term in self._objective.terms
            if denominators[term.name]
        )


def latency_ms(model, batch_size: int, length: int, repeats: int = 20) -> float:
    """Median milliseconds of one call on ids of this shape, after a warm-up."""
    batch = {
        "input_ids": tf.ones([batch_size, length], tf.int32),
        "input_mask": tf.ones([batch_size, length], tf.int32),
        "segment_ids": tf.zeros([batch_size, length], tf.int32),
    }
    step = tf.function(lambda b: model(b, training=False, request={"logits": None})["logits"])
    for _ in range(3):
        step(batch).numpy()
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        step(batch).numpy()
        seconds.append(time.perf_counter() - began)
    return 1000 * statistics.median(seconds)


def parameter_counts(model) -> dict[str, int]:
    """`parameters` and `parameters_without_embeddings`, trainable or not, tables of ids left out."""
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


def _once(batches: Batches) -> Iterator[Features]:
    try:
        yield from batches.dataset(0, batches.steps_per_epoch)
    except tf.errors.OpError as error:
        raise data_error(error) or error from error


def _arrays(batch: Features) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in batch.items()}
