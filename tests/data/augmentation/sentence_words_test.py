"""The words of a sentence, and what stands before them."""

import random
import string

import pytest

from xdistil_tf.data.augmentation import sentence_words
from xdistil_tf.data.augmentation.sentence_words import Sentence


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("I don't care, really.", "I do n't care , really ."),
        ("it 's a film's end", "it 's a film 's end"),
        ("well-made O'Neil l'homme", "well-made O'Neil l'homme"),
        ("3.5 of 1,000!!", "3.5 of 1,000 ! !"),
        ("wait... what -- no-one", "wait ... what -- no-one"),
        ("won’t ca n't", "wo n’t ca n't"),
        ("我爱foo bar", "我 爱 foo bar"),
        ("Größe naïve", "Größe naïve"),
    ],
)
def test_words_are_those_that_taggers_know(text, words):
    sentence = Sentence.of(text)
    assert sentence.words == words.split()
    assert "".join(sentence.pieces) == text
    assert [gap + word for gap, word in zip(sentence.gaps, sentence.words, strict=True)] == (
        sentence.pieces
    )


def test_words_that_go_on_with_another_are_known():
    assert Sentence.of("do n't isn't (a) x's").inner == {3, 6, 8}


def test_the_fast_way_finds_the_same_words():
    rng, letters = random.Random(1), string.ascii_letters + "09 .,-_!(" * 4
    for _ in range(2000):
        text = "".join(rng.choices(letters, k=20)).strip()
        assert Sentence.of(text).words == [word for _, word in sentence_words._WORD.findall(text)]
