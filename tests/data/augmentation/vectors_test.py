"""Nearest neighbours by cosine, read block by block, and files as they are published."""

import numpy as np
import pytest

from xdistil_tf.data.augmentation import vectors
from xdistil_tf.data.augmentation.vectors import FileVectors, TableVectors

WORDS = ["good", "fine", "bad", "...", "awful", "7"]
ROWS = np.array([[1, 0], [2, 0.2], [-1, 0.1], [1, 0.01], [-3, 0], [1, 0]], np.float32)


def write(path, words=WORDS, rows=ROWS, header="", end="\n"):
    lines = [f"{w} {' '.join(map(str, row))}{end}" for w, row in zip(words, rows, strict=True)]
    path.write_text(header + "".join(lines), encoding="utf-8")
    return FileVectors(path)


def neighbours(table, wanted, count, **options):
    return vectors.nearest(table.of(wanted), table.blocks(), count, **options)


@pytest.mark.parametrize("block", [1, 2, 100])
@pytest.mark.parametrize("queries", [1, 100])
def test_neighbours_are_the_nearest_words_by_angle(tmp_path, monkeypatch, block, queries):
    monkeypatch.setattr(vectors, "_BLOCK", block)
    monkeypatch.setattr(vectors, "_QUERIES", queries)
    found = neighbours(write(tmp_path / "v.txt"), {"good", "awful", "unheard"}, 2)
    assert found == {"good": ("fine", "bad"), "awful": ("bad", "fine")}


def test_blocks_give_what_all_rows_at_once_would(monkeypatch):
    random = np.random.default_rng(0)
    words = ["".join(chr(97 + int(c)) for c in random.integers(0, 26, 6)) for _ in range(500)]
    matrix = random.normal(size=(500, 8)).astype(np.float32)
    asked = dict(zip(words[:40], matrix[:40], strict=True))
    unit = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
    cosines = unit[:40] @ unit.T
    cosines[np.arange(40), np.arange(40)] = -2
    expected = {
        word: tuple(words[place] for place in np.argsort(-row)[:7])
        for word, row in zip(words[:40], cosines, strict=True)
    }
    monkeypatch.setattr(vectors, "_BLOCK", 33)
    monkeypatch.setattr(vectors, "_QUERIES", 9)
    assert vectors.nearest(asked, TableVectors(words, matrix).blocks(), 7) == expected


def test_the_word_in_other_capitals_is_no_neighbour():
    table = TableVectors(["Soup", "SOUP", "soup", "stew"], np.ones((4, 2), np.float32))
    assert neighbours(table, {"soup"}, 3) == {"soup": ("stew",)}


def test_words_that_are_given_a_vector_need_no_row():
    table = TableVectors(WORDS, ROWS)
    found = vectors.nearest({"great": np.array([5.0, 0.4])}, table.blocks(), 1)
    assert found == {"great": ("fine",)}
    assert vectors.nearest({}, table.blocks(), 3) == {}


def test_a_vector_of_zeros_is_no_error():
    table = TableVectors(["a", "b"], np.zeros((2, 2), np.float32))
    assert neighbours(table, {"a"}, 3) == {"a": ("b",)}


def test_only_the_first_rows_count_if_so_many_are_asked_for(tmp_path):
    for table in (write(tmp_path / "v.txt"), TableVectors(WORDS, ROWS)):
        found = vectors.nearest(table.of({"good"}), table.blocks(1), 2, allowed=lambda word: True)
        assert found == {"good": ()}
        found = vectors.nearest(table.of({"good"}), table.blocks(4), 1, allowed=lambda word: True)
        assert found == {"good": ("...",)}


@pytest.mark.parametrize("header", ["", "3 2\n"])
@pytest.mark.parametrize("end", ["\n", " \n"])
def test_words_with_spaces_headers_and_spaces_at_the_end_are_read(tmp_path, header, end):
    words = ["good", ". . .", "at name@x"]
    table = write(tmp_path / "v.txt", words, ROWS[:3], header, end)
    (block,) = list(table.blocks())
    assert block[0] == words
    np.testing.assert_allclose(block[1], ROWS[:3])
    np.testing.assert_allclose(table.of({"at name@x"})["at name@x"], ROWS[2])


def test_a_vector_keeps_no_block_in_memory(tmp_path):
    found = write(tmp_path / "v.txt").of({"good", "bad"})
    assert all(one.base is None or one.base.size <= 2 for one in found.values())


def test_a_row_of_another_width_is_named(tmp_path):
    write(tmp_path / "v.txt")
    with open(tmp_path / "v.txt", "a") as handle:
        handle.write("short 1.0\n")
    with pytest.raises(ValueError, match="v.txt line 7: expected a word and 2 numbers"):
        neighbours(FileVectors(tmp_path / "v.txt"), {"good"}, 2)
    (tmp_path / "w.txt").write_text("alone\n")
    with pytest.raises(ValueError, match="w.txt line 1: expected a word and its numbers"):
        FileVectors(tmp_path / "w.txt")
    with pytest.raises(FileNotFoundError, match="Set --word_vectors"):
        FileVectors(tmp_path / "none.txt")
