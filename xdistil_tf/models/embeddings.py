"""Word vectors for a small student: the teacher's, reduced, or a file's; and a smaller vocabulary.

The scale of the vectors is kept as it is: a teacher's word embeddings are small (BERT's have a
standard deviation of about 0.04), and so is what is made of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Sequence
from typing import BinaryIO

import numpy as np
from absl import logging

from xdistil_tf import files

_CHUNK = 8192


def reduce_by_svd(matrix: np.ndarray, dim: int) -> np.ndarray:
    """Principal components of the rows: the best `dim`-wide picture of their differences.

    Centred, as XtremeDistil's PCA of the teacher's word embeddings. Components come in order of
    falling variance; the entry of largest size in each direction is positive, so that signs do not
    depend on the linear algebra library. `dim` equal to the width rotates without loss (apart from
    the mean). Computed in float64 through the covariance, a chunk of rows at a time.

    Args:
      matrix: `[V, D]`.
      dim: 1..D.

    Returns:
      float32 `[V, dim]`.

    Raises:
      ValueError: If `dim` is out of range or the matrix has values that are not finite.
    """
    matrix = np.asarray(matrix)
    rows, width = matrix.shape
    if not 1 <= dim <= width:
        raise ValueError(
            f"Invalid embedding dim. Expected 1..{width}, the width of the teacher's word "
            f"embeddings. Received: {dim}. Use a smaller dim, or embedding.source random or file."
        )
    if not np.isfinite(matrix).all():
        raise ValueError("Invalid embedding matrix. Expected finite values. Received: NaN or inf.")
    mean = matrix.mean(0, dtype=np.float64)
    covariance = np.zeros((width, width))
    for start in range(0, rows, _CHUNK):
        centred = matrix[start : start + _CHUNK] - mean
        covariance += centred.T @ centred
    _, directions = np.linalg.eigh(covariance)
    directions = directions[:, ::-1][:, :dim]
    largest = directions[np.abs(directions).argmax(0), np.arange(dim)]
    directions = directions * np.where(largest < 0, -1.0, 1.0)
    reduced = np.empty((rows, dim), np.float32)
    for start in range(0, rows, _CHUNK):
        reduced[start : start + _CHUNK] = (matrix[start : start + _CHUNK] - mean) @ directions
    return reduced


def read_embeddings(
    path: files.Path, tokens: Sequence[str], seed: int = 0, limit: float = 0.1
) -> tuple[np.ndarray, np.ndarray]:
    """Reads a file of any kind: a token before each vector, or one vector a line.

    A file whose lines begin with a number each is of the second kind. With tokens it may be text or
    word2vec's binary format.

    Returns:
      As `read_vectors`.
    """
    with open(path, encoding="utf-8", errors="replace") as handle:
        first = [line.split() for line in itertools.islice(handle, 10)]
    if first and _is_header(first[0]):
        first = first[1:]
    if first and all(line and _is_number(line[0]) for line in first):
        return read_rows(path, len(tokens)), np.ones(len(tokens), bool)
    return read_vectors(path, tokens, seed, limit)


def read_vectors(
    path: files.Path, tokens: Sequence[str], seed: int = 0, limit: float = 0.1
) -> tuple[np.ndarray, np.ndarray]:
    """Reads GloVe's or word2vec's vectors, text or binary, for a vocabulary.

    A piece is looked up as it is, then without its continuation mark (`##ing` -> `ing`), then both
    in lower case, capitalised and in capitals. Pieces without a vector are drawn uniformly from
    (-limit, limit).

    ```
    the 0.418 0.24968 -0.41242
    . . . 0.1 0.2 0.3        (a token may contain spaces)
    ```

    Args:
      path: UTF-8; a first line of two integers is a header.
      tokens: The vocabulary in the order of its ids.
      seed: Of the drawn rows; they do not depend on what the file has.
      limit: Of the drawn numbers.

    Returns:
      float32 `[V, E]`, and boolean `[V]`: which rows the file gave.

    Raises:
      ValueError: If a line has another width than the first, or no vector; names file and line.
    """
    names = [_spellings(token) for token in tokens]
    wanted = {name for spellings in names for name in spellings}
    width, vectors = (_binary_vectors if _is_binary(path) else _text_vectors)(path, wanted)
    matrix = np.random.default_rng(seed).uniform(-limit, limit, (len(tokens), width))
    matrix = matrix.astype(np.float32)
    found = np.zeros(len(tokens), bool)
    for row, spellings in enumerate(names):
        name = next((name for name in spellings if name in vectors), None)
        if name is not None:
            matrix[row] = vectors[name]
            found[row] = True
    logging.info(
        "%s has vectors for %d of %d pieces; the others are drawn.", path, found.sum(), len(found)
    )
    return matrix, found


def read_rows(path: files.Path, vocab_size: int) -> np.ndarray:
    """Reads a file without tokens, whose line i (from 0) is the vector of id i.

    Returns:
      float32 `[vocab_size, E]`.

    Raises:
      ValueError: If a line has another width than the first, or the number of lines is not
        `vocab_size`; names file and line.
    """
    rows = []
    with open(path, encoding="utf-8") as handle:
        for number, line in enumerate(handle, 1):
            row = _numbers(line.split(), path, number)
            if not len(row) or (rows and len(row) != len(rows[0])):
                expected = f"{len(rows[0])} numbers" if rows else "numbers"
                raise ValueError(f"{path}:{number}: expected {expected}. Received: {len(row)}.")
            rows.append(row)
    if len(rows) != vocab_size:
        raise ValueError(
            f"{path} has {len(rows)} vectors. Expected {vocab_size}, one for each id of the "
            "tokenizer. Use the vectors of this vocabulary, or a file with tokens."
        )
    return np.stack(rows)


def observed_vocabulary(
    counts: np.ndarray, special_ids: Sequence[int], unknown_id: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Keeps the ids that occur; all others share the row of the unknown piece.

    >>> remap, kept = observed_vocabulary(np.array([0, 0, 3, 0, 2]), special_ids=[0, 1])
    >>> remap.tolist(), kept.tolist()
    ([0, 1, 2, 1, 3], [0, 1, 2, 4])

    Args:
      counts: `[V]`, how often each id occurs.
      special_ids: Kept whether they occur or not.
      unknown_id: The unknown piece. Default: the second special id, as in BERT's order padding,
        unknown, others.

    Returns:
      int32 `[V]`, the row of each id, and int64, the id of each row, ascending.

    Raises:
      ValueError: If an id is out of range, or there is no unknown piece.
    """
    counts = np.asarray(counts)
    if unknown_id is None:
        if len(special_ids) < 2:
            raise ValueError(
                "Missing unknown_id. Expected it, or at least two special ids. "
                f"Received: special_ids={list(special_ids)}."
            )
        unknown_id = special_ids[1]
    always = [*special_ids, unknown_id]
    if min(always) < 0 or max(always) >= len(counts):
        raise ValueError(
            f"Invalid special_ids. Expected ids in 0..{len(counts) - 1}. Received: {always}."
        )
    keep = counts > 0
    keep[always] = True
    kept = np.flatnonzero(keep)
    rows = np.cumsum(keep) - 1
    return np.where(keep, rows, rows[unknown_id]).astype(np.int32), kept


def _spellings(token: str) -> list[str]:
    bare = token[2:] if token.startswith("##") and len(token) > 2 else token.lstrip("▁Ġ") or token
    lower = bare.lower()
    # Some vectors know names in capitals alone, and texts are often in lower case.
    return list(dict.fromkeys([token, bare, token.lower(), lower, lower.title(), lower.upper()]))


def _text_vectors(path: files.Path, wanted: Collection[str]) -> tuple[int, dict[str, np.ndarray]]:
    """The width, and the vectors of the tokens that are wanted."""
    vectors: dict[str, np.ndarray] = {}
    width = None
    for number, token, values in _vector_lines(path):
        width = len(values) if width is None else width
        if token in wanted and token not in vectors:
            vectors[token] = _numbers(values, path, number)
    if width is None:
        raise ValueError(f"{path} has no vectors. Expected a token and its numbers in each line.")
    return width, vectors


def _is_binary(path: files.Path) -> bool:
    """Whether a file is word2vec's binary one: a header in text, then numbers in bytes."""
    with open(path, "rb") as handle:
        head, begun = handle.readline(200).split(), handle.read(4096)
    if len(head) != 2 or not all(one.isdigit() for one in head):
        return False
    # Of a text the first row goes on with numbers; the last of them may be cut off here.
    row = begun.partition(b"\n")[0].decode("latin-1").rstrip()
    numbers = row.rsplit(" ", int(head[1]))[1:] if len(begun) < 4096 else row.split(" ")[-9:-1]
    return not all(map(_is_number, numbers))


def _binary_vectors(path: files.Path, wanted: Collection[str]) -> tuple[int, dict[str, np.ndarray]]:
    """The width, and the vectors of the tokens that are wanted.

    Raises:
      ValueError: If the file ends early, or a token does not end; names it.
    """
    vectors: dict[str, np.ndarray] = {}
    with open(path, "rb") as handle:
        count, width = map(int, handle.readline().split())
        for number in range(1, count + 1):
            token = _binary_token(handle)
            content = handle.read(4 * width)
            if len(content) < 4 * width:
                raise ValueError(
                    f"{path} ends in vector {number}. Expected {count} of {width} numbers, as its "
                    "first line says. Download the file again."
                )
            text = token.decode("utf-8", "replace")
            if text in wanted and text not in vectors:
                vectors[text] = np.frombuffer(content, "<f4")
    return width, vectors


def _binary_token(handle: BinaryIO) -> bytes:
    """What stands before the next space; a line end before it belongs to the last vector."""
    token = bytearray()
    while (byte := handle.read(1)) not in (b" ", b""):
        token += byte
    return bytes(token).lstrip(b"\n")


def _vector_lines(path: files.Path) -> Iterator[tuple[int, str, list[str]]]:
    """Yields line number (from 1), token and the strings of its numbers."""
    width = None
    with open(path, encoding="utf-8", errors="replace", newline="\n") as handle:
        for number, line in enumerate(handle, 1):
            fields = line.rstrip().split(" ")
            if number == 1 and _is_header(fields):
                width = int(fields[1])
                continue
            if width is None:
                width = len(fields) - 1
            extra = fields[1:-width] if width else []
            # More numbers than expected are a wrong width; other words belong to the token.
            if width < 1 or len(fields) <= width or (extra and all(map(_is_number, extra))):
                raise ValueError(
                    f"{path}:{number}: expected a token and {max(width, 1)} numbers. "
                    f"Received: {len(fields)} fields."
                )
            yield number, " ".join(fields[:-width]), fields[-width:]


def _is_header(fields: Sequence[str]) -> bool:
    return len(fields) == 2 and all(field.isdigit() for field in fields)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _numbers(values: Sequence[str], path: files.Path, number: int) -> np.ndarray:
    try:
        return np.array(values, np.float32)
    except ValueError as error:
        raise ValueError(f"{path}:{number}: expected numbers. Received: {error}.") from error
