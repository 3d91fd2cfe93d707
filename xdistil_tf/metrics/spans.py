"""F1 of spans, from the tags of words: strict IOB2, as seqeval reads it.

Not the score of the XtremeDistil code, which reads word pieces leniently and lets a span run from
one sentence into the next.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from seqeval import scheme

RESAMPLES = 200
_BOOTSTRAP_SEED = 20

Tags = Sequence[Sequence[str]]


def compute(labels: Tags, predictions: Tags) -> dict[str, float]:
    """Micro-averaged F1, precision and recall of spans.

    A span counts when its type and both ends are right. A span that does not begin with `B-` is
    none.

    Args:
      labels: For each sentence the tag of each word, such as `B-PER`, `I-PER`, `O`.
      predictions: The same for what was predicted.

    Returns:
      `span_f1`, `span_precision`, `span_recall`, and `standard_error` of the F1: the deviation over
      200 seeded bootstrap samples of sentences.

    Raises:
      ValueError: If there is no sentence, or one has other than one prediction per word.
    """
    right, predicted, gold = _counts(labels, predictions).T
    random = np.random.default_rng(_BOOTSTRAP_SEED)
    resampled = []
    for _ in range(RESAMPLES):
        draw = random.integers(len(right), size=len(right))
        resampled.append(_f1(right[draw].sum(), predicted[draw].sum(), gold[draw].sum()))
    return {
        "span_f1": _f1(right.sum(), predicted.sum(), gold.sum()),
        "span_precision": _ratio(right.sum(), predicted.sum()),
        "span_recall": _ratio(right.sum(), gold.sum()),
        "standard_error": float(np.std(resampled, ddof=1)),
    }


def best_constant(labels: Tags) -> float:
    """The best span F1 that one tag for every word reaches."""
    return max(
        _f1(*_counts(labels, [[tag] * len(sentence) for sentence in labels]).sum(axis=0))
        for tag in sorted({tag for sentence in labels for tag in sentence} | {"O"})
    )


def word_tags(
    label_ids: Sequence[int], word_index: Sequence[int], num_words: int, labels: Sequence[str]
) -> list[str]:
    """The tag of each word, taken from its first piece.

    >>> word_tags([0, 1, 0, 2, 0], [-1, 0, 0, 1, -1], 3, ["O", "B-PER", "I-PER"])
    ['B-PER', 'I-PER', 'O']

    Args:
      label_ids: Predicted class of each piece.
      word_index: Word of each piece, -1 for special tokens and padding.
      num_words: Number of words of the sentence; those that were cut off are `O`.
      labels: Name of each class.
    """
    tags = ["O"] * num_words
    previous = -1
    for label_id, word in zip(label_ids, word_index, strict=True):
        if word >= 0 and word != previous:
            tags[word] = labels[label_id]
        previous = word
    return tags


def _counts(labels: Tags, predictions: Tags) -> np.ndarray:
    """Right, predicted and gold spans of each sentence, `[sentences, 3]`."""
    if not len(labels):
        raise ValueError("Expected at least one sentence for 'span_f1'. Received: none.")
    if len(labels) != len(predictions):
        raise ValueError(
            "Expected tags of as many sentences as there are labels. "
            f"Received: {len(labels)} labelled and {len(predictions)} predicted."
        )
    for number, (gold, predicted) in enumerate(zip(labels, predictions, strict=True)):
        if len(gold) != len(predicted):
            raise ValueError(
                f"Expected one predicted tag per word in sentence {number}. "
                f"Received: {len(gold)} words and {len(predicted)} tags."
            )
    pairs = zip(_spans(labels), _spans(predictions), strict=True)
    return np.array([(len(g & p), len(p), len(g)) for g, p in pairs])


def _spans(tags: Tags) -> list[set[tuple]]:
    entities = scheme.Entities([list(sentence) for sentence in tags], scheme.IOB2).entities
    return [{entity.to_tuple() for entity in sentence} for sentence in entities]


def _f1(right: int, predicted: int, gold: int) -> float:
    return _ratio(2 * right, predicted + gold)


def _ratio(part: int, whole: int) -> float:
    return float(part / whole) if whole else 0.0
