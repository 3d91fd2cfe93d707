"""Killed runs go on bit for bit; damaged checkpoints are skipped; changed stages are refused."""

import concurrent.futures
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import yaml

from tests.small_task import OPTIONS, encoder_folder, make_cache, stage, student_recipe
from xdistil_tf import (
    cache,
    checkpoints,
    files,
    optimizers,
    recipe,
    recipe_files,
    stage_scorer,
    trainer,
)
from xdistil_tf.checkpoints import StageFolder
from xdistil_tf.interruption import Interrupted, Interruption
from xdistil_tf.run import run

pytest_plugins = ["tests.small_task"]

# bin/train.py, which sends itself a signal when a loop ends at a step of a stage.
DRIVER = """
import os, sys
stage, step, number = sys.argv.pop(1).split(":")
from xdistil_tf import trainer
loop = trainer._StageRun._run_loop
def run_loop(self, *arguments):
    loop(self, *arguments)
    if self._stage.name == stage and self._step == int(step):
        os.kill(os.getpid(), int(number))
trainer._StageRun._run_loop = run_loop
from xdistil_tf.bin import train
train.run()
"""
PLAIN = "from xdistil_tf.bin import train; train.run()"
EVALUATE = {"data": "heldout", "every_steps": 2}
CONFIG = student_recipe(
    stage(
        name="representation",
        objective=[{"loss": "mean_squared_error", "output": "representation"}],
        steps=5,
        evaluate=EVALUATE,
    ),
    stage(steps=5, train=["head", "projection"], evaluate=EVALUATE),
    stage(
        name="labels",
        data="train",
        objective=[{"loss": "task"}],
        steps=5,
        optimizer={"name": "adamw", "schedule": "linear"},
        evaluate=EVALUATE | {"keep_best": "task"},
    ),
)
STAGES = ("representation", "logits", "labels")


class Commands:
    """Runs the train binary in processes of their own."""

    def __init__(self, small, cache_folder, folder: pathlib.Path):
        self.folder = folder
        (folder / "recipe.yaml").write_text(CONFIG.to_yaml(), encoding="utf-8")
        data = [f"--data={name}={pattern}" for name, pattern in small.data().items()]
        self._flags = [
            f"--recipe={folder}/recipe.yaml",
            *data,
            f"--teacher={small.teacher}",
            f"--teacher_cache={cache_folder}",
            "--steps_per_loop=1",
            "--checkpoint_interval=2",
        ]

    def train(self, name: str, replicas: int, disturbance: str | None = None):
        flags = [*self._flags, f"--model_dir={self.folder / name}"]
        if replicas == 2:
            flags += ["--distribution_strategy=mirrored", "--num_replicas=2"]
        program = [DRIVER, disturbance] if disturbance else [PLAIN]
        return subprocess.run(
            [sys.executable, "-c", *program, *flags],
            capture_output=True,
            text=True,
            timeout=300,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            check=False,
        )

    def weights(self, name: str) -> bytes:
        return (self.folder / name / "model" / "model.safetensors").read_bytes()

    def stage_weights(self, name: str, stage_folder: str) -> bytes:
        return (self.folder / name / stage_folder / "weights/tensors.safetensors").read_bytes()

    def disturbed(self, name: str, replicas: int, disturbances: list[str]):
        """One process after the other in one run folder, each but the last disturbed."""
        done = []
        for disturbance in [*disturbances, None]:
            done.append(self.train(name, replicas, disturbance))
            if disturbance and (self.folder / name / "model").exists():
                raise AssertionError(f"not disturbed at {disturbance}: {done[-1].stderr}")
        return done


@pytest.fixture(scope="module")
def commands(small, small_cache, tmp_path_factory):
    return Commands(small, small_cache.folder, tmp_path_factory.mktemp("resume"))


@pytest.fixture(scope="module")
def outcomes(commands):
    """With 1 and 2 replicas: an undisturbed process, and a run killed once in every stage.

    Step 3 lies one update behind the checkpoint of step 2. The run of one replica is told to
    terminate once as well, by SIGTERM at step 3 of the second stage, where no checkpoint is due.
    """
    kills = [f"{name}:3:{int(signal.SIGKILL)}" for name in STAGES]
    ends = [*kills[:2], f"logits:3:{int(signal.SIGTERM)}", kills[2]]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        jobs = {
            1: pool.submit(commands.disturbed, "disturbed_1", 1, ends),
            2: pool.submit(commands.disturbed, "disturbed_2", 2, kills),
            "undisturbed_1": pool.submit(commands.train, "undisturbed_1", 1),
            "undisturbed_2": pool.submit(commands.train, "undisturbed_2", 2),
        }
        done = {name: job.result() for name, job in jobs.items()}
    for replicas in (1, 2):
        result = done[f"undisturbed_{replicas}"]
        assert result.returncode == 0, result.stderr
        assert done[replicas][-1].returncode == 0, done[replicas][-1].stderr
    return done


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("name", STAGES)
def test_a_stage_that_was_killed_ends_with_identical_weights(commands, outcomes, name, replicas):
    number = STAGES.index(name)
    place = number + (replicas == 1 and name == "labels")
    killed, again = outcomes[replicas][place : place + 2]
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert f"Stage {name} goes on at step 2" in again.stderr
    folder = f"{number + 1:02d}_{name}"
    undisturbed = commands.stage_weights(f"undisturbed_{replicas}", folder)
    assert commands.stage_weights(f"disturbed_{replicas}", folder) == undisturbed
    assert commands.weights(f"disturbed_{replicas}") == commands.weights(f"undisturbed_{replicas}")


def test_sigterm_saves_exits_with_42_and_the_same_command_goes_on(outcomes):
    terminated, again = outcomes[1][2:4]
    assert terminated.returncode == 42, terminated.stderr
    message = terminated.stderr.strip().splitlines()[-1]
    assert message == ("error: Stopped in stage logits at step 3. Run the same command to go on.")
    assert "Traceback" not in terminated.stderr
    assert "Stage logits goes on at step 3" in again.stderr


# In process: everything else about folders of stages.

SHORT = student_recipe(
    stage(steps=6, evaluate=EVALUATE | {"patience": 10}),
    stage(name="labels", data="train", objective=[{"loss": "task"}], steps=2),
)


@pytest.fixture
def train(small, small_cache, tmp_path):
    """`train(config=..., teacher=..., data=...)` in one run folder."""

    def call(config=SHORT, folder="run", **changes):
        arguments = {
            "teacher": small.teacher,
            "teacher_cache": str(small_cache.folder),
            "options": OPTIONS,
        } | changes
        data = arguments.pop("data", small.data())
        return run(config, data, tmp_path / folder, **arguments)

    return call


class Crash(Exception):
    """Stands for SIGKILL."""


@pytest.fixture
def crash_at(monkeypatch):
    """Raises when a loop ends at this step of the first stage, once."""

    def arrange(step):
        original, armed = trainer._StageRun._run_loop, [True]

        def run_loop(self, *arguments):
            original(self, *arguments)
            if armed and self._step == step:
                armed.clear()
                raise Crash

        monkeypatch.setattr(trainer._StageRun, "_run_loop", run_loop)

    return arrange


def weights_of(folder) -> bytes:
    return (folder / "model" / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def undisturbed(small, small_cache, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    result = run(
        SHORT,
        small.data(),
        folder,
        teacher=small.teacher,
        teacher_cache=str(small_cache.folder),
        options=OPTIONS,
    )
    return result, weights_of(folder)


def without_seconds(stages):
    return [{k: v for k, v in one.items() if k not in ("seconds", "fingerprint")} for one in stages]


@pytest.mark.parametrize(
    "target", ["000000004", "definition.json", "stage.json", "weights", "model", "run.json"]
)
def test_a_crash_between_write_and_rename_loses_nothing_before(
    train, undisturbed, tmp_path, monkeypatch, target
):
    original = os.replace

    def replace(source, path):
        if pathlib.Path(path).name == target and "00_start" not in str(path):
            raise Crash
        original(source, path)

    monkeypatch.setattr(files.os, "replace", replace)
    with pytest.raises(Crash):
        train()
    monkeypatch.setattr(files.os, "replace", original)
    checkpoint_folder = tmp_path / "run/01_logits/checkpoints"
    if target == "000000004":
        assert [one.name for one in checkpoint_folder.iterdir()] == ["000000002"]
        # What a killed process leaves beside it.
        (checkpoint_folder / ".000000004.1.tmp").mkdir()
    result = train()
    assert weights_of(tmp_path / "run") == undisturbed[1]
    assert without_seconds(result["stages"]) == without_seconds(undisturbed[0]["stages"])


def test_an_interruption_saves_where_it_stops(train, undisturbed, tmp_path, monkeypatch):
    """Once a loop, so the run stops and goes on at every single step."""
    interruption, original = Interruption(), trainer._StageRun._run_loop

    def asked_in_the_loop(self, iterator):
        original(self, iterator)
        interruption.requested = True

    monkeypatch.setattr(trainer._StageRun, "_run_loop", asked_in_the_loop)
    options = trainer.TrainerOptions(steps_per_loop=1, progress=False)
    stops = []
    for _ in range(8):
        interruption.requested = False
        with pytest.raises(Interrupted) as stopped:
            train(options=options, interruption=interruption)
        found = re.search(r"stage (\w+).* step (\d+)", str(stopped.value))
        stops.append((found[1], int(found[2])))
    assert stops == [("logits", step) for step in range(1, 7)] + [("labels", 1), ("labels", 2)]
    train(options=options)
    assert weights_of(tmp_path / "run") == undisturbed[1]


def test_an_interruption_in_an_evaluation_leaves_it_to_the_run_that_goes_on(
    train, undisturbed, tmp_path, monkeypatch
):
    """A stop is asked for in each evaluation once, as the first batch is scored."""
    original, seen = stage_scorer.StageScorer.measure, set()

    def asked_once(self, stop):
        place = len(list((tmp_path / "run").glob("*/stage.json"))), len(seen)
        seen.add(place)
        if sum(one[0] == place[0] for one in seen) % 2:
            interruption.requested = True
        return original(self, stop)

    monkeypatch.setattr(stage_scorer.StageScorer, "measure", asked_once)
    stops = []
    for _ in range(40):
        interruption = Interruption()
        try:
            train(interruption=interruption)
            break
        except Interrupted as stopped:
            stops.append(str(stopped))
    assert any("in the evaluation of step 0" in one for one in stops)
    assert any("in the evaluation of step " in one and "step 0" not in one for one in stops)
    assert weights_of(tmp_path / "run") == undisturbed[1]


def test_large_variables_resume_as_exactly(train, crash_at, tmp_path, monkeypatch):
    """Their update is compiled on its own."""
    monkeypatch.setattr(optimizers, "_LARGE", 1)
    train(folder="whole")
    crash_at(4)
    with pytest.raises(Crash):
        train()
    train()
    assert weights_of(tmp_path / "run") == weights_of(tmp_path / "whole")


def test_a_crash_while_the_teacher_is_cached_changes_nothing(
    train, undisturbed, tmp_path, monkeypatch
):
    original, calls = cache._write_shard, []

    def write_shard(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise Crash
        original(*arguments)

    monkeypatch.setattr(cache, "_write_shard", write_shard)
    with pytest.raises(Crash):
        train(teacher_cache=None)
    train(teacher_cache=None)
    assert weights_of(tmp_path / "run") == undisturbed[1]


@pytest.mark.parametrize("damage", ["cut", "flipped", "no_json", "bad_json", "no_tensors", "best"])
def test_a_damaged_checkpoint_is_skipped_with_a_message(
    train, undisturbed, crash_at, tmp_path, damage, monkeypatch
):
    crash_at(6)
    with pytest.raises(Crash):
        train()
    folder = tmp_path / "run/01_logits"
    newest = sorted((folder / "checkpoints").iterdir())[-1]
    assert newest.name == "000000004"
    tensors = newest / "tensors.safetensors"
    content = tensors.read_bytes()
    if damage == "cut":
        tensors.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        tensors.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    elif damage == "no_json":
        (newest / "checkpoint.json").unlink()
    elif damage == "bad_json":
        (newest / "checkpoint.json").write_text("{", encoding="utf-8")
    elif damage == "no_tensors":
        tensors.unlink()
    else:
        best = json.loads((newest / "checkpoint.json").read_text())["state"]["best_step"]
        shutil.rmtree(folder / "best" / f"{best:09d}")
    messages = []
    monkeypatch.setattr(checkpoints.logging, "warning", lambda *parts: messages.append(parts))
    resumed = []
    original = trainer._StageRun._restore
    monkeypatch.setattr(
        trainer._StageRun,
        "_restore",
        lambda self: (original(self), resumed.append(self._step))[0],
    )
    found = StageFolder(folder, files.read_json(folder / "definition.json")).latest(messages.append)
    assert "Skipping the checkpoint" in messages[0] and str(newest) in messages[0]
    train()
    # Where the best weights are lost, all checkpoints that point to them are.
    assert resumed[0] == (found.step if found else 0) < 4
    assert weights_of(tmp_path / "run") == undisturbed[1]


def test_without_any_complete_checkpoint_the_stage_begins_anew(
    train, undisturbed, crash_at, tmp_path
):
    crash_at(6)
    with pytest.raises(Crash):
        train()
    for path in (tmp_path / "run/01_logits/checkpoints").rglob("tensors.safetensors"):
        path.write_bytes(b"")
    train()
    assert weights_of(tmp_path / "run") == undisturbed[1]


def test_best_value_and_patience_survive(tmp_path):
    """A checkpoint gives back the whole state of selection, and the best weights."""
    definition = {"stage": {"name": "logits"}}
    folder = StageFolder(tmp_path, definition)
    state = {"best": 0.1 + 0.2, "best_step": 2, "without_progress": 3, "stopped": False}
    tensors = {"model/w": np.arange(3, dtype=np.float32)}
    best = {"w": np.ones(3, np.float32)}
    folder.save(2, state, tensors, best)
    folder.save(4, state, tensors)
    folder.save(6, state, tensors)
    found = StageFolder(tmp_path, definition).latest()
    assert (found.step, found.state) == (6, state)
    np.testing.assert_array_equal(found.best["w"], best["w"])
    np.testing.assert_array_equal(found.tensors["model/w"], tensors["model/w"])
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2
    assert len(list((tmp_path / "best").iterdir())) == 1


def test_a_resumed_stage_stops_where_an_undisturbed_one_does(train, crash_at, tmp_path):
    """The learning rate is so high that nothing gets better: patience decides the end."""
    config = student_recipe(
        stage(
            steps=40,
            optimizer={"learning_rate": 30.0, "clip_norm": 1.0},
            evaluate=EVALUATE | {"patience": 3},
        )
    )
    whole = train(config, "whole")
    assert whole["stages"][0]["steps"] < 40
    crash_at(whole["stages"][0]["steps"] - 2)
    with pytest.raises(Crash):
        train(config)
    resumed = train(config)
    assert without_seconds(resumed["stages"]) == without_seconds(whole["stages"])
    assert weights_of(tmp_path / "run") == weights_of(tmp_path / "whole")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            "stages.0.optimizer.learning_rate",
            0.5,
            r"stage.optimizer.learning_rate was 0.001 and .*0.5",
        ),
        ("stages.0.steps", 8, "stage.steps was 6 and is now 8"),
        ("stages.0.objective.0.weight", 2.0, "stage.objective.0.weight was 1.0 and is now 2.0"),
        ("stages.1.batch_size", 8, "02_labels was made with other.* stage.batch_size was 16"),
        ("seed", 7, "seed was 42 and is now 7"),
        ("model.lstm_units", 4, "model.lstm_units was 8 and is now 4"),
    ],
)
def test_a_changed_field_refuses_and_is_named(
    undisturbed, train, small, small_cache, tmp_path, path, value, message
):
    train()
    before = (tmp_path / "run" / "recipe.yaml").read_text()
    plain = recipe_files.apply_overrides(recipe.to_plain(SHORT), [f"{path}={value}"])
    with pytest.raises(ValueError, match=message):
        train(recipe_files.parse_config(recipe.Recipe, plain, "test"))
    assert (tmp_path / "run" / "recipe.yaml").read_text() == before


def test_a_changed_parent_refuses(train, tmp_path):
    """A stage put before a finished one makes it another stage."""
    train()
    shutil.rmtree(tmp_path / "run" / "01_logits")
    plain = recipe.to_plain(SHORT)
    plain["stages"][0]["steps"] = 4
    with pytest.raises(ValueError, match="02_labels was made with other settings: parent was"):
        train(recipe.Recipe.model_validate(plain))


def test_another_data_set_refuses(train, small):
    train()
    data = small.data() | {"transfer": small.info.pattern("train")}
    with pytest.raises(
        ValueError,
        match=r"01_logits was made with other settings: data.train-00000-of-\d+ was unset",
    ):
        train(data=data)


def test_another_teacher_refuses(train, small, tmp_path):
    live = student_recipe(*recipe.to_plain(SHORT)["stages"], teacher={"mode": "live"})
    train(live, teacher_cache=None)
    head = {"kind": "classification", "num_labels": 2}
    other = encoder_folder(
        tmp_path / "other", small.tokenizer, head, small.info.labels, initializer_range=0.1
    )
    with pytest.raises(ValueError, match="01_logits was made with other settings: teacher was"):
        train(live, teacher=other, teacher_cache=None)


def test_another_teacher_layer_refuses(train, small, small_cache, tmp_path):
    terms = [{"loss": "mean_squared_error", "output": "representation"}]
    first = student_recipe(stage(objective=terms, steps=1))
    train(first)
    lower = make_cache(small, tmp_path / "lower", layer=1, representation=None)
    changed = student_recipe(stage(objective=terms, steps=1), teacher={"layer": 1})
    with pytest.raises(ValueError, match="teacher was"):
        train(changed, teacher_cache=str(lower.folder))
    with pytest.raises(ValueError, match="layer 2.*teacher.layer|teacher.layer.*layer 2"):
        train(changed, "other")


def test_a_finished_run_is_not_trained_again(train, undisturbed, tmp_path, monkeypatch):
    train()
    content = weights_of(tmp_path / "run")

    def fail(*arguments):
        raise AssertionError("nothing is left to train")

    monkeypatch.setattr(trainer._StageRun, "_train", fail)
    result = train()
    assert weights_of(tmp_path / "run") == content == undisturbed[1]
    assert without_seconds(result["stages"]) == without_seconds(undisturbed[0]["stages"])


def test_speed_and_logging_may_change(train, tmp_path):
    train()
    options = trainer.TrainerOptions(steps_per_loop=5, checkpoint_interval=3, progress=False)
    train(options=options)


def test_the_resolved_recipe_is_saved(train, tmp_path):
    train()
    content = yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())
    assert recipe.Recipe.model_validate(content) == SHORT
