"""A study: the main job over tasks, label subsets and seeds, and the table that comes of it.

A thin layer over `distill`: every cell of the table is a distill folder of its own, so a killed
study goes on where it was, and its result is written after each cell.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any, Literal

import pydantic
import tensorflow as tf
import tf_keras
from absl import logging

from xdistil_tf import checkpoints, files, metrics, recipe, recipe_files, recipes, study_results
from xdistil_tf.data.readers import task_name
from xdistil_tf.data.task_info import load_task_info
from xdistil_tf.data.task_records import Options as RecordOptions
from xdistil_tf.distill import distill
from xdistil_tf.interruption import Interruption
from xdistil_tf.job import Job
from xdistil_tf.trainer import TrainerOptions

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
    export: bool = pydantic.Field(True, description="Whether each student is exported too.")
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
        environment = study_results.environment(reports, earlier, finished_runs)
        result = _result(study, reports) | {"versions": environment}
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
    if shared:  # What was given, as the one who fine-tuned it says; places are of this machine.
        content["teacher"]["source"] = expanded(study.teacher)
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
    first = next(iter(study.variants), None)
    return {
        "name": study.name,
        "study": recipe.to_plain(study),
        **_recipes(study),
        "complete": len(reports) == len(study.cells()),
        "runs": list(reports.values()),
        "comparisons": [
            comparison
            for group in groups
            for comparison in [
                *study_results.compare(group),
                *study_results.against_the_first(first, group, reports.values()),
            ]
        ],
        "table": study_results.table(groups, study.seeds),
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
    known = recipe_files.parse_config(Study, earlier["study"], str(path))
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
    before = {name: recipe_files.completed(earlier.get(name, {})) for name in now}
    changes = checkpoints.differences(before, now)
    if changes:
        raise ValueError(f"{path} was made with other recipes: {'; '.join(changes[:3])}.")
    finished = {study_results.run_of(one): one for one in earlier["runs"]}
    return {
        _cell(variant, task, seed): finished[key]
        for variant, task, seed in study.runs()
        if task in known.tasks and (key := _of_run(variant, task, seed)) in finished
    }


def _of_run(variant: str | None, task: StudyTask, seed: int) -> tuple:
    """What tells a run from the others of its study."""
    labels = (task.labels_per_class, task.labels_per_language)
    return variant, task_name(task.task), *labels, seed


def _job(
    study: Study, variant: str | None, task: StudyTask, seed: int, folder: pathlib.Path
) -> Job:
    config, start = _recipe(study, variant, task, seed), _init_checkpoint(study, variant)
    shared = (f"seed={seed}", f"max_seq_length={config.max_seq_length}")
    return Job(
        recipe=config,
        teacher_recipe=recipe_files.load_recipe(
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
        export=study.export,
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
    return recipe_files.load_recipe(recipes.find(study.recipe), overrides, task_name(task.task))


def _init_checkpoint(study: Study, variant: str | None) -> str | None:
    """The variant's, if it says one (`null`: none), else the study's."""
    data = {"init_checkpoint": study.init_checkpoint}
    own = [one for one in _own(study, variant) if one.startswith(_INIT_CHECKPOINT)]
    return recipe_files.apply_overrides(data, own)["init_checkpoint"]


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
