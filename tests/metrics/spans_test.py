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
    assert values.pop("word_accuracy") == 1.0
    assert set(values.values()) == {0.0}


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


LABELS = [["B-PER", "I-PER", "O", "B-LOC"], ["O", "B-ORG"], ["B-PER", "O"]]
PREDICTIONS = [["B-PER", "O", "O", "B-ORG"], ["B-LOC", "O"], ["B-PER", "O"]]


def test_lenient_spans_may_begin_with_i_and_end_with_their_sentence():
    labels = [["B-PER", "I-PER", "O"], ["B-LOC", "O"]]
    predictions = [["I-PER", "I-PER", "O"], ["I-LOC", "I-PER"]]
    values = spans.compute(labels, predictions)
    assert values["span_f1"] == 0.0
    assert values["lenient_span_precision"] == 2 / 3
    assert values["lenient_span_recall"] == 1.0
    # `I-PER` at the end of one sentence, `B-PER I-PER` in the next: two spans.
    both = spans.lenient_spans([["O", "I-PER"], ["I-PER", "O"]])
    assert [{str(span) for span in one} for one in both] == [{"PER:1-1"}, {"PER:0-0"}]


def test_words_are_counted_one_by_one():
    values = metrics.compute("word_accuracy", LABELS, PREDICTIONS)
    assert values["word_accuracy"] == spans.compute(LABELS, PREDICTIONS)["word_accuracy"] == 4 / 8
    assert values["standard_error"] > 0
    assert metrics.best_constant("word_accuracy", LABELS) == 3 / 8


def test_types_are_scored_apart():
    found = spans.by_type(LABELS, PREDICTIONS)
    assert list(found) == ["LOC", "ORG", "PER"]
    assert found["PER"] == {"f1": 0.5, "precision": 0.5, "recall": 0.5, "support": 2}
    assert found["LOC"] == {"f1": 0.0, "precision": 0.0, "recall": 0.0, "support": 1}


def test_confusion_counts_gold_by_predicted():
    names = ("B-LOC", "B-ORG", "B-PER", "I-PER", "O")
    counts = np.array(spans.confusion(LABELS, PREDICTIONS, names))
    assert counts.sum() == 8
    assert counts[names.index("I-PER"), names.index("O")] == 1
    assert counts[names.index("B-LOC"), names.index("B-ORG")] == 1
    assert counts[names.index("B-PER"), names.index("B-PER")] == 2


def test_every_wrong_span_is_listed_with_what_overlaps_it():
    found = [
        (one.sentence, one.kind, str(one.gold), str(one.predicted))
        for one in spans.errors(LABELS, PREDICTIONS)
    ]
    assert found == [
        (0, "border", "PER:0-1", "PER:0-0"),
        (0, "type", "LOC:3-3", "ORG:3-3"),
        (1, "invented", "None", "LOC:0-0"),
        (1, "missed", "ORG:1-1", "None"),
    ]


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
