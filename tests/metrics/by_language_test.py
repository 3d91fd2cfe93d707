import pytest

from xdistil_tf import metrics


def test_each_language_counts_the_same():
    result = metrics.compute_by_language(
        "accuracy", [0, 1, 1, 1, 0], [0, 1, 1, 0, 1], ["en", "en", "en", "en", "de"]
    )
    assert list(result["languages"]) == ["de", "en"]
    assert result["languages"]["en"]["accuracy"] == 0.75
    assert result["languages"]["en"]["examples"] == 4
    assert result["languages"]["de"]["accuracy"] == 0.0
    assert result["macro_mean"] == 0.375
    assert result["deviation"] == 0.375


def test_spans():
    labels = [["B-PER"], ["B-PER"], ["B-ORG"]]
    predictions = [["B-PER"], ["O"], ["B-ORG"]]
    result = metrics.compute_by_language("span_f1", labels, predictions, ["sw", "sw", "hi"])
    assert result["languages"]["hi"]["span_f1"] == 1.0
    assert result["languages"]["sw"]["span_f1"] == pytest.approx(2 / 3)
    assert result["macro_mean"] == pytest.approx(5 / 6)


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="2 labels, 2 predictions, 1 languages"):
        metrics.compute_by_language("accuracy", [0, 1], [0, 1], ["en"])
