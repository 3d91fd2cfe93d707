"""Runs in process: stages of every kind, selection, bindings, what a run folder holds."""

import json

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import ops

from tests import tiny
from tests.small_task import (
    BILSTM,
    OPTIONS,
    RECORDS,
    stage,
    student_recipe,
    without_test,
)
from xdistil_tf import recipe, trainer
from xdistil_tf import run as run_module
from xdistil_tf.data.task_records import create_task_records
from xdistil_tf.models import folders
from xdistil_tf.run import run
from xdistil_tf.strategies import Worker

pytest_plugins = ["tests.small_task"]

# Without dropout, whose masks belong to a slice; epsilon keeps Adam from blowing up last bits.
OPTIMIZER = {"learning_rate": 0.01, "epsilon": 1e-3}
KINDS = [
    stage(
        name="representation",
        objective=[{"loss": "mean_squared_error", "output": "representation"}],
        steps=3,
        optimizer=OPTIMIZER,
    ),
    stage(steps=3, train=["head", "projection", "bilstm"], optimizer=OPTIMIZER),
    stage(name="labels", data="train", objective=[{"loss": "task"}], steps=3, optimizer=OPTIMIZER),
]
MODEL = BILSTM | {"dropout": 0.0}


def weights(folder):
    model = folders.load_model(folders.find(str(folder)))
    return {name: variable.numpy() for name, variable in model.named_variables().items()}


def arguments(small, small_cache, **changes):
    return {
        "teacher": small.teacher,
        "teacher_cache": str(small_cache.folder),
        "options": OPTIONS,
    } | changes


def assert_close(left, right, tolerance=2e-5):
    for name in left:
        np.testing.assert_allclose(left[name], right[name], atol=tolerance, err_msg=name)


def test_a_run_leaves_no_model_in_memory(small, small_cache, tmp_path):
    before = set(ops.gradient_registry.list())
    run(student_recipe(KINDS[1]), small.data(), tmp_path, **arguments(small, small_cache))
    added = set(ops.gradient_registry.list()) - before
    assert not [name for name in added if name.startswith("CustomGradient-")]


def test_replicas_and_micro_batches_change_nothing(small, small_cache, tmp_path):
    """Representation, logits and labels, with a batch that two replicas share unevenly."""
    stages = [one | {"batch_size": 15} for one in KINDS]
    config = student_recipe(*stages, model=MODEL)
    common = arguments(small, small_cache)
    run(config, small.data(), tmp_path / "one", **common)
    run(config, small.data(), tmp_path / "two", strategy=tiny.two_replicas(), **common)
    accumulated = trainer.TrainerOptions(
        steps_per_loop=3, gradient_accumulation=2, progress=False, checkpoint_interval=2
    )
    run(config, small.data(), tmp_path / "micro", **common | {"options": accumulated})
    one = weights(tmp_path / "one")
    assert_close(one, weights(tmp_path / "two"))
    assert_close(one, weights(tmp_path / "micro"))


def test_a_live_and_a_cached_teacher_train_the_same_student(small, small_cache, tmp_path):
    cached = student_recipe(*KINDS[:2], model=MODEL)
    live = student_recipe(*KINDS[:2], model=MODEL, teacher={"mode": "live"})
    run(cached, small.data(), tmp_path / "cached", **arguments(small, small_cache))
    run(live, small.data(), tmp_path / "live", **arguments(small, small_cache, teacher_cache=None))
    assert not (tmp_path / "live" / "cache").exists()
    assert_close(weights(tmp_path / "cached"), weights(tmp_path / "live"), 2e-3)


def test_unfreezing_changes_only_the_parts_that_are_free(small, small_cache, tmp_path):
    order = ["head", "projection", "bilstm", "embedding"]
    config = student_recipe(stage(unfreeze=order, steps=1))
    result = run(config, small.data(), tmp_path, **arguments(small, small_cache))
    assert [one["name"] for one in result["stages"]] == [
        "logits.1_head", "logits.2_projection", "logits.3_bilstm", "logits.4_embedding",
    ]  # fmt: skip
    import safetensors.numpy

    def read(name):
        return safetensors.numpy.load_file(tmp_path / name / "weights" / "tensors.safetensors")

    before = read("00_start")
    for number, name in enumerate(order, start=1):
        after = read(f"{number:02d}_logits.{number}_{name}")
        changed = {n.split("/")[0] for n in after if not np.array_equal(before[n], after[n])}
        assert changed == set(order[:number])
        before = after


def test_reinitialising_draws_a_part_anew(small, small_cache, tmp_path):
    config = student_recipe(
        stage(steps=1, train=["head"]),
        stage(name="again", steps=1, train=["head"], reinitialise=["bilstm"]),
    )
    run(config, small.data(), tmp_path, **arguments(small, small_cache))
    import safetensors.numpy

    first, second = (
        safetensors.numpy.load_file(tmp_path / name / "weights/tensors.safetensors")
        for name in ("01_logits", "02_again")
    )
    changed = {n.split("/")[0] for n in first if not np.array_equal(first[n], second[n])}
    assert changed == {"head", "bilstm"}


def test_a_run_folder_holds_what_the_documents_say(trained):
    names = {path.name for path in trained.iterdir()}
    assert names == {"recipe.yaml", "run.json", "00_start", "01_logits", "02_labels", "model"}
    content = json.loads((trained / "run.json").read_text())
    assert {"bindings", "versions", "seed", "stages", "fingerprint"} <= set(content)
    assert set(content["bindings"]) == {"data", "teacher", "teacher_cache", "init_checkpoint"}
    stage_names = {path.name for path in (trained / "01_logits").iterdir()}
    assert "stage.json" in stage_names and "checkpoints" not in stage_names
    assert any(name.startswith("events.out.tfevents") for name in stage_names)
    model = {path.name for path in (trained / "model").iterdir()}
    assert {"config.json", "model.safetensors", "labels.json", "tokenizer.json"} <= model
    labels = json.loads((trained / "model" / "labels.json").read_text())
    assert {"task_type", "labels", "metric", "pair"} <= set(labels)


def test_curves_and_samples_are_in_tensorboard(trained):
    found = set()
    for path in (trained / "01_logits").glob("events*"):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            found |= {value.tag for value in event.summary.value}
    for tag in (
        "terms/mean_squared_error", "weighted_terms/mean_squared_error", "loss", "learning_rate",
        "gradient_norm", "examples_per_second", "tokens_per_second", "heldout/objective",
        "heldout/accuracy", "sample predictions",
    ):  # fmt: skip
        assert any(tag in one for one in found), (tag, sorted(found))


@pytest.mark.parametrize(
    ("split", "field", "message"),
    [
        ("test", "heldout", "selects on 'test', the split that is reported"),
        ("test", "transfer", "trains on 'test', the split that is reported"),
    ],
)
def test_the_reported_split_neither_selects_nor_trains(
    small, small_cache, tmp_path, split, field, message
):
    """Whatever name it is bound to."""
    data = small.data() | {field: small.info.pattern(split)}
    config = student_recipe(stage(evaluate={}))
    with pytest.raises(ValueError, match=message):
        run(config, data, tmp_path, **arguments(small, small_cache))


def test_dev_may_select_where_a_labelled_test_reports(small, small_cache, tmp_path):
    assert small.info.report == "test"
    config = student_recipe(
        stage(name="labels", data="train", objective=[{"loss": "task"}], evaluate={"data": "dev"})
    )
    data = small.data() | {"dev": small.info.pattern("dev")}
    result = run(config, data, tmp_path, **arguments(small, small_cache))
    assert result["stages"][0]["metrics"]["objective"] > 0


def test_dev_may_not_select_where_dev_reports(small, tmp_path):
    folder = without_test(small, tmp_path / "task")
    info = create_task_records(
        folder, "classification", small.tokenizer, tmp_path / "records", None, RECORDS
    )
    assert info.report == "dev"
    config = student_recipe(
        stage(name="labels", data="train", objective=[{"loss": "task"}], evaluate={"data": "dev"}),
        teacher=None,
    )
    data = {name: info.pattern(name) for name in ("train", "dev")}
    with pytest.raises(ValueError, match="selects on 'dev', the split that is reported"):
        run(config, data, tmp_path / "run", options=OPTIONS)


def test_heldout_texts_are_in_no_data_that_trains(small):
    def texts(split):
        records = small.records(split)
        from xdistil_tf.data.records import decode_example

        return {
            tuple(decode_example(records.read(n), "")["input_ids"]) for n in range(len(records))
        }

    heldout = texts("heldout")
    assert len(heldout) >= 40
    for split in ("train", "transfer"):
        assert not heldout & texts(split)
    assert not texts("train") & (texts("dev") | texts("test"))
    assert not texts("transfer") & (texts("dev") | texts("test"))


def test_a_name_without_data_is_an_error(small, small_cache, tmp_path):
    data = {"train": small.info.pattern("train")}
    with pytest.raises(ValueError, match="'logits' reads the data 'transfer', to which nothing is"):
        run(student_recipe(), data, tmp_path, **arguments(small, small_cache))


def test_records_of_different_labels_are_refused(small, tmp_path):
    from xdistil_tf.data import synthetic

    synthetic.generate_task(
        tmp_path / "task", num_train=100, num_dev=9, num_test=9, num_transfer=0, num_classes=3
    )
    other = create_task_records(
        tmp_path / "task", "classification", small.tokenizer, tmp_path / "records", None, RECORDS
    )
    data = small.data() | {"heldout": other.pattern("heldout")}
    with pytest.raises(ValueError, match="records with different labels"):
        run_module.BoundData(data)


def test_a_given_cache_must_fit(small, small_cache, tmp_path):
    terms = [{"loss": "mean_squared_error", "output": "representation"}]
    config = student_recipe(stage(objective=terms), teacher={"layer": 1})
    with pytest.raises(ValueError, match="compares layer 1 .teacher.layer.*holds layer 2"):
        run(config, small.data(), tmp_path / "a", **arguments(small, small_cache))
    other = make_cache_of_train(small, tmp_path / "cache")
    with pytest.raises(ValueError, match="was not made from the records .*transfer"):
        run(
            student_recipe(),
            small.data(),
            tmp_path / "b",
            **arguments(small, small_cache, teacher_cache=str(other.folder)),
        )


def make_cache_of_train(small, folder):
    from xdistil_tf import cache, teaching

    teacher = teaching.load_teacher(small.teacher, -1, False)
    spec = teaching.cache_spec(
        small.teacher, teacher, {"logits": None}, "float16", small.tokenizer.fingerprint
    )
    return cache.write_cache(teacher, spec, [small.records("train")], folder)


def test_terms_without_a_teacher_are_refused(small, tmp_path):
    config = student_recipe(stage(), teacher=None)
    with pytest.raises(ValueError, match="Stage 'logits': .*teacher"):
        run(config, small.data(), tmp_path, options=OPTIONS)
    config = student_recipe(
        stage(name="x", data="train", objective=[{"loss": "task"}]), teacher=None
    )
    with pytest.raises(ValueError, match="A teacher was given, but the recipe has none"):
        run(config, small.data(), tmp_path, teacher=small.teacher, options=OPTIONS)


def test_auto_makes_a_cache_where_the_disk_allows(small, tmp_path, monkeypatch):
    from xdistil_tf import teaching

    config = student_recipe(stage(steps=1), teacher={"mode": "auto"})
    run(config, small.data(), tmp_path / "a", teacher=small.teacher, options=OPTIONS)
    assert (tmp_path / "a" / "cache" / "cache.json").is_file()
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr(teaching.shutil, "disk_usage", lambda path: usage)
    run(config, small.data(), tmp_path / "b", teacher=small.teacher, options=OPTIONS)
    assert not (tmp_path / "b" / "cache" / "cache.json").exists()


def test_the_observed_vocabulary_is_smaller_and_resumes(small, tmp_path):
    model = BILSTM | {"embedding": {"source": "teacher", "dim": 8, "vocabulary": "observed"}}
    config = student_recipe(stage(steps=1), model=model)
    run(config, small.data(), tmp_path, teacher=small.teacher, options=OPTIONS)
    config_file = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config_file["remap"] and config_file["embedding_rows"] <= config_file["vocab_size"]
    run(config, small.data(), tmp_path, teacher=small.teacher, options=OPTIONS)


@pytest.mark.parametrize("precision", ["bfloat16", "mixed_float16"])
def test_other_precisions_train(small, small_cache, tmp_path, precision):
    config = recipe.Recipe.model_validate(
        recipe.to_plain(student_recipe(*KINDS[1:])) | {"precision": precision}
    )
    result = run(config, small.data(), tmp_path, **arguments(small, small_cache))
    assert all(np.isfinite(one["loss"]) for one in result["stages"])
    assert all(value.dtype != np.float16 for value in weights(tmp_path).values())


def test_pretraining_records_of_different_tokenizers_are_refused(small, tmp_path):
    from xdistil_tf.data import pretraining, synthetic

    synthetic.generate_corpus(tmp_path / "corpus.txt", 60)
    data = {}
    for name, size in (("corpus", 300), ("heldout", 310)):
        tokenizer = synthetic.train_wordpiece(
            [tmp_path / "corpus.txt"], size, tmp_path / f"tokenizer_{name}"
        )
        folder = tmp_path / f"records_{name}"
        pretraining.write_pretraining_records(tmp_path / "corpus.txt", tokenizer, folder, 32, 5)
        data[name] = f"{folder}/train-*"
    with pytest.raises(ValueError, match="2 different tokenizers: .*records_corpus.*Create them"):
        run_module.BoundData(data)
    run_module.BoundData({"corpus": data["corpus"], "again": data["corpus"]})


def test_a_worker_that_is_gone_before_the_first_step_is_one_line(small, tmp_path, monkeypatch):
    def gone(*arguments):
        raise tf.errors.UnavailableError(None, None, "Socket closed")

    monkeypatch.setattr(run_module.Start, "model", gone)
    monkeypatch.setattr(run_module.strategies, "worker_of", lambda _: Worker(0, 2))
    config = student_recipe(teacher={"mode": "live"})
    with pytest.raises(ConnectionError, match="Worker 0 of 2 lost another one. Start all of them"):
        run(config, small.data(), tmp_path, teacher=small.teacher, options=OPTIONS)
