"""Which words of a text may be replaced, and where they stand."""

import pytest

from xdistil_tf.data import synthetic
from xdistil_tf.data.augmentation import words
from xdistil_tf.data.tokenization import load_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    (folder / "vocab.txt").write_text(
        "\n".join("[PAD] [UNK] [CLS] [SEP] [MASK] the soup was good , . un ##heard ##of 7 don ' t"
                  .split()) + "\n"
    )  # fmt: skip
    return load_tokenizer(folder / "vocab.txt", True)


def test_words_stand_where_their_pieces_do(tokenizer):
    (text,) = words.read_texts(tokenizer, ["The unheardof soup,  was GOOD."])
    assert [text.text[word.start : word.stop] for word in text.words] == [
        "The", "unheardof", "soup", ",", "was", "GOOD", ".",
    ]  # fmt: skip
    assert [(word.first, word.pieces) for word in text.words] == [
        (0, 1), (1, 3), (4, 1), (5, 1), (6, 1), (7, 1), (8, 1),
    ]  # fmt: skip
    assert len(text.ids) == 9


def test_function_words_digits_and_punctuation_are_never_replaced(tokenizer):
    (text,) = words.read_texts(tokenizer, ["The soup was good, 7 don't unheardof."])
    replaceable = [word.text for word in text.words if word.replaceable]
    assert replaceable == ["soup", "good", "unheardof"]


def test_wh_words_may_be_replaced_as_published():
    assert not {"what", "which", "who", "whom", "when", "where", "why", "how"} & words.STOP_WORDS
    assert {"not", "no", "nor", "the", "until"} <= words.STOP_WORDS
    assert "never" not in words.STOP_WORDS and "cannot" not in words.STOP_WORDS


def test_byte_level_words_begin_after_their_space(tmp_path):
    synthetic.generate_corpus(tmp_path / "corpus.txt", 20)
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, trainers

    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<s>", "</s>", "<pad>", "<unk>", "<mask>"]
    )
    backend.train([str(tmp_path / "corpus.txt")], trainer)
    backend.save(str(tmp_path / "tokenizer.json"))
    sentence = (tmp_path / "corpus.txt").read_text().splitlines()[0]
    (text,) = words.read_texts(load_tokenizer(tmp_path), [sentence])
    found = [sentence[word.start : word.stop] for word in text.words]
    assert "".join(found) == "".join(sentence.split())
    assert not any(one != one.strip() for one in found)
