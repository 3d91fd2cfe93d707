"""Rules that vary a text without a model: masks, other words of the same tag, n-grams alone.

Tang et al., "Distilling Task-Specific Knowledge from BERT into Simple Neural Networks" (2019),
section 3.2. Each word is masked, or replaced by a word drawn from all of its part of speech, or
stays; then, now and then, an n-gram of the text is all that is kept.

What is drawn follows from (seed, id, column, iteration) alone. Texts of one length are drawn for
together, as arrays.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from xdistil_tf.data.augmentation.sentence_words import Sentence
from xdistil_tf.data.augmentation.settings import RuleSettings
from xdistil_tf.data.features import MASK_TOKEN
from xdistil_tf.data.pretraining import draws

_MASKED, _REPLACED, _WINDOWED = 1, 2, 4
_NAMES_OF_BITS = tuple(
    "+".join(name for bit, name in enumerate(("mask", "pos", "ngram")) if bits >> bit & 1)
    for bits in range(8)
)
# Places of a text's draws behind those of its words.
_WINDOW, _LENGTH, _START = range(3)
_OF_TEXT = 3
Counts = collections.Counter[str]


class Variant(NamedTuple):
    """What an iteration makes of a text that it changes.

    Attributes:
      iteration: From 1.
      text: `None`: nothing is left of it.
      rules: What acted: names joined by `+`.
    """

    iteration: int
    text: str | None
    rules: str


class WordsByTag:
    """The words that were seen with each tag, as often as they were seen."""

    def __init__(self, counts: Mapping[str, Mapping[str, int]]):
        self._numbers = {tag: number for number, tag in enumerate(sorted(counts))}
        rows = [(word, n) for tag in self._numbers for word, n in sorted(counts[tag].items())]
        totals = [sum(counts[tag].values()) for tag in self._numbers]
        self._words = np.array([word for word, _ in rows], object)
        self._ends = np.cumsum([n for _, n in rows], dtype=np.int64)
        self._begins = np.cumsum([0, *totals], dtype=np.int64)

    def numbers(self, tags: Sequence[str]) -> list[int]:
        """The number of each tag."""
        return [self._numbers[tag] for tag in tags]

    def draw(self, tags: np.ndarray, shares: np.ndarray) -> np.ndarray:
        """A word of each tag, the frequent ones more often.

        Args:
          tags: Numbers; int [N].
          shares: Where in all that was seen; float [N], in [0, 1).

        Returns:
          object [N].
        """
        begins = self._begins[tags]
        places = begins + (shares * (self._begins[tags + 1] - begins)).astype(np.int64)
        return self._words[np.searchsorted(self._ends, places, side="right")]


@dataclasses.dataclass(frozen=True, slots=True)
class Task:
    """A text to be varied.

    Attributes:
      sentence: Its words.
      tags: The number of each word's tag; empty where none is replaced.
      key: What its draws follow from.
      alone: Whether it is no part of a pair; the published codes differ.
    """

    sentence: Sentence
    tags: Sequence[int]
    key: int
    alone: bool = True


def variants(
    tasks: Sequence[Task],
    settings: RuleSettings,
    n_iter: int,
    table: WordsByTag | None,
    counts: Counts,
) -> list[list[Variant]]:
    """Varies each text `n_iter` times.

    Args:
      tasks: The texts.
      settings: Chances, lengths of n-grams.
      n_iter: How often.
      table: What words are replaced by; `None` where `p_pos` is 0.
      counts: Counts attempts, and what happened to words and texts, for each rule.

    Returns:
      For each text its variants, in order; iterations that leave it as it is are not among them.
    """
    made: list[list[Variant]] = [[] for _ in tasks]
    by_length = collections.defaultdict(list)
    for number, one in enumerate(tasks):
        by_length[len(one.sentence.words)].append(number)
    for length, numbers in by_length.items():
        group = [tasks[number] for number in numbers]
        drawn = _draw(group, length, n_iter, settings)
        words = _words(group, drawn, settings, table)
        counts.update(drawn.counts())
        for row, variant in _changed(group, drawn, words, n_iter):
            made[numbers[row // n_iter]].append(variant)
    return made


@dataclasses.dataclass(frozen=True)
class _Drawn:
    """All iterations of texts with L words; R rows, those of a text one after the other."""

    of_words: np.ndarray  # float [R, L]
    masked: np.ndarray  # bool [R, L]
    replaced: np.ndarray  # bool [R, L]
    windowed: np.ndarray  # bool [R]
    starts: np.ndarray  # int [R]: the words that are kept.
    stops: np.ndarray  # int [R]
    gone: np.ndarray  # bool [R]: no word of the text is left.
    tried: np.ndarray  # bool [R]

    @property
    def inside(self) -> np.ndarray:
        """Whether a word is kept or stands there replaced; bool [R, L]."""
        return _inside(self.starts, self.stops, self.masked.shape[1])

    def counts(self) -> dict[str, int]:
        """What is counted of iterations that were tried."""
        tried = self.tried
        return {
            "attempts": int(tried.sum()),
            "words": int(tried.sum()) * self.masked.shape[1],
            "mask": int(self.masked[tried].sum()),
            "pos": int(self.replaced[tried].sum()),
            "ngram": int(self.windowed[tried].sum()),
            "all_replaced": int(self.gone[tried].sum()),
        }


def _draw(group: Sequence[Task], length: int, n_iter: int, settings: RuleSettings) -> _Drawn:
    """What each iteration does to each of some texts of one length."""
    keys = np.array([one.key for one in group], np.uint64)
    shares = draws.shares(
        draws.numbers(draws.numbers(keys, 0, n_iter).reshape(-1), 0, length + _OF_TEXT)
    )
    of_words, of_text = shares[:, :length], shares[:, length:]
    masked = of_words < settings.p_mask
    replaced = ~masked & (of_words < settings.p_mask + settings.p_pos)
    lengths = np.array(settings.ngram_lengths)
    sizes = lengths[(of_text[:, _LENGTH] * len(lengths)).astype(np.int64)]
    wanted = of_text[:, _WINDOW] < settings.p_ngram
    windowed = wanted & (sizes < length)
    # As published an n-gram begins before the last one, so that the last word is in none.
    places = length - sizes + (not settings.as_published)
    starts = np.where(windowed, (of_text[:, _START] * places).astype(np.int64), 0)
    stops = np.where(windowed, starts + sizes, length)
    if not settings.as_published:
        gone = (masked | replaced | ~_inside(starts, stops, length)).all(1)
        tried = np.ones(len(shares), bool)
    else:  # There of a text alone all words count, and one too short for its n-gram is given up.
        alone = np.repeat([one.alone for one in group], n_iter)
        gone = (masked | replaced).all(1) & alone
        too_short = (wanted & ~windowed & alone).reshape(-1, n_iter)
        tried = ~np.logical_or.accumulate(too_short, 1).reshape(-1)
    return _Drawn(of_words, masked, replaced, windowed, starts, stops, gone, tried)


def _inside(starts: np.ndarray, stops: np.ndarray, length: int) -> np.ndarray:
    places = np.arange(length)
    return (places >= starts[:, None]) & (places < stops[:, None])


def _words(
    group: Sequence[Task], drawn: _Drawn, settings: RuleSettings, table: WordsByTag | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows and columns of the words that are replaced and kept, and what stands there; [M] each."""
    rows, columns = np.nonzero((drawn.masked | drawn.replaced) & drawn.inside)
    words = np.full(len(rows), MASK_TOKEN, object)
    other = drawn.replaced[rows, columns]
    if other.any():
        rows_of, columns_of = rows[other], columns[other]
        tags = np.array([one.tags for one in group], np.int64)
        n_iter = len(drawn.masked) // len(group)
        shares = (drawn.of_words[rows_of, columns_of] - settings.p_mask) / settings.p_pos
        shares = np.clip(shares, 0, 1 - 2.0**-53)
        words[other] = table.draw(tags[rows_of // n_iter, columns_of], shares)
    return rows, columns, words


def _changed(
    group: Sequence[Task],
    drawn: _Drawn,
    words: tuple[np.ndarray, np.ndarray, np.ndarray],
    n_iter: int,
) -> Iterator[tuple[int, Variant]]:
    """The rows whose text changes, and their variants."""
    inside = drawn.inside
    rules = (
        (drawn.masked & inside).any(1) * _MASKED
        + (drawn.replaced & inside).any(1) * _REPLACED
        + drawn.windowed * _WINDOWED
    )
    found = np.flatnonzero((rules > 0) & drawn.tried)
    pieces = _pieces(group, words, n_iter, len(rules))[found].tolist()
    of_rows = (one[found].tolist() for one in (rules, drawn.gone, drawn.starts, drawn.stops))
    for row, those, bits, gone, start, stop in zip(found.tolist(), pieces, *of_rows, strict=True):
        text = None if gone else "".join(those[start:stop])
        if start and text:
            text = text.lstrip()
        yield row, Variant(row % n_iter + 1, text, _NAMES_OF_BITS[bits])


def _pieces(
    group: Sequence[Task],
    words: tuple[np.ndarray, np.ndarray, np.ndarray],
    n_iter: int,
    rows: int,
) -> np.ndarray:
    """The words of each row with what stands before them, some replaced; object [R, L]."""
    own = np.array([one.sentence.pieces for one in group], object)
    gaps = np.array([one.sentence.gaps for one in group], object)
    places, columns, new = words
    before = gaps[places // n_iter, columns]
    # `do` and `n't` are one; `do` and `very` are not.
    inner = {row: one.sentence.inner for row, one in enumerate(group) if one.sentence.inner}
    for number in np.flatnonzero(before == "").tolist() if inner else ():
        if columns[number] in inner.get(places[number] // n_iter, ()) and new[number][0].isalnum():
            before[number] = " "
    pieces = np.repeat(own, n_iter, axis=0).reshape(rows, -1)
    pieces[places, columns] = before + new
    return pieces


def sides(key: int, n_iter: int) -> list[str]:
    """Which texts of a pair each iteration varies: `a`, `b` or `ab`, a third each."""
    shares = draws.shares(draws.numbers(np.array([key], np.uint64), 0, n_iter))[0]
    return [("a", "b", "ab")[int(3 * share)] for share in shares]
