"""Windows of long sentences inside the graph, cut as `data/windows.py` cuts them outside."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from xdistil_tf.data.windows import SHARED


@dataclasses.dataclass(frozen=True)
class Windows:
    """The windows of a batch of sentences, N of them, one sentence after the other.

    Attributes:
      sentence: int32 `[N]`, which sentence each belongs to.
      first, stop: int32 `[N]`, its words.
      of_word: int32 `[B, W]`, the window in which each word counts; anything behind the last word.
    """

    sentence: tf.Tensor
    first: tf.Tensor
    stop: tf.Tensor
    of_word: tf.Tensor


def cut(begins: tf.Tensor, counts: tf.Tensor, room: int) -> Windows:
    """Cuts the sentences of a batch.

    Args:
      begins: int32 `[B, W + 1]`, pieces before each word, and in all; the last value repeats behind
        the last word. No word has more than `room` pieces.
      counts: int32 `[B]`, words of each sentence.
      room: Pieces of a window.
    """
    words = tf.range(tf.shape(begins)[1] - 1)[tf.newaxis]  # [1, W]

    def at(places):
        return tf.gather(begins, places, batch_dims=1)

    def fitting(first):
        reach = at(first)[:, tf.newaxis] + room
        stop = tf.searchsorted(begins, reach, side="right", out_type=tf.int32)[:, 0] - 1
        return tf.minimum(stop, counts)

    def following(first, stop):
        size = at(tf.minimum(stop + 1, counts)) - at(stop)
        before = tf.minimum(room // SHARED, room - size)
        reach = (at(stop) - before)[:, tf.newaxis]
        earliest = tf.searchsorted(begins, reach, side="left", out_type=tf.int32)[:, 0]
        return tf.minimum(tf.maximum(earliest, first + 1), stop)

    def bound(first, stop, own):
        """The first word of the next window's own, which begins at `first`."""
        shared = (words >= first[:, tf.newaxis]) & (words < stop[:, tf.newaxis])
        behind = at(stop)[:, tf.newaxis] - begins[:, 1:]
        ahead = begins[:, :-1] - at(first)[:, tf.newaxis]
        later = tf.where(shared & (behind < ahead), words, stop[:, tf.newaxis])
        found = tf.reduce_min(tf.concat([later, stop[:, tf.newaxis]], 1), 1)
        return tf.minimum(tf.maximum(found, own), stop)

    def goes_on(number, first, stop, own, *arrays):
        return tf.reduce_any(stop < counts)

    def step(number, first, stop, own, firsts, stops, owns):
        more = stop < counts
        after = tf.where(more, following(first, stop), counts)
        own = tf.where(more, bound(after, stop, own), counts)
        stop = tf.where(more, fitting(after), counts)
        number += 1
        return (
            number, after, stop, own,
            firsts.write(number, after), stops.write(number, stop), owns.write(number, own),
        )  # fmt: skip

    first = tf.zeros_like(counts)
    stop = fitting(first)
    arrays = [
        tf.TensorArray(tf.int32, 1, dynamic_size=True, element_shape=[None]).write(0, one)
        for one in (first, stop, first)
    ]
    *_, firsts, stops, owns = tf.while_loop(
        goes_on, step, (tf.constant(0), first, stop, first, *arrays)
    )
    firsts, stops, owns = (tf.transpose(one.stack()) for one in (firsts, stops, owns))  # [B, K]
    ends = tf.concat([owns[:, 1:], counts[:, tf.newaxis]], 1)
    # A sentence without words is one window, too.
    real = (owns < ends) | ((counts[:, tf.newaxis] == 0) & (tf.range(tf.shape(ends)[1]) == 0))
    places = tf.cast(tf.where(real), tf.int32)  # [N, 2]
    # Words of a window that owns nothing count in none of its; its number is passed over.
    number = tf.cumsum(tf.cast(tf.reshape(real, [-1]), tf.int32), exclusive=True)
    number = tf.minimum(tf.reshape(number, tf.shape(real)), tf.shape(places)[0] - 1)
    passed = ends[:, tf.newaxis] <= words[:, :, tf.newaxis]  # [B, W, K]
    place = tf.reduce_sum(tf.cast(passed, tf.int32), 2)
    place = tf.minimum(place, tf.shape(real)[1] - 1)
    return Windows(
        places[:, 0],
        tf.gather_nd(firsts, places),
        tf.gather_nd(stops, places),
        tf.gather(number, place, batch_dims=1),
    )
