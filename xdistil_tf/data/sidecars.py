"""Side-cars: one array per record, beside the record shards, joined into batches by id.

Raw little-endian float16 or bfloat16, row after row, real tokens only, in `<stem>.bin`; ids and
offsets in `<stem>.index`, written last. Equal order is the fast path; the ids decide.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import math
import os
import pathlib
import zipfile
from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np

from xdistil_tf import files

Path = str | pathlib.Path

PRECISIONS = {"float16": np.dtype("<f2"), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
KINDS = ("example", "token", "pair")


@dataclasses.dataclass(frozen=True)
class RowShape:
    """The shape of a row.

    `example`: `shape` itself, [C] or [D]. `token`: [T, *shape], T real tokens. `pair`:
    [*shape, T, T], so `shape` is the number of heads.
    """

    kind: str
    shape: tuple[int, ...]

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"Unknown kind. Expected one of {list(KINDS)}. Received: {self.kind}.")

    def of(self, length: int) -> tuple[int, ...]:
        """The shape of a row with so many tokens."""
        if self.kind == "token":
            return (length, *self.shape)
        return (*self.shape, length, length) if self.kind == "pair" else self.shape

    def elements(self, lengths: np.ndarray) -> np.ndarray:
        """How many numbers rows of these lengths have, int64."""
        power = {"example": 0, "token": 1, "pair": 2}[self.kind]
        return np.asarray(lengths, np.int64) ** power * math.prod(self.shape)


class SidecarWriter:
    """Writes one side-car; when the `with` block ends well it is there, else nothing is.

    ```
    with SidecarWriter("cache/train-00000-of-00004.logits", "example", (2,)) as writer:
        for batch in ...:
            writer.write(ids, logits, lengths)
    ```

    Attributes:
      sha256: Of the `.bin`, after the block.
    """

    def __init__(
        self, path_stem: Path, kind: str, shape: Sequence[int], precision: str = "float16"
    ):
        self.row = RowShape(kind, tuple(shape))
        if precision not in PRECISIONS:
            raise ValueError(
                f"Unknown precision. Expected one of {list(PRECISIONS)}. Received: {precision!r}."
            )
        self.precision = precision
        self.bytes = 0
        self.sha256 = ""
        self._paths = sidecar_paths(path_stem)
        self._ids: list[bytes] = []
        self._offsets = [0]
        self._digest = hashlib.sha256()

    def __enter__(self) -> SidecarWriter:
        self._paths[1].unlink(missing_ok=True)
        self._stack = contextlib.ExitStack()
        self._handle = self._stack.enter_context(files.replaced_file(self._paths[0]))
        return self

    def write(self, ids: Sequence[bytes], values: np.ndarray, lengths: Sequence[int]) -> None:
        """Appends rows.

        Args:
          ids: The id of each row.
          values: `[B, *row]`, padded to any length.
          lengths: Real tokens of each row.

        Raises:
          ValueError: If the shapes do not fit, or a value is not finite in this precision.
        """
        values = np.asarray(values)
        if len(ids) != len(values) or len(ids) != len(lengths):
            raise ValueError(
                f"Expected as many rows as ids ({len(ids)}). Received: {len(values)} rows, "
                f"{len(lengths)} lengths."
            )
        with np.errstate(over="ignore"):  # Reported below, with the row.
            stored = values.astype(PRECISIONS[self.precision])
        for name, row, length in zip(ids, stored, map(int, lengths), strict=True):
            self._append(name, row, self.row.of(length))

    def _append(self, name: bytes, row: np.ndarray, shape: tuple[int, ...]) -> None:
        if row.ndim != len(shape) or any(
            have < want for have, want in zip(row.shape, shape, strict=True)
        ):
            raise ValueError(f"Expected a row of {shape} for id {name!r}. Received: {row.shape}.")
        real = np.ascontiguousarray(row[tuple(slice(size) for size in shape)])
        if not np.isfinite(real).all():
            raise ValueError(
                f"The row of id {name!r} has values that {self.precision} cannot hold. "
                "Use --cache_precision=bfloat16, or look for NaN in the teacher."
            )
        content = real.tobytes()
        self._handle.write(content)
        self._digest.update(content)
        self._ids.append(name)
        self._offsets.append(self._offsets[-1] + real.size)
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
                kind=self.row.kind,
                shape=np.asarray(self.row.shape, np.int64),
                precision=self.precision,
                sha256=self.sha256,
            )


class SidecarReader:
    """Reads rows of one output by id, memory-mapped, from the side-cars of several shards.

    Attributes:
      row: `RowShape` of a row.
      ids: bytes [N], in the order of the files.
    """

    def __init__(self, paths: Sequence[Path]):
        """Opens side-cars.

        Args:
          paths: Their stems, or their `.bin` files, in order.

        Raises:
          FileNotFoundError: If one is missing.
          ValueError: If one is damaged, or they differ in kind, shape or precision.
        """
        if not paths:
            raise ValueError("Expected at least one side-car. Received: none.")
        self.paths = [sidecar_paths(path)[0] for path in paths]
        opened = [_open(path) for path in self.paths]
        if len({one[2:] for one in opened}) > 1:
            raise ValueError(
                f"The side-cars {self.paths[0]} and others differ in kind, shape or precision. "
                "Make the cache again."
            )
        self.row, self.precision = opened[0][2], opened[0][3]
        self.ids = np.concatenate([ids for ids, _, _, _ in opened])
        self._offsets = [offsets for _, offsets, _, _ in opened]
        counts = [len(ids) for ids, _, _, _ in opened]
        self._starts = np.concatenate([[0], np.cumsum(counts)])
        self._data = [
            np.memmap(path, PRECISIONS[self.precision], "r") if offsets[-1] else np.zeros(0)
            for path, offsets in zip(self.paths, self._offsets, strict=True)
        ]
        self._order: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def read(
        self,
        ids: np.ndarray,
        lengths: np.ndarray,
        pad_to: int,
        guess: np.ndarray | None = None,
    ) -> np.ndarray:
        """Reads rows, padded with zeros.

        Args:
          ids: bytes [B].
          lengths: Real tokens of each.
          pad_to: T of the result.
          guess: Row numbers where the ids stand if the order is that of the records.

        Returns:
          float32 `[B, *row]`.

        Raises:
          ValueError: If an id is missing, or a row has another length.
        """
        ids = np.asarray(ids, "S")
        rows = self._find(ids, guess)
        out = np.zeros((len(rows), *self.row.of(pad_to)), np.float32)
        expected = self.row.elements(lengths)
        shards = np.searchsorted(self._starts, rows, side="right") - 1
        for number, (row, shard) in enumerate(zip(rows.tolist(), shards.tolist(), strict=True)):
            place = row - int(self._starts[shard])
            start, stop = self._offsets[shard][place : place + 2].tolist()
            if stop - start != expected[number]:
                raise ValueError(
                    f"{self.paths[shard]} has {stop - start} values for id {_shown(ids[number])}. "
                    f"Expected {expected[number]} for {int(lengths[number])} tokens: the cache was "
                    "made from other records. Make it again."
                )
            shape = self.row.of(int(lengths[number]))
            real = self._data[shard][start:stop].reshape(shape)
            out[(number, *(slice(size) for size in shape))] = real
        return out

    def missing(self, ids: np.ndarray) -> np.ndarray:
        """Those of `ids` that have no row."""
        ids = np.asarray(ids, "S")
        return ids[self._searched(ids)[1]]

    def _find(self, ids: np.ndarray, guess: np.ndarray | None) -> np.ndarray:
        if guess is not None and len(guess) and max(guess) < len(self.ids):
            guess = np.asarray(guess)
            if np.array_equal(self.ids[guess], ids):
                return guess
        rows, absent = self._searched(ids)
        if absent.any():
            raise ValueError(
                f"No row for id {_shown(ids[absent][0])} in {self.paths[0]}"
                f"{f' and {len(self.paths) - 1} more' if len(self.paths) > 1 else ''}: the cache "
                "was made from other records. Make it again."
            )
        return rows

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


def _open(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray, RowShape, str]:
    data_path, index_path = sidecar_paths(path)
    for one in (data_path, index_path):
        if not one.is_file():
            raise FileNotFoundError(f"No side-car {one}. Make the teacher cache again.")
    try:
        with np.load(index_path, allow_pickle=False) as index:
            ids, offsets = index["ids"], index["offsets"]
            row = RowShape(str(index["kind"]), tuple(index["shape"].tolist()))
            precision, sha256 = str(index["precision"]), str(index["sha256"])
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{index_path} is damaged ({error}). Make the cache again.") from error
    size = data_path.stat().st_size
    expected = int(offsets[-1]) * PRECISIONS[precision].itemsize
    if size != expected:
        raise ValueError(
            f"{data_path} is damaged: expected {expected} bytes, found {size}. Delete it with its "
            ".index and make the cache again: only these rows are computed."
        )
    if _content(data_path, data_path.stat().st_mtime_ns) != sha256:
        raise ValueError(
            f"{data_path} is damaged: its content is not what was written. Delete it with its "
            ".index and make the cache again: only these rows are computed."
        )
    return ids, offsets, row, precision


@functools.cache
def _content(path: pathlib.Path, changed: int) -> str:
    """SHA-256 of a file, computed once a process while it is not `changed`."""
    return files.file_fingerprint(path)


def _shown(name: bytes) -> str:
    return bytes(name).decode("utf-8", "replace")
