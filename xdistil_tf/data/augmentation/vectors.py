"""The nearest neighbours of words by their vectors, a block of the rows at a time.

```
which words have a vector -> blocks of rows -> cosines with some queries at once -> the best so far
```

Files may have millions of rows, and the words that are asked for may be many: neither all rows nor
all cosines are ever in memory.
"""

from __future__ import annotations

import collections
import itertools
import pathlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import numpy as np

_BLOCK = 20_000  # Rows.
_QUERIES = 256  # Compared with a block at once: 20 MB of cosines.
_SMALLEST_NORM = 1e-12

Blocks = Iterator[tuple[list[str], np.ndarray]]  # Words with their vectors [rows, D].


class FileVectors:
    """A GloVe or word2vec text file.

    The first row, or word2vec's header, tells the width; words may have spaces, as some of
    glove.840B.

    Raises:
      FileNotFoundError: If there is no such file.
      ValueError: While it is read, if a row has other numbers; names file and line.
    """

    def __init__(self, path: str | pathlib.Path):
        self._path = pathlib.Path(path)
        if not self._path.is_file():
            raise FileNotFoundError(
                f"No file {self._path}. Set --word_vectors to word vectors as text."
            )
        self._width, self._header = self._shape()

    def of(self, wanted: Collection[str]) -> dict[str, np.ndarray]:
        # Most rows are passed over without a look at their numbers.
        found: dict[str, np.ndarray] = {}
        firsts = {word.split(" ")[0] for word in wanted}
        for line in self._lines():
            if line[1].partition(" ")[0] in firsts:
                (word,), vectors = self._parsed([line])
                if word in wanted:
                    found.setdefault(word, vectors[0])
        return found

    def blocks(self, limit: int | None = None) -> Blocks:
        lines = itertools.islice(self._lines(), limit)
        while block := list(itertools.islice(lines, _BLOCK)):
            yield self._parsed(block)

    def _shape(self) -> tuple[int, bool]:
        """Numbers of a row, and whether the first line is word2vec's header."""
        with open(self._path, encoding="utf-8", errors="replace") as handle:
            first = handle.readline()
        cells = first.split()
        if len(cells) == 2 and all(one.isdigit() for one in cells):
            return int(cells[1]), True
        width = len(first.rstrip().split(" ")) - 1
        if width < 2:
            raise ValueError(
                f"{self._path} line 1: expected a word and its numbers, received {first[:40]!r}."
            )
        return width, False

    def _lines(self) -> Iterator[tuple[int, str]]:
        with open(self._path, encoding="utf-8", errors="replace") as handle:
            yield from itertools.islice(enumerate(handle, start=1), int(self._header), None)

    def _parsed(self, block: Sequence[tuple[int, str]]) -> tuple[list[str], np.ndarray]:
        # Some files end each row with a space.
        cells = [line.rstrip().rsplit(" ", self._width) for _, line in block]
        try:
            vectors = np.array([row[1:] for row in cells], np.float32)
            if vectors.shape != (len(cells), self._width):
                raise ValueError
        except ValueError:
            number = next(
                n for (n, _), row in zip(block, cells, strict=True) if _bad(row, self._width)
            )
            raise ValueError(
                f"{self._path} line {number}: expected a word and {self._width} numbers, as in the "
                "first line. Download the file again, or remove the line."
            ) from None
        return [row[0] for row in cells], vectors


class TableVectors:
    """The rows of a table in memory, one for each word."""

    def __init__(self, words: Sequence[str], matrix: np.ndarray):
        self._words, self._matrix = words, matrix

    def of(self, wanted: Collection[str]) -> dict[str, np.ndarray]:
        rows = zip(self._words, self._matrix, strict=True)
        found: dict[str, np.ndarray] = {}
        for word, vector in rows:
            if word in wanted:
                found.setdefault(word, vector)
        return found

    def blocks(self, limit: int | None = None) -> Blocks:
        stop = len(self._words) if limit is None else min(limit, len(self._words))
        for start in range(0, stop, _BLOCK):
            rows = slice(start, min(start + _BLOCK, stop))
            yield list(self._words[rows]), self._matrix[rows]


def nearest(
    queries: Mapping[str, np.ndarray],
    blocks: Blocks,
    count: int,
    allowed: Callable[[str], bool] = str.isalpha,
) -> dict[str, tuple[str, ...]]:
    """The words whose vectors have the smallest angle to those of others.

    Args:
      queries: Words with their vectors.
      blocks: All words that may be neighbours, with their vectors.
      count: Neighbours of each, the word itself not among them, however it is capitalised.
      allowed: Which words may be neighbours.

    Returns:
      Word -> its neighbours, nearest first; of equally near ones the earlier row.
    """
    if not queries:
        return {}
    names = list(queries)
    best = _Best(names, count)
    directions = _normalised(np.stack([queries[name] for name in names]))
    for words, vectors in blocks:
        kept = [number for number, word in enumerate(words) if allowed(word)]
        if kept:
            table = _normalised(vectors[kept]).T
            best.add(directions, table, [words[number] for number in kept])
    return best.words()


class _Best:
    """The nearest words of each query among the rows that were seen."""

    def __init__(self, names: Sequence[str], count: int):
        self._names, self._count = names, count
        self._scores = np.full((len(names), count), -np.inf, np.float32)
        self._found = np.full((len(names), count), None, object)
        self._own = collections.defaultdict(list)
        for row, name in enumerate(names):
            self._own[name.lower()].append(row)

    def add(self, directions: np.ndarray, table: np.ndarray, words: Sequence[str]) -> None:
        """Compares all queries with some rows.

        Args:
          directions: [Q, D], of length 1.
          table: [D, R], the same.
          words: Of the R rows.
        """
        same = [
            (row, column)
            for column, word in enumerate(words)
            for row in self._own.get(word.lower(), ())
        ]
        named = np.array(words, object)
        for start in range(0, len(directions), _QUERIES):
            scores = directions[start : start + _QUERIES] @ table
            stop = start + len(scores)
            for row, column in same:
                if start <= row < stop:
                    scores[row - start, column] = -np.inf
            order = _largest(scores, self._count)
            scores = np.take_along_axis(scores, order, 1)
            # Earlier rows stand first, and stay first where scores are equal.
            both = np.concatenate([self._scores[start:stop], scores], 1)
            texts = np.concatenate([self._found[start:stop], named[order]], 1)
            chosen = np.argsort(-both, axis=1, kind="stable")[:, : self._count]
            self._scores[start:stop] = np.take_along_axis(both, chosen, 1)
            self._found[start:stop] = np.take_along_axis(texts, chosen, 1)

    def words(self) -> dict[str, tuple[str, ...]]:
        """Word -> its neighbours, nearest first."""
        return {
            name: tuple(self._found[row][self._scores[row] > -np.inf])
            for row, name in enumerate(self._names)
        }


def _largest(scores: np.ndarray, count: int) -> np.ndarray:
    """The places of the `count` largest of each row in rising order; int64 [Q, at most count]."""
    if scores.shape[1] <= count:
        return np.broadcast_to(np.arange(scores.shape[1]), scores.shape)
    return np.sort(np.argpartition(-scores, count - 1, axis=1)[:, :count], axis=1)


def _normalised(vectors: np.ndarray) -> np.ndarray:
    vectors = np.asarray(vectors, np.float32)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(norms, _SMALLEST_NORM)


def _bad(row: Sequence[str], width: int) -> bool:
    try:
        return len(np.array(row[1:], np.float32)) != width
    except ValueError:
        return True
