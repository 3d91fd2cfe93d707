"""Windows inside the graph against those outside."""

import numpy as np
import pytest
import tensorflow as tf

from xdistil_tf.data import windows
from xdistil_tf.export import graph_windows


@pytest.mark.parametrize("seed", range(25))
def test_windows_are_those_outside_the_graph(seed):
    rng = np.random.default_rng(seed)
    room = int(rng.integers(4, 30))
    sentences = [
        np.minimum(rng.integers(1, rng.integers(2, room + 2), rng.integers(0, 60)), room).tolist()
        for _ in range(5)
    ]
    counts = np.array([len(sizes) for sizes in sentences], np.int32)
    begins = np.zeros((5, counts.max() + 1), np.int32)
    for row, sizes in enumerate(sentences):
        sums = np.cumsum([0, *sizes])
        begins[row, : len(sums)], begins[row, len(sums) :] = sums, sums[-1]
    found = graph_windows.cut(tf.constant(begins), tf.constant(counts), room)
    expected = [
        (row, one.first, one.stop)
        for row, sizes in enumerate(sentences)
        for one in windows.cut(sizes, room)
    ]
    made = zip(found.sentence.numpy(), found.first.numpy(), found.stop.numpy(), strict=True)
    assert list(made) == expected
    owners = [
        number
        for sizes in sentences
        for number, one in enumerate(windows.cut(sizes, room))
        for _ in range(one.own_first, one.own_stop)
    ]
    starts = np.cumsum([0, *(len(windows.cut(sizes, room)) for sizes in sentences)])
    ours = [
        found.of_word.numpy()[row, word] - starts[row]
        for row, sizes in enumerate(sentences)
        for word in range(len(sizes))
    ]
    assert ours == owners


def test_no_sentences_have_no_windows():
    found = graph_windows.cut(tf.zeros([0, 1], tf.int32), tf.zeros([0], tf.int32), 8)
    assert found.sentence.shape == [0] and found.of_word.shape[0] == 0
