import numpy as np
import pytest
import seqeval.metrics
from seqeval import scheme

from xdistil_tf import metrics
from xdistil_tf.metrics import spans

TAGS = ("O", "B-PER", "I-PER", "B-ORG", "I-ORG")


def test_by_hand():
    labels = [["B-PER", "I-PER", "O"], ["B-ORG", "O", "B-PER"]]
    predictions = [["B-PER", "I-PER", "O"], ["B-ORG", "I-ORG", "O"]]
    values = spans.compute(labels, predictions)
    assert values["span_precision"] == 1 / 2
    assert values["span_recall"] == 1 / 3
    assert values["span_f1"] == pytest.approx(2 * 1 / (2 + 3))


def test_equals_strict_seqeval():
    random = np.random.default_rng(0)
    for _ in range(20):
        lengths = random.integers(1, 9, size=6)
        labels, predictions = (
            [[TAGS[i] for i in random.integers(0, 5, n)] for n in lengths] for _ in range(2)
        )
        expected = seqeval.metrics.f1_score(
            labels, predictions, mode="strict", scheme=scheme.IOB2, zero_division=0
        )
        assert spans.compute(labels, predictions)["span_f1"] == pytest.approx(expected)


def test_a_span_must_begin_with_b_and_ends_with_its_sentence():
    labels = [["B-PER"], ["I-PER"]]
    assert spans.compute(labels, [["B-PER"], ["O"]])["span_f1"] == 1.0
    assert spans.compute(labels, [["I-PER"], ["O"]])["span_f1"] == 0.0


def test_no_spans_at_all_give_zero():
    values = spans.compute([["O", "O"]], [["O", "O"]])
    assert values == {
        "span_f1": 0.0,
        "span_precision": 0.0,
        "span_recall": 0.0,
        "standard_error": 0.0,
    }


def test_standard_error_is_seeded_and_shrinks_with_the_number_of_sentences():
    labels = [["B-PER", "O"], ["B-ORG", "O"], ["O", "B-PER"]]
    predictions = [["B-PER", "O"], ["O", "O"], ["B-ORG", "B-PER"]]
    few = spans.compute(labels, predictions)["standard_error"]
    assert few == spans.compute(labels, predictions)["standard_error"]
    many = spans.compute(labels * 25, predictions * 25)["standard_error"]
    assert 0 < many < few / 3


def test_best_constant():
    assert metrics.best_constant("span_f1", [["O", "O"]]) == 0.0
    # B-PER everywhere: 3 predicted, 1 right, 2 gold.
    assert metrics.best_constant("span_f1", [["B-PER", "O"], ["B-ORG"]]) == pytest.approx(2 / 5)


def test_words_take_the_tag_of_their_first_piece():
    tags = spans.word_tags([0, 1, 2, 3, 0, 0], [-1, 0, 0, 1, -1, -1], 3, TAGS)
    assert tags == ["B-PER", "B-ORG", "O"]


@pytest.mark.parametrize(
    ("labels", "predictions", "message"),
    [
        ([], [], "at least one sentence"),
        ([["O"]], [], "1 labelled and 0 predicted"),
        ([["O"], ["O", "O"]], [["O"], ["O"]], "sentence 1. Received: 2 words and 1 tags"),
    ],
)
def test_errors(labels, predictions, message):
    with pytest.raises(ValueError, match=message):
        spans.compute(labels, predictions)
