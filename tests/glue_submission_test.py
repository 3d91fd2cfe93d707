"""Submissions to GLUE: names, header, lines, labels, scores in range."""

import numpy as np
import pytest

from tests.small_task import OPTIONS, RECORDS, write_lines
from xdistil_tf import glue_submission, recipe_files
from xdistil_tf.data.task_records import create_task_records
from xdistil_tf.predict import Predictor
from xdistil_tf.run import run

pytest_plugins = ["tests.small_task"]

TASKS = {
    "rte": ("index\tsentence1\tsentence2", ["entailment", "not_entailment"]),
    "mnli": ("index\tsentence1\tsentence2", ["contradiction", "entailment", "neutral"]),
    "sts-b": ("index\tsentence1\tsentence2", ["0.5", "4.5"]),
}
LABEL = {"rte": "label", "mnli": "gold_label", "sts-b": "score"}


@pytest.fixture(scope="module")
def model(small, tmp_path_factory):
    """A function that trains a model of a GLUE task on made-up pairs, once each."""
    made = {}

    def make(task):
        if task not in made:
            folder = tmp_path_factory.mktemp(task)
            header, labels = TASKS[task]
            names = ["train.tsv", "dev_matched.tsv" if task == "mnli" else "dev.tsv"]
            for name in names:
                lines = [
                    f"{n}\tthe {name} soup {n}\tthe tea {n}\t{labels[n % len(labels)]}"
                    for n in range(40)
                ]
                write_lines(folder / "task" / name, [f"{header}\t{LABEL[task]}", *lines])
            tests = ["test.tsv"]
            if task == "mnli":
                tests = ["test_matched.tsv", "test_mismatched.tsv"]
            for count, name in enumerate(tests, start=5):
                lines = [f"{n}\tthe soup {n}\tthe tea {n}" for n in range(count)]
                write_lines(folder / "task" / name, [header, *lines])
            info = create_task_records(
                folder / "task", task, small.tokenizer, folder / "records", None, RECORDS
            )
            config = recipe_files.load_recipe(
                "configs/bert/finetune.yaml",
                ["max_seq_length=32", "stages.0.epochs=null", "stages.0.steps=1"],
            )
            data = {"train": info.pattern("train"), "heldout": info.pattern("heldout")}
            run(config, data, folder / "run", init_checkpoint=small.encoder, options=OPTIONS)
            made[task] = (folder / "task", Predictor(str(folder / "run")))
        return made[task]

    return make


@pytest.mark.parametrize(
    ("task", "split", "name", "count"),
    [
        ("rte", "test", "RTE", 5),
        ("mnli", "test", "MNLI-m", 5),
        ("mnli", "test_matched", "MNLI-m", 5),
        ("mnli", "test_mismatched", "MNLI-mm", 6),
        ("sts-b", "test", "STS-B", 5),
    ],
)
def test_a_file_is_as_glue_takes_it(model, tmp_path, task, split, name, count):
    folder, predictor = model(task)
    path = glue_submission.write_submission(predictor, folder, task, split, tmp_path)
    assert path == tmp_path / f"{name}.tsv"
    lines = path.read_text().splitlines()
    assert lines[0] == "index\tprediction" and len(lines) == count + 1
    assert [line.split("\t")[0] for line in lines[1:]] == [str(n) for n in range(count)]
    said = [line.split("\t")[1] for line in lines[1:]]
    if task == "sts-b":
        assert all(0 <= float(one) <= 5 for one in said)
    else:
        assert set(said) <= set(TASKS[task][1])


def test_the_diagnostic_set_is_asked_of_a_model_of_mnli(model, tmp_path):
    write_lines(
        tmp_path / "diagnostic" / "diagnostic.tsv",
        ["index\tsentence1\tsentence2", "0\tthe soup\tthe tea", "1\tthe tea\tthe soup"],
    )
    _, predictor = model("mnli")
    path = glue_submission.write_submission(
        predictor, tmp_path / "diagnostic", "ax", "test", tmp_path / "out"
    )
    assert path.name == "AX.tsv" and len(path.read_text().splitlines()) == 3
    _, other = model("rte")
    with pytest.raises(ValueError, match="was trained on rte.*Expected one of mnli"):
        glue_submission.write_submission(other, tmp_path / "diagnostic", "ax", "test", tmp_path)


def test_an_empty_text_has_its_line(model, tmp_path):
    _, predictor = model("rte")
    write_lines(
        tmp_path / "task" / "test.tsv",
        ["index\tsentence1\tsentence2", "0\tthe soup\t", "1\tthe soup\tthe tea"],
    )
    path = glue_submission.write_submission(predictor, tmp_path / "task", "rte", "test", tmp_path)
    assert [line.split("\t")[0] for line in path.read_text().splitlines()[1:]] == ["0", "1"]


def test_a_model_of_a_task_with_the_same_classes_is_refused(model, tmp_path):
    folder, predictor = model("rte")
    with pytest.raises(ValueError, match="was trained on rte.*Expected one of qnli"):
        glue_submission.write_submission(predictor, folder, "qnli", "test", tmp_path)


def test_scores_are_cut_to_their_range(model, tmp_path, monkeypatch):
    folder, predictor = model("sts-b")
    values = np.array([[-1.0], [0.25], [7.0], [5.0], [2.0]])
    monkeypatch.setattr(predictor, "scores", lambda *arguments: values)
    path = glue_submission.write_submission(predictor, folder, "STSB", "test", tmp_path)
    said = [line.split("\t")[1] for line in path.read_text().splitlines()[1:]]
    assert said == ["0.000", "0.250", "5.000", "5.000", "2.000"]


def test_what_glue_does_not_take_is_refused(model, tmp_path):
    folder, predictor = model("rte")
    with pytest.raises(ValueError, match="takes no predictions of 'dev' of 'rte'"):
        glue_submission.write_submission(predictor, folder, "rte", "dev", tmp_path)
    with pytest.raises(FileNotFoundError, match="split 'test'"):
        glue_submission.write_submission(predictor, tmp_path, "rte", "test", tmp_path)
    assert not list(tmp_path.glob("*.tsv"))
