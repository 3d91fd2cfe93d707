"""The main job end to end on a task that one word decides, and on scored pairs."""

import itertools
import json
import pathlib
import random
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import ops

from tests.small_task import BILSTM, OPTIONS, encoder_folder, stage, write_lines
from xdistil_tf import (
    distill,
    evaluate,
    files,
    predict,
    preflight,
    recipe,
    recipe_files,
    recipes,
    task_teacher,
)
from xdistil_tf.data import synthetic
from xdistil_tf.data.task_records import Options
from xdistil_tf.data.tokenization import load_tokenizer
from xdistil_tf.job import Job
from xdistil_tf.models import folders, pretrained

pytest_plugins = ["tests.small_task"]

DOCUMENTS = pathlib.Path(__file__).parent.parent / "docs" / "interfaces.md"
LABELS = ("bad", "good")
TEACHER = recipe.Recipe.model_validate(
    {
        "model": {"kind": "encoder"},
        "max_seq_length": 32,
        "stages": [
            {
                "name": "finetune",
                "data": "train",
                "objective": [{"loss": "task"}],
                "epochs": 4,
                "batch_size": 16,
                "optimizer": {"learning_rate": 3e-3},
                "evaluate": {"keep_best": "task"},
            }
        ],
    }
)
EVALUATE = {"data": "heldout", "keep_best": "objective"}
STUDENT = {
    "model": BILSTM | {"embedding": {"source": "teacher", "dim": 8}},
    "teacher": {"layer": -1},
    "max_seq_length": 32,
    "stages": [
        stage(
            name="representation",
            objective=[{"loss": "mean_squared_error", "output": "representation"}],
            evaluate=EVALUATE,
        ),
        stage(unfreeze=["head", "projection"], evaluate=EVALUATE),
        stage(
            name="labels",
            data="train",
            objective=[{"loss": "task"}],
            evaluate={"data": "heldout", "keep_best": "task"},
        ),
    ],
}
ONE_STEP = recipe.Recipe.model_validate(STUDENT | {"stages": [stage(steps=1)]})
RECORDS = Options(max_seq_length=32, heldout_rows=60, num_shards=2)


def sentences(count, seed):
    """Texts of six words, the label decided by one of them."""
    draw = random.Random(seed)
    words = [
        "the",
        "waiter",
        "room",
        "was",
        "and",
        "we",
        "duck",
        "soup",
        "in",
        "but",
        "they",
        "had",
    ]
    for number in range(count):
        label = number % 2
        chosen = [draw.choice(words) for _ in range(6)]
        chosen.insert(draw.randrange(7), ("awful", "great")[label])
        yield f"{' '.join(chosen)} {number}\t{LABELS[label]}"


@pytest.fixture(scope="module")
def task_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("task")
    write_lines(folder / "train.tsv", sentences(280, 1))
    write_lines(folder / "dev.tsv", itertools.islice(sentences(400, 2), 300, None))
    write_lines(folder / "labels.tsv", LABELS)
    return folder


@pytest.fixture(scope="module")
def job(small, task_dir):
    """A function that makes a job; changes are fields of it."""

    def make(model_dir, **changes):
        fields = {
            "recipe": recipe.Recipe.model_validate(STUDENT),
            "teacher_recipe": TEACHER,
            "task_dir": str(task_dir),
            "task": "classification",
            "teacher": small.encoder,
            "model_dir": str(model_dir),
            "records": RECORDS,
        }
        return Job(**fields | changes)

    return make


@pytest.fixture(scope="module")
def finished(job, tmp_path_factory):
    """The distill folder of the whole job, and its report."""
    folder = tmp_path_factory.mktemp("distill")
    return folder, distill.distill(job(folder), options=OPTIONS)


@pytest.fixture
def quick(job, tmp_path):
    """One step of a student, no baseline, no export."""

    def call(folder="quick", **changes):
        changes = {"recipe": ONE_STEP, "labels_only": False, "export": False} | changes
        return distill.distill(job(tmp_path / folder, **changes), options=OPTIONS)

    return call


def custom_gradients():
    return {name for name in ops.gradient_registry.list() if name.startswith("CustomGradient-")}


def test_a_job_leaves_no_model_in_memory(quick):
    before = custom_gradients()
    quick("forgotten")
    assert custom_gradients() <= before


def test_a_recipe_that_does_not_suit_the_task_is_refused_before_the_teacher(quick, monkeypatch):
    monkeypatch.setattr(distill.task_teacher, "ready_teacher", None)
    words = recipe_files.load_recipe(recipes.find("configs/xtremedistil/ner.yaml"))
    with pytest.raises(ValueError, match="compares words"):
        quick("words", recipe=words)


def test_the_folder_and_the_report_are_as_documented(finished):
    folder, report = finished
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "records", "teacher", "cache", "student", "labels_only", "export", "report.json",
        "report.txt",
    }  # fmt: skip
    assert json.loads((folder / "report.json").read_text()) == json.loads(json.dumps(report))
    documented = re.search(r"\*\*report.json\*\* of `distill`: `(.*?)`[.;]", DOCUMENTS.read_text())[
        1
    ]
    outer = re.sub(r"\[[^]]*\]|(?<=.)\{[^}]*\}", "", documented)
    for key in re.findall(r'"(\w+)"', outer):
        assert key in report, key
    for name in ("teacher", "student", "labels_only"):
        assert {
            "metrics", "parameters", "parameters_without_embeddings", "bytes", "latency_ms",
            "steps", "seconds",
        } <= set(report[name])  # fmt: skip
    assert len(report["stages"]) == 4
    for one in report["stages"]:
        assert {"name", "data", "steps", "best", "seconds"} <= set(one)
    assert "learning_rate" in report["labels_only"]
    assert report["reported_split"] == "dev"
    assert not report["weak_teacher"] and not report["selects_on_reported_split"]
    text = (folder / "report.txt").read_text(encoding="utf-8")
    for word in ("teacher", "student", "labels_only", "logits.1_head", "keeps"):
        assert word in text
    assert re.search(r"The student is [\d.]+ (above|below) the same student on labels only", text)


def test_an_encoder_without_a_head_is_fine_tuned(finished, small):
    folder, report = finished
    assert report["teacher"]["source"] == small.encoder
    assert report["teacher"]["metrics"]["accuracy"] > 0.9
    assert folders.class_names(folder / "teacher" / "model") == LABELS


def test_the_report_is_what_evaluate_says(finished, task_dir):
    folder, report = finished
    for name in ("student", "labels_only"):
        model = evaluate.EvaluatedModel(str(folder / name))
        measured = model.on_task(str(task_dir), split="dev")
        assert measured["metrics"] == pytest.approx(report[name]["metrics"], abs=1e-6)
    assert (
        evaluate.EvaluatedModel(str(folder))
        .on_task(str(task_dir))["model"]
        .startswith(str(folder / "student"))
    )


def test_the_baseline_has_the_students_start_and_at_least_its_steps(finished):
    folder, report = finished
    student = json.loads((folder / "student" / "run.json").read_text())
    steps = sum(one["steps"] for one in student["stages"])
    assert report["labels_only"]["steps"] >= steps
    for name in ("student", "labels_only"):
        assert (folder / name / "00_start" / "stage.json").is_file()
    start = [
        (folder / name / "00_start/weights/tensors.safetensors").read_bytes()
        for name in ("student", "labels_only")
    ]
    assert start[0] == start[1]
    (baseline,) = report["labels_only"]["learning_rates"]
    assert report["student"]["steps"] == steps
    assert report["student"]["seconds"] == student["seconds"]
    assert baseline["seconds"] >= student["seconds"] or len(baseline["shorter_runs"]) == 3
    assert baseline["learning_rate"] == 1e-3 and baseline["key"] == "accuracy"


def test_the_baseline_is_reported_at_its_best_learning_rate(finished, quick, tmp_path):
    rates = (1e-5, 1e-2)
    report = quick(
        teacher=teacher_of(finished), labels_only=True, labels_only_learning_rates=rates
    )["labels_only"]
    best, other = report["learning_rates"]
    assert {best["learning_rate"], other["learning_rate"]} == set(rates)
    assert best["best"] >= other["best"]
    assert report["learning_rate"] == best["learning_rate"]
    for rate in rates:
        assert (tmp_path / "quick" / "labels_only" / f"learning_rate_{rate}" / "model").is_dir()


def test_learning_rates_of_the_baseline_are_positive(job, tmp_path):
    with pytest.raises(ValueError, match=r"labels_only_learning_rates.*positive.*\[0.0\]"):
        job(tmp_path, labels_only_learning_rates=(0.0,))


def test_the_saved_model_answers_as_the_student_does(finished, task_dir):
    folder, _ = finished
    served = tf.saved_model.load(str(folder / "export" / "1")).signatures["serving_default"]
    texts = [line.split("\t")[0] for line in (task_dir / "dev.tsv").read_text().splitlines()]
    answer = served(text=tf.constant(texts))
    scores = predict.Predictor(str(folder)).scores(texts)
    np.testing.assert_allclose(answer["scores"].numpy(), scores, atol=1e-4)
    assert [one.decode() for one in answer["label"].numpy()] == [
        LABELS[i] for i in np.argmax(scores, -1)
    ]
    assert json.loads((folder / "export/1/parity.json").read_text())["passed"]


def fail(*arguments, **named):
    raise AssertionError("this was done already")


def test_the_same_command_does_nothing_again(finished, job, monkeypatch):
    folder, report = finished
    for done in (
        "trainer._StageRun.to_its_end",
        "cache._write_shard",
        "data.task_records.write_task_records",
        "preflight.predict_records",
        "report.predict_records",
        "distill.export_model_folder",
    ):
        monkeypatch.setattr(f"xdistil_tf.{done}", fail)
    assert distill.distill(job(folder), options=OPTIONS) == json.loads(json.dumps(report))


def test_a_report_that_was_removed_is_made_again(finished, job, tmp_path):
    folder, report = finished
    shutil.copytree(folder, tmp_path / "copy")
    (tmp_path / "copy" / "report.json").unlink()
    again = distill.distill(job(tmp_path / "copy"), options=OPTIONS)
    assert again["student"]["metrics"] == report["student"]["metrics"]
    assert files.read_json(tmp_path / "copy" / "report.json") == json.loads(json.dumps(again))


def test_a_report_of_other_models_is_made_again(finished, job, tmp_path):
    folder, report = finished
    shutil.copytree(folder, tmp_path / "copy")
    again = distill.distill(job(tmp_path / "copy", labels_only=False), options=OPTIONS)
    assert "labels_only" in report and "labels_only" not in again


def test_another_recipe_in_the_same_folder_is_refused(finished, job):
    plain = recipe_files.apply_overrides(STUDENT, ["stages.1.steps=5"])
    with pytest.raises(ValueError, match="02_logits.1_head was made with other.*stage.steps was 4"):
        distill.distill(
            job(finished[0], recipe=recipe.Recipe.model_validate(plain)), options=OPTIONS
        )


def teacher_of(finished):
    return str(finished[0] / "teacher" / "model")


def as_huggingface(finished, folder, names):
    """The fine-tuned teacher as others publish it: names in config.json only."""
    shutil.copytree(teacher_of(finished), folder)
    (folder / "labels.json").unlink()
    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = {str(number): name for number, name in enumerate(names)}
    config["label2id"] = {name: number for number, name in enumerate(names)}
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


def accuracy(report):
    return report["teacher"]["metrics"]["accuracy"]


def test_records_of_another_task_do_not_replace_those_of_a_result(
    finished, job, task_dir, tmp_path
):
    other = tmp_path / "other"
    shutil.copytree(task_dir, other)
    write_lines(other / "train.tsv", sentences(200, 9))
    folder = tmp_path / "distilled"
    shutil.copytree(finished[0], folder)
    before = (folder / "records" / "task.json").read_bytes()
    with pytest.raises(ValueError, match=r"train\.tsv"):
        distill.distill(job(folder, task_dir=str(other)), options=OPTIONS)
    assert (folder / "records" / "task.json").read_bytes() == before


def test_a_teacher_with_a_head_is_taken_as_it_is(finished, quick, tmp_path):
    source = as_huggingface(finished, tmp_path / "hf", LABELS)
    report = quick(teacher=source)
    assert accuracy(report) == accuracy(finished[1])
    assert not (tmp_path / "quick" / "teacher").exists()


def test_permuted_classes_are_put_in_order(finished, quick, tmp_path):
    source = as_huggingface(finished, tmp_path / "hf", LABELS)
    permuted = folders.reorder_classes(source, [1, 0], LABELS[::-1], tmp_path / "permuted")
    assert pretrained.read_labels(permuted) == LABELS[::-1]
    report = quick(teacher=permuted)
    assert accuracy(report) == accuracy(finished[1])


def test_permuted_classes_are_put_in_order_once(finished, quick, tmp_path, monkeypatch):
    permuted = folders.reorder_classes(
        teacher_of(finished), [1, 0], LABELS[::-1], tmp_path / "permuted"
    )
    report = quick(teacher=permuted)
    with monkeypatch.context() as patch:
        patch.setattr(folders, "reorder_classes", fail)
        assert quick(teacher=permuted) == json.loads(json.dumps(report))
    # Another teacher at the same place is put in order again.
    folders.reorder_classes(teacher_of(finished), [0, 1], LABELS[::-1], tmp_path / "permuted")
    with pytest.raises(ValueError, match="not better than a constant answer"):
        quick(teacher=permuted)


def test_names_without_meaning_need_teacher_labels(finished, quick, tmp_path):
    source = as_huggingface(finished, tmp_path / "hf", ["LABEL_0", "LABEL_1"])
    with pytest.raises(ValueError, match="'LABEL_0', 'LABEL_1'.*--teacher_labels"):
        quick(teacher=source)
    report = quick(teacher=source, teacher_labels=LABELS)
    assert accuracy(report) == accuracy(finished[1])
    with pytest.raises(ValueError, match="not better than a constant answer.*--teacher_labels"):
        quick("wrong", teacher=source, teacher_labels=LABELS[::-1])


def test_two_classes_without_names_are_a_head(finished, quick, tmp_path):
    """As others write it: `transformers` leaves out the default names of two classes."""
    source = as_huggingface(finished, tmp_path / "hf", LABELS)
    path = pathlib.Path(source) / "config.json"
    config = files.read_json(path)
    files.write_json(path, {k: v for k, v in config.items() if k not in ("id2label", "label2id")})
    with pytest.raises(ValueError, match="'LABEL_0', 'LABEL_1'.*--teacher_labels"):
        quick(teacher=source)
    report = quick(teacher=source, teacher_labels=LABELS)
    assert accuracy(report) == accuracy(finished[1])
    assert not (tmp_path / "quick" / "teacher").exists()


def test_a_student_that_reads_other_ids_is_refused_before_the_teacher(small, quick, tmp_path):
    tokens = list(small.tokenizer.tokens)
    tokens[-2:] = reversed(tokens[-2:])
    write_lines(tmp_path / "other" / "vocab.txt", tokens)
    other = load_tokenizer(tmp_path / "other" / "vocab.txt", do_lower_case=True)
    start = encoder_folder(tmp_path / "start", other)
    config = TEACHER.model_copy(update={"stages": (ONE_STEP.stages[0],)})
    with pytest.raises(ValueError, match="init_checkpoint .*start reads other ids than the rec"):
        quick(recipe=config, init_checkpoint=start)
    assert not (tmp_path / "quick" / "teacher").exists()


def test_memory_is_asked_for_what_is_trained(finished, small, quick, monkeypatch):
    class Reached(Exception):
        pass

    def stop(*arguments):
        raise Reached

    asked = []
    enough = preflight.Check("memory", True, "")
    monkeypatch.setattr(preflight, "check_memory", lambda *given: asked.append(given) or enough)
    monkeypatch.setattr(task_teacher, "ready_teacher", stop)
    with pytest.raises(Reached):
        quick(teacher=small.encoder)
    with pytest.raises(Reached):
        quick(teacher=teacher_of(finished), init_checkpoint=small.encoder)
    # Folder, batch, longest record, micro-batches, replicas.
    longest = asked[0][2]
    assert asked == [(small.encoder, 16, longest, 1, 1)] * 2 and 8 < longest <= 32


def test_another_length_than_the_records_is_refused_before_the_teacher(quick, tmp_path):
    for field in ("recipe", "teacher_recipe"):
        config = {"recipe": ONE_STEP, "teacher_recipe": TEACHER}[field]
        with pytest.raises(ValueError, match="max_seq_length=16.*were made with 32"):
            quick(**{field: config.model_copy(update={"max_seq_length": 16})})
    assert not (tmp_path / "quick" / "teacher").exists()


def test_teacher_labels_of_an_encoder_without_a_head_are_refused(small, quick):
    with pytest.raises(ValueError, match="the teacher has no head"):
        quick(teacher=small.encoder, teacher_labels=LABELS)


def test_a_weak_teacher_is_refused_or_marked(small, quick, tmp_path):
    head = {"kind": "classification", "num_labels": 2}
    weak = encoder_folder(tmp_path / "weak", small.tokenizer, head, LABELS)
    with pytest.raises(ValueError, match="not better than a constant answer.*accept_weak_teacher"):
        quick(teacher=weak)
    assert not (tmp_path / "quick" / "student").exists()
    report = quick(teacher=weak, accept_weak_teacher=True)
    assert report["weak_teacher"]
    assert "no better than a constant" in (tmp_path / "quick" / "report.txt").read_text()


def test_selecting_on_what_is_reported_is_marked(finished, quick, task_dir, tmp_path):
    """With labels in train only, nothing but the held-out texts can be reported on."""
    folder = tmp_path / "task"
    folder.mkdir()
    for name in ("train.tsv", "labels.tsv"):
        shutil.copy(task_dir / name, folder / name)
    config = recipe.Recipe.model_validate(STUDENT | {"stages": [stage(steps=1, evaluate={})]})
    report = quick(task_dir=str(folder), teacher=teacher_of(finished), recipe=config)
    assert report["reported_split"] == "heldout" and report["selects_on_reported_split"]
    assert "the figures are too good" in (tmp_path / "quick" / "report.txt").read_text()


@pytest.fixture(scope="module")
def scored(small, job, tmp_path_factory):
    """A regression on pairs, with export."""
    folder = tmp_path_factory.mktemp("pairs")
    synthetic.generate_pairs(
        folder / "task", num_train=120, num_dev=40, num_test=1, num_transfer=0, seed=3
    )
    (folder / "task" / "test.tsv").unlink()
    (folder / "task" / "transfer.txt").unlink(missing_ok=True)
    plain = recipe_files.apply_overrides(STUDENT, [])
    plain["stages"] = plain["stages"][1:]
    del plain["stages"][0]["unfreeze"]
    report = distill.distill(
        job(
            folder / "run",
            task="regression",
            task_dir=str(folder / "task"),
            recipe=recipe.Recipe.model_validate(plain),
            accept_weak_teacher=True,
            labels_only=False,
        ),
        options=OPTIONS,
    )
    return folder, report


def test_a_regression_on_pairs_runs_to_its_end(scored):
    folder, report = scored
    assert report["metric"] in report["student"]["metrics"]
    served = tf.saved_model.load(str(folder / "run" / "export" / "1")).signatures["serving_default"]
    answer = served(text=tf.constant(["the soup", "the duck"]), text_pair=tf.constant(["a", "b"]))
    assert set(answer) == {"scores"} and answer["scores"].shape == (2, 1)
    measured = evaluate.EvaluatedModel(str(folder / "run")).on_task(str(folder / "task"))
    assert measured["metrics"] == pytest.approx(report["student"]["metrics"], abs=1e-6)


def test_pairs_are_predicted_in_order(scored, tmp_path):
    folder, _ = scored
    predictor = predict.Predictor(str(folder / "run"))
    rows = [("the soup was great", "the room"), ("a", "b c d e f"), ("x y z", "the soup")]
    lines = [f"{a}\t{b}" for a, b in rows]
    output = tmp_path / "out.tsv"
    write_lines(tmp_path / "in.tsv", lines)
    assert predict.predict_file(predictor, str(tmp_path / "in.tsv"), str(output), 2) == 3
    header, *values = output.read_text().splitlines()
    assert header == "score"
    alone = [float(predictor.scores([a], [b])[0, 0]) for a, b in rows]
    np.testing.assert_allclose([float(one) for one in values], alone, atol=1e-5)
    write_lines(tmp_path / "in.tsv", [*lines, "only one"])
    with pytest.raises(ValueError, match="Line 4 of the input has one column.*pairs"):
        predict.predict_file(predictor, str(tmp_path / "in.tsv"), str(output))
