"""Examples to features: the table of feature names, and tokenization in large batches.

BERT's names stay, so records of google-research/bert load unchanged.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from xdistil_tf.data import windows
from xdistil_tf.data.examples import Example
from xdistil_tf.data.tokenizer import Encoding, Tokenizer, WordWindow

_CHUNK = 2048
MASK_TOKEN = "[MASK]"  # What rules write for a masked word, whatever a tokenizer calls its own.


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

    Raises:
      ValueError: If a label is not one of `labels`.
    """
    label_ids = {label: number for number, label in enumerate(labels)}
    counter = truncation or Truncation()
    for chunk in _chunks(examples):
        texts = [_with_own_mask(one, one.text, tokenizer) for one in chunk]
        texts_b = None
        if chunk[0].text_b is not None:
            texts_b = [_with_own_mask(one, one.text_b, tokenizer) for one in chunk]
        encoded = tokenizer.encode_batch(texts, texts_b, max_seq_length)
        for example, encoding in zip(chunk, encoded, strict=True):
            counter.count += encoding.truncated
            yield _inputs(example.id, example, encoding) | _gold(example, task_type, label_ids)


def _with_own_mask(example: Example, text: str, tokenizer: Tokenizer) -> str:
    """A text that rules made, with the tokenizer's mask token in place of BERT's."""
    if example.source_id is None or MASK_TOKEN not in text:
        return text
    known = tokenizer.special_tokens
    own = known.get("mask_token") or known.get("unk_token") or ""
    return text.replace(MASK_TOKEN, own)


def featurise_words(
    examples: Iterable[Example],
    tokenizer: Tokenizer,
    labels: Sequence[str],
    max_seq_length: int = 128,
    truncation: Truncation | None = None,
    all_pieces: bool = False,
) -> Iterator[list[dict[str, Any]]]:
    """Yields the features of each tagged sentence: one dict, or of a long one one for each window.

    The first piece of a word carries its tag with weight 1, in the window where the word counts;
    special tokens, further pieces and words that are there as context have weight 0.

    Args:
      examples: With words as text, and a tag for each as label, or none.
      tokenizer: Of the model.
      labels: The tags in the order of their ids.
      max_seq_length: Pieces of a window, special tokens included.
      truncation: Counts the sentences that lost pieces of a word.
      all_pieces: Whether further pieces have the tag that goes on with their word's, and weight 1.

    Raises:
      ValueError: If a tag is not one of `labels`.
    """
    label_ids = {label: number for number, label in enumerate(labels)}
    counter = truncation or Truncation()
    for chunk in _chunks(examples):
        encoded = tokenizer.encode_windows([one.text for one in chunk], max_seq_length)
        for example, made in zip(chunk, encoded, strict=True):
            counter.count += made[0].encoding.truncated
            yield [
                _inputs(windows.window_id(example.id, number), example, window.encoding)
                | {"word_index": window.encoding.word_index}
                | _tags(example, window, label_ids, all_pieces)
                for number, window in enumerate(made, start=1)
            ]


def _chunks(examples: Iterable[Example]) -> Iterator[list[Example]]:
    remaining = iter(examples)
    while chunk := list(itertools.islice(remaining, _CHUNK)):
        yield chunk


def _inputs(record_id: str, example: Example, encoding: Encoding) -> dict[str, Any]:
    return {
        "id": record_id.encode("utf-8"),
        "input_ids": encoding.input_ids,
        "input_mask": [1] * len(encoding.input_ids),
        "segment_ids": encoding.segment_ids,
        "language": example.language.encode("utf-8"),
    }


def _gold(example: Example, task_type: str, label_ids: Mapping[str, int]) -> dict[str, Any]:
    known = 0.0 if example.label is None else 1.0
    if task_type == "regression":
        return {"label_values": [float(example.label or 0.0)], "label_weights": [known]}
    number = _label_id(example, example.label, label_ids) if known else 0
    return {"label_ids": [number], "label_weights": [known]}


def _tags(
    example: Example, window: WordWindow, label_ids: Mapping[str, int], all_pieces: bool
) -> dict[str, Any]:
    pieces = window.encoding.word_index
    ids, weights = [0] * len(pieces), [0.0] * len(pieces)
    if example.label is None:
        return {"label_ids": ids, "label_weights": weights}
    own = range(window.words.own_first, window.words.own_stop)
    before = -1
    for place, word in enumerate(pieces):
        if word in own:
            tag = example.label[word]
            if word != before:
                ids[place], weights[place] = _label_id(example, tag, label_ids), 1.0
            elif all_pieces:
                goes_on = f"I-{tag[2:]}" if tag.startswith("B-") else tag
                ids[place] = label_ids.get(goes_on, 0)
                weights[place] = float(goes_on in label_ids)
        before = word
    return {"label_ids": ids, "label_weights": weights}


def _label_id(example: Example, label: Any, label_ids: Mapping[str, int]) -> int:
    number = label_ids.get(label)
    if number is None:
        raise ValueError(
            f"{example.source[0]} line {example.source[1]}: expected a label of "
            f"{list(label_ids)}. Received: {label!r}."
        )
    return number
