"""Unigram in the graph: the SentencePiece op on a model rebuilt from `tokenizer.json`.

The pieces keep their positions, so the ids of the op are the ids of training, and the shift
between SentencePiece's and fairseq's ids (XLM-R) needs no table.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_text as tf_text
import tokenizers
from transformers.utils import sentencepiece_model_pb2_new as sentencepiece_proto

from xdistil_tf.export import special_tokens

_WORD_MARK = "\u2581"
# White_Space in Unicode, but for the space itself.
_SPACES = "\t\n\x0b\x0c\r\x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(
    map(chr, range(0x2000, 0x200B))
)
# Fewer bits change which split of a word wins, more make the sum over a long word inexact;
# 13 gave the fewest differences of 11 to 15.
_FRACTION = 1 << 13


def obstacle(spec: Mapping[str, Any]) -> str | None:
    """Why this Unigram `tokenizer.json` has no in-graph form; None when it has one."""
    model = spec["model"]
    if model.get("byte_fallback"):
        return "its Unigram model falls back to bytes"
    if model.get("unk_id") is None:
        return "its Unigram model has no unknown token"
    for step in _steps(spec["normalizer"], "normalizers"):
        joins_spaces = step["type"] == "Replace" and step["pattern"] == {"Regex": " {2,}"}
        if step["type"] not in ("Precompiled", "Strip") and not joins_spaces:
            return f"its normalizer {step['type']} is not SentencePiece's"
    steps = _steps(spec["pre_tokenizer"], "pretokenizers")
    for step in steps:
        if step["type"] not in ("WhitespaceSplit", "Metaspace"):
            return f"its pre-tokenizer {step['type']} is not SentencePiece's"
    metaspace = next((step for step in steps if step["type"] == "Metaspace"), {})
    if (
        metaspace.get("replacement") != _WORD_MARK
        or metaspace.get("prepend_scheme", "always") == "never"
        or not metaspace.get("split", True)
    ):
        return f"its pre-tokenizer does not begin every word with {_WORD_MARK!r}"
    return special_tokens.obstacle(spec)


class Unigrams(tf.Module):
    """String `[B]` to ragged int32 ids `[B, (pieces)]`.

    Args:
      rust: The training tokenizer.
      spec: Its `tokenizer.json`; `obstacle(spec)` is None.
    """

    def __init__(self, rust: tokenizers.Tokenizer, spec: Mapping[str, Any]):
        super().__init__(name="unigrams")
        self._special = special_tokens.contents(spec)
        self._special_ids = np.array([token["id"] for token in spec["added_tokens"]], np.int32)
        self._spaces = _other_spaces(rust, spec)
        self._tokenizer = tf_text.SentencepieceTokenizer(
            model=sentencepiece_model(spec), out_type=tf.int32
        )

    def __call__(self, text: tf.Tensor) -> tf.RaggedTensor:
        text = special_tokens.mark(text, self._special, " ")
        for character in self._spaces:
            text = tf.strings.regex_replace(text, character, " ")
        # Word by word, as in training: the op adds scores in float32, where long sums are rough.
        words = tf.strings.split(text, " ")  # [B, (words)]
        marked = tf.strings.regex_full_match(words.values, special_tokens.ANY_MARK)
        # The op sets a word mark before every word, training only before those without one.
        unmarked = tf.strings.regex_replace(words.values, f"^{_WORD_MARK}", "")
        pieces = self._tokenizer.tokenize(tf.where(marked, "", unmarked))
        marks = tf.strings.unicode_decode(tf.boolean_mask(words.values, marked), "UTF-8").values
        special = tf.RaggedTensor.from_row_lengths(
            tf.gather(self._special_ids, marks - special_tokens.MARKS[0]),
            tf.cast(marked, tf.int64),
        )
        return words.with_values(tf.concat([special, pieces], 1)).merge_dims(1, 2)


def sentencepiece_model(spec: Mapping[str, Any]) -> bytes:
    """The serialized SentencePiece `ModelProto` of a `tokenizer.json`."""
    model = sentencepiece_proto.ModelProto()
    unknown = spec["model"]["unk_id"]
    special = {token["id"] for token in spec["added_tokens"]}
    types = sentencepiece_proto.ModelProto.SentencePiece
    for index, (piece, score) in enumerate(spec["model"]["vocab"]):
        if index == unknown:
            kind = types.UNKNOWN
        else:
            kind = types.CONTROL if index in special else types.NORMAL
        model.pieces.add(piece=piece, score=_exactly_summed(score), type=kind)
    model.trainer_spec.model_type = sentencepiece_proto.TrainerSpec.UNIGRAM
    model.trainer_spec.unk_id = unknown
    model.trainer_spec.unk_piece = spec["model"]["vocab"][unknown][0]
    model.normalizer_spec.name = "tokenizer.json"
    model.normalizer_spec.precompiled_charsmap = _charsmap(spec)
    model.normalizer_spec.add_dummy_prefix = True
    model.normalizer_spec.remove_extra_whitespaces = True
    model.normalizer_spec.escape_whitespaces = True
    return model.SerializeToString()


def _exactly_summed(score: float) -> float:
    """A score whose sums over a word have no rounding error in float32.

    Training adds in float64. With rounding, equal sums ("aa"+"a" and "a"+"aa") come out unequal.
    """
    return round(score * _FRACTION) / _FRACTION


def _other_spaces(rust: tokenizers.Tokenizer, spec: Mapping[str, Any]) -> list[str]:
    """Characters that end a word in training although the normaliser keeps them."""
    steps = _steps(spec["pre_tokenizer"], "pretokenizers")
    if all(step["type"] != "WhitespaceSplit" for step in steps):
        return []
    normalise = rust.normalizer.normalize_str if rust.normalizer else str
    return [char for char in _SPACES if normalise(char) == char]


def _charsmap(spec: Mapping[str, Any]) -> bytes:
    for step in _steps(spec["normalizer"], "normalizers"):
        if step["type"] == "Precompiled":
            return base64.b64decode(step["precompiled_charsmap"])
    return b""


def _steps(part: Mapping[str, Any] | None, key: str) -> list[Mapping[str, Any]]:
    if part is None:
        return []
    return part[key] if part["type"] == "Sequence" else [part]
