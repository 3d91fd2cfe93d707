"""The words of running text inside the graph, as `data/raw_words.py` finds them outside.

Every code point is a space, a word of its own, or part of a longer one; which, is asked of the
function that splits texts outside the graph.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from xdistil_tf.data.raw_words import Spans

SPACE, ALONE, PART = 0, 1, 2
_PAGE = 256
_LAST = 0x10FFFF
_CHUNK = 1 << 13


class GraphWords(tf.Module):
    """String `[B]` to the words of each text and where they stand.

    Args:
      split: Text -> where each word begins and ends.
    """

    def __init__(self, split: Callable[[str], Spans]):
        super().__init__(name="graph_words")
        self._pages, self._entries = _packed(character_classes(split))

    def __call__(self, text: tf.Tensor) -> tuple[tf.RaggedTensor, tf.RaggedTensor, tf.RaggedTensor]:
        """Splits a batch.

        Args:
          text: String `[B]`, UTF-8; a byte that is not is one code point, U+FFFD.

        Returns:
          Ragged `[B, (words)]`: strings, and int32 code points where they begin and end, the end
          not included.
        """
        characters = tf.strings.unicode_decode(text, "UTF-8")
        codes, rows = characters.values, tf.cast(characters.value_rowids(), tf.int32)
        page = tf.gather(self._pages, codes // _PAGE)
        kinds = tf.cast(tf.gather_nd(self._entries, tf.stack([page, codes % _PAGE], 1)), tf.int32)
        part = kinds == PART
        joined = part[1:] & part[:-1] & (rows[1:] == rows[:-1])  # A character with the next one.
        edge = tf.zeros([1], tf.bool)
        begins = (kinds != SPACE) & ~tf.concat([edge, joined], 0)[: tf.size(kinds)]
        ends = (kinds != SPACE) & ~tf.concat([joined, edge], 0)[: tf.size(kinds)]
        first = tf.cast(tf.where(begins)[:, 0], tf.int32)
        stop = tf.cast(tf.where(ends)[:, 0], tf.int32) + 1
        row = tf.gather(rows, first)
        spelled = tf.ragged.range(first, stop)
        spelled = spelled.with_values(tf.gather(codes, spelled.values))
        offset = tf.gather(tf.cast(characters.row_starts(), tf.int32), row)
        count = tf.cast(characters.nrows(), tf.int64)
        words = tf.RaggedTensor.from_value_rowids(
            tf.strings.unicode_encode(spelled, "UTF-8"),
            tf.cast(row, tf.int64),
            count,
            validate=False,
        )
        return words, words.with_values(first - offset), words.with_values(stop - offset)


def character_classes(split: Callable[[str], Spans]) -> np.ndarray:
    """What each code point is, int8 `[0x110000]`: `SPACE`, `ALONE` or `PART`."""
    classes = np.full(_LAST + 1, PART, np.int8)
    for start in range(0, _LAST + 1, _CHUNK):
        codes = [code for code in range(start, start + _CHUNK) if not 0xD800 <= code < 0xE000]
        # "a" on both sides: one word, two, or three.
        text = "".join(f"a{chr(code)}a " for code in codes)
        begun = np.zeros(4 * len(codes), np.int8)
        begun[[first for first, _ in split(text)]] = 1
        words = begun.reshape(-1, 4).sum(1)
        classes[codes] = np.select([words == 2, words == 3], [SPACE, ALONE], PART)
    return classes


def _packed(classes: np.ndarray) -> tuple[tf.Tensor, tf.Tensor]:
    """Equal blocks of 256 code points stand there once: number of each, and the blocks."""
    blocks, numbers = np.unique(classes.reshape(-1, _PAGE), axis=0, return_inverse=True)
    return tf.constant(numbers.ravel().astype(np.int32)), tf.constant(blocks)
