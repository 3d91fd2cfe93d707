"""The main job: from a raw task folder to a served student, each step skipped when it is done.

task folder -> records/ -> teacher/ (fine-tuned, or taken as it is) -> cache/ -> student/
            -> labels_only/ (the baseline) -> evaluation -> export/1/ -> report.json
"""

from __future__ import annotations

import dataclasses
import pathlib
import shutil
from typing import Any

import tensorflow as tf
from absl import logging

from xdistil_tf import files, preflight, recipe, report
from xdistil_tf.data.readers import read_task
from xdistil_tf.data.task_records import Options as RecordOptions
from xdistil_tf.data.task_records import TaskInfo, create_task_records
from xdistil_tf.data.tokenization import Tokenizer, load_tokenizer
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
      model_dir: The distill folder.
      init_checkpoint: What a student that is an encoder starts from.
      transfer_file: Globs of unlabelled texts; `None`: the train texts.
      records: How the task becomes records.
      teacher_labels: The task's labels in the order of the teacher's classes.
      accept_weak_teacher: Go on with a teacher no better than a constant answer.
      labels_only: Whether the baseline is trained.
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
    records: RecordOptions = RecordOptions()
    teacher_labels: tuple[str, ...] | None = None
    accept_weak_teacher: bool = False
    labels_only: bool = True
    export: bool = True


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
    tokenizer = load_tokenizer(source)
    task = create_task_records(
        job.task_dir,
        job.task,
        tokenizer,
        folder / "records",
        list(job.transfer_file) if job.transfer_file else None,
        job.records,
    )
    checks = _early_checks(job, source, tokenizer, task, folder)
    teacher = _teacher(job, source, task, folder, training)
    checks.append(_teacher_check(job, teacher, task))
    data = bindings(task)
    student = run(
        job.recipe,
        data,
        folder / "student",
        teacher=teacher,
        cache_dir=folder / "cache",
        init_checkpoint=job.init_checkpoint,
        **training,
    )
    baseline = None
    if job.labels_only:
        baseline = _labels_only(job, student, data, teacher, folder, training)
    exported = None
    if job.export:
        exported = export_model_folder(
            str(folder / "student"), folder / "export" / "1", _parity_texts(job, task)
        )
    content = report.make_report(
        folder=folder,
        task=task,
        teacher=teacher,
        teacher_source=source,
        student=student,
        baseline=baseline,
        cache_dir=folder / "cache",
        exported=exported,
        checks=checks,
        seed=job.recipe.seed,
    )
    files.write_json(folder / "report.json", content)
    with files.replaced_file(folder / "report.txt", "w") as handle:
        handle.write(report.as_text(content))
    return content


def bindings(task: TaskInfo) -> dict[str, str]:
    """Data name -> glob, for the splits that a recipe may train on or select by."""
    names = [name for name in ("train", "transfer", "heldout", "dev") if name in task.splits]
    # Where nothing else has labels, what selects is reported, and marked so.
    return {n: task.pattern(n) for n in names if n != task.report or n == task.select}


def labels_only_recipe(config: recipe.Recipe, steps: int) -> recipe.Recipe:
    """The baseline of a recipe: one `task` stage on all parts of the same model.

    Optimizer, batch size and selection are those of the recipe's last stage on labels.

    Args:
      config: The student's recipe.
      steps: Updates; as many as all stages of the student together.
    """
    labelled = [stage for stage in config.stages if stage.data == "train"]
    like = labelled[-1] if labelled else config.stages[-1]
    evaluate = like.evaluate or recipe.Evaluate()
    stage = recipe.Stage(
        name="labels_only",
        data="train",
        objective=(recipe.Term(loss="task"),),
        steps=steps,
        batch_size=like.batch_size,
        optimizer=like.optimizer,
        # No early stop: the baseline gets all of the updates that the student had.
        evaluate=evaluate.model_copy(update={"keep_best": "task", "patience": None}),
    )
    return config.model_copy(update={"stages": (stage,)})


def _early_checks(
    job: Job, source: str, tokenizer: Tokenizer, task: TaskInfo, folder: pathlib.Path
) -> list[preflight.Check]:
    largest = max(stage.batch_size for stage in (*job.recipe.stages, *job.teacher_recipe.stages))
    longest = max(int(split["length_max"]) for split in task.splits.values())
    # The teacher is the largest model that is trained; float32.
    parameters = pretrained.weights_bytes(source) // 4
    return [
        preflight.check_tokenizer(source, tokenizer),
        preflight.check_sizes(source, tokenizer, task.max_seq_length),
        preflight.check_resources(folder, parameters, largest * longest),
    ]


def _teacher(
    job: Job, source: str, task: TaskInfo, folder: pathlib.Path, training: dict[str, Any]
) -> str:
    """The model folder of a teacher with a head for this task."""
    if task.task_type == "regression":
        has_head = folders.head_kind(source) == "regression"
        order = [0] if has_head else None
    else:
        names = folders.class_names(source) if folders.head_kind(source) == task.task_type else None
        order = preflight.match_labels(names, task.labels, job.teacher_labels)
    if order is None:
        logging.info(
            "The teacher has no head for %s: fine-tuning it.", list(task.labels) or "values"
        )
        run(
            job.teacher_recipe,
            bindings(task),
            folder / "teacher",
            init_checkpoint=source,
            **training,
        )
        return str(folder / "teacher" / "model")
    if order == list(range(len(order))):
        logging.info("The teacher has a head for this task; it is taken as it is.")
        return source
    logging.info("The teacher's classes are put in the task's order: %s.", order)
    return folders.reorder_classes(source, order, task.labels, folder / "teacher" / "model")


def _teacher_check(job: Job, teacher: str, task: TaskInfo) -> preflight.Check:
    model = folders.load_model(teacher)
    predictions = preflight.score_heldout(model, task)
    check = preflight.check_teacher_quality(predictions, task, job.accept_weak_teacher)
    logging.info("Teacher: %s.", check.detail)
    return check


def _labels_only(
    job: Job,
    student: dict[str, Any],
    data: dict[str, str],
    teacher: str,
    folder: pathlib.Path,
    training: dict[str, Any],
) -> dict[str, Any]:
    """The same student on labels alone: at least our updates and at least our time."""
    steps = sum(stage["steps"] for stage in student["stages"])
    target = folder / "labels_only"
    extended = target / "steps.json"
    if extended.is_file():
        steps = files.read_json(extended)["steps"]

    def train(number: int) -> dict[str, Any]:
        config = labels_only_recipe(job.recipe, number)
        return run(
            config,
            data,
            target,
            teacher=teacher,
            init_checkpoint=job.init_checkpoint,
            **training,
        )

    result = train(steps)
    if result["seconds"] < student["seconds"] and not extended.is_file():
        # Its steps are faster than ours: it gets as many more as our time allows.
        steps = int(1.1 * steps * student["seconds"] / result["seconds"]) + 1
        logging.info("The baseline took less time than the student: again, with %d steps.", steps)
        shorter = target / "shorter_run"
        shutil.rmtree(shorter, ignore_errors=True)
        (target / "01_labels_only").replace(shorter)
        files.write_json(extended, {"steps": steps})
        result = train(steps)
    return result


def _parity_texts(job: Job, task: TaskInfo, count: int = 200) -> list | None:
    """Texts of the reported split, which the export keeps and is compared on."""
    if task.task_type == "tagging" or task.report not in ("dev", "test"):
        return None
    raw = read_task(
        job.task_dir,
        job.task,
        job.records.columns,
        job.records.max_bad_rows,
        labels=task.labels,
        splits=(task.report,),
    )
    examples = raw.splits[task.report][:count]
    return [(one.text, one.text_b) if task.pair else one.text for one in examples]
