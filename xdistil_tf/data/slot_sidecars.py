"""Side-cars of words at masked slots: the K most probable, what they weigh, and what is left.

A row is a record, real slots only, laid out as `slot_rows.py` says.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from xdistil_tf.data import row_files
from xdistil_tf.data.row_files import Path, RowFile, RowIds, sidecar_paths
from xdistil_tf.data.slot_rows import SLOT_PRECISIONS, SlotRow


class SlotSidecarWriter:
    """Writes one side-car of words; when the `with` block ends well it is there, else nothing is.

    Attributes:
      largest_error: Of a probability, between what was given and what is read back.
      slots: Real slots so far.
    """

    def __init__(self, path_stem: Path, row: SlotRow, precision: str = "float16"):
        if precision not in SLOT_PRECISIONS:
            raise ValueError(
                f"Unknown precision. Expected one of {list(SLOT_PRECISIONS)}. "
                f"Received: {precision!r}."
            )
        self.row, self.precision = row, precision
        self.largest_error, self.slots = 0.0, 0
        self._file = RowFile(path_stem)

    def __enter__(self) -> SlotSidecarWriter:
        self._file.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._file.about = {
            "kind": "slot",
            "k": self.row.k,
            "vocab_size": self.row.vocab_size,
            "temperatures": np.asarray(self.row.temperatures, np.float64),
            "precision": self.precision,
            "slots": self.slots,
            "largest_error": self.largest_error,
        }
        self._file.__exit__(*error)

    @property
    def bytes(self) -> int:
        """Of the rows so far."""
        return self._file.bytes

    def write(
        self,
        ids: Sequence[bytes],
        values: Sequence[Mapping[str, np.ndarray]],
        lengths: Sequence[int],
    ) -> None:
        """Appends rows.

        Args:
          ids: The id of each row.
          values: Of each row the tensors of `SlotRow.fields`, `[P, ...]`, real slots only.
          lengths: Not used: slots are not counted by tokens; other side-cars need them.

        Raises:
          ValueError: If the tensors do not fit, or a value is not a number.
        """
        for name, one in zip(ids, values, strict=True):
            self._check(name, one)
            content = self.row.encode(one, self.precision)
            slots = len(one["ids"])
            if slots:
                kept = self.row.decode(content, self.precision)["log_probs"]
                error = np.abs(np.exp(kept) - np.exp(np.asarray(one["log_probs"], np.float32)))
                self.largest_error = max(self.largest_error, float(error.max()))
            self.slots += slots
            self._file.append(name, content, len(content))

    def _check(self, name: bytes, values: Mapping[str, np.ndarray]) -> None:
        slots = len(values["ids"])
        for field, (kind, shape) in self.row.fields.items():
            value = np.asarray(values[field])
            if value.shape != (slots, *shape):
                raise ValueError(
                    f"Expected {field} of shape {(slots, *shape)} for id {name!r}. "
                    f"Received: {value.shape}."
                )
            # Less than -1e4 no probability is, and float16 holds it.
            if kind is np.float32 and not (np.abs(value) < 1e4).all():
                raise ValueError(
                    f"The row of id {name!r} has {field} that are no log-probabilities. Look for "
                    "NaN in the teacher."
                )


class SlotSidecarReader:
    """Reads words by id, memory-mapped, from the side-cars of several shards.

    Attributes:
      row: `SlotRow` of a slot.
      ids: bytes [N], in the order of the files.
    """

    def __init__(self, paths: Sequence[Path]):
        """Opens side-cars.

        Args:
          paths: Their stems, or their `.bin` files, in order.

        Raises:
          FileNotFoundError: If one is missing.
          ValueError: If one is damaged, or they differ in what they hold.
        """
        if not paths:
            raise ValueError("Expected at least one side-car. Received: none.")
        self.paths = [sidecar_paths(path)[0] for path in paths]
        indices = [read_slot_index(path) for path in self.paths]
        if len({(one.row, one.precision) for one in indices}) > 1:
            raise ValueError(
                f"The side-cars {self.paths[0]} and others differ in words, temperatures or "
                "precision. Make the cache again."
            )
        for path, one in zip(self.paths, indices, strict=True):
            row_files.check_content(path, int(one.offsets[-1]), one.sha256)
        self.row, self.precision = indices[0].row, indices[0].precision
        self._found = RowIds(np.concatenate([one.ids for one in indices]), self.paths)
        self.ids = self._found.ids
        self._offsets = [one.offsets for one in indices]
        self._starts = np.concatenate([[0], np.cumsum([len(one.ids) for one in indices])])
        self._data = [
            np.memmap(path, np.uint8, "r") if one.offsets[-1] else np.zeros(0, np.uint8)
            for path, one in zip(self.paths, indices, strict=True)
        ]

    def __len__(self) -> int:
        return len(self.ids)

    def features(self, name: str) -> Mapping[str, tuple[type, tuple[int, ...]]]:
        """What joins a batch under this name: feature -> type and shape, -1 for any size."""
        return {
            f"{name}/{field}": (kind, (-1, *shape))
            for field, (kind, shape) in self.row.fields.items()
        }

    def read(
        self, ids: np.ndarray, lengths: np.ndarray, pad_to: int, guess: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """Reads rows, padded with zeros to the most slots that one of them has.

        Args:
          ids: bytes [B].
          lengths, pad_to: Not used: tokens do not tell slots.
          guess: Row numbers where the ids stand if the order is that of the records.

        Returns:
          The tensors of `SlotRow.fields`, `[B, P, ...]`.

        Raises:
          ValueError: If an id is missing.
        """
        rows = self.rows(ids, guess)
        most = max((len(one["ids"]) for one in rows), default=0)
        out = {
            name: np.zeros((len(rows), most, *shape), kind)
            for name, (kind, shape) in self.row.fields.items()
        }
        for number, one in enumerate(rows):
            for name, value in one.items():
                out[name][number, : len(value)] = value
        return out

    def rows(self, ids: np.ndarray, guess: np.ndarray | None = None) -> list[dict[str, np.ndarray]]:
        """The tensors of each record, of real slots alone."""
        found = self._found.find(np.asarray(ids, "S"), guess)
        return [
            self.row.decode(self._data[shard][start:stop], self.precision)
            for shard, start, stop in row_files.shard_places(found, self._offsets, self._starts)
        ]

    def arrays(
        self, ids: np.ndarray, lengths: np.ndarray, pad_to: int, guess: np.ndarray | None = None
    ) -> list[np.ndarray]:
        """`read`, as one array for each of `features`."""
        return list(self.read(ids, lengths, pad_to, guess).values())

    def missing(self, ids: np.ndarray) -> np.ndarray:
        """Those of `ids` that have no row."""
        return self._found.missing(ids)


@dataclasses.dataclass(frozen=True)
class SlotIndex:
    """The content of the `.index` of a side-car of words."""

    row: SlotRow
    precision: str
    ids: np.ndarray
    offsets: np.ndarray
    sha256: str
    slots: int
    largest_error: float


def read_slot_index(path: Path) -> SlotIndex:
    """Reads an `.index`, given a stem or a `.bin`.

    Raises:
      FileNotFoundError: If `.bin` or `.index` is missing.
      ValueError: If it is damaged.
    """
    index_path = sidecar_paths(path)[1]
    index = row_files.read_row_index(sidecar_paths(path)[0])
    try:
        temperatures = tuple(index["temperatures"].tolist())
        return SlotIndex(
            SlotRow(int(index["k"]), int(index["vocab_size"]), temperatures),
            str(index["precision"]),
            index["ids"],
            index["offsets"],
            str(index["sha256"]),
            int(index["slots"]),
            float(index["largest_error"]),
        )
    except (ValueError, KeyError) as error:
        raise row_files.damaged_index(index_path, error) from error
