"""Windows of long sentences: every word counts once, and where it has the most context."""

import numpy as np
import pytest

from xdistil_tf.data import windows
from xdistil_tf.data.windows import Window


@pytest.mark.parametrize("seed", range(30))
def test_every_word_counts_once_and_every_window_fits(seed):
    rng = np.random.default_rng(seed)
    room = int(rng.integers(4, 40))
    sizes = rng.integers(1, rng.integers(2, room + 2), rng.integers(1, 120)).tolist()
    sizes = [min(one, room) for one in sizes]
    cut = windows.cut(sizes, room)
    assert [one.own_first for one in cut] == [0, *(one.own_stop for one in cut[:-1])]
    assert cut[-1].own_stop == len(sizes)
    for one in cut:
        assert one.first <= one.own_first < one.own_stop <= one.stop
        assert sum(sizes[one.first : one.stop]) <= room


@pytest.mark.parametrize("seed", range(10))
def test_neighbours_share_at_most_a_quarter_and_share_it_fairly(seed):
    rng = np.random.default_rng(seed)
    sizes, room = rng.integers(1, 4, 200).tolist(), 40
    cut = windows.cut(sizes, room)
    for before, after in zip(cut, cut[1:], strict=False):
        shared = sizes[after.first : before.stop]
        assert 10 - 3 < sum(shared) <= 10
        for word in range(after.first, before.stop):
            behind = sum(sizes[word + 1 : before.stop])
            ahead = sum(sizes[after.first : word])
            assert (word < before.own_stop) == (behind >= ahead)


def test_a_sentence_that_fits_is_one_window():
    assert windows.cut([2, 2], 4) == [Window(0, 2, 0, 2)]
    assert windows.cut([], 4) == [Window(0, 0, 0, 0)]


def test_words_as_large_as_a_window_stand_alone():
    assert windows.cut([4, 4, 1], 4) == [
        Window(0, 1, 0, 1),
        Window(1, 2, 1, 2),
        Window(2, 3, 2, 3),
    ]
    with pytest.raises(ValueError, match="at most 4 pieces. Received: 5"):
        windows.cut([5], 4)


def test_ids_of_windows_name_their_sentence():
    names = [windows.window_id("a/w:7", number) for number in (1, 2, 11)]
    assert names == ["a/w:7", "a/w:7/w2", "a/w:7/w11"]
    assert [windows.sentence_of(one) for one in names] == [("a/w:7", n) for n in (1, 2, 11)]
