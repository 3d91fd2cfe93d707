"""Tokenizers inside the graph that give the ids of the training tokenizer.

    text -> ragged ids of pieces (`wordpiece.py`, `unigram.py`) -> truncated -> [CLS] ids [SEP]

They need the ops of `tensorflow_text`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf
import tokenizers

from xdistil_tf.data.tokenizer import Tokenizer
from xdistil_tf.export import unigram, wordpiece

Specials = tuple[tuple[int, int], ...]


@dataclasses.dataclass(frozen=True)
class Layout:
    """Special tokens around one text and around two, as (id, segment); the segments of two."""

    before: Specials
    after: Specials
    pair_before: Specials
    pair_between: Specials
    pair_after: Specials
    segments: tuple[int, int]


def obstacle(tokenizer: Tokenizer | tokenizers.Tokenizer) -> str | None:
    """Why the tokenizer cannot run inside a graph; None when it can."""
    spec = json.loads(_backend(tokenizer).to_str())
    kind = spec["model"]["type"]
    if kind == "WordPiece":
        return wordpiece.obstacle(spec)
    if kind == "Unigram":
        return unigram.obstacle(spec)
    if kind == "BPE":
        return "TensorFlow has no op for the merges of BPE"
    return f"only WordPiece and Unigram tokenizers run inside a graph, this one is {kind}"


def make_graph_tokenizer(
    tokenizer: Tokenizer | tokenizers.Tokenizer, max_seq_length: int
) -> GraphTokenizer:
    """Builds the in-graph form of a training tokenizer.

    Args:
      tokenizer: Ours, or the Rust tokenizer inside.
      max_seq_length: Most tokens of a row, special tokens included.

    Raises:
      ValueError: If the tokenizer has no in-graph form, or the length leaves no room for text.
    """
    reason = obstacle(tokenizer)
    if reason:
        raise ValueError(f"No in-graph form of `tokenizer`: {reason}. Use the ids signature.")
    state = _backend(tokenizer).to_str()
    rust, spec = tokenizers.Tokenizer.from_str(state), json.loads(state)
    rust.no_truncation()
    rust.no_padding()
    kind = wordpiece.WordPieces if spec["model"]["type"] == "WordPiece" else unigram.Unigrams
    return GraphTokenizer(kind(rust, spec), _layout(rust), max_seq_length)


class GraphTokenizer(tf.Module):
    """Maps strings to padded BERT features, as the training tokenizer does.

    Args:
      pieces: Callable, string `[B]` to ragged int32 ids `[B, (pieces)]`.
      layout: Special tokens around them.
      max_seq_length: Most tokens of a row, special tokens included.
    """

    def __init__(
        self,
        pieces: Callable[[tf.Tensor], tf.RaggedTensor],
        layout: Layout,
        max_seq_length: int,
    ):
        super().__init__(name="graph_tokenizer")
        needed = len(layout.pair_before + layout.pair_between + layout.pair_after) + 1
        if max_seq_length < needed:
            raise ValueError(
                f"Invalid `max_seq_length`. Expected at least {needed} to hold the special tokens "
                f"and some text. Received: {max_seq_length}."
            )
        self.pieces = pieces
        self.layout = layout
        self.max_seq_length = max_seq_length

    def __call__(self, text: tf.Tensor, text_pair: tf.Tensor | None = None):
        """Tokenizes a batch.

        Args:
          text: String `[B]`, UTF-8; bytes that are not count as U+FFFD.
          text_pair: String `[B]`, the second text of each pair.

        Returns:
          Dict of `input_ids`, `input_mask` and `segment_ids`, int32 `[B, T]`. T is the longest
          row, at least 2. Longer rows lose tokens from their end, pairs from the longer text.
        """
        layout = self.layout
        first = self.pieces(text)
        if text_pair is None:
            room = self.max_seq_length - len(layout.before) - len(layout.after)
            parts = [layout.before, (_head(first, tf.fill([first.nrows()], room)), 0), layout.after]
        else:
            second = self.pieces(text_pair)
            special = layout.pair_before + layout.pair_between + layout.pair_after
            keep = longest_first(
                tf.cast(first.row_lengths(), tf.int32),
                tf.cast(second.row_lengths(), tf.int32),
                self.max_seq_length - len(special),
            )
            parts = [
                layout.pair_before,
                (_head(first, keep[0]), layout.segments[0]),
                layout.pair_between,
                (_head(second, keep[1]), layout.segments[1]),
                layout.pair_after,
            ]
        return assemble(parts, first.nrows())


def longest_first(first: tf.Tensor, second: tf.Tensor, room: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Lengths that two texts keep so that together they fit: `tokenization.kept_lengths`.

    The longer one is cut first; where both are cut the first one keeps the odd token.

    Args:
      first: int32 `[B]`, tokens of the first texts.
      second: int32 `[B]`.
      room: Most tokens of both.

    Returns:
      A pair of int32 `[B]`.
    """
    shorter = tf.minimum(first, second)
    halved = 2 * shorter > room
    first_kept = tf.where(
        halved, room - room // 2, tf.where(first < second, shorter, room - shorter)
    )
    second_kept = tf.where(halved, room // 2, room - first_kept)
    fits = first + second <= room
    return tf.where(fits, first, first_kept), tf.where(fits, second, second_kept)


def _head(ragged: tf.RaggedTensor, keep: tf.Tensor) -> tf.RaggedTensor:
    """The first `keep[i]` values of row i (all of a row that has fewer)."""
    keep = tf.minimum(keep, tf.cast(ragged.row_lengths(), tf.int32))
    starts = tf.cast(ragged.row_starts(), tf.int32)
    positions = tf.ragged.range(starts, starts + keep)
    return positions.with_values(tf.gather(ragged.values, positions.values))


def assemble(parts: Sequence, batch: tf.Tensor) -> dict[str, tf.Tensor]:
    """Joins `Specials` and pairs of (ragged ids, segment), and pads; features of a batch."""
    ids, segments = [], []
    for part in parts:
        if isinstance(part[0] if part else None, tf.RaggedTensor):
            ids.append(tf.cast(part[0], tf.int32))
            segments.append(ids[-1].with_values(tf.fill(tf.shape(ids[-1].values), part[1])))
        elif part:
            table = np.array(part, np.int32)
            ids.append(_repeat(table[:, 0], batch))
            segments.append(_repeat(table[:, 1], batch))
    ids, segments = tf.concat(ids, 1), tf.concat(segments, 1)
    lengths = tf.cast(ids.row_lengths(), tf.int32)
    # An empty batch has no longest row; a model need not cope with T = 0.
    width = tf.reduce_max(tf.concat([lengths, [2]], 0))
    shape = tf.stack([tf.cast(batch, tf.int32), width])
    return {
        "input_ids": ids.to_tensor(shape=shape),
        "input_mask": tf.sequence_mask(lengths, width, tf.int32),
        "segment_ids": segments.to_tensor(shape=shape),
    }


def _repeat(row: np.ndarray, batch: tf.Tensor) -> tf.RaggedTensor:
    rows = tf.tile(row[None, :], tf.stack([tf.cast(batch, tf.int32), 1]))
    return tf.RaggedTensor.from_tensor(rows)


def _backend(tokenizer: Tokenizer | tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    return tokenizer if isinstance(tokenizer, tokenizers.Tokenizer) else tokenizer.backend


def _layout(rust: tokenizers.Tokenizer) -> Layout:
    single, pair = rust.encode("a"), rust.encode("a", "a")
    before, _, after = _around(single, last=0)
    pair_before, pair_between, pair_after = _around(pair, last=1)
    segment = dict(zip(pair.sequence_ids, pair.type_ids, strict=True))
    return Layout(before, after, pair_before, pair_between, pair_after, (segment[0], segment[1]))


def _around(encoding: tokenizers.Encoding, last: int) -> tuple[Specials, ...]:
    """The special tokens before, between and after the texts 0 to `last`."""
    parts, seen = ([], [], []), -1
    rows = zip(encoding.ids, encoding.type_ids, encoding.sequence_ids, strict=True)
    for token, segment, sequence in rows:
        if sequence is not None:
            seen = sequence
        else:
            place = 0 if seen < 0 else 2 if seen == last else 1
            parts[place].append((token, segment))
    return tuple(map(tuple, parts))
