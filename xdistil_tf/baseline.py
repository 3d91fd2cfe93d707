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

Train = Callable[[recipe.Recipe, pathlib.Path], dict[str, Any]]

_STEPS = "steps.json"
# A schedule runs over all updates, so more of them mean training from the start again.
_LONGER_RUNS = 3


@dataclasses.dataclass(frozen=True)
class BaselineRun:
    """The baseline at one learning rate.

    Attributes:
      folder: Its run folder.
      learning_rate: Of its only stage.
      result: Its `run.json`.
      shorter_runs: `{"steps", "seconds", "best"}` of the runs before it, which took less time than
        the student.
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
    # Selected as the student is; the objective of such a stage may be of a teacher.
    key = "task" if evaluate.keep_best == "objective" else evaluate.keep_best
    stage = recipe.Stage(
        name="labels_only",
        data="train",
        objective=(recipe.Term(loss="task"),),
        steps=steps,
        batch_size=like.batch_size,
        optimizer=like.optimizer.model_copy(update={"learning_rate": rate}),
        language_temperature=like.language_temperature,
        # No early stop: the baseline gets all of the updates that the student had.
        evaluate=evaluate.model_copy(update={"keep_best": key, "patience": None}),
    )
    model = config.model
    if model.kind == "encoder":  # Labels have no width to fit.
        model = model.model_copy(update={"width_projection": None})
    return config.model_copy(update={"stages": (stage,), "model": model})


def train_baseline(
    config: recipe.Recipe,
    student: Mapping[str, Any],
    folder: pathlib.Path,
    learning_rates: Sequence[float],
    train: Train,
) -> list[BaselineRun]:
    """Trains the baseline; where there are several learning rates, the best one by held-out value.

    Rates are compared at the student's number of updates; the best alone is then trained for at
    least the student's time.

    Args:
      config: The student's recipe.
      student: Its `run.json`.
      folder: The run folder; with several learning rates each has one in it.
      learning_rates: None: that of the recipe's last stage on labels.
      train: `(recipe, folder) -> run.json`; goes on where a killed call was.

    Returns:
      The baseline, then the other rates, the best first.
    """
    steps = sum(stage["steps"] for stage in student["stages"])
    rates = learning_rates or (None,)
    places = {
        rate: folder / f"learning_rate_{rate}" if len(rates) > 1 else folder for rate in rates
    }
    # A call that was killed may have chosen already.
    extended = [rate for rate, place in places.items() if (place / _STEPS).is_file()]
    others = []
    if len(rates) > 1:
        others = [
            _train_once(config, rate, steps, place, train)
            for rate, place in places.items()
            if rate not in extended
        ]
        others.sort(key=lambda one: one.stage["best"], reverse=True)
    if extended:
        (best,) = extended
    else:
        best = others.pop(0).learning_rate if others else None
    best_run = _long_enough(config, best, steps, student["seconds"], places[best], train)
    return [best_run, *others]


def _train_once(
    config: recipe.Recipe, rate: float | None, steps: int, folder: pathlib.Path, train: Train
) -> BaselineRun:
    plan = labels_only_recipe(config, steps, rate)
    return BaselineRun(folder, plan.stages[0].optimizer.learning_rate, train(plan, folder), ())


def _long_enough(
    config: recipe.Recipe,
    rate: float | None,
    steps: int,
    seconds: float,
    folder: pathlib.Path,
    train: Train,
) -> BaselineRun:
    """Trains with more steps until it takes `seconds`, `_LONGER_RUNS` times at most."""
    path = folder / _STEPS
    state = files.read_json(path) if path.is_file() else {"steps": steps, "shorter_runs": []}
    while True:
        steps, shorter = state["steps"], state["shorter_runs"]
        run = _train_once(config, rate, steps, folder, train)
        taken = run.result["seconds"]
        if taken >= seconds or len(shorter) == _LONGER_RUNS:
            return dataclasses.replace(run, shorter_runs=shorter)
        # Seconds are rounded to hundredths.
        state = {
            "steps": int(1.1 * steps * seconds / max(taken, 0.01)) + 1,
            "shorter_runs": [
                *shorter,
                {"steps": steps, "seconds": taken, "best": run.stage["best"]},
            ],
        }
        logging.info(
            "The baseline took %.0f s, the student %.0f s: again, with %d steps.",
            taken,
            seconds,
            state["steps"],
        )
        aside = folder / "shorter_runs" / f"{steps}_steps"
        shutil.rmtree(aside, ignore_errors=True)
        aside.parent.mkdir(exist_ok=True)
        (folder / "01_labels_only").replace(aside)
        files.write_json(path, state)
