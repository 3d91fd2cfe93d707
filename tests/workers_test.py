"""Several workers on loopback: the weights of two replicas, kills, signals, and what is refused."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import safetensors.numpy

from tests.small_task import encoder_folder
from xdistil_tf import strategies
from xdistil_tf.data import synthetic
from xdistil_tf.data.pretraining import write_pretraining_records

pytest_plugins = ["tests.small_task"]

ROOT = pathlib.Path(__file__).resolve().parent.parent
HEAD = {"kind": "pretraining", "next_sentence": True}
OVERRIDES = [
    "max_seq_length=32", "stages.0.epochs=null", "stages.0.batch_size=7",
    "stages.0.evaluate.every_steps=4",
]  # fmt: skip


@pytest.fixture(scope="module")
def corpus(small, tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    synthetic.generate_corpus(folder / "corpus.txt", 60)
    write_pretraining_records(
        folder / "corpus.txt", small.tokenizer, folder / "records", 32, 5,
        heldout_fraction=0.1, num_shards=2, dynamic_masking=True,
    )  # fmt: skip
    return folder / "records"


@pytest.fixture(scope="module")
def start(small, tmp_path_factory):
    return encoder_folder(tmp_path_factory.mktemp("lm"), small.tokenizer, HEAD)


def command(corpus, start, model_dir, steps, *flags):
    sets = [f"--set={one}" for one in (*OVERRIDES, f"stages.0.steps={steps}")]
    return [
        sys.executable, "bin/train.py", "--recipe=configs/bert/continue_pretraining.yaml",
        f"--init_checkpoint={start}", f"--data=corpus={corpus}/train-*",
        f"--data=heldout={corpus}/heldout-*", f"--model_dir={model_dir}",
        "--steps_per_loop=2", "--checkpoint_interval=2", *sets, *flags,
    ]  # fmt: skip


def free_ports(count):
    """Ports that were free a moment ago."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def workers(corpus, start, model_dir, steps=6):
    """Starts two."""
    addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
    started = []
    for index in range(2):
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        flags = ("--distribution_strategy=multi_worker_mirrored", "--worker_timeout=10")
        started.append(
            subprocess.Popen(
                command(corpus, start, model_dir, steps, *flags),
                cwd=ROOT,
                env=os.environ | {"TF_CONFIG": json.dumps(task)},
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    return started


def ended(processes, seconds=300):
    """Exit codes and what was said."""
    try:
        said = [one.communicate(timeout=seconds)[1] for one in processes]
    finally:
        for one in processes:
            one.kill()
    return [one.returncode for one in processes], said


def weights(model_dir):
    return safetensors.numpy.load_file(pathlib.Path(model_dir) / "model" / "model.safetensors")


def wait_for_checkpoint(model_dir, step, processes, seconds=240):
    """Waits until worker 0 has saved; the folder's name is the step."""
    folder = pathlib.Path(model_dir) / "01_pretrain" / "checkpoints"
    for _ in range(10 * seconds):
        if any(int(one.name) >= step for one in folder.glob("[0-9]*")):
            return
        if any(one.poll() is not None for one in processes):
            pytest.fail(f"A worker ended early: {ended(processes)}")
        time.sleep(0.1)
    pytest.fail(f"No checkpoint of step {step} in {folder}.")


@pytest.fixture(scope="module")
def undisturbed(corpus, start, tmp_path_factory):
    """The run of two workers."""
    folder = tmp_path_factory.mktemp("undisturbed")
    codes, said = ended(workers(corpus, start, folder))
    assert codes == [0, 0], said
    return folder


def test_two_workers_equal_two_replicas_bit_for_bit(corpus, start, undisturbed, tmp_path):
    flags = ("--distribution_strategy=mirrored", "--num_replicas=2")
    subprocess.run(command(corpus, start, tmp_path, 6, *flags), cwd=ROOT, check=True)
    expected, found = weights(tmp_path), weights(undisturbed)
    assert set(expected) == set(found)
    for name, value in expected.items():
        np.testing.assert_array_equal(value, found[name], err_msg=name)


def test_only_worker_0_writes(undisturbed):
    events = list((undisturbed / "01_pretrain").glob("events*"))
    assert len(events) == 1
    assert json.loads((undisturbed / "run.json").read_text())["replicas"] == 2


def test_a_killed_worker_ends_the_others_and_all_go_on(corpus, start, undisturbed, tmp_path):
    processes = workers(corpus, start, tmp_path, steps=6)
    wait_for_checkpoint(tmp_path, 2, processes)
    processes[1].kill()
    codes, said = ended(processes, 120)
    assert codes[0] not in (0, None), said
    if codes[0] == 1:  # Else TensorFlow itself ended the process, with its own words.
        assert "go on from the last checkpoint" in said[0]
    codes, said = ended(workers(corpus, start, tmp_path, steps=6))
    assert codes == [0, 0], said
    for name, value in weights(undisturbed).items():
        np.testing.assert_array_equal(value, weights(tmp_path)[name], err_msg=name)


def test_a_signal_to_one_worker_saves_and_stops_all(corpus, start, tmp_path):
    processes = workers(corpus, start, tmp_path, steps=100_000)
    wait_for_checkpoint(tmp_path, 2, processes)
    processes[1].send_signal(signal.SIGTERM)
    codes, said = ended(processes, 120)
    assert codes == [42, 42], said


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no json",
        '{"cluster": {"worker": ["a:1"]}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
        '{"cluster": {"chief": ["a:1"], "worker": ["b:1"]},'
        ' "task": {"type": "worker", "index": 0}}',
    ],
)
def test_a_description_of_no_workers_is_refused(text, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ValueError, match="needs the environment variable TF_CONFIG"):
        strategies.make_strategy("multi_worker_mirrored")


def test_replicas_of_workers_are_not_counted_by_hand():
    with pytest.raises(ValueError, match="Expected --num_replicas=0"):
        strategies.make_strategy("multi_worker_mirrored", 2)
