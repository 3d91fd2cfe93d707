"""Files of rows: `<stem>.bin` holds them one after the other, `<stem>.index` says where and whose.

Both kinds of side-car are such files; the index is written last. Equal order is the fast path when
rows are looked up; the ids decide.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import pathlib
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np

from xdistil_tf import files

Path = str | pathlib.Path


class RowFile:
    """Writes one file of rows; when the `with` block ends well it is there, else nothing is.

    ```
    with RowFile("cache/train-00000-of-00004.logits") as rows:
        rows.append(b"train:1", content, units=2)
        rows.about = {"kind": "example"}
    ```

    Attributes:
      about: What the index says besides ids and offsets.
      bytes: Of the rows so far.
      sha256: Of the `.bin`, after the block.
    """

    def __init__(self, path_stem: Path):
        self.about: dict[str, Any] = {}
        self.bytes = 0
        self.sha256 = ""
        self._paths = sidecar_paths(path_stem)
        self._ids: list[bytes] = []
        self._offsets = [0]
        self._digest = hashlib.sha256()

    def __enter__(self) -> RowFile:
        self._paths[1].unlink(missing_ok=True)
        self._stack = contextlib.ExitStack()
        self._handle = self._stack.enter_context(files.replaced_file(self._paths[0]))
        return self

    def append(self, name: bytes, content: bytes, units: int) -> None:
        """Adds a row of so many units: numbers, or bytes, as the reader counts them."""
        self._handle.write(content)
        self._digest.update(content)
        self._ids.append(name)
        self._offsets.append(self._offsets[-1] + units)
        self.bytes += len(content)

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)
        if error[0] is not None:
            return
        self.sha256 = self._digest.hexdigest()
        with files.replaced_file(self._paths[1]) as handle:
            np.savez(
                handle,
                ids=np.asarray(self._ids, "S"),
                offsets=np.asarray(self._offsets, np.int64),
                **self.about,
                sha256=self.sha256,
            )


class RowIds:
    """Finds rows by id in the files of several shards.

    Attributes:
      ids: bytes [N], in the order of the files.
    """

    def __init__(self, ids: np.ndarray, paths: Sequence[pathlib.Path]):
        self.ids = ids
        self._paths = paths
        self._order: np.ndarray | None = None

    def find(self, ids: np.ndarray, guess: np.ndarray | None = None) -> np.ndarray:
        """Row numbers; `guess` are those where the ids stand if the order is the records'.

        Raises:
          ValueError: If an id has no row.
        """
        if guess is not None and len(guess) and max(guess) < len(self.ids):
            guess = np.asarray(guess)
            if np.array_equal(self.ids[guess], ids):
                return guess
        rows, absent = self._searched(ids)
        if absent.any():
            more = f" and {len(self._paths) - 1} more" if len(self._paths) > 1 else ""
            raise ValueError(
                f"No row for id {shown(ids[absent][0])} in {self._paths[0]}{more}: the cache was "
                "made from other records. Make it again."
            )
        return rows

    def missing(self, ids: np.ndarray) -> np.ndarray:
        """Those of `ids` that have no row."""
        ids = np.asarray(ids, "S")
        return ids[self._searched(ids)[1]]

    def _searched(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Row numbers, and which of them are wrong because the id is missing."""
        if self._order is None:
            self._order = np.argsort(self.ids, kind="stable")
            self._sorted = self.ids[self._order]
        places = np.searchsorted(self._sorted, ids)
        places = np.minimum(places, len(self.ids) - 1)
        return self._order[places], self._sorted[places] != ids


def sidecar_paths(path: Path) -> tuple[pathlib.Path, pathlib.Path]:
    """The `.bin` and the `.index` of a stem or of a `.bin`."""
    stem = os.fspath(path).removesuffix(".bin")
    return pathlib.Path(stem + ".bin"), pathlib.Path(stem + ".index")


def read_row_index(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The index of a file of rows: `ids`, `offsets`, `sha256` and what `about` said.

    Raises:
      FileNotFoundError: If `.bin` or `.index` is missing.
      ValueError: If the index is damaged.
    """
    data_path, index_path = sidecar_paths(path)
    for one in (data_path, index_path):
        if not one.is_file():
            raise FileNotFoundError(f"No side-car {one}. Make the teacher cache again.")
    try:
        with np.load(index_path, allow_pickle=False) as index:
            return {name: index[name] for name in ("ids", "offsets", "sha256", *index.files)}
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise damaged_index(index_path, error) from error


def damaged_index(path: pathlib.Path, error: Exception) -> ValueError:
    """What is said of an index that cannot be understood."""
    return ValueError(f"{path} is damaged ({error}). Make the cache again.")


def check_content(path: pathlib.Path, expected_bytes: int, sha256: str) -> None:
    """Compares a `.bin` with what its index says.

    Raises:
      ValueError: If size or content differ.
    """
    stat = path.stat()
    if stat.st_size != expected_bytes:
        raise ValueError(
            f"{path} is damaged: expected {expected_bytes} bytes, found {stat.st_size}. Delete it "
            "with its .index and make the cache again: only these rows are computed."
        )
    if _content(path, stat.st_mtime_ns) != sha256:
        raise ValueError(
            f"{path} is damaged: its content is not what was written. Delete it with its "
            ".index and make the cache again: only these rows are computed."
        )


def shard_places(
    rows: np.ndarray, offsets: Sequence[np.ndarray], starts: np.ndarray
) -> list[tuple[int, int, int]]:
    """Shard, start and stop of each row.

    Args:
      rows: Row numbers over all shards.
      offsets: Of each shard's rows.
      starts: Number of the first row of each shard.
    """
    shards = np.searchsorted(starts, rows, side="right") - 1
    places = []
    for row, shard in zip(rows.tolist(), shards.tolist(), strict=True):
        place = row - int(starts[shard])
        start, stop = offsets[shard][place : place + 2].tolist()
        places.append((shard, start, stop))
    return places


def shown(name: bytes) -> str:
    """An id as text."""
    return bytes(name).decode("utf-8", "replace")


@functools.cache
def _content(path: pathlib.Path, changed: int) -> str:
    """SHA-256 of a file, computed once a process while it is not `changed`."""
    return files.file_fingerprint(path)
