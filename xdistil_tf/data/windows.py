"""Long sentences as windows: cut between words, with some context of each other.

```
pieces of each word -> windows that fit -> which words count in which window
```
"""

from __future__ import annotations

import bisect
import dataclasses
import itertools
import re
from collections.abc import Sequence

import numpy as np

SHARED = 4  # Neighbours share at most a quarter of their room.
_NUMBERED = re.compile(r"(.*)/w(\d+)", re.DOTALL)


@dataclasses.dataclass(frozen=True, slots=True)
class Window:
    """Words `first … stop` of a sentence, of which `own_first … own_stop` count in this window."""

    first: int
    stop: int
    own_first: int
    own_stop: int


def first_pieces(word_index: np.ndarray) -> np.ndarray:
    """Where a word begins, bool in the shape of `word_index`: the word of each piece, else -1.

    >>> first_pieces(np.array([-1, 0, 0, 1, -1])).tolist()
    [False, True, False, True, False]
    """
    before = np.full_like(word_index, -1)
    before[..., 1:] = word_index[..., :-1]
    return (word_index >= 0) & (word_index != before)


def cut(sizes: Sequence[int], room: int) -> list[Window]:
    """Cuts a sentence into windows.

    Each window takes what fits; the next one begins up to a quarter of the room before the end of
    the last. A word in both counts in the one where more pieces stand between it and the border
    inside the sentence, of equals in the earlier.

    >>> [(one.first, one.stop, one.own_first, one.own_stop) for one in cut([1] * 6, 4)]
    [(0, 4, 0, 4), (3, 6, 4, 6)]

    Args:
      sizes: Pieces of each word.
      room: Pieces of a window.

    Raises:
      ValueError: If a word alone does not fit.
    """
    if sizes and max(sizes) > room:
        raise ValueError(f"Expected words of at most {room} pieces. Received: {max(sizes)}.")
    begins = [0, *itertools.accumulate(sizes)]  # Pieces before each word.
    spans = [_fitting(begins, 0, room)]
    while spans[-1][1] < len(sizes):
        start, stop = spans[-1]
        room_before = min(room // SHARED, room - sizes[stop])
        first = bisect.bisect_left(begins, begins[stop] - room_before, start + 1, stop)
        spans.append(_fitting(begins, first, room))
    bounds = [0]
    for (_, stop), (first, _) in itertools.pairwise(spans):
        # Pieces after the word in the one, before it in the other.
        bounds.append(
            next(
                (
                    word
                    for word in range(max(first, bounds[-1]), stop)
                    if begins[stop] - begins[word + 1] < begins[word] - begins[first]
                ),
                stop,
            )
        )
    bounds.append(len(sizes))
    windows = [
        Window(*span, *own) for span, own in zip(spans, itertools.pairwise(bounds), strict=True)
    ]
    return [one for one in windows if one.own_first < one.own_stop or len(windows) == 1]


def window_id(sentence_id: str, number: int) -> str:
    """The id of a sentence's window, counted from 1; the first has that of the sentence.

    >>> window_id("train:5", 1), window_id("train:5", 2)
    ('train:5', 'train:5/w2')
    """
    return sentence_id if number == 1 else f"{sentence_id}/w{number}"


def sentence_of(record_id: str) -> tuple[str, int]:
    """The sentence of a record and the number of the window.

    >>> sentence_of("train:5"), sentence_of("train:5/w2")
    (('train:5', 1), ('train:5', 2))
    """
    match = _NUMBERED.fullmatch(record_id)
    return (match[1], int(match[2])) if match else (record_id, 1)


def _fitting(begins: Sequence[int], first: int, room: int) -> tuple[int, int]:
    """The words from `first` on that fit; at least one."""
    return first, bisect.bisect_right(begins, begins[first] + room) - 1
