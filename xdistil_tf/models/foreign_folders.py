"""Folders of other architectures: their weights in and out.

safetensors, `tf_model.h5` and `pytorch_model.bin` are read by our own readers.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from xdistil_tf import files
from xdistil_tf.models import checkpoint_readers
from xdistil_tf.models.foreign import ForeignEncoder
from xdistil_tf.models.foreign_bodies import (
    KEY,
    body_weights,
    class_of,
    pytorch_name,
    sizes,
    their_config,
)

# Heads of `transformers` for words that are one dense layer on the last states, as ours.
_TAGGING_HEADS = ("classifier", "score")
# Nothing here reads a pooler, and models with a head for words were saved without theirs.
_UNREAD = ("pooler.", "sequence_summary.")


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
    class_of(their_config(raw))
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
        handle.write(safetensors_numpy.save(tensors, metadata={"format": KEY}))
    content = config["huggingface"] | {KEY: {"foreign": True, "head": config["head"]}}
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
    theirs = their_config(raw)
    return sizes(theirs) | {
        "huggingface": {key: value for key, value in raw.items() if key != KEY},
        "head": {"kind": None, "num_labels": None, "crf": False} | _own_head(raw, weights),
    }


def read_word_embeddings(folder: files.Path) -> np.ndarray:
    """The word table of a folder, float32 `[vocabulary, width]`."""
    table = load_foreign(folder, {"kind": None}).body.get_input_embeddings()
    return np.asarray(table.weights[0].numpy(), np.float32)


def _own_head(raw: Mapping[str, Any], weights: _Weights) -> dict:
    """The head that a folder has, where it is one of ours; else `{"kind": None}`."""
    if KEY in raw:
        return dict(raw[KEY]["head"])
    architecture = (raw.get("architectures") or [""])[0]
    if architecture.endswith("ForTokenClassification"):
        for name in _TAGGING_HEADS:
            if (bias := weights.tensors.get(f"{name}.bias")) is not None:
                return {"kind": "tagging", "num_labels": bias.shape[0]}
    return {"kind": None}


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
        tensors = {pytorch_name(f"model/{n}", one.shape)[0]: one for n, one in tensors.items()}
    return _Weights(tensors, written_by not in ("tf", KEY))


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
                found[pytorch_name(name, shape)[0]] = checkpoint_readers.Tensor(
                    shape, reader(place)
                )
    return found


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
    for name, (variable, transpose) in body_weights(body).items():
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
