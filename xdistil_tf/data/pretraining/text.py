"""The input in parts: spans of a file that are read, tokenized and kept each for itself.

A document belongs to the part in which the last empty line before it begins, so parts follow from
the files alone and no document is cut.
"""

from __future__ import annotations

import codecs
import dataclasses
import glob
import pathlib
from collections.abc import Iterator, Sequence

Path = str | pathlib.Path

PART_BYTES = 4_000_000


@dataclasses.dataclass(frozen=True)
class Part:
    """Bytes `start … stop` of a file; `number` counts the parts of all files."""

    number: int
    path: str
    start: int
    stop: int


def input_files(patterns: Path | Sequence[Path]) -> list[pathlib.Path]:
    """The files that globs match, each once, in the order of the globs.

    Raises:
      FileNotFoundError: If a glob matches no file.
    """
    if isinstance(patterns, str | pathlib.Path):
        patterns = str(patterns).split(",")
    paths: dict[pathlib.Path, None] = {}
    for pattern in map(str, patterns):
        found = sorted(one for one in map(pathlib.Path, glob.glob(pattern)) if one.is_file())
        if not found:
            raise FileNotFoundError(f"No file matches {pattern!r}. Set input_file to text files.")
        paths |= dict.fromkeys(found)
    return list(paths)


def list_parts(paths: Sequence[Path], part_bytes: int = PART_BYTES) -> list[Part]:
    """Cuts files into parts of about `part_bytes`.

    Raises:
      ValueError: If a file holds nothing but white space.
    """
    spans = []
    for path in map(pathlib.Path, paths):
        if _is_blank(path):
            raise ValueError(f"{path} is empty. Expected one sentence a line.")
        size = path.stat().st_size
        spans += [
            (str(path), start, min(start + part_bytes, size))
            for start in range(0, size, part_bytes)
        ]
    return [Part(number, *span) for number, span in enumerate(spans)]


def read_documents(part: Part) -> Iterator[Iterator[str]]:
    """Yields the sentences of each document of a part; take them before the next document.

    Raises:
      ValueError: If a line is not UTF-8; names file and line.
    """
    with open(part.path, "rb") as handle:
        yield from _Reader(handle, part).documents()


class _Reader:
    """Stands at a line of the file; knows whether it is an empty one, and where it begins."""

    def __init__(self, handle, part: Part):
        self._handle, self._part = handle, part
        self._next = max(part.start - 1, 0)
        handle.seek(self._next)
        if part.start:
            self._next += len(handle.readline())  # The rest of a line of the part before.
        self._advance()

    def documents(self) -> Iterator[Iterator[str]]:
        if self._part.start:
            # Without an empty line here no document is of this part, however far the last goes on.
            while self._line and self._begin < self._part.stop:
                self._advance()
            if self._begin >= self._part.stop:
                return
        while self._skip_empty_lines():
            yield self._sentences()
            while self._line:  # What was not taken.
                self._advance()

    def _skip_empty_lines(self) -> bool:
        """Goes on to the next document; false where it is one of the next part, or the end."""
        while self._line == b"":
            if self._begin >= self._part.stop:
                return False
            self._advance()
        return self._line is not None

    def _sentences(self) -> Iterator[str]:
        while self._line:
            try:
                text = self._line.decode("utf-8").strip()
            except UnicodeDecodeError as error:
                raise ValueError(self._damage(error)) from error
            self._advance()
            if text:
                yield text

    def _advance(self) -> None:
        self._begin = self._next  # Counted: asking the file takes longer than reading the line.
        line = self._handle.readline()
        if not line:
            self._line = None
            return
        self._next += len(line)
        if self._begin == 0:
            line = line.removeprefix(codecs.BOM_UTF8)
        # Unicode's white space counts too; a line that has a letter is soon known.
        self._line = b"" if _is_white(line) else line

    def _damage(self, error: UnicodeDecodeError) -> str:
        return damage(
            self._part.path,
            self._begin,
            f"expected UTF-8, received the byte 0x{error.object[error.start]:02x} at position "
            f"{error.start + 1} of the line. Convert the file to UTF-8.",
        )


def damage(path: Path, offset: int, reason: str) -> str:
    """A message that names the line at a byte of a file, which is counted only now."""
    number, left = 1, offset
    with open(path, "rb") as handle:
        while left > 0 and (block := handle.read(min(left, 1 << 20))):
            number += block.count(b"\n")
            left -= len(block)
    return f"{path} line {number}: {reason}"


def _is_white(line: bytes) -> bool:
    if line[:1] > b" " and line[:1] < b"\x7f":
        return False
    return not line.decode("utf-8", errors="replace").strip()


def _is_blank(path: pathlib.Path) -> bool:
    with open(path, "rb") as handle:
        return all(_is_white(line.removeprefix(codecs.BOM_UTF8)) for line in handle)
