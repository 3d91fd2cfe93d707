"""The bare models of `transformers`: their configs, classes, and the names of their weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf
import tf_keras

KEY = "xdistil"  # Of what is ours in a `config.json`.


def sizes(theirs) -> dict[str, Any]:
    """What the rest of the library asks of a config of `transformers`, under its own names."""
    return {
        "model_type": theirs.model_type,
        "vocab_size": theirs.vocab_size,
        "hidden_size": theirs.hidden_size,
        "num_hidden_layers": depth(theirs),
        "num_attention_heads": theirs.num_attention_heads,
        "max_position_embeddings": positions(theirs),
        "type_vocab_size": segments(theirs),
        "pad_token_id": theirs.pad_token_id or 0,
    }


def new_body(raw: Mapping[str, Any]):
    """The bare model of `transformers`, its variables created."""
    config = their_config(raw)
    policy = tf_keras.mixed_precision.global_policy()
    tf_keras.mixed_precision.set_global_policy("float32")
    try:
        body = class_of(config)(config)
        ones = tf.ones([1, 3], tf.int32)
        body({"input_ids": ones, "attention_mask": ones}, training=False)
    finally:
        tf_keras.mixed_precision.set_global_policy(policy)
    return body


def class_of(config) -> type:
    """The bare model's class.

    Raises:
      ValueError: If `transformers` has none in TensorFlow.
    """
    import transformers

    known = transformers.TF_MODEL_MAPPING
    if type(config) not in known:
        raise ValueError(
            f"transformers {transformers.__version__} has no TensorFlow model for "
            f"model_type={config.model_type!r}. Expected one of "
            f"{sorted(one.model_type for one in known)}."
        )
    chosen = known[type(config)]
    return chosen[0] if isinstance(chosen, tuple) else chosen  # Funnel: that with a decoder.


def their_config(raw: Mapping[str, Any]):
    """The config object of a parsed `config.json`.

    Raises:
      ValueError: If `transformers` knows no such model.
    """
    import transformers

    kind = raw.get("model_type")
    if kind not in transformers.CONFIG_MAPPING:
        raise ValueError(
            f"transformers {transformers.__version__} does not know model_type={kind!r}. Expected "
            "the config.json of one of its models."
        )
    fields = {key: value for key, value in raw.items() if key != KEY}
    config = transformers.CONFIG_MAPPING[kind].from_dict(fields)
    config.use_cache = False
    return config


def depth(config) -> int:
    """Blocks; a Funnel, which shortens its text in between, counts as one."""
    return 1 if config.model_type == "funnel" else config.num_hidden_layers


def positions(config) -> int | None:
    """Tokens that it takes; `None` where positions are relative."""
    limit = getattr(config, "max_position_embeddings", None)
    return limit if limit and limit > 0 else None


def segments(config) -> int:
    """Kinds of segments that it tells apart."""
    return getattr(config, "type_vocab_size", 0) or 0


def body_weights(body) -> dict[str, tuple[tf.Variable, Any]]:
    """PyTorch's name of each variable -> the variable and how it is transposed."""
    named = ((variable, pytorch_name(variable.name, variable.shape)) for variable in body.weights)
    return {name: (variable, transpose) for variable, (name, transpose) in named}


def pytorch_name(name: str, shape: Sequence[int]) -> tuple[str, Any]:
    """PyTorch's name of a variable of `transformers`, and how the two are transposed."""
    from transformers import modeling_tf_pytorch_utils as converters

    return converters.convert_tf_weight_name_to_pt_weight_name(name, tf_weight_shape=shape)
