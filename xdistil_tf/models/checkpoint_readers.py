"""Tensors by name from every checkpoint format of the BERT family, without PyTorch.

Whatever the format, names and layouts come out as PyTorch's:
`bert/encoder/layer_0/output/dense/kernel` of a TF1 checkpoint becomes
`bert.encoder.layer.0.output.dense.weight`, transposed. Tensors are read when asked for.
"""

from __future__ import annotations

import dataclasses
import json
import mmap
import os
import pickle
import re
from collections.abc import Callable, Mapping

import ml_dtypes
import numpy as np
import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor in a file: its shape, known at once, and how to read it."""

    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]


def find_weight_files(folder: str) -> tuple[str, list[str]]:
    """The format and the files of the weights in a folder; the first format present counts.

    Returns:
      One of `safetensors`, `h5`, `tf1`, `bin`, and absolute paths; of TF1 the checkpoint prefix.

    Raises:
      FileNotFoundError: If the folder holds no weights.
    """
    for kind, name in _SINGLE_FILES:
        path = os.path.join(folder, name)
        if os.path.isfile(path):
            return kind, [path]
        index = f"{path}.index.json"
        if os.path.isfile(index):
            return kind, _shards(index)
    prefix = _tf1_prefix(folder)
    if prefix:
        return "tf1", [prefix]
    raise FileNotFoundError(
        f"No weights in {folder!r}. Expected model.safetensors, tf_model.h5, pytorch_model.bin "
        "or a TF1 checkpoint (*.index)."
    )


def open_tensors(folder: str) -> dict[str, Tensor]:
    """All tensors of a model folder, by PyTorch name.

    Raises:
      FileNotFoundError: If weights or a shard are missing.
      ImportError: If only `pytorch_model.bin` is there and PyTorch is not installed.
      ValueError: If a file is damaged.
    """
    kind, paths = find_weight_files(folder)
    tensors: dict[str, Tensor] = {}
    for path in paths:
        tensors.update(_READERS[kind](path))
    return tensors


def read_safetensors(path: str) -> dict[str, Tensor]:
    """Tensors of one safetensors file, mapped into memory.

    The format: header length (8 bytes), JSON header, data. Read here, since the library's
    NumPy interface does not know bfloat16.
    """
    with open(path, "rb") as file:
        try:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            start = 8 + int.from_bytes(data[:8], "little")
            header = json.loads(data[8:start])
        except ValueError as error:
            raise ValueError(f"Damaged safetensors file {path!r}: {error}.") from error
    header.pop("__metadata__", None)

    def tensor(name: str, entry: Mapping) -> Tensor:
        if entry["dtype"] not in _SAFETENSORS_TYPES:
            raise ValueError(f"Unknown type {entry['dtype']} of tensor {name!r} in {path!r}.")
        dtype, shape = np.dtype(_SAFETENSORS_TYPES[entry["dtype"]]), tuple(entry["shape"])
        begin, end = entry["data_offsets"]
        size = int(np.prod(shape))
        if end - begin != size * dtype.itemsize or start + end > len(data):
            raise ValueError(f"Damaged safetensors file {path!r}: tensor {name!r} is cut off.")
        return Tensor(shape, lambda: np.frombuffer(data, dtype, size, start + begin).reshape(shape))

    return {name: tensor(name, entry) for name, entry in header.items()}


def read_h5(path: str) -> dict[str, Tensor]:
    """Tensors of a `tf_model.h5` of transformers."""
    import h5py

    tensors = {}

    def visit(name, item):
        if isinstance(item, h5py.Dataset):
            key, transpose = h5_name(name)
            tensors[key] = _tensorflow_tensor(item.shape, transpose, lambda: _h5(path, name))

    with h5py.File(path, "r") as file:
        file.visititems(visit)
    return tensors


def read_tf1(prefix: str) -> dict[str, Tensor]:
    """Tensors of a TF1 checkpoint; optimizer slots and counters are left aside."""
    reader = tf.train.load_checkpoint(prefix)
    tensors = {}
    for name, shape in reader.get_variable_to_shape_map().items():
        if not re.search(_TF1_SLOTS, name):
            key, transpose = tf1_name(name)
            tensors[key] = _tensorflow_tensor(
                shape, transpose, lambda name=name: reader.get_tensor(name)
            )
    return tensors


def read_bin(path: str) -> dict[str, Tensor]:
    """Tensors of a `pytorch_model.bin`; nothing but tensors is unpickled."""
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            f"Reading {path!r} needs PyTorch. Install it with `pip install xdistil_tf[torch]`, "
            "or save the model as safetensors."
        ) from error
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"{path!r} is damaged or holds more than tensors: {reason}") from error
    return {
        name: Tensor(tuple(value.shape), lambda value=value: value.detach().float().numpy())
        for name, value in state.items()
        if isinstance(value, torch.Tensor)
    }


def h5_name(name: str) -> tuple[str, bool]:
    """PyTorch's name of an h5 dataset of transformers, and whether to transpose it.

    >>> h5_name("bert/tf_bert_model/bert/encoder/layer_._0/output/dense/kernel:0")
    ('bert.encoder.layer.0.output.dense.weight', True)
    """
    name = name.removesuffix(":0")
    name = re.sub(r"[^/]*___([^/]*)/", r"\1/", name).replace("_._", "/")
    parts = name.split("/")
    # Keras groups datasets by top-level layer, then repeats the full variable name.
    for length in range(1, len(parts)):
        if parts[length].startswith("tf_") and length + 1 < len(parts):
            parts = parts[length + 1 :]
            break
    return _tensorflow_name("/".join(parts))


def tf1_name(name: str) -> tuple[str, bool]:
    """PyTorch's name of a variable of google-research/bert, and whether to transpose it.

    >>> tf1_name("bert/encoder/layer_0/attention/self/query/kernel")
    ('bert.encoder.layer.0.attention.self.query.weight', True)
    >>> tf1_name("output_weights")
    ('classifier.weight', False)
    """
    name = re.sub(r"^output_(weights|bias)$", r"classifier/output_\1", name)
    name = re.sub(r"/layer_(\d+)/", r"/layer/\1/", name)
    return _tensorflow_name(name)


def _tensorflow_name(name: str) -> tuple[str, bool]:
    path, _, last = name.rpartition("/")
    transpose = last == "kernel"
    if last.endswith("_embeddings"):
        path, last = name, "weight"
    last = _LAST_NAMES.get(last, last)
    return f"{path}/{last}".strip("/").replace("/", "."), transpose


def _tensorflow_tensor(shape, transpose: bool, read) -> Tensor:
    shape = tuple(shape)
    if not transpose:
        return Tensor(shape, read)
    return Tensor(shape[::-1], lambda: np.asarray(read()).T)


def _h5(path: str, name: str) -> np.ndarray:
    import h5py

    with h5py.File(path, "r") as file:
        return file[name][()]


def _shards(index: str) -> list[str]:
    with open(index, encoding="utf-8") as file:
        names = sorted(set(json.load(file)["weight_map"].values()))
    paths = [os.path.join(os.path.dirname(index), os.path.basename(name)) for name in names]
    missing = [path for path in paths if not os.path.isfile(path)]
    if missing:
        raise FileNotFoundError(f"Missing shards of {index!r}: {missing}.")
    return paths


def _tf1_prefix(folder: str) -> str | None:
    latest = tf.train.latest_checkpoint(folder)
    if latest:
        return latest
    found = sorted(
        name.removesuffix(".index") for name in os.listdir(folder) if name.endswith(".index")
    )
    if len(found) > 1:
        raise ValueError(
            f"Several checkpoints in {folder!r}: {found}. Expected one, or a `checkpoint` file "
            "that names the one to use."
        )
    return os.path.join(folder, found[0]) if found else None


_SINGLE_FILES = (
    ("safetensors", "model.safetensors"),
    ("h5", "tf_model.h5"),
    ("bin", "pytorch_model.bin"),
)

_READERS = {"safetensors": read_safetensors, "h5": read_h5, "tf1": read_tf1, "bin": read_bin}

_TF1_SLOTS = r"(^|/)(adam_m|adam_v|Adam(_\d+)?|global_step|beta[12]_power|bad_steps|loss_scale)$"

_LAST_NAMES = {
    "kernel": "weight",
    "gamma": "weight",
    "beta": "bias",
    "embeddings": "weight",
    "output_weights": "weight",
    "output_bias": "bias",
}

_SAFETENSORS_TYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}
