"""Chains of small operations of a training step, each with few passes over memory.

On a CPU much of an update's time, the greater part where products are fast, goes by between its
matrix products: every operation of a chain reads and writes a whole activation. Here a chain is one
function forwards and one backwards, computed in float32 whatever the type of its tensors. Where a
tensor is large, XLA compiles the function into few loops; it does so again for each new shape, so
small tensors, whose shapes are many in fine-tuning, take the same function uncompiled.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import tensorflow as tf

# Elements from which compiling a new shape, 50 to 200 ms, is won back within some tens of updates.
COMPILED_SIZE = 1 << 20

_SQRT_HALF = math.sqrt(0.5)
_INVERSE_SQRT_2_PI = 1 / math.sqrt(2 * math.pi)


@tf.custom_gradient
def gelu(inputs: tf.Tensor):
    """The exact GELU; keeps its input only, and computes its error function again for gradients.

    oneDNN fuses `tf.nn.gelu` into the product before it, but not where a gradient needs its input.
    """

    def gradient(upstream):
        (result,) = _run(_gelu_gradient, inputs, upstream)
        return result

    (outputs,) = _run(_gelu, inputs)
    return outputs, gradient


def dropped_softmax(
    scores: tf.Tensor, mask_adder: tf.Tensor, bits: tf.Tensor, rate: float
) -> tf.Tensor:
    """Attention probabilities after dropout.

    Args:
      scores: `[batch, heads, from, to]`.
      mask_adder: `[batch, 1, 1, to]`, added to the scores; it gets no gradient.
      bits: `dropout_bits` of the shape of `scores`.
      rate: Share of the probabilities that are set to 0.
    """

    @tf.custom_gradient
    def dropped(scores):
        kept, probabilities = _run(_softmax, scores, mask_adder, bits, rate)

        def gradient(upstream):
            (result,) = _run(_softmax_gradient, upstream, probabilities, bits, rate)
            return result

        return kept, gradient

    return dropped(scores)


def dropped_residual_norm(
    inputs: tf.Tensor,
    residual: tf.Tensor,
    bits: tf.Tensor,
    rate: float,
    gamma: tf.Tensor,
    beta: tf.Tensor,
    epsilon: float,
) -> tf.Tensor:
    """Layer normalisation of `dropout(inputs) + residual`, matrices `[rows, width]`.

    Args:
      inputs: What is dropped out.
      residual: What is added to it.
      bits: `dropout_bits` of the shape of `inputs`.
      rate: Share of `inputs` that is set to 0.
      gamma: Scale `[width]`.
      beta: Offset `[width]`.
      epsilon: Added to the variance.
    """

    @tf.custom_gradient
    def normalised(inputs, residual, gamma, beta):
        tensors = (inputs, residual, bits, rate)
        (outputs,) = _run(_residual_norm, *tensors, gamma, beta, epsilon)

        def gradient(upstream):
            return _run(_residual_norm_gradient, *tensors, gamma, epsilon, upstream)

        return outputs, gradient

    return normalised(inputs, residual, gamma, beta)


def normalise(inputs: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, epsilon: float) -> tf.Tensor:
    """Layer normalisation of the last axis."""

    @tf.custom_gradient
    def normalised(inputs, gamma, beta):
        normal, inverse = _standardise(tf.cast(inputs, tf.float32), epsilon)

        def gradient(upstream):
            upstream = tf.cast(upstream, tf.float32)
            axes = list(range(upstream.shape.rank - 1))
            return (
                tf.cast(_norm_gradient(normal, inverse, upstream * gamma), inputs.dtype),
                tf.reduce_sum(upstream * normal, axes),
                tf.reduce_sum(upstream, axes),
            )

        return tf.cast(normal * gamma + beta, inputs.dtype), gradient

    return normalised(inputs, gamma, beta)


def dropout_bits(shape: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """int16 of a shape, all values equally likely; pure in `seed`.

    16 random bits a value, where `stateless_dropout` draws 32.
    """
    size = tf.reduce_prod(shape)
    bits = tf.random.stateless_uniform(
        [(size + 3) // 4], seed, minval=None, maxval=None, dtype=tf.uint64
    )
    return tf.reshape(tf.reshape(tf.bitcast(bits, tf.int16), [-1])[:size], shape)


def dropout_scale(bits: tf.Tensor, rate: float, dtype) -> tf.Tensor:
    """0 with probability `rate`, else the inverse of the share kept.

    A factor, since a product is several times as fast as a selection on CPU. The rate is exact to
    1 / 65536.
    """
    dropped = round(rate * 65536)
    keep = tf.cast(bits >= dropped - 32768, dtype)
    return keep * tf.cast(65536 / (65536 - dropped), dtype)


def _gelu(inputs):
    wide = tf.cast(inputs, tf.float32)
    return [tf.cast(wide * (0.5 * tf.math.erf(wide * _SQRT_HALF) + 0.5), inputs.dtype)]


def _gelu_gradient(inputs, upstream):
    wide = tf.cast(inputs, tf.float32)
    share = 0.5 * tf.math.erf(wide * _SQRT_HALF) + 0.5
    density = tf.exp(-0.5 * tf.square(wide)) * _INVERSE_SQRT_2_PI
    return [tf.cast(tf.cast(upstream, tf.float32) * (share + wide * density), inputs.dtype)]


def _softmax(scores, mask_adder, bits, rate):
    wide = tf.nn.softmax(tf.cast(scores, tf.float32) + tf.cast(mask_adder, tf.float32))
    kept = wide * dropout_scale(bits, rate, tf.float32)
    return [tf.cast(kept, scores.dtype), tf.cast(wide, scores.dtype)]


def _softmax_gradient(upstream, probabilities, bits, rate):
    wide = tf.cast(probabilities, tf.float32)
    scaled = tf.cast(upstream, tf.float32) * dropout_scale(bits, rate, tf.float32) * wide
    along = tf.reduce_sum(scaled, -1, keepdims=True)
    return [tf.cast(scaled - along * wide, probabilities.dtype)]


def _residual_norm(inputs, residual, bits, rate, gamma, beta, epsilon):
    normal, _ = _normal(inputs, residual, bits, rate, epsilon)
    return [tf.cast(normal * gamma + beta, inputs.dtype)]


def _residual_norm_gradient(inputs, residual, bits, rate, gamma, epsilon, upstream):
    """Gradients of inputs, residual, gamma and beta."""
    normal, inverse = _normal(inputs, residual, bits, rate, epsilon)
    upstream = tf.cast(upstream, tf.float32)
    scaled = _norm_gradient(normal, inverse, upstream * gamma)
    dropped = scaled * dropout_scale(bits, rate, tf.float32)
    sums = tf.reduce_sum(upstream * normal, 0), tf.reduce_sum(upstream, 0)
    return [tf.cast(dropped, inputs.dtype), tf.cast(scaled, inputs.dtype), *sums]


def _normal(inputs, residual, bits, rate, epsilon):
    """`dropout(inputs) + residual` with mean 0 and variance 1, and the factor that made it so."""
    wide = tf.cast(inputs, tf.float32) * dropout_scale(bits, rate, tf.float32)
    return _standardise(wide + tf.cast(residual, tf.float32), epsilon)


def _standardise(wide, epsilon):
    centred = wide - tf.reduce_mean(wide, -1, keepdims=True)
    variance = tf.reduce_mean(tf.square(centred), -1, keepdims=True)
    inverse = tf.math.rsqrt(variance + epsilon)
    return centred * inverse, inverse


def _norm_gradient(normal, inverse, scaled):
    along = tf.reduce_mean(scaled * normal, -1, keepdims=True)
    return inverse * (scaled - tf.reduce_mean(scaled, -1, keepdims=True) - normal * along)


_COMPILED = {
    function: tf.function(function, jit_compile=True, autograph=False)
    for function in (
        _gelu,
        _gelu_gradient,
        _softmax,
        _softmax_gradient,
        _residual_norm,
        _residual_norm_gradient,
    )
}


def _run(function: Callable, *arguments) -> Sequence[tf.Tensor]:
    """A chain, compiled if its first tensor has `COMPILED_SIZE` elements or more.

    On CPUs only: on a GPU the compiler may lack its libraries.
    """
    first = arguments[0]
    if tf.config.list_physical_devices("GPU"):
        return function(*arguments)
    known = first.shape.num_elements()
    if known is not None:
        return (_COMPILED[function] if known >= COMPILED_SIZE else function)(*arguments)
    return tf.cond(
        tf.size(first) >= COMPILED_SIZE,
        lambda: _COMPILED[function](*arguments),
        lambda: function(*arguments),
    )
