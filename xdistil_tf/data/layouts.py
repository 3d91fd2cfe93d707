"""Which cell of a row is what: headed and headerless TSV, CSV, JSON lines, CoNLL, GLUE."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from xdistil_tf.data import rows
from xdistil_tf.data.rows import Problem


@dataclasses.dataclass(frozen=True)
class Columns:
    """How a user's files are read.

    Attributes:
      text, text_b, label, language: Names of the columns in headed TSV, CSV and JSON lines, of
        CoNLL files numbers; None: the usual ones.
      tag_scheme: One of `tags.SCHEMES`.
    """

    text: str | None = None
    text_b: str | None = None
    label: str | None = None
    language: str | None = None
    tag_scheme: str = "auto"


USUAL_COLUMNS = Columns()


@dataclasses.dataclass(frozen=True)
class Spec:
    """What a reader expects of a task's files.

    `pair` None means: as the first row says. `headed` files must name `columns.text`, except
    that a first row of `width` cells has no header and is read by `positions`.
    """

    task_type: str
    pair: bool | None = None
    columns: Columns = USUAL_COLUMNS
    headed: bool = False
    positions: Mapping[str, int] | None = None
    width: int = 0


class Fields(NamedTuple):
    """The cells of one row. In tagging, words and tags are joined by `separator`."""

    text: str
    text_b: str | None = None
    label: str | None = None
    language: str | None = None
    source_id: str | None = None
    separator: str = " "


class Layout(NamedTuple):
    """Cell numbers; `width` 0 accepts any row that has them all."""

    text: int
    text_b: int | None
    label: int | None
    language: int | None
    source_id: int | None
    width: int
    separator: str = " "


# What the usual headers call each column, the likeliest first.
_USUAL = {
    "text": ("text", "sentence", "text_a", "sentence1", "words", "tokens", "question1", "premise"),
    "text_b": ("text_b", "sentence2", "question2", "hypothesis"),
    "label": ("label", "labels", "tags", "ner_tags", "score", "gold_label"),
    "language": ("language", "lang"),
}
_IDENTIFIERS = ("id", "index", "idx")


def open_rows(
    path: pathlib.Path, spec: Spec, label: str = "required"
) -> Iterator[tuple[int, Fields | Problem]]:
    """Yields `(line number, fields or problem)` of one file.

    Args:
      path: A `.tsv`, `.txt`, `.csv`, `.jsonl`, `.json` or `.conll` file.
      spec: What the task expects.
      label: `required` (train, dev), `optional` (test) or `ignored` (transfer).

    Raises:
      ValueError: If the file as a whole does not fit: its header, or its first row.
    """
    if path.suffix in (".jsonl", ".json"):
        return _json_fields(path, spec, label)
    if path.suffix == ".csv":
        return _fields(path, rows.read_csv(path), spec, label, headed=True)
    if spec.task_type == "tagging" and (path.suffix == ".conll" or rows.looks_like_conll(path)):
        return _conll_fields(path, spec, label)
    return _fields(path, rows.read_tsv(path), spec, label, headed=spec.headed)


def has_pairs(path: pathlib.Path, spec: Spec) -> bool:
    """Whether the first sound row of a labelled file has two texts."""
    for _, fields in open_rows(path, spec):
        if isinstance(fields, Fields):
            return fields.text_b is not None
    return False


def _conll_fields(
    path: pathlib.Path, spec: Spec, label: str
) -> Iterator[tuple[int, Fields | Problem]]:
    token = _column_number(path, "text", spec.columns.text, 0)
    tag = None if label == "ignored" else _column_number(path, "label", spec.columns.label, -1)
    source = rows.read_conll(path, token, tag)
    if label == "optional" and tag is not None:
        width = rows.conll_width(path)
        if width == 1 or not -width <= tag < width:
            source = rows.read_conll(path, token, None)
    for line, cells in source:
        if isinstance(cells, Problem):
            yield line, cells
        else:
            yield line, Fields(cells[0], None, cells[1] if len(cells) > 1 else None, separator="\t")


def _column_number(path: pathlib.Path, key: str, given: str | None, usual: int) -> int:
    if given is None:
        return usual
    try:
        return int(given)
    except ValueError:
        raise ValueError(
            f"{path} has one token a line and no header: expected the number of a column, counted "
            f"from 0, as --{key}_column. Received: {given!r}."
        ) from None


def _fields(
    path: pathlib.Path, source: Iterator[rows.Row], spec: Spec, label: str, headed: bool
) -> Iterator[tuple[int, Fields | Problem]]:
    layout = None
    for line, cells in source:
        if layout is None and isinstance(cells, list):
            layout, is_header = _layout(path, cells, spec, label, headed)
            if is_header:
                continue
        if isinstance(cells, Problem):
            yield line, cells
        else:
            yield _picked(line, cells, layout)


def _layout(
    path: pathlib.Path, first: Sequence[str], spec: Spec, label: str, headed: bool
) -> tuple[Layout, bool]:
    """The layout that the first row tells, and whether that row is a header."""
    if spec.positions and len(first) == spec.width:
        cell = spec.positions
        given = None if label == "ignored" else cell["label"]
        return Layout(cell["sentence"], None, given, None, None, spec.width), False
    if headed or _is_header(first):
        return _from_header(path, list(first), spec, label), True
    if label == "ignored":
        return Layout(0, 1 if spec.pair else None, None, None, None, 0), False
    pair = spec.pair
    if pair is None:
        pair = len(first) == 3 and spec.task_type != "tagging"
    width = 3 if pair else 2
    if label == "optional" and len(first) == width - 1:
        return Layout(0, 1 if pair else None, None, None, None, width - 1), False
    return Layout(0, 1 if pair else None, width - 1, None, None, width), False


def _is_header(cells: Sequence[str]) -> bool:
    names = [cell.strip().lower() for cell in cells]
    others = (*_USUAL["label"], *_USUAL["text_b"], *_IDENTIFIERS)
    return any(name in _USUAL["text"] for name in names) and any(name in others for name in names)


def _from_header(path: pathlib.Path, header: list[str], spec: Spec, label: str) -> Layout:
    chosen = _choose(path, [name.strip() for name in header], spec, label)
    found = {key: header.index(name) if name else None for key, name in chosen.items()}
    source_id = header.index("source_id") if "source_id" in header else None
    return Layout(**found, source_id=source_id, width=len(header))


def _choose(
    path: pathlib.Path, present: list[str], spec: Spec, label: str
) -> dict[str, str | None]:
    """The name of the column to read for each field."""
    chosen: dict[str, str | None] = {}
    for key, usual in _USUAL.items():
        name = getattr(spec.columns, key)
        if label == "ignored" and name not in present:
            name = None  # A transfer file may be ours or the task's own.
        if name is None and not (spec.headed and key == "text_b"):
            name = next((one for one in usual if one in present), None)
        if key == "text_b" and spec.pair is False:
            name = None
        if key == "label" and (label == "ignored" or (label == "optional" and name not in present)):
            name = None
        needed = key == "text" or (key == "label" and label == "required")
        if name not in present and (name or needed or (key == "text_b" and spec.pair)):
            wanted = " or ".join(map(repr, [name] if name else usual))
            raise ValueError(
                f"{path}: expected a column {wanted} for the {key}. "
                f"Received the columns {present}. Name it with --{key}_column."
            )
        chosen[key] = name
    return chosen


def _picked(line: int, cells: list[str] | Problem, layout: Layout) -> tuple[int, Fields | Problem]:
    if isinstance(cells, Problem):
        return line, cells
    last = max(cell for cell in layout[:5] if cell is not None)
    if len(cells) != layout.width if layout.width else len(cells) <= last:
        return line, Problem(_expected(layout, last, len(cells)))
    texts = (cells[cell] if cell is not None else None for cell in layout[:5])
    return line, Fields(*texts, separator=layout.separator)


def _expected(layout: Layout, last: int, received: int) -> str:
    names = {
        cell: name
        for name, cell in zip(layout._fields[:5], layout[:5], strict=True)
        if cell is not None
    }
    width = layout.width or last + 1
    shown = ", ".join(names[cell] for cell in sorted(names)) if len(names) == width else ""
    least = "" if layout.width else "at least "
    return (
        f"expected {least}{width} tab-separated column{'s' * (width != 1)}"
        f"{f' ({shown})' if shown else ''}, received {received}"
    )


def _json_fields(
    path: pathlib.Path, spec: Spec, label: str
) -> Iterator[tuple[int, Fields | Problem]]:
    source = rows.read_json_lines(path)
    first = next(((n, one) for n, one in source if isinstance(one, dict)), None)
    if first is None:
        yield from rows.read_json_lines(path)
        return
    chosen = _choose(path, list(first[1]), spec, label)
    for line, record in rows.read_json_lines(path):
        if isinstance(record, Problem):
            yield line, record
            continue
        missing = [
            name
            for key, name in chosen.items()
            if name and record.get(name) is None and (key != "label" or label == "required")
        ]
        if missing:
            yield line, Problem(f"expected the keys {missing}, received {sorted(record)}")
            continue
        cells = {key: _text(record.get(name)) for key, name in chosen.items()}
        source_id = record.get("source_id")
        separator = "\t" if isinstance(record[chosen["text"]], list) else " "
        yield (
            line,
            Fields(
                **cells,
                source_id=None if source_id is None else str(source_id),
                separator=separator,
            ),
        )


def _text(value: Any) -> str | None:
    if value is None:
        return None
    return "\t".join(map(str, value)) if isinstance(value, list) else str(value)
