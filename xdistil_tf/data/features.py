"""Examples to features: the table of feature names, and tokenization in large batches.

BERT's names stay, so records of google-research/bert load unchanged.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from xdistil_tf.data.readers import Example
from xdistil_tf.data.tokenization import Encoding, Tokenizer

_CHUNK = 2048


@dataclasses.dataclass(frozen=True)
class FeatureSpec:
    """One feature of a record.

    Attributes:
      kind: `bytes`, `int` or `float`.
      axis: `example` (one value), `token` (T values), `slot` (masked positions), or `label`:
        one value, or T values in tagging.
      padding: Value at padded positions and where a record lacks the feature.
    """

    kind: str
    axis: str
    padding: int | float | bytes = 0


FEATURES: Mapping[str, FeatureSpec] = {
    "id": FeatureSpec("bytes", "example", b""),
    "language": FeatureSpec("bytes", "example", b"default"),
    "input_ids": FeatureSpec("int", "token"),
    "input_mask": FeatureSpec("int", "token"),
    "segment_ids": FeatureSpec("int", "token"),
    "word_index": FeatureSpec("int", "token", -1),
    "label_ids": FeatureSpec("int", "label"),
    "label_weights": FeatureSpec("float", "label", 0.0),
    "label_values": FeatureSpec("float", "example", 0.0),
    "masked_lm_positions": FeatureSpec("int", "slot"),
    "masked_lm_ids": FeatureSpec("int", "slot"),
    "masked_lm_weights": FeatureSpec("float", "slot", 0.0),
    "next_sentence_labels": FeatureSpec("int", "example"),
    "word_starts": FeatureSpec("int", "token", -1),
    "is_real_example": FeatureSpec("int", "example", 1),
}


@dataclasses.dataclass
class Truncation:
    """Counts the examples that lost pieces."""

    count: int = 0


def featurise(
    examples: Iterable[Example],
    tokenizer: Tokenizer,
    task_type: str,
    labels: Sequence[str],
    max_seq_length: int = 128,
    truncation: Truncation | None = None,
) -> Iterator[dict[str, Any]]:
    """Yields the features of each example, in order; sequences have their true length.

    Before: `Example("train:1", "hello world", label="1")`. After: `{"id": b"train:1",
    "input_ids": [101, 7592, 2088, 102], "input_mask": [1, 1, 1, 1], "segment_ids": [0, 0, 0, 0],
    "label_ids": [1], "label_weights": [1.0], "language": b"default"}`.

    In tagging the first piece of a word carries its tag with weight 1; special tokens and further
    pieces have weight 0.

    Raises:
      ValueError: If a label is not one of `labels`.
    """
    label_ids = {label: number for number, label in enumerate(labels)}
    counter = truncation or Truncation()
    remaining = iter(examples)
    while chunk := list(itertools.islice(remaining, _CHUNK)):
        for example, encoding in zip(
            chunk, _encode(chunk, tokenizer, task_type, max_seq_length), strict=True
        ):
            counter.count += encoding.truncated
            length = len(encoding.input_ids)
            features = {
                "id": example.id.encode("utf-8"),
                "input_ids": encoding.input_ids,
                "input_mask": [1] * length,
                "segment_ids": encoding.segment_ids,
                "language": example.language.encode("utf-8"),
            }
            features.update(_gold(example, encoding, task_type, label_ids))
            yield features


def _encode(
    chunk: Sequence[Example], tokenizer: Tokenizer, task_type: str, max_seq_length: int
) -> list[Encoding]:
    if task_type == "tagging":
        return tokenizer.encode_words_batch([one.text for one in chunk], max_seq_length)
    pair = chunk[0].text_b is not None
    second = [one.text_b for one in chunk] if pair else None
    return tokenizer.encode_batch([one.text for one in chunk], second, max_seq_length)


def _gold(
    example: Example, encoding: Encoding, task_type: str, label_ids: Mapping[str, int]
) -> dict[str, Any]:
    known = 0.0 if example.label is None else 1.0
    if task_type == "regression":
        return {"label_values": [float(example.label or 0.0)], "label_weights": [known]}
    if task_type == "classification":
        number = _label_id(example, example.label, label_ids) if known else 0
        return {"label_ids": [number], "label_weights": [known]}
    words = encoding.word_index
    ids, weights, before = [], [], -1
    for word in words:
        first = word >= 0 and word != before and known
        ids.append(_label_id(example, example.label[word], label_ids) if first else 0)
        weights.append(1.0 if first else 0.0)
        before = word
    return {"label_ids": ids, "label_weights": weights, "word_index": words}


def _label_id(example: Example, label: Any, label_ids: Mapping[str, int]) -> int:
    number = label_ids.get(label)
    if number is None:
        raise ValueError(
            f"{example.source[0]} line {example.source[1]}: expected a label of "
            f"{list(label_ids)}. Received: {label!r}."
        )
    return number
