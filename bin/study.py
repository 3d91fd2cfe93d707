"""Repeats the main job over tasks, label subsets and seeds, and writes the table with its JSON.

A study with `arms` compares ways to pretrain a small encoder instead (docs/pretraining.md).

python bin/study.py --study=configs/evidence/xtremedistil_sst2_low.yaml --output_dir=runs/low
"""

from __future__ import annotations

import sys

from absl import flags, logging

import xdistil_tf.with_tensorflow  # noqa: F401 - quiet, before all that import it
from xdistil_tf import command_line, pretraining_study, recipe_files, recipes, study
from xdistil_tf.bin import shared_flags
from xdistil_tf.interruption import Interruption

FLAGS = flags.FLAGS


def define_flags() -> None:
    shared_flags.define_strategy_flags()
    flags.DEFINE_string("study", None, "YAML file; see configs/evidence/.", required=True)
    flags.DEFINE_string("output_dir", None, "A folder for all runs and the table.", required=True)
    flags.DEFINE_multi_string("set", [], "Any field of the study: path=value.")
    flags.DEFINE_string("output_json", None, "A copy of the result, for the documents.")
    flags.DEFINE_string(
        "finished_runs",
        None,
        "The result (JSON) of an earlier call of this study whose folder is gone: its runs are "
        "taken from it, and only the others are made.",
    )


def main(_) -> None:
    strategy = shared_flags.strategy()
    path = recipes.find(FLAGS.study, "study")
    pretraining = recipe_files.has_field(path, "arms")
    kind = pretraining_study.PretrainingStudy if pretraining else study.Study
    config = recipe_files.load_config(kind, path, FLAGS.set)
    run_it = pretraining_study.run_pretraining_study if pretraining else study.run_study
    with Interruption().listening() as interruption:
        result = run_it(
            config,
            FLAGS.output_dir,
            strategy=strategy,
            options=shared_flags.trainer_options(),
            interruption=interruption,
            finished_runs=FLAGS.finished_runs,
            output_json=FLAGS.output_json,
        )
    for row in [result["table"]["columns"], *result["table"]["rows"]]:
        sys.stdout.write(" | ".join(row) + "\n")
    logging.info("The study is in %s/%s.json.", FLAGS.output_dir, config.name)


def run() -> None:
    define_flags()
    command_line.run(main)


if __name__ == "__main__":
    run()
