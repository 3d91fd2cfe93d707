"""A pretraining study: small encoders trained in several ways, compared on held-out text.

Each arm is a recipe; each cell of the table is a run folder of its own, so a killed study goes on
where it was, and its result is written after each cell.
"""

from __future__ import annotations

import math
import pathlib
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pydantic
import tensorflow as tf
import tf_keras
from absl import logging

from xdistil_tf import checkpoints, files, recipe, recipe_files, recipes, study_results
from xdistil_tf.data.record_set import RecordSet
from xdistil_tf.evaluate_pretraining import evaluate_pretraining
from xdistil_tf.interruption import Interruption
from xdistil_tf.models import folders, pretrained
from xdistil_tf.run import run
from xdistil_tf.study import expanded
from xdistil_tf.trainer import TrainerOptions

METRIC = "masked_lm_loss"


class Arm(recipe.Config):
    """One way to train the student."""

    name: str = pydantic.Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    recipe: str
    set: tuple[str, ...] = pydantic.Field((), description="Overrides of the recipe, for this arm.")
    seeds: tuple[int, ...] | None = pydantic.Field(
        None, min_length=1, description="Some of the study's. Default: all."
    )


class PretrainingStudy(recipe.Config):
    """Which arms with which seeds make one table; `$NAME` in paths is read from the environment."""

    name: str
    teacher: str
    data: dict[str, str] = pydantic.Field(description="Name -> glob; heldout is what is reported.")
    teacher_cache: str | None = None
    arms: tuple[Arm, ...] = pydantic.Field(min_length=1)
    baseline: str = pydantic.Field(description="The arm that the others are compared with.")
    seeds: tuple[int, ...] = pydantic.Field(min_length=1)
    set: tuple[str, ...] = pydantic.Field((), description="Overrides of all recipes.")

    @pydantic.model_validator(mode="after")
    def _check(self) -> PretrainingStudy:
        names = [arm.name for arm in self.arms]
        if len(set(names)) != len(names) or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"Expected different arms and different seeds. Received: {names}")
        if self.baseline not in names:
            raise ValueError(f"Expected baseline to be one of {names}")
        for arm in self.arms:
            if unknown := set(arm.seeds or ()) - set(self.seeds):
                raise ValueError(
                    f"Expected seeds of arm {arm.name!r} among {list(self.seeds)}. Received: "
                    f"{sorted(unknown)}"
                )
        if "heldout" not in self.data:
            raise ValueError(f"Expected data to name heldout. Received: {sorted(self.data)}")
        return self

    def cells(self) -> list[tuple[Arm, int]]:
        """What is run, seed after seed."""
        return [
            (arm, seed)
            for seed in self.seeds
            for arm in self.arms
            if seed in (arm.seeds or self.seeds)
        ]


def run_pretraining_study(
    study: PretrainingStudy,
    output_dir: files.Path,
    *,
    strategy: tf.distribute.Strategy | None = None,
    options: TrainerOptions = TrainerOptions(),
    interruption: Interruption | None = None,
    finished_runs: files.Path | None = None,
    output_json: files.Path | None = None,
) -> dict[str, Any]:
    """Runs all cells, seed after seed; writes `<name>.json` after each of them.

    Args:
      study: What to run.
      output_dir: A folder for all runs; a killed study goes on there.
      strategy: Of the distribution.
      options: Of the trainer.
      interruption: Listens to signals.
      finished_runs: The result of an earlier call whose folder is gone: its runs are taken as they
        stand there, and only the others are made.
      output_json: A copy of the result.

    Returns:
      Its content; docs/pretraining.md, section 5.

    Raises:
      ValueError: If `finished_runs` are of another study, or an arm does not fit data and teacher,
        or trains or selects on what is reported.
    """
    output = pathlib.Path(output_dir)
    targets = [output / f"{study.name}.json", *([output_json] if output_json else [])]
    for arm in study.arms:
        _check_arm(study, arm)
    earlier = _finished_runs(study, finished_runs) if finished_runs else {}
    made: dict[tuple[str, int], dict[str, Any]] = {}
    result: dict[str, Any] = {}
    for arm, seed in study.cells():
        cell = (arm.name, seed)
        if cell not in earlier:
            logging.info("Study %s: %s, seed %d.", study.name, *cell)
        made[cell] = earlier.get(cell) or _cell(
            study, arm, seed, output, strategy=strategy, options=options,
            interruption=interruption,
        )  # fmt: skip
        environment = study_results.environment(made, earlier, finished_runs)
        result = _result(study, made) | {"versions": environment}
        for target in targets:
            files.write_json(target, result)
    return result


def _cell(
    study: PretrainingStudy, arm: Arm, seed: int, output: pathlib.Path, **training: Any
) -> dict[str, Any]:
    """Trains and scores one student."""
    config = _recipe(study, arm, seed)
    data = {name: expanded(pattern) for name, pattern in study.data.items()}
    teacher = expanded(study.teacher)
    terms = [term for stage in config.stages for term in stage.objective]
    learns = config.teacher is not None and any(term.target == "teacher" for term in terms)
    folder = output / f"{arm.name}_seed{seed}"
    trained = run(
        config,
        data,
        folder,
        teacher=teacher if config.teacher is not None else None,
        teacher_cache=expanded(study.teacher_cache) if study.teacher_cache and learns else None,
        **training,
    )
    scores = _scores(folder, trained["fingerprint"], data["heldout"], teacher)
    tf_keras.backend.clear_session()
    return {
        "arm": arm.name,
        "seed": seed,
        "steps": sum(stage["steps"] for stage in trained["stages"]),
        "seconds": trained["seconds"],
        "masked_tokens": scores["masked_tokens"],
        "metrics": scores["metrics"],
        # Without its folder, which is another one wherever the study is made.
        "teacher": {name: one for name, one in scores["teacher"].items() if name != "model"},
        "recipe": recipe.to_plain(config),
    }


def _scores(folder: pathlib.Path, fingerprint: str, heldout: str, teacher: str) -> dict[str, Any]:
    """Of a trained student; they are kept, so that a study that goes on scores nothing again."""
    path = folder / "scores.json"
    weights = pretrained.weights_fingerprint(folders.find(teacher))
    made_from = [fingerprint, RecordSet(heldout).fingerprint, weights]
    kept = files.read_json(path) if path.is_file() else {}
    if kept.get("made_from") != made_from:
        scores = evaluate_pretraining(str(folder), heldout, teacher)
        kept = {"made_from": made_from, "scores": scores}
        files.write_json(path, kept)
    return kept["scores"]


def _check_arm(study: PretrainingStudy, arm: Arm) -> None:
    """What is reported neither trains nor selects."""
    reported = study.data["heldout"]
    for stage in _recipe(study, arm, study.seeds[0]).stages:
        selects = stage.evaluate.data if stage.evaluate else None
        for use, name in (("trains", stage.data), ("selects", selects)):
            if name is not None and study.data.get(name) == reported:
                raise ValueError(
                    f"Arm {arm.name!r} {use} on {name!r} in stage {stage.name!r}, which the study "
                    "reports. Expected other data, or evaluate=null among the overrides."
                )


def _recipe(study: PretrainingStudy, arm: Arm, seed: int) -> recipe.Recipe:
    overrides = (*study.set, *arm.set, f"seed={seed}")
    return recipe_files.load_recipe(recipes.find(arm.recipe), overrides)


def _finished_runs(
    study: PretrainingStudy, path: files.Path
) -> dict[tuple[str, int], dict[str, Any]]:
    """(arm, seed) -> its run, from an earlier result with the same recipes."""
    earlier = files.read_json(path)
    for field in ("name", "teacher", "data", "teacher_cache"):
        expected = recipe.to_plain(study).get(field)
        if (received := earlier["study"].get(field)) != expected:
            raise ValueError(
                f"{path} is of another study: {field} is {received!r}. Expected {expected!r}."
            )
    found = {}
    runs = {(one["arm"], one["seed"]): one for one in earlier["runs"]}
    for arm, seed in study.cells():
        if one := runs.get((arm.name, seed)):
            now = recipe.to_plain(_recipe(study, arm, seed))
            if changes := checkpoints.differences(recipe_files.completed(one["recipe"]), now):
                raise ValueError(
                    f"{path} was made with another recipe of {arm.name}: {'; '.join(changes[:3])}."
                )
            found[arm.name, seed] = one
    return found


def _result(
    study: PretrainingStudy, made: Mapping[tuple[str, int], dict[str, Any]]
) -> dict[str, Any]:
    groups = {
        arm.name: [made[arm.name, seed] for seed in study.seeds if (arm.name, seed) in made]
        for arm in study.arms
    }
    groups = {name: group for name, group in groups.items() if group}
    first = next(iter(made.values()))
    return {
        "name": study.name,
        "study": recipe.to_plain(study),
        "complete": len(made) == len(study.cells()),
        "runs": list(made.values()),
        "teacher": {"model": study.teacher, "metrics": first["teacher"]["metrics"]},
        "comparisons": compare(study.name, groups, study.baseline),
        "table": table(groups, study.seeds),
    }


def compare(
    name: str, groups: Mapping[str, Sequence[dict[str, Any]]], baseline: str
) -> list[dict[str, Any]]:
    """Differences of the held-out loss from the baseline's, paired by seed; below 0 is better.

    `two_standard_errors` says whether the mean lies beyond 2 SD / sqrt(n) on either side of 0.
    """
    found = []
    others = {one["seed"]: one for one in groups.get(baseline, ())}
    for arm, group in groups.items():
        pairs = [(one, others[one["seed"]]) for one in group if one["seed"] in others]
        if arm == baseline or not pairs:
            continue
        differences = [a["metrics"][METRIC] - b["metrics"][METRIC] for a, b in pairs]
        mean = statistics.fmean(differences)
        several = len(differences) > 1
        deviation = statistics.stdev(differences) if several else None
        error = deviation / math.sqrt(len(differences)) if several else None
        found.append(
            {
                "task": name,
                "metric": METRIC,
                "difference": f"{arm} - {baseline}",
                "per_seed": differences,
                "mean": mean,
                "standard_deviation": deviation,
                "standard_error": error,
                "two_standard_errors": error is not None and abs(mean) > 2 * error,
                "reported_split_standard_error": statistics.fmean(
                    one["metrics"]["standard_error"] for one, _ in pairs
                ),
                "retained": statistics.fmean(
                    a["metrics"][METRIC] / b["metrics"][METRIC] for a, b in pairs
                ),
            }
        )
    return found


def table(groups: Mapping[str, Sequence[dict[str, Any]]], seeds: Sequence[int]) -> dict[str, list]:
    """Rows: the teacher, then each arm; a column for the loss of each seed, means of all else."""
    columns = ["model", *(f"loss, seed {seed}" for seed in seeds), "mean", "SD"]
    columns += ["accuracy", "agreement", "KL", "steps", "training, s"]
    teacher = next(iter(groups.values()))[0]["teacher"]["metrics"]
    rows = [
        [
            *("teacher", *[""] * len(seeds), f"{teacher[METRIC]:.4f}", ""),
            *(f"{teacher['masked_lm_accuracy']:.4f}", *[""] * 4),
        ]
    ]
    for name, group in groups.items():
        losses = {one["seed"]: one["metrics"][METRIC] for one in group}
        values = list(losses.values())
        rows.append(
            [
                name,
                *(f"{losses[seed]:.4f}" if seed in losses else "–" for seed in seeds),
                f"{statistics.fmean(values):.4f}",
                f"{statistics.stdev(values):.4f}" if len(values) > 1 else "–",
                _mean(one["metrics"]["masked_lm_accuracy"] for one in group),
                _mean(one["teacher"]["agreement"] for one in group),
                _mean(one["teacher"]["kl_divergence"] for one in group),
                f"{statistics.fmean(one['steps'] for one in group):,.0f}",
                f"{statistics.fmean(one['seconds'] for one in group):,.0f}",
            ]
        )
    return {"columns": columns, "rows": rows}


def _mean(values: Iterable[float]) -> str:
    return f"{statistics.fmean(values):.4f}"
