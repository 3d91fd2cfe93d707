"""Imports TensorFlow without its greetings; binaries that need it import this first.

Those that only read and write text and records do not: they start in a fraction of the time.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

# Before TensorFlow is imported; what it has to say reaches the user as a Python exception.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@contextlib.contextmanager
def _silent_stderr() -> Iterator[None]:
    """Discards what is written to file descriptor 2, by C++ code too."""
    sys.stderr.flush()
    saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)


# TensorFlow greets from C++ before its log level counts.
with _silent_stderr():
    import tensorflow as tf

tf.get_logger().setLevel("ERROR")
