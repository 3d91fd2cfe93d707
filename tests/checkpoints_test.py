"""A stage's folder; killing and resuming whole runs is in resume_test.py."""

import doctest

import numpy as np
import pytest

from xdistil_tf import checkpoints, files
from xdistil_tf.checkpoints import StageFolder

DEFINITION = {"stage": {"name": "logits", "epochs": 3, "train": ["head"]}, "parent": "a", "seed": 1}
TENSORS = {"model/w": np.arange(6, dtype=np.float32).reshape(2, 3), "steps": np.int64(3)}


@pytest.fixture
def folder(tmp_path):
    return StageFolder(tmp_path / "01_logits", DEFINITION)


def test_a_new_folder_has_neither_checkpoint_nor_result(folder):
    assert folder.latest() is None and not folder.finished
    with pytest.raises(FileNotFoundError):
        folder.weights()


def test_restores_from_the_most_recent_checkpoint(folder):
    for step in (2, 10, 4):
        folder.save(step, {"best_step": None, "loss": 0.1}, TENSORS)
    found = folder.latest()
    assert found.step == 10 and found.state == {"best_step": None, "loss": 0.1}
    assert found.best is None
    for name, value in TENSORS.items():
        np.testing.assert_array_equal(found.tensors[name], value)
        assert found.tensors[name].dtype == value.dtype


def test_the_last_two_checkpoints_stay(folder):
    for step in range(1, 6):
        folder.save(step, {"best_step": None}, TENSORS)
    names = sorted(one.name for one in (folder.path / "checkpoints").iterdir())
    assert names == ["000000004", "000000005"]


def test_best_weights_stay_while_a_checkpoint_needs_them(folder):
    for step in (1, 2, 3):
        folder.save(step, {"best_step": step}, TENSORS, {"w": np.full(2, step, np.float32)})
    assert sorted(one.name for one in (folder.path / "best").iterdir()) == [
        "000000002",
        "000000003",
    ]
    (folder.path / "checkpoints/000000003/tensors.safetensors").write_bytes(b"")
    messages = []
    found = folder.latest(messages.append)
    assert found.step == 2 and found.best["w"][0] == 2
    assert len(messages) == 1 and "expected" in messages[0] and "Received: 0 bytes" in messages[0]


def test_a_finished_stage_keeps_its_result_and_weights_alone(folder):
    folder.save(1, {"best_step": 1}, TENSORS, {"w": np.zeros(2, np.float32)})
    folder.finish({"steps": 1}, {"w": np.ones(2, np.float32)})
    again = StageFolder(folder.path, DEFINITION)
    assert again.finished and again.result() == {"steps": 1, "fingerprint": folder.fingerprint}
    np.testing.assert_array_equal(again.weights()["w"], np.ones(2))
    np.testing.assert_array_equal(checkpoints.read_weights(folder.path)["w"], np.ones(2))
    assert sorted(one.name for one in folder.path.iterdir()) == [
        "definition.json", "stage.json", "weights",
    ]  # fmt: skip


def test_one_who_does_not_write_reads_what_another_writes(folder):
    other = StageFolder(folder.path, DEFINITION, writes=False)
    other.save(1, {"best_step": None}, TENSORS)
    other.finish({"steps": 1}, {"w": np.ones(2, np.float32)})
    assert other.latest() is None and not other.finished
    folder.save(2, {"best_step": None}, TENSORS)
    assert other.latest().step == 2
    StageFolder(folder.path.parent / "02_next", DEFINITION, writes=False)
    assert not (folder.path.parent / "02_next").exists()


def test_damaged_final_weights_are_an_error(folder):
    folder.finish({}, {"w": np.ones(2, np.float32)})
    path = folder.path / "weights/tensors.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with pytest.raises(ValueError, match="tensors.safetensors is damaged: expected .* CRC-32"):
        folder.weights()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parent": "b"}, "parent was a and is now b"),
        ({"seed": None}, "seed was 1 and is now unset"),
        ({"stage": {"name": "logits", "epochs": 4, "train": ["head"]}}, "stage.epochs was 3 .* 4"),
        ({"stage": {"name": "logits", "epochs": 3, "train": ["bilstm"]}}, "stage.train.0 was head"),
        ({"teacher": "x" * 90}, "teacher was unset and is now x{45}\\.\\.\\."),
    ],
)
def test_another_definition_is_refused_and_the_field_named(folder, change, message):
    with pytest.raises(ValueError, match=message) as caught:
        StageFolder(folder.path, DEFINITION | change)
    assert "remove this folder" in str(caught.value)


def test_a_changed_shard_is_named_with_short_fingerprints(tmp_path):
    before = {"data": {"train-0": "a" * 64, "train-1": "b" * 64}}
    StageFolder(tmp_path, before)
    with pytest.raises(ValueError, match="settings: data.train-1 was b{12} and is now c{12}\\. "):
        StageFolder(tmp_path, {"data": before["data"] | {"train-1": "c" * 64}})


def test_an_equal_definition_is_accepted_whatever_the_order_of_its_keys(folder):
    again = StageFolder(folder.path, dict(reversed(DEFINITION.items())))
    assert again.fingerprint == folder.fingerprint


def test_a_damaged_definition_is_named(folder):
    (folder.path / "definition.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match="definition.json is damaged: expected JSON"):
        StageFolder(folder.path, DEFINITION)


def test_an_unchanged_best_is_written_once(folder, monkeypatch):
    written = []
    original = files.replaced_folder

    def replaced(path):
        written.append(path.parent.name)
        return original(path)

    monkeypatch.setattr(checkpoints.files, "replaced_folder", replaced)
    folder.save(1, {"best_step": 1}, TENSORS, {"w": np.zeros(2, np.float32)})
    folder.save(2, {"best_step": 1}, TENSORS)
    assert written == ["checkpoints", "best", "checkpoints"]
    assert folder.latest().best is not None


def test_examples_in_the_module():
    assert doctest.testmod(checkpoints).failed == 0
