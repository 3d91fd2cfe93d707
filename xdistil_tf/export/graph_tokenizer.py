"""Tokenizers inside the graph that give the ids of the training tokenizer.

    text -> special tokens marked -> words or pieces -> ids -> truncated -> [CLS] ids [SEP]

WordPiece looks every character up in a table made from the training tokenizer itself
(`character_table.py`), then takes the longest matching pieces. Unigram runs SentencePiece on a
model rebuilt from the training tokenizer's pieces. Both need the ops of `tensorflow_text`.
"""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import tensorflow as tf
import tensorflow_text as tf_text
from tokenizers import Tokenizer as RustTokenizer

from xdistil_tf.export import sentencepiece_model
from xdistil_tf.export.character_table import ITSELF, PAGE, SPACE, build_character_table

# Private-use characters that stand for special tokens between two ops. A text that holds one of
# them gets _OTHER instead, which every tokenizer treats alike.
_MARKS = range(0x10FF00, 0x10FFFE)
_ANY_MARK = f"[{chr(_MARKS[0])}-{chr(_MARKS[-1])}]"
_OTHER = 0xF8FF


@dataclasses.dataclass(frozen=True)
class Layout:
    """Special tokens around one text and around two, each a list of (id, segment)."""

    before: tuple
    after: tuple
    pair_before: tuple
    pair_between: tuple
    pair_after: tuple
    segments: tuple


def obstacle(tokenizer):
    """Why the tokenizer cannot run inside a graph; None when it can.

    Args:
      tokenizer: A `data.tokenization.Tokenizer` or a `tokenizers.Tokenizer`.
    """
    rust = rust_tokenizer(tokenizer)
    spec = json.loads(rust.to_str())
    kind = spec["model"]["type"]
    if kind == "WordPiece":
        return _wordpiece_obstacle(spec)
    if kind == "Unigram":
        return sentencepiece_model.obstacle(spec)
    if kind == "BPE":
        return "TensorFlow has no op for BPE merges, so byte-level BPE takes ids only"
    return f"only WordPiece and Unigram tokenizers run inside a graph, this one is {kind}"


def make_graph_tokenizer(tokenizer, max_seq_length):
    """Builds the in-graph form of a training tokenizer.

    Args:
      tokenizer: A `data.tokenization.Tokenizer` or a `tokenizers.Tokenizer`.
      max_seq_length: Most tokens of a row, special tokens included.

    Returns:
      A `GraphTokenizer`.

    Raises:
      ValueError: If the tokenizer has no in-graph form, or the length leaves no room for text.
    """
    reason = obstacle(tokenizer)
    if reason:
        raise ValueError(f"No in-graph form of `tokenizer`: {reason}. Use the ids signature.")
    rust = rust_tokenizer(tokenizer)
    spec = json.loads(rust.to_str())
    layout = _layout(rust)
    if spec["model"]["type"] == "WordPiece":
        pieces = _WordPieces(rust, spec)
    else:
        pieces = _Unigrams(rust, spec)
    return GraphTokenizer(pieces, layout, max_seq_length)


def rust_tokenizer(tokenizer):
    """A private copy of the Rust tokenizer inside `tokenizer`, without truncation or padding."""
    rust = tokenizer if isinstance(tokenizer, RustTokenizer) else tokenizer.backend
    copy = RustTokenizer.from_str(rust.to_str())
    copy.no_truncation()
    copy.no_padding()
    return copy


class GraphTokenizer(tf.Module):
    """Maps strings to padded BERT features, as the training tokenizer does.

    Args:
      pieces: Callable, string `[B]` to ragged int32 ids `[B, (pieces)]`.
      layout: Special tokens around them.
      max_seq_length: Most tokens of a row, special tokens included.
    """

    def __init__(self, pieces, layout, max_seq_length):
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

    def __call__(self, text, text_pair=None):
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
        return _assemble(parts, first.nrows())


def longest_first(first, second, room):
    """Lengths that two texts keep so that together they fit: the longer one is cut first.

    The rule of the `tokenizers` library: the shorter text keeps all as long as the other has at
    least as much; else each gets half of the room, the second one the odd token.

    Args:
      first: int32 `[B]`, tokens of the first texts.
      second: int32 `[B]`.
      room: Most tokens of both.

    Returns:
      A pair of int32 `[B]`.
    """
    shorter = tf.minimum(first, second)
    cut = tf.where(shorter > room, shorter, tf.maximum(shorter, room - shorter))
    halved = shorter + cut > room
    shorter_kept = tf.where(halved, room // 2, shorter)
    longer_kept = tf.where(halved, room // 2 + room % 2, cut)
    fits = first + second <= room
    swapped = first > second
    first_kept = tf.where(swapped, longer_kept, shorter_kept)
    second_kept = tf.where(swapped, shorter_kept, longer_kept)
    return tf.where(fits, first, first_kept), tf.where(fits, second, second_kept)


def _head(ragged, keep):
    """The first `keep[i]` values of row i (all of a row that has fewer)."""
    keep = tf.minimum(keep, tf.cast(ragged.row_lengths(), tf.int32))
    starts = tf.cast(ragged.row_starts(), tf.int32)
    positions = tf.ragged.range(starts, starts + keep)
    return positions.with_values(tf.gather(ragged.values, positions.values))


def _assemble(parts, batch):
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


def _repeat(row, batch):
    rows = tf.tile(row[None, :], tf.stack([tf.cast(batch, tf.int32), 1]))
    return tf.RaggedTensor.from_tensor(rows)


class _WordPieces(tf.Module):
    """String `[B]` to ragged ids of word pieces, special tokens in the text included."""

    def __init__(self, rust, spec):
        super().__init__(name="word_pieces")
        model = spec["model"]
        vocabulary = sorted(model["vocab"], key=model["vocab"].get)
        self._special = _special_tokens(spec)
        marks = {mark: f" {token} " for mark, token in zip(_MARKS, self._special, strict=False)}
        table = build_character_table(rust.normalizer, rust.pre_tokenizer, marks)
        self._pages, self._entries = table.pages, table.entries
        self._values, self._splits = table.values, table.splits
        self._max_characters = model["max_input_chars_per_word"]
        self._unknown_word = _unknown_word(vocabulary)
        self._wordpiece = tf_text.FastWordpieceTokenizer(
            vocab=vocabulary,
            suffix_indicator=model["continuing_subword_prefix"],
            max_bytes_per_word=4 * self._max_characters,
            token_out_type=tf.int32,
            unknown_token=model["unk_token"],
            no_pretokenization=True,
        )

    def __call__(self, text):
        words = tf.strings.split(self._normalise(mark_special_tokens(text, self._special)))
        # The op limits bytes, the training tokenizer characters.
        length = tf.strings.length(words.values, unit="UTF8_CHAR")
        values = tf.where(length > self._max_characters, self._unknown_word, words.values)
        return self._wordpiece.tokenize(words.with_values(values)).merge_dims(1, 2)

    def _normalise(self, text):
        """Replaces every character; words come out separated by spaces."""
        decoded = tf.strings.unicode_decode(text, "UTF-8")
        characters = decoded.values  # [characters of the batch]
        page = tf.gather(self._pages, characters // PAGE)
        row = tf.gather_nd(self._entries, tf.stack([page, characters % PAGE], 1))
        start = tf.gather(self._splits, row)
        ranges = tf.ragged.range(start, tf.gather(self._splits, row + 1))
        values = tf.gather(self._values, ranges.values)
        own = tf.gather(characters, ranges.value_rowids())
        values = tf.where(values == ITSELF, own, values)
        splits = tf.gather(ranges.row_splits, decoded.row_splits)
        replaced = tf.RaggedTensor.from_row_splits(values, splits, validate=False)
        return tf.strings.unicode_encode(replaced, "UTF-8")


class _Unigrams(tf.Module):
    """String `[B]` to ragged ids of SentencePiece pieces, special tokens in the text included."""

    def __init__(self, rust, spec):
        super().__init__(name="unigrams")
        self._special = _special_tokens(spec)
        self._spaces = sentencepiece_model.other_spaces(rust, spec)
        self._special_ids = np.array([token["id"] for token in spec["added_tokens"]], np.int32)
        self._tokenizer = tf_text.SentencepieceTokenizer(
            model=sentencepiece_model.serialize(spec), out_type=tf.int32
        )

    def __call__(self, text):
        text = mark_special_tokens(text, self._special, " ")
        for character in self._spaces:
            text = tf.strings.regex_replace(text, character, " ")
        # Word by word, as in training: the op adds scores in float32, where long sums are rough.
        words = tf.strings.split(text, " ")  # [B, (words)]
        marked = tf.strings.regex_full_match(words.values, _ANY_MARK)
        # The op sets a word mark before every word, training only before those without one.
        unmarked = tf.strings.regex_replace(words.values, f"^{sentencepiece_model.META}", "")
        pieces = self._tokenizer.tokenize(tf.where(marked, "", unmarked))
        marks = tf.strings.unicode_decode(tf.boolean_mask(words.values, marked), "UTF-8").values
        special = tf.RaggedTensor.from_row_lengths(
            tf.gather(self._special_ids, marks - _MARKS[0]), tf.cast(marked, tf.int64)
        )
        return words.with_values(tf.concat([special, pieces], 1)).merge_dims(1, 2)


def mark_special_tokens(text, special, around=""):
    """Replaces each special token that stands in the text by one private-use character.

    Args:
      text: String `[B]`.
      special: Tokens, each gets the character of its position in the list.
      around: Written before and after that character.
    """
    text = tf.strings.regex_replace(text, _ANY_MARK, chr(_OTHER))
    for mark, token in zip(_MARKS, special, strict=False):
        pattern = "".join(f"\\x{{{ord(char):x}}}" for char in token)
        text = tf.strings.regex_replace(text, pattern, f"{around}{chr(mark)}{around}")
    return text


def _special_tokens(spec):
    return [token["content"] for token in spec["added_tokens"]]


def _wordpiece_obstacle(spec):
    normalizer = (spec["normalizer"] or {}).get("type")
    pre_tokenizer = (spec["pre_tokenizer"] or {}).get("type")
    if normalizer not in (None, "BertNormalizer") or pre_tokenizer != "BertPreTokenizer":
        return (
            "WordPiece needs the BertNormalizer and the BertPreTokenizer, "
            f"this one has {normalizer} and {pre_tokenizer}"
        )
    vocabulary = spec["model"]["vocab"]
    if sorted(vocabulary.values()) != list(range(len(vocabulary))):
        return "its vocabulary has ids without a token"
    for token in spec["added_tokens"]:
        if vocabulary.get(token["content"]) != token["id"]:
            return f"its added token {token['content']!r} is not in the vocabulary"
        if token["normalized"] or token["single_word"]:
            return f"its added token {token['content']!r} is matched after normalisation or by word"
    if len(spec["added_tokens"]) > len(_MARKS):
        return f"it has more than {len(_MARKS)} added tokens"
    return None


def _unknown_word(vocabulary):
    """A word that no piece begins."""
    begins = {token[0] for token in vocabulary if token}
    return next(chr(char) for char in range(0x10FFFD, SPACE, -1) if chr(char) not in begins)


def _layout(rust):
    single, pair = rust.encode("a"), rust.encode("a", "a")
    before, _, after = _around(single, [0])
    pair_before, pair_between, pair_after = _around(pair, [0, 1])
    segment = dict(zip(pair.sequence_ids, pair.type_ids, strict=True))
    return Layout(before, after, pair_before, pair_between, pair_after, (segment[0], segment[1]))


def _around(encoding, sequences):
    """(id, segment) of the special tokens before, between and after the given sequences."""
    parts, seen = ([], [], []), -1
    rows = zip(encoding.ids, encoding.type_ids, encoding.sequence_ids, strict=True)
    for token, segment, sequence in rows:
        if sequence is not None:
            seen = sequence
        else:
            place = 0 if seen < 0 else 2 if seen == sequences[-1] else 1
            parts[place].append((token, segment))
    return tuple(map(tuple, parts))
