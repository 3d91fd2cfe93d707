"""The fresh process of the gate, and its command line."""

import json

import numpy as np
import pytest

from xdistil_tf import files
from xdistil_tf.export import parity


def test_a_process_that_dies_is_reported_with_its_last_line(tmp_path):
    with pytest.raises(RuntimeError, match="could not be checked.*ended with 1: No export in"):
        parity.check_in_fresh_process(tmp_path)


def test_a_folder_that_is_no_export_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="No export in .*xdistil.json"):
        parity.load_exported(tmp_path)


def test_the_command_says_in_one_line_that_a_folder_is_no_export(tmp_path, capsys):
    assert parity.main([str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith(f"error: No export in {tmp_path}. Expected a folder")


def test_the_command_needs_one_folder(capsys):
    assert parity.main([]) == 2
    assert "EXPORTED_FOLDER" in capsys.readouterr().err


def test_padding_reaches_the_longest_row_of_the_batch():
    inputs = {
        "input_ids": [[2, 7, 3], [2, 3], [2] * 9],
        "segment_ids": [[0, 1, 1], [0, 0], [0] * 9],
    }
    batch = parity.stored_batch(inputs, range(0, 2))
    np.testing.assert_array_equal(batch["input_ids"], [[2, 7, 3], [2, 3, 0]])
    np.testing.assert_array_equal(batch["segment_ids"], [[0, 1, 1], [0, 0, 0]])
    assert len(parity.stored_batch(inputs, range(0))["input_ids"]) == 0


class _Fake:
    """An export that answers with the stored scores, shifted."""

    def __init__(self, inputs, shift=0.0, label=None):
        self.info = {"text_signature": False, "task_type": "classification"}
        self._inputs, self._shift, self._label = inputs, shift, label

    def from_ids(self, batch):
        rows = [self._inputs["input_ids"].index(_row(ids)) for ids in batch["input_ids"]]
        scores = np.array([self._inputs["scores"][row] for row in rows]).reshape(-1, 2)
        labels = [self._label or self._inputs["labels"][row] for row in rows]
        return {"scores": scores + self._shift, "label": np.array(labels, object)}


def _row(ids):
    return [int(value) for value in ids if value]


@pytest.mark.parametrize(
    ("changes", "passed", "agreement"),
    [
        ({}, True, 1),
        ({"shift": 9e-5}, True, 1),
        ({"shift": 1.1e-4}, False, 1),
        ({"shift": np.nan}, False, 1),
        ({"label": "b"}, False, None),
    ],
)
def test_the_gate_fails_above_the_tolerance_or_on_one_label(
    tmp_path, fake, capsys, changes, passed, agreement
):
    fake(**changes)
    report = parity.check(tmp_path)
    assert report["passed"] is passed
    assert agreement is None or report["label_agreement"] == agreement
    assert (report["differing_labels"] > 0) == ("label" in changes)
    assert parity.main([str(tmp_path)]) == (0 if passed else 1)
    assert json.loads((tmp_path / "parity.json").read_text())["passed"] is passed
    said = capsys.readouterr()
    assert ("equals the Keras model on 9 examples" in said.out) is passed
    assert ("error: The exported model differs" in said.err) is not passed


def test_a_repeated_check_leaves_the_result_of_the_export_alone(tmp_path, fake):
    fake()
    assert parity.main([str(tmp_path)]) == 0
    written = (tmp_path / "parity.json").read_bytes()
    fake(label="b")
    assert parity.main([str(tmp_path)]) == 1
    assert (tmp_path / "parity.json").read_bytes() == written


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """`fake(shift=...)`: puts an export in place that answers so."""
    inputs = {
        "texts": [str(index) for index in range(9)],
        "texts_b": None,
        "input_ids": [[index + 1] for index in range(9)],
        "segment_ids": [[0] for _ in range(9)],
        "scores": [[0.7, 0.3]] * 8 + [[0.2, 0.8]],
        "labels": ["a"] * 8 + ["b"],
    }
    files.write_json(tmp_path / "inputs.json", inputs)
    monkeypatch.setattr(parity, "INPUTS_FILE", "inputs.json")

    def put(**changes):
        monkeypatch.setattr(parity, "load_exported", lambda _: _Fake(inputs, **changes))

    return put
