"""The text as token ids on disk, with an index of sentences and documents; all memory-mapped.

    part-00000.tokens  ids of one part of the input, 2 or 4 bytes each; gone when all are merged
    part-00000.npz     tokens of each sentence, sentences and digest of each document
    tokens             of all parts, in one file: each that is mapped needs a descriptor
    sentences          where each begins, counted in tokens
    documents          where the sentences of each document begin; `digests`, `occurrences`
    store.json         what the files hold, written last

The index of a part is written after its tokens: a part with an index is complete.
"""

from __future__ import annotations

import hashlib
import mmap
import pathlib
import shutil
from collections.abc import Iterable, Iterator

import numpy as np

from xdistil_tf import files
from xdistil_tf.data.pretraining.text import Part
from xdistil_tf.data.pretraining.words import Tokenize

# A call of the tokenizer: enough for all cores, little memory where lines are long.
_LINES, _CHARACTERS = 4096, 1 << 20
# From here on pages that were read are given back, or they would count as our memory.
_RELEASED_BYTES = 1 << 27
_INDEX = {"sentences": "<i8", "documents": "<i8", "digests": "<u8", "occurrences": "<i4"}
_CONTENT = "store.json"


def write_part(
    folder: pathlib.Path,
    part: Part,
    documents: Iterable[Iterable[str]],
    tokenize: Tokenize,
    id_type: np.dtype,
) -> None:
    """Tokenizes the documents of a part. Sentences and documents without a token are left out.

    Args:
      documents: The sentences of each; read once, in order, and not kept.
    """
    counts: list[int] = []
    digests: list[int] = []
    sizes: list[np.ndarray] = [np.zeros(0, np.int64)]
    with files.replaced_file(_tokens_path(folder, part.number)) as handle:
        for block in _blocks(_lines(documents, counts, digests)):
            ids, block_sizes = tokenize(block)
            handle.write(np.asarray(ids, id_type).tobytes())
            sizes.append(np.asarray(block_sizes, np.int64))
    every = np.concatenate(sizes)
    of_document = np.repeat(np.arange(len(counts)), counts)
    kept = np.bincount(of_document[every > 0], minlength=len(counts))
    write_part_index(
        folder,
        part.number,
        every[every > 0],
        kept[kept > 0],
        np.array(digests, np.uint64)[kept > 0],
    )


def _lines(
    documents: Iterable[Iterable[str]], counts: list[int], digests: list[int]
) -> Iterator[str]:
    """All sentences; how many each document has, and a digest of its text, are noted."""
    for document in documents:
        digest, count = hashlib.blake2b(digest_size=8), 0
        for line in document:
            digest.update(line.encode("utf-8") + b"\n")
            count += 1
            yield line
        counts.append(count)
        digests.append(int.from_bytes(digest.digest(), "little"))


def _blocks(lines: Iterator[str]) -> Iterator[list[str]]:
    block: list[str] = []
    characters = 0
    for line in lines:
        block.append(line)
        characters += len(line)
        if len(block) >= _LINES or characters >= _CHARACTERS:
            yield block
            block, characters = [], 0
    if block:
        yield block


def write_part_index(
    folder: pathlib.Path,
    number: int,
    sizes: np.ndarray,
    documents: np.ndarray,
    digests: np.ndarray,
) -> None:
    """Says what the tokens of a part are.

    Args:
      sizes: Tokens of each sentence.
      documents: Sentences of each document.
      digests: uint64, equal for documents of equal text.
    """
    with files.replaced_file(_part_index_path(folder, number)) as handle:
        np.savez(handle, sizes=sizes, documents=documents, digests=digests)


def part_is_written(folder: pathlib.Path, number: int) -> bool:
    return _part_index_path(folder, number).is_file()


def write_tokens(folder: pathlib.Path, number: int, ids: np.ndarray) -> None:
    """Writes the tokens of a part that is held in memory; its index comes after."""
    with files.replaced_file(_tokens_path(folder, number)) as handle:
        handle.write(ids.tobytes())


def merge_parts(folder: pathlib.Path, count: int, id_type: np.dtype) -> None:
    """Puts tokens and indices of all parts together; nothing is done if that was done."""
    if (folder / _CONTENT).is_file():
        return
    document_bases = [0]
    tokens, sentences, digests = 0, 0, []
    with (
        files.replaced_file(folder / "tokens") as token_handle,
        files.replaced_file(folder / "sentences") as sentence_handle,
        files.replaced_file(folder / "documents") as document_handle,
    ):
        for number in range(count):
            with open(_tokens_path(folder, number), "rb") as part_tokens:
                shutil.copyfileobj(part_tokens, token_handle, 1 << 20)
            with np.load(_part_index_path(folder, number)) as part:
                sizes, documents = part["sizes"], part["documents"]
                digests.append(part["digests"])
            ends = np.cumsum(sizes, dtype="<i8")
            sentence_handle.write((ends - sizes + tokens).astype("<i8").tobytes())
            begins = np.cumsum(documents, dtype="<i8") - documents + sentences
            document_handle.write(begins.astype("<i8").tobytes())
            sentences += len(sizes)
            tokens += int(sizes.sum())
            document_bases.append(document_bases[-1] + len(documents))
        sentence_handle.write(np.array([tokens], "<i8").tobytes())
        document_handle.write(np.array([sentences], "<i8").tobytes())
    every = np.concatenate(digests).astype("<u8")
    for name, values in (("digests", every), ("occurrences", _occurrences(every))):
        with files.replaced_file(folder / name) as handle:
            handle.write(values.tobytes())
    files.write_json(folder / _CONTENT, {"id_type": id_type.str, "documents": document_bases})
    for number in range(count):
        _tokens_path(folder, number).unlink()


def _occurrences(digests: np.ndarray) -> np.ndarray:
    """How many equal documents stand before each; int32 [D]."""
    order = np.argsort(digests, kind="stable")
    ranked = digests[order]
    new = np.concatenate([[True], ranked[1:] != ranked[:-1]])[: len(ranked)]
    places = np.arange(len(ranked))
    found = np.empty(len(ranked), "<i4")
    found[order] = places - np.maximum.accumulate(np.where(new, places, 0))
    return found


class Store:
    """What the parts hold, read by place.

    Attributes:
      digests: uint64 [D], equal for documents of equal text.
      occurrences: int32 [D], how many equal documents stand before.
      part_documents: Number of the first document of each part, and of all documents.
    """

    def __init__(self, folder: pathlib.Path):
        content = files.read_json(folder / _CONTENT)
        self.part_documents: list[int] = content["documents"]
        self._maps: list[mmap.mmap] = []
        self._tokens = self.mapped(folder / "tokens", np.dtype(content["id_type"]))
        index = {name: self.mapped(folder / name, kind) for name, kind in _INDEX.items()}
        self.digests, self.occurrences = index["digests"], index["occurrences"]
        # Plain integers come out of these faster than out of arrays.
        self._sentences = memoryview(index["sentences"])
        self._documents = memoryview(index["documents"])

    def __len__(self) -> int:
        return len(self.digests)

    def borders(self, document: int) -> memoryview:
        """Where the sentences of a document begin, and where the last one ends."""
        first, last = self._documents[document], self._documents[document + 1]
        return self._sentences[first : last + 1]

    def tokens(self, start: int, stop: int) -> np.ndarray:
        """Tokens by their places in the store."""
        return self._tokens[start:stop]

    def gather(self, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """The tokens of several spans, one behind the other; int64.

        Args:
          starts, lengths: int64 [N].
        """
        ends = np.cumsum(lengths)
        places = np.arange(ends[-1] if len(ends) else 0)
        places += np.repeat(starts - (ends - lengths), lengths)
        return self._tokens[places].astype(np.int64)

    def release(self) -> None:
        """Gives back the memory of pages that were read; they are read again when needed."""
        if sum(map(len, self._maps)) > _RELEASED_BYTES:
            for one in self._maps:
                one.madvise(mmap.MADV_DONTNEED)

    def mapped(self, path: pathlib.Path, kind: np.dtype | str) -> np.ndarray:
        """A file of numbers; its pages are released with the store's."""
        if not path.stat().st_size:  # Nothing cannot be mapped.
            return np.zeros(0, kind)
        with open(path, "rb") as handle:
            self._maps.append(mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ))
        return np.frombuffer(self._maps[-1], kind)


def _tokens_path(folder: pathlib.Path, number: int) -> pathlib.Path:
    return folder / f"part-{number:05d}.tokens"


def _part_index_path(folder: pathlib.Path, number: int) -> pathlib.Path:
    return folder / f"part-{number:05d}.npz"
