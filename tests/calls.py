"""Calls a binary in this process (a pytest plugin).

pytest_plugins = ["tests.calls"]    # in a test module
def test_something(call): assert call("train", "--recipe=...") == (1, "error: ...")
"""

import importlib
import sys

import pytest
from absl import app, flags


@pytest.fixture
def call(monkeypatch, capsys):
    """`call("train", "--recipe=...")` -> (exit code, the one line), in this process."""
    app.define_help_flags()
    known = set(flags.FLAGS)

    def run(verb, *arguments):
        binary = importlib.import_module(f"xdistil_tf.bin.{verb}")
        monkeypatch.setattr(sys, "argv", [f"{verb}.py", *map(str, arguments)])
        capsys.readouterr()
        try:
            with pytest.raises(SystemExit) as left:
                binary.run()
        finally:
            for name in set(flags.FLAGS) - known:
                delattr(flags.FLAGS, name)
            flags.FLAGS.unparse_flags()
        text, run.output = capsys.readouterr()[::-1]
        lines = [line for line in text.splitlines() if line.startswith("error: ")]
        code = left.value.code or 0
        assert "Traceback" not in text
        assert len(lines) == (code != 0), text
        return code, lines[0] if lines else ""

    return run
