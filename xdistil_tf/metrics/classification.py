"""Metrics of classification and regression, with the standard error of the one that decides."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import stats
from sklearn import metrics as sklearn_metrics

RESAMPLES = 200
_BOOTSTRAP_SEED = 20


def compute(metric: str, labels, scores) -> dict[str, float]:
    """All metrics of a task, and how sure the primary one is.

    Args:
      metric: The primary metric, a key of `CLASSIFICATION` or `REGRESSION`.
      labels: Class indices `[N]`; for regression values `[N]`.
      scores: Scores before or after softmax `[N, C]`, or predicted classes, whole numbers `[N]`;
        for regression `[N]` or `[N, 1]`.

    Returns:
      Metrics by name and `standard_error` of the primary one: sqrt(p(1-p)/N) for accuracy, else
      the deviation over 200 seeded bootstrap samples.

    Raises:
      ValueError: If the metric is unknown, there are no examples, lengths differ, a score is not
        finite, or a binary metric is asked of other than two classes.
    """
    labels, scores = _check(metric, labels, scores)
    if metric in REGRESSION:
        values = {name: function(labels, scores) for name, function in REGRESSION.items()}
        return values | {"standard_error": _bootstrap_pairs(REGRESSION[metric], labels, scores)}
    predictions = scores if scores.ndim == 1 else scores.argmax(axis=-1)
    names = list(CLASSIFICATION)
    if not _is_binary(labels, scores):
        if metric in BINARY:
            raise ValueError(
                f"The metric {metric!r} is for two classes, 0 and 1. Received: labels up to "
                f"{labels.max()} and scores of shape {scores.shape}. Use 'macro_f1'."
            )
        names = [name for name in names if name not in BINARY]
    values = {name: CLASSIFICATION[name](labels, predictions) for name in names}
    if metric == "accuracy":
        p = values["accuracy"]
        return values | {"standard_error": float(np.sqrt(p * (1 - p) / len(labels)))}
    error = _bootstrap_cells(CLASSIFICATION[metric], labels, predictions)
    return values | {"standard_error": error}


def best_constant(metric: str, labels) -> float:
    """The best value that one answer to everything reaches; 0 for correlations.

    >>> best_constant("accuracy", [0, 1, 1, 2])
    0.5
    """
    if metric in REGRESSION:
        return 0.0
    labels, _ = _check(metric, labels, labels)
    function = CLASSIFICATION[metric]
    answers = (0, 1) if metric in BINARY else np.unique(labels)
    return max(function(labels, np.full_like(labels, answer)) for answer in answers)


def _check(metric: str, labels, scores) -> tuple[np.ndarray, np.ndarray]:
    if metric not in CLASSIFICATION and metric not in REGRESSION:
        raise ValueError(
            f"Unknown metric. Expected one of {[*CLASSIFICATION, *REGRESSION]}. "
            f"Received: metric={metric!r}."
        )
    labels, scores = np.asarray(labels), np.asarray(scores)
    if metric in REGRESSION and scores.ndim == 2 and scores.shape[1] == 1:
        scores = scores[:, 0]
    ranks = (1,) if metric in REGRESSION else (1, 2)
    if labels.ndim != 1 or scores.ndim not in ranks or len(labels) != len(scores):
        raise ValueError(
            f"Expected labels [N] and scores of as many examples for the metric {metric!r}. "
            f"Received: labels of shape {labels.shape}, scores of shape {scores.shape}."
        )
    if len(labels) == 0:
        raise ValueError(f"Expected at least one example for {metric!r}. Received: none.")
    if not np.isfinite(scores).all():
        raise ValueError(f"Expected finite scores for {metric!r}. Received: NaN or infinity.")
    if metric in REGRESSION:
        return labels.astype(np.float64), scores.astype(np.float64)
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"Expected class indices as labels. Received: {labels.dtype}.")
    if scores.ndim == 1 and not np.issubdtype(scores.dtype, np.integer):
        raise ValueError(
            f"Expected scores [N, C] or whole numbers [N]. Received: {scores.dtype} [N]."
        )
    return labels, scores


def _is_binary(labels: np.ndarray, scores: np.ndarray) -> bool:
    if scores.ndim == 2:
        return scores.shape[1] == 2
    return max(labels.max(), scores.max()) <= 1


def _accuracy(labels, predictions, weights=None) -> float:
    return float(sklearn_metrics.accuracy_score(labels, predictions, sample_weight=weights))


def _matthews(labels, predictions, weights=None) -> float:
    # One answer to everything correlates with nothing; scikit-learn warns about it.
    if len(np.unique(labels)) == 1 or len(np.unique(predictions)) == 1:
        return 0.0
    return float(sklearn_metrics.matthews_corrcoef(labels, predictions, sample_weight=weights))


def _f1(labels, predictions, weights=None) -> float:
    return float(
        sklearn_metrics.f1_score(
            labels, predictions, labels=[1], average="macro", sample_weight=weights, zero_division=0
        )
    )


def _macro_f1(labels, predictions, weights=None) -> float:
    return float(
        sklearn_metrics.f1_score(
            labels, predictions, average="macro", sample_weight=weights, zero_division=0
        )
    )


def _f1_accuracy(labels, predictions, weights=None) -> float:
    return (_f1(labels, predictions, weights) + _accuracy(labels, predictions, weights)) / 2


def _pearson(labels, scores) -> float:
    if np.ptp(labels) == 0 or np.ptp(scores) == 0:
        return 0.0
    return float(stats.pearsonr(labels, scores).statistic)


def _spearman(labels, scores) -> float:
    return _pearson(stats.rankdata(labels), stats.rankdata(scores))


def _pearson_spearman(labels, scores) -> float:
    return (_pearson(labels, scores) + _spearman(labels, scores)) / 2


def _bootstrap_pairs(function: Callable, labels: np.ndarray, scores: np.ndarray) -> float:
    random = np.random.default_rng(_BOOTSTRAP_SEED)
    draws = (random.integers(len(labels), size=len(labels)) for _ in range(RESAMPLES))
    return float(np.std([function(labels[draw], scores[draw]) for draw in draws], ddof=1))


def _bootstrap_cells(function: Callable, labels: np.ndarray, predictions: np.ndarray) -> float:
    """Resamples the cells of the confusion matrix: the same distribution, at a cost free of N."""
    cells, counts = np.unique(np.stack([labels, predictions], 1), axis=0, return_counts=True)
    random = np.random.default_rng(_BOOTSTRAP_SEED)
    draws = random.multinomial(len(labels), counts / len(labels), size=RESAMPLES)
    values = []
    for draw in draws:
        drawn = draw > 0
        values.append(function(cells[drawn, 0], cells[drawn, 1], draw[drawn]))
    return float(np.std(values, ddof=1))


# Of two classes, of which 1 is the positive one.
BINARY = ("f1", "f1_accuracy")

CLASSIFICATION: dict[str, Callable[..., float]] = {
    "accuracy": _accuracy,
    "matthews": _matthews,
    "macro_f1": _macro_f1,
    "f1": _f1,
    "f1_accuracy": _f1_accuracy,
}

REGRESSION: dict[str, Callable[..., float]] = {
    "pearson": _pearson,
    "spearman": _spearman,
    "pearson_spearman": _pearson_spearman,
}
