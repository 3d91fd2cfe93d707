"""Records on disk: `tf.train.Example` in TFRecord framing, sharded, an index beside each shard.

The index (NumPy `.npz`) holds where each record stands, how long it is and what its id is, so that
order, batches and padding are known before anything is read. It is written after its shard:
a shard with an index is complete.
"""

from __future__ import annotations

import array
import contextlib
import dataclasses
import functools
import hashlib
import pathlib
import struct
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import google_crc32c
import numpy as np

from xdistil_tf import files
from xdistil_tf.data.features import FEATURES

Path = str | pathlib.Path

HEADER_BYTES = 12
FOOTER_BYTES = 4
_LENGTH = struct.Struct("<Q")
_CHECKSUM = struct.Struct("<I")


@dataclasses.dataclass(frozen=True)
class Index:
    """What stands where in one shard.

    Attributes:
      offsets, sizes: int64 [N], of the framed records, in bytes.
      lengths: int32 [N], tokens.
      ids: bytes [N].
      sha256: Of the whole shard.
    """

    offsets: np.ndarray
    sizes: np.ndarray
    lengths: np.ndarray
    ids: np.ndarray
    sha256: str

    @property
    def shard_bytes(self) -> int:
        return int(self.offsets[-1] + self.sizes[-1]) if len(self.offsets) else 0


@dataclasses.dataclass(frozen=True)
class Written:
    """What `write_records` wrote."""

    records: int
    shards: int
    length_mean: float
    length_max: int
    fingerprint: str


def write_records(
    folder: Path,
    split: str,
    features: Iterable[Mapping[str, Any] | Sequence[Mapping[str, Any]]],
    count: int,
    num_shards: int = 4,
) -> Written:
    """Writes `<split>-00000-of-00004.tfrecord` and so on, each with its `.index`.

    Shard k holds the k-th contiguous part, so the shards in order hold the records in order.

    Args:
      folder: Where to; it must exist.
      split: Name of the split.
      features: Feature dicts as `featurise` yields them, or several that belong together, as
        `featurise_words` does.
      count: How many of either there will be.
      num_shards: At most this many; never more than `count`.

    Raises:
      ValueError: If there are not `count` of them, or none.
    """
    if count < 1 or num_shards < 1:
        raise ValueError(f"Expected records and shards. Received: {count=}, {num_shards=}.")
    num_shards = min(num_shards, count)
    remaining = iter(features)
    indices = []
    for number in range(num_shards):
        wanted = (number + 1) * count // num_shards - number * count // num_shards
        path = shard_path(folder, split, number, num_shards)
        with ShardWriter(path) as writer:
            for _ in range(wanted):
                one = next(remaining, None)
                if one is None:
                    raise ValueError(f"Expected {count} records of {split!r}; there are fewer.")
                for record in [one] if isinstance(one, Mapping) else one:
                    writer.write(record)
        indices.append(writer.index)
    if next(remaining, None) is not None:
        raise ValueError(f"Expected {count} records of {split!r}; there are more.")
    lengths = np.concatenate([index.lengths for index in indices])
    return Written(
        len(lengths),
        num_shards,
        round(float(lengths.mean()), 2),
        int(lengths.max()),
        shards_fingerprint(index.sha256 for index in indices),
    )


def shard_path(folder: Path, split: str, number: int, num_shards: int) -> pathlib.Path:
    return pathlib.Path(folder) / f"{split}-{number:05d}-of-{num_shards:05d}.tfrecord"


def index_path(shard: Path) -> pathlib.Path:
    return pathlib.Path(shard).with_suffix(".index")


def shards_fingerprint(digests: Iterable[str]) -> str:
    """One fingerprint of several shards, in order."""
    return hashlib.sha256("\n".join(digests).encode("ascii")).hexdigest()


class ShardWriter:
    """Writes one shard and, when the `with` block ends well, its index. Else neither stays.

    ```
    with ShardWriter(path) as writer:
        for features in ...:
            writer.write(features)
    ```
    """

    def __init__(self, path: Path):
        self.path = pathlib.Path(path)
        self.index: Index | None = None
        self._columns = _Columns()
        self._digest = hashlib.sha256()

    def __enter__(self) -> ShardWriter:
        index_path(self.path).unlink(missing_ok=True)
        self._stack = contextlib.ExitStack()
        self._handle = self._stack.enter_context(files.replaced_file(self.path))
        return self

    def write(self, features: Mapping[str, Any]) -> None:
        """Appends a record. `features` needs `id` and `input_ids`."""
        self.append(encode_example(features), _length(features), features["id"])

    def append(self, content: bytes, length: int, record_id: bytes) -> None:
        """Appends a record of `length` tokens that is serialised already."""
        self.extend([content], [length], [record_id])

    def extend(
        self, contents: Sequence[bytes], lengths: Sequence[int], record_ids: Sequence[bytes]
    ) -> None:
        """Appends records that are serialised already, many at once.

        Raises:
          ValueError: If there are not as many lengths and ids as records.
        """
        if not len(contents) == len(lengths) == len(record_ids):
            raise ValueError(
                f"Expected a length and an id for each of {len(contents)} records. Received: "
                f"{len(lengths)} and {len(record_ids)}."
            )
        framed = [frame(content) for content in contents]
        data = b"".join(framed)
        self._handle.write(data)
        self._digest.update(data)
        self._columns.extend(map(len, framed), lengths, record_ids)

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)
        if error[0] is not None:
            return
        self.index = self._columns.index(self._digest.hexdigest())
        write_index(index_path(self.path), self.index)


class _Columns:
    """An index in the making. Lists of objects would take five times the memory."""

    _BLOCK = 1 << 14

    def __init__(self):
        self._sizes, self._lengths = array.array("q"), array.array("i")
        self._ids: list[bytes] = []
        self._blocks = [np.zeros(0, "S1")]

    def extend(
        self, sizes: Iterable[int], lengths: Iterable[int], record_ids: Iterable[bytes]
    ) -> None:
        self._sizes.extend(sizes)
        self._lengths.extend(lengths)
        self._ids.extend(record_ids)
        if len(self._ids) >= self._BLOCK:
            self._close_block()

    def index(self, sha256: str) -> Index:
        """The index of records that stand one behind the other."""
        if self._ids:
            self._close_block()
        sizes = np.array(self._sizes, np.int64)
        lengths = np.array(self._lengths, np.int32)
        return Index(np.cumsum(sizes) - sizes, sizes, lengths, np.concatenate(self._blocks), sha256)

    def _close_block(self) -> None:
        self._blocks.append(np.array(self._ids, "S"))
        self._ids = []


def write_index(path: pathlib.Path, index: Index) -> None:
    with files.replaced_file(path) as handle:
        np.savez(handle, **dataclasses.asdict(index))


def read_index(path: pathlib.Path) -> Index:
    """Reads an index.

    Raises:
      ValueError: If it is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as data:
            index = Index(
                *(data[name] for name in ("offsets", "sizes", "lengths", "ids")),
                sha256=str(data["sha256"]),
            )
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile, zipfile.LargeZipFile) as error:
        raise ValueError(
            f"The index {path} is damaged ({error}). Delete it; it is made again from its shard."
        ) from error
    numbers = {len(index.offsets), len(index.sizes), len(index.lengths), len(index.ids)}
    if len(numbers) != 1:
        raise ValueError(f"The index {path} is damaged: its columns differ in length. Delete it.")
    return index


def scan(path: pathlib.Path) -> Index:
    """Makes the index of a shard that has none, by reading it whole.

    Raises:
      ValueError: If a record is damaged or the file ends within one.
    """
    columns = _Columns()
    digest = hashlib.sha256()
    for number, (framed, content) in enumerate(_framed_records(path)):
        features = decode_example(content, f"{path} record {number}")
        name = features.get("id")
        record_id = name[0] if name else f"{path.stem}:{number}".encode()
        columns.extend([len(framed)], [_length(features)], [record_id])
        digest.update(framed)
    return columns.index(digest.hexdigest())


def frame(content: bytes) -> bytes:
    """Puts a record into TFRecord framing: length, checksum, content, checksum."""
    return b"".join((_header(len(content)), content, _CHECKSUM.pack(_masked(content))))


@functools.lru_cache(maxsize=1 << 14)  # Lengths come again and again.
def _header(size: int) -> bytes:
    length = _LENGTH.pack(size)
    return length + _CHECKSUM.pack(_masked(length))


def unframe(framed: bytes, path: pathlib.Path, number: int, offset: int) -> bytes:
    """Takes a record out of its framing.

    Raises:
      ValueError: If length or checksums are wrong; names file, record and byte.
    """
    content = framed[HEADER_BYTES:-FOOTER_BYTES]
    sound = (
        len(framed) >= HEADER_BYTES + FOOTER_BYTES
        and _LENGTH.unpack_from(framed)[0] == len(content)
        and _CHECKSUM.unpack_from(framed, 8)[0] == _masked(framed[:8])
        and _CHECKSUM.unpack_from(framed, len(framed) - FOOTER_BYTES)[0] == _masked(content)
    )
    if not sound:
        raise ValueError(
            f"{path} is damaged: record {number} at byte {offset} fails its checksum. "
            "Delete the records folder and create it again."
        )
    return content


def encode_example(features: Mapping[str, Any]) -> bytes:
    """Serialises features as a `tf.train.Example`, names in sorted order.

    Written by hand because building the message object costs ten times as much.
    """
    entries = []
    for name in sorted(features):
        key = name.encode("ascii")
        feature = _encode_feature(name, features[name])
        entry = b"\n" + _varint(len(key)) + key + b"\x12" + _varint(len(feature)) + feature
        entries += (b"\n", _varint(len(entry)), entry)
    body = b"".join(entries)
    return b"\n" + _varint(len(body)) + body


def decode_example(content: bytes, where: str) -> dict[str, list]:
    """The values of each feature. For inspection; the pipeline parses in C++.

    Raises:
      ValueError: If it is not a `tf.train.Example`.
    """
    import tensorflow as tf

    try:
        example = tf.train.Example.FromString(content)
    except Exception as error:  # protobuf's DecodeError has no stable home.
        raise ValueError(f"{where} is not a tf.train.Example.") from error
    return {
        name: list(getattr(feature, feature.WhichOneof("kind")).value)
        for name, feature in example.features.feature.items()
        if feature.WhichOneof("kind")
    }


def _framed_records(path: pathlib.Path) -> Iterator[tuple[bytes, bytes]]:
    size = path.stat().st_size
    offset = number = 0
    with open(path, "rb") as handle:
        while offset < size:
            header = handle.read(HEADER_BYTES)
            sound = len(header) == HEADER_BYTES
            sound = sound and _CHECKSUM.unpack_from(header, 8)[0] == _masked(header[:8])
            if not sound:
                raise ValueError(
                    f"{path} is damaged: no record starts at byte {offset} (record {number}). "
                    "Expected a TFRecord file without compression."
                )
            rest = _LENGTH.unpack_from(header)[0] + FOOTER_BYTES
            if offset + HEADER_BYTES + rest > size:
                raise ValueError(
                    f"{path} is truncated: record {number} at byte {offset} needs "
                    f"{HEADER_BYTES + rest} bytes, {size - offset} are left. Create the file again."
                )
            framed = header + handle.read(rest)
            yield framed, unframe(framed, path, number, offset)
            offset += len(framed)
            number += 1


def _length(features: Mapping[str, list]) -> int:
    """Tokens up to the last real one."""
    mask = features.get("input_mask")
    if mask is None:
        return len(features.get("input_ids", ()))
    return int(np.max(np.nonzero(mask)[0], initial=-1)) + 1


def _encode_feature(name: str, value: Any) -> bytes:
    kind = FEATURES[name].kind
    if kind == "bytes":
        packed, tag = value, b"\n"
    elif kind == "float":
        packed, tag = np.asarray(value, "<f4").tobytes(), b"\x12"
    else:
        packed, tag = b"".join(map(_varint, value)), b"\x1a"
    listed = b"\n" + _varint(len(packed)) + packed
    return tag + _varint(len(listed)) + listed


@functools.lru_cache(maxsize=1 << 19)
def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1  # Negative numbers are ten bytes in two's complement.
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _masked(data: bytes) -> int:
    """TFRecord's checksum: CRC32C, rotated and shifted, so that nested framings do not collide."""
    checksum = google_crc32c.value(data)
    return ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF
