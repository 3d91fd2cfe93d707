"""WordPiece in the graph: every character through a table, then the longest matching pieces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf
import tensorflow_text as tf_text
import tokenizers

from xdistil_tf.export import special_tokens
from xdistil_tf.export.character_table import ITSELF, PAGE, build_character_table


def obstacle(spec: Mapping[str, Any]) -> str | None:
    """Why this WordPiece `tokenizer.json` has no in-graph form; None when it has one."""
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
    return special_tokens.obstacle(spec)


class WordPieces(tf.Module):
    """String `[B]` to ragged int32 ids `[B, (pieces)]`.

    Args:
      rust: The training tokenizer.
      spec: Its `tokenizer.json`; `obstacle(spec)` is None.
    """

    def __init__(self, rust: tokenizers.Tokenizer, spec: Mapping[str, Any]):
        super().__init__(name="word_pieces")
        model = spec["model"]
        vocabulary = sorted(model["vocab"], key=model["vocab"].get)
        self._special = special_tokens.contents(spec)
        words = zip(special_tokens.MARKS, self._special, strict=False)
        marks = {code: f" {token} " for code, token in words}
        self._table = build_character_table(rust.normalizer, rust.pre_tokenizer, marks)
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

    def __call__(self, text: tf.Tensor) -> tf.RaggedTensor:
        words = tf.strings.split(self._normalise(special_tokens.mark(text, self._special)))
        # The op limits bytes, the training tokenizer characters.
        length = tf.strings.length(words.values, unit="UTF8_CHAR")
        values = tf.where(length > self._max_characters, self._unknown_word, words.values)
        return self._wordpiece.tokenize(words.with_values(values)).merge_dims(1, 2)

    def _normalise(self, text: tf.Tensor) -> tf.Tensor:
        """Replaces every character; words come out separated by spaces."""
        table = self._table
        decoded = tf.strings.unicode_decode(text, "UTF-8")
        characters = decoded.values  # [characters of the batch]
        page = tf.gather(table.pages, characters // PAGE)
        row = tf.gather_nd(table.entries, tf.stack([page, characters % PAGE], 1))
        ranges = tf.ragged.range(tf.gather(table.splits, row), tf.gather(table.splits, row + 1))
        values = tf.gather(table.values, ranges.values)
        own = tf.gather(characters, ranges.value_rowids())
        values = tf.where(values == ITSELF, own, values)
        splits = tf.gather(ranges.row_splits, decoded.row_splits)
        replaced = tf.RaggedTensor.from_row_splits(values, splits, validate=False)
        return tf.strings.unicode_encode(replaced, "UTF-8")


def _unknown_word(vocabulary: Sequence[str]) -> str:
    """A word that no piece begins."""
    begins = {token[:1] for token in vocabulary}
    return next(chr(code) for code in reversed(special_tokens.MARKS) if chr(code) not in begins)
