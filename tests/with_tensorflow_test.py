"""Binaries that read and write text start without TensorFlow; all others quietly with it."""

import subprocess
import sys

import pytest

LOADED = "import sys; import xdistil_tf.bin.{}; sys.exit('tensorflow' in sys.modules)"


@pytest.mark.parametrize(
    "verb, needs_tensorflow",
    [("prepare_wikipedia", 0), ("create_pretraining_data", 0), ("train", 1)],
)
def test_only_what_computes_imports_tensorflow(verb, needs_tensorflow):
    done = subprocess.run([sys.executable, "-c", LOADED.format(verb)], capture_output=True)
    assert done.returncode == needs_tensorflow
    assert done.stderr == b""
