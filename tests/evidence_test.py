"""What the scripts of evidence make of real data, on a little of it."""

import importlib
import json
import pathlib

import pytest
import yaml

from xdistil_tf.data.readers import read_task

TOOLS = pathlib.Path(__file__).resolve().parent.parent / "tools"


@pytest.fixture
def script(monkeypatch):
    """Imports a script of tools/."""
    monkeypatch.syspath_prepend(str(TOOLS))
    return importlib.import_module


def test_tasks_of_panx_keep_labels_apart_from_transfer_texts(script, tmp_path, monkeypatch):
    panx = script("panx_evidence")
    monkeypatch.setattr(panx, "LABELLED", 3)
    monkeypatch.setattr(panx, "REPORTED", 2)
    for language in panx.LANGUAGES:
        count = 4 if language == "sw" else 9
        for split in ("train", "dev"):
            rows = [f"{split}{n}{language}\tB-LOC\nsleeps\tO\n" for n in range(count)]
            (tmp_path / f"{split}-{language}.tsv").write_text("\n".join(rows) + "\n", "utf-8")
    panx.make_tasks(tmp_path, tmp_path / "made")
    transfer = [
        json.loads(line)
        for line in (tmp_path / "made" / "transfer.jsonl").read_text("utf-8").splitlines()
    ]
    full, low = (read_task(tmp_path / "made" / name, "ner") for name in ("full", "low"))
    labelled = {one.text for one in full.splits["train"]}
    assert len(labelled) == 5 * 3 + 2 and len(full.splits["dev"]) == 6 * 2
    assert not labelled & {tuple(one["words"]) for one in transfer}
    assert {one.text for one in low.splits["train"]} == labelled | {
        tuple(one["words"]) for one in transfer
    }
    assert {one["language"] for one in transfer} == set(panx.LANGUAGES)


def test_small_tasks_of_sst2_are_spread_over_its_train_file(script, tmp_path, monkeypatch):
    tinybert = script("tinybert_evidence")
    monkeypatch.setattr(tinybert, "SMALL_ROWS", 10)
    source = tmp_path / "glue" / "SST-2"
    source.mkdir(parents=True)
    rows = ["sentence\tlabel", *(f"text {n}\t{n % 2}" for n in range(100))]
    for name in ("train.tsv", "dev.tsv"):
        (source / name).write_text("\n".join(rows) + "\n", "utf-8")
    tinybert.small_tasks(tmp_path, tmp_path / "made")
    made = (tmp_path / "made" / "small" / "SST-2" / "train.tsv").read_text("utf-8").splitlines()
    assert made == [rows[0], *rows[1::10]]
    pairs = read_task(tmp_path / "made" / "small" / "pairs", "regression")
    assert len(pairs.splits["train"]) == 10


def test_sizes_stand_beside_the_papers(script):
    panx = script("panx_evidence")
    run = {
        "variant": "e50_h200",
        "retained": 0.9,
        "student": {
            "parameters": 2_000_000,
            "metrics": {"macro": 0.7},
            "latency_ms": {"batch_1": 1.0, "batch_32": 10.0},
        },
        "teacher": {"latency_ms": {"batch_1": 5.0, "batch_32": 60.0}},
    }
    table = panx.beside_the_paper({"runs": [run], "versions": {}})["table"]
    expected = ["E 50, H 200", 2.0, 70.0, "90.0%", 6.0, 5.1, 86.46, "94.1%", 51]
    assert table["rows"] == [expected]
    assert len(table["columns"]) == len(expected)


def test_every_size_of_the_study_has_the_papers_figures(script):
    panx = script("panx_evidence")
    study = yaml.safe_load(
        (TOOLS.parent / "configs/evidence/xtremedistil_panx_sizes.yaml").read_text("utf-8")
    )
    assert list(study["variants"]) == list(panx.PAPER)
    for name, overrides in study["variants"].items():
        width, units = (int(part[1:]) for part in name.split("_"))
        assert overrides == [f"model.embedding.dim={width}", f"model.lstm_units={units}"]
