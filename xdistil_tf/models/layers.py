"""Building blocks of the transformer encoder, written for speed on CPU.

Weights are float32 and created by the constructors; each use casts them once
to the compute type of the layer's policy, unless the model is only run
(`only_run`). Blocks take `[batch * tokens, width]`
matrices where they can: one large matrix product beats many small ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import tensorflow as tf
import tf_keras

from xdistil_tf import crf
from xdistil_tf.models import kernels

POLICIES = {
    "float32": "float32",
    "bfloat16": "mixed_bfloat16",
    "mixed_float16": "mixed_float16",
}


def policy(precision: str) -> tf_keras.mixed_precision.Policy:
    """The Keras policy of a precision; variables are float32 in all of them.

    Raises:
      ValueError: If the precision is unknown.
    """
    if precision not in POLICIES:
        raise ValueError(
            f"Unknown precision. Expected one of {list(POLICIES)}. Received: {precision!r}."
        )
    return tf_keras.mixed_precision.Policy(POLICIES[precision])


def activation(name: str) -> Callable[[tf.Tensor], tf.Tensor]:
    """The activation function of a Hugging Face config's `hidden_act`.

    Raises:
      ValueError: If the name is unknown.
    """
    if name not in _ACTIVATIONS:
        raise ValueError(
            f"Unknown activation. Expected one of {sorted(_ACTIVATIONS)}. Received: {name!r}."
        )
    return _ACTIVATIONS[name]


class _Layer(tf_keras.layers.Layer):
    """A layer whose float32 variables exist from construction on, under stable full names."""

    def __init__(self, name: str, dtype):
        super().__init__(name=name.replace("/", "_"), dtype=dtype, autocast=False)
        self.path = name
        self.built = True

    def _weight(self, name: str, shape: tuple[int, ...], initial: str = "zeros") -> tf.Variable:
        return self.add_weight(
            name=f"{self.path}/{name}",
            shape=shape,
            initializer=initial,
            dtype="float32",
            experimental_autocast=False,
        )


class StatelessDropout(tf_keras.layers.Layer):
    """Dropout that is a pure function of its seed.

    Args:
      rate: Share of values set to 0, in [0, 1). The others are divided by `1 - rate`.
      salt: Integer that sets this layer's mask apart from those of the other layers.
    """

    def __init__(self, rate: float, salt: int, name: str | None = None, dtype=None):
        super().__init__(name=name, dtype=dtype, autocast=False)
        if not 0 <= rate < 1:
            raise ValueError(f"Invalid dropout rate. Expected 0 <= rate < 1. Received: {rate}.")
        self.rate = rate
        self.salt = salt

    def call(self, inputs: tf.Tensor, training: bool = False, seed: tf.Tensor | None = None):
        """Returns `inputs` itself unless `training` and `rate` > 0.

        Args:
          inputs: Any float tensor.
          training: Python boolean.
          seed: int32 `[2]`; needed when values are dropped.

        Raises:
          ValueError: If a seed is needed and missing.
        """
        if not training or self.rate == 0:
            return inputs
        bits = self.bits(tf.shape(inputs), seed)
        return inputs * kernels.dropout_scale(bits, self.rate, inputs.dtype)

    def bits(self, shape: tf.Tensor, seed: tf.Tensor | None) -> tf.Tensor:
        """What `kernels.dropout_scale` makes this layer's mask of, int16 of a shape.

        Raises:
          ValueError: If there is no seed.
        """
        if seed is None:
            raise ValueError("Missing argument `seed`. Expected int32 [2] when training.")
        seed = tf.random.experimental.stateless_fold_in(seed, self.salt)
        return kernels.dropout_bits(shape, seed)


class Dense(_Layer):
    """`activation(inputs @ kernel + bias)` of a matrix `[rows, input_dim]`."""

    def __init__(
        self,
        input_dim: int,
        units: int,
        act: str | None = None,
        *,
        bias: bool = True,
        name: str,
        dtype=None,
    ):
        super().__init__(name, dtype)
        self.kernel = self._weight("kernel", (input_dim, units))
        self.bias = self._weight("bias", (units,)) if bias else None
        self.activation = activation(act) if act else None

    def call(
        self, inputs: tf.Tensor, training: bool = False, columns: slice | None = None
    ) -> tf.Tensor:
        """`columns` computes some of the units only."""
        inputs = tf.cast(inputs, self.compute_dtype)
        kernel = tf.cast(self.kernel, self.compute_dtype)
        if columns is not None:
            kernel = kernel[:, columns]
        outputs = tf.matmul(inputs, kernel)
        if self.bias is not None:
            bias = tf.cast(self.bias, self.compute_dtype)
            outputs = tf.nn.bias_add(outputs, bias if columns is None else bias[columns])
        if training and self.activation is tf.nn.gelu:
            return kernels.gelu(outputs)
        return self.activation(outputs) if self.activation else outputs

    def keep_cast(self) -> None:
        """Keeps the kernel in the compute type."""
        if self.compute_dtype != self.kernel.dtype.name:
            cast = tf.cast(self.kernel, self.compute_dtype)
            self.kernel = tf.Variable(cast, trainable=False, name=f"{self.path}/kernel")


def only_run(model: tf.Module) -> tf.Module:
    """The model itself, its kernels kept in its compute type: no pass has to cast them.

    Outputs stay the same bit for bit. It can be neither trained nor saved any more.
    """
    for layer in model.submodules:
        if isinstance(layer, Dense):
            layer.keep_cast()
    return model


class LayerNorm(_Layer):
    """Layer normalisation of the last axis; its mean and variance are taken in float32."""

    def __init__(self, width: int, epsilon: float, *, name: str, dtype=None):
        super().__init__(name, dtype)
        self.gamma = self._weight("gamma", (width,), "ones")
        self.beta = self._weight("beta", (width,))
        self.epsilon = epsilon

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        gamma, beta = tf.convert_to_tensor(self.gamma), tf.convert_to_tensor(self.beta)
        return tf.cast(kernels.normalise(inputs, gamma, beta, self.epsilon), self.compute_dtype)

    def residual(
        self, inputs: tf.Tensor, residual: tf.Tensor, dropout: StatelessDropout, training, seed
    ) -> tf.Tensor:
        """Normalises `dropout(inputs) + residual`, matrices of the compute type."""
        if not training or not dropout.rate:
            return self(inputs + residual)
        bits = dropout.bits(tf.shape(inputs), seed)
        gamma, beta = tf.convert_to_tensor(self.gamma), tf.convert_to_tensor(self.beta)
        return kernels.dropped_residual_norm(
            inputs, residual, bits, dropout.rate, gamma, beta, self.epsilon
        )


class Crf(_Layer):
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


class EncoderEmbedding(_Layer):
    """Sum of word, position and segment vectors, normalised, and projected where widths differ.

    Position `t` reads row `position_offset + t`. Computes in float32, so that the word table
    is never cast as a whole; the result is in the compute type of the encoder.
    """

    def __init__(
        self,
        *,
        vocab_size: int,
        max_positions: int,
        type_vocab_size: int,
        embedding_size: int,
        hidden_size: int,
        position_offset: int,
        epsilon: float,
        dropout: float,
        name: str = "embedding",
        dtype=None,
    ):
        super().__init__(name, dtype)
        self.word = self._weight("word", (vocab_size, embedding_size))
        self.position = self._weight("position", (max_positions, embedding_size))
        self.segment = None
        if type_vocab_size:
            self.segment = self._weight("segment", (type_vocab_size, embedding_size))
        self.position_offset = position_offset
        self.layer_norm = LayerNorm(
            embedding_size, epsilon, name=f"{name}/layer_norm", dtype="float32"
        )
        self.dropout = StatelessDropout(dropout, salt=0)
        self.projection = None
        if embedding_size != hidden_size:
            self.projection = Dense(
                embedding_size, hidden_size, name=f"{name}/projection", dtype="float32"
            )

    def call(self, input_ids, segment_ids=None, training=False, seed=None) -> tf.Tensor:
        """Returns `[batch, tokens, hidden_size]` of int32 `[batch, tokens]` ids."""
        batch, length = tf.shape(input_ids)[0], tf.shape(input_ids)[1]
        limit = self.position.shape[0] - self.position_offset
        if input_ids.shape[1] is not None and input_ids.shape[1] > limit:
            raise ValueError(
                f"Invalid length of `input_ids`. Expected at most {limit} tokens. "
                f"Received: {input_ids.shape[1]}. Use a smaller max_seq_length."
            )
        vectors = tf.slice(self.position, [self.position_offset, 0], [length, -1])
        if self.segment is not None and (segment_ids is None or self.segment.shape[0] == 1):
            vectors = vectors + self.segment[0]
            segment_ids = None
        vectors = tf.gather(self.word, input_ids) + vectors
        if self.segment is not None and segment_ids is not None:
            # A product with one-hot rows: its gradient is a product too, not a scatter.
            one_hot = tf.one_hot(tf.reshape(segment_ids, [-1]), self.segment.shape[0])
            vectors += tf.reshape(tf.matmul(one_hot, self.segment), tf.shape(vectors))
        vectors = self.dropout(self.layer_norm(vectors), training, seed)
        if self.projection is not None:
            flat = tf.reshape(vectors, [-1, self.word.shape[1]])
            flat = self.projection(flat)
            vectors = tf.reshape(flat, [batch, length, flat.shape[1]])
        return tf.cast(vectors, self.compute_dtype)


class EncoderLayer(_Layer):
    """One post-norm transformer block (Vaswani et al., 2017), queries, keys and values fused."""

    def __init__(
        self,
        *,
        index: int,
        hidden_size: int,
        num_heads: int,
        intermediate_size: int,
        act: str,
        epsilon: float,
        attention_dropout: float,
        attention_output_dropout: float,
        hidden_dropout: float,
        dtype=None,
    ):
        name = f"layer_{index}"
        super().__init__(name, dtype)
        self.index = index
        self.num_heads = num_heads
        self.head_size = hidden_size // num_heads
        self.hidden_size = hidden_size

        def dense(input_dim, units, path, act=None):
            return Dense(input_dim, units, act, name=f"{name}/{path}", dtype=dtype)

        def norm(path):
            return LayerNorm(hidden_size, epsilon, name=f"{name}/{path}", dtype=dtype)

        self.qkv = dense(hidden_size, 3 * hidden_size, "attention/qkv")
        self.attention_output = dense(hidden_size, hidden_size, "attention/output")
        self.attention_norm = norm("attention/layer_norm")
        self.intermediate = dense(hidden_size, intermediate_size, "ffn/intermediate", act)
        self.output_dense = dense(intermediate_size, hidden_size, "ffn/output")
        self.output_norm = norm("ffn/layer_norm")
        self.attention_dropout = StatelessDropout(attention_dropout, salt=10 * index + 1)
        self.attention_output_dropout = StatelessDropout(
            attention_output_dropout, salt=10 * index + 2
        )
        self.hidden_dropout = StatelessDropout(hidden_dropout, salt=10 * index + 3)

    def call(self, hidden, mask_adder, shape, training=False, seed=None, first_only=False):
        """One block.

        Args:
          hidden: `[batch * tokens, hidden_size]`.
          mask_adder: `[batch, 1, 1, tokens]`, 0 at keys that count, very negative elsewhere.
          shape: The pair (batch, tokens).
          training: Python boolean.
          seed: int32 `[2]`.
          first_only: Whether to compute position 0 alone; all others remain its keys.

        Returns:
          The new `hidden`, `[batch, hidden_size]` with `first_only`, and a dict with `attention`
          (raw scores `[batch, heads, from, to]`) and `query`, `key`, `value`, each
          `[batch * tokens, hidden_size]`.
        """
        batch, tokens = shape
        width, queries = self.hidden_size, tokens
        if first_only:
            key, value = tf.split(self.qkv(hidden, columns=slice(width, None)), 2, axis=1)
            hidden, queries = tf.reshape(hidden, [batch, tokens, width])[:, 0], 1
            query = self.qkv(hidden, columns=slice(0, width))
        else:
            query, key, value = tf.split(self.qkv(hidden), 3, axis=1)
        scale = tf.constant(1 / math.sqrt(self.head_size), hidden.dtype)
        keys = self._split_heads(key, batch, tokens)
        scores = tf.matmul(self._split_heads(query * scale, batch, queries), keys, transpose_b=True)
        probabilities = self._probabilities(scores, mask_adder, training, seed)
        context = tf.matmul(probabilities, self._split_heads(value, batch, tokens))
        context = tf.reshape(tf.transpose(context, [0, 2, 1, 3]), [-1, width])
        context = self.attention_output(context)
        dropout = self.attention_output_dropout
        middle = self.attention_norm.residual(context, hidden, dropout, training, seed)
        outputs = self.output_dense(self.intermediate(middle, training))
        outputs = self.output_norm.residual(outputs, middle, self.hidden_dropout, training, seed)
        return outputs, {"attention": scores, "query": query, "key": key, "value": value}

    def _probabilities(self, scores, mask_adder, training: bool, seed) -> tf.Tensor:
        rate = self.attention_dropout.rate
        if not training or not rate:
            return tf.nn.softmax(scores + mask_adder)
        bits = self.attention_dropout.bits(tf.shape(scores), seed)
        return kernels.dropped_softmax(scores, mask_adder, bits, rate)

    def _split_heads(self, matrix: tf.Tensor, batch, tokens) -> tf.Tensor:
        matrix = tf.reshape(matrix, [batch, tokens, self.num_heads, self.head_size])
        return tf.transpose(matrix, [0, 2, 1, 3])  # [batch, heads, tokens, head_size]


class MaskedLmHead(_Layer):
    """Scores of every word at the masked slots; the decoder is the word table, transposed."""

    def __init__(
        self,
        *,
        hidden_size: int,
        embedding_size: int,
        vocab_size: int,
        act: str,
        epsilon: float,
        name: str = "masked_lm",
        dtype=None,
    ):
        super().__init__(name, dtype)
        self.transform = Dense(
            hidden_size, embedding_size, act, name=f"{name}/transform", dtype=dtype
        )
        self.layer_norm = LayerNorm(embedding_size, epsilon, name=f"{name}/layer_norm", dtype=dtype)
        self.bias = self._weight("bias", (vocab_size,))

    def call(self, vectors: tf.Tensor, word_table: tf.Variable) -> tf.Tensor:
        """Returns float32 `[slots, vocabulary]` of `[slots, hidden_size]`."""
        vectors = self.layer_norm(self.transform(vectors))
        table = tf.cast(word_table, self.compute_dtype)
        scores = tf.matmul(vectors, table, transpose_b=True)
        return tf.nn.bias_add(tf.cast(scores, tf.float32), self.bias)


def _tanh_gelu(inputs: tf.Tensor) -> tf.Tensor:
    return tf.nn.gelu(inputs, approximate=True)


_ACTIVATIONS = {
    "gelu": tf.nn.gelu,
    "gelu_python": tf.nn.gelu,
    "gelu_new": _tanh_gelu,
    "gelu_fast": _tanh_gelu,
    "gelu_pytorch_tanh": _tanh_gelu,
    "relu": tf.nn.relu,
    "silu": tf.nn.silu,
    "swish": tf.nn.silu,
    "tanh": tf.math.tanh,
}
