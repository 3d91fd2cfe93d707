"""Rows of the text formats: TSV without quoting, CSV, JSON lines and CoNLL blocks.

Each reader yields `(line number, cells or problem)`: a damaged row does not end the reading, its
`Problem` is judged by the caller.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import pathlib
from collections.abc import Iterator, Sequence

_BYTE_ORDER_MARK = "\ufeff"


@dataclasses.dataclass(frozen=True, slots=True)
class Problem:
    """Why a line is not a row: what was expected and what came."""

    reason: str


Row = tuple[int, "list[str] | Problem"]


def read_lines(path: pathlib.Path) -> Iterator[tuple[int, str | Problem]]:
    """Yields numbered lines without their ends. Only a line feed ends a line."""
    with open(path, "rb") as handle:
        for number, line in enumerate(handle, start=1):
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError as error:
                yield (
                    number,
                    Problem(
                        f"expected UTF-8, received the byte 0x{line[error.start]:02x} "
                        f"at position {error.start + 1} of the line"
                    ),
                )
                continue
            text = text.removesuffix("\n").removesuffix("\r")
            yield number, text.removeprefix(_BYTE_ORDER_MARK) if number == 1 else text


def read_tsv(path: pathlib.Path) -> Iterator[Row]:
    """Yields the cells of each line that is not empty. Quotation marks are ordinary characters."""
    for number, line in read_lines(path):
        if isinstance(line, Problem):
            yield number, line
        elif line.strip():
            yield number, line.split("\t")


def read_csv(path: pathlib.Path) -> Iterator[Row]:
    """Yields the cells of each row, the header first; quoting as in RFC 4180."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = error.object[: error.start].count(b"\n") + 1
        byte = error.object[error.start]
        yield number, Problem(f"expected UTF-8, received the byte 0x{byte:02x}")
        return
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for cells in reader:
            if cells:
                yield reader.line_num, cells
    except csv.Error as error:
        yield reader.line_num, Problem(f"expected CSV, received: {error}")


def read_json_lines(path: pathlib.Path) -> Iterator[tuple[int, dict | Problem]]:
    """Yields one object per line."""
    for number, line in read_lines(path):
        if isinstance(line, Problem):
            yield number, line
            continue
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            yield number, Problem(f"expected one JSON object a line, received: {error}")
            continue
        if isinstance(value, dict):
            yield number, value
        else:
            yield (
                number,
                Problem(f"expected one JSON object a line, received a {type(value).__name__}"),
            )


def read_conll(path: pathlib.Path) -> Iterator[Row]:
    """Yields a sentence as the two cells `words` and `tags`, joined by tabs, at its first line.

    Before: `Paris<TAB>B-LOC`, `sleeps<TAB>O`, empty line. After: `["Paris\\tsleeps", "B-LOC\\tO"]`.
    The first column is the token, the last one the tag.
    """
    words: list[str] = []
    tags: list[str] = []
    start, problem = 0, None
    for number, line in read_lines(path):
        if isinstance(line, str) and not line.strip():
            if start:
                yield start, problem or ["\t".join(words), "\t".join(tags)]
            words, tags, start, problem = [], [], 0, None
            continue
        start = start or number
        if isinstance(line, Problem):
            problem = problem or Problem(f"{line.reason} (line {number})")
            continue
        cells = line.split("\t")
        if len(cells) < 2 or not cells[0].strip() or not cells[-1].strip():
            problem = problem or Problem(
                f"expected token<TAB>tag, received {_shown(cells)} (line {number})"
            )
            continue
        words.append(cells[0])
        tags.append(cells[-1])
    if start:
        yield start, problem or ["\t".join(words), "\t".join(tags)]


def looks_like_conll(path: pathlib.Path, lines: int = 1000) -> bool:
    """Whether a tagging file has one token a line: tags without spaces, blank lines between."""
    blank = False
    for number, line in read_lines(path):
        if number > lines:
            break
        if isinstance(line, Problem):
            continue
        if not line.strip():
            blank = True
        elif " " in line.split("\t")[-1].strip():
            return False
    return blank


def _shown(cells: Sequence[str]) -> str:
    return f"{len(cells)} column{'s' * (len(cells) != 1)}"
