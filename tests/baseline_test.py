"""The baseline has the student's updates, its time, and a learning rate of its own."""

import shutil

import pytest

from tests.small_task import stage, student_recipe
from xdistil_tf import baseline, files, recipe

CONFIG = student_recipe(
    stage(),
    stage(
        name="labels",
        data="train",
        objective=[{"loss": "task"}],
        optimizer={"name": "adam", "learning_rate": 3e-4, "schedule": "cosine"},
        evaluate={"data": "heldout", "keep_best": "objective", "patience": 3},
    ),
    seed=5,
)
STUDENT = {"seconds": 10.0, "stages": [{"steps": 60}, {"steps": 40}]}


def trainer_of(seconds, values=None):
    """A `train` that takes so many seconds a step, and the held-out value of a learning rate."""

    def train(config, folder):
        (only,) = config.stages
        train.steps.append(only.steps)
        # A finished run is there already when the same call comes again.
        (folder / "01_labels_only").mkdir(parents=True, exist_ok=True)
        best = (values or {}).get(only.optimizer.learning_rate, 0.5)
        one = {"steps": only.steps, "key": "accuracy", "best": best}
        return {"seconds": round(only.steps * next(seconds), 2), "stages": [one]}

    train.steps = []
    return train


def test_the_baseline_is_one_stage_on_all_parts():
    (only,) = baseline.labels_only_recipe(CONFIG, 77).stages
    assert only.steps == 77 and only.train is None and only.unfreeze is None
    assert [term.loss for term in only.objective] == ["task"]
    assert only.optimizer == CONFIG.stages[-1].optimizer
    assert only.evaluate.keep_best == "task" and only.evaluate.patience is None
    (other,) = baseline.labels_only_recipe(CONFIG, 77, 0.01).stages
    assert other.optimizer == only.optimizer.model_copy(update={"learning_rate": 0.01})
    assert baseline.labels_only_recipe(CONFIG, 77).model == CONFIG.model


def test_the_baseline_is_selected_and_drawn_as_the_student():
    plain = recipe.to_plain(CONFIG)
    plain["stages"][-1] |= {
        "language_temperature": 2.0, "evaluate": {"data": "heldout", "keep_best": "macro"},
    }  # fmt: skip
    (only,) = baseline.labels_only_recipe(recipe.Recipe.model_validate(plain), 77).stages
    assert only.evaluate.keep_best == "macro" and only.language_temperature == 2.0


def test_a_slow_baseline_is_trained_once(tmp_path):
    train = trainer_of(iter([0.1]))
    (run,) = baseline.train_baseline(CONFIG, STUDENT, tmp_path, (), train)
    assert train.steps == [100]
    assert run.folder == tmp_path and run.learning_rate == 3e-4
    assert run.summary["seconds"] == 10.0 and run.summary["shorter_runs"] == []


def test_the_baseline_is_trained_again_until_it_has_the_students_time(tmp_path):
    """The second run has 1.1 times the steps it should need, but each of them takes less time."""
    train = trainer_of(iter([0.05, 0.04, 0.05]))
    (run,) = baseline.train_baseline(CONFIG, STUDENT, tmp_path, (), train)
    assert train.steps == [100, 221, 276]
    assert run.summary["steps"] == 276 and run.summary["seconds"] == 13.8
    assert run.summary["shorter_runs"] == [
        {"steps": 100, "seconds": 5.0, "best": 0.5},
        {"steps": 221, "seconds": 8.84, "best": 0.5},
    ]
    assert (tmp_path / "shorter_runs" / "221_steps").is_dir()


def test_the_baseline_is_trained_four_times_at_most(tmp_path):
    train = trainer_of(iter([0.05, 0.02, 0.01, 0.005]))
    (run,) = baseline.train_baseline(CONFIG, STUDENT, tmp_path, (), train)
    assert len(train.steps) == 4 and len(run.shorter_runs) == 3
    assert run.summary["seconds"] < STUDENT["seconds"]


def test_a_killed_baseline_goes_on_with_its_longer_run(tmp_path):
    def killed(config, folder):
        if config.stages[0].steps > 100:
            raise KeyboardInterrupt
        return trainer_of(iter([0.05]))(config, folder)

    with pytest.raises(KeyboardInterrupt):
        baseline.train_baseline(CONFIG, STUDENT, tmp_path, (), killed)
    assert files.read_json(tmp_path / "steps.json")["steps"] == 221
    train = trainer_of(iter([0.05]))
    (run,) = baseline.train_baseline(CONFIG, STUDENT, tmp_path, (), train)
    assert train.steps == [221]
    assert [one["steps"] for one in run.shorter_runs] == [100]


VALUES = {1e-2: 0.6, 1e-3: 0.8, 1e-4: 0.7}


def test_the_best_learning_rate_by_held_out_value_is_trained_on(tmp_path):
    train = trainer_of(iter([0.05] * 5), VALUES)
    runs = baseline.train_baseline(CONFIG, STUDENT, tmp_path, tuple(VALUES), train)
    assert [run.learning_rate for run in runs] == [1e-3, 1e-4, 1e-2]
    assert [run.folder.name for run in runs] == [
        "learning_rate_0.001", "learning_rate_0.0001", "learning_rate_0.01",
    ]  # fmt: skip
    # Compared at the student's number of updates; the best alone gets the student's time.
    assert train.steps == [100, 100, 100, 100, 221]
    assert runs[0].summary["seconds"] >= STUDENT["seconds"]


def test_a_learning_rate_that_was_chosen_stays(tmp_path):
    train = trainer_of(iter([0.05] * 5), VALUES)
    baseline.train_baseline(CONFIG, STUDENT, tmp_path, tuple(VALUES), train)
    shutil.rmtree(tmp_path / "learning_rate_0.001" / "01_labels_only")
    shutil.rmtree(tmp_path / "learning_rate_0.01" / "01_labels_only")
    again = trainer_of(iter([0.05] * 3), {1e-2: 0.9})
    runs = baseline.train_baseline(CONFIG, STUDENT, tmp_path, (1e-2, 1e-3), again)
    assert [run.learning_rate for run in runs] == [1e-3, 1e-2]
    assert again.steps == [100, 221]


def test_a_recipe_without_labels_gives_its_last_stage():
    config = recipe.Recipe.model_validate(recipe.to_plain(CONFIG) | {"stages": [stage()]})
    (only,) = baseline.labels_only_recipe(config, 9).stages
    assert only.batch_size == 16 and only.evaluate.data == "heldout"
