"""A teacher for a task: checked, given a head or its classes' order, and judged.

Everything that `distill` does to one teacher before the student is made.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

import tensorflow as tf
from absl import logging

from xdistil_tf import files, preflight, report
from xdistil_tf.bound_data import BoundData
from xdistil_tf.data.task_info import TaskInfo
from xdistil_tf.job import Job
from xdistil_tf.models import folders, pretrained
from xdistil_tf.run import run


def bindings(task: TaskInfo) -> dict[str, str]:
    """Data name -> glob, for the splits that a recipe may train on or select by."""
    known = ("train", "transfer", "augmented", "heldout", "dev")
    names = [name for name in known if name in task.splits]
    # Where nothing else has labels, what selects is reported, and marked so.
    return {n: task.pattern(n) for n in names if n != task.report or n == task.select}


def class_order(job: Job, source: str, task: TaskInfo) -> list[int] | None:
    """Where each label of the task stands in the given teacher's head; `None`: it needs a head."""
    fits = folders.head_kind(source) == task.task_type
    if task.task_type == "regression":
        return [0] if fits else None
    names = folders.class_names(source) if fits else None
    return preflight.match_labels(names, task.labels, job.teacher_labels)


def early_checks(
    job: Job,
    source: str,
    needs_head: bool,
    task: TaskInfo,
    training: dict[str, Any],
    student_task: TaskInfo | None = None,
) -> list[preflight.Check]:
    """All that can be known before anything is trained.

    Args:
      job: What is to be done.
      source: The teacher's folder.
      needs_head: Whether the teacher will be trained.
      task: The records that the teacher reads.
      training: Of `run`.
      student_task: Those that the student reads; `None`: the same.
    """
    bound = BoundData(bindings(task))
    bound.check_length(job.teacher_recipe.max_seq_length)
    bound.check_length(job.recipe.max_seq_length)
    models = {"teacher": (source, bound.tokenizer)}
    trained = [(source, job.teacher_recipe)] if needs_head else []
    if job.init_checkpoint is not None:
        start = folders.find(job.init_checkpoint)
        students = BoundData(bindings(student_task)) if student_task else bound
        models["init_checkpoint"] = start, students.tokenizer
        trained.append((start, job.recipe))
    checks = []
    for role, (folder, tokenizer) in models.items():
        # Without the task: the classes of a given teacher are put in order, not compared.
        checks += preflight.check_model(folder, role, tokenizer, None, task.max_seq_length)
    # The teacher is the largest model that is trained; float32.
    checks.append(preflight.check_disk(job.model_dir, pretrained.weights_bytes(source) // 4))
    longest = max(int(split["length_max"]) for split in task.splits.values())
    for folder, config in trained:
        largest = max(stage.batch_size for stage in config.stages)
        accumulation = training["options"].gradient_accumulation
        replicas = _cpu_replicas(training["strategy"])
        checks.append(preflight.check_memory(folder, largest, longest, accumulation, replicas))
    return checks


def _cpu_replicas(strategy: tf.distribute.Strategy | None) -> int:
    """Copies of a model in this machine's main memory."""
    on_gpu = bool(tf.config.list_physical_devices("GPU"))
    return 1 if strategy is None or on_gpu else strategy.num_replicas_in_sync


def ready_teacher(
    job: Job,
    source: str,
    order: Sequence[int] | None,
    task: TaskInfo,
    folder: pathlib.Path,
    training: dict[str, Any],
) -> str:
    """The model folder of a teacher with a head for this task, made in `folder` if need be."""
    if order is None:
        if not (folder / "run.json").is_file():
            other = folders.read_labels(pathlib.Path(source))
            logging.info(
                "The teacher has no head for %s: fine-tuning it.%s",
                list(task.labels) or "values",
                f" Its head for {list(other)} is dropped." if other else "",
            )
        run(job.teacher_recipe, bindings(task), folder, init_checkpoint=source, **training)
        return str(folder / "model")
    if list(order) == list(range(len(order))):
        logging.info("The teacher has a head for this task; it is taken as it is.")
        return source
    return _reordered(source, order, task, folder / "model")


def _reordered(source: str, order: Sequence[int], task: TaskInfo, folder: pathlib.Path) -> str:
    """A copy of the teacher with its classes in the task's order, made once."""
    marker = folder / "reordered.json"
    made_from = {
        "source": pretrained.weights_fingerprint(source),
        "order": list(order),
        "labels": list(task.labels),
    }
    if marker.is_file() and files.read_json(marker) == made_from:
        return str(folder)
    logging.info("The teacher's classes are put in the task's order: %s.", order)
    folders.reorder_classes(source, order, task.labels, folder)
    files.write_json(marker, made_from)
    return str(folder)


def teacher_check(job: Job, teacher: str, task: TaskInfo) -> preflight.Check:
    """The teacher beats a constant answer; an earlier report knows it of the same teacher."""
    earlier = report.read(job.model_dir)
    ours = {"records": task.fingerprint, "teacher": pretrained.weights_fingerprint(teacher)}
    if ours.items() <= earlier["made_from"].items() and not earlier["weak_teacher"]:
        *_, last = earlier["preflight"]  # This check, appended after all others.
        return preflight.Check(last["check"], last["passed"], last["detail"])
    model = folders.load_model(teacher)
    predictions = preflight.score_heldout(model, task)
    check = preflight.check_teacher_quality(predictions, task, job.accept_weak_teacher)
    logging.info("Teacher: %s.", check.detail)
    return check
