"""Fused chains of a training step: compiled and not, against TensorFlow's own operations."""

import numpy as np
import pytest
import tensorflow as tf

from xdistil_tf.models import kernels, layers
from xdistil_tf.models.encoder import Encoder
from xdistil_tf.models.encoder_presets import PRESETS
from xdistil_tf.strategies import make_strategy

SEED = tf.constant([3, 4])
RATE = 0.25


@pytest.fixture(params=["compiled", "plain"])
def way(request, monkeypatch):
    size = 0 if request.param == "compiled" else 1 << 60
    monkeypatch.setattr(kernels, "COMPILED_SIZE", size)
    return request.param


def random(*shape, seed=0):
    return tf.constant(np.random.default_rng(seed).normal(size=shape), tf.float32)


def values_and_gradients(function, *arguments):
    """Outputs and the gradients of a weighted sum of them."""
    with tf.GradientTape() as tape:
        tape.watch(arguments)
        outputs = function(*arguments)
        total = tf.reduce_sum(outputs * random(*outputs.shape, seed=9))
    return [outputs, *tape.gradient(total, arguments)]


def assert_same(function, expected, *arguments):
    pairs = zip(
        values_and_gradients(function, *arguments),
        values_and_gradients(expected, *arguments),
        strict=True,
    )
    for ours, theirs in pairs:
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_gelu_equals_that_of_tensorflow(way):
    assert_same(kernels.gelu, lambda x: tf.nn.gelu(x, approximate=False), 3 * random(6, 11))


def test_softmax_equals_softmax_then_dropout(way):
    mask = tf.constant([0.0, 0.0, -1e9, 0.0, 0.0])[None, None, None]
    bits = kernels.dropout_bits(tf.constant([2, 3, 4, 5]), SEED)

    def ours(scores):
        return kernels.dropped_softmax(scores, mask, bits, RATE)

    def theirs(scores):
        return tf.nn.softmax(scores + mask) * kernels.dropout_scale(bits, RATE, tf.float32)

    assert_same(ours, theirs, random(2, 3, 4, 5))


def test_residual_norm_equals_dropout_then_sum_then_norm(way):
    bits = kernels.dropout_bits(tf.constant([7, 5]), SEED)

    def ours(inputs, residual, gamma, beta):
        return kernels.dropped_residual_norm(inputs, residual, bits, RATE, gamma, beta, 1e-3)

    def theirs(inputs, residual, gamma, beta):
        total = inputs * kernels.dropout_scale(bits, RATE, tf.float32) + residual
        mean, variance = tf.nn.moments(total, [-1], keepdims=True)
        return tf.nn.batch_normalization(total, mean, variance, beta, gamma, 1e-3)

    assert_same(ours, theirs, random(7, 5), random(7, 5, seed=1), random(5), random(5, seed=2))


@pytest.mark.parametrize("rows", [None, 9, 2])
def test_only_large_tensors_are_compiled(monkeypatch, rows):
    monkeypatch.setattr(kernels, "COMPILED_SIZE", 40)
    # Stands for the compiled function, to be told from the other one.
    monkeypatch.setitem(kernels._COMPILED, kernels._gelu, lambda inputs: [tf.zeros_like(inputs)])
    function = tf.function(kernels.gelu, input_signature=[tf.TensorSpec([rows, 8])])
    for count in (2, 9) if rows is None else (rows,):
        inputs = random(count, 8)
        expected = tf.zeros_like(inputs) if count == 9 else tf.nn.gelu(inputs)
        np.testing.assert_allclose(function(inputs), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_an_encoder_trains_alike_compiled_and_not(monkeypatch, precision):
    config = PRESETS["2x128"] | {
        "vocab_size": 40,
        "head": {"kind": "classification", "num_labels": 2},
    }
    config |= {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
    model = Encoder.from_config_dict(config, precision, seed=1)
    features = {"input_ids": tf.constant([[2, 5, 7, 3], [2, 9, 3, 0]])}
    features["input_mask"] = tf.constant([[1, 1, 1, 1], [1, 1, 1, 0]])

    def gradients(size):
        monkeypatch.setattr(kernels, "COMPILED_SIZE", size)
        with tf.GradientTape() as tape:
            logits = model(features, training=True, seed=SEED)["logits"]
            total = tf.reduce_sum(logits * [[1.0, -2.0]])
        found = tape.gradient(total, model.trainable_variables)
        return [logits, *(one for one in found if one is not None)]

    tolerance = 1e-4 if precision == "float32" else 0.1
    for compiled, plain in zip(gradients(0), gradients(1 << 60), strict=True):
        compiled, plain = tf.convert_to_tensor(compiled), tf.convert_to_tensor(plain)
        scale = float(tf.reduce_max(tf.abs(plain))) + 1e-6
        np.testing.assert_allclose(compiled / scale, plain / scale, atol=tolerance)


def test_replicas_run_compiled_chains_side_by_side(monkeypatch):
    monkeypatch.setattr(kernels, "COMPILED_SIZE", 0)
    strategy = make_strategy("mirrored", num_replicas=2)
    inputs = random(6, 11)

    @tf.function
    def both():
        return strategy.run(lambda: values_and_gradients(kernels.gelu, inputs))

    for _ in range(3):
        for found in both():
            first, second = strategy.experimental_local_results(found)
            np.testing.assert_array_equal(first, second)
        np.testing.assert_allclose(
            strategy.experimental_local_results(both()[0])[1], tf.nn.gelu(inputs), atol=1e-5
        )


def test_an_encoder_without_dropout_draws_no_bits(monkeypatch):
    monkeypatch.delattr(kernels, "dropout_bits")
    layer = layers.LayerNorm(5, 1e-3, name="norm")
    dropout = layers.StatelessDropout(0.0, salt=1)
    inputs, residual = random(3, 5), random(3, 5, seed=1)
    ours = layer.residual(inputs, residual, dropout, True, None)
    np.testing.assert_array_equal(ours, layer(inputs + residual))
