"""Scores of tagged words: F1 of spans, strict and lenient, by type, and what went wrong where.

Strict is seqeval's IOB2: a span begins with `B-`. Lenient is conlleval's reading, within each
sentence: an `I-` that goes on with nothing begins a span too. Neither is the score of the
XtremeDistil code, which reads word pieces and lets a span run from one sentence into the next.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from seqeval import scheme
from seqeval.metrics import sequence_labeling

RESAMPLES = 200
_BOOTSTRAP_SEED = 20

Tags = Sequence[Sequence[str]]


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Span:
    """Words `first … last` of a sentence, both included, that are one entity."""

    first: int
    last: int
    type: str

    def __str__(self) -> str:
        return f"{self.type}:{self.first}-{self.last}"


@dataclasses.dataclass(frozen=True, slots=True)
class Error:
    """A span that is in one of gold and prediction only, with what overlaps it in the other.

    Attributes:
      sentence: Number of the sentence.
      kind: `missed`, `invented`, `type` (both ends are right), or `border`.
      gold, predicted: One of them is None where nothing overlaps.
    """

    sentence: int
    kind: str
    gold: Span | None
    predicted: Span | None


def compute(labels: Tags, predictions: Tags) -> dict[str, float]:
    """Micro-averaged F1, precision and recall of spans, and the share of right words.

    Args:
      labels: For each sentence the tag of each word, such as `B-PER`, `I-PER`, `O`.
      predictions: The same for what was predicted.

    Returns:
      `span_f1`, `span_precision`, `span_recall` (strict), the same with `lenient_` before them,
      `word_accuracy`, and `standard_error` of the strict F1: the deviation over 200 seeded
      bootstrap samples of sentences.

    Raises:
      ValueError: If there is no sentence, or one has other than one prediction per word.
    """
    _check(labels, predictions)
    right, predicted, gold = _counts(strict_spans(labels), strict_spans(predictions)).T
    lenient = _counts(lenient_spans(labels), lenient_spans(predictions)).sum(axis=0)
    resampled = [
        _f1(right[draw].sum(), predicted[draw].sum(), gold[draw].sum())
        for draw in _draws(len(right))
    ]
    return {
        **_scores("span", right.sum(), predicted.sum(), gold.sum()),
        **_scores("lenient_span", *lenient),
        "word_accuracy": _ratio(*_right_words(labels, predictions).sum(axis=0)),
        "standard_error": float(np.std(resampled, ddof=1)),
    }


def compute_words(labels: Tags, predictions: Tags) -> dict[str, float]:
    """`word_accuracy`, of tags that mark no spans, and its `standard_error`, as in `compute`."""
    _check(labels, predictions)
    counts = _right_words(labels, predictions)
    resampled = [_ratio(*counts[draw].sum(axis=0)) for draw in _draws(len(counts))]
    return {
        "word_accuracy": _ratio(*counts.sum(axis=0)),
        "standard_error": float(np.std(resampled, ddof=1)),
    }


def by_type(labels: Tags, predictions: Tags) -> dict[str, dict[str, float]]:
    """Strict `precision`, `recall`, `f1` of each type of span, and `support`: how many gold has.

    Args:
      labels, predictions: As `compute` takes them.
    """
    _check(labels, predictions)
    gold, predicted = strict_spans(labels), strict_spans(predictions)
    found = {}
    for kind in sorted({span.type for one in (*gold, *predicted) for span in one}):
        counts = _counts(_of_type(gold, kind), _of_type(predicted, kind)).sum(axis=0)
        scores = _scores("", *counts)
        found[kind] = {name.lstrip("_"): value for name, value in scores.items()}
        found[kind]["support"] = int(counts[2])
    return found


def confusion(labels: Tags, predictions: Tags, names: Sequence[str]) -> list[list[int]]:
    """How often a word of the tag of a row was predicted the tag of a column."""
    _check(labels, predictions)
    places = {name: place for place, name in enumerate(names)}
    counts = np.zeros((len(names), len(names)), np.int64)
    for gold, predicted in zip(labels, predictions, strict=True):
        for one, other in zip(gold, predicted, strict=True):
            counts[places[one], places[other]] += 1
    return counts.tolist()


def errors(labels: Tags, predictions: Tags) -> list[Error]:
    """Every wrong span, sentence by sentence; one for each pair that overlaps and differs."""
    _check(labels, predictions)
    found = []
    pairs = zip(strict_spans(labels), strict_spans(predictions), strict=True)
    for sentence, (gold, predicted) in enumerate(pairs):
        missed, invented = sorted(gold - predicted), sorted(predicted - gold)
        overlapping = [(one, other) for one in missed for other in invented if _overlap(one, other)]
        pairs_of = [(one, other, _kind(one, other)) for one, other in overlapping]
        pairs_of += [
            (one, None, "missed") for one in missed if one not in {a for a, _ in overlapping}
        ]
        pairs_of += [
            (None, one, "invented") for one in invented if one not in {b for _, b in overlapping}
        ]
        pairs_of.sort(key=lambda one: (one[0] or one[1]).first)
        found += [Error(sentence, kind, one, other) for one, other, kind in pairs_of]
    return found


def best_constant(labels: Tags) -> float:
    """The best span F1 that one tag for every word reaches."""
    gold = strict_spans(labels)
    return max(
        _f1(*_counts(gold, strict_spans([[tag] * len(one) for one in labels])).sum(axis=0))
        for tag in _tags_of(labels)
    )


def best_constant_word(labels: Tags) -> float:
    """The best word accuracy that one tag for every word reaches."""
    words = [tag for sentence in labels for tag in sentence]
    return max(words.count(tag) for tag in _tags_of(labels)) / max(len(words), 1)


def strict_spans(tags: Tags) -> list[set[Span]]:
    """The spans of each sentence in strict IOB2."""
    entities = scheme.Entities([list(sentence) for sentence in tags], scheme.IOB2).entities
    return [{Span(one.start, one.end - 1, one.tag) for one in sentence} for sentence in entities]


def lenient_spans(tags: Tags) -> list[set[Span]]:
    """The spans of each sentence as conlleval reads them."""
    return [
        {Span(first, last, kind) for kind, first, last in sequence_labeling.get_entities(list(one))}
        for one in tags
    ]


def _check(labels: Tags, predictions: Tags) -> None:
    if not len(labels):
        raise ValueError("Expected at least one sentence with tags. Received: none.")
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


def _counts(gold: Sequence[set[Span]], predicted: Sequence[set[Span]]) -> np.ndarray:
    """Right, predicted and gold spans of each sentence, `[sentences, 3]`."""
    pairs = zip(gold, predicted, strict=True)
    return np.array([(len(g & p), len(p), len(g)) for g, p in pairs])


def _right_words(labels: Tags, predictions: Tags) -> np.ndarray:
    """Right words and words of each sentence, `[sentences, 2]`."""
    pairs = zip(labels, predictions, strict=True)
    return np.array([(sum(map(str.__eq__, g, p)), len(g)) for g, p in pairs])


def _draws(count: int):
    """The bootstrap samples: numbers of sentences."""
    random = np.random.default_rng(_BOOTSTRAP_SEED)
    return (random.integers(count, size=count) for _ in range(RESAMPLES))


def _scores(name: str, right: int, predicted: int, gold: int) -> dict[str, float]:
    return {
        f"{name}_f1": _f1(right, predicted, gold),
        f"{name}_precision": _ratio(right, predicted),
        f"{name}_recall": _ratio(right, gold),
    }


def _of_type(spans: Sequence[set[Span]], kind: str) -> list[set[Span]]:
    return [{span for span in one if span.type == kind} for one in spans]


def _overlap(one: Span, other: Span) -> bool:
    return one.first <= other.last and other.first <= one.last


def _kind(gold: Span, predicted: Span) -> str:
    return "type" if (gold.first, gold.last) == (predicted.first, predicted.last) else "border"


def _tags_of(labels: Tags) -> list[str]:
    return sorted({tag for sentence in labels for tag in sentence} | {"O"})


def _f1(right: int, predicted: int, gold: int) -> float:
    return _ratio(2 * right, predicted + gold)


def _ratio(part: int, whole: int) -> float:
    return float(part / whole) if whole else 0.0
