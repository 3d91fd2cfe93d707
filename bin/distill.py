r"""The main job: task folder -> teacher -> student -> comparison -> SavedModel -> report.

python bin/distill.py --recipe=configs/xtremedistil/text.yaml --task_dir=glue/SST-2 --task=sst-2 \
    --teacher=bert-base-uncased --model_dir=runs/sst2
python bin/distill.py --recipe=configs/tinybert/task.yaml --tasks=rte,cola --glue_dir=glue \
    --teacher='teachers/{task}' --init_checkpoint=runs/general_4l --model_dir='runs/{task}'
"""

from __future__ import annotations

import pathlib
import sys

from absl import flags, logging

import xdistil_tf.with_tensorflow  # noqa: F401 - quiet, before all that import it
from xdistil_tf import command_line, distill_tasks, report
from xdistil_tf.bin import distill_flags, shared_flags
from xdistil_tf.distill import distill
from xdistil_tf.interruption import Interruption

FLAGS = flags.FLAGS


def define_flags() -> None:
    distill_flags.define_job_flags()
    shared_flags.define_run_flags()


def main(_) -> None:
    training = {"strategy": shared_flags.strategy(), "options": shared_flags.trainer_options()}
    jobs = distill_flags.jobs()
    with Interruption().listening() as interruption:
        training["interruption"] = interruption
        if not FLAGS.tasks:
            (job,) = jobs.values()
            sys.stdout.write(report.as_text(distill(job, **training)))
            logging.info("The report is in %s/report.json.", job.model_dir)
            return
        # Beside the folder of the first task.
        summary = pathlib.Path(next(iter(jobs.values())).model_dir).parent / "tasks.json"
        made = distill_tasks.distill_tasks(jobs, summary, **training)
    sys.stdout.write(distill_tasks.as_text(made["tasks"]))
    logging.info("The table is in %s, reports are in the folders of the tasks.", summary)


def run() -> None:
    define_flags()
    command_line.run(main)


if __name__ == "__main__":
    run()
