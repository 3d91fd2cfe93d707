"""The LSTM against a loop in numpy and against Keras' own with a mask."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from tests import tiny
from xdistil_tf.models import layers
from xdistil_tf.models.lstm import BidirectionalLSTM

BATCH, STEPS, WIDTH, UNITS = 20, 9, 3, 4
# Without training fewer and fewer rows are computed; no row has all steps.
LENGTHS = np.array([7, 3, 1, 5, 6] + 10 * [2] + 5 * [4], np.int32)


@pytest.fixture(scope="module")
def lstm():
    layer = BidirectionalLSTM(WIDTH, UNITS, name="bilstm")
    random = np.random.default_rng(0)
    for variable in layer.variables:
        variable.assign(random.normal(size=variable.shape))
    return layer


@pytest.fixture(scope="module")
def inputs():
    return tf.constant(np.random.default_rng(1).normal(size=(BATCH, STEPS, WIDTH)), tf.float32)


@pytest.fixture(scope="module")
def targets():
    random = np.random.default_rng(2)
    states = random.normal(size=(BATCH, STEPS, 2 * UNITS)).astype(np.float32)
    return states, random.normal(size=(BATCH, 2 * UNITS)).astype(np.float32)


def sigmoid(values):
    return 1 / (1 + np.exp(-values))


def numpy_states(rows, kernel, recurrent, bias):
    """States of one direction over the rows of one sentence."""
    state = cell = np.zeros(len(recurrent))
    states = []
    for row in rows:
        first, forget, candidate, last = np.split(row @ kernel + state @ recurrent + bias, 4)
        cell = sigmoid(forget) * cell + sigmoid(first) * np.tanh(candidate)
        state = sigmoid(last) * np.tanh(cell)
        states.append(state)
    return np.array(states)


def numpy_bilstm(inputs, lengths, weights):
    states = np.zeros((len(inputs), inputs.shape[1], 2 * UNITS))
    final = np.zeros((len(inputs), 2 * UNITS))
    for index, length in enumerate(lengths):
        rows = inputs[index, :length]
        forward = numpy_states(rows, *weights[:3])
        backward = numpy_states(rows[::-1], *weights[3:])[::-1]
        states[index, :length] = np.concatenate([forward, backward], 1)
        final[index] = np.concatenate([forward[-1], backward[0]])
    return states, final


def outputs_and_gradients(call, variables, inputs, targets, with_states=True):
    """States (0 at padding), final states, and gradients of a weighted sum of both."""
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        states, final = call(inputs)
        loss = tf.reduce_sum(final * targets[1])
        if with_states:
            loss += tf.reduce_sum(states * targets[0])
    return states, final, tape.gradient(loss, [inputs, *variables])


def keras_call(lstm, lengths):
    keras = tf_keras.layers.LSTM(UNITS, return_sequences=True, return_state=True)
    keras = tf_keras.layers.Bidirectional(keras)
    keras.build((None, None, WIDTH))
    keras.set_weights([variable.numpy() for variable in lstm.variables])
    mask = tf.sequence_mask(lengths, STEPS)

    def call(inputs):
        states, forward, _, backward, _ = keras(inputs, mask=mask)
        states *= tf.cast(mask, tf.float32)[..., tf.newaxis]
        return states, tf.concat([forward, backward], 1)

    return call, keras.trainable_variables


def test_equals_a_plain_loop(lstm, inputs):
    weights = [variable.numpy().astype(np.float64) for variable in lstm.variables]
    expected = numpy_bilstm(inputs.numpy().astype(np.float64), LENGTHS, weights)
    for training in (False, True):
        states, final = lstm(inputs, LENGTHS, training=training)
        np.testing.assert_allclose(states, expected[0], atol=1e-5)
        np.testing.assert_allclose(final, expected[1], atol=1e-5)
        states, final = lstm(inputs, LENGTHS, return_states=False, training=training)
        assert states is None
        np.testing.assert_allclose(final, expected[1], atol=1e-5)


@pytest.mark.parametrize("with_states", [True, False])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("in_graph", [True, False])
def test_equals_keras_with_a_mask(lstm, inputs, targets, with_states, training, in_graph):
    call, variables = keras_call(lstm, LENGTHS)
    expected = outputs_and_gradients(call, variables, inputs, targets, with_states)

    def ours(inputs):
        return outputs_and_gradients(
            lambda x: lstm(x, LENGTHS, return_states=with_states, training=training),
            lstm.variables,
            inputs,
            targets,
            with_states,
        )

    if in_graph:
        ours = tf.function(ours, input_signature=[tf.TensorSpec([None, None, WIDTH])])
    states, final, gradients = ours(inputs)
    if with_states:
        np.testing.assert_allclose(states, expected[0], atol=1e-5)
    np.testing.assert_allclose(final, expected[1], atol=1e-5)
    for ours, theirs in zip(gradients, expected[2], strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_padding_never_reaches_a_state(lstm, inputs, targets, training):
    padding = ~tf.sequence_mask(LENGTHS, STEPS)[..., tf.newaxis]
    garbage = tf.where(padding, np.float32(np.nan), inputs)

    def call(inputs):
        return lstm(inputs, LENGTHS, training=training)

    clean = outputs_and_gradients(call, lstm.variables, inputs, targets)
    dirty = outputs_and_gradients(call, lstm.variables, garbage, targets)
    for one, other in zip(tf.nest.flatten(clean), tf.nest.flatten(dirty), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not np.any(tf.boolean_mask(clean[0], padding[..., 0]))
    assert not np.any(tf.boolean_mask(clean[2][0], padding[..., 0]))


def test_padded_equals_sliced(lstm, inputs):
    states, final = lstm(inputs, LENGTHS)
    for row, length in enumerate(LENGTHS):
        alone, end = lstm(inputs[row : row + 1, :length], LENGTHS[row : row + 1])
        np.testing.assert_allclose(states[row, :length], alone[0], atol=1e-6)
        np.testing.assert_allclose(final[row], end[0], atol=1e-6)


def test_a_row_without_tokens_is_zero(lstm, inputs, targets):
    lengths = np.where(np.arange(BATCH) == 1, 0, LENGTHS)
    for return_states, training in itertools.product((True, False), repeat=2):
        states, final, gradients = outputs_and_gradients(
            lambda x, s=return_states, t=training: lstm(x, lengths, return_states=s, training=t),
            lstm.variables,
            inputs,
            targets,
            with_states=False,
        )
        assert not np.any(final[1])
        assert not np.any(gradients[0][1])
        assert all(np.all(np.isfinite(gradient)) for gradient in gradients)


@pytest.mark.parametrize(
    "precision,dtype", [("bfloat16", "bfloat16"), ("mixed_float16", "float16")]
)
def test_lower_precision_stays_near(lstm, inputs, targets, precision, dtype):
    layer = BidirectionalLSTM(WIDTH, UNITS, name="bilstm", dtype=layers.policy(precision))
    for variable, source in zip(layer.variables, lstm.variables, strict=True):
        assert variable.dtype == tf.float32
        variable.assign(source)

    def call(inputs):
        states, final = layer(inputs, LENGTHS, training=True)
        assert states.dtype.name == final.dtype.name == dtype
        return tf.cast(states, tf.float32), tf.cast(final, tf.float32)

    near = outputs_and_gradients(call, layer.variables, inputs, targets)
    exact = outputs_and_gradients(lambda x: lstm(x, LENGTHS), lstm.variables, inputs, targets)
    for one, other in zip(tf.nest.flatten(near), tf.nest.flatten(exact), strict=True):
        assert one.dtype == tf.float32
        scale = np.abs(other).max()
        np.testing.assert_allclose(one, other, atol=0.05 * scale)


def test_initial_weights_follow_from_the_seed():
    def draw(seed):
        layer = BidirectionalLSTM(WIDTH, UNITS, name="bilstm")
        layer.initialise(seed)
        return [variable.numpy() for variable in layer.variables]

    one, same, other = draw(1), draw(1), draw(2)
    np.testing.assert_array_equal(np.concatenate([np.ravel(w) for w in one]),
                                  np.concatenate([np.ravel(w) for w in same]))  # fmt: skip
    assert not np.allclose(one[0], other[0])
    assert not np.allclose(one[0], one[3])
    kernel, recurrent, bias = one[:3]
    assert np.abs(kernel).max() <= np.sqrt(6 / (WIDTH + 4 * UNITS))
    np.testing.assert_allclose(recurrent @ recurrent.T, np.eye(UNITS), atol=1e-5)
    np.testing.assert_array_equal(bias.reshape(4, UNITS)[:, 0], [0, 1, 0, 0])
    np.testing.assert_array_equal(bias.reshape(4, UNITS)[:, 1:].T, [[0, 1, 0, 0]] * (UNITS - 1))


def test_trains_inside_a_device_loop_on_two_replicas(lstm, inputs):
    strategy = tiny.two_replicas()
    with strategy.scope():
        layer = BidirectionalLSTM(WIDTH, UNITS, name="bilstm")
        layer.initialise(3)

    def replica_step(lengths):
        with tf.GradientTape() as tape:
            _, final = layer(inputs, lengths, return_states=False, training=True)
            loss = tf.reduce_sum(final)
        gradients = tape.gradient(loss, layer.trainable_variables)
        context = tf.distribute.get_replica_context()
        gradients = context.all_reduce("sum", gradients)
        return [tf.reduce_sum(tf.abs(gradient)) for gradient in gradients]

    @tf.function
    def steps(lengths):
        totals = [tf.zeros([]) for _ in layer.trainable_variables]
        for _ in tf.range(2):
            sums = strategy.run(replica_step, args=(lengths,))
            sums = [strategy.experimental_local_results(one)[0] for one in sums]
            totals = [total + one for total, one in zip(totals, sums, strict=True)]
        return totals

    both = steps(tf.constant(LENGTHS))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(inputs, LENGTHS, return_states=False)[1])
    for total, gradient in zip(both, tape.gradient(loss, layer.trainable_variables), strict=True):
        np.testing.assert_allclose(total, 4 * np.abs(gradient).sum(), rtol=1e-4)
