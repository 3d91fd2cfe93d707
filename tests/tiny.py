"""A model and batches that are as small as the contracts allow, for tests of the loop."""

import functools

import numpy as np
import tensorflow as tf
import tf_keras

from xdistil_tf.models.layers import StatelessDropout

VOCABULARY = 11
WIDTH = 4
CLASSES = 3


class TinyModel(tf_keras.Model):
    """Mean of word embeddings -> dropout -> head; parts head and embedding."""

    def __init__(self, dropout=0.0, seed=0):
        super().__init__()
        random = np.random.default_rng(seed)
        self.table = tf_keras.layers.Embedding(VOCABULARY, WIDTH)
        self.table.build(None)
        self.table.set_weights([random.normal(size=(VOCABULARY, WIDTH))])
        self.head = tf_keras.layers.Dense(CLASSES)
        self.head.build((None, WIDTH))
        self.head.set_weights([random.normal(size=(WIDTH, CLASSES)), np.zeros(CLASSES)])
        self.dropout = StatelessDropout(dropout, salt=1)
        self.parts = {"head": [self.head], "embedding": [self.table]}
        self.available = {"logits": None, "representation": None}
        self.config = {"model_type": "tiny"}

    def named_variables(self):
        return {
            "embedding": self.table.embeddings,
            "kernel": self.head.kernel,
            "bias": self.head.bias,
        }

    def call(self, features, training=False, request=None, seed=None):
        mask = tf.cast(features["input_mask"], tf.float32)[..., tf.newaxis]
        embedded = self.table(features["input_ids"]) * mask
        mean = tf.math.divide_no_nan(tf.reduce_sum(embedded, 1), tf.reduce_sum(mask, 1))
        given = {"representation": mean}
        if "logits" in (request or {"logits": None}):
            given["logits"] = self.head(self.dropout(mean, training=training, seed=seed))
        return {key: given[key] for key in (request or {"logits": None})}


class ArrayData:
    """`StageData` over random rows; the last batch of an epoch is short on purpose."""

    def __init__(self, rows=22, batch_size=8, length=5, seed=0):
        random = np.random.default_rng(seed)
        lengths = random.integers(1, length + 1, size=rows)
        mask = (np.arange(length) < lengths[:, None]).astype(np.int32)
        self.features = {
            "id": np.array([b"r:%d" % i for i in range(rows)]),
            "input_ids": random.integers(1, VOCABULARY, size=(rows, length)).astype(np.int32)
            * mask,
            "input_mask": mask,
            "label_ids": random.integers(0, CLASSES, size=rows).astype(np.int32),
            "label_weights": (random.random(rows) > 0.2).astype(np.float32),
            "teacher/logits": random.normal(size=(rows, CLASSES)).astype(np.float32),
            "teacher/representation": random.normal(size=(rows, WIDTH)).astype(np.float32),
        }
        self._rows = rows
        self._batch_size = batch_size
        self.steps_per_epoch = -(-rows // batch_size)

    def batch(self, step):
        epoch, index = divmod(step, self.steps_per_epoch)
        order = np.random.default_rng(epoch).permutation(self._rows)
        return order[index * self._batch_size : (index + 1) * self._batch_size]

    def dataset(self, first_step, last_step, num_replicas, accumulation, worker=(0, 1)):
        pieces = num_replicas * accumulation
        size = -(-self._batch_size // pieces)

        def slices():
            for step in range(first_step, last_step):
                rows = self.batch(step)
                for piece in range(pieces):
                    chosen = rows[piece * size : (piece + 1) * size]
                    weights = np.zeros(size, np.float32)
                    weights[: len(chosen)] = 1
                    chosen = np.concatenate([chosen, np.repeat(rows[:1], size - len(chosen))])
                    yield {k: v[chosen] for k, v in self.features.items()} | {
                        "example_weights": weights
                    }

        example = next(iter(self._slices_of(slices)))
        signature = {
            k: tf.TensorSpec([None, *v.shape[1:]], tf.as_dtype(v.dtype) if k != "id" else tf.string)
            for k, v in example.items()
        }
        return tf.data.Dataset.from_generator(slices, output_signature=signature)

    def _slices_of(self, slices):
        return slices()


@functools.cache
def two_replicas():
    """A MirroredStrategy over two logical CPU devices.

    One a process: every strategy counts its collectives from the same number, and those of two
    strategies would meet.
    """
    if len(tf.config.list_logical_devices("CPU")) < 2:
        raise RuntimeError("tests/conftest.py makes two logical CPU devices; it has not run.")
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
