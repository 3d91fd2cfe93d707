import numpy as np
import pytest

from xdistil_tf import metrics
from xdistil_tf.metrics import classification

LABELS = np.array([1, 1, 0, 0, 1, 0, 0, 0])
PREDICTIONS = np.array([1, 0, 0, 1, 1, 0, 0, 0])  # 2 true, 1 false positive; 1 false negative


def test_values_by_hand():
    values = metrics.compute("f1_accuracy", LABELS, PREDICTIONS)
    assert values["accuracy"] == 6 / 8
    assert values["f1"] == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    assert values["f1_accuracy"] == pytest.approx((0.75 + 2 / 3) / 2)
    assert values["matthews"] == pytest.approx((2 * 4 - 1 * 1) / np.sqrt(3 * 3 * 5 * 5))
    assert values["macro_f1"] == pytest.approx((2 / 3 + 8 / 10) / 2)


def test_scores_are_read_by_their_largest():
    scores = np.eye(2)[PREDICTIONS] * 3 - 1
    assert metrics.compute("accuracy", LABELS, scores) == metrics.compute(
        "accuracy", LABELS, PREDICTIONS
    )


def test_correlations_by_hand():
    labels, scores = [1.0, 2.0, 3.0, 4.0], [[1.0], [4.0], [9.0], [16.0]]
    values = metrics.compute("pearson_spearman", labels, scores)
    assert values["pearson"] == pytest.approx(np.corrcoef(labels, np.ravel(scores))[0, 1])
    assert values["spearman"] == pytest.approx(1.0)
    assert values["pearson_spearman"] == (values["pearson"] + values["spearman"]) / 2


def test_constant_answers_correlate_with_nothing():
    assert metrics.compute("pearson", [1.0, 2.0], [3.0, 3.0])["pearson"] == 0.0
    assert metrics.compute("matthews", LABELS, np.zeros(8, int))["matthews"] == 0.0
    assert metrics.compute("f1", LABELS, np.zeros(8, int))["f1"] == 0.0


def test_standard_error_of_accuracy_is_that_of_a_proportion():
    error = metrics.compute("accuracy", LABELS, PREDICTIONS)["standard_error"]
    assert error == pytest.approx(np.sqrt(0.75 * 0.25 / 8))


def test_bootstrap_is_seeded_and_agrees_with_the_proportion():
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 2000)
    predictions = np.where(random.random(2000) < 0.8, labels, 1 - labels)
    error = classification._bootstrap_cells(classification._accuracy, labels, predictions)
    assert error == classification._bootstrap_cells(classification._accuracy, labels, predictions)
    assert error == pytest.approx(np.sqrt(0.8 * 0.2 / 2000), rel=0.2)
    pairs = classification._bootstrap_pairs(classification._accuracy, labels, predictions)
    assert pairs == pytest.approx(error, rel=0.2)


def test_more_classes_have_no_binary_metrics():
    values = metrics.compute("macro_f1", [0, 1, 2, 2], np.eye(3)[[0, 1, 2, 0]])
    assert set(values) == {"accuracy", "macro_f1", "matthews", "standard_error"}
    with pytest.raises(ValueError, match="'f1' is for two classes.*Use 'macro_f1'"):
        metrics.compute("f1", [0, 1, 2, 2], np.eye(3)[[0, 1, 2, 0]])


@pytest.mark.parametrize(
    ("metric", "labels", "expected"),
    [
        ("accuracy", [0, 0, 0, 1], 0.75),
        ("matthews", [0, 0, 0, 1], 0.0),
        ("f1", [0, 0, 0, 1], 2 * 0.25 / 1.25),
        ("f1", [0, 0, 0], 0.0),
        ("f1_accuracy", [0, 0, 0, 1], 0.375),
        ("f1_accuracy", [1, 1, 1, 0], (2 * 0.75 / 1.75 + 0.75) / 2),
        ("macro_f1", [0, 0, 0, 1, 2], 0.75 / 3),
        ("pearson_spearman", [0.5, 1.0], 0.0),
    ],
)
def test_best_constant(metric, labels, expected):
    assert metrics.best_constant(metric, labels) == pytest.approx(expected)


def test_direction():
    assert all(metrics.higher_is_better(metric) for metric in metrics.METRICS)
    assert not metrics.higher_is_better("objective")
    assert not metrics.higher_is_better("loss")
    with pytest.raises(ValueError, match="Unknown metric.*'acuracy'"):
        metrics.higher_is_better("acuracy")


@pytest.mark.parametrize(
    ("metric", "labels", "scores", "message"),
    [
        ("acc", [0], [0], "Unknown metric. Expected one of .*'accuracy'"),
        ("accuracy", [], [], "at least one example"),
        ("accuracy", [0, 1], [0], r"labels of shape \(2,\), scores of shape \(1,\)"),
        ("accuracy", [0, 1], [[0.0, np.nan], [0.0, 1.0]], "finite scores"),
        ("accuracy", [0.0, 1.0], [0, 1], "Expected class indices"),
        ("accuracy", [0, 1], [0.2, 0.7], "whole numbers"),
        ("pearson", [0.0, 1.0], [[0.0, 1.0], [1.0, 1.0]], r"scores of shape \(2, 2\)"),
    ],
)
def test_errors(metric, labels, scores, message):
    with pytest.raises(ValueError, match=message):
        metrics.compute(metric, labels, scores)
