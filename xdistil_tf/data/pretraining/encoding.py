"""Batches of instances to `tf.train.Example` bytes, many rows at once.

The bytes are those of `records.encode_example`, which takes ten times as long for one row after
another. Features are padded to full length, as google-research/bert writes them; with dynamic
masking they have their true length.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Iterator

import numpy as np

from xdistil_tf.data.features import FEATURES
from xdistil_tf.data.pretraining.masking import Batch

# The bytes of a feature in each row: uint8 [N, bytes] where that is one number, else a list.
Column = np.ndarray | list[bytes]

_VARINT_BYTES = 10
_LIST_TAGS = {"bytes": b"\n", "float": b"\x12", "int": b"\x1a"}


def encode_rows(batch: Batch, ids: list[bytes]) -> list[bytes]:
    """One serialised example for each row.

    Args:
      batch: With `counts`, the features of google-research/bert; without, those of dynamic
        masking.
      ids: The `id` of each row.
    """
    columns = {"id": ids} | (_dynamic(batch) if batch.counts is None else _static(batch))
    if batch.is_random_next is not None:
        columns["next_sentence_labels"] = batch.is_random_next[:, None]
    # Columns of one width stand side by side in an array, and are cut into rows once.
    groups = itertools.groupby(sorted(columns), lambda name: isinstance(columns[name], np.ndarray))
    entries: list[Iterable[bytes]] = []
    for fixed, names in groups:
        if fixed:
            entries.append(_rows(np.hstack([_fixed(name, columns[name]) for name in names])))
        else:
            entries += [_entries(name, columns[name]) for name in names]
    return [_message(b"".join(row)) for row in zip(*entries, strict=True)]


def _static(batch: Batch) -> dict[str, Column]:
    slots = np.arange(batch.positions.shape[1])
    weights = (slots < batch.counts[:, None]).astype("<f4")
    return {
        "input_ids": _varint_rows(batch.input_ids),
        "input_mask": _real(batch),
        "segment_ids": batch.segment_ids,
        "masked_lm_ids": _varint_rows(batch.masked_ids),
        "masked_lm_positions": _varint_rows(batch.positions),
        "masked_lm_weights": weights.view(np.uint8),
    }


def _dynamic(batch: Batch) -> dict[str, Column]:
    real = _real(batch).astype(bool)
    columns = {
        "input_ids": batch.input_ids,
        "input_mask": real,
        "segment_ids": batch.segment_ids,
        "word_starts": batch.word_starts,
    }
    return {name: _varint_rows(values, real) for name, values in columns.items()}


def _real(batch: Batch) -> np.ndarray:
    return (np.arange(batch.input_ids.shape[1]) < batch.lengths[:, None]).astype(np.uint8)


def _rows(values: np.ndarray) -> list[bytes]:
    """The bytes of each row."""
    data, size = values.tobytes(), values.shape[1]
    return [data[start : start + size] for start in range(0, len(data), size)]


def _varint_rows(values: np.ndarray, counts: np.ndarray | None = None) -> Column:
    """The varints of each row; of those where `counts` is true, if it is given."""
    if counts is None and 0 <= values.min(initial=0) and values.max(initial=0) < 128:
        return values.astype(np.uint8)  # A byte each.
    sizes = np.ones(values.shape, np.int64) if counts is None else counts.astype(np.int64)
    flat = values.ravel() if counts is None else values[counts]
    data, widths = _varints(flat)
    row_ends = np.cumsum(sizes.sum(axis=1))
    byte_ends = np.concatenate([[0], np.cumsum(widths)])
    ends = byte_ends[np.concatenate([[0], row_ends])].tolist()
    return [data[start:end] for start, end in zip(ends[:-1], ends[1:], strict=True)]


def _varints(flat: np.ndarray) -> tuple[bytes, np.ndarray]:
    """All values one behind the other, and how many bytes each takes."""
    # Negative numbers are ten bytes in two's complement.
    bits = flat.astype(np.int64).view(np.uint64)
    if bits.max(initial=0) < 1 << 31:
        bits = bits.astype(np.uint32)  # Half the memory, twice the speed.
    widths = np.ones(len(bits), np.int64)
    octets = [bits.astype(np.uint8) & 127]
    while len(octets) < _VARINT_BYTES:
        longer = bits >= 1 << 7 * len(octets)
        if not longer.any():
            break
        widths += longer
        octets[-1] |= longer.astype(np.uint8) << 7  # More bytes follow.
        octets.append((bits >> 7 * len(octets)).astype(np.uint8) & 127)
    columns = np.arange(len(octets))
    return np.stack(octets, axis=1)[columns < widths[:, None]].tobytes(), widths


def _fixed(name: str, payload: np.ndarray) -> np.ndarray:
    """What `_entries` gives, where all rows have one width; uint8 [N, bytes]."""
    head = np.frombuffer(_head(name, payload.shape[1]), np.uint8)
    return np.hstack([np.broadcast_to(head, (len(payload), len(head))), payload])


def _entries(name: str, payloads: list[bytes]) -> Iterator[bytes]:
    """A feature of each row, with its name, as an entry of the map of features."""
    return (_head(name, len(payload)) + payload for payload in payloads)


@functools.lru_cache(maxsize=1 << 14)
def _head(name: str, size: int) -> bytes:
    """What stands before a feature's values: each level of the message says how long it is."""
    listed = b"\n" + _varint(size)
    feature = _LIST_TAGS[FEATURES[name].kind] + _varint(len(listed) + size) + listed
    key = name.encode("ascii")
    entry = b"\n" + _varint(len(key)) + key + b"\x12" + _varint(len(feature) + size) + feature
    return b"\n" + _varint(len(entry) + size) + entry


def _message(body: bytes) -> bytes:
    return b"\n" + _varint(len(body)) + body


@functools.lru_cache(maxsize=1 << 14)
def _varint(value: int) -> bytes:
    return _varints(np.array([value]))[0]
