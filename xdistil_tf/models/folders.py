"""Model folders of any kind: finding them, reading and writing them, their labels."""

from __future__ import annotations

import dataclasses
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from xdistil_tf import files, model_places
from xdistil_tf.models import (
    bilstm,
    encoder_config,
    foreign,
    foreign_folders,
    layers,
    pretrained,
    projected,
)


@dataclasses.dataclass(frozen=True)
class Labels:
    """What a trained model answers; the content of `labels.json`.

    Attributes:
      task_type: `classification`, `regression` or `tagging`.
      labels: Names of the classes, in the order of the logits.
      metric: The task's primary metric.
      pair: Whether the task has two texts.
      task: The task's name.
    """

    task_type: str
    labels: tuple[str, ...]
    metric: str
    pair: bool
    task: str = ""


def find(path: str) -> str:
    """The model folder that a flag means.

    Of a run folder it is `model/`, of a distill folder the student's; a Hugging Face folder is
    itself; anything that is no folder is a hub name, downloaded once.

    Raises:
      FileNotFoundError: If there is no model; says what was looked for.
    """
    folder = pathlib.Path(path)
    for candidate in model_places.candidates(folder):
        if _is_model(candidate):
            return str(candidate)
    if folder.is_dir():
        raise FileNotFoundError(
            f"No model in {path}. Expected config.json with weights, a finished run folder "
            "(model/) or a finished distill folder (student/model/)."
        )
    return pretrained.resolve_folder(path)


def load_model(folder: files.Path, precision: str = "float32", only_run: bool = False):
    """Loads a model folder of any kind.

    Args:
      folder: The folder.
      precision: Of the arithmetic.
      only_run: Whether the model is neither trained nor saved: its kernels are then kept in that
        precision, half as large, and no pass has to cast them.

    Raises:
      FileNotFoundError: If the folder holds no model.
      ValueError: If a weight is missing, superfluous or has another shape.
    """
    if is_bilstm(folder):
        model = bilstm.load_bilstm(folder, precision=precision)
    elif is_foreign(folder):
        model = foreign_folders.load_foreign(folder)
    else:
        model = pretrained.load_encoder(str(folder), precision=precision)
    return layers.only_run(model) if only_run else model


def save_model(model, folder: files.Path, labels: Sequence[str] | None = None) -> None:
    """Writes `config.json` and `model.safetensors` into a model folder.

    Width projections, which only training uses, become a file of their own.
    """
    if is_bilstm_config(model.config):
        bilstm.save_bilstm(model, folder)
        return
    if isinstance(model, foreign.ForeignEncoder):
        foreign_folders.save_foreign(model, folder, labels)
        return
    if isinstance(model, projected.ProjectedEncoder):
        projected.save_projections(model, folder)
        model = model.encoder
    pretrained.save_encoder(model, str(folder), labels=labels)


def is_bilstm(folder: files.Path) -> bool:
    """Whether a model folder holds a recurrent student."""
    config = pathlib.Path(folder) / "config.json"
    return config.is_file() and files.read_json(config).get("model_type") == bilstm.MODEL_TYPE


def is_foreign(folder: files.Path) -> bool:
    """Whether a model folder holds an architecture that only `transformers` knows."""
    families = (*encoder_config.FAMILIES, bilstm.MODEL_TYPE)
    return foreign_folders.is_foreign(folder, families)


def read_config(folder: files.Path) -> dict[str, Any]:
    """The complete config of a model folder of any kind."""
    if is_bilstm(folder):
        return bilstm.complete_config(files.read_json(pathlib.Path(folder) / "config.json"))
    if is_foreign(folder):
        return foreign_folders.read_foreign_config(folder)
    return pretrained.read_config(str(folder))


def read_word_embeddings(folder: files.Path) -> np.ndarray:
    """The word table of a transformer's folder, float32 `[vocabulary, width]`.

    Raises:
      ValueError: If it has none.
    """
    if is_foreign(folder):
        return foreign_folders.read_word_embeddings(folder)
    return pretrained.read_word_embeddings(str(folder))


def width(folder: files.Path) -> int:
    """Width of the representation that a model folder of any kind gives."""
    config = read_config(folder)
    return config["projection_dim" if is_bilstm_config(config) else "hidden_size"]


def is_bilstm_config(config: Mapping[str, Any]) -> bool:
    """Whether a complete config is that of a recurrent student."""
    return config["model_type"] == bilstm.MODEL_TYPE


def longest_input(config: Mapping[str, Any]) -> int | None:
    """Tokens that a model of this complete config takes; `None` where it has no positions."""
    positions = config.get("max_position_embeddings")
    if positions is None:
        return None
    family = encoder_config.FAMILIES.get(config["model_type"])
    after_padding = family is not None and family.positions_after_padding
    return positions - (config["pad_token_id"] + 1 if after_padding else 0)


def write_labels(folder: files.Path, labels: Labels) -> None:
    """Writes `labels.json`."""
    files.write_json(pathlib.Path(folder) / "labels.json", dataclasses.asdict(labels))


def read_labels(folder: files.Path) -> Labels | None:
    """Reads `labels.json`; `None` where a folder from elsewhere has none."""
    path = pathlib.Path(folder) / "labels.json"
    if not path.is_file():
        return None
    content = files.read_json(path)
    return Labels(**content | {"labels": tuple(content["labels"])})


def class_names(folder: files.Path) -> tuple[str, ...] | None:
    """The classes of a model's head, from `labels.json` or a Hugging Face config.

    `LABEL_0`, `LABEL_1`, ... for a head whose config names none, as `transformers` writes it for
    two classes; `None` without a head.
    """
    known = read_labels(folder)
    if known is not None:
        return known.labels
    config = read_config(folder)
    if is_bilstm_config(config) or config["head"]["num_labels"] is None:
        return None
    names = pretrained.read_labels(str(folder))
    return names or tuple(f"LABEL_{i}" for i in range(config["head"]["num_labels"]))


def in_another_order(names: Sequence[str] | None, labels: Sequence[str]) -> bool:
    """Whether classes have the names of `labels`, permuted."""
    return names is not None and sorted(names) == sorted(labels) and list(names) != list(labels)


def head_kind(folder: files.Path) -> str | None:
    """What kind of head a model has: `classification`, ...; `None` for an encoder alone."""
    config = read_config(folder)
    return config["task_type"] if is_bilstm_config(config) else config["head"]["kind"]


def reorder_classes(
    source: files.Path, order: Sequence[int], labels: Sequence[str], folder: files.Path
) -> str:
    """Writes a copy of a model whose class i is class `order[i]` of the source.

    Args:
      source: A model folder with a classification or tagging head.
      order: A permutation of its classes.
      labels: Names of the classes in the new order.
      folder: Where to; tokenizer files are copied.

    Returns:
      `folder`.
    """
    model, known = load_model(source), read_labels(source)
    head = model.head if is_bilstm(source) else model.head_output
    for variable in head.variables:
        variable.assign(variable.numpy()[..., list(order)])
    if model.crf is not None:
        model.crf.reorder(order)
    with files.replaced_folder(folder) as aside:
        for file in pathlib.Path(source).iterdir():
            if file.is_file() and file.suffix in (".json", ".txt", ".model"):
                shutil.copy(file, aside / file.name)
        save_model(model, aside, labels)
        if known is not None:
            write_labels(aside, dataclasses.replace(known, labels=tuple(labels)))
    return str(folder)


def _is_model(folder: pathlib.Path) -> bool:
    return (folder / "config.json").is_file() or (folder / "bert_config.json").is_file()
