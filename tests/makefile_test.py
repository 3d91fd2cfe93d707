"""What `make` would do."""

import pathlib
import shlex
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(
    ("settings", "folder"),
    [
        ([], "runs/quickstart"),
        (["TASK_DIR=my/task", "TASK=rte"], "runs/quickstart_own"),
        (["TEACHER=bert-base-uncased"], "runs/quickstart_own"),
        (["TASK_DIR=my/task", "OUTPUT=runs/mine"], "runs/mine"),
    ],
)
def test_quickstart_keeps_own_results_apart_from_the_embedded_ones(settings, folder):
    # Under `make test` this is a make within a make, which would announce its folder.
    done = subprocess.run(
        ["make", "--no-print-directory", "--dry-run", "quickstart", *settings],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    command = shlex.split(done.stdout.splitlines()[-1])
    assert f"--output_dir={folder}" in command
    for setting in settings:
        name, _, value = setting.partition("=")
        assert f"--{'output_dir' if name == 'OUTPUT' else name.lower()}={value}" in command
