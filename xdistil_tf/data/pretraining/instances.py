"""Where the instances of a document begin and end, as google-research/bert cuts them.

Pure functions of a random source. A document is its *borders*: the places of its sentences in the
tokens of the whole store, one more than sentences. Before, borders `[0, 4, 9, 12]`; after, plans
such as `Plan(key=…, a=(0, 4), b=(4, 12), is_random_next=False)`. No token is touched here.
"""

from __future__ import annotations

import bisect
import random
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from xdistil_tf.data.pretraining import draws
from xdistil_tf.data.pretraining.settings import Settings

Borders = Sequence[int]
# Draws the borders of another document; None where there are no pairs.
Other = Callable[[random.Random], Borders]

# The streams of an instance's key.
FRONT_A, FRONT_B, ORDER, CANDIDATES, REPLACED, KEPT, RANDOM_TOKEN = range(1, 8)


class Plan(NamedTuple):
    """One instance before truncation; B is empty and `is_random_next` false without pairs.

    Attributes:
      key: What all further draws for this instance follow from.
      a_start, a_stop, b_start, b_stop: Places in the tokens of the store.
    """

    key: int
    a_start: int
    a_stop: int
    b_start: int
    b_stop: int
    is_random_next: bool


def plan_document(
    borders: Borders, rng: random.Random, settings: Settings, other: Other | None = None
) -> Iterator[Plan]:
    """The instances of one document in one pass, in the order of the text.

    Args:
      borders: Of the document, at least one sentence.
      rng: A source of this document and pass alone.
      other: Where random next segments come from; needed with `settings.next_sentence`.
    """
    target = target_length(settings, rng)
    if settings.next_sentence:
        cuts = segment_pairs(borders, rng, target, other)
    else:
        cuts = ((*one, 0, 0, False) for one in packed_segments(borders, target))
    for cut in cuts:
        yield Plan(rng.getrandbits(64), *cut)


def target_length(settings: Settings, rng: random.Random) -> int:
    """Tokens to aim at; drawn once per document and pass, as BERT does."""
    room = settings.max_seq_length - settings.special_tokens
    return 2 + _below(rng, room - 1) if rng.random() < settings.short_seq_prob else room


def segment_pairs(
    borders: Borders, rng: random.Random, target: int, other: Other
) -> Iterator[tuple[int, int, int, int, bool]]:
    """Cuts a document into pairs of about `target` tokens, not truncated yet.

    Half of the pairs go on with the document. The others end in a piece of another document, and
    the sentences that would have followed are used again in the next pair.
    """
    start, last = 0, len(borders) - 1
    while start < last:
        end = min(bisect.bisect_left(borders, borders[start] + target, start + 1), last)
        count = end - start
        middle = start + (1 + _below(rng, count - 1) if count > 1 else 1)
        a = borders[start], borders[middle]
        if count == 1 or rng.random() < 0.5:
            yield *a, *_random_segment(other(rng), rng, target - (a[1] - a[0])), True
            start = middle
        else:
            yield *a, borders[middle], borders[end], False
            start = end


def _below(rng: random.Random, count: int) -> int:
    """One of the first `count` numbers; a quarter of the time of `randrange`."""
    return int(rng.random() * count)


def _random_segment(borders: Borders, rng: random.Random, length: int) -> tuple[int, int]:
    """Sentences of another document from a random one on, until they have `length` tokens."""
    last = len(borders) - 1
    first = _below(rng, last)
    end = bisect.bisect_left(borders, borders[first] + length, first + 1)
    return borders[first], borders[min(end, last)]


def packed_segments(borders: Borders, target: int) -> Iterator[tuple[int, int]]:
    """As many whole sentences as fit into `target` tokens; a longer sentence is cut into parts."""
    start = borders[0]
    for begin, end in zip(borders[:-1], borders[1:], strict=True):
        while end - start > target:
            # The sentence does not fit behind what there is; alone, it fills a segment.
            cut = begin if begin > start else start + target
            yield start, cut
            start = cut
    if borders[-1] > start:
        yield start, borders[-1]


def truncate(
    lengths_a: np.ndarray, lengths_b: np.ndarray, room: int, keys: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Drops tokens of the longer segment (B, if equal), at either end by chance, down to `room`.

    The original drops one token at a time; how many each side loses is no chance, and how many of
    these at the front is a number of coins.

    Args:
      lengths_a, lengths_b: int64 [N].
      keys: uint64 [N].

    Returns:
      Tokens dropped at the front of A, and left of A; the same of B; each int64 [N].
    """
    excess = np.maximum(lengths_a + lengths_b - room, 0)
    first = np.minimum(excess, np.abs(lengths_a - lengths_b))  # Until both are equally long.
    rest = excess - first
    dropped_a = np.where(lengths_a > lengths_b, first, 0) + rest // 2
    dropped_b = excess - dropped_a
    front_a = draws.heads(keys, FRONT_A, dropped_a)
    front_b = draws.heads(keys, FRONT_B, dropped_b)
    return front_a, lengths_a - dropped_a, front_b, lengths_b - dropped_b
