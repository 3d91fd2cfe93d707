"""What separates words of running text follows the tokenizer."""

import types

import pytest

from xdistil_tf.data import raw_words

TEXT = "中文ab, x-y"


@pytest.mark.parametrize(
    "normalizer,pre_tokenizer,expected",
    [
        ({"handle_chinese_chars": True}, {"type": "BertPreTokenizer"}, "中 文 ab , x - y"),
        ({"handle_chinese_chars": False}, {"type": "BertPreTokenizer"}, "中文ab , x - y"),
        (None, {"type": "BertPreTokenizer"}, "中文ab , x - y"),
        ({"handle_chinese_chars": True}, {"type": "Metaspace"}, "中文ab, x-y"),
        (None, None, "中文ab, x-y"),
    ],
)
def test_words_are_split_as_the_tokenizer_splits(normalizer, pre_tokenizer, expected):
    tokenizer = types.SimpleNamespace(normalizer=normalizer, pre_tokenizer=pre_tokenizer)
    spans = raw_words.word_splitter(tokenizer)(TEXT)
    assert [TEXT[start:stop] for start, stop in spans] == expected.split()
