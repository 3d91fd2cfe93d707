import random

import pytest
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers

from xdistil_tf.data.pretraining import words
from xdistil_tf.data.tokenization import load_tokenizer
from xdistil_tf.data.tokenizer import Tokenizer

LINES = [
    "Good FILM, a good-film!",
    "  two  spaces \t tab\u00a0no-break\u3000wide\u2009thin ",
    "[MASK] in[MASK]words [CLS][SEP] [mask] [ MASK ]",
    "caf\u00e9 cafe\u0301 \u0301lonely \u00e9\u0301 \u0323\u0307a \u03a3\u03a3 \u0130stanbul",
    "\u4e2d\u6587good\u5b57 \u0000\ufffd \x1c\x1d\x85 \u200b\u200d soft\u00adhyphen",
    "x" * 150 + " " + "good" * 30,
    "",
    " ",
]


def direct(tokenizer, lines):
    return [
        one.ids for one in tokenizer.backend.encode_batch(list(lines), add_special_tokens=False)
    ]


def sentences(made):
    ids, sizes = made
    rest = iter(ids)
    found = [[next(rest) for _ in range(size)] for size in sizes]
    assert next(rest, None) is None
    return found


@pytest.mark.parametrize("lower", [True, False])
def test_looked_up_words_are_what_whole_lines_give(vocabulary, lower):
    tokenizer = load_tokenizer(vocabulary, do_lower_case=lower)
    assert words.spaces_separate(tokenizer)
    tokenize = words.fast_tokenization(tokenizer)
    rng = random.Random(0)
    characters = list("".join(LINES)) + [" "] * 40
    lines = LINES + ["".join(rng.choices(characters, k=60)) for _ in range(2000)]
    assert sentences(tokenize(lines)) == direct(tokenizer, lines)
    assert sentences(tokenize(lines[::-1])) == direct(tokenizer, lines[::-1])


@pytest.mark.parametrize(("name", "limit"), [("_REMEMBERED", 4), ("_CHARACTERS", 20)])
def test_words_are_forgotten_when_they_are_too_many(tokenizer, monkeypatch, name, limit):
    monkeypatch.setattr(words, name, limit)
    tokenize = words.fast_tokenization(tokenizer)
    for lines in (["good bad film"], ["the good a in"], ["verylong"], ["good", "verylong bad"], []):
        assert sentences(tokenize(lines)) == direct(tokenizer, lines)
        remembered = {"_REMEMBERED": len(tokenize._numbers), "_CHARACTERS": tokenize._characters}
        assert remembered[name] <= limit
        assert sum(map(len, tokenize._numbers)) == tokenize._characters


def test_more_new_words_than_are_remembered_are_tokenized_all_the_same(tokenizer, monkeypatch):
    monkeypatch.setattr(words, "_REMEMBERED", 2)
    tokenize, lines = words.fast_tokenization(tokenizer), ["good bad film in", "the a"]
    for _ in range(2):
        assert sentences(tokenize(lines)) == direct(tokenizer, lines)


def test_tokenizers_that_see_across_spaces_get_whole_lines(tokenizer):
    backend = tokenizers.Tokenizer.from_str(tokenizer.backend.to_str())
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    other = Tokenizer(backend, tokenizer.special_tokens)
    assert not words.spaces_separate(other)
    lines = ["good film", "film good"]
    assert sentences(words.fast_tokenization(other)(lines)) == direct(other, lines)

    added = tokenizers.Tokenizer.from_str(tokenizer.backend.to_str())
    added.add_tokens(["good film"])
    two_words = Tokenizer(added, tokenizer.special_tokens)
    assert not words.spaces_separate(two_words)
    assert sentences(words.fast_tokenization(two_words)(lines)) == direct(two_words, lines)

    assert not words.spaces_separate(
        Tokenizer(tokenizers.Tokenizer(models.WordLevel({"a": 0}, unk_token="a")), {})
    )
    plain = tokenizers.Tokenizer.from_str(tokenizer.backend.to_str())
    plain.normalizer = normalizers.Lowercase()
    assert not words.spaces_separate(Tokenizer(plain, tokenizer.special_tokens))
