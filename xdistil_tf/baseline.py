"""The baseline of a distillation: the same student, trained on labels alone.

It gets at least the updates of the student and at least its time, else a comparison of the two
would only tell which one was trained longer.
"""

from __future__ import annotations

import dataclasses
import pathlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from absl import logging

from xdistil_tf import files, recipe

# A schedule runs over all updates, so more of them mean training from the start again.
_LONGER_RUNS = 3


@dataclasses.dataclass(frozen=True)
class BaselineRun:
    """The baseline at one learning rate.

    Attributes:
      folder: Its run folder.
      learning_rate: Of its only stage.
      result: Its `run.json`.
      shorter_runs: `{"steps", "seconds"}` of the runs before it, which took less time than the
        student.
    """

    folder: pathlib.Path
    learning_rate: float
    result: Mapping[str, Any]
    shorter_runs: Sequence[Mapping[str, Any]]

    @property
    def stage(self) -> Mapping[str, Any]:
        """The result of its only stage; `best` is the held-out value of the task's metric."""
        return self.result["stages"][0]

    @property
    def summary(self) -> dict[str, Any]:
        """What the report says of each learning rate."""
        return {
            "learning_rate": self.learning_rate,
            "key": self.stage["key"],
            "best": self.stage["best"],
            "steps": self.stage["steps"],
            "seconds": self.result["seconds"],
            "shorter_runs": [dict(one) for one in self.shorter_runs],
        }


def labels_only_recipe(
    config: recipe.Recipe, steps: int, learning_rate: float | None = None
) -> recipe.Recipe:
    """The baseline of a recipe: one `task` stage on all parts of the same model.

    Optimizer, batch size and selection are those of the recipe's last stage on labels.

    Args:
      config: The student's recipe.
      steps: Updates; at least as many as all stages of the student together.
      learning_rate: In place of that stage's; `None`: the stage's own.
    """
    labelled = [stage for stage in config.stages if stage.data == "train"]
    like = labelled[-1] if labelled else config.stages[-1]
    rate = like.optimizer.learning_rate if learning_rate is None else learning_rate
    evaluate = like.evaluate or recipe.Evaluate()
    stage = recipe.Stage(
        name="labels_only",
        data="train",
        objective=(recipe.Term(loss="task"),),
        steps=steps,
        batch_size=like.batch_size,
        optimizer=like.optimizer.model_copy(update={"learning_rate": rate}),
        # No early stop: the baseline gets all of the updates that the student had.
        evaluate=evaluate.model_copy(update={"keep_best": "task", "patience": None}),
    )
    return config.model_copy(update={"stages": (stage,)})


def train_baseline(
    config: recipe.Recipe,
    student: Mapping[str, Any],
    folder: pathlib.Path,
    learning_rates: Sequence[float],
    train: Callable[[recipe.Recipe, pathlib.Path], dict[str, Any]],
) -> list[BaselineRun]:
    """Trains the baseline at each learning rate; the best by held-out value comes first.

    Args:
      config: The student's recipe.
      student: Its `run.json`.
      folder: The run folder; with several learning rates each has one in it.
      learning_rates: None: that of the recipe's last stage on labels.
      train: `(recipe, folder) -> run.json`; goes on where a killed call was.
    """
    steps = sum(stage["steps"] for stage in student["stages"])
    runs = []
    for rate in learning_rates or (None,):
        place = folder / f"learning_rate_{rate}" if len(learning_rates) > 1 else folder
        runs.append(_long_enough(config, rate, steps, student["seconds"], place, train))
        # Rates are compared at one number of updates, where time allows.
        steps = runs[-1].stage["steps"]
    return sorted(runs, key=lambda one: one.stage["best"], reverse=True)


def _long_enough(
    config: recipe.Recipe,
    rate: float | None,
    steps: int,
    seconds: float,
    folder: pathlib.Path,
    train: Callable[[recipe.Recipe, pathlib.Path], dict[str, Any]],
) -> BaselineRun:
    """Trains with more steps until it takes `seconds`, `_LONGER_RUNS` times at most."""
    path = folder / "steps.json"
    state = files.read_json(path) if path.is_file() else {"steps": steps, "shorter_runs": []}
    while True:
        steps, shorter = state["steps"], state["shorter_runs"]
        plan = labels_only_recipe(config, steps, rate)
        result = train(plan, folder)
        if result["seconds"] >= seconds or len(shorter) == _LONGER_RUNS:
            return BaselineRun(folder, plan.stages[0].optimizer.learning_rate, result, shorter)
        # Seconds are rounded to hundredths.
        state = {
            "steps": int(1.1 * steps * seconds / max(result["seconds"], 0.01)) + 1,
            "shorter_runs": [*shorter, {"steps": steps, "seconds": result["seconds"]}],
        }
        logging.info(
            "The baseline took %.0f s, the student %.0f s: again, with %d steps.",
            result["seconds"],
            seconds,
            state["steps"],
        )
        aside = folder / "shorter_runs" / f"{steps}_steps"
        shutil.rmtree(aside, ignore_errors=True)
        aside.parent.mkdir(exist_ok=True)
        (folder / "01_labels_only").replace(aside)
        files.write_json(path, state)
