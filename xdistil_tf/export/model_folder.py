"""From a model folder to a SavedModel."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

from xdistil_tf import files
from xdistil_tf.data.tokenization import load_tokenizer
from xdistil_tf.export.saved_model import export_saved_model
from xdistil_tf.models import folders


def export_model_folder(
    model_dir: str,
    output_dir: files.Path,
    parity_texts: Sequence | None = None,
    signatures: str = "all",
) -> pathlib.Path:
    """Exports a model, run or distill folder; see `export_saved_model`.

    Raises:
      FileNotFoundError: If there is no model.
      ValueError: If the folder has no labels, or the export is not equal to the model.
    """
    labels = trained_labels(model_dir)
    folder = folders.find(model_dir)
    return export_saved_model(
        folders.load_model(folder),
        load_tokenizer(folder),
        labels,
        output_dir,
        max_seq_length=files.read_json(pathlib.Path(folder) / "xdistil.json")["max_seq_length"],
        parity_texts=parity_texts,
        signatures=signatures,
    )


def trained_labels(model_dir: str) -> folders.Labels:
    """What the model of a model, run or distill folder answers.

    Raises:
      FileNotFoundError: If there is no model.
      ValueError: If the folder has no labels.
    """
    files.require_folder(model_dir, "a model, run or distill folder")
    folder = folders.find(model_dir)
    labels = folders.read_labels(folder)
    if labels is None:
        raise ValueError(
            f"{folder} has no labels.json. Expected a model that was trained here on a task."
        )
    return labels
