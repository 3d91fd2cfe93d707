"""Teachers of other architectures: what `transformers` has in TensorFlow, with a head of ours.

```
features -> model of transformers -> hidden states -> representation, logits
```

ALBERT, XLNet, XLM, GPT-2, DeBERTa, MPNet, Funnel and others. Weights come from safetensors,
`tf_model.h5` or `pytorch_model.bin` by our own readers. Attention scores before softmax, which
`transformers` does not give, are not available, and inside the model nothing is dropped out: its
dropout would not resume bit for bit.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras
from absl import logging

from xdistil_tf import files
from xdistil_tf import outputs as outputs_lib
from xdistil_tf.models import checkpoint_readers, layers, lstm
from xdistil_tf.models.parted_model import PartedModel

_KEY = "xdistil"
# What reads its text from left to right has seen it all at the last token only; XLNet's summary
# token stands at the end.
_READS_LAST = ("gpt2", "openai-gpt", "ctrl", "gptj", "xlnet", "transfo-xl", "opt")
_HEADS = ("classification", "regression", "tagging")
# Heads of `transformers` for words that are one dense layer on the last states, as ours.
_TAGGING_HEADS = ("classifier", "score")
_INITIAL_DEVIATION = 0.02
# Nothing here reads a pooler, and models with a head for words were saved without theirs.
_UNREAD = ("pooler.", "sequence_summary.")


class ForeignEncoder(PartedModel):
    """A model of `transformers` with an optional head of ours.

    Args:
      raw: The parsed `config.json` of a folder in Hugging Face's layout.
      head: `{"kind": "classification" | "regression" | "tagging" | None, "num_labels", "crf"}`.

    Weights of the body are those that `transformers` draws until a loader fills them; the head is
    zeros until `build_weights` or a loader does.

    Raises:
      ValueError: If `transformers` has no such architecture in TensorFlow.
    """

    fresh_parts: tuple[str, ...] = ()
    layered = True  # A teacher's representation may be that of any layer.

    def __init__(self, raw: Mapping[str, Any], head: Mapping[str, Any] | None = None):
        super().__init__(dtype=layers.policy("float32"), autocast=False, name="foreign_encoder")
        self.precision = "float32"
        head = {"kind": None, "num_labels": None, "crf": False, **(head or {})}
        _check_head(head)
        raw = {key: value for key, value in raw.items() if key != _KEY}
        # A string, since Keras would wrap a dict into a tracked object.
        self._config_json = json.dumps({"huggingface": raw, "head": head})
        self.body = _body(raw)
        self._takes_segments = _segments(self.body.config) > 1
        self._last = raw["model_type"] in _READS_LAST
        self._depth = _depth(self.body.config)
        width = self.config["hidden_size"]
        self.head_output = self.crf = None
        if head["num_labels"]:
            self.head_output = layers.Dense(width, head["num_labels"], name="head/output")
        if head["crf"]:
            self.crf = layers.Crf(head["num_labels"])
        rate = getattr(self.body.config, "hidden_dropout_prob", None)
        self.head_dropout = layers.StatelessDropout(0.1 if rate is None else rate, salt=5)
        self.built = True

    @classmethod
    def from_config_dict(
        cls, config: Mapping[str, Any], precision: str = "float32"
    ) -> ForeignEncoder:
        """One without weights from the `config` of another one.

        Raises:
          ValueError: If another precision is wanted than float32.
        """
        if precision != "float32":
            raise ValueError(f"Foreign encoders compute in float32. Received: {precision!r}.")
        return cls(config["huggingface"], config["head"])

    @property
    def config(self) -> dict:
        """What the rest of the library asks of a model, JSON-able; `huggingface` is the raw one."""
        return _sizes(self.body.config) | json.loads(self._config_json)

    @property
    def parts(self) -> dict[str, list]:
        """`head` and `encoder`, the whole of the body."""
        head = [layer for layer in (self.head_output, self.crf) if layer is not None]
        return {**({"head": head} if head else {}), "encoder": [self.body]}

    @property
    def available(self) -> dict[str, tuple[int, ...] | None]:
        """What can be requested; hidden 0 are the embeddings, i the output of block i."""
        numbers = tuple(range(self.config["num_hidden_layers"] + 1))
        available: dict[str, tuple[int, ...] | None] = {"representation": None, "hidden": numbers}
        if self.head_output is not None:
            available["logits"] = None
        if self.crf is not None:
            available |= {"potentials": None, "marginals": None}
        return available

    @property
    def tagging(self) -> bool:
        """Whether the head reads every token."""
        return self.config["head"]["kind"] == "tagging"

    def named_variables(self) -> dict[str, tf.Variable]:
        """Stable names: those of the head, and PyTorch's of the body."""
        named = {
            variable.name.split(":")[0]: variable
            for layer in self.parts.get("head", ())
            for variable in layer.variables
        }
        return named | {f"encoder/{n}": v for n, (v, _) in _body_weights(self.body).items()}

    def _initialise_layer(self, layer, seed: int) -> None:
        if isinstance(layer, layers.Crf):
            layer.initialise()
            return
        if layer is self.body:
            raise ValueError("The body of a foreign encoder is read from a folder, never drawn.")
        key = lstm.stateless_seed(layer.kernel.name, seed)
        layer.kernel.assign(
            tf.random.stateless_truncated_normal(layer.kernel.shape, key, stddev=_INITIAL_DEVIATION)
        )
        layer.bias.assign(tf.zeros_like(layer.bias))

    def summary(self, states: tf.Tensor, features: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """The vector of a sentence among those of its tokens, `[B, T, D]` -> `[B, D]`."""
        if not self._last:
            return states[:, 0]
        last = tf.maximum(tf.reduce_sum(features["input_mask"], 1) - 1, 0)
        return tf.gather(states, last, batch_dims=1)

    def call(self, features, training=False, request=None, seed=None):
        """Computes what `request` names.

        Args:
          features: Dict with int32 `input_ids` and `input_mask` `[B, T]`, right-padded, and
            optional `segment_ids`; `word_index` where marginals are requested.
          training: Python boolean; switches the dropout before the head on.
          request: See `outputs.py`; None asks for the logits.
          seed: int32 `[2]`, needed when training.

        Returns:
          Outputs by name, float32; `hidden` by layer.

        Raises:
          ValueError: If the request names something this model does not have.
        """
        request = {"logits": None} if request is None else request
        outputs_lib.validate_request(request, self.available, "foreign encoder")
        states = self._states(features)
        outputs: dict[str, Any] = {}
        if "hidden" in request:
            outputs["hidden"] = {number: states[number] for number in request["hidden"]}
        top = states[-1] if self.tagging else self.summary(states[-1], features)
        if "representation" in request:
            outputs["representation"] = top
        if not {"logits", "potentials", "marginals"}.isdisjoint(request):
            logits = self._logits(self.head_dropout(top, training, seed))
            if self.crf is not None:
                outputs |= layers.crf_outputs(self.crf, logits, features, request)
            if "logits" in request:
                outputs["logits"] = logits
        return outputs

    def _states(self, features) -> Sequence[tf.Tensor]:
        inputs = {
            "input_ids": features["input_ids"],
            "attention_mask": features["input_mask"],
        }
        if self._takes_segments and "segment_ids" in features:
            inputs["token_type_ids"] = features["segment_ids"]
        given = self.body(inputs, training=False, output_hidden_states=True, return_dict=True)
        # Some end with a normalisation that stands in no hidden state.
        states = [*given.hidden_states[: self._depth], given.last_hidden_state]
        return [tf.cast(one, tf.float32) for one in states]

    def _logits(self, vectors: tf.Tensor) -> tf.Tensor:
        shape = tf.shape(vectors)
        flat = self.head_output(tf.reshape(vectors, [-1, vectors.shape[-1]]))
        return tf.reshape(flat, tf.concat([shape[:-1], [flat.shape[-1]]], 0))


def load_foreign(
    folder: files.Path,
    head: Mapping[str, Any] | None = None,
    allow_missing_head: bool = False,
    seed: int = 0,
) -> ForeignEncoder:
    """A foreign encoder with the weights of a folder.

    Args:
      folder: In Hugging Face's layout, or one that `save_foreign` wrote.
      head: As `ForeignEncoder` takes it; None takes the folder's own, as far as it is one of ours.
      allow_missing_head: Whether a head that the folder lacks is drawn from `seed`.
      seed: Integer.

    Raises:
      FileNotFoundError: If there are no weights.
      ValueError: If `transformers` lacks the architecture, or a weight is missing or misshapen;
        names each.
    """
    raw = read_raw_config(folder)
    _class_of(_their_config(raw))
    weights = _weights(str(folder))
    model = ForeignEncoder(raw, head if head is not None else _own_head(raw, weights))
    problems = _fill_body(model.body, weights)
    fresh = _fill_head(model, weights)
    if fresh and not allow_missing_head:
        problems.append("no head of this kind. Set allow_missing_head to start with a fresh one")
    if problems:
        raise ValueError(f"Weights in {str(folder)!r} do not fit: {'; '.join(problems)}.")
    if fresh:
        model.initialise_part("head", seed)
        model.fresh_parts = ("head",)
        logging.info("Initialised head: %s has no such weights.", folder)
    return model


def save_foreign(
    model: ForeignEncoder, folder: files.Path, labels: Sequence[str] | None = None
) -> None:
    """Writes `config.json` and `model.safetensors`, each aside first, then synced and renamed."""
    from safetensors import numpy as safetensors_numpy

    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: variable.numpy() for name, variable in model.named_variables().items()}
    config = model.config
    with files.replaced_file(folder / "model.safetensors") as handle:
        handle.write(safetensors_numpy.save(tensors, metadata={"format": _KEY}))
    content = config["huggingface"] | {_KEY: {"foreign": True, "head": config["head"]}}
    content.pop("architectures", None)
    if config["head"]["num_labels"]:
        names = labels or [f"LABEL_{i}" for i in range(config["head"]["num_labels"])]
        content["id2label"] = {str(i): str(name) for i, name in enumerate(names)}
        content["label2id"] = {str(name): i for i, name in enumerate(names)}
    files.write_json(folder / "config.json", content)


def read_raw_config(folder: files.Path) -> dict[str, Any]:
    """The parsed `config.json` of a folder.

    Raises:
      FileNotFoundError: If there is none.
    """
    path = pathlib.Path(folder) / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"No config.json in {folder}. Expected a Hugging Face folder.")
    return files.read_json(path)


def read_foreign_config(folder: files.Path) -> dict[str, Any]:
    """The config of a folder as `ForeignEncoder.config` gives it, without reading its weights."""
    raw = read_raw_config(folder)
    try:
        weights = _weights(str(folder))
    except (FileNotFoundError, ImportError):
        weights = _Weights({}, True)
    theirs = _their_config(raw)
    return _sizes(theirs) | {
        "huggingface": {key: value for key, value in raw.items() if key != _KEY},
        "head": {"kind": None, "num_labels": None, "crf": False} | _own_head(raw, weights),
    }


def _sizes(theirs) -> dict[str, Any]:
    """What the rest of the library asks of a config of `transformers`, under its own names."""
    return {
        "model_type": theirs.model_type,
        "vocab_size": theirs.vocab_size,
        "hidden_size": theirs.hidden_size,
        "num_hidden_layers": _depth(theirs),
        "num_attention_heads": theirs.num_attention_heads,
        "max_position_embeddings": _positions(theirs),
        "type_vocab_size": _segments(theirs),
        "pad_token_id": theirs.pad_token_id or 0,
    }


def read_word_embeddings(folder: files.Path) -> np.ndarray:
    """The word table of a folder, float32 `[vocabulary, width]`."""
    table = load_foreign(folder, {"kind": None}).body.get_input_embeddings()
    return np.asarray(table.weights[0].numpy(), np.float32)


def _own_head(raw: Mapping[str, Any], weights: _Weights) -> dict:
    """The head that a folder has, where it is one of ours; else `{"kind": None}`."""
    if _KEY in raw:
        return dict(raw[_KEY]["head"])
    architecture = (raw.get("architectures") or [""])[0]
    if architecture.endswith("ForTokenClassification"):
        for name in _TAGGING_HEADS:
            if (bias := weights.tensors.get(f"{name}.bias")) is not None:
                return {"kind": "tagging", "num_labels": bias.shape[0]}
    return {"kind": None}


def _body(raw: Mapping[str, Any]):
    """The bare model of `transformers`, its variables created."""
    config = _their_config(raw)
    policy = tf_keras.mixed_precision.global_policy()
    tf_keras.mixed_precision.set_global_policy("float32")
    try:
        body = _class_of(config)(config)
        ones = tf.ones([1, 3], tf.int32)
        body({"input_ids": ones, "attention_mask": ones}, training=False)
    finally:
        tf_keras.mixed_precision.set_global_policy(policy)
    return body


def _class_of(config) -> type:
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


def _their_config(raw: Mapping[str, Any]):
    import transformers

    kind = raw.get("model_type")
    if kind not in transformers.CONFIG_MAPPING:
        raise ValueError(
            f"transformers {transformers.__version__} does not know model_type={kind!r}. Expected "
            "the config.json of one of its models."
        )
    fields = {key: value for key, value in raw.items() if key != _KEY}
    config = transformers.CONFIG_MAPPING[kind].from_dict(fields)
    config.use_cache = False
    return config


def _depth(config) -> int:
    """Blocks; a Funnel, which shortens its text in between, counts as one."""
    return 1 if config.model_type == "funnel" else config.num_hidden_layers


def _positions(config) -> int | None:
    """Tokens that it takes; `None` where positions are relative."""
    limit = getattr(config, "max_position_embeddings", None)
    return limit if limit and limit > 0 else None


def _segments(config) -> int:
    return getattr(config, "type_vocab_size", 0) or 0


def _check_head(head: Mapping[str, Any]) -> None:
    unknown = sorted(set(head) - {"kind", "num_labels", "crf", "pooler", "next_sentence"})
    kind = head["kind"]
    if unknown or kind not in (*_HEADS, None):
        raise ValueError(
            f"Invalid head of a foreign encoder. Expected kind as one of {[*_HEADS, None]}. "
            f"Received: {dict(head)}."
        )
    if (kind is None) != (not head["num_labels"]):
        raise ValueError(f"Invalid head. Expected num_labels with a kind. Received: {dict(head)}.")
    if head["crf"] and kind != "tagging":
        raise ValueError(f"Invalid head: crf=True needs kind='tagging'. Received: kind={kind!r}.")


def _body_weights(body) -> dict[str, tuple[tf.Variable, Any]]:
    """PyTorch's name of each variable -> the variable and how it is transposed."""
    named = ((variable, _pytorch_name(variable.name, variable.shape)) for variable in body.weights)
    return {name: (variable, transpose) for variable, (name, transpose) in named}


@dataclasses.dataclass(frozen=True)
class _Weights:
    """The tensors of a folder by PyTorch's names, and how they lie: as PyTorch's, or as ours."""

    tensors: Mapping[str, checkpoint_readers.Tensor]
    as_in_pytorch: bool


def _weights(folder: str) -> _Weights:
    kind, paths = checkpoint_readers.find_weight_files(folder)
    if kind == "h5":
        return _Weights(_h5_tensors(paths[0]), False)
    tensors = checkpoint_readers.open_tensors(folder)
    written_by = _format(paths[0]) if kind == "safetensors" else "pt"
    if written_by == "tf":  # Without the name of the model, which every variable begins with.
        tensors = {_pytorch_name(f"model/{n}", one.shape)[0]: one for n, one in tensors.items()}
    return _Weights(tensors, written_by not in ("tf", _KEY))


def _h5_tensors(path: str) -> dict[str, checkpoint_readers.Tensor]:
    """Of a `tf_model.h5`, in TensorFlow's layout; Keras lists the variables of each layer."""
    import h5py

    def reader(place: str):
        def read() -> np.ndarray:
            with h5py.File(path, "r") as file:
                return file[place][()]

        return read

    found = {}
    with h5py.File(path, "r") as file:
        for layer in file:
            for name in file[layer].attrs.get("weight_names", ()):
                name = name.decode("utf-8") if isinstance(name, bytes) else name
                place = f"{layer}/{name}"
                shape = tuple(file[place].shape)
                found[_pytorch_name(name, shape)[0]] = checkpoint_readers.Tensor(
                    shape, reader(place)
                )
    return found


def _pytorch_name(name: str, shape: Sequence[int]) -> tuple[str, Any]:
    """PyTorch's name of a variable of `transformers`, and how the two are transposed."""
    from transformers import modeling_tf_pytorch_utils as converters

    return converters.convert_tf_weight_name_to_pt_weight_name(name, tf_weight_shape=shape)


@functools.cache
def _format(path: str) -> str | None:
    """Who wrote a safetensors file: `pt`, `tf`, or `xdistil`."""
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        return (file.metadata() or {}).get("format")


def _fill_body(body, weights: _Weights) -> list[str]:
    """Assigns the weights; returns what is missing or misshapen."""
    from transformers import modeling_tf_pytorch_utils as converters

    prefix, problems = f"{body.base_model_prefix}.", []
    for name, (variable, transpose) in _body_weights(body).items():
        plain = name.removeprefix(prefix)
        names = (f"encoder/{name}", name, plain, prefix + plain)
        tensor = next((weights.tensors[one] for one in names if one in weights.tensors), None)
        if tensor is None:
            if not plain.startswith(_UNREAD):
                problems.append(f"missing {plain}")
            continue
        value = np.asarray(tensor.read(), np.float32)
        try:
            if weights.as_in_pytorch:
                value = converters.apply_transpose(transpose, value, tuple(variable.shape))
            variable.assign(value)
        except (ValueError, AssertionError):
            problems.append(f"{plain} has shape {tensor.shape}, expected {variable.shape}")
    return problems


def _fill_head(model: ForeignEncoder, weights: _Weights) -> bool:
    """Assigns the head's weights; returns whether there were none that fit."""
    if model.head_output is None:
        return False
    tensors = weights.tensors
    own = {name: v for name, v in model.named_variables().items() if name.startswith("head/")}
    if all(name in tensors and tensors[name].shape == tuple(v.shape) for name, v in own.items()):
        for name, variable in own.items():
            variable.assign(tensors[name].read())
        return False
    kernel = model.head_output.kernel
    for name in _TAGGING_HEADS if model.tagging and model.crf is None else ():
        weight, offset = tensors.get(f"{name}.weight"), tensors.get(f"{name}.bias")
        if weight is None or offset is None:
            continue
        value = np.asarray(weight.read(), np.float32)
        value = value.T if weights.as_in_pytorch else value
        if value.shape == tuple(kernel.shape):
            kernel.assign(value)
            model.head_output.bias.assign(np.asarray(offset.read(), np.float32))
            return False
    return True


def is_foreign(folder: files.Path, families: Sequence[str]) -> bool:
    """Whether a folder holds a model of another architecture than these families."""
    path = os.path.join(folder, "config.json")
    if not os.path.isfile(path):
        return False
    raw = files.read_json(pathlib.Path(path))
    return raw.get("model_type", "bert") not in families and "model_type" in raw
