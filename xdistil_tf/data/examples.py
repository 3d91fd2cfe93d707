"""An example of a task, and a task as it was read."""

from __future__ import annotations

import dataclasses
import pathlib

DEFAULT_LANGUAGE = "default"


@dataclasses.dataclass(frozen=True, slots=True)
class Example:
    """One row.

    Attributes:
      id: `<file stem>:<row>`, rows counted from 1 among the data rows.
      text: The text; in tagging the words.
      text_b: The second text of a pair.
      label: A label, a number (regression), one tag per word, or None where gold is unknown.
      language: `default` where the data names none.
      source: File and line.
      source_id: The id of the example it was derived from (augmented data).
    """

    id: str
    text: str | tuple[str, ...]
    text_b: str | None = None
    label: str | float | tuple[str, ...] | None = None
    language: str = DEFAULT_LANGUAGE
    source: tuple[str, int] = ("", 0)
    source_id: str | None = None


@dataclasses.dataclass
class TaskData:
    """A task as read: its kind, its labels in the order of their ids, its splits."""

    task: str
    task_type: str
    pair: bool
    metric: str
    labels: tuple[str, ...]
    splits: dict[str, list[Example]]
    bad_rows: list[tuple[str, int, str]]
    files: tuple[pathlib.Path, ...] = ()

    @property
    def languages(self) -> tuple[str, ...]:
        return tuple(sorted({one.language for split in self.splits.values() for one in split}))
