"""The rows of augmented files that may train: none that derives from what selects or is reported.

A row has the language of what it derives from.

They may be millions, so they are read twice, once to decide and once to be written. Of each only a
digest is held (about 110 bytes), to know what stood there before.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from xdistil_tf.data.examples import Example
from xdistil_tf.data.split import Splits, text_key


class Augmented:
    """Augmented examples, in the order of their files; each iteration reads them again.

    Attributes:
      counts: How many rows were left out for each reason.
    """

    def __init__(
        self,
        read: Callable[[], Iterator[Example]],
        train: Sequence[Example],
        splits: Splits,
        labels_of: frozenset[str] | None = None,
        some_languages: bool = False,
    ):
        """Reads all rows once.

        Args:
          read: Yields the rows anew at each call.
          train: All examples that they may derive from.
          splits: Held-out, dev and test examples; their texts, and what derives from them, are
            left out.
          labels_of: Only rows that derive from these examples keep their label; `None`: all do.
          some_languages: Whether train lacks the examples of other languages: rows that derive from
            them are then left out, not refused.

        Raises:
          ValueError: If a row derives from what train does not have; names file and line.
        """
        self._read, self._labels_of = read, labels_of
        self._languages = {one.id: one.language for one in train}
        self.counts: collections.Counter[str] = collections.Counter()
        reasons = _reasons(read(), train, splits, some_languages)
        # One byte a row; a list of references would take eight.
        self._kept = np.fromiter(self._decisions(reasons), np.bool_)

    def __len__(self) -> int:
        return int(self._kept.sum())

    def __iter__(self) -> Iterator[Example]:
        for one, kept in zip(self._read(), self._kept, strict=True):
            if kept:
                known = self._labels_of is None or one.source_id in self._labels_of
                language = self._languages.get(one.source_id, one.language)
                label = one.label if known else None
                yield dataclasses.replace(one, label=label, language=language)

    def _decisions(self, reasons: Iterator[str]) -> Iterator[bool]:
        for reason in reasons:
            if reason:
                self.counts[reason] += 1
            yield not reason


def _reasons(
    rows: Iterator[Example], train: Sequence[Example], splits: Splits, some_languages: bool
) -> Iterator[str]:
    """Why each row is left out; empty where it stays."""
    heldout, others = splits.heldout, [one for rows in splits.others.values() for one in rows]
    heldout_texts, other_texts = _texts(heldout), _texts(others)
    # Of train's own, too, if its text is held out or reported on.
    heldout_ids = _ids(heldout) | {one.id for one in train if text_key(one) in heldout_texts}
    other_ids = _ids(others) | {one.id for one in train if text_key(one) in other_texts}
    sources = _ids(train) | other_ids
    seen: set[bytes] = set()
    for one in rows:
        if one.source_id is not None and one.source_id not in sources:
            if some_languages:
                yield "language"
                continue
            file, line = one.source
            raise ValueError(
                f"{file} line {line} derives from {one.source_id!r}, which this task does not "
                "have. Make the file anew from this task folder with augment."
            )
        key = text_key(one)
        if key in heldout_texts or one.source_id in heldout_ids:
            yield "heldout"
        elif key in other_texts or one.source_id in other_ids:
            yield "overlap"
        elif key in seen:
            yield "duplicate"
        else:
            seen.add(key)
            yield ""


def _texts(examples: Sequence[Example]) -> frozenset[bytes]:
    return frozenset(map(text_key, examples))


def _ids(examples: Sequence[Example]) -> frozenset[str]:
    return frozenset(one.id for one in examples)
