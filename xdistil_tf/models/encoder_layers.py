"""The layers of an encoder: embeddings, a block, the head of a masked language model."""

from __future__ import annotations

import math

import tensorflow as tf

from xdistil_tf.models import kernels
from xdistil_tf.models.layers import Dense, Layer, LayerNorm, StatelessDropout


class EncoderEmbedding(Layer):
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


class EncoderLayer(Layer):
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


class MaskedLmHead(Layer):
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
