"""The main job: from a raw task folder to a served student, each step skipped when it is done.

task folder -> records/ -> teacher/ (fine-tuned, or taken as it is) -> cache/ -> student/
            -> labels_only/ (the baseline) -> evaluation -> export/1/ -> report.json
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import tensorflow as tf
from absl import logging

from xdistil_tf import files, preflight, recipe, report
from xdistil_tf.baseline import BaselineRun, train_baseline
from xdistil_tf.bound_data import BoundData
from xdistil_tf.continued_pretraining import continue_pretraining
from xdistil_tf.data.readers import read_task
from xdistil_tf.data.task_records import Options as RecordOptions
from xdistil_tf.data.task_records import TaskInfo, create_task_records
from xdistil_tf.data.tokenization import load_tokenizer
from xdistil_tf.export.model_folder import export_model_folder
from xdistil_tf.interruption import Interruption
from xdistil_tf.models import folders, pretrained
from xdistil_tf.run import run
from xdistil_tf.trainer import TrainerOptions


@dataclasses.dataclass(frozen=True)
class Job:
    """Everything that says what `distill` does; the flags of the binary, field by field.

    Attributes:
      recipe: Of the student.
      teacher_recipe: For fine-tuning the teacher.
      task_dir: The raw task folder.
      task: A GLUE name, `classification`, `regression` or `tagging`.
      teacher: Hugging Face folder, TF1 checkpoint, model folder or hub name.
      continue_pretraining: Globs of text on which the teacher goes on with its pretraining first.
      pretraining_recipe: For that.
      model_dir: The distill folder.
      init_checkpoint: What a student that is an encoder starts from.
      transfer_file: Globs of unlabelled texts; `None`: the train texts.
      augmented: Globs of what `augment` made of the task; `None`: the train texts stand for them.
      records: How the task becomes records.
      teacher_labels: The task's labels in the order of the teacher's classes.
      accept_weak_teacher: Go on with a teacher no better than a constant answer.
      labels_only: Whether the baseline is trained.
      labels_only_learning_rates: Of the baseline, compared by held-out value after the student's
        number of updates: the best goes on, all are listed. None: that of the last stage on labels.
      export: Whether a SavedModel is written.
    """

    recipe: recipe.Recipe
    teacher_recipe: recipe.Recipe
    task_dir: str
    task: str
    teacher: str
    model_dir: str
    init_checkpoint: str | None = None
    transfer_file: tuple[str, ...] | None = None
    augmented: tuple[str, ...] | None = None
    records: RecordOptions = RecordOptions()
    teacher_labels: tuple[str, ...] | None = None
    accept_weak_teacher: bool = False
    labels_only: bool = True
    labels_only_learning_rates: tuple[float, ...] = ()
    export: bool = True
    continue_pretraining: tuple[str, ...] = ()
    pretraining_recipe: recipe.Recipe | None = None

    def __post_init__(self):
        if self.continue_pretraining and self.pretraining_recipe is None:
            raise ValueError("continue_pretraining needs a pretraining_recipe. Received: None.")
        if any(rate <= 0 for rate in self.labels_only_learning_rates):
            raise ValueError(
                "Invalid labels_only_learning_rates. Expected positive numbers. Received: "
                f"{list(self.labels_only_learning_rates)}."
            )


def distill(
    job: Job,
    *,
    strategy: tf.distribute.Strategy | None = None,
    options: TrainerOptions = TrainerOptions(),
    interruption: Interruption | None = None,
) -> dict[str, Any]:
    """Does the whole job; the same call goes on where a killed one was.

    Returns:
      The content of `report.json`.

    Raises:
      FileNotFoundError, ValueError: Bad input, or a failed check; says what to do.
    """
    folder = pathlib.Path(job.model_dir)
    training = {"strategy": strategy, "options": options, "interruption": interruption}
    source = folders.find(job.teacher)
    task = create_task_records(
        job.task_dir,
        job.task,
        load_tokenizer(source),
        folder / "records",
        list(job.transfer_file) if job.transfer_file else None,
        job.records,
        # What was made from the records stays true only as long as they stay.
        replace=not any((folder / name).is_dir() for name in ("teacher", "cache", "student")),
        augmented=list(job.augmented) if job.augmented else None,
    )
    order = _class_order(job, source, task)
    checks = _early_checks(job, source, order is None, task, training)
    if job.continue_pretraining:
        source = _pretrained_further(job, source, training)
    teacher = _teacher(job, source, order, task, training)
    checks.append(_teacher_check(job, teacher, task))
    student = run(
        job.recipe,
        _student_bindings(job, task),
        folder / "student",
        teacher=teacher,
        cache_dir=folder / "cache",
        init_checkpoint=job.init_checkpoint,
        **training,
    )
    baselines = _labels_only(job, student, teacher, task, training) if job.labels_only else []
    return _reported(
        job,
        report.Results(folder, task, teacher, source, student, baselines, checks, job.recipe.seed),
    )


def _pretrained_further(job: Job, source: str, training: dict[str, Any]) -> str:
    """The model folder of the given encoder after more pretraining."""
    given = read_task(job.task_dir, job.task, job.records.columns, job.records.max_bad_rows)
    reported = [one for name, split in given.splits.items() if name != "train" for one in split]
    return continue_pretraining(
        job.pretraining_recipe,
        source,
        job.continue_pretraining,
        reported,
        pathlib.Path(job.model_dir) / "pretraining",
        **training,
    )


def bindings(task: TaskInfo) -> dict[str, str]:
    """Data name -> glob, for the splits that a recipe may train on or select by."""
    known = ("train", "transfer", "augmented", "heldout", "dev")
    names = [name for name in known if name in task.splits]
    # Where nothing else has labels, what selects is reported, and marked so.
    return {n: task.pattern(n) for n in names if n != task.report or n == task.select}


def _student_bindings(job: Job, task: TaskInfo) -> dict[str, str]:
    """`bindings`; a recipe of augmented texts takes the plain ones where there are no others."""
    bound = bindings(task)
    if "augmented" in job.recipe.data_names() and "augmented" not in bound:
        logging.info("There is no --augmented: what trains on it trains on the texts of train.")
        bound["augmented"] = bound["train"]
    return bound


def _class_order(job: Job, source: str, task: TaskInfo) -> list[int] | None:
    """Where each label of the task stands in the given teacher's head; `None`: it needs a head."""
    fits = folders.head_kind(source) == task.task_type
    if task.task_type == "regression":
        return [0] if fits else None
    names = folders.class_names(source) if fits else None
    return preflight.match_labels(names, task.labels, job.teacher_labels)


def _early_checks(
    job: Job, source: str, needs_head: bool, task: TaskInfo, training: dict[str, Any]
) -> list[preflight.Check]:
    """All that can be known before anything is trained."""
    bound = BoundData(bindings(task))
    bound.check_length(job.teacher_recipe.max_seq_length)
    bound.check_length(job.recipe.max_seq_length)
    models = {"teacher": source}
    trained = [(source, job.teacher_recipe)] if needs_head else []
    if job.init_checkpoint is not None:
        models["init_checkpoint"] = folders.find(job.init_checkpoint)
        trained.append((models["init_checkpoint"], job.recipe))
    checks = []
    for role, folder in models.items():
        # Without the task: the classes of a given teacher are put in order, not compared.
        checks += preflight.check_model(folder, role, bound.tokenizer, None, task.max_seq_length)
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


def _teacher(
    job: Job, source: str, order: Sequence[int] | None, task: TaskInfo, training: dict[str, Any]
) -> str:
    """The model folder of a teacher with a head for this task."""
    folder = pathlib.Path(job.model_dir) / "teacher"
    if order is None:
        if not (folder / "run.json").is_file():
            logging.info(
                "The teacher has no head for %s: fine-tuning it.", list(task.labels) or "values"
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


def _teacher_check(job: Job, teacher: str, task: TaskInfo) -> preflight.Check:
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


def _labels_only(
    job: Job, student: dict[str, Any], teacher: str, task: TaskInfo, training: dict[str, Any]
) -> list[BaselineRun]:
    """The same student on labels alone, the best learning rate first."""

    def train(config: recipe.Recipe, folder: pathlib.Path) -> dict[str, Any]:
        start = job.init_checkpoint
        return run(
            config, bindings(task), folder, teacher=teacher, init_checkpoint=start, **training
        )

    folder = pathlib.Path(job.model_dir) / "labels_only"
    return train_baseline(job.recipe, student, folder, job.labels_only_learning_rates, train)


def _reported(job: Job, results: report.Results) -> dict[str, Any]:
    """Exports and reports, unless the report of the very same results is there."""
    folder = results.folder
    target = folder / "export" / "1" if job.export else None
    made_from = results.made_from() | {"export": job.export}
    earlier = report.read(folder)
    if earlier["made_from"] == made_from and (target is None or target.is_dir()):
        logging.info("%s is up to date.", folder / "report.json")
        return earlier
    if target is not None:
        export_model_folder(str(folder / "student"), target)
    content = report.make_report(results, target) | {"made_from": made_from}
    with files.replaced_file(folder / "report.txt", "w") as handle:
        handle.write(report.as_text(content))
    files.write_json(folder / "report.json", content)
    return content
