"""An encoder whose hidden states have its teacher's width, for as long as it learns from them.

```
features -> encoder -> hidden {0: [B, T, 312], ...} -> width projections -> {0: [B, T, 768], ...}
```

TinyBERT's learnt projections (Jiao et al., 2020, section 3.1, equations 8 and 9). Nothing but
`hidden` is changed; the encoder alone is what is evaluated and exported.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Literal

import numpy as np
import tensorflow as tf
from absl import logging

from xdistil_tf import files
from xdistil_tf.models import checkpoint_readers, layers
from xdistil_tf.models.encoder import Encoder
from xdistil_tf.models.parted_model import PartedModel

PART = "width_projection"
FILE = "projections.safetensors"
_SHARED = f"{PART}/shared/"
# TinyBERT's released code has one projection, its second released models one for each layer.
_PUBLISHED = {"fit_dense.": "shared", "fit_denses.": None}

Sharing = Literal["per_layer", "shared"]


class ProjectedEncoder(PartedModel):
    """An encoder with one more part, `width_projection`.

    Args:
      encoder: The student, with weights.
      width: Of the teacher's hidden states.
      sharing: `per_layer`: a projection for the embeddings and for each block; `shared`: one for
        all of them.
      bias: Whether projections have one.

    Projections are zeros until `initialise_part` or `load_projections` fills them.
    """

    def __init__(
        self, encoder: Encoder, width: int, sharing: Sharing = "per_layer", bias: bool = True
    ):
        policy = layers.policy(encoder.precision)
        super().__init__(dtype=policy, autocast=False, name="projected_encoder")
        self.encoder = encoder
        self.precision = encoder.precision
        self.projection = {"width": width, "sharing": sharing, "bias": bias}
        names = ["shared"] if sharing == "shared" else range(len(encoder.blocks) + 1)
        self._projections = [
            layers.Dense(
                encoder.config["hidden_size"],
                width,
                bias=bias,
                name=f"{PART}/{name}",
                dtype=policy,
            )
            for name in names
        ]
        self.built = True

    @property
    def config(self) -> dict:
        """The encoder's."""
        return self.encoder.config

    @property
    def available(self) -> dict[str, tuple[int, ...] | None]:
        """The encoder's."""
        return self.encoder.available

    @property
    def parts(self) -> dict[str, list]:
        """The encoder's, and `width_projection`."""
        return self.encoder.parts | {PART: list(self._projections)}

    def _initialise_layer(self, layer, seed: int) -> None:
        self.encoder._initialise_layer(layer, seed)

    def call(self, features, training=False, request=None, seed=None):
        """What the encoder gives, with `hidden` in the teacher's width."""
        outputs = self.encoder(features, training=training, request=request, seed=seed)
        if "hidden" in outputs:
            outputs["hidden"] = {
                layer: self._projected(layer, states) for layer, states in outputs["hidden"].items()
            }
        return outputs

    def _projected(self, layer: int, states: tf.Tensor) -> tf.Tensor:
        dense = self._projections[0 if len(self._projections) == 1 else layer]
        shape = tf.shape(states)  # [batch, tokens, width]
        rows = dense(tf.reshape(states, [-1, states.shape[-1]]))
        return tf.reshape(rows, [shape[0], shape[1], rows.shape[-1]])


def save_projections(model: ProjectedEncoder, folder: files.Path) -> None:
    """Writes `projections.safetensors` into a model folder."""
    from safetensors import numpy as safetensors_numpy

    tensors = {
        name: variable.numpy()
        for name, variable in model.named_variables().items()
        if name.startswith(f"{PART}/")
    }
    with files.replaced_file(pathlib.Path(folder) / FILE) as handle:
        handle.write(safetensors_numpy.save(tensors))


def load_projections(model: ProjectedEncoder, folder: files.Path, seed: int) -> bool:
    """Fills the projections from a model folder, or draws them from `seed` where that has none.

    One that is shared there starts each of several here.

    Returns:
      Whether the folder's were taken.
    """
    found = read_projections(folder)
    variables = {
        name: variable
        for name, variable in model.named_variables().items()
        if name.startswith(f"{PART}/")
    }
    taken = {
        name: found.get(name, found.get(_SHARED + name.rsplit("/", 1)[1])) for name in variables
    }
    fits = all(
        value is not None and value.shape == tuple(variables[name].shape)
        for name, value in taken.items()
    )
    if not fits:
        model.initialise_part(PART, seed)
        logging.info("Initialised %s: %s has none that fit.", PART, folder)
        return False
    for name, value in taken.items():
        variables[name].assign(value)
    if not model.projection["bias"] and any(name.endswith("/bias") for name in found):
        logging.info("The biases of the projections of %s are left out: bias: false.", folder)
    return True


def read_projections(folder: files.Path) -> dict[str, np.ndarray]:
    """Name -> float32 value; of our files, or of TinyBERT's checkpoints; empty where are none.

    Raises:
      ValueError: If the file is damaged.
    """
    path = pathlib.Path(folder) / FILE
    if path.is_file():
        return {
            name: np.asarray(tensor.read(), np.float32)
            for name, tensor in checkpoint_readers.read_safetensors(str(path)).items()
        }
    return _published(checkpoint_readers.open_tensors(str(folder)))


def _published(tensors: Mapping[str, checkpoint_readers.Tensor]) -> dict[str, np.ndarray]:
    """`fit_dense.weight` or `fit_denses.<layer>.weight`, `[teacher, student]`, and biases."""
    found = {}
    for name, tensor in tensors.items():
        name = name.removeprefix("bert.")
        for start, place in _PUBLISHED.items():
            if name.startswith(start):
                *middle, kind = name.removeprefix(start).split(".")
                value = np.asarray(tensor.read(), np.float32)
                ours = "kernel" if kind == "weight" else "bias"
                found[f"{PART}/{place or middle[0]}/{ours}"] = (
                    np.ascontiguousarray(value.T) if kind == "weight" else value
                )
    return found
