"""Parts of the input, converted: what a killed job finds again, and shards are put together from.

A part file is a line of JSON, which counts, and behind it the documents of the part, grouped by
shard. It depends on the input and the number of shards alone.
"""

from __future__ import annotations

import array
import collections
import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, BinaryIO

from xdistil_tf import files
from xdistil_tf.data.corpus import convert
from xdistil_tf.data.corpus.documents import REASONS, Bad, Document, Dropped, Found

# Small enough to bound the memory of many processes, large enough for few files.
_CHARACTERS = 500_000
_DOCUMENTS = 2_000


@dataclasses.dataclass
class Tally:
    """What was found, in the order of the input."""

    documents: int = 0
    sentences: int = 0
    characters: int = 0
    dropped: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    bad: list[Bad] = dataclasses.field(default_factory=list)

    def add(self, converted: Sequence[str] | Dropped | Bad) -> None:
        """Counts a document."""
        if isinstance(converted, Dropped):
            self.dropped[converted.reason] += 1
        elif isinstance(converted, Bad):
            self.dropped["bad"] += 1
            self.bad.append(converted)
        else:
            self.documents += 1
            self.sentences += len(converted)
            self.characters += sum(map(len, converted))

    def update(self, other: Tally) -> None:
        """Counts what another one did, which comes later in the input."""
        self.documents += other.documents
        self.sentences += other.sentences
        self.characters += other.characters
        self.dropped.update(other.dropped)
        self.bad += other.bad

    def to_json(self) -> dict[str, Any]:
        # `asdict` would take a Counter apart wrongly.
        bad = [dataclasses.asdict(one) for one in self.bad]
        return {**vars(self), "dropped": dict(self.dropped), "bad": bad}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Tally:
        bad = [Bad(**one) for one in value["bad"]]
        return cls(**{**value, "dropped": collections.Counter(value["dropped"]), "bad": bad})

    def dropped_by_reason(self) -> dict[str, int]:
        return {reason: self.dropped[reason] for reason in REASONS}


@dataclasses.dataclass(frozen=True)
class Task:
    """A part to be written; without `found` it stands there already."""

    path: pathlib.Path
    num_shards: int
    found: Sequence[Found] | None


def cut_into_parts(found: Iterable[Found]) -> Iterator[list[Found]]:
    """Yields neighbouring documents; where it cuts depends on them alone."""
    part, characters = [], 0
    for one in found:
        part.append(one)
        characters += len(one.text) if isinstance(one, Document) else 0
        if characters >= _CHARACTERS or len(part) >= _DOCUMENTS:
            yield part
            part, characters = [], 0
    if part:
        yield part


def make_part(task: Task) -> Tally:
    """Writes a part, unless it stands there; returns what it counts."""
    if task.found is None:
        return Tally.from_json(_read_header(task.path)["tally"])
    tally = Tally()
    blocks: list[list[str]] = [[] for _ in range(task.num_shards)]
    counts = [[0, 0, 0] for _ in blocks]  # Of each shard: bytes, documents, sentences.
    for one in task.found:
        converted = convert.convert(one)
        tally.add(converted)
        if isinstance(converted, list):
            text = convert.text_of(converted)
            shard = convert.shard_of(text, task.num_shards)
            blocks[shard].append(text)
            counts[shard][1] += 1
            counts[shard][2] += len(converted)
    encoded = ["\n".join(block).encode("utf-8") for block in blocks]
    for count, block in zip(counts, encoded, strict=True):
        count[0] = len(block)
    content = b"".join(encoded)
    header = {"tally": tally.to_json(), "shards": counts, "digest": _digest(content)}
    # Not synced, which takes longer than to make it: `is_whole` finds what a power cut damaged.
    with files.replaced_file(task.path, sync=False) as handle:
        handle.write(json.dumps(header).encode() + b"\n")
        handle.write(content)
    return tally


def is_whole(path: pathlib.Path) -> bool:
    """Whether a part is there, as it was written."""
    if not path.is_file():
        return False
    header, _, content = path.read_bytes().partition(b"\n")
    try:
        return json.loads(header)["digest"] == _digest(content)
    except (ValueError, KeyError, TypeError):
        return False


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def merge(
    parts: Sequence[pathlib.Path], folder: pathlib.Path, num_shards: int
) -> list[dict[str, Any]]:
    """Writes the shards; each takes its documents of all parts, in order.

    Returns:
      What `corpus.json` says of each.
    """
    # Three numbers of 8 bytes for each part and shard: 15 MB for a whole Wikipedia in 64 shards.
    counts, places = array.array("Q"), array.array("Q")
    for path in parts:
        header = _read_header(path)
        places.append(header["start"])
        for count in header["shards"]:
            counts.extend(count)
    shards = []
    for shard in range(num_shards):
        with ShardWriter(folder, shard, num_shards) as writer:
            for number, path in enumerate(parts):
                first = 3 * (number * num_shards + shard)
                size, documents, sentences = counts[first : first + 3]
                if size:
                    with open(path, "rb") as part:
                        part.seek(places[number])
                        writer.copy(part, size, documents, sentences)
                places[number] += size
        shards.append(writer.summary())
    return shards


class ShardWriter:
    """A shard that takes its place when the block ends well; an empty line parts its documents."""

    def __init__(self, folder: pathlib.Path, shard: int, num_shards: int, prefix: str = ""):
        self._name = f"text-{shard:05d}-of-{num_shards:05d}.txt"
        self._replaced = files.replaced_file(folder / f"{prefix}{self._name}")
        self._hash = hashlib.sha256()
        self._documents = self._sentences = 0

    def __enter__(self) -> ShardWriter:
        self._handle = self._replaced.__enter__()
        return self

    def __exit__(self, *error) -> None:
        self._replaced.__exit__(*error)

    def copy(self, source: BinaryIO, size: int, documents: int, sentences: int) -> None:
        """Takes `size` bytes of documents that are parted already."""
        if self._documents:
            self._write(b"\n")
        while size and (data := source.read(min(size, 1 << 20))):
            self._write(data)
            size -= len(data)
        self._documents += documents
        self._sentences += sentences

    def summary(self) -> dict[str, Any]:
        """What `corpus.json` says of it."""
        return {
            "file": self._name,
            "documents": self._documents,
            "sentences": self._sentences,
            "sha256": self._hash.hexdigest(),
        }

    def _write(self, data: bytes) -> None:
        self._hash.update(data)
        self._handle.write(data)


def _read_header(path: pathlib.Path) -> dict[str, Any]:
    with open(path, "rb") as handle:
        header = json.loads(handle.readline())
        return header | {"start": handle.tell()}
