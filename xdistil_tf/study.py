"""A study: the main job over tasks, label subsets and seeds, and the table that comes of it.

A thin layer over `distill`: every cell of the table is a distill folder of its own, so a killed
study goes on where it was.
"""

from __future__ import annotations

import dataclasses
import math
import os
import pathlib
import statistics
import time
from collections.abc import Sequence
from typing import Any

import pydantic
import tensorflow as tf
import tf_keras
from absl import logging

from xdistil_tf import files, recipe, recipes, versions
from xdistil_tf.data.task_records import Options as RecordOptions
from xdistil_tf.distill import Job, distill
from xdistil_tf.interruption import Interruption
from xdistil_tf.trainer import TrainerOptions

MODELS = ("teacher", "student", "labels_only")


class StudyTask(recipe.Config):
    """One task of a study; `$NAME` in paths is read from the environment."""

    task: str
    task_dir: str
    transfer_file: str | None = None
    labels_per_class: int | None = pydantic.Field(None, ge=1)
    set: tuple[str, ...] = pydantic.Field((), description="Overrides of the recipe, for this task.")
    set_teacher: tuple[str, ...] = ()


class Study(recipe.Config):
    """Which recipes on which tasks with which seeds make one table."""

    name: str
    recipe: str
    teacher_recipe: str = "configs/bert/finetune.yaml"
    teacher: str
    tasks: tuple[StudyTask, ...] = pydantic.Field(min_length=1)
    seeds: tuple[int, ...] = pydantic.Field(min_length=1)
    set: tuple[str, ...] = pydantic.Field((), description="Overrides of the recipe.")
    set_teacher: tuple[str, ...] = ()
    labels_only: bool = True
    accept_weak_teacher: bool = False


def run_study(
    study: Study,
    output_dir: files.Path,
    *,
    strategy: tf.distribute.Strategy | None = None,
    options: TrainerOptions = TrainerOptions(),
    interruption: Interruption | None = None,
) -> dict[str, Any]:
    """Runs all cells and writes `<name>.json` into the output folder.

    Returns:
      Its content: the study, each run's report, comparisons over seeds, and the table.
    """
    began = time.time()
    output = pathlib.Path(output_dir)
    reports = []
    for task in study.tasks:
        for seed in study.seeds:
            job = _job(study, task, seed, output / _cell(task, seed))
            logging.info("Study %s: %s.", study.name, job.model_dir)
            content = distill(job, strategy=strategy, options=options, interruption=interruption)
            content["labels_per_class"] = task.labels_per_class
            reports.append(content)
            tf_keras.backend.clear_session()
    result = {
        "name": study.name,
        "study": recipe.to_plain(study),
        "recipe": recipe.to_plain(_recipe(study, study.tasks[0], study.seeds[0])),
        "runs": reports,
        "comparisons": [
            comparison
            for task in study.tasks
            for comparison in compare(_of_task(reports, task), task.task, task.labels_per_class)
        ],
        "table": table(reports),
        "wall_seconds": round(time.time() - began, 1),
        "versions": versions.environment(),
    }
    write_result(output / f"{study.name}.json", result)
    return result


def write_result(path: files.Path, result: dict[str, Any]) -> None:
    """Writes a study's result where a document's table is made from it."""
    files.write_json(path, result)


def compare(
    reports: Sequence[dict[str, Any]], task: str, labels_per_class: int | None
) -> list[dict[str, Any]]:
    """Paired differences over seeds: student against labels only, and what it keeps of its teacher.

    `two_standard_errors` says whether the mean difference exceeds 2 SD / sqrt(n).
    """
    found = []
    metric = reports[0]["metric"]
    for other in ("labels_only", "teacher"):
        if other not in reports[0]:
            continue
        differences = [
            r["student"]["metrics"][metric] - r[other]["metrics"][metric] for r in reports
        ]
        deviation = statistics.stdev(differences) if len(differences) > 1 else math.nan
        error = deviation / math.sqrt(len(differences))
        mean = statistics.fmean(differences)
        found.append(
            {
                "task": task,
                "labels_per_class": labels_per_class,
                "metric": metric,
                "difference": f"student - {other}",
                "per_seed": differences,
                "mean": mean,
                "standard_deviation": None if math.isnan(deviation) else deviation,
                "standard_error": None if math.isnan(error) else error,
                "two_standard_errors": bool(mean > 2 * error),
                "reported_split_standard_error": statistics.fmean(
                    r["student"]["metrics"]["standard_error"] for r in reports
                ),
                "retained": statistics.fmean(
                    r["student"]["metrics"][metric] / r[other]["metrics"][metric] for r in reports
                ),
            }
        )
    return found


def table(reports: Sequence[dict[str, Any]]) -> dict[str, list]:
    """Rows: teacher, every stage of the student, the student, labels only; a column a seed."""
    groups: dict[tuple, list[dict[str, Any]]] = {}
    for one in reports:
        groups.setdefault((one["task"], one["labels_per_class"]), []).append(one)
    seeds = [f"seed {one['seed']}" for one in next(iter(groups.values()))]
    columns = ["model", *seeds, "mean", "SD", "parameters", "without embeddings", "MB"]
    columns += ["ms, batch 1", "ms, batch 32", "training, s"]
    rows = []
    for (task, labels), group in groups.items():
        metric = group[0]["metric"]
        setting = "all labels" if labels is None else f"{labels} labels a class"
        rows.append([f"**{task}, {metric}, {setting}**", *[""] * (len(columns) - 1)])
        rows.append(_model_row("teacher", group))
        for number, stage in enumerate(group[0]["stages"]):
            values = [one["stages"][number]["reported"] for one in group]
            seconds = statistics.fmean(one["stages"][number]["seconds"] for one in group)
            rows.append([stage["name"], *_figures(values), *[""] * 5, f"{seconds:.0f}"])
        rows += [_model_row(name, group) for name in MODELS[1:] if name in group[0]]
    return {"columns": columns, "rows": rows}


def _model_row(name: str, group: Sequence[dict[str, Any]]) -> list[str]:
    first, metric = group[0][name], group[0]["metric"]
    values = [one[name]["metrics"][metric] for one in group]
    titles = {"student": "**student**", "labels_only": "same student, labels only"}
    latency = {
        key: statistics.fmean(one[name]["latency_ms"][key] for one in group)
        for key in ("batch_1", "batch_32")
    }
    seconds = [one[name].get("seconds") for one in group]
    return [
        titles.get(name, name),
        *_figures(values),
        f"{first['parameters']:,}",
        f"{first['parameters_without_embeddings']:,}",
        f"{first['bytes'] / 1e6:.1f}",
        f"{latency['batch_1']:.2f}",
        f"{latency['batch_32']:.1f}",
        "" if None in seconds else f"{statistics.fmean(seconds):.0f}",
    ]


def _figures(values: Sequence[float | None]) -> list[str]:
    """Each seed's value, their mean and their standard deviation."""
    if any(value is None for value in values):
        return ["–"] * (len(values) + 2)
    deviation = f"{statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return [*(f"{v:.4f}" for v in values), f"{statistics.fmean(values):.4f}", deviation]


def _job(study: Study, task: StudyTask, seed: int, folder: pathlib.Path) -> Job:
    config = _recipe(study, task, seed)
    shared = (f"seed={seed}", f"max_seq_length={config.max_seq_length}")
    return Job(
        recipe=config,
        teacher_recipe=recipe.load_recipe(
            recipes.find(study.teacher_recipe), (*study.set_teacher, *task.set_teacher, *shared)
        ),
        task_dir=_expanded(task.task_dir),
        task=task.task,
        teacher=_expanded(study.teacher),
        model_dir=str(folder),
        transfer_file=(_expanded(task.transfer_file),) if task.transfer_file else None,
        records=dataclasses.replace(
            RecordOptions(),
            seed=seed,
            max_seq_length=config.max_seq_length,
            labels_per_class=task.labels_per_class,
        ),
        accept_weak_teacher=study.accept_weak_teacher,
        labels_only=study.labels_only,
    )


def _recipe(study: Study, task: StudyTask, seed: int) -> recipe.Recipe:
    overrides = (*study.set, *task.set, f"seed={seed}")
    return recipe.load_recipe(recipes.find(study.recipe), overrides)


def _cell(task: StudyTask, seed: int) -> str:
    labels = "all" if task.labels_per_class is None else str(task.labels_per_class)
    return f"{task.task}_{labels}_seed{seed}"


def _of_task(reports: Sequence[dict[str, Any]], task: StudyTask) -> list[dict[str, Any]]:
    return [
        one
        for one in reports
        if (one["task"], one["labels_per_class"]) == (task.task.lower(), task.labels_per_class)
    ]


def _expanded(path: str) -> str:
    """`$NAME` replaced from the environment.

    Raises:
      ValueError: If a variable is not set.
    """
    expanded = os.path.expandvars(path)
    if "$" in expanded:
        raise ValueError(
            f"{path} names a variable that is not set. Expected it in the environment."
        )
    return expanded
