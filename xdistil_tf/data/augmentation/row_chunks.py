"""Rows of an augmented file, chunk by chunk: what is written twice is seen by digests alone.

```
chunks, in any order, by several processes -> rows-00000.tsv + .npz (digest, iteration of each row)
merge: digests of all -> which rows stay -> one file
```

A chunk whose `.npz` stands there is complete. 12 bytes a row are held in memory.
"""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from xdistil_tf import files
from xdistil_tf.data import split
from xdistil_tf.data.augmentation.rows import HEADER
from xdistil_tf.data.examples import Example


class Row(NamedTuple):
    """A row to be written.

    Attributes:
      id: Its own.
      text, text_b, label: Empty where there is none.
      source_id: Of the example that it is, or was made from.
      rules: What made it; empty of an example of the task.
      iteration: In which it was made; 0 of an example of the task.
    """

    id: str
    text: str
    text_b: str
    label: str
    source_id: str
    rules: str
    iteration: int


def write_chunk(
    work: pathlib.Path, number: int, rows: Iterable[Row], counts: Mapping[str, int]
) -> None:
    """Writes the rows of a chunk, and what was counted while they were made."""
    digests, iterations = [], []
    with files.replaced_file(_path(work, number, "tsv"), "w") as handle:
        for row in rows:
            digests.append(_digest(row.text, row.text_b))
            iterations.append(row.iteration)
            handle.write("\t".join(row[:-1]) + "\n")
    with files.replaced_file(_path(work, number, "npz")) as handle:
        np.savez(
            handle,
            digests=np.array(digests, np.uint64),
            iterations=np.array(iterations, np.int32),
            names=np.array(list(counts), str),
            counts=np.array(list(counts.values()), np.int64),
        )


def is_complete(work: pathlib.Path, number: int) -> bool:
    """Whether a chunk was written."""
    return _path(work, number, "npz").is_file()


def digest(example: Example) -> int:
    """64 bits of the text or pair."""
    return _digest(example.text, example.text_b)


def _digest(text: str, text_b: str | None) -> int:
    return int.from_bytes(split.key_of_texts(text, text_b)[:8], "little")


@dataclasses.dataclass(frozen=True)
class Merged:
    """What became of the rows of all chunks.

    Attributes:
      rows: How many were written, the task's own examples among them.
      dropped: How many were not, for each reason.
      counts: The sums of what the chunks counted.
    """

    rows: int
    dropped: dict[str, int]
    counts: dict[str, int]


def merge(
    work: pathlib.Path,
    chunks: int,
    output: pathlib.Path,
    reported: Sequence[Example],
    num_samples: int | None,
    check: Callable[[], None],
) -> Merged:
    """Writes the rows that no row before them, no other example and no reported text equals.

    Args:
      work, chunks: Where the chunks are, and how many.
      output: The file.
      reported: Examples of the other splits.
      num_samples: At most so many variants: those of early iterations, of all examples alike.
      check: Called now and then; what it raises leaves no file.
    """
    read = [_digests(_path(work, number, "npz")) for number in range(chunks)]
    digests = np.concatenate([one["digests"] for one in read])
    iterations = np.concatenate([one["iterations"] for one in read])
    texts = np.array(sorted({digest(one) for one in reported}), np.uint64)
    overlap = np.isin(digests, texts)
    originals = iterations == 0
    first = np.zeros(len(digests), bool)
    # Of equal rows the first stays; one of the task's own goes before all that were made.
    order = np.lexsort((np.arange(len(digests)), ~originals, digests))
    first[order[np.concatenate([[True], np.diff(digests[order]) != 0])]] = True
    kept = first & ~overlap
    dropped = {
        "duplicate": int((~first & ~overlap).sum()),
        "overlap": int(overlap.sum()),
    }
    if num_samples is not None:
        made = np.flatnonzero(kept & ~originals)
        beyond = made[np.argsort(iterations[made], kind="stable")[num_samples:]]
        kept[beyond] = False
        dropped["beyond_num_samples"] = len(beyond)
    _write(work, chunks, output, kept, check)
    counts: dict[str, int] = {}
    for one in read:
        for name, count in zip(one["names"].tolist(), one["counts"].tolist(), strict=True):
            counts[name] = counts.get(name, 0) + count
    return Merged(int(kept.sum()), dropped, counts)


def _write(
    work: pathlib.Path,
    chunks: int,
    output: pathlib.Path,
    kept: np.ndarray,
    check: Callable[[], None],
) -> None:
    begin = 0
    with files.replaced_file(output) as handle:
        handle.write("\t".join(HEADER).encode("ascii") + b"\n")
        for number in range(chunks):
            check()
            lines = _path(work, number, "tsv").read_bytes().split(b"\n")[:-1]
            for line in itertools.compress(lines, kept[begin : begin + len(lines)]):
                handle.write(line + b"\n")
            begin += len(lines)


def _digests(path: pathlib.Path) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as content:
        return {name: content[name] for name in content.files}


def _path(work: pathlib.Path, number: int, ending: str) -> pathlib.Path:
    return work / f"rows-{number:05d}.{ending}"
