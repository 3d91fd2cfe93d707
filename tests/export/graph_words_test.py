"""Words inside the graph against those outside, character by character and on hard texts."""

import random

import pytest
import tensorflow as tf

from xdistil_tf.data import raw_words
from xdistil_tf.export.graph_words import GraphWords

HARD = [
    "",
    "   ",
    "Ada Lovelace, lived in London.",
    "  a\u00a0b\tc\u3000d\u2028e  ",
    "中文abc 漢字，x",
    "x\u200bz\u0007q \u0000y",
    "e\u0301a (b)—c… „d“ ¿que?",
    "\U0001f600ok! \U00020000\U0002a700z",
    "हिन्दी में। العربية؟ ไทย",
    "[MASK] ##s $5.00 a_b",
]


@pytest.fixture(scope="module", params=["bert", "bert-without-chinese", "spaces"])
def split(request):
    return {
        "bert": raw_words._split_as_bert,
        "bert-without-chinese": raw_words._split_punctuation,
        "spaces": raw_words.split_at_spaces,
    }[request.param]


@pytest.fixture(scope="module")
def graph(split):
    module = GraphWords(split)
    return tf.function(module.__call__, input_signature=[tf.TensorSpec([None], tf.string)])


def expected(split, text):
    spans = split(text)
    return [text[first:stop] for first, stop in spans], [list(one) for one in spans]


def found(graph, texts):
    words, begins, ends = (one.to_list() for one in graph(tf.constant(texts)))
    spans = [list(map(list, zip(*one, strict=True))) for one in zip(begins, ends, strict=True)]
    return [([word.decode() for word in words[row]], spans[row]) for row in range(len(texts))]


def test_hard_texts_have_the_same_words(split, graph):
    assert found(graph, HARD) == [expected(split, text) for text in HARD]
    for text in HARD:
        assert found(graph, [text]) == [expected(split, text)]
    assert graph(tf.zeros([0], tf.string))[0].to_list() == []


def test_random_texts_have_the_same_words(split, graph):
    rng = random.Random(0)
    ranges = [
        (32, 127),
        (0, 64),
        (0xA0, 0x600),
        (0x2000, 0x2070),
        (0x3000, 0x30FF),
        (0x4DF0, 0x4E10),
    ]
    ranges += [(0xFF00, 0xFF70), (0x1F600, 0x1F650), (0x1FFFF, 0x20002)]
    texts = [
        "".join(chr(rng.randrange(*rng.choice(ranges))) for _ in range(rng.randrange(40)))
        for _ in range(300)
    ]
    assert found(graph, texts) == [expected(split, text) for text in texts]


def test_bytes_that_are_no_text_are_one_character_each(graph):
    words, begins, ends = graph(tf.constant([b"a \xff\xfe b", "é".encode()]))
    assert words.to_list()[0] == [b"a", "\ufffd\ufffd".encode(), b"b"]
    assert (begins.to_list(), ends.to_list()) == ([[0, 2, 5], [0]], [[1, 4, 6], [1]])
