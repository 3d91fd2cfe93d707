"""Encoders to and from model folders: Hugging Face's layout, and Google's TF1 checkpoints.

`load_encoder` accepts a folder or a hub name. Loading is strict: a tensor too few or too many is
an error that names it. What `save_encoder` writes, `transformers` loads with PyTorch unchanged.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
from collections.abc import Mapping, Sequence

import numpy as np
from absl import logging

from xdistil_tf import files
from xdistil_tf.models import checkpoint_readers, encoder, encoder_config, weight_names

_HEAD_PARTS = ("head", "pooler", "next_sentence", "masked_lm")


def load_encoder(
    path: str,
    head: Mapping | None = None,
    precision: str = "float32",
    allow_missing_head: bool = False,
    overrides: Mapping | None = None,
    seed: int = 0,
) -> encoder.Encoder:
    """An encoder with the weights of a checkpoint.

    Args:
      path: Model folder (safetensors, h5, bin or TF1) or hub name.
      head: As in `encoder_config.complete_config`; None takes the checkpoint's own, and
        `{"kind": None}` takes no head.
      precision: `float32`, `bfloat16` or `mixed_float16`.
      allow_missing_head: Whether head parts that the checkpoint lacks, or has in another shape,
        are initialised from `seed`. They are logged, and named in `model.fresh_parts`.
      overrides: Config fields that differ from the checkpoint's, such as dropout rates.
      seed: Integer.

    Raises:
      FileNotFoundError: If there are no weights or no config.
      ValueError: Lists every missing, unexpected and misshapen tensor.
    """
    folder = resolve_folder(path)
    raw = _read_raw_config(folder)
    tensors = _plain_tensors(folder, raw)
    config = _our_config(raw, tensors)
    config.update(overrides or {})
    if head is not None:
        config["head"] = dict(head)
    model = encoder.Encoder(config, precision)
    fresh = _assign(model, tensors, allow_missing_head, folder)
    for part in fresh:
        model.initialise_part(part, seed)
    if fresh:
        logging.info("Initialised %s: %s has no such weights.", ", ".join(fresh), folder)
    model.fresh_parts = fresh
    return model


def save_encoder(model: encoder.Encoder, folder: str, labels: Sequence[str] | None = None) -> None:
    """Writes `model.safetensors` and `config.json`, each aside first, then synced and renamed.

    Args:
      model: Its variables are written in float32.
      folder: Made where it does not exist; other files in it stay.
      labels: Names of the classes, in order.

    Raises:
      ValueError: If there are not as many labels as classes.
    """
    from safetensors import numpy as safetensors_numpy

    config = model.config
    classes = config["head"]["num_labels"]
    if labels is not None and classes is not None and len(labels) != classes:
        raise ValueError(f"Invalid labels. Expected {classes}. Received {len(labels)}: {labels}.")
    prefixed = config["head"]["kind"] is not None
    family, tensors = config["model_type"], {}
    variables = model.named_variables()
    for name, names in _sources(model).items():
        pieces = weight_names.disassemble(name, variables[name].numpy(), len(names))
        for tensor_name, piece in zip(names, pieces, strict=True):
            key = weight_names.full_name(tensor_name, family) if prefixed else tensor_name
            tensors[key] = piece
    os.makedirs(folder, exist_ok=True)
    with files.replaced_file(os.path.join(folder, "model.safetensors")) as handle:
        handle.write(safetensors_numpy.save(tensors, metadata={"format": "pt"}))
    files.write_json(
        os.path.join(folder, "config.json"), encoder_config.to_huggingface(config, labels)
    )


def read_config(path: str) -> dict:
    """The config of a model folder or hub name, as `encoder_config.complete_config` gives it.

    Raises:
      FileNotFoundError: If there is no config.
      ValueError: If it is not of the BERT family.
    """
    folder = resolve_folder(path)
    raw = _read_raw_config(folder)
    try:
        tensors = _plain_tensors(folder, raw)
    except (ImportError, FileNotFoundError):
        tensors = {}
    return _our_config(raw, tensors)


def read_labels(path: str) -> tuple[str, ...] | None:
    """The classes of a model folder's head in order, or None where it names none."""
    names = _read_raw_config(resolve_folder(path)).get("id2label")
    if not names:
        return None
    return tuple(names[key] for key in sorted(names, key=int))


def read_word_embeddings(path: str) -> np.ndarray:
    """The word table of a checkpoint, float32 `[vocabulary, width]`; reads nothing else.

    Raises:
      ValueError: If the checkpoint has none.
    """
    folder = resolve_folder(path)
    name, raw = "embeddings.word_embeddings.weight", _read_raw_config(folder)
    if raw.get("model_type", "bert") not in encoder_config.FAMILIES:
        raise ValueError(
            f"No word embeddings to take over in {folder!r}. Expected an encoder, one of "
            f"{sorted(encoder_config.FAMILIES)}. Received: model_type={raw['model_type']!r}. "
            "Set model.embedding.source to random or file."
        )
    tensors = _plain_tensors(folder, raw)
    if name not in tensors:
        raise ValueError(f"No word embeddings in {folder!r}. Expected a tensor {name!r}.")
    return np.array(tensors[name].read(), dtype=np.float32)


def weights_fingerprint(folder: str) -> str:
    """SHA-256, in hex, of what a folder's model computes: its weight files and its config.

    Fields of the config that the model does not read do not count, nor do the names of classes.
    """
    raw = _read_raw_config(folder)
    # A folder of another kind holds a complete config.
    config = (
        raw if raw.get("model_type", "bert") not in encoder_config.FAMILIES else read_config(folder)
    )
    digest = hashlib.sha256(files.fingerprint(config).encode("ascii"))
    for path in _weight_paths(folder):
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def weights_bytes(folder: str) -> int:
    """Bytes of a folder's weight files."""
    return sum(os.path.getsize(path) for path in _weight_paths(folder))


def _weight_paths(folder: str) -> list[str]:
    kind, paths = checkpoint_readers.find_weight_files(folder)
    if kind != "tf1":
        return list(paths)
    place, stem = os.path.split(paths[0])
    names = sorted(name for name in os.listdir(place) if name.startswith(f"{stem}."))
    return [os.path.join(place, name) for name in names if not name.endswith(".meta")]


def resolve_folder(path: str) -> str:
    """A local folder as it is; anything else is a hub name, downloaded once.

    Raises:
      FileNotFoundError: If it is neither.
    """
    path = os.fspath(path)
    if os.path.isdir(path):
        return path
    # A path that begins in a folder of this place is no name of the hub.
    local = os.path.exists(path.split("/")[0])
    if local or not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", path):
        raise FileNotFoundError(f"No such folder: {path!r}. Expected a model folder or hub name.")
    import huggingface_hub

    try:
        folder = huggingface_hub.snapshot_download(path, allow_patterns=_HUB_FILES)
        if not any(name.endswith(".safetensors") for name in os.listdir(folder)):
            folder = huggingface_hub.snapshot_download(path, allow_patterns=_HUB_OLD_FILES)
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"No folder {path!r} here, and no such model from the hub ({type(error).__name__}). "
            "Give a local model folder, or go online once."
        ) from error
    return folder


def _assign(model, tensors, allow_missing_head: bool, folder: str) -> tuple[str, ...]:
    """Fills the model's variables; returns the head parts for which there was nothing."""
    variables, sources = model.named_variables(), _sources(model)
    problems: dict[str, list[str]] = {}
    for name, names in sources.items():
        expected = weight_names.tensor_shape(name, tuple(variables[name].shape), len(names))
        for tensor_name in names:
            found = tensors.get(tensor_name)
            if found is None:
                problems.setdefault(name, []).append(f"missing {tensor_name}")
            elif found.shape != expected:
                problems.setdefault(name, []).append(
                    f"{tensor_name} has shape {found.shape}, expected {expected}"
                )
    used = {name for names in sources.values() for name in names}
    unread = [name for name in tensors if name not in used]
    extra = [name for name in unread if not weight_names.is_harmless(name)]
    _mention_unread(folder, tuple(name for name in unread if weight_names.is_harmless(name)))
    fresh = []
    if allow_missing_head:
        broken = {name.split("/")[0] for name in problems}
        fresh = [part for part in model.parts if part in broken and part in _HEAD_PARTS]
    messages = [f"unexpected {name}" for name in extra]
    for name, texts in problems.items():
        if name.split("/")[0] not in fresh:
            messages += texts
    messages += _untied(model, tensors)
    if messages:
        heads = any(name.split("/")[0] in _HEAD_PARTS for name in problems)
        cure = " Set allow_missing_head to start with a fresh head." if heads and not fresh else ""
        raise ValueError(f"Weights in {folder!r} do not fit: {'; '.join(messages)}.{cure}")
    for name, names in sources.items():
        if name.split("/")[0] not in fresh:
            value = weight_names.assemble(name, [tensors[key].read() for key in names])
            variables[name].assign(value)
    return tuple(fresh)


@functools.cache
def _mention_unread(folder: str, names: tuple[str, ...]) -> None:
    """Says once a process which tensors of a folder no part of the model reads."""
    if names:
        logging.info("%s: left aside, nothing here reads them: %s.", folder, ", ".join(names))


def _untied(model, tensors) -> list[str]:
    """Decoders that are no copy of the word table, though the masked-LM head takes them for one."""
    word = "embeddings.word_embeddings.weight"
    present = [name for name in weight_names.TIED if name in tensors]
    if model.masked_lm is None or word not in tensors or not present:
        return []
    table = tensors[word].read()
    return [
        f"{name} differs from {word}"
        for name in present
        if not np.array_equal(tensors[name].read(), table)
    ]


def _sources(model) -> dict[str, tuple[str, ...]]:
    family = model.config["model_type"]
    sources = weight_names.sources(model.named_variables(), family)
    stem = weight_names.head_output_source(family, model.head_dense is not None)
    if "head/output/kernel" in sources:
        sources["head/output/kernel"] = (f"{stem}.weight",)
        sources["head/output/bias"] = (f"{stem}.bias",)
    return sources


def _plain_tensors(folder: str, raw: Mapping) -> dict[str, checkpoint_readers.Tensor]:
    family = encoder_config.family_of(raw)
    tensors = checkpoint_readers.open_tensors(folder)
    return {weight_names.plain_name(name, family): tensor for name, tensor in tensors.items()}


def _our_config(raw: Mapping, tensors: Mapping) -> dict:
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    return encoder_config.from_huggingface(raw, shapes)


def _read_raw_config(folder: str) -> dict:
    for name in ("config.json", "bert_config.json"):
        path = os.path.join(folder, name)
        if os.path.isfile(path):
            return files.read_json(path)
    raise FileNotFoundError(f"No config in {folder!r}. Expected config.json or bert_config.json.")


_HUB_FILES = [
    "config.json",
    "*token*.json",
    "vocab*",
    "merges.txt",
    "*.model",
    "*.safetensors",
    "*.safetensors.index.json",
]
_HUB_OLD_FILES = [*_HUB_FILES, "tf_model.h5", "pytorch_model*.bin", "pytorch_model.bin.index.json"]
