"""A set of record shards, read at random by number, with lengths and ids known beforehand."""

from __future__ import annotations

import bisect
import functools
import glob
import os
import pathlib
import re
import weakref
from collections.abc import Iterator, Sequence

import numpy as np
from absl import logging

from xdistil_tf import files
from xdistil_tf.data import records

_SHARD = re.compile(r"(.*)-(\d{5,})-of-(\d{5,})\.tfrecord")
_OPEN_FILES = 256


class RecordSet:
    """All records of some shards, numbered through.

    ```
    train = RecordSet("records/train-*")
    len(train), train.lengths, train.ids, train.read(7)
    ```

    Shards without an index (of google-research/bert) are read whole once; their index is kept
    beside them where that can be written. A shard that was replaced or copied after its index was
    written is compared with it, and indexed anew if its content differs.

    Attributes:
      lengths: int32 [N], tokens of each record.
      paths: The shards, in order.
    """

    def __init__(self, patterns: str | os.PathLike | Sequence[str | os.PathLike]):
        """Opens the shards.

        Args:
          patterns: Globs, as a list or separated by commas. Of what a wildcard matches only
            `*.tfrecord` counts.

        Raises:
          FileNotFoundError: If a pattern matches no shard.
          ValueError: If a shard is missing, truncated or empty.
        """
        self.paths = tuple(find_shards(patterns))
        self._indices = [_open_index(path) for path in self.paths]
        counts = [len(index.offsets) for index in self._indices]
        self._starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64).tolist()
        self.lengths = np.concatenate([index.lengths for index in self._indices])
        if not len(self):
            raise ValueError(f"No record in {', '.join(map(str, self.paths))}. Create them again.")
        self._open = functools.lru_cache(maxsize=_OPEN_FILES)(_OpenFile)

    def __len__(self) -> int:
        return self._starts[-1]

    @functools.cached_property
    def ids(self) -> np.ndarray:
        """The id of each record, bytes [N]."""
        return np.concatenate([index.ids for index in self._indices])

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the shards' content, as their indices state it."""
        return records.shards_fingerprint(index.sha256 for index in self._indices)

    def shard_fingerprints(self) -> dict[str, str]:
        """SHA-256 of each shard's content by its file stem."""
        return {
            path.stem: index.sha256 for path, index in zip(self.paths, self._indices, strict=True)
        }

    def shard_of(self, number: int) -> tuple[int, int]:
        """The shard a record stands in, and its place there."""
        shard = bisect.bisect_right(self._starts, number) - 1
        if not 0 <= number < len(self):
            raise IndexError(f"Expected a record below {len(self)}. Received: {number}.")
        return shard, number - self._starts[shard]

    def read(self, number: int) -> bytes:
        """The serialised record, its checksum verified.

        Raises:
          ValueError: If it is damaged; names file, record and byte.
        """
        shard, place = self.shard_of(number)
        index = self._indices[shard]
        offset, size = int(index.offsets[place]), int(index.sizes[place])
        framed = os.pread(self._open(self.paths[shard]).descriptor, size, offset)
        return records.unframe(framed, self.paths[shard], place, offset)

    def first_of_each_shard(self) -> Iterator[tuple[pathlib.Path, bytes]]:
        """Yields each shard that holds any record with its first one.

        Raises:
          ValueError: As `read`.
        """
        for path, start, stop in zip(self.paths, self._starts[:-1], self._starts[1:], strict=True):
            if stop > start:
                yield path, self.read(start)

    def read_many(self, numbers: Sequence[int]) -> list[bytes]:
        """`read` for each of `numbers`."""
        return [self.read(number) for number in np.asarray(numbers).tolist()]


def find_shards(
    patterns: str | os.PathLike | Sequence[str | os.PathLike],
) -> list[pathlib.Path]:
    """Expands globs to complete sets of shards, in order.

    Raises:
      FileNotFoundError: If a pattern matches no shard.
      ValueError: If one of `-of-N` shards is missing, or sets of different N are mixed.
    """
    if isinstance(patterns, str | os.PathLike):
        patterns = str(patterns).split(",")
    found: list[pathlib.Path] = []
    for pattern in map(str, patterns):
        exact = [pattern] if os.path.isfile(pattern) else []
        matches = exact or [one for one in glob.glob(pattern) if one.endswith(".tfrecord")]
        if not matches:
            raise FileNotFoundError(
                f"No record file matches {pattern!r}. Expected *.tfrecord, as create_task_data or "
                "create_pretraining_data writes them."
            )
        found.extend(path for path in map(pathlib.Path, sorted(matches)) if path not in found)
    if not any(os.path.isfile(str(pattern)) for pattern in patterns):
        _check_complete(found)
    return found


def _check_complete(paths: Sequence[pathlib.Path]) -> None:
    sets: dict[str, dict[int, set[int]]] = {}
    for path in paths:
        match = _SHARD.fullmatch(str(path))
        if match:
            sets.setdefault(match[1], {}).setdefault(int(match[3]), set()).add(int(match[2]))
    for stem, by_total in sets.items():
        if len(by_total) > 1:
            raise ValueError(
                f"{stem}-* holds shards of {sorted(by_total)} each: two writings are mixed. "
                "Delete one of them."
            )
        for total, present in by_total.items():
            missing = sorted(set(range(total)) - present)
            if missing:
                raise ValueError(
                    f"{stem}-{missing[0]:05d}-of-{total:05d}.tfrecord is missing "
                    f"({len(missing)} of {total} shards). Create the records again."
                )


def _open_index(path: pathlib.Path) -> records.Index:
    place = records.index_path(path)
    if not place.is_file():
        return _made_index(path, place)
    index = records.read_index(place)
    size = path.stat().st_size
    if size < index.shard_bytes:
        raise ValueError(
            f"{path} is truncated: its index needs {index.shard_bytes} bytes, the file has {size}. "
            "Create the records again."
        )
    if size > index.shard_bytes:
        raise ValueError(
            f"{path} has {size} bytes, its index covers {index.shard_bytes}. "
            f"If the file was replaced, delete {place}; it is made again."
        )
    # Writing, renaming or copying a file sets its change time, which nothing can set back.
    if path.stat().st_ctime_ns <= place.stat().st_mtime_ns:
        return index
    if files.file_fingerprint(path) != index.sha256:
        logging.info("%s is not the file that its index was made from.", path)
        return _made_index(path, place)
    _write_index(place, index)
    return index


def _made_index(path: pathlib.Path, place: pathlib.Path) -> records.Index:
    logging.info("Reading %s once to make its index.", path)
    index = records.scan(path)
    _write_index(place, index)
    return index


def _write_index(place: pathlib.Path, index: records.Index) -> None:
    try:
        records.write_index(place, index)
    except OSError as error:
        logging.info("%s cannot be written, the index is kept in memory only: %s", place, error)


class _OpenFile:
    """A file descriptor that is closed with its last user."""

    def __init__(self, path: pathlib.Path):
        self.descriptor = os.open(path, os.O_RDONLY)
        # At its end the process closes what is left; a thread may read until then.
        weakref.finalize(self, os.close, self.descriptor).atexit = False
