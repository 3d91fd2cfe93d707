"""Side-cars: one array per record, beside the record shards, joined into batches by id.

Raw little-endian float16 or bfloat16, row after row, real tokens only. Words at masked slots have
side-cars of their own, `slot_sidecars.py`.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from xdistil_tf.data import row_files
from xdistil_tf.data.row_files import RowFile, RowIds, sidecar_paths

Path = str | pathlib.Path

PRECISIONS = {"float16": np.dtype("<f2"), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
KINDS = ("example", "token", "pair", "slot")


@dataclasses.dataclass(frozen=True)
class RowShape:
    """The shape of a row.

    `example`: `shape` itself, [C] or [D]. `token`: [T, *shape], T real tokens. `pair`:
    [*shape, T, T], so `shape` is the number of heads. `slot`: [P, *shape], P masked slots, which
    no length tells: only described, never kept by a `SidecarWriter`.
    """

    kind: str
    shape: tuple[int, ...]

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"Unknown kind. Expected one of {list(KINDS)}. Received: {self.kind}.")

    def of(self, length: int) -> tuple[int, ...]:
        """The shape of a row with so many tokens."""
        if self.kind in ("token", "slot"):
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
    """

    def __init__(
        self, path_stem: Path, kind: str, shape: Sequence[int], precision: str = "float16"
    ):
        self.row = RowShape(kind, tuple(shape))
        if precision not in PRECISIONS:
            raise ValueError(
                f"Unknown precision. Expected one of {list(PRECISIONS)}. Received: {precision!r}."
            )
        if self.row.kind == "slot":
            raise ValueError("Expected rows of example, token or pair. Received: kind='slot'.")
        self.precision = precision
        self._file = RowFile(path_stem)
        self._file.about = {
            "kind": self.row.kind,
            "shape": np.asarray(self.row.shape, np.int64),
            "precision": precision,
        }

    @property
    def bytes(self) -> int:
        """Of the rows so far."""
        return self._file.bytes

    @property
    def sha256(self) -> str:
        """Of the `.bin`, after the block."""
        return self._file.sha256

    def __enter__(self) -> SidecarWriter:
        self._file.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._file.__exit__(*error)

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
        self._file.append(name, real.tobytes(), real.size)


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
        self._found = RowIds(np.concatenate([ids for ids, _, _, _ in opened]), self.paths)
        self.ids = self._found.ids
        self._offsets = [offsets for _, offsets, _, _ in opened]
        counts = [len(ids) for ids, _, _, _ in opened]
        self._starts = np.concatenate([[0], np.cumsum(counts)])
        self._data = [
            np.memmap(path, PRECISIONS[self.precision], "r") if offsets[-1] else np.zeros(0)
            for path, offsets in zip(self.paths, self._offsets, strict=True)
        ]

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
        rows = self._found.find(ids, guess)
        out = np.zeros((len(rows), *self.row.of(pad_to)), np.float32)
        expected = self.row.elements(lengths)
        places = row_files.shard_places(rows, self._offsets, self._starts)
        for number, (shard, start, stop) in enumerate(places):
            if stop - start != expected[number]:
                raise ValueError(
                    f"{self.paths[shard]} has {stop - start} values for id "
                    f"{row_files.shown(ids[number])}. Expected {expected[number]} for "
                    f"{int(lengths[number])} tokens: the cache was made from other records. Make "
                    "it again."
                )
            shape = self.row.of(int(lengths[number]))
            real = self._data[shard][start:stop].reshape(shape)
            out[(number, *(slice(size) for size in shape))] = real
        return out

    def features(self, name: str) -> Mapping[str, tuple[type, tuple[int, ...]]]:
        """What joins a batch under this name: feature -> type and shape, -1 for any size."""
        return {name: (np.float32, self.row.of(-1))}

    def arrays(
        self, ids: np.ndarray, lengths: np.ndarray, pad_to: int, guess: np.ndarray | None = None
    ) -> list[np.ndarray]:
        """`read`, as one array for each of `features`."""
        return [self.read(ids, lengths, pad_to, guess)]

    def missing(self, ids: np.ndarray) -> np.ndarray:
        """Those of `ids` that have no row."""
        return self._found.missing(ids)


def _open(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray, RowShape, str]:
    data_path, index_path = sidecar_paths(path)
    index = row_files.read_row_index(path)
    try:
        row = RowShape(str(index["kind"]), tuple(index["shape"].tolist()))
        precision = str(index["precision"])
        expected = int(index["offsets"][-1]) * PRECISIONS[precision].itemsize
    except (ValueError, KeyError) as error:
        raise row_files.damaged_index(index_path, error) from error
    row_files.check_content(data_path, expected, str(index["sha256"]))
    return index["ids"], index["offsets"], row, precision
