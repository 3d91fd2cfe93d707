"""What all models share: named parts, stable names of variables, weights drawn from a seed."""

from __future__ import annotations

import tensorflow as tf
import tf_keras


class PartedModel(tf_keras.Model):
    """A model whose variables all belong to named parts.

    Subclasses give `parts` and `_initialise_layer`.
    """

    @property
    def parts(self) -> dict[str, list]:
        """Named parts, top-down: name -> layers; every variable belongs to exactly one."""
        raise NotImplementedError

    def named_variables(self) -> dict[str, tf.Variable]:
        """Stable names of all variables, part after part, top-down."""
        return {
            variable.name.split(":")[0]: variable
            for part in self.parts.values()
            for layer in part
            for variable in layer.variables
        }

    def build_weights(self, seed: int) -> None:
        """Draws all weights anew, from `seed` alone."""
        for name in self.parts:
            self.initialise_part(name, seed)

    def initialise_part(self, name: str, seed: int) -> None:
        """Draws the weights of one part anew, from `seed` and their names alone.

        Raises:
          ValueError: If there is no such part.
        """
        if name not in self.parts:
            raise ValueError(
                f"Unknown part. Expected one of {list(self.parts)}. Received: {name!r}."
            )
        for layer in self.parts[name]:
            self._initialise_layer(layer, seed)

    def _initialise_layer(self, layer: tf_keras.layers.Layer, seed: int) -> None:
        raise NotImplementedError
