"""Word vectors: reduction, files, pruned vocabularies."""

import os
import pathlib

import numpy as np
import pytest

from xdistil_tf.models.embeddings import (
    observed_vocabulary,
    read_embeddings,
    read_rows,
    read_vectors,
    reduce_by_svd,
)


@pytest.fixture
def matrix():
    random = np.random.default_rng(0)
    return (random.normal(size=(40, 6)) @ random.normal(size=(6, 6)) + 2).astype(np.float32)


def write(folder, text, name="vectors.txt"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_reduction_is_that_of_a_singular_value_decomposition(matrix):
    reduced = reduce_by_svd(matrix, 3)
    centred = matrix.astype(np.float64) - matrix.mean(0, dtype=np.float64)
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    expected = centred @ directions[:3].T
    signs = np.sign((reduced * expected).sum(0))
    assert reduced.dtype == np.float32
    np.testing.assert_allclose(reduced, expected * signs, atol=1e-5)
    variances = reduced.var(0)
    assert np.all(np.diff(variances) < 0)


def test_reduction_keeps_distances_at_full_width(matrix):
    reduced = reduce_by_svd(matrix, 6)

    def distances(rows):
        return np.linalg.norm(rows[:, None] - rows[None], axis=-1)

    np.testing.assert_allclose(distances(reduced), distances(matrix), atol=1e-4)


def test_signs_do_not_depend_on_the_sign_of_the_input(matrix):
    np.testing.assert_allclose(reduce_by_svd(matrix, 4), -reduce_by_svd(-matrix, 4), atol=1e-5)
    np.testing.assert_array_equal(reduce_by_svd(matrix, 4), reduce_by_svd(matrix, 4))


def test_reduction_crosses_chunks():
    tall = np.random.default_rng(1).normal(size=(8200, 3))
    reduced = reduce_by_svd(tall, 3)
    centred = tall - tall.mean(0)
    np.testing.assert_allclose(
        np.linalg.norm(reduced, axis=1), np.linalg.norm(centred, axis=1), rtol=1e-5
    )


def test_reduction_refuses_what_it_cannot_do(matrix):
    with pytest.raises(ValueError, match="Expected 1..6.*Received: 7. Use a smaller dim"):
        reduce_by_svd(matrix, 7)
    matrix[1, 1] = np.nan
    with pytest.raises(ValueError, match="Expected finite values"):
        reduce_by_svd(matrix, 2)


def test_vectors_are_found_by_piece_then_bare_then_lower_case(tmp_path):
    path = write(tmp_path, "the 1 2\n##ed 3 4\ning 5 6\ned 7 8\nParis 9 10\n")
    tokens = ["[PAD]", "the", "##ed", "##ing", "The", "Paris", "##THE", "▁the"]
    matrix, found = read_vectors(path, tokens, seed=1)
    assert found.tolist() == [False, True, True, True, True, True, True, True]
    expected = [[1, 2], [3, 4], [5, 6], [1, 2], [9, 10], [1, 2], [1, 2]]
    np.testing.assert_array_equal(matrix[1:], expected)
    assert matrix.dtype == np.float32 and matrix.shape == (8, 2)


def test_missing_rows_follow_from_the_seed(tmp_path):
    path = write(tmp_path, "the 1 2\n")
    tokens = ["a", "the", "b"]
    one, found = read_vectors(path, tokens, seed=1)
    assert found.tolist() == [False, True, False]
    assert np.abs(one[[0, 2]]).max() < 0.1
    np.testing.assert_array_equal(one, read_vectors(path, tokens, seed=1)[0])
    other = read_vectors(path, tokens, seed=2)[0]
    assert not np.allclose(one[0], other[0])
    np.testing.assert_array_equal(one[1], other[1])


@pytest.mark.parametrize(
    "text",
    [
        "2 3\nthe 1 2 3\n. . . 4 5 6\n",
        "the 1 2 3\n. . . 4 5 6\n",
        "2 3\nthe 1 2 3 \n. . . 4 5 6 \n",
        "the 1 2 3\n. . . 4 5 6",
    ],
)
def test_reads_headers_and_tokens_with_spaces(tmp_path, text):
    matrix, found = read_vectors(write(tmp_path, text), [". . .", "the"])
    assert found.all()
    np.testing.assert_array_equal(matrix, [[4, 5, 6], [1, 2, 3]])


@pytest.mark.parametrize(
    "text,message",
    [
        ("the 1 2\na 3\n", "vectors.txt:2: expected a token and 2 numbers. Received: 2 fields"),
        ("the 1 2\na 3 4 5\n", "vectors.txt:2: expected a token and 2 numbers. Received: 4 fields"),
        ("9 3\nthe 1 2\n", "vectors.txt:2: expected a token and 3 numbers"),
        ("the 1 2\na 3 x\n", "vectors.txt:2: expected numbers"),
        ("the 1 2\n\n", "vectors.txt:2: expected a token and 2 numbers"),
        ("", "has no vectors"),
        ("the\n", "vectors.txt:1: expected a token"),
    ],
)
def test_bad_vector_files_name_file_and_line(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read_vectors(write(tmp_path, text), ["the", "a"])


def test_reads_a_file_whose_line_is_the_id(tmp_path):
    path = write(tmp_path, "1 2\n-3e-2 4\n")
    np.testing.assert_allclose(read_rows(path, 2), [[1, 2], [-0.03, 4]])
    matrix, found = read_embeddings(path, ["a", "b"])
    np.testing.assert_allclose(matrix, [[1, 2], [-0.03, 4]])
    assert found.all()


@pytest.mark.parametrize(
    "text,message",
    [
        ("1.5 2\n", "has 1 vectors. Expected 2, one for each id"),
        ("1.5 2\n3\n", "vectors.txt:2: expected 2 numbers. Received: 1"),
        ("1.5 2\n3 x\n", "vectors.txt:2: expected numbers"),
        ("\n1 2\n", "vectors.txt:1: expected numbers. Received: 0"),
    ],
)
def test_bad_row_files_name_file_and_line(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read_rows(write(tmp_path, text), 2)


def test_tells_the_kinds_of_file_apart(tmp_path):
    for text in ("the 1 2\n1 3 4\n", "2 2\nthe 1 2\n1 3 4\n"):
        matrix, found = read_embeddings(write(tmp_path, text), ["the", "1", "x"])
        assert found.tolist() == [True, True, False]
        np.testing.assert_array_equal(matrix[:2], [[1, 2], [3, 4]])


def test_the_number_of_pieces_that_a_file_has_is_logged(tmp_path, caplog):
    path = write(tmp_path, "the 1 2\n1 3 4\n")
    with caplog.at_level("INFO", logger="absl"):
        read_embeddings(path, ["the", "1", "x"])
    assert f"{path} has vectors for 2 of 3 pieces; the others are drawn." in caplog.text


def test_unobserved_ids_share_the_unknown_row():
    remap, kept = observed_vocabulary(np.array([0, 5, 0, 1, 0, 2]), special_ids=[0, 2])
    assert kept.tolist() == [0, 1, 2, 3, 5]
    assert remap.tolist() == [0, 1, 2, 3, 2, 4]
    assert remap.dtype == np.int32
    remap, kept = observed_vocabulary(np.array([0, 1, 0]), special_ids=[0], unknown_id=0)
    assert remap.tolist() == [0, 1, 0] and kept.tolist() == [0, 1]


def test_observed_vocabulary_needs_an_unknown_piece():
    with pytest.raises(ValueError, match="Missing unknown_id"):
        observed_vocabulary(np.ones(3), special_ids=[0])
    with pytest.raises(ValueError, match="Expected ids in 0..2"):
        observed_vocabulary(np.ones(3), special_ids=[0, 3])


@pytest.mark.skipif("XDISTIL_DATA" not in os.environ, reason="needs XDISTIL_DATA")
def test_reads_genuine_vectors():
    folder = pathlib.Path(os.environ["XDISTIL_DATA"])
    vocabulary = folder / "bert" / "vocab" / "bert-base-uncased.vocab.txt"
    tokens = vocabulary.read_text(encoding="utf-8").splitlines()
    matrix, found = read_embeddings(folder / "vectors" / "glove.6B.50d.top.txt", tokens)
    assert matrix.shape == (30522, 50)
    assert 5000 < found.sum() < 20000


def write_binary(path, vectors, header=None, between=b"\n"):
    rows = [word.encode() + b" " + np.asarray(row, "<f4").tobytes() for word, row in vectors]
    width = len(vectors[0][1])
    head = header or f"{len(vectors)} {width}"
    path.write_bytes(head.encode() + b"\n" + between.join(rows))


@pytest.mark.parametrize("between", [b"\n", b""])  # Google's file has no line ends between rows.
def test_binary_vectors_are_those_of_the_text(tmp_path, between):
    random = np.random.default_rng(0)
    vectors = [(word, random.normal(size=5)) for word in ("the", "New_York", "naïve", "Paris")]
    write_binary(tmp_path / "vectors.bin", vectors, between=between)
    tokens = ["[PAD]", "paris", "the", "naïve", "soup"]
    matrix, found = read_embeddings(tmp_path / "vectors.bin", tokens)
    assert found.tolist() == [False, True, True, True, False]
    np.testing.assert_array_equal(matrix[1], np.float32(vectors[3][1]))
    np.testing.assert_array_equal(matrix[3], np.float32(vectors[2][1]))


def test_binary_vectors_that_end_early_are_refused(tmp_path):
    write_binary(tmp_path / "vectors.bin", [("the", np.ones(50) / 3)], header="3 50")
    with pytest.raises(ValueError, match="ends in vector 2. Expected 3 of 50 numbers"):
        read_vectors(tmp_path / "vectors.bin", ["the"])


def test_a_word_is_looked_up_in_other_capitals(tmp_path):
    path = write(tmp_path, "Paris 1 2\nUSA 3 4\nusa 9 9\nNASA 5 6\n")
    matrix, found = read_vectors(path, ["paris", "usa", "nasa", "soup"])
    assert found.tolist() == [True, True, True, False]
    assert matrix[:3].tolist() == [[1, 2], [9, 9], [5, 6]]


def test_rows_without_a_vector_are_drawn_from_the_range(tmp_path):
    path = write(tmp_path, "the 1 2\n")
    matrix, _ = read_vectors(path, [f"w{n}" for n in range(500)], limit=0.25)
    assert 0.24 < np.abs(matrix).max() < 0.25
