"""Which tokens of many sequences are predicted, and what stands in their place: BERT's rules.

Before, `[CLS] the soup was great [SEP] …`; after, `[CLS] the soup [MASK] great [SEP] …`, and that
position 3 was `was`. All rows at once; each row's draws follow from its key alone.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from xdistil_tf.data.pretraining import draws, instances
from xdistil_tf.data.pretraining.settings import Settings, num_predictions
from xdistil_tf.data.pretraining.vocabulary import Vocabulary

_PLACE = np.uint64((1 << 16) - 1)
_NEVER = np.uint64((1 << 64) - 1)


@dataclasses.dataclass
class Batch:
    """N sequences of one width, padded with 0.

    Attributes:
      input_ids: int64 [N, T].
      lengths: int64 [N], real tokens.
      segment_ids: uint8 [N, T].
      word_starts: int8 [N, T]: 1 a word begins, 0 goes on with it, -1 special tokens and padding.
      is_random_next: uint8 [N], or None where there are no pairs.
      positions, masked_ids: int64 [N, P], padded with 0.
      counts: int64 [N], tokens to predict.
    """

    input_ids: np.ndarray
    lengths: np.ndarray
    segment_ids: np.ndarray
    word_starts: np.ndarray
    is_random_next: np.ndarray | None
    positions: np.ndarray | None = None
    masked_ids: np.ndarray | None = None
    counts: np.ndarray | None = None


def word_starts(input_ids: np.ndarray, vocabulary: Vocabulary, padding: np.ndarray) -> np.ndarray:
    """Where words begin, from ids alone.

    A piece begins a word if its form says so, or if it stands behind a special token: so the first
    piece of a segment never joins the last word of the segment before it.

    Args:
      input_ids: int [N, T].
      padding: bool [N, T], true behind the last real token.

    Returns:
      int8 [N, T].
    """
    special = vocabulary.special[input_ids] | padding
    starts = ~vocabulary.continues[input_ids]
    starts[:, 0] = True
    starts[:, 1:] |= special[:, :-1]
    return np.where(special, -1, starts).astype(np.int8)


def mask(batch: Batch, keys: np.ndarray, vocabulary: Vocabulary, settings: Settings) -> None:
    """Chooses tokens to predict, keeps what they were, and puts others in their place.

    Args:
      batch: Its `input_ids` are changed; `positions`, `masked_ids` and `counts` are set.
      keys: uint64 [N].
    """
    width = batch.input_ids.shape[1]
    wanted = np.array([num_predictions(length, settings) for length in range(width + 1)])
    wanted = wanted[batch.lengths]
    choose = _choose_words if settings.do_whole_word_mask else _choose_pieces
    chosen = choose(batch.word_starts, wanted, keys)
    rows, places = np.nonzero(chosen)  # Row by row, places rising.
    batch.counts = chosen.sum(axis=1, dtype=np.int64)
    slots = np.arange(len(rows)) - np.repeat(np.cumsum(batch.counts) - batch.counts, batch.counts)
    batch.positions, batch.masked_ids = np.zeros(
        (2, len(keys), settings.max_predictions_per_seq), np.int64
    )
    batch.positions[rows, slots] = places
    gold = batch.input_ids[rows, places]
    batch.masked_ids[rows, slots] = gold
    if len(rows):
        batch.input_ids[rows, places] = _replacements(gold, rows, places, keys, vocabulary)


def _scores(candidates: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """A random order of each row's candidates: places in the low bits of rising numbers."""
    width = candidates.shape[1]
    bits = draws.numbers(keys, instances.CANDIDATES, width)
    bits &= ~_PLACE
    bits |= np.arange(width, dtype=np.uint64)
    return np.where(candidates, bits, _NEVER)


def _choose_pieces(starts: np.ndarray, wanted: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """bool [N, T]: `wanted` pieces of each row, or all where there are fewer."""
    candidates = starts >= 0
    most = min(int(wanted.max(initial=0)), starts.shape[1])
    chosen = np.zeros(starts.shape, bool)
    if not most:
        return chosen
    scores = _scores(candidates, keys)
    if most < scores.shape[1]:
        scores.partition(most - 1, axis=1)
    first = np.sort(scores[:, :most], axis=1)
    taken = (np.arange(most) < wanted[:, None]) & (first != _NEVER)
    rows, ranks = np.nonzero(taken)
    chosen[rows, (first[rows, ranks] & _PLACE).astype(np.int64)] = True
    return chosen


def _choose_words(starts: np.ndarray, wanted: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """bool [N, T]: whole words up to `wanted` pieces, passing over those that would exceed it."""
    width = starts.shape[1]
    sizes = _word_sizes(starts)
    order = np.sort(_scores(starts == 1, keys), axis=1)
    all_rows = np.arange(len(starts))
    taken = np.zeros(starts.shape, bool)
    counts = np.zeros(len(starts), np.int64)
    for rank in range(width):
        there = order[:, rank] != _NEVER
        if not (there & (counts < wanted)).any():
            break
        places = np.where(there, order[:, rank] & _PLACE, 0).astype(np.int64)
        size = sizes[all_rows, places]
        fits = there & (counts + size <= wanted)
        taken[all_rows[fits], places[fits]] = True
        counts += np.where(fits, size, 0)
    begins = np.maximum.accumulate(np.where(starts == 1, np.arange(width), 0), axis=1)
    return np.take_along_axis(taken, begins, axis=1) & (starts >= 0)


def _word_sizes(starts: np.ndarray) -> np.ndarray:
    """Pieces from each place to the next border of a word; int64 [N, T]."""
    width = starts.shape[1]
    borders = np.where(starts != 0, np.arange(width), width)
    ends = np.full((len(starts), width + 1), width)
    ends[:, :width] = np.minimum.accumulate(borders[:, ::-1], axis=1)[:, ::-1]
    return ends[:, 1:] - np.arange(width)


def _replacements(
    gold: np.ndarray,
    rows: np.ndarray,
    places: np.ndarray,
    keys: np.ndarray,
    vocabulary: Vocabulary,
) -> np.ndarray:
    """80 % `[MASK]`, 10 % the token itself, 10 % any of the vocabulary; int64 [M]."""
    own = draws.mixed(keys[rows] + places.astype(np.uint64) * np.uint64(2) + np.uint64(1))
    masked, kept = (
        draws.shares(draws.numbers(own, stream, 1)[:, 0])
        for stream in (instances.REPLACED, instances.KEPT)
    )
    drawn = draws.numbers(own, instances.RANDOM_TOKEN, 1)[:, 0] % np.uint64(vocabulary.size)
    other = np.where(kept < 0.5, gold, drawn.astype(np.int64))
    return np.where(masked < 0.8, vocabulary.mask_id, other)
