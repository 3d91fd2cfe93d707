"""What a reader of inputs gives: documents as they were found, and what is left out of them."""

from __future__ import annotations

import dataclasses

REASONS = ("redirect", "disambiguation", "empty", "other_namespace", "bad")


@dataclasses.dataclass(frozen=True, slots=True)
class Document:
    """One document before its sentences are split.

    Attributes:
      kind: `wikitext` (markup), `extracted` (WikiExtractor's) or `plain`.
      title: Empty where the input has none.
      text: With its lines.
      file, row: Where it stands: a line, or the number of a page, both from 1.
      hidden: Names of namespaces whose links show no text (files, categories), in lower case.
    """

    kind: str
    title: str
    text: str
    file: str
    row: int
    hidden: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Dropped:
    """A document that is left out and counted; `reason` is one of `REASONS`, not `bad`."""

    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Bad:
    """A damaged document or line: what was expected and what came."""

    file: str
    row: int
    reason: str


Found = Document | Dropped | Bad
