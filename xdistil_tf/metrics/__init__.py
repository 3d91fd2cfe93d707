"""Metrics by name: what a task is measured by, selected by and reported with."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from xdistil_tf.metrics import by_language as _by_language
from xdistil_tf.metrics import classification, spans

# Of tags: function of labels and predictions, and the best that one tag for every word reaches.
_OF_TAGS = {
    "span_f1": (spans.compute, spans.best_constant),
    "word_accuracy": (spans.compute_words, spans.best_constant_word),
}
METRICS = (*classification.CLASSIFICATION, *classification.REGRESSION, *_OF_TAGS)
# What a stage may be selected by that is not a metric; smaller is better.
_LOSSES = ("objective", "loss", "masked_lm_loss", "perplexity")
# The mean of a task's metric over languages.
MACRO = "macro"
# Of a masked language model; `pretraining_scores` computes them.
_OF_MASKED_LM = ("masked_lm_accuracy", "next_sentence_accuracy")


def compute(metric: str, labels: Sequence, predictions: Sequence) -> dict[str, float]:
    """All metrics of the task that `metric` is the primary one of, and its `standard_error`.

    Args:
      metric: One of `METRICS`.
      labels: Class indices, values, or of `span_f1` and `word_accuracy` the tags of each
        sentence's words.
      predictions: Scores `[N, C]` or `[N]`, or tags like the labels'.

    Returns:
      Values by name; see `classification.compute` and `spans.compute`.

    Raises:
      ValueError: If the metric is unknown or the data do not fit it.
    """
    _check(metric)
    if metric in _OF_TAGS:
        return _OF_TAGS[metric][0](labels, predictions)
    return classification.compute(metric, labels, predictions)


def compute_by_language(
    metric: str, labels: Sequence, predictions: Sequence, languages: Sequence[str]
) -> dict:
    """`compute` for each language, `macro_mean` and `deviation`; see `by_language.by_language`."""
    function = functools.partial(compute, metric)
    return _by_language.by_language(function, metric, labels, predictions, languages)


def best_constant(metric: str, labels: Sequence) -> float:
    """The best value that one answer to everything reaches: what any model has to beat."""
    _check(metric)
    if metric in _OF_TAGS:
        return _OF_TAGS[metric][1](labels)
    return classification.best_constant(metric, labels)


def higher_is_better(metric: str) -> bool:
    """True for metrics, False for losses and `objective`.

    >>> higher_is_better("accuracy"), higher_is_better("objective")
    (True, False)
    """
    if metric in _LOSSES:
        return False
    if metric != MACRO and metric not in _OF_MASKED_LM:
        _check(metric)
    return True


def _check(metric: str) -> None:
    if metric not in METRICS:
        raise ValueError(
            f"Unknown metric. Expected one of {sorted(METRICS)}. Received: metric={metric!r}."
        )
