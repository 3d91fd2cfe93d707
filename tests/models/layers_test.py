"""Blocks of the encoder against numpy: values, gradients and the statistics of dropout."""

import math

import numpy as np
import pytest
import tensorflow as tf

from xdistil_tf.models import encoder_layers, layers

SEED = tf.constant([1, 2])


def filled(layer, seed=0):
    rng = np.random.default_rng(seed)
    for variable in layer.variables:
        variable.assign(rng.normal(size=variable.shape))
    return layer


def gelu(x):
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def test_dropout_keeps_the_mean_and_drops_the_rate():
    values = layers.StatelessDropout(0.1, salt=1)(tf.ones([300, 301]), True, SEED).numpy()
    assert abs((values == 0).mean() - 0.1) < 0.003
    assert abs(values.mean() - 1) < 0.004
    kept = values[values != 0]
    np.testing.assert_allclose(kept, 1 / 0.9, rtol=1e-4)


def test_dropout_is_a_function_of_seed_and_salt():
    ones = tf.ones([50, 7])

    def mask(salt, seed):
        return layers.StatelessDropout(0.5, salt)(ones, True, seed).numpy()

    np.testing.assert_array_equal(mask(1, SEED), mask(1, SEED))
    assert (mask(1, SEED) != mask(2, SEED)).mean() > 0.3
    assert (mask(1, SEED) != mask(1, SEED + 1)).mean() > 0.3
    in_graph = tf.function(lambda seed: layers.StatelessDropout(0.5, 1)(ones, True, seed))
    np.testing.assert_array_equal(mask(1, SEED), in_graph(SEED))


def test_dropout_drops_where_its_gradient_does():
    values = tf.Variable(tf.ones([40]))
    with tf.GradientTape() as tape:
        outputs = layers.StatelessDropout(0.4, 3)(values, True, SEED)
    np.testing.assert_array_equal(tape.gradient(outputs, values), outputs)


def test_dropout_without_effect_returns_its_input():
    ones = tf.ones([3])
    assert layers.StatelessDropout(0.0, 1)(ones, True) is ones
    assert layers.StatelessDropout(0.5, 1)(ones, False) is ones


def test_dropout_refuses_a_wrong_rate_and_a_missing_seed():
    with pytest.raises(ValueError, match="rate.*1.5"):
        layers.StatelessDropout(1.5, 1)
    with pytest.raises(ValueError, match="seed"):
        layers.StatelessDropout(0.5, 1)(tf.ones([3]), True)


@pytest.mark.parametrize("shape", [(5, 8), (2, 3, 8)])
def test_layer_norm_equals_numpy(shape):
    layer = filled(layers.LayerNorm(8, 1e-5, name="norm"))
    inputs = np.random.default_rng(1).normal(2, 3, shape).astype(np.float32)
    normal = (inputs - inputs.mean(-1, keepdims=True)) / np.sqrt(
        inputs.var(-1, keepdims=True) + 1e-5
    )
    wanted = normal * layer.gamma.numpy() + layer.beta.numpy()
    np.testing.assert_allclose(layer(inputs), wanted, atol=1e-5)


def test_layer_norm_has_the_derived_gradient():
    layer = filled(layers.LayerNorm(6, 1e-6, name="norm"))
    inputs = tf.Variable(np.random.default_rng(1).normal(size=(4, 6)), dtype=tf.float32)
    watched = [inputs, layer.gamma, layer.beta]

    def plain():
        mean, variance = tf.nn.moments(tf.convert_to_tensor(inputs), [-1], keepdims=True)
        return tf.nn.batch_normalization(inputs, mean, variance, layer.beta, layer.gamma, 1e-6)

    gradients = []
    for function in (lambda: layer(tf.convert_to_tensor(inputs)), plain):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.sin(function()))
        gradients.append(tape.gradient(loss, watched))
    for ours, derived in zip(*gradients, strict=True):
        np.testing.assert_allclose(ours, derived, atol=1e-5)


@pytest.mark.parametrize("training", [False, True])
def test_dense_with_gelu_and_its_gradient(training):
    layer = filled(layers.Dense(3, 4, "gelu", name="dense"))
    inputs = np.random.default_rng(2).normal(size=(5, 3)).astype(np.float32)
    middle = inputs @ layer.kernel.numpy() + layer.bias.numpy()
    with tf.GradientTape() as tape:
        outputs = layer(inputs, training)
    np.testing.assert_allclose(outputs, gelu(middle), atol=1e-5)
    slope = (gelu(middle + 1e-3) - gelu(middle - 1e-3)) / 2e-3
    np.testing.assert_allclose(tape.gradient(outputs, layer.bias), slope.sum(0), atol=1e-3)


def test_dense_of_some_columns():
    layer = filled(layers.Dense(3, 6, name="dense"))
    inputs = tf.ones([2, 3])
    whole = layer(inputs).numpy()
    np.testing.assert_allclose(layer(inputs, columns=slice(2, 5)), whole[:, 2:5], rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("gelu", gelu),
        ("gelu_new", lambda x: 0.5 * x * (1 + np.tanh(0.7978845608 * (x + 0.044715 * x**3)))),
        ("relu", lambda x: np.maximum(x, 0)),
        ("silu", lambda x: x / (1 + np.exp(-x))),
    ],
)
def test_activations(name, function):
    x = np.linspace(-4, 4, 33, dtype=np.float32)
    np.testing.assert_allclose(layers.activation(name)(tf.constant(x)), function(x), atol=1e-5)


def test_position_0_alone_equals_position_0_of_all():
    block = encoder_layers.EncoderLayer(
        index=1, hidden_size=8, num_heads=2, intermediate_size=12, act="gelu", epsilon=1e-5,
        attention_dropout=0.0, attention_output_dropout=0.0, hidden_dropout=0.0,
    )  # fmt: skip
    for layer in (block.qkv, block.attention_output, block.intermediate, block.output_dense):
        filled(layer)
    hidden = tf.constant(np.random.default_rng(4).normal(size=(6, 8)), tf.float32)
    mask = tf.constant([[[[0.0, 0.0, -1e9]]], [[[0.0, 0.0, 0.0]]]])
    whole, _ = block(hidden, mask, (2, 3))
    first, extras = block(hidden, mask, (2, 3), first_only=True)
    np.testing.assert_allclose(first, whole.numpy().reshape(2, 3, 8)[:, 0], atol=1e-5)
    assert extras["attention"].shape == (2, 2, 1, 3)


def test_embedding_adds_word_position_and_segment():
    layer = encoder_layers.EncoderEmbedding(
        vocab_size=9, max_positions=8, type_vocab_size=2, embedding_size=4, hidden_size=4,
        position_offset=2, epsilon=1e-12, dropout=0.0,
    )  # fmt: skip
    filled(layer)
    layer.layer_norm.gamma.assign(tf.ones([4]))
    layer.layer_norm.beta.assign(tf.zeros([4]))
    ids, segments = tf.constant([[3, 8, 1]]), tf.constant([[0, 1, 1]])
    word, position, segment = (v.numpy() for v in (layer.word, layer.position, layer.segment))
    total = word[[3, 8, 1]] + position[2:5] + segment[[0, 1, 1]]
    wanted = (total - total.mean(-1, keepdims=True)) / total.std(-1, keepdims=True)
    np.testing.assert_allclose(layer(ids, segments)[0], wanted, atol=1e-5)
    np.testing.assert_allclose(layer(ids), layer(ids, tf.zeros_like(ids)), atol=1e-6)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="precision.*'float8'"):
        layers.policy("float8")
    with pytest.raises(ValueError, match="activation.*'mish'"):
        layers.activation("mish")
