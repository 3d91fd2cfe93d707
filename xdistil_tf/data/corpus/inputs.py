"""The files of `--input`, what each of them is, and their bytes, decompressed."""

from __future__ import annotations

import bz2
import contextlib
import functools
import glob
import json
import pathlib
from collections.abc import Iterator, Sequence
from typing import BinaryIO

FORMATS = ("mediawiki", "wikiextractor", "jsonlines", "text")

_HEAD = 1 << 16  # Enough to tell a format; a page's first line may be long, its keys are not.
_OTHER_COMPRESSION = {
    b"\x1f\x8b": "gzip",
    b"\xfd7zXZ": "xz",
    b"7z\xbc\xaf": "7-Zip",
    b"PK\x03\x04": "zip",
    b"\x28\xb5\x2f\xfd": "Zstandard",
}
# Byte order marks; UTF-16 without one is told by the zero beside the first "<".
_MARKS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))


def find_inputs(patterns: str | Sequence[str]) -> list[pathlib.Path]:
    """The files that comma-separated files, globs or folders name, each once.

    Their order is that of the patterns, and by path within a glob or folder (never that in which a
    file system lists them). Hidden files are left out.

    Raises:
      FileNotFoundError: If a pattern names no file.
      ValueError: If a file is empty.
    """
    named = patterns.split(",") if isinstance(patterns, str) else list(patterns)
    found: dict[pathlib.Path, None] = {}
    for pattern in filter(None, (one.strip() for one in named)):
        paths = _files_of(pattern)
        if not paths:
            raise FileNotFoundError(
                f"No file matches --input={pattern}. Expected files, globs or folders."
            )
        found.update(dict.fromkeys(paths))
    if not found:
        raise FileNotFoundError("--input is empty. Expected files, globs or folders.")
    for path in found:
        if not path.stat().st_size:
            raise ValueError(f"{path} is empty. Expected text; remove it or leave it out.")
    return list(found)


@contextlib.contextmanager
def opened(path: pathlib.Path) -> Iterator[BinaryIO]:
    """Opens a file's bytes; bzip2, multistream too, is undone as it is read.

    Raises:
      ValueError: While it is read, if the compressed data is cut off or damaged; if it is
        compressed in another way.
    """
    with open(path, "rb") as plain:
        head = plain.read(8)
    for magic, name in _OTHER_COMPRESSION.items():
        if head.startswith(magic):
            raise ValueError(
                f"{path} is compressed with {name}. Expected plain or bz2; decompress it first."
            )
    try:
        with bz2.open(path) if head.startswith(b"BZh") else open(path, "rb") as handle:
            yield handle
    except EOFError as error:
        raise ValueError(
            f"{path} is cut off: its bz2 data ends in the middle. Download or copy it again."
        ) from error
    except OSError as error:
        if error.errno is not None or not head.startswith(b"BZh"):
            raise
        raise ValueError(
            f"{path} is damaged: it is no valid bz2 data. Download or copy it again."
        ) from error


def detect_format(path: pathlib.Path) -> str:
    """Tells a file's format by its first bytes.

    Raises:
      ValueError: If there is nothing in it, or bytes of UTF-16 that are no XML.
    """
    text, encoding = _beginning(path)
    if not text:
        raise ValueError(f"{path} is empty. Expected text; remove it or leave it out.")
    if text.startswith(("<?xml", "<mediawiki", "<!--", "<!DOCTYPE")):
        return "mediawiki"
    if encoding != "utf-8":
        raise ValueError(
            f"{path} is in UTF-16. Expected UTF-8; convert it, with iconv for example."
        )
    if text.startswith("<doc "):
        return "wikiextractor"
    if text.startswith("{"):
        return "wikiextractor" if _is_extracted(text) else "jsonlines"
    return "text"


def first_character(path: pathlib.Path) -> str:
    """The first character of a file that is no white space."""
    return _beginning(path)[0][:1]


def _beginning(path: pathlib.Path) -> tuple[str, str]:
    """The first characters of a file from the first that is no white space, and their encoding."""
    state = path.stat()
    return _read_beginning(path, state.st_size, state.st_mtime_ns)


# A block of bz2 takes 50 ms, and several ask.
@functools.lru_cache(maxsize=1024)
def _read_beginning(path: pathlib.Path, size: int, changed: int) -> tuple[str, str]:
    del size, changed  # Of another content under the same name.
    with opened(path) as handle:
        head = handle.read(_HEAD)
        while head and not head.strip() and (more := handle.read(_HEAD)):
            head = more
    encoding = next((name for mark, name in _MARKS if head.startswith(mark)), None)
    if encoding is None:
        encoding = {b"<\0": "utf-16-le", b"\0<": "utf-16-be"}.get(head[:2], "utf-8")
    return head.decode(encoding, "replace").lstrip("\ufeff \t\r\n"), encoding


def _files_of(pattern: str) -> list[pathlib.Path]:
    path = pathlib.Path(pattern)
    if path.is_dir():
        below = (one for one in path.rglob("*") if one.is_file())
        return sorted(one for one in below if not _hidden(one.relative_to(path)))
    if path.is_file():
        return [path]
    matches = (pathlib.Path(one) for one in glob.glob(pattern, recursive=True))
    return sorted(one for one in matches if one.is_file())


def _hidden(path: pathlib.Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _is_extracted(text: str) -> bool:
    """Whether a JSON line has the keys of WikiExtractor, also where its end was not read."""
    line = text.split("\n", 1)[0]
    try:
        keys = set(json.loads(line))
    except json.JSONDecodeError:
        keys = {key for key in ("id", "url", "title", "text") if f'"{key}":' in line}
    return {"id", "url", "title", "text"} <= keys
