"""What a model says about records, by id, and what that is worth."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from xdistil_tf import metrics, tag_decoding
from xdistil_tf.data import windows
from xdistil_tf.data.pipeline import Batches, data_error
from xdistil_tf.data.record_set import RecordSet
from xdistil_tf.data.task_info import TaskInfo

Features = Mapping[str, tf.Tensor]
_MODEL_FEATURES = ("input_ids", "input_mask", "segment_ids")


@dataclasses.dataclass
class Predictions:
    """What a model said about each record, beside what is true.

    Attributes:
      ids: bytes, one a record.
      languages: One a record.
      scores: Logits `[C]` of each record, or `[W, C]` of its words in tagging.
      gold: Label id, value, or label ids of its words.
      decode: How the scores of sentences become tags.
    """

    ids: list[bytes] = dataclasses.field(default_factory=list)
    languages: list[str] = dataclasses.field(default_factory=list)
    scores: list[np.ndarray] = dataclasses.field(default_factory=list)
    gold: list = dataclasses.field(default_factory=list)
    decode: tag_decoding.Decoder = tag_decoding.most_probable

    def add(self, batch: Mapping[str, np.ndarray], logits: np.ndarray, task_type: str) -> None:
        """Adds the records of a batch whose gold is known, without filler rows."""
        gold = batch["label_values" if task_type == "regression" else "label_ids"]
        for row in np.flatnonzero(batch["example_weights"] > 0):
            known = batch["label_weights"][row] > 0
            if task_type == "tagging":
                known &= windows.first_pieces(batch["word_index"][row])
            if not np.any(known):
                continue
            self.ids.append(batch["id"][row])
            self.languages.append(batch["language"][row].decode("utf-8"))
            tagging = task_type == "tagging"
            self.scores.append(logits[row][known] if tagging else logits[row])
            self.gold.append(gold[row][known] if tagging else gold[row])

    def of_sentences(self) -> Predictions:
        """The same with the windows of each sentence put together, in the order they first came."""
        parts: dict[str, dict[int, int]] = {}
        for index, name in enumerate(self.ids):
            sentence, number = windows.sentence_of(name.decode("utf-8"))
            parts.setdefault(sentence, {})[number] = index
        joined = Predictions(decode=self.decode)
        for sentence, numbered in parts.items():
            chosen = [index for _, index in sorted(numbered.items())]
            joined.ids.append(sentence.encode("utf-8"))
            joined.languages.append(self.languages[chosen[0]])
            joined.scores.append(np.concatenate([self.scores[i] for i in chosen]))
            joined.gold.append(np.concatenate([self.gold[i] for i in chosen]))
        return joined

    def sorted_by_id(self, ids: Sequence[bytes]) -> Predictions:
        """The same in the order of `ids`."""
        place = {name: index for index, name in enumerate(ids)}
        order = sorted(range(len(self.ids)), key=lambda index: place[self.ids[index]])
        rows = ([rows[i] for i in order] for rows in (self.ids, self.languages, self.scores))
        return Predictions(*rows, [self.gold[i] for i in order], self.decode)

    def of_languages(self, languages: Sequence[str]) -> Predictions:
        """Those of some languages.

        Raises:
          ValueError: If there are none.
        """
        chosen = [i for i, one in enumerate(self.languages) if one in languages]
        if not chosen:
            raise ValueError(
                f"No example is of {', '.join(languages)}. Expected some of "
                f"{', '.join(sorted(set(self.languages)))}."
            )
        columns = (self.ids, self.languages, self.scores, self.gold)
        return Predictions(*([rows[i] for i in chosen] for rows in columns), self.decode)

    def metrics(self, task: TaskInfo) -> dict[str, float]:
        """The task's metrics, the primary one under its name with `standard_error`."""
        gold, predicted = self.comparable(task)
        return metrics.compute(task.metric, gold, predicted)

    def by_language(self, task: TaskInfo) -> dict:
        """Metrics of each language, empty where there is only one."""
        if len(set(self.languages)) < 2:
            return {}
        gold, predicted = self.comparable(task)
        return metrics.compute_by_language(task.metric, gold, predicted, self.languages)

    def macro(self, task: TaskInfo) -> dict[str, float]:
        """`macro`, and `<metric>/<language>` of each; empty where there is only one."""
        found = self.by_language(task)
        if not found:
            return {}
        apart = {f"{task.metric}/{n}": one[task.metric] for n, one in found["languages"].items()}
        return {metrics.MACRO: found["macro_mean"], **apart}

    def comparable(self, task: TaskInfo) -> tuple[Sequence, Sequence]:
        """Gold and predictions as `metrics.compute` takes them: tags of words in tagging."""
        if task.task_type != "tagging":
            scores = np.stack(self.scores)
            return np.asarray(self.gold), scores[:, 0] if task.task_type == "regression" else scores
        names = task.labels
        gold = [[names[i] for i in row] for row in self.gold]
        return gold, [[names[i] for i in found] for found, _ in self.decode(self.scores)]


class LogitsFunction:
    """A model's logits of a batch, compiled once for any number and length of examples.

    Attributes:
      decode: How the logits of sentences become tags.
    """

    def __init__(self, model):
        ids = tf.TensorSpec([None, None], tf.int32)

        @tf.function(input_signature=[dict.fromkeys(_MODEL_FEATURES, ids)])
        def logits(features):
            return model(features, training=False, request={"logits": None})["logits"]

        self._logits = logits
        self.decode = tag_decoding.decoder_of(model)

    def __call__(self, batch: Features) -> tf.Tensor:
        return self._logits({name: batch[name] for name in _MODEL_FEATURES})


def logits_function(model) -> LogitsFunction:
    """See `LogitsFunction`."""
    return LogitsFunction(model)


def predict_records(
    logits_of: Callable[[Features], tf.Tensor],
    records: RecordSet,
    task: TaskInfo,
    batch_size: int = 128,
    sidecars: Mapping[str, Any] | None = None,
) -> Predictions:
    """Runs a model over all records, in their order.

    Args:
      logits_of: As `logits_function` gives it.
      records: The data.
      task: What they mean.
      batch_size: Examples of a forward pass.
      sidecars: Of a teacher, joined to the batches.

    Raises:
      ValueError: If no record has a known label, or a record is damaged.
    """
    batches = Batches(records, batch_size, shuffle=False, sidecars=sidecars)
    predictions = Predictions(decode=getattr(logits_of, "decode", tag_decoding.most_probable))
    for batch in batches_once(batches):
        logits = logits_of(batch).numpy()
        predictions.add(as_arrays(batch), logits, task.task_type)
    if not predictions.ids:
        split = records.paths[0].stem.rsplit("-", 3)[0]
        raise ValueError(
            f"The split {split!r} of {task.task} has no labels to compare with. Choose another one "
            "with --split or --records."
        )
    predictions = predictions.sorted_by_id(records.ids.tolist())
    return predictions.of_sentences() if task.task_type == "tagging" else predictions


def batches_once(batches: Batches) -> Iterator[Features]:
    """All batches of an epoch.

    Raises:
      ValueError: If a record is damaged.
    """
    try:
        yield from batches.dataset(0, batches.steps_per_epoch)
    except tf.errors.OpError as error:
        raise data_error(error) or error from error


def as_arrays(batch: Features) -> dict[str, np.ndarray]:
    """A batch in NumPy."""
    return {name: value.numpy() for name, value in batch.items()}
