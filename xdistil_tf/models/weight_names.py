"""Which Hugging Face tensors an encoder variable is made of, for every family.

Names here are without the base prefix (`bert.`, `roberta.`, ...), in PyTorch's manner:
`encoder.layer.0.attention.self.query.weight`, kernels as `[out, in]`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import numpy as np

PREFIXES: Mapping[str, str] = {
    "bert": "bert.",
    "roberta": "roberta.",
    "xlm-roberta": "roberta.",
    "camembert": "roberta.",
    "distilbert": "distilbert.",
    "electra": "electra.",
}

# Tensors that an encoder may leave aside, because nothing it computes reads them.
HARMLESS = (
    "embeddings.position_ids",
    "embeddings.token_type_ids",
    "pooler.",
    "cls.",
    "lm_head.",
    "vocab_transform.",
    "vocab_layer_norm.",
    "vocab_projector.",
    "discriminator_predictions.",
    "generator_predictions.",
    "generator_lm_head.",
    "classifier.",
    "pre_classifier.",
    "qa_outputs.",
    "crf.",
    "fit_dense.",  # TinyBERT's width projections
    "fit_denses.",
)

# Decoders that repeat the word table; checked to be equal, then left aside.
TIED = (
    "cls.predictions.decoder.weight",
    "lm_head.decoder.weight",
    "vocab_projector.weight",
    "generator_lm_head.weight",
)


def sources(names: Iterable[str], family: str) -> dict[str, tuple[str, ...]]:
    """The tensors behind each variable: three for a fused kernel or bias, else one.

    >>> sources(["layer_1/ffn/output/bias", "pooler/kernel"], "bert")
    {'layer_1/ffn/output/bias': ('encoder.layer.0.output.dense.bias',), 'pooler/kernel': \
('pooler.dense.weight',)}
    """
    return {name: _source(name, family) for name in names}


def assemble(name: str, tensors: list[np.ndarray]) -> np.ndarray:
    """The float32 value of variable `name`, made of its tensors in PyTorch layout."""
    tensors = [np.asarray(tensor).astype(np.float32, copy=False) for tensor in tensors]
    if name.endswith("/kernel"):
        tensors = [tensor.T for tensor in tensors if tensor.ndim == 2]
    return tensors[0] if len(tensors) == 1 else np.concatenate(tensors, axis=-1)


def disassemble(name: str, value: np.ndarray, parts: int) -> list[np.ndarray]:
    """The inverse of `assemble`."""
    pieces = np.split(value, parts, axis=-1)
    if name.endswith("/kernel"):
        pieces = [piece.T for piece in pieces]
    return [np.ascontiguousarray(piece) for piece in pieces]


def tensor_shape(name: str, shape: tuple[int, ...], parts: int) -> tuple[int, ...]:
    """The shape that each tensor behind a variable of `shape` must have."""
    shape = (*shape[:-1], shape[-1] // parts)
    return shape[::-1] if name.endswith("/kernel") else shape


def plain_name(name: str, family: str) -> str:
    """Drops the base prefix and turns `gamma` and `beta` into `weight` and `bias`.

    >>> plain_name("bert.embeddings.LayerNorm.gamma", "bert")
    'embeddings.LayerNorm.weight'
    """
    name = name.removeprefix(PREFIXES[family])
    name = re.sub(r"\.gamma$", ".weight", name)
    return re.sub(r"\.beta$", ".bias", name)


def full_name(name: str, family: str) -> str:
    """Puts the base prefix before the names of the body; heads have none."""
    body = ("embeddings.", "embeddings_project.", "encoder.", "transformer.", "pooler.")
    return PREFIXES[family] + name if name.startswith(body) else name


def is_harmless(name: str) -> bool:
    """Whether a tensor that no variable reads may be left aside."""
    return name.startswith(HARMLESS)


def _source(name: str, family: str) -> tuple[str, ...]:
    path, kind = name.rsplit("/", 1)
    tables = _BLOCKS_DISTILBERT if family == "distilbert" else _BLOCKS
    block = re.match(r"layer_(\d+)/(.*)", path)
    if block:
        template = "transformer.layer." if family == "distilbert" else "encoder.layer."
        stems = [f"{template}{int(block[1]) - 1}.{stem}" for stem in tables[block[2]]]
        return tuple(f"{stem}.{_KINDS[kind]}" for stem in stems)
    if path == "head/crf":
        return (f"crf.{kind}",)
    if name == "masked_lm/bias":
        return (_MASKED_LM_BIAS.get(family, "lm_head.bias"),)
    if path in ("masked_lm/transform", "masked_lm/layer_norm"):
        index = 0 if path.endswith("transform") else 1
        stem = _MASKED_LM.get(family, ("lm_head.dense", "lm_head.layer_norm"))[index]
    elif name in _TABLES:
        stem = _TABLES[name]
    elif path == "head/dense":
        stem = "pre_classifier" if family == "distilbert" else "classifier.dense"
    else:
        stem = _STEMS[path]
    return (f"{stem}.{_KINDS.get(kind, 'weight')}",)


def head_output_source(family: str, has_dense: bool) -> str:
    """The stem of the last layer of a task head; it hides behind `out_proj` in some families."""
    return "classifier.out_proj" if has_dense and family != "distilbert" else "classifier"


_KINDS = {"kernel": "weight", "bias": "bias", "gamma": "weight", "beta": "bias"}

_TABLES = {
    "embedding/word": "embeddings.word_embeddings",
    "embedding/position": "embeddings.position_embeddings",
    "embedding/segment": "embeddings.token_type_embeddings",
}

_STEMS = {
    "embedding/layer_norm": "embeddings.LayerNorm",
    "embedding/projection": "embeddings_project",
    "pooler": "pooler.dense",
    "next_sentence": "cls.seq_relationship",
    "head/output": "classifier",
}

_BLOCKS = {
    "attention/qkv": ("attention.self.query", "attention.self.key", "attention.self.value"),
    "attention/output": ("attention.output.dense",),
    "attention/layer_norm": ("attention.output.LayerNorm",),
    "ffn/intermediate": ("intermediate.dense",),
    "ffn/output": ("output.dense",),
    "ffn/layer_norm": ("output.LayerNorm",),
}

_BLOCKS_DISTILBERT = {
    "attention/qkv": ("attention.q_lin", "attention.k_lin", "attention.v_lin"),
    "attention/output": ("attention.out_lin",),
    "attention/layer_norm": ("sa_layer_norm",),
    "ffn/intermediate": ("ffn.lin1",),
    "ffn/output": ("ffn.lin2",),
    "ffn/layer_norm": ("output_layer_norm",),
}

_MASKED_LM = {
    "bert": ("cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm"),
    "distilbert": ("vocab_transform", "vocab_layer_norm"),
    "electra": ("generator_predictions.dense", "generator_predictions.LayerNorm"),
}

_MASKED_LM_BIAS = {
    "bert": "cls.predictions.bias",
    "distilbert": "vocab_projector.bias",
    "electra": "generator_lm_head.bias",
}
