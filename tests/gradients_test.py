"""Custom gradients keep no model in memory."""

import gc
import weakref

import pytest
import tensorflow as tf

from xdistil_tf import gradients


def traced():
    """A compiled gradient through a function with one of its own, and a variable that it reads."""
    variable = tf.Variable(3.0)

    @tf.custom_gradient
    def square(value):
        return value * value, lambda upstream: upstream * 2.0 * value

    @tf.function
    def gradient():
        with tf.GradientTape() as tape:
            result = square(variable)
        return tape.gradient(result, variable)

    assert float(gradient()) == 6.0
    return gradient, variable


def graph_of(gradient):
    """The graph holds what it reads: weights, and all that they were made of."""
    return weakref.ref(gradient.get_concrete_function().graph)


def test_what_was_traced_inside_is_freed():
    with gradients.released():
        graph = graph_of(traced()[0])
    gc.collect()
    assert graph() is None


def test_it_is_tensorflow_that_would_keep_it():
    graph = graph_of(traced()[0])
    gc.collect()
    assert graph() is not None, "TensorFlow frees it itself: gradients.py is no longer needed."


def test_what_was_traced_inside_goes_on_working():
    with gradients.released():
        gradient, variable = traced()
    variable.assign(5.0)
    assert float(gradient()) == 10.0


def test_gradients_of_before_stay_and_errors_pass():
    @tf.custom_gradient
    def double(value):
        return 2.0 * value, lambda upstream: 2.0 * upstream

    forward = tf.function(double).get_concrete_function(tf.TensorSpec([], tf.float32))
    with pytest.raises(ValueError, match="stopped"), gradients.released():
        traced()
        raise ValueError("stopped")
    value = tf.constant(1.0)
    with tf.GradientTape() as tape:
        tape.watch(value)
        result = forward(value)
    assert float(tape.gradient(result, value)) == 2.0
