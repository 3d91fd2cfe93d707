"""Lets go of what TensorFlow keeps of custom gradients."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

# No public name leads to the registry; tests/gradients_test.py fails where a version moves it.
from tensorflow.python.framework import ops

_NAME = "CustomGradient-"


@contextlib.contextmanager
def released() -> Iterator[None]:
    """Forgets at its end the custom gradients that graphs traced inside have registered.

    `tf.custom_gradient` registers a function for each of its calls in a graph, under a name of its
    own, until the process ends. That function holds the graph, and the graph the weights and the
    optimizer state that it reads: each model that was trained would stay in memory. What was
    traced inside can be called afterwards as before; it cannot be differentiated by a new graph.
    """
    registered = ops.gradient_registry._registry
    before = set(registered)
    try:
        yield
    finally:
        for name in set(registered) - before:
            if name.startswith(_NAME):
                del registered[name]
        gc.collect()  # Graphs and their functions refer to each other.
