r"""Scores a model on a split of a task folder, or on records, those of pretraining included.

python bin/evaluate.py --model_dir=runs/sst2 --task_dir=glue/SST-2 --task=sst-2 --split=dev \
    --output_json=metrics.json
python bin/evaluate.py --model_dir=runs/small --teacher=runs/lm --records='records/heldout-*'
"""

from __future__ import annotations

from absl import flags, logging

import xdistil_tf.with_tensorflow  # noqa: F401 - quiet, before all that import it
from xdistil_tf import command_line, evaluate, evaluate_pretraining, files
from xdistil_tf.bin import shared_flags

FLAGS = flags.FLAGS


def define_flags() -> None:
    shared_flags.define_task_flags(required=False)
    shared_flags.define_precision_flag()
    flags.DEFINE_string("model_dir", None, "Model, run or distill folder.", required=True)
    flags.DEFINE_string("split", "dev", "Split of the task folder.")
    flags.DEFINE_string("records", None, "Glob of record shards, instead of a task folder.")
    flags.DEFINE_string("teacher", None, "Compared with the model on pretraining records.")
    flags.DEFINE_integer(
        "batch_size",
        None,
        "Examples of a forward pass. Default: 128; 32 of pretraining records.",
        lower_bound=1,
    )
    flags.DEFINE_string("output_json", None, "Where the figures go; default: standard log only.")


def main(_) -> None:
    if (FLAGS.task_dir is None) == (FLAGS.records is None):
        raise ValueError("Expected exactly one of --task_dir and --records.")
    files.require_folder(FLAGS.model_dir, "a model, run or distill folder")
    result = _scored()
    figures = ", ".join(f"{name} {value:.4f}" for name, value in result["metrics"].items())
    logging.info("%s, %d examples: %s", result["split"], result["examples"], figures)
    if "teacher" in result:
        theirs = result["teacher"]
        logging.info(
            "Teacher: masked_lm_loss %.4f; agreement %.4f, KL divergence %.4f",
            theirs["metrics"]["masked_lm_loss"], theirs["agreement"], theirs["kl_divergence"],
        )  # fmt: skip
    if FLAGS.output_json:
        files.write_json(FLAGS.output_json, result)
        logging.info("The figures are in %s.", FLAGS.output_json)


def _scored() -> dict:
    pretraining = FLAGS.records and evaluate_pretraining.is_pretraining(FLAGS.records)
    if pretraining:
        return evaluate_pretraining.evaluate_pretraining(
            FLAGS.model_dir, FLAGS.records, FLAGS.teacher, FLAGS.precision, FLAGS.batch_size or 32
        )
    if FLAGS.teacher:
        raise ValueError("--teacher is compared on pretraining records. Expected --records of one.")
    model = evaluate.EvaluatedModel(FLAGS.model_dir, FLAGS.precision, FLAGS.batch_size or 128)
    if FLAGS.records:
        return model.on_records(FLAGS.records)
    return model.on_task(
        FLAGS.task_dir,
        FLAGS.task if FLAGS["task"].present else None,
        FLAGS.split,
        shared_flags.columns(),
        FLAGS.max_bad_rows,
    )


def run() -> None:
    define_flags()
    command_line.run(main)


if __name__ == "__main__":
    run()
