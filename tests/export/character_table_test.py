"""The table of single characters against the Rust normaliser and pre-tokenizer."""

import random

import pytest
from tokenizers import normalizers, pre_tokenizers

from xdistil_tf.export.character_table import ITSELF, build_character_table

_SPLIT = pre_tokenizers.BertPreTokenizer()
_SETTINGS = {
    "cased": {"lowercase": False},
    "uncased": {"lowercase": True},
    "accents kept": {"lowercase": True, "strip_accents": False},
    "nothing cleaned": {
        "lowercase": True,
        "clean_text": False,
        "handle_chinese_chars": False,
        "strip_accents": False,
    },
}


@pytest.fixture(scope="module", params=_SETTINGS, ids=lambda name: name.replace(" ", "_"))
def case(request):
    normalizer = normalizers.BertNormalizer(**_SETTINGS[request.param])
    return normalizer, build_character_table(normalizer, _SPLIT)


def _words(table, text):
    replaced = "".join(chr(value) for char in text for value in table.replacement(ord(char)))
    return [word for word in replaced.split(" ") if word]


def test_every_character_gives_the_words_of_the_training_tokenizer(case):
    normalizer, table = case
    blocks = [
        range(0x3400),
        range(0xF900, 0x11000),
        range(0x1D000, 0x1F700),
        range(0xE0000, 0xE0200),
    ]
    sample = [code for block in blocks for code in block if not 0xD800 <= code < 0xE000]
    sample += random.Random(0).sample(range(0x11000, 0x110000), 3000)
    wrong = []
    for code in sample:
        text = f"x{chr(code)}y"
        expected = [word for word, _ in _SPLIT.pre_tokenize_str(normalizer.normalize_str(text))]
        if _words(table, text) != expected:
            wrong.append((hex(code), expected))
    assert wrong == []


def test_known_characters_of_an_uncased_tokenizer():
    normalizer = normalizers.BertNormalizer(lowercase=True)
    table = build_character_table(normalizer, _SPLIT, {0x10FF00: " [SEP] "})
    assert _words(table, "ÄIİẞΣ") == ["aiißσ"]
    assert _words(table, "a\u00adb\u0000c\ufffdd\u0301") == ["abcd"]
    assert _words(table, "我b,c\u3000d\te") == ["我", "b", ",", "c", "d", "e"]
    assert table.replacement(ord("b")) == [ord("b")]
    assert _words(table, "a\U0010ff00b") == ["a", "[SEP]", "b"]


def test_a_missing_normalizer_keeps_every_character():
    table = build_character_table(None, pre_tokenizers.BertPreTokenizer())
    assert _words(table, "Ä我 b.") == ["Ä我", "b", "."]
    assert ITSELF in table.values
