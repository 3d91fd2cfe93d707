"""Documents of WikiExtractor (2: `<doc>` blocks, 3: JSON lines), of JSON lines and of plain text.

Each reader yields what it finds; a damaged line is a `Bad`, whose weight the caller judges.
"""

from __future__ import annotations

import html
import json
import pathlib
import re
from collections.abc import Iterator

from xdistil_tf.data.corpus import inputs
from xdistil_tf.data.corpus.documents import Bad, Document, Found

# The title stands unescaped in the attribute, quotation marks and all.
_DOC = re.compile(r'<doc id="[^"]*"(?: revid="[^"]*")? url="[^"]*" title="(.*)"\s*>\s*')

_LONGEST = 64_000_000  # Characters of a plain document; a book has a million.


def read_blocks(path: pathlib.Path) -> Iterator[Found]:
    """Yields the documents of `<doc id=.. url=.. title=..>`, lines, `</doc>`."""
    title, start, lines, bad = "", 0, [], None
    for row, line in _lines(path):
        if isinstance(line, Bad):
            if start:
                bad = bad or line
            else:
                yield line
        elif match := _DOC.fullmatch(line):
            if start:
                yield Bad(str(path), start, "expected </doc> before the next <doc>")
            title, start, lines, bad = html.unescape(match[1]), row, [], None
        elif line.strip() == "</doc>" and start:
            text = html.unescape("\n".join(lines))
            yield bad or Document("extracted", title, _untitled(text, title), str(path), start)
            start = 0
        elif start:
            lines.append(line)
        elif line.strip():
            yield Bad(
                str(path), row, f"expected <doc id=.. url=.. title=..>, received {line[:40]!r}"
            )
    if start:
        yield Bad(str(path), start, "expected </doc> at the end of the file, which is cut off")


def read_json_lines(path: pathlib.Path, text_field: str, extracted: bool) -> Iterator[Found]:
    """Yields one document an object.

    Args:
      path: The file.
      text_field: Where the text stands; of WikiExtractor it is `text`.
      extracted: Whether WikiExtractor wrote it, which escapes HTML and may repeat the title.
    """
    for row, line in _lines(path):
        if isinstance(line, Bad):
            yield line
        elif line.strip():
            yield _json_document(str(path), row, line, text_field, extracted)


def read_text(path: pathlib.Path) -> Iterator[Found]:
    """Yields what stands between empty lines.

    Raises:
      ValueError: If a document is too long to be one: the text has no empty lines.
    """
    lines, start, bad, size = [], 0, None, 0
    for row, line in _lines(path):
        if isinstance(line, Bad):
            bad, start = bad or line, start or row
        elif line.strip():
            start = start or row
            lines.append(line)
            size += len(line)
            _check_size(path, start, size)
        elif start:
            yield bad or Document("plain", "", "\n".join(lines), str(path), start)
            lines, start, bad, size = [], 0, None, 0
    if start:
        yield bad or Document("plain", "", "\n".join(lines), str(path), start)


def _check_size(path: pathlib.Path, row: int, size: int) -> None:
    if size > _LONGEST:
        raise ValueError(
            f"{path}, row {row}: expected an empty line between documents, received "
            f"{_LONGEST:,} characters without one. Put empty lines in, or make each document a "
            "line of JSON."
        )


def _json_document(path: str, row: int, line: str, text_field: str, extracted: bool) -> Found:
    try:
        value = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        return Bad(path, row, f"expected one JSON object a line, received: {error}")
    if not isinstance(value, dict):
        kind = type(value).__name__
        return Bad(path, row, f"expected one JSON object a line, received a {kind}")
    text, title = value.get(text_field), value.get("title")
    if not isinstance(text, str):
        keys = ", ".join(sorted(value)[:10])
        return Bad(path, row, f"expected text in the field {text_field!r}, received fields {keys}")
    title = title if isinstance(title, str) else ""
    if not extracted:
        return Document("plain", title, text, path, row)
    title, text = html.unescape(title), html.unescape(text)
    return Document("extracted", title, _untitled(text, title), path, row)


def _untitled(text: str, title: str) -> str:
    """Text without a first line that is the title, and nothing but the title.

    >>> _untitled("Paris\\n\\nParis is a city.", "Paris"), _untitled("It is a city.", "Paris")
    ('\\n\\nParis is a city.', 'It is a city.')
    """
    text = text.lstrip()
    first = text.split("\n", 1)[0]
    return text[len(first) :] if title and first.strip() == title.strip() else text


def _lines(path: pathlib.Path) -> Iterator[tuple[int, str | Bad]]:
    """Yields numbered lines without their ends. Only a line feed ends a line."""
    with inputs.opened(path) as handle:
        for number, line in enumerate(handle, start=1):
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError as error:
                byte = line[error.start]
                yield (
                    number,
                    Bad(str(path), number, f"expected UTF-8, received the byte 0x{byte:02x}"),
                )
                continue
            text = text.removesuffix("\n").removesuffix("\r")
            yield number, text.removeprefix("\ufeff") if number == 1 else text
