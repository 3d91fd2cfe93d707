"""Text without the lines that are reported texts."""

import json

import pytest

from xdistil_tf.data.examples import Example
from xdistil_tf.data.pretraining.unseen_text import copy_without, text_keys

REPORTED = [
    Example("dev:1", "the soup  was great"),
    Example("dev:2", "a premise", "the waiter was kind"),
    Example("test:1", ("tagged", "words")),
]
TEXT = "the soup was great\nthe soup was cold\n\nthe waiter was kind\ntagged words\nthe soup was\n"


def test_lines_that_are_reported_texts_are_left_out(tmp_path):
    (tmp_path / "corpus.txt").write_text(TEXT)
    (copy,) = copy_without([f"{tmp_path}/*.txt"], text_keys(REPORTED), tmp_path / "text")
    assert copy.read_text() == "the soup was cold\n\nthe soup was\n"
    assert json.loads((tmp_path / "text" / "unseen.json").read_text())["dropped"] == 3


def test_a_copy_is_made_again_only_when_something_changed(tmp_path):
    source = tmp_path / "corpus.txt"
    source.write_text(TEXT)
    (copy,) = copy_without([str(source)], text_keys(REPORTED), tmp_path / "text")
    copy.write_text("touched")
    copy_without([str(source)], text_keys(REPORTED), tmp_path / "text")
    assert copy.read_text() == "touched"
    copy_without([str(source)], text_keys(REPORTED[:1]), tmp_path / "text")
    assert "the waiter was kind" in copy.read_text()
    source.write_text("something else\n")
    copy_without([str(source)], text_keys(REPORTED[:1]), tmp_path / "text")
    assert copy.read_text() == "something else\n"


def test_a_line_that_is_not_utf8_is_named(tmp_path):
    (tmp_path / "corpus.txt").write_bytes(b"fine\n\xff\n")
    with pytest.raises(ValueError, match="corpus.txt line 2: expected UTF-8"):
        copy_without([f"{tmp_path}/corpus.txt"], set(), tmp_path / "text")
