"""The path of `predict` from texts to labels, and how long its calls take.

path = TextToLabels(model, tokenizer)
case = timed_calls(path, texts, batch=32, pad_to=None, calls=10)
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks import harness

BATCHES = (1, 32)
MAX_LENGTH = 128
LABELS = ("negative", "positive")


class TextToLabels:
    """The path of `predict` with the length of a batch left open.

    Args:
      model: Any model with logits.
      tokenizer: Of `data/tokenization`.
    """

    def __init__(self, model, tokenizer):
        from xdistil_tf.predictions import logits_function

        self._tokenizer = tokenizer
        self._logits = logits_function(model)

    def __call__(self, texts: Sequence[str], pad_to: int | None) -> list[str]:
        """Labels of texts; `pad_to` cuts and pads them to one length."""
        import tensorflow as tf

        arrays = features(self._tokenizer, texts, pad_to)
        logits = self._logits({name: tf.constant(array) for name, array in arrays.items()})
        return label_names(logits.numpy())


def features(tokenizer, texts: Sequence[str], pad_to: int | None = None) -> dict[str, np.ndarray]:
    """`input_ids`, `input_mask` and `segment_ids` of texts, int32 [B, T].

    Args:
      pad_to: T; default: the longest of the texts.
    """
    encodings = tokenizer.encode_batch(texts, max_length=pad_to or MAX_LENGTH)
    length = pad_to or max(len(one.input_ids) for one in encodings)
    ids = np.full((len(texts), length), tokenizer.pad_id or 0, np.int32)
    mask, segments = np.zeros_like(ids), np.zeros_like(ids)
    for row, one in enumerate(encodings):
        size = len(one.input_ids)
        ids[row, :size], mask[row, :size] = one.input_ids, 1
        segments[row, :size] = one.segment_ids
    return {"input_ids": ids, "input_mask": mask, "segment_ids": segments}


def label_names(logits: np.ndarray) -> list[str]:
    """The label of each row of logits."""
    return [LABELS[index] for index in np.argmax(logits, -1)]


def read_sentences(path: str) -> list[str]:
    """The sentences of a GLUE file, in its order."""
    with open(path, encoding="utf-8") as handle:
        header, *lines = handle.read().splitlines()
    column = header.split("\t").index("sentence")
    return [line.split("\t")[column] for line in lines]


def timed_calls(path, texts: list[str], batch: int, pad_to: int | None, calls: int):
    """A case of `calls` batches, which goes on where it stopped; `extra` is ms of each call."""
    starts = itertools.cycle(range(0, len(texts) - batch + 1, batch))

    def case() -> harness.Measured:
        milliseconds = []
        for start in itertools.islice(starts, calls):
            some = texts[start : start + batch]
            began = time.perf_counter()
            path(some, pad_to)
            milliseconds.append(1000 * (time.perf_counter() - began))
        return harness.Measured(batch * calls, sum(milliseconds) / 1000, milliseconds)

    return case


def percentiles_of(calls: Mapping[str, Sequence[float]]) -> dict[str, tuple[float, float]]:
    """p50 and p95 of each case."""
    return {
        name: (float(np.percentile(ms, 50)), float(np.percentile(ms, 95)))
        for name, ms in calls.items()
    }


def summaries_of(calls: Mapping[str, Sequence[float]]) -> dict[str, dict[str, float]]:
    """What a result file says of each case: p50 and p95 in ms, and how many calls there were."""
    return {
        name: {"p50": round(p50, 3), "p95": round(p95, 3), "calls": len(calls[name])}
        for name, (p50, p95) in percentiles_of(calls).items()
    }


def milliseconds_of_calls(measured: Mapping[str, Sequence[harness.Measured]]) -> dict:
    """The calls of all rounds."""
    return {name: [ms for one in values for ms in one.extra] for name, values in measured.items()}
