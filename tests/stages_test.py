"""What can be known before the first step is said before the teacher is asked, in one line."""

import json
import re
import shutil

import pytest

from tests import tiny
from tests.small_task import BILSTM, ENCODER, OPTIONS, encoder_folder, stage, student_recipe
from xdistil_tf import stages, updates
from xdistil_tf.bound_data import BoundData
from xdistil_tf.data import synthetic
from xdistil_tf.data.tokenization import load_tokenizer
from xdistil_tf.run import run

pytest_plugins = ["tests.small_task"]

REPRESENTATION = [{"loss": "mean_squared_error", "output": "representation"}]
SIZES = {name: value for name, value in ENCODER.items() if "num" in name or "size" in name}
LABELLED = stage(name="labels", data="train", objective=[{"loss": "task"}])


class Asked(Exception):
    """The teacher's pass has begun."""


@pytest.fixture
def begin(small, tmp_path, monkeypatch):
    """Starts a run that ends where the teacher is asked."""

    def settle(*arguments):
        raise Asked

    monkeypatch.setattr(stages.Teaching, "settle", settle)

    def call(config, data=None, **changes):
        bound = {"teacher": small.teacher, "options": OPTIONS} | changes
        run(config, data or small.data(), tmp_path / "run", **bound)

    return call


def frozen(**embedding):
    return BILSTM | {"embedding": BILSTM["embedding"] | {"trainable": False} | embedding}


@pytest.mark.parametrize(
    ("fields", "model", "message"),
    [
        ({"evaluate": {"keep_best": "acuracy"}}, {}, "cannot select by 'acuracy'.*'accuracy'"),
        ({"evaluate": {"keep_best": "pearson"}}, {}, "cannot select by 'pearson'.*'macro_f1'"),
        ({"optimizer": {"warmup_steps": 4}}, {}, "'last': Expected a warm-up shorter.*of 4 steps"),
        (
            {"objective": REPRESENTATION, "train": ["head", "projection"]},
            {},
            r"'last' trains \['head', 'projection'\].*does not reach \['head'\]",
        ),
        (
            {"objective": REPRESENTATION},
            {"projection_dim": 16},
            r"'last': Term .*teacher's 'representation', \(None, 32\). Received: \(None, 16\)",
        ),
        ({"data": "heldout", "evaluate": {}}, {}, "'last' trains and selects on .*heldout-00000"),
        ({"train": ["head", "embedding"]}, frozen(), "'last' trains 'embedding', which the model"),
        ({"unfreeze": ["head", "embedding"]}, frozen(), "'last' trains 'embedding', which the"),
    ],
)
@pytest.mark.parametrize("mode", ["cached", "live"])
def test_what_does_not_fit_is_refused_before_the_teacher_is_asked(
    begin, fields, model, message, mode
):
    last = stage(**{"name": "last"} | fields)
    config = student_recipe(stage(), last, model=BILSTM | model, teacher={"mode": mode})
    with pytest.raises(ValueError, match=message) as refused:
        begin(config)
    assert "\n" not in str(refused.value)


def test_a_given_cache_of_another_width_is_refused(small, small_cache, tmp_path):
    config = student_recipe(stage(objective=REPRESENTATION), model=BILSTM | {"projection_dim": 16})
    with pytest.raises(ValueError, match=r"Stage 'logits': Term .*\(None, 32\).*\(None, 16\)"):
        run(
            config,
            small.data(),
            tmp_path,
            teacher=small.teacher,
            teacher_cache=str(small_cache.folder),
            options=OPTIONS,
        )
    assert not (tmp_path / "01_logits").exists()


def test_the_stages_are_logged_before_the_teacher_is_asked(begin, monkeypatch):
    lines = []
    monkeypatch.setattr(stages.logging, "info", lambda text, *values: lines.append(text % values))
    with pytest.raises(Asked):
        begin(student_recipe(stage(unfreeze="top_down"), model=frozen()))
    assert [line.split(":")[0] for line in lines if line.startswith("Stage ")] == [
        "Stage 1 logits.1_head", "Stage 2 logits.2_projection", "Stage 3 logits.3_bilstm",
    ]  # fmt: skip


def test_stages_are_logged_with_what_their_objectives_reach(begin, monkeypatch, tmp_path):
    lines = []
    monkeypatch.setattr(stages.logging, "info", lambda text, *values: lines.append(text % values))
    (tmp_path / "run" / "03_done").mkdir(parents=True)
    (tmp_path / "run" / "03_done" / "stage.json").touch()
    config = student_recipe(
        stage(name="all"), stage(name="some", objective=REPRESENTATION), stage(name="done")
    )
    with pytest.raises(Asked):
        begin(config)
    first, second, third, total = [line for line in lines if "tage" in line or "pdates" in line]
    counts = [int(re.search(r"\((\d+) parameters\)", line)[1]) for line in (first, second)]
    assert "trains all parts (" in first and "trains all parts but head (" in second
    assert counts[0] - counts[1] == 32 * 2 + 2
    assert third == "Stage 3 done is finished already."
    assert total == "At most 8 updates are to be done."


@pytest.fixture
def unlabelled(small, tmp_path):
    """Data whose transfer and held-out records are known to have no labels."""
    folder = shutil.copytree(small.info.folder, tmp_path / "records")
    content = json.loads((folder / "task.json").read_text())
    for name, split in content["splits"].items():
        split["labelled"] = 0 if name in ("transfer", "heldout") else split["records"]
    (folder / "task.json").write_text(json.dumps(content))
    return {name: f"{folder}/{name}-*" for name in ("train", "transfer", "heldout")}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"objective": [{"loss": "task"}]}, "'last' trains by labels, and no record of .*transfer"),
        ({"evaluate": {"keep_best": "accuracy"}}, "'last' selects by labels.*heldout-00000"),
        (LABELLED | {"evaluate": {}}, "'labels' selects by labels.*heldout-00000"),
    ],
)
def test_labels_are_not_read_from_data_without_labels(begin, unlabelled, fields, message):
    with pytest.raises(ValueError, match=message):
        begin(student_recipe(stage(**{"name": "last"} | fields)), unlabelled)


def test_data_that_do_not_count_their_labels_may_have_some(begin, unlabelled, tmp_path):
    path = tmp_path / "records" / "task.json"
    content = json.loads(path.read_text())
    for split in content["splits"].values():
        del split["labelled"]
    path.write_text(json.dumps(content))
    bound = BoundData(unlabelled)
    assert not bound.without_labels(bound.sets["transfer"])
    with pytest.raises(Asked):
        begin(student_recipe(stage(objective=[{"loss": "task"}])), unlabelled)


def test_a_recipe_of_another_length_than_the_records_is_refused(begin):
    with pytest.raises(ValueError, match="max_seq_length=8, .* with 32.*--set max_seq_length=32"):
        begin(student_recipe(max_seq_length=8))


def test_records_longer_than_the_model_takes_are_refused(begin):
    model = {"kind": "encoder", "max_position_embeddings": 16} | SIZES
    config = student_recipe(LABELLED, model=model, teacher=None)
    with pytest.raises(ValueError, match="record of .* tokens, the model takes 16"):
        begin(config, teacher=None)


@pytest.fixture
def other_tokenizer(small, tmp_path):
    synthetic.train_wordpiece([small.task_dir / "dev.tsv"], 300, tmp_path / "tokenizer")
    return load_tokenizer(tmp_path / "tokenizer")


def test_a_teacher_of_another_tokenizer_is_refused(begin, small, other_tokenizer, tmp_path):
    head = {"kind": "classification", "num_labels": 2}
    teacher = encoder_folder(tmp_path / "other", other_tokenizer, head, small.info.labels)
    with pytest.raises(ValueError, match="teacher .*other reads other ids"):
        begin(student_recipe(), teacher=teacher)


def test_a_teacher_of_another_order_of_labels_is_refused(begin, small, tmp_path):
    head, labels = {"kind": "classification", "num_labels": 2}, small.info.labels[::-1]
    teacher = encoder_folder(tmp_path / "other", small.tokenizer, head, labels)
    with pytest.raises(ValueError, match="(?i)labels|classes"):
        begin(student_recipe(), teacher=teacher)


def test_an_init_checkpoint_of_another_tokenizer_is_refused(begin, other_tokenizer, tmp_path):
    source = encoder_folder(tmp_path / "other", other_tokenizer)
    config = student_recipe(LABELLED, model={"kind": "encoder"}, teacher=None)
    with pytest.raises(ValueError, match="init_checkpoint .*other reads other ids"):
        begin(config, teacher=None, init_checkpoint=source)


@pytest.mark.parametrize("replicas", [1, 2])
def test_what_an_objective_reaches_is_found_without_computing(replicas):
    import tensorflow as tf

    from xdistil_tf import recipe
    from xdistil_tf.objective import Objective
    from xdistil_tf.teachers import CachedTeacher

    strategy = tiny.two_replicas() if replicas == 2 else tf.distribute.get_strategy()
    with strategy.scope():
        model = tiny.TinyModel()
    term = recipe.Term(**REPRESENTATION[0])
    teacher = CachedTeacher({"representation": None})
    objective = Objective([term], "classification", model.available, teacher.available)
    batch = tiny.ArrayData().dataset(0, 1, 1, 1).element_spec
    found = updates.reached_variables(model, objective, batch, strategy, teacher)
    assert found == {"embedding"}
