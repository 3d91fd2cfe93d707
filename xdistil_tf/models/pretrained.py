"""Encoders to and from model folders: Hugging Face's layout, and Google's TF1 checkpoints.

`load_encoder` accepts a folder or a hub name. Loading is strict: a tensor too few or too many is
an error that names it. What `save_encoder` writes, `transformers` loads with PyTorch unchanged.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence

import numpy as np
from absl import logging

from xdistil_tf import files
from xdistil_tf.models import checkpoint_readers, encoder, weight_names

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
      head: As in `encoder.complete_config`; None takes the checkpoint's own, and
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
    family = _family(raw, folder)
    tensors = _plain_tensors(folder, family)
    config = _our_config(raw, family, tensors)
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
    files.write_json(os.path.join(folder, "config.json"), huggingface_config(config, labels))


def read_config(path: str) -> dict:
    """The complete config of a model folder or hub name, in `encoder.complete_config`'s keys.

    Raises:
      FileNotFoundError: If there is no config.
      ValueError: If it is not of the BERT family.
    """
    folder = resolve_folder(path)
    raw = _read_raw_config(folder)
    family = _family(raw, folder)
    try:
        tensors = _plain_tensors(folder, family)
    except (ImportError, FileNotFoundError):
        tensors = {}
    return encoder.complete_config(_our_config(raw, family, tensors))


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
    name = "embeddings.word_embeddings.weight"
    tensors = _plain_tensors(folder, _family(_read_raw_config(folder), folder))
    if name not in tensors:
        raise ValueError(f"No word embeddings in {folder!r}. Expected a tensor {name!r}.")
    return np.array(tensors[name].read(), dtype=np.float32)


def weights_fingerprint(folder: str) -> str:
    """SHA-256, in hex, of the content of a folder's weight files."""
    digest = hashlib.sha256()
    kind, paths = checkpoint_readers.find_weight_files(folder)
    if kind == "tf1":
        prefix = paths[0]
        stem = os.path.basename(prefix) + "."
        names = sorted(
            name for name in os.listdir(os.path.dirname(prefix)) if name.startswith(stem)
        )
        names = [name for name in names if not name.endswith(".meta")]
        paths = [os.path.join(os.path.dirname(prefix), name) for name in names]
    for path in paths:
        digest.update(files.file_fingerprint(path).encode())
    return digest.hexdigest()


def resolve_folder(path: str) -> str:
    """A local folder as it is; anything else is a hub name, downloaded once.

    Raises:
      FileNotFoundError: If it is neither.
    """
    path = os.fspath(path)
    if os.path.isdir(path):
        return path
    if not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", path):
        raise FileNotFoundError(f"No such folder: {path!r}. Expected a model folder or hub name.")
    import huggingface_hub

    try:
        folder = huggingface_hub.snapshot_download(path, allow_patterns=_HUB_FILES)
        if not any(name.endswith(".safetensors") for name in os.listdir(folder)):
            folder = huggingface_hub.snapshot_download(path, allow_patterns=_HUB_OLD_FILES)
    except (OSError, ValueError) as error:
        reason = str(error).strip().split("\n")[0]
        raise FileNotFoundError(
            f"No folder {path!r} here, and the hub did not give a model of that name "
            f"({type(error).__name__}: {reason[:200]}). Give a local model folder, or go online once."
        ) from error
    return folder


def huggingface_config(config: Mapping, labels: Sequence[str] | None = None) -> dict:
    """The `config.json` of a complete config; what is ours alone stands under `xdistil`."""
    family, head = config["model_type"], config["head"]
    result = {"architectures": [_architecture(config)], "model_type": family}
    skip = {"model_type", "head", "classifier_dropout"}
    if family != "electra":
        skip.add("embedding_size")
    renamed = _DISTILBERT_KEYS if family == "distilbert" else {}
    if family == "distilbert":
        skip |= {"type_vocab_size", "layer_norm_eps"}
        result["sinusoidal_pos_embds"] = False
    for key, value in config.items():
        if key not in skip:
            result[renamed.get(key, key)] = value
    if config["classifier_dropout"] is not None:
        key = "seq_classif_dropout" if family == "distilbert" else "classifier_dropout"
        result[key] = config["classifier_dropout"]
    if head["num_labels"]:
        names = labels or [f"LABEL_{i}" for i in range(head["num_labels"])]
        result["id2label"] = {str(i): str(name) for i, name in enumerate(names)}
        result["label2id"] = {str(name): i for i, name in enumerate(names)}
    if head["kind"] in ("classification", "regression"):
        regression = head["kind"] == "regression"
        result["problem_type"] = "regression" if regression else "single_label_classification"
    result["xdistil"] = {"head": dict(head)}
    return result


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
    extra = [name for name in tensors if name not in used and not weight_names.is_harmless(name)]
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


def _plain_tensors(folder: str, family: str) -> dict[str, checkpoint_readers.Tensor]:
    tensors = checkpoint_readers.open_tensors(folder)
    return {weight_names.plain_name(name, family): tensor for name, tensor in tensors.items()}


def _read_raw_config(folder: str) -> dict:
    for name in ("config.json", "bert_config.json"):
        path = os.path.join(folder, name)
        if os.path.isfile(path):
            return files.read_json(path)
    raise FileNotFoundError(f"No config in {folder!r}. Expected config.json or bert_config.json.")


def _family(raw: Mapping, folder: str) -> str:
    family = raw.get("model_type", "bert")  # Google's bert_config.json names none.
    if family not in encoder.FAMILIES:
        raise ValueError(
            f"Unknown model_type of {folder!r}. Expected one of {sorted(encoder.FAMILIES)}. "
            f"Received: {family!r}."
        )
    if raw.get("position_embedding_type", "absolute") != "absolute":
        raise ValueError(
            f"Unsupported position_embedding_type of {folder!r}. Expected 'absolute'. "
            f"Received: {raw['position_embedding_type']!r}."
        )
    return family


def _our_config(raw: Mapping, family: str, tensors: Mapping) -> dict:
    config = dict(raw)
    if family == "distilbert":
        config.update(
            {ours: raw[theirs] for ours, theirs in _DISTILBERT_KEYS.items() if theirs in raw}
        )
        config["classifier_dropout"] = raw.get("seq_classif_dropout", 0.2)
    config["model_type"] = family
    config["head"] = _own_head(raw, family, tensors)
    return config


def _own_head(raw: Mapping, family: str, tensors: Mapping) -> dict:
    """The head that a checkpoint has, by its config or, where that is silent, by its tensors."""
    ours = raw.get("xdistil", {}).get("head")
    if ours:
        return ours
    architecture = (raw.get("architectures") or [""])[0]
    kind = next((kind for end, kind in _ARCHITECTURES if architecture.endswith(end)), None)
    if family == "electra" and architecture.endswith("ForPreTraining"):
        kind = None
    if not architecture and "classifier.weight" in tensors:
        kind = "classification"
    elif not architecture and "cls.predictions.bias" in tensors:
        kind = "pretraining"
    head = {"kind": kind}
    if kind in ("classification", "tagging"):
        head["num_labels"] = _num_labels(raw, tensors)
        if kind == "classification" and (
            raw.get("problem_type") == "regression" or head["num_labels"] == 1
        ):
            head["kind"] = "regression"
    elif family == "bert":
        head["next_sentence"] = kind == "pretraining" and "cls.seq_relationship.weight" in tensors
        head["pooler"] = "tanh_pooler" if "pooler.dense.weight" in tensors else "none"
    return head


def _num_labels(raw: Mapping, tensors: Mapping) -> int:
    for name in ("classifier.out_proj.weight", "classifier.weight"):
        if name in tensors:
            return tensors[name].shape[0]
    return len(raw["id2label"]) if raw.get("id2label") else raw.get("num_labels", 2)


def _architecture(config: Mapping) -> str:
    stem, head = _CLASS_STEMS[config["model_type"]], config["head"]
    kind = head["kind"]
    if kind in ("classification", "regression") and head["pooler"] == "none":
        kind = None  # PyTorch users have no class for such a head; the body loads.
    if kind == "pretraining" and head["next_sentence"]:
        return f"{stem}ForPreTraining"
    return stem + _CLASS_ENDS[kind]


_DISTILBERT_KEYS = {
    "hidden_size": "dim",
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
    "intermediate_size": "hidden_dim",
    "hidden_act": "activation",
    "hidden_dropout_prob": "dropout",
    "attention_probs_dropout_prob": "attention_dropout",
}

_ARCHITECTURES = (
    ("ForSequenceClassification", "classification"),
    ("ForTokenClassification", "tagging"),
    ("ForPreTraining", "pretraining"),
    ("ForMaskedLM", "pretraining"),
)

_CLASS_STEMS = {
    "bert": "Bert",
    "roberta": "Roberta",
    "xlm-roberta": "XLMRoberta",
    "camembert": "Camembert",
    "distilbert": "DistilBert",
    "electra": "Electra",
}

_CLASS_ENDS = {
    "classification": "ForSequenceClassification",
    "regression": "ForSequenceClassification",
    "tagging": "ForTokenClassification",
    "pretraining": "ForMaskedLM",
    None: "Model",
}

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
