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
import re
from collections.abc import Iterator, Sequence

_BYTE_ORDER_MARK = "\ufeff"
# Other white space, as in `10\u00a0000`, may stand inside a token.
_BETWEEN_COLUMNS = " \t\r\f\v"
_SPACES = re.compile(f"[{_BETWEEN_COLUMNS}]+")


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


def read_conll(path: pathlib.Path, token: int = 0, tag: int | None = -1) -> Iterator[Row]:
    """Yields a sentence as the two cells `words` and `tags`, joined by tabs, at its first line.

    Before: `Paris<TAB>B-LOC`, `sleeps<TAB>O`, empty line. After: `["Paris\\tsleeps", "B-LOC\\tO"]`.
    Columns stand between tabs or, in a file without tabs, between spaces; all lines have equally
    many. Lines of `-DOCSTART-` and, of files with tabs, comments (`# `) are passed over.

    Args:
      path: The file.
      token: Number of the column of the words, negative from the end.
      tag: That of the tags; `None`: there are none, and the second cell is missing.
    """
    with_tabs = _has_tabs(path)
    sentence = _Sentence(token, tag, with_tabs)
    for number, line in read_lines(path):
        if isinstance(line, Problem):
            sentence.fail(number, line.reason)
        elif not line or not line.strip():
            if sentence.start:
                yield sentence.start, sentence.cells()
                sentence = _Sentence(token, tag, with_tabs, sentence.width)
        elif not (line[0] in "-#" and _is_no_word(line, with_tabs)):
            sentence.add(number, line)
    if sentence.start:
        yield sentence.start, sentence.cells()


class _Sentence:
    """The lines of one sentence of a CoNLL file, and the first thing that is wrong with them.

    Attributes:
      start: Number of its first line, 0 before there is one.
      width: Columns of a line, 0 before they are known.
    """

    def __init__(self, token: int, tag: int | None, with_tabs: bool, width: int = 0):
        self.start, self.width = 0, width
        self._columns = (token,) if tag is None else (token, tag)
        self._with_tabs = with_tabs
        self._numbers: list[int] = []
        self._lines: list[str] = []
        self._unreadable: tuple[int, str] | None = None

    def add(self, number: int, line: str) -> None:
        self.start = self.start or number
        self._numbers.append(number)
        self._lines.append(line)

    def fail(self, number: int, reason: str) -> None:
        self.start = self.start or number
        self._unreadable = self._unreadable or (number, reason)

    def cells(self) -> list[str] | Problem:
        rows = [_columns(line, self._with_tabs) for line in self._lines]
        self.width = self.width or (len(rows[0]) if rows else 0)
        chosen = [[_cell(row, column) for row in rows] for column in self._columns]
        # The first problem is looked for only where there is one.
        if self._unreadable or not all(map(all, chosen)) or {*map(len, rows)} != {self.width}:
            return self._first_problem(rows)
        return ["\t".join(one) for one in chosen]

    def _first_problem(self, rows: Sequence[Sequence[str]]) -> Problem:
        found = [self._unreadable] if self._unreadable else []
        for number, row in zip(self._numbers, rows, strict=True):
            if not all(_cell(row, column) for column in self._columns):
                wanted = "token<TAB>tag" if len(self._columns) == 2 else "a token"
                found.append((number, f"expected {wanted}, received {_shown(row)}"))
            elif len(row) != self.width:
                reason = f"expected {self.width} columns as before, received {_shown(row)}"
                found.append((number, reason))
        number, reason = min(found)
        return Problem(f"{reason} (line {number})")


def _is_no_word(line: str, with_tabs: bool) -> bool:
    return line.startswith("-DOCSTART-") or (with_tabs and _is_comment(line))


def _columns(line: str, with_tabs: bool) -> list[str]:
    if with_tabs:
        return line.split("\t")
    return _SPACES.split(line.strip(_BETWEEN_COLUMNS))


def _cell(cells: Sequence[str], column: int) -> str:
    """A cell without white space around it, empty where there is none."""
    if not -len(cells) <= column < len(cells):
        return ""
    return cells[column].strip(_BETWEEN_COLUMNS)


def _is_comment(line: str) -> bool:
    return line.startswith("# ") and "\t" not in line


def _has_tabs(path: pathlib.Path, lines: int = 1000) -> bool:
    """Whether columns stand between tabs, as the first lines tell."""
    for number, line in read_lines(path):
        if number > lines:
            break
        if isinstance(line, str) and "\t" in line:
            return True
    return False


def conll_width(path: pathlib.Path) -> int:
    """Columns of the first token of a CoNLL file, 0 if there is none."""
    with_tabs = _has_tabs(path)
    for _, line in read_lines(path):
        if isinstance(line, str) and line.strip() and not line.startswith("-DOCSTART-"):
            if not (with_tabs and _is_comment(line)):
                return len(_columns(line, with_tabs))
    return 0


def looks_like_conll(path: pathlib.Path, lines: int = 1000) -> bool:
    """Whether a tagging file has one token a line.

    With tabs: no last cell has several words. Without: all lines have equally many columns, several
    of which the last one is a tag of a span, or, with empty lines between sentences, one.
    """
    with_tabs, blank, widths, tagged = _has_tabs(path, lines), False, set(), True
    count = 0
    for number, line in read_lines(path):
        if number > lines:
            break
        if isinstance(line, Problem) or line.startswith("-DOCSTART-"):
            continue
        if not line.strip():
            blank = True
        elif with_tabs:
            if not _is_comment(line):
                count += 1
                if " " in line.split("\t")[-1].strip():
                    return False
        else:
            count += 1
            cells = _columns(line, False)
            widths.add(len(cells))
            tagged = tagged and (cells[-1] == "O" or cells[-1][1:2] == "-")
    several = blank or count > 1  # A single line may be a sentence of one word.
    if with_tabs or (len(widths) == 1 and max(widths) > 1 and tagged):
        return several
    return blank and widths == {1}


def _shown(cells: Sequence[str]) -> str:
    return f"{len(cells)} column{'s' * (len(cells) != 1)}"
