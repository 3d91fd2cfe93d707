"""A SentencePiece model rebuilt from the Unigram part of a `tokenizer.json`.

The pieces keep their positions, so the ids of the op are the ids of training and the shift
between SentencePiece's and fairseq's ids (XLM-R) needs no table.
"""

import base64

from transformers.utils import sentencepiece_model_pb2_new as sentencepiece_proto

META = "\u2581"
# White_Space in Unicode, but for the space itself.
_SPACES = "\t\n\x0b\x0c\r\x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(
    map(chr, range(0x2000, 0x200B))
)
_FRACTION = 1 << 13


def obstacle(spec):
    """Why no SentencePiece model gives the ids of this `tokenizer.json`; None when one does."""
    model = spec["model"]
    if model.get("byte_fallback"):
        return "its Unigram model falls back to bytes"
    if model.get("unk_id") is None:
        return "its Unigram model has no unknown token"
    for step in _steps(spec["normalizer"], "normalizers"):
        if step["type"] not in ("Precompiled", "Replace", "Strip"):
            return f"its normalizer {step['type']} is not SentencePiece's"
    for step in _steps(spec["pre_tokenizer"], "pretokenizers"):
        if step["type"] not in ("WhitespaceSplit", "Metaspace"):
            return f"its pre-tokenizer {step['type']} is not SentencePiece's"
    metaspace = _metaspace(spec)
    if metaspace is None or metaspace["replacement"] != META:
        return f"its pre-tokenizer does not mark words with {META!r}"
    return None


def serialize(spec):
    """The serialized `ModelProto` of a `tokenizer.json`.

    Args:
      spec: The parsed file; `obstacle(spec)` is None.

    Returns:
      Bytes.
    """
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
    model.normalizer_spec.name = "from tokenizer.json"
    model.normalizer_spec.precompiled_charsmap = _charsmap(spec)
    model.normalizer_spec.add_dummy_prefix = _prepends(_metaspace(spec))
    model.normalizer_spec.remove_extra_whitespaces = True
    model.normalizer_spec.escape_whitespaces = True
    return model.SerializeToString()


def other_spaces(rust, spec):
    """Characters that end a word in training although the model's normaliser keeps them."""
    if not any(
        step["type"] == "WhitespaceSplit" for step in _steps(spec["pre_tokenizer"], "pretokenizers")
    ):
        return []
    normalise = rust.normalizer.normalize_str if rust.normalizer else str
    return [char for char in _SPACES if normalise(char) == char]


def _exactly_summed(score):
    """A score whose sums over a word have no rounding error in float32.

    Training adds in float64. With rounding, equal sums ("aa"+"a" and "a"+"aa") come out unequal.
    """
    return round(score * _FRACTION) / _FRACTION


def _steps(part, key):
    if part is None:
        return []
    return part[key] if part["type"] == "Sequence" else [part]


def _metaspace(spec):
    steps = _steps(spec["pre_tokenizer"], "pretokenizers")
    return next((step for step in steps if step["type"] == "Metaspace"), None)


def _prepends(metaspace):
    return metaspace.get("prepend_scheme", "always") != "never"


def _charsmap(spec):
    for step in _steps(spec["normalizer"], "normalizers"):
        if step["type"] == "Precompiled":
            return base64.b64decode(step["precompiled_charsmap"])
    return b""
