"""Sentences end where a reader says so, in any script, and nothing is lost."""

import re
import time

import pytest

from xdistil_tf.data.corpus import sentences
from xdistil_tf.data.corpus.sentences import LONGEST, split_text


@pytest.mark.parametrize(
    "expected",
    [
        ["Dr. Miller went to Oslo.", "He paid 3.50 for it, e.g. a coffee."],
        ["J. R. R. Hill wrote it.", "George W. Stone read it."],
        ["She lives in St. Anton.", "Mr. and Mrs. Y. do not."],
        ["It is in vol. 3, pp. 5-6, Fig. 2.", "The rest is lost."],
        ["He came at 5 p.m. on Jan. 5.", "She left."],
        ["He moved to the U.S. Army base.", "He liked the U.S.", "The end."],
        ["They need vitamin C.", "The next one too."],
        ["He worked for Acme Inc. in 1990.", "Then he left."],
        ['"Is it?" she asked.', "Yes!", "No?"],
        ["(It ended.)", "So what.", "Hm..."],
        ["Am 3. Oktober 1990 war es, im 19. Jahrhundert nicht.", "Das ist z. B. wahr."],
        ["В 1990 г. он умер.", "Памятник им. А. С. Иванова стоит."],
        ["你好。", "我是学生！", "你呢？", "3.5米。"],
        ["これは本です。", "「はい。」と言った。", "それはペンです。"],
        ["यह एक वाक्य है।", "यह दूसरा है॥"],
        ["هل هذا سؤال؟", "نعم، هذا نص."],
        ["یہ اردو ہے۔", "دوسرا جملہ۔"],
        ["ภาษาไทย ไม่มีจุด"],
    ],
)
def test_splits_where_a_reader_would(expected):
    between = "" if re.search("[\u3040-\u9fff]", expected[0]) else " "
    assert split_text(between.join(expected)) == expected


def test_scripts_without_spaces_need_none_after_their_stop():
    assert split_text("है।यह दूसरा।هل؟نعم۔یہ") == ["है।", "यह दूसरा।", "هل؟", "نعم۔", "یہ"]


def test_a_line_ends_a_sentence_and_white_space_becomes_one_space():
    assert split_text("No stop here\nTwo\t words\u00a0 more.  ") == [
        "No stop here",
        "Two words more.",
    ]


def test_what_has_no_word_is_no_sentence():
    assert split_text("* * *\n...\n—\n \nA.") == ["A."]
    assert split_text("") == []


def test_odd_characters_stay_writable():
    (text,) = split_text("\ufeffa\x00b \ud800c")
    assert text == "ab \ufffdc"
    assert text.encode("utf-8")


def test_long_text_is_cut_between_words():
    text = "words " * 2000
    parts = split_text(text)
    assert [len(one) <= LONGEST for one in parts] == [True] * len(parts) and len(parts) == 3
    assert " ".join(parts) == text.strip()


def test_a_word_that_is_too_long_is_cut_before_a_whole_letter():
    text = ("a" * (LONGEST - 1) + "e\u0301\u0302") * 2
    parts = split_text(text)
    assert "".join(parts) == text
    assert all(len(one) <= LONGEST for one in parts)
    assert not any(one.startswith(("\u0301", "\u0302")) for one in parts)


@pytest.mark.parametrize(
    "unit", ["a", "a. ", "A. ", ". ", "。", "\u0301", "Dr. ", "A.B", '"', "(", "?!", "1. ", "x… "]
)
def test_a_line_of_100_kb_is_quick_and_loses_no_character(unit):
    text = unit * (100_000 // len(unit))
    began = time.monotonic()
    parts = split_text(text)
    assert time.monotonic() - began < 10.0
    if sentences._HAS_WORD.search(text) and unit[0] not in ".x":
        assert "".join(parts).replace(" ", "") == text.replace(" ", "")
