import pytest

from xdistil_tf.data.examples import Example
from xdistil_tf.data.features import Truncation, featurise, featurise_words


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
    ((features,),) = featurise_words([Example("x:1", ("good",))], tokenizer, ("O",))
    assert features["label_weights"] == [0.0, 0.0, 0.0]


def test_regression_pair(tokenizer):
    features = one(Example("x:1", "good", "bad", 2.5), tokenizer, "regression", ())
    assert features["label_values"] == [2.5]
    assert features["segment_ids"] == [0, 0, 0, 1, 1]


def tagged(tokenizer, labels=("O", "B-PER"), **options):
    example = Example("x:1", ("johns", "film", "sleeps"), label=("B-PER", "O", "O"))
    (windows,) = featurise_words([example], tokenizer, labels, **options)
    return windows


def test_a_tag_stands_on_the_first_piece_of_its_word(tokenizer):
    (features,) = tagged(tokenizer)
    assert features["word_index"] == [-1, 0, 0, 1, 2, -1]
    assert features["label_ids"] == [0, 1, 0, 0, 0, 0]
    assert features["label_weights"] == [0.0, 1.0, 0.0, 1.0, 1.0, 0.0]


def test_further_pieces_may_go_on_with_the_tag_of_their_word(tokenizer):
    (features,) = tagged(tokenizer, ("O", "B-PER", "I-PER"), all_pieces=True)
    assert features["label_ids"] == [0, 1, 2, 0, 0, 0]
    assert features["label_weights"] == [0.0, 1.0, 1.0, 1.0, 1.0, 0.0]
    (features,) = tagged(tokenizer, all_pieces=True)  # There is no tag that goes on.
    assert features["label_weights"] == [0.0, 1.0, 0.0, 1.0, 1.0, 0.0]


def test_each_word_of_a_windowed_sentence_counts_once(tokenizer):
    words = ("a", "good", "film", "in", "paris", "john", "sleeps", "the", "bad", "very")
    example = Example("x:1", words, label=("O",) * len(words))
    (windows,) = featurise_words([example], tokenizer, ("O",), max_seq_length=6)
    assert [one["id"] for one in windows] == [b"x:1", b"x:1/w2", b"x:1/w3"]
    counted = [
        word
        for one in windows
        for word, weight in zip(one["word_index"], one["label_weights"], strict=True)
        if weight
    ]
    assert counted == list(range(len(words)))


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


class _Renamed:
    """A tokenizer that calls its mask otherwise."""

    def __init__(self, tokenizer, special_tokens):
        self._tokenizer, self.special_tokens = tokenizer, special_tokens
        self.asked = []

    def encode_batch(self, texts, texts_b, max_length):
        self.asked += [*texts, *(texts_b or ())]
        return self._tokenizer.encode_batch(texts, texts_b, max_length)


def test_the_mask_of_rules_is_the_tokenizers_own(tokenizer):
    derived = Example("x:1", "a [MASK] film", "[MASK]", source_id="train:1")
    features = one(derived, tokenizer, "classification")
    assert features["input_ids"].count(tokenizer.mask_id) == 2
    for special, own in (
        ({"mask_token": "<mask>", "unk_token": "<unk>"}, "<mask>"),
        ({"unk_token": "<unk>"}, "<unk>"),
    ):
        renamed = _Renamed(tokenizer, special)
        one(derived, renamed, "classification")
        assert renamed.asked == [f"a {own} film", own]
        # A user's text says what it says.
        plain = _Renamed(tokenizer, special)
        one(Example("x:1", "a [MASK] film"), plain, "classification")
        assert plain.asked == ["a [MASK] film"]
