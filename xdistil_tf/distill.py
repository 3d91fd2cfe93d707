"""The main job: from a raw task folder to a served student, each step skipped when it is done.

task folder -> records/ -> teacher/ (fine-tuned, or taken as it is) -> cache/ -> student/
            -> labels_only/ (the baseline) -> evaluation -> export/1/ -> report.json
"""

from __future__ import annotations

import pathlib
from typing import Any

import tensorflow as tf
from absl import logging

from xdistil_tf import files, gradients, recipe, report, several_teachers, task_teacher
from xdistil_tf.baseline import BaselineRun, train_baseline
from xdistil_tf.continued_pretraining import continue_pretraining
from xdistil_tf.data import word_vocabulary
from xdistil_tf.data.readers import read_task
from xdistil_tf.data.task_info import TaskInfo
from xdistil_tf.data.task_records import create_task_records
from xdistil_tf.data.tokenization import find_tokenizer, load_tokenizer
from xdistil_tf.data.tokenizer import Tokenizer
from xdistil_tf.export.model_folder import export_model_folder
from xdistil_tf.interruption import Interruption
from xdistil_tf.job import Job
from xdistil_tf.models import folders
from xdistil_tf.recipe_checks import check_recipe
from xdistil_tf.run import run
from xdistil_tf.start_encoder import check_size
from xdistil_tf.trainer import TrainerOptions

_MADE_FROM_RECORDS = ("teacher", "teacher_1", "cache", "cache_1", "student")


@gradients.released()
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
    sources = [folders.find(one) for one in (job.teacher, *job.more_teachers)]
    if job.init_checkpoint is not None:
        folders.find(job.init_checkpoint)  # A wrong path is told before the records are made.
    if job.recipe.model.kind == "encoder":
        check_size(job.recipe.model, job.init_checkpoint)
    tokenizer = _students_tokenizer(job, sources[0])
    task = create_task_records(
        job.task_dir,
        job.task,
        tokenizer,
        folder / "records",
        list(job.transfer_file) if job.transfer_file else None,
        job.records,
        # What was made from the records stays true only as long as they stay.
        replace=not any((folder / name).is_dir() for name in _MADE_FROM_RECORDS),
        augmented=list(job.augmented) if job.augmented else None,
    )
    bound = _student_bindings(job, task)
    check_recipe(job.recipe, task.task_type, bound)
    other_ids = load_tokenizer(sources[0]).fingerprint != tokenizer.fingerprint
    if len(sources) > 1 or other_ids:
        return _distilled_from_several(job, sources, task, tokenizer, training)
    return _distilled_from_one(job, sources[0], task, training)


def _students_tokenizer(job: Job, teacher: str) -> Tokenizer:
    """That of the teacher, the one that was given, or one of the words of the texts."""
    words = job.recipe.model.words if job.recipe.model.kind == "bilstm" else None
    if words is None:
        return load_tokenizer(find_tokenizer(job.tokenizer) if job.tokenizer else teacher)
    if job.tokenizer is not None:
        raise ValueError(
            "The recipe's student reads words (model.words) and makes a tokenizer of them. "
            f"Expected no --tokenizer. Received: {job.tokenizer}."
        )
    return word_vocabulary.make_task_vocabulary(
        job.task_dir,
        job.task,
        pathlib.Path(job.model_dir) / "words",
        job.records,
        job.transfer_file,
        job.augmented,
        **words.model_dump(),
    )


def _distilled_from_one(
    job: Job, source: str, task: TaskInfo, training: dict[str, Any]
) -> dict[str, Any]:
    folder = pathlib.Path(job.model_dir)
    order = task_teacher.class_order(job, source, task)
    checks = task_teacher.early_checks(job, source, order is None, task, training)
    if job.continue_pretraining:
        source = _pretrained_further(job, source, training)
    teacher = task_teacher.ready_teacher(job, source, order, task, folder / "teacher", training)
    checks.append(task_teacher.teacher_check(job, teacher, task))
    student = _student(job, task, training, teacher=teacher, cache_dir=folder / "cache")
    baselines = _labels_only(job, student, teacher, task, training)
    return _reported(
        job,
        report.Results(folder, task, teacher, source, student, baselines, checks, job.recipe.seed),
    )


def _distilled_from_several(
    job: Job, sources: list[str], task: TaskInfo, tokenizer: Tokenizer, training: dict[str, Any]
) -> dict[str, Any]:
    """From several teachers, or from one whose ids are others than the student's."""
    if job.continue_pretraining:
        raise ValueError(
            "--continue_pretraining goes with one teacher and its tokenizer. Pretrain each with "
            "train, and give the results as --teacher."
        )
    taught = several_teachers.teach(job, sources, task, tokenizer, training)
    words, joined = taught.of_the_students_words, taught.cache.folder
    student = _student(job, task, training, teacher=words, teacher_cache=str(joined))
    baselines = _labels_only(job, student, words, task, training)
    results = report.Results(
        pathlib.Path(job.model_dir),
        task,
        taught.teachers[0].folder,
        taught.teachers[0].source,
        student,
        baselines,
        list(taught.checks),
        job.recipe.seed,
        report.Joined(taught.cache, [(one.folder, one.task) for one in taught.teachers]),
    )
    return _reported(job, results)


def _student(job: Job, task: TaskInfo, training: dict[str, Any], **teaching: Any) -> dict[str, Any]:
    return run(
        job.recipe,
        _student_bindings(job, task),
        pathlib.Path(job.model_dir) / "student",
        init_checkpoint=job.init_checkpoint,
        **teaching,
        **training,
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


def _student_bindings(job: Job, task: TaskInfo) -> dict[str, str]:
    """`bindings`; a recipe of augmented texts takes the plain ones where there are no others."""
    bound = task_teacher.bindings(task)
    if "augmented" in job.recipe.data_names() and "augmented" not in bound:
        logging.info("There is no --augmented: what trains on it trains on the texts of train.")
        bound["augmented"] = bound["train"]
    return bound


def _labels_only(
    job: Job,
    student: dict[str, Any],
    teacher: str | None,
    task: TaskInfo,
    training: dict[str, Any],
) -> list[BaselineRun]:
    """The same student on labels alone, the best learning rate first; none if not wanted."""
    if not job.labels_only:
        return []
    bound = task_teacher.bindings(task)

    def train(config: recipe.Recipe, folder: pathlib.Path) -> dict[str, Any]:
        start = job.init_checkpoint
        return run(config, bound, folder, teacher=teacher, init_checkpoint=start, **training)

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
