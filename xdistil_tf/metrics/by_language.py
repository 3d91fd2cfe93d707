"""A metric for each language apart, and its mean and deviation over languages."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np


def by_language(
    compute: Callable[[Sequence, Sequence], dict[str, float]],
    metric: str,
    labels: Sequence,
    predictions: Sequence,
    languages: Sequence[str],
) -> dict:
    """Computes a metric within each language.

    Args:
      compute: Gives the metrics of labels and predictions, such as `spans.compute`.
      metric: The one to average over languages.
      labels: One per example.
      predictions: One per example.
      languages: One per example.

    Returns:
      `languages`: by language, in alphabetical order, its metrics and its number of `examples`;
      `macro_mean`: the mean over languages, each counting the same; `deviation`: the standard
      deviation over languages (of these languages, not of a sample of languages).

    Raises:
      ValueError: If the lengths differ, or there are no examples.
    """
    if not len(labels) == len(predictions) == len(languages) or not len(labels):
        raise ValueError(
            "Expected as many languages as labels and predictions, at least one. "
            f"Received: {len(labels)} labels, {len(predictions)} predictions, "
            f"{len(languages)} languages."
        )
    rows: dict[str, list[int]] = {}
    for row, language in enumerate(languages):
        rows.setdefault(language, []).append(row)
    values = {}
    for language in sorted(rows):
        chosen = rows[language]
        metrics = compute([labels[i] for i in chosen], [predictions[i] for i in chosen])
        values[language] = metrics | {"examples": len(chosen)}
    primary = [metrics[metric] for metrics in values.values()]
    return {
        "languages": values,
        "macro_mean": float(np.mean(primary)),
        "deviation": float(np.std(primary)),
    }
