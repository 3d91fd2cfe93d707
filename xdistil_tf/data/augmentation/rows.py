"""The rows of an augmented file: every example, and what its rounds make of it."""

from __future__ import annotations

import dataclasses
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from absl import logging

from xdistil_tf import files
from xdistil_tf.data.augmentation import rounds, words
from xdistil_tf.data.augmentation.settings import Settings
from xdistil_tf.data.examples import Example, TaskData
from xdistil_tf.data.split import text_key
from xdistil_tf.data.tokenizer import Tokenizer

HEADER = ("id", "text", "text_b", "label", "source_id", "rules")
_CHUNK = 1024  # Examples tokenized together.
_LETTERS = {"text": "a", "text_b": "b"}  # Of columns, in ids.
_BREAKS = re.compile(r"[\t\r\n]+")

Candidates = dict[int, tuple[str, ...]]  # Number of a word -> what may stand there.
# (id of an example, letter of the column): with the seed, what the rounds of a text follow from.
User = tuple[str, str]


def on_one_line(example: Example) -> Example:
    """Cells of CSV and JSON may hold what ends a cell of TSV."""
    if not _BREAKS.search(f"{example.text}{example.text_b or ''}"):
        return example
    text_b = None if example.text_b is None else _BREAKS.sub(" ", example.text_b)
    return dataclasses.replace(example, text=_BREAKS.sub(" ", example.text), text_b=text_b)


def users(examples: Sequence[Example]) -> dict[str, list[User]]:
    """Who has each text, in the order of the file: premises and questions stand there often."""
    found: dict[str, list[User]] = {}
    for one in examples:
        for column, letter in _LETTERS.items():
            if (text := getattr(one, column)) is not None:
                found.setdefault(text, []).append((one.id, letter))
    return found


def write_rows(
    output: pathlib.Path,
    data: TaskData,
    examples: Sequence[Example],
    found: Callable[[str], Candidates],
    tokenizer: Tokenizer,
    settings: Settings,
    check: Callable[[], None],
) -> dict[str, Any]:
    """Writes each example and what it becomes, as `HEADER` says.

    A variant that says what some example says is left out: that one has a label of its own. About
    110 bytes a row are kept in memory, to know what stands there already.

    Args:
      output: The file.
      data: The task; texts of its other splits, and what derives from them, are left out.
      examples: Those of train, on one line each.
      found: Gives the candidates of a text.
      tokenizer: That of the candidates.
      settings: How.
      check: Called now and then; what it raises leaves no file.

    Returns:
      `rows`, and `dropped` for each reason.
    """
    originals = {text_key(one) for one in examples}
    reported = {
        text_key(one) for name, split in data.splits.items() if name != "train" for one in split
    }
    seen: set[bytes] = set()
    dropped = {"duplicate": 0, "overlap": 0}
    with files.replaced_file(output, "w") as handle:
        handle.write("\t".join(HEADER) + "\n")
        for start in range(0, len(examples), _CHUNK):
            check()
            for one, rows in _rows(examples[start : start + _CHUNK], found, tokenizer, settings):
                if text_key(one) in reported:  # And so does all that derives from it.
                    dropped["overlap"] += 1
                    continue
                for row in rows:
                    key = text_key(row.example)
                    if key in reported or key in seen or (row.rules and key in originals):
                        dropped["overlap" if key in reported else "duplicate"] += 1
                        continue
                    seen.add(key)
                    handle.write(row.line())
            done = min(start + _CHUNK, len(examples))
            logging.info("Rows of %d of %d examples.", done, len(examples))
    return {"rows": len(seen), "dropped": dropped}


@dataclasses.dataclass(frozen=True)
class _Row:
    """A row to be written."""

    id: str
    example: Example
    rules: str

    def line(self) -> str:
        one = self.example
        label = "" if one.label is None else str(one.label)
        cells = (self.id, one.text, one.text_b or "", label, one.source_id or one.id, self.rules)
        return "\t".join(cells) + "\n"


def _rows(
    chunk: Sequence[Example],
    found: Callable[[str], Candidates],
    tokenizer: Tokenizer,
    settings: Settings,
) -> Iterator[tuple[Example, Iterator[_Row]]]:
    """Each example with itself and what it becomes."""
    texts = list(users(chunk))
    known = dict(zip(texts, words.read_texts(tokenizer, texts), strict=True))
    for one in chunk:
        yield one, _rows_of(one, known, found, settings)


def _rows_of(
    example: Example,
    known: Mapping[str, words.Text],
    found: Callable[[str], Candidates],
    settings: Settings,
) -> Iterator[_Row]:
    """The example itself, then its variants: of a pair one text varies, the other stays."""
    yield _Row(example.id, example, "")
    for column, letter in _LETTERS.items():
        original = getattr(example, column)
        if original is None:
            continue
        made = rounds.augmented_texts(
            known[original],
            found(original),
            settings.rounds,
            settings.replace_prob,
            (settings.seed, example.id, letter),
        )
        for number, text in made:
            changed = dataclasses.replace(example, **{column: text})
            yield _Row(f"{example.id}/{letter}{number}", changed, settings.method)
