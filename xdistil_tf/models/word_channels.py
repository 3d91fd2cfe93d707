"""Word vectors of a small student: one table that learns or stays, or both side by side."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import tensorflow as tf
import tf_keras

from xdistil_tf.models import lstm


class WordChannels(tf_keras.layers.Layer):
    """Vectors of tokens; of a pruned vocabulary, found through a table of rows.

    With `multichannel` a second table, which never trains, keeps the vectors that the first one
    starts from, and each token has both of its vectors (Kim, "Convolutional Neural Networks for
    Sentence Classification", EMNLP 2014, section 3.1).

    Args:
      config: `embedding_rows`, `embedding_dim`, `trainable_embedding`, `multichannel`, `remap` and,
        with that, `vocab_size`.
      dtype: A Keras policy.
    """

    def __init__(self, config: Mapping, dtype):
        super().__init__(name="embedding", dtype=dtype, autocast=False)
        shape = (config["embedding_rows"], config["embedding_dim"])
        self.table = self._weight("table", shape, "float32", config["trainable_embedding"])
        self.frozen = None
        if config["multichannel"]:
            self.frozen = self._weight("frozen", shape, "float32", trainable=False)
        self.remap = None
        if config["remap"]:
            self.remap = self._weight("remap", (config["vocab_size"],), "int32", trainable=False)
        self._range = config["embedding_range"]
        self.built = True

    def _weight(self, name: str, shape: tuple[int, ...], dtype: str, trainable: bool):
        return self.add_weight(
            name=f"embedding/{name}",
            shape=shape,
            initializer="zeros",
            dtype=dtype,
            trainable=trainable,
            experimental_autocast=False,
        )

    def initialise(self, seed: int) -> None:
        """Draws the vectors uniformly from both sides of 0; the rows of the ids stay."""
        key = lstm.stateless_seed(self.table.name, seed)
        limit = self._range
        self._start_as(tf.random.stateless_uniform(self.table.shape, key, -limit, limit))

    def set(self, table: np.ndarray | None, remap: np.ndarray | None) -> None:
        """Sets the vectors, of both channels, and the row of every id.

        Args:
          table: `[rows, width]`; `None` leaves the vectors as they are.
          remap: int `[vocabulary]`, or `None` exactly where the vocabulary is not pruned.

        Raises:
          ValueError: If a shape differs from the config's, or a row does not exist.
        """
        if (remap is None) != (self.remap is None):
            raise ValueError(
                f"Invalid remap. Expected {'a table' if remap is None else 'None'}, since the "
                f"config has remap={self.remap is not None}. Received: {type(remap).__name__}."
            )
        if remap is not None:
            self.remap.assign(self._checked_rows(np.asarray(remap, np.int32)))
        if table is None:
            return
        if np.shape(table) != tuple(self.table.shape):
            raise ValueError(
                f"Invalid embedding table. Expected shape {tuple(self.table.shape)}. "
                f"Received: {np.shape(table)}."
            )
        self._start_as(np.asarray(table, np.float32))

    def call(self, input_ids: tf.Tensor) -> tf.Tensor:
        """int32 `[B, T]` -> `[B, T, E]`; of two channels `[B, T, 2E]`, the frozen one last."""
        if self.remap is not None:
            input_ids = tf.gather(self.remap, input_ids)
        tables = [self.table] if self.frozen is None else [self.table, self.frozen]
        vectors = [tf.cast(tf.gather(one, input_ids), self.compute_dtype) for one in tables]
        return vectors[0] if len(vectors) == 1 else tf.concat(vectors, -1)

    def _start_as(self, table) -> None:
        self.table.assign(table)
        if self.frozen is not None:
            self.frozen.assign(table)

    def _checked_rows(self, remap: np.ndarray) -> np.ndarray:
        rows = self.table.shape[0]
        if remap.shape != tuple(self.remap.shape) or remap.min() < 0 or remap.max() >= rows:
            raise ValueError(
                f"Invalid remap. Expected shape {tuple(self.remap.shape)} and rows in "
                f"0..{rows - 1}. Received: shape {remap.shape}, {remap.min()}..{remap.max()}."
            )
        return remap
