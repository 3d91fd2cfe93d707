"""The flags of `distill`, and the jobs that they describe: one, or one for each task."""

from __future__ import annotations

import pathlib

from absl import flags

from xdistil_tf import recipe_files, recipes
from xdistil_tf.bin import shared_flags
from xdistil_tf.data.glue import FOLDERS
from xdistil_tf.data.readers import task_name
from xdistil_tf.distill_tasks import for_task
from xdistil_tf.job import Job

FLAGS = flags.FLAGS


def define_job_flags() -> None:
    """All but those of speed and logging."""
    shared_flags.define_task_flags(required=False)
    shared_flags.define_records_flags()
    shared_flags.define_pretraining_flags()
    flags.DEFINE_list("tasks", [], "Names of GLUE, one job each: {task} in paths is the name.")
    flags.DEFINE_string("glue_dir", None, "With --tasks: where the folders of the tasks are.")
    flags.DEFINE_string("recipe", "configs/xtremedistil/text.yaml", "How the student learns.")
    flags.DEFINE_string(
        "teacher_recipe", "configs/bert/finetune.yaml", "How a teacher without a head gets one."
    )
    flags.DEFINE_list(
        "teacher",
        None,
        "Hugging Face folder, TF1 checkpoint, run folder or hub name; of several (a,b) the answers "
        "are averaged.",
        required=True,
    )
    flags.DEFINE_string(
        "teacher_weights", None, "Of several: 1,2 or, with others for a language, 1,2;sw:0,1."
    )
    flags.DEFINE_string("tokenizer", None, "The student's. Default: the (first) teacher's.")
    flags.DEFINE_string("init_checkpoint", None, "What a student that is an encoder starts from.")
    flags.DEFINE_string("model_dir", None, "The distill folder.", required=True)
    flags.DEFINE_multi_string("set_teacher", [], "Any field of the teacher's recipe: path=value.")
    flags.DEFINE_list(
        "teacher_labels", None, "The task's labels in the order of the teacher's classes."
    )
    flags.DEFINE_bool("accept_weak_teacher", False, "Go on with a teacher that learnt nothing.")
    flags.DEFINE_bool("labels_only", True, "Train the same student on labels alone, too.")
    flags.DEFINE_multi_float(
        "labels_only_learning_rates",
        [],
        "Of that baseline (repeatable): compared by held-out value after the student's number of "
        "updates; the best goes on. Default: that of the last stage on labels.",
    )
    flags.DEFINE_bool("export", True, "Write a SavedModel.")


def jobs() -> dict[str, Job]:
    """Task -> its job, in the order of `--tasks`.

    Raises:
      ValueError: If neither a task nor several are named, or several would share a folder.
    """
    if bool(FLAGS.tasks) == bool(FLAGS.task_dir) or bool(FLAGS.tasks) != bool(FLAGS.glue_dir):
        raise ValueError("Expected --task_dir and --task, or --tasks and --glue_dir.")
    if not FLAGS.tasks:
        return {FLAGS.task: _job(FLAGS.task, FLAGS.task_dir, several=False)}
    names = [task_name(name) for name in FLAGS.tasks]
    if unknown := [name for name in names if name not in FOLDERS]:
        raise ValueError(f"Unknown task. Expected {sorted(FOLDERS)}. Received: {unknown}.")
    if repeated := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"Expected each of --tasks once. Received twice: {sorted(repeated)}.")
    folder = pathlib.Path(FLAGS.glue_dir)
    return {name: _job(name, str(folder / FOLDERS[name]), several=True) for name in names}


def _job(task: str, task_dir: str, several: bool) -> Job:
    name = task_name(task)
    config = recipe_files.load_recipe(
        recipes.find(FLAGS.recipe), shared_flags.recipe_overrides(), name
    )
    shared = [f"seed={config.seed}", f"max_seq_length={config.max_seq_length}"]
    shared += [f"precision={FLAGS.precision}"] if FLAGS.precision else []
    # A teacher without a head, or a general student, serves all tasks.
    teachers = [for_task(one, task, name, False) for one in FLAGS.teacher]
    start = for_task(FLAGS.init_checkpoint, task, name, False)
    files = {
        name: tuple(for_task(one, task, name, several) for one in FLAGS[name].value or ())
        for name in ("transfer_file", "augmented")
    }
    return Job(
        recipe=config,
        teacher_recipe=recipe_files.load_recipe(
            recipes.find(FLAGS.teacher_recipe), shared + FLAGS.set_teacher, name
        ),
        task_dir=task_dir,
        task=task,
        teacher=teachers[0],
        more_teachers=tuple(teachers[1:]),
        teacher_weights=FLAGS.teacher_weights,
        tokenizer=FLAGS.tokenizer,
        init_checkpoint=start,
        model_dir=for_task(FLAGS.model_dir, task, "model_dir", several),
        transfer_file=files["transfer_file"] or None,
        augmented=files["augmented"] or None,
        records=shared_flags.records_options(config.seed, config.max_seq_length),
        teacher_labels=tuple(FLAGS.teacher_labels) if FLAGS.teacher_labels else None,
        accept_weak_teacher=FLAGS.accept_weak_teacher,
        labels_only=FLAGS.labels_only,
        labels_only_learning_rates=tuple(FLAGS.labels_only_learning_rates),
        export=FLAGS.export,
        continue_pretraining=tuple(FLAGS.continue_pretraining),
        pretraining_recipe=shared_flags.pretraining_recipe(config.seed),
    )
