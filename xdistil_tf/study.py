"""A study: the main job over tasks, label subsets and seeds, and the table that comes of it.

A thin layer over `distill`: every cell of the table is a distill folder of its own, so a killed
study goes on where it was, and its result is written after each cell.
"""

from __future__ import annotations

import dataclasses
import math
import os
import pathlib
import re
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pydantic
import tensorflow as tf
import tf_keras
from absl import logging

from xdistil_tf import checkpoints, files, metrics, recipe, recipes, versions
from xdistil_tf.data.readers import task_name
from xdistil_tf.data.task_records import Options as RecordOptions
from xdistil_tf.data.task_records import load_task_info
from xdistil_tf.distill import distill
from xdistil_tf.interruption import Interruption
from xdistil_tf.job import Job
from xdistil_tf.trainer import TrainerOptions

MODELS = ("teacher", "student", "labels_only")
_INIT_CHECKPOINT = "init_checkpoint="
_VARIANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


class StudyTask(recipe.Config):
    """One task of a study; `$NAME` in paths is read from the environment."""

    task: str
    task_dir: str
    transfer_file: str | None = None
    augmented: str | None = None
    labels_per_class: int | None = pydantic.Field(None, ge=1)
    labels_per_language: int | None = pydantic.Field(None, ge=1)
    languages: tuple[str, ...] = pydantic.Field((), description="Only examples of these.")
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
    metric: Literal["task", "macro"] = pydantic.Field(
        "task", description="What is compared; macro: the mean of it over languages."
    )
    labels_only: bool = True
    labels_only_learning_rates: tuple[pydantic.PositiveFloat, ...] = pydantic.Field(
        (), description="Of the baseline, trained at each: the best held-out value is reported."
    )
    accept_weak_teacher: bool = False
    init_checkpoint: str | None = None
    variants: dict[str, tuple[str, ...]] = pydantic.Field(
        {},
        description="Name -> overrides of the recipe, and of init_checkpoint; each is run on all "
        "tasks with all seeds, and compared with the first.",
    )

    @pydantic.field_validator("variants")
    @classmethod
    def _names_of_folders(cls, variants: dict[str, Any]) -> dict[str, Any]:
        for name in variants:
            if not _VARIANT.fullmatch(name):
                raise ValueError(
                    f"Expected names of variants of letters, digits, - and _. Received: {name!r}"
                )
        return variants

    @pydantic.model_validator(mode="after")
    def _every_run_has_a_folder(self) -> Study:
        cells = self.cells()
        if repeated := sorted({cell for cell in cells if cells.count(cell) > 1}):
            raise ValueError(
                "Expected different seeds, and tasks that differ in task, labels_per_class or "
                "labels_per_language; other task folders need a study of their own. Repeated: "
                f"{', '.join(repeated)}"
            )
        return self

    def cells(self) -> list[str]:
        """The folder of each run, in their order."""
        return [_cell(*run) for run in self.runs()]

    def runs(self) -> list[tuple[str | None, StudyTask, int]]:
        """Seed after seed: what a stop leaves compares all variants, whose teacher is shared."""
        return [(*group, seed) for seed in self.seeds for group in self.groups()]

    def groups(self) -> list[tuple[str | None, StudyTask]]:
        """Each variant (`None`: there are none) with each task."""
        return [(variant, task) for variant in self.variants or [None] for task in self.tasks]


def run_study(
    study: Study,
    output_dir: files.Path,
    *,
    strategy: tf.distribute.Strategy | None = None,
    options: TrainerOptions = TrainerOptions(),
    interruption: Interruption | None = None,
    finished_runs: files.Path | None = None,
    output_json: files.Path | None = None,
) -> dict[str, Any]:
    """Runs all cells; writes `<name>.json` into the output folder after each of them.

    Args:
      study: What to run.
      output_dir: A folder for all runs; a killed study goes on there.
      strategy: Of the distribution.
      options: Of the trainer.
      interruption: Listens to signals.
      finished_runs: The result of an earlier call of the same study whose folder is gone: its
        runs are taken as they stand there, and only the others are made.
      output_json: A copy of the result.

    Returns:
      Its content: the study, each run's report, comparisons over seeds, and the table.

    Raises:
      ValueError: If `finished_runs` are of another study.
    """
    output = pathlib.Path(output_dir)
    targets = [output / f"{study.name}.json", *([output_json] if output_json else [])]
    earlier = _finished_runs(study, finished_runs) if finished_runs else {}
    training = {"strategy": strategy, "options": options, "interruption": interruption}
    reports: dict[str, dict[str, Any]] = {}
    result: dict[str, Any] = {}
    for variant, task in study.groups():  # A wrong name is told before the first run.
        _job(study, variant, task, study.seeds[0], output)
    for variant, task, seed in study.runs():
        cell = _cell(variant, task, seed)
        if cell in earlier:
            logging.info("Study %s: %s as in %s.", study.name, cell, finished_runs)
            content = earlier[cell]
        else:
            logging.info("Study %s: %s.", study.name, output / cell)
            content = _run(study, variant, task, seed, output, training)
            tf_keras.backend.clear_session()
        reports[cell] = content
        result = _result(study, reports)
        for target in targets:
            files.write_json(target, result)
    return result


def _run(
    study: Study,
    variant: str | None,
    task: StudyTask,
    seed: int,
    output: pathlib.Path,
    training: Mapping[str, Any],
) -> dict[str, Any]:
    """One cell; its report."""
    job = _job(study, variant, task, seed, output / _cell(variant, task, seed))
    shared = _shared_teacher(job, study, variant, task, seed, output)
    if shared:
        job = dataclasses.replace(job, teacher=str(shared / "teacher" / "model"))
    content = distill(job, **training)
    content["labels_per_class"] = task.labels_per_class
    content["labels_per_language"] = task.labels_per_language
    if variant:
        content["variant"] = variant
    if shared:
        content["teacher"]["shared_with"] = str(shared.relative_to(output))
    content["training_seconds"] = _training_seconds(content)
    return _by_macro(content) if study.metric == metrics.MACRO else content


def _by_macro(content: dict[str, Any]) -> dict[str, Any]:
    """A report in which the mean over languages is what counts.

    Raises:
      ValueError: If there is one language alone.
    """
    if metrics.MACRO not in content["student"]["metrics"]:
        raise ValueError(
            f"The study compares by metric: macro, the mean over languages, and {content['task']} "
            "has one language. Expected metric: task."
        )
    content["metric"] = metrics.MACRO
    for stage in content["stages"]:
        stage["reported"] = stage.get(f"reported_{metrics.MACRO}")
    ours, theirs = (content[name]["metrics"][metrics.MACRO] for name in ("student", "teacher"))
    content["retained"] = ours / theirs if theirs else None
    return content


def _result(study: Study, reports: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    groups = [
        [reports[cell] for seed in study.seeds if (cell := _cell(*group, seed)) in reports]
        for group in study.groups()
    ]
    groups = [group for group in groups if group]
    return {
        "name": study.name,
        "study": recipe.to_plain(study),
        **_recipes(study),
        "complete": len(reports) == len(study.cells()),
        "runs": list(reports.values()),
        "comparisons": [
            comparison
            for group in groups
            for comparison in [*compare(group), *_against_the_first(study, group, reports)]
        ],
        "table": table(groups, study.seeds),
        "versions": versions.environment(),
    }


def _training_seconds(content: Mapping[str, Any]) -> float:
    """What a run took, however often it was called: all trainings and the teacher's pass."""
    trained = [content["student"]["seconds"]]
    if "shared_with" not in content["teacher"]:
        trained.append(content["teacher"].get("seconds", 0.0))
    for one in content.get("labels_only", {}).get("learning_rates", []):
        trained += [one["seconds"], *(shorter["seconds"] for shorter in one["shorter_runs"])]
    return round(sum(trained) + (content["cache"] or {}).get("seconds", 0.0), 1)


def _recipes(study: Study) -> dict[str, Any]:
    """The recipes of the first run, resolved."""
    job = _job(study, *study.groups()[0], study.seeds[0], pathlib.Path())
    return {
        "recipe": recipe.to_plain(job.recipe),
        "teacher_recipe": recipe.to_plain(job.teacher_recipe),
    }


def _finished_runs(study: Study, path: files.Path) -> dict[str, dict[str, Any]]:
    """Cell -> its report, from an earlier result of the same study."""
    earlier = files.read_json(path)
    known = recipe.parse_config(Study, earlier["study"], str(path))
    ours, theirs = recipe.to_plain(study), recipe.to_plain(known)
    # Seeds and tasks may have been added; what they are run with may not have changed.
    for field in sorted({*ours, *theirs} - {"seeds", "tasks"}):
        expected, received = ours.get(field), theirs.get(field)
        if received != expected:
            raise ValueError(
                f"{path} is of another study: {field} is {received!r}. Expected {expected!r}."
            )
    # Files that the study names may have changed as well.
    now = _recipes(known)
    before = {name: recipe.completed(earlier.get(name, {})) for name in now}
    changes = checkpoints.differences(before, now)
    if changes:
        raise ValueError(f"{path} was made with other recipes: {'; '.join(changes[:3])}.")
    finished = {_of_report(one): one for one in earlier["runs"]}
    return {
        _cell(variant, task, seed): finished[key]
        for variant, task, seed in study.runs()
        if task in known.tasks and (key := _of_run(variant, task, seed)) in finished
    }


def _of_run(variant: str | None, task: StudyTask, seed: int) -> tuple:
    """What tells a run from the others of its study."""
    labels = (task.labels_per_class, task.labels_per_language)
    return variant, task_name(task.task), *labels, seed


def _of_report(report: Mapping[str, Any]) -> tuple:
    """The same, of its report; earlier ones have no field of variants or languages."""
    labels = (report["labels_per_class"], report.get("labels_per_language"))
    return report.get("variant"), task_name(report["task"]), *labels, report["seed"]


def compare(reports: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Paired differences over seeds: student against labels only, and what it keeps of its teacher.

    `two_standard_errors` says whether the mean lies beyond 2 SD / sqrt(n) on either side of 0;
    `retained` is `None` where the other side has 0 at a seed.

    Args:
      reports: Of one task, a seed each.
    """
    metric = reports[0]["metric"]
    return [
        _paired(reports, other, [one[other]["metrics"][metric] for one in reports])
        for other in ("labels_only", "teacher")
        if other in reports[0]
    ]


def _against_the_first(
    study: Study, group: Sequence[dict[str, Any]], reports: Mapping[str, dict[str, Any]]
) -> list[dict[str, Any]]:
    """A variant's difference from the first one, over the seeds that both have."""
    first, variant = next(iter(study.variants), None), group[0].get("variant")
    if variant in (None, first):
        return []
    finished = {_of_report(one): one for one in reports.values()}
    others = [finished.get((first, *_of_report(one)[1:])) for one in group]
    both = [(one, other) for one, other in zip(group, others, strict=True) if other]
    metric = group[0]["metric"]
    values = [other["student"]["metrics"][metric] for _, other in both]
    return [_paired([one for one, _ in both], first, values)] if both else []


def _paired(
    reports: Sequence[dict[str, Any]], other: str, values: Sequence[float]
) -> dict[str, Any]:
    """The student's figures of some seeds against those of something else."""
    first, metric = reports[0], reports[0]["metric"]
    ours = [one["student"]["metrics"][metric] for one in reports]
    differences = [mine - theirs for mine, theirs in zip(ours, values, strict=True)]
    deviation = statistics.stdev(differences) if len(differences) > 1 else None
    error = None if deviation is None else deviation / math.sqrt(len(differences))
    mean = statistics.fmean(differences)
    return {
        **({"variant": first["variant"]} if "variant" in first else {}),
        "task": first["task"],
        "labels_per_class": first["labels_per_class"],
        "labels_per_language": first.get("labels_per_language"),
        "metric": metric,
        "difference": f"student - {other}",
        "per_seed": differences,
        "mean": mean,
        "standard_deviation": deviation,
        "standard_error": error,
        "two_standard_errors": error is not None and abs(mean) > 2 * error,
        # Known of the task's own metric alone, not of a mean over languages.
        "reported_split_standard_error": None
        if metric == metrics.MACRO
        else statistics.fmean(one["student"]["metrics"]["standard_error"] for one in reports),
        "retained": statistics.fmean(a / b for a, b in zip(ours, values, strict=True))
        if all(values)
        else None,
    }


def _setting(report: Mapping[str, Any]) -> str:
    """Which labels the runs had."""
    if report["labels_per_class"] is not None:
        return f"{report['labels_per_class']} labels a class"
    if report.get("labels_per_language") is not None:
        return f"{report['labels_per_language']} labels a language"
    return "all labels"


def table(groups: Sequence[Sequence[dict[str, Any]]], seeds: Sequence[int]) -> dict[str, list]:
    """Rows: teacher, every stage of the student, the student, labels only; a column a seed.

    A seed that has not been run yet has a dash.

    Args:
      groups: For each task its reports.
      seeds: All of them.
    """
    columns = ["model", *(f"seed {seed}" for seed in seeds), "mean", "SD"]
    columns += ["parameters", "without embeddings", "MB"]
    columns += ["ms, batch 1", "ms, batch 32", "steps", "training, s"]
    rows = []
    for group in groups:
        task, metric, setting = group[0]["task"], group[0]["metric"], _setting(group[0])
        if variant := group[0].get("variant"):
            setting = f"{setting}, {variant}"
        rows.append([f"**{task}, {metric}, {setting}**", *[""] * (len(columns) - 1)])
        rows.append(_model_row("teacher", group, seeds))
        for number, stage in enumerate(group[0]["stages"]):
            values = {one["seed"]: one["stages"][number]["reported"] for one in group}
            seconds = statistics.fmean(one["stages"][number]["seconds"] for one in group)
            steps = statistics.fmean(one["stages"][number]["steps"] for one in group)
            figures = _figures(values, seeds)
            rows.append([stage["name"], *figures, *[""] * 5, f"{steps:,.0f}", f"{seconds:,.0f}"])
        rows += [_model_row(name, group, seeds) for name in MODELS[1:] if name in group[0]]
    return {"columns": columns, "rows": rows}


def _model_row(name: str, group: Sequence[dict[str, Any]], seeds: Sequence[int]) -> list[str]:
    first, metric = group[0][name], group[0]["metric"]
    values = {one["seed"]: one[name]["metrics"][metric] for one in group}
    titles = {"student": "**student**", "labels_only": "same student, labels only"}
    latency = {
        key: statistics.fmean(one[name]["latency_ms"][key] for one in group)
        for key in ("batch_1", "batch_32")
    }
    return [
        titles.get(name, name),
        *_figures(values, seeds),
        f"{first['parameters']:,}",
        f"{first['parameters_without_embeddings']:,}",
        f"{first['bytes'] / 1e6:.1f}",
        f"{latency['batch_1']:.2f}",
        f"{latency['batch_32']:.1f}",
        _mean(group, name, "steps"),
        _mean(group, name, "seconds"),
    ]


def _mean(group: Sequence[dict[str, Any]], name: str, key: str) -> str:
    """The mean over seeds; nothing of a teacher, which may have been trained elsewhere."""
    values = [one[name].get(key) for one in group]
    return "" if None in values else f"{statistics.fmean(values):,.0f}"


def _figures(values: Mapping[int, float | None], seeds: Sequence[int]) -> list[str]:
    """Each seed's value, their mean and their standard deviation."""
    known = [value for value in values.values() if value is not None]
    cells = ["–" if values.get(seed) is None else f"{values[seed]:.4f}" for seed in seeds]
    mean = f"{statistics.fmean(known):.4f}" if known else "–"
    deviation = f"{statistics.stdev(known):.4f}" if len(known) > 1 else "–"
    return [*cells, mean, deviation]


def _job(
    study: Study, variant: str | None, task: StudyTask, seed: int, folder: pathlib.Path
) -> Job:
    config, start = _recipe(study, variant, task, seed), _init_checkpoint(study, variant)
    shared = (f"seed={seed}", f"max_seq_length={config.max_seq_length}")
    return Job(
        recipe=config,
        teacher_recipe=recipe.load_recipe(
            recipes.find(study.teacher_recipe),
            (*study.set_teacher, *task.set_teacher, *shared),
            task_name(task.task),
        ),
        task_dir=expanded(task.task_dir),
        task=task.task,
        teacher=expanded(study.teacher),
        model_dir=str(folder),
        init_checkpoint=expanded(start) if start else None,
        transfer_file=(expanded(task.transfer_file),) if task.transfer_file else None,
        augmented=(expanded(task.augmented),) if task.augmented else None,
        records=dataclasses.replace(
            RecordOptions(),
            seed=seed,
            max_seq_length=config.max_seq_length,
            labels_per_class=task.labels_per_class,
            labels_per_language=task.labels_per_language,
            languages=task.languages,
        ),
        accept_weak_teacher=study.accept_weak_teacher,
        labels_only=study.labels_only,
        labels_only_learning_rates=study.labels_only_learning_rates,
    )


def _shared_teacher(
    job: Job, study: Study, variant: str | None, task: StudyTask, seed: int, output: pathlib.Path
) -> pathlib.Path | None:
    """Where another variant has fine-tuned the teacher: variants differ in the student alone."""
    if (output / _cell(variant, task, seed) / "teacher").is_dir():
        return None  # It has begun with its own.
    for other in study.variants:
        earlier = output / _cell(other, task, seed)
        if other == variant or not (earlier / "teacher" / "model").is_dir():
            continue
        if load_task_info(earlier / "records").max_seq_length == job.recipe.max_seq_length:
            return earlier
    return None


def _recipe(study: Study, variant: str | None, task: StudyTask, seed: int) -> recipe.Recipe:
    own = [one for one in _own(study, variant) if not one.startswith(_INIT_CHECKPOINT)]
    overrides = (*study.set, *task.set, *own, f"seed={seed}")
    return recipe.load_recipe(recipes.find(study.recipe), overrides, task_name(task.task))


def _init_checkpoint(study: Study, variant: str | None) -> str | None:
    """The variant's, if it says one (`null`: none), else the study's."""
    data = {"init_checkpoint": study.init_checkpoint}
    own = [one for one in _own(study, variant) if one.startswith(_INIT_CHECKPOINT)]
    return recipe.apply_overrides(data, own)["init_checkpoint"]


def _own(study: Study, variant: str | None) -> tuple[str, ...]:
    return study.variants[variant] if variant else ()


def _cell(variant: str | None, task: StudyTask, seed: int) -> str:
    labels = str(task.labels_per_class or "all")
    if task.labels_per_language is not None:
        labels = f"{task.labels_per_language}_a_language"
    cell = f"{task.task}_{labels}_seed{seed}"
    return f"{variant}/{cell}" if variant else cell


def expanded(path: str) -> str:
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
