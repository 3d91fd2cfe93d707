"""Building blocks of the transformer encoder, written for speed on CPU.

Weights are float32 and created by the constructors; each use casts them once
to the compute type of the layer's policy, unless the model is only run
(`only_run`). Blocks take `[batch * tokens, width]`
matrices where they can: one large matrix product beats many small ones.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf
import tf_keras

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


class Layer(tf_keras.layers.Layer):
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


class Dense(Layer):
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


class LayerNorm(Layer):
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
