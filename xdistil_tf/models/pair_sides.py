"""The two texts of a pair, taken out of one sequence: `[CLS] a [SEP] b [SEP]` -> a, b."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf


def split_pairs(
    input_ids: tf.Tensor, input_mask: tf.Tensor, separator: int, special: Sequence[int]
) -> tuple[tf.Tensor, tf.Tensor]:
    """Takes the texts apart, whatever special tokens stand around them.

    Args:
      input_ids, input_mask: int32 `[B, T]`, right-padded; the first text ends with a separator.
      separator: Its id.
      special: Ids that belong to no text, the separator among them.

    Returns:
      int32 `[2B, S]`, all first texts and then all second ones, and their lengths, int32 `[2B]`;
      S is the longest of them, at least 1. What stands behind a length is any token.
    """
    is_special = tf.reduce_any(input_ids[..., tf.newaxis] == tf.constant(special), -1)
    text = (input_mask > 0) & ~is_special
    ends = tf.cast(input_ids == separator, tf.int32)
    second = tf.cumsum(ends, axis=1, exclusive=True) > 0
    members = tf.cast(tf.concat([text & ~second, text & second], 0), tf.int32)
    lengths = tf.reduce_sum(members, 1)
    starts = tf.argmax(members, 1, output_type=tf.int32)
    longest = tf.maximum(tf.reduce_max(lengths), 1)
    places = starts[:, tf.newaxis] + tf.range(longest)
    places = tf.minimum(places, tf.shape(input_ids)[1] - 1)
    return tf.gather(tf.tile(input_ids, [2, 1]), places, batch_dims=1), lengths


def compared(states: tf.Tensor) -> tf.Tensor:
    """`[2B, W]`, first texts, then second ones -> `[B, 4W]`: both, distance, product.

    Tang et al., "Distilling Task-Specific Knowledge from BERT into Simple Neural Networks" (2019),
    section 3.1.
    """
    first, second = tf.split(states, 2)
    return tf.concat([first, second, tf.abs(first - second), first * second], -1)
