"""The main job: task folder -> teacher -> student -> comparison -> SavedModel -> report.

python bin/distill.py --recipe=configs/xtremedistil/text.yaml --task_dir=glue/SST-2 --task=sst-2 \
    --teacher=bert-base-uncased --model_dir=runs/sst2
"""

from __future__ import annotations

import sys

from absl import flags, logging

import xdistil_tf.with_tensorflow  # noqa: F401 - quiet, before all that import it
from xdistil_tf import command_line, recipe, recipes, report
from xdistil_tf.bin import shared_flags
from xdistil_tf.distill import Job, distill
from xdistil_tf.interruption import Interruption

FLAGS = flags.FLAGS


def define_flags() -> None:
    shared_flags.define_task_flags()
    shared_flags.define_records_flags()
    shared_flags.define_run_flags()
    shared_flags.define_pretraining_flags()
    flags.DEFINE_string("recipe", "configs/xtremedistil/text.yaml", "Of the student.")
    flags.DEFINE_string("teacher_recipe", "configs/bert/finetune.yaml", "Fine-tunes the teacher.")
    flags.DEFINE_string(
        "teacher",
        None,
        "Hugging Face folder, TF1 checkpoint, run folder or hub name.",
        required=True,
    )
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


def main(_) -> None:
    strategy = shared_flags.strategy()
    config = recipe.load_recipe(recipes.find(FLAGS.recipe), shared_flags.recipe_overrides())
    shared = [f"seed={config.seed}", f"max_seq_length={config.max_seq_length}"]
    shared += [f"precision={FLAGS.precision}"] if FLAGS.precision else []
    job = Job(
        recipe=config,
        teacher_recipe=recipe.load_recipe(
            recipes.find(FLAGS.teacher_recipe), shared + FLAGS.set_teacher
        ),
        task_dir=FLAGS.task_dir,
        task=FLAGS.task,
        teacher=FLAGS.teacher,
        init_checkpoint=FLAGS.init_checkpoint,
        model_dir=FLAGS.model_dir,
        transfer_file=tuple(FLAGS.transfer_file) if FLAGS.transfer_file else None,
        records=shared_flags.records_options(config.seed, config.max_seq_length),
        teacher_labels=tuple(FLAGS.teacher_labels) if FLAGS.teacher_labels else None,
        accept_weak_teacher=FLAGS.accept_weak_teacher,
        labels_only=FLAGS.labels_only,
        labels_only_learning_rates=tuple(FLAGS.labels_only_learning_rates),
        export=FLAGS.export,
        continue_pretraining=tuple(FLAGS.continue_pretraining),
        pretraining_recipe=shared_flags.pretraining_recipe(config.seed),
    )
    with Interruption().listening() as interruption:
        content = distill(
            job,
            strategy=strategy,
            options=shared_flags.trainer_options(),
            interruption=interruption,
        )
    sys.stdout.write(report.as_text(content))
    logging.info("The report is in %s/report.json.", FLAGS.model_dir)


def run() -> None:
    define_flags()
    command_line.run(main)


if __name__ == "__main__":
    run()
