import pytest

from xdistil_tf.data.features import Truncation, featurise
from xdistil_tf.data.readers import Example


def one(example, tokenizer, task_type, labels=("0", "1"), **options):
    (features,) = featurise([example], tokenizer, task_type, labels, **options)
    return features


def test_classification(tokenizer):
    features = one(Example("train:1", "good film", label="1"), tokenizer, "classification")
    assert [tokenizer.tokens[token] for token in features["input_ids"]] == [
        "[CLS]", "good", "film", "[SEP]",
    ]  # fmt: skip
    assert features["input_mask"] == [1, 1, 1, 1]
    assert features["segment_ids"] == [0, 0, 0, 0]
    assert (features["label_ids"], features["label_weights"]) == ([1], [1.0])
    assert (features["id"], features["language"]) == (b"train:1", b"default")


def test_unknown_gold_has_weight_zero(tokenizer):
    features = one(Example("x:1", "good"), tokenizer, "classification")
    assert (features["label_ids"], features["label_weights"]) == ([0], [0.0])
    features = one(Example("x:1", "good"), tokenizer, "regression")
    assert (features["label_values"], features["label_weights"]) == ([0.0], [0.0])
    features = one(Example("x:1", ("good",)), tokenizer, "tagging")
    assert features["label_weights"] == [0.0, 0.0, 0.0]


def test_regression_pair(tokenizer):
    features = one(Example("x:1", "good", "bad", 2.5), tokenizer, "regression", ())
    assert features["label_values"] == [2.5]
    assert features["segment_ids"] == [0, 0, 0, 1, 1]


def test_a_tag_stands_on_the_first_piece_of_its_word(tokenizer):
    example = Example("x:1", ("johns", "film", "sleeps"), label=("B", "O", "O"))
    features = one(example, tokenizer, "tagging", ("O", "B"))
    assert features["word_index"] == [-1, 0, 0, 1, 2, -1]
    assert features["label_ids"] == [0, 1, 0, 0, 0, 0]
    assert features["label_weights"] == [0.0, 1.0, 0.0, 1.0, 1.0, 0.0]


def test_truncation_is_counted(tokenizer):
    counter = Truncation()
    examples = [Example("x:1", "a a a a"), Example("x:2", "a")]
    made = list(featurise(examples, tokenizer, "classification", ("0",), 4, truncation=counter))
    assert [len(features["input_ids"]) for features in made] == [4, 3]
    assert counter.count == 1


def test_a_label_outside_the_list_is_an_error(tokenizer):
    example = Example("x:1", "good", label="2", source=("train.tsv", 7))
    with pytest.raises(ValueError, match=r"train.tsv line 7: .*\['0', '1'\]. Received: '2'"):
        one(example, tokenizer, "classification")
