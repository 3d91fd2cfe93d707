"""The layer of a linear-chain CRF, and what a model says by it."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from xdistil_tf import crf
from xdistil_tf.models.layers import Layer


class Crf(Layer):
    """Scores of neighbouring tags and of first tags; see `crf.py`.

    Zeros until something trains them: a word's best tag is then its most probable one.
    """

    def __init__(self, num_labels: int, *, name: str = "head/crf", dtype=None):
        super().__init__(name, dtype)
        self.transitions = self._weight("transitions", (num_labels, num_labels))
        self.start = self._weight("start", (num_labels,))

    def initialise(self) -> None:
        """Sets all scores to zero."""
        for variable in (self.transitions, self.start):
            variable.assign(tf.zeros_like(variable))

    def reorder(self, order: Sequence[int]) -> None:
        """Makes tag i what was tag `order[i]`."""
        transitions, start = self.transitions.numpy(), self.start.numpy()
        self.transitions.assign(transitions[list(order)][:, list(order)])
        self.start.assign(start[list(order)])

    def call(self, emissions: tf.Tensor) -> tf.Tensor:
        """Float32 `[B, T, C]` -> potentials `[B, T, C + 1, C]`."""
        parts = tf.convert_to_tensor(self.transitions), tf.convert_to_tensor(self.start)
        return crf.make_potentials(emissions, *parts)


def crf_outputs(layer: Crf, logits: tf.Tensor, features, request) -> dict[str, tf.Tensor]:
    """`potentials` and `marginals`, as far as they are requested.

    Raises:
      ValueError: If marginals are requested and nothing says where words begin.
    """
    potentials, outputs = layer(logits), {}
    if "potentials" in request:
        outputs["potentials"] = potentials
    if "marginals" in request:
        if "word_index" not in features:
            raise ValueError("Missing feature 'word_index', needed by marginals.")
        words = crf.first_pieces(features["word_index"])
        outputs["marginals"] = crf.log_marginals(potentials, words)
    return outputs
