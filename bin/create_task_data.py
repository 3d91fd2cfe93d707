r"""Task folder -> records.

python bin/create_task_data.py --task_dir=glue/SST-2 --task=sst-2 --tokenizer=bert-base-uncased \
    --output_dir=records/sst2
"""

from __future__ import annotations

from absl import flags, logging

import xdistil_tf.with_tensorflow  # noqa: F401 - quiet, before all that import it
from xdistil_tf import command_line
from xdistil_tf.bin import shared_flags
from xdistil_tf.data.task_records import create_task_records
from xdistil_tf.data.tokenization import find_tokenizer, load_tokenizer

FLAGS = flags.FLAGS


def define_flags() -> None:
    shared_flags.define_task_flags()
    shared_flags.define_records_flags()
    flags.DEFINE_string("tokenizer", None, "Model folder, hub name or vocab.txt.", required=True)
    flags.DEFINE_bool("do_lower_case", None, "For a bare vocab.txt: fold case.")
    flags.DEFINE_string("output_dir", None, "The records folder.", required=True)
    flags.DEFINE_integer("seed", 42, "Draws the labelled examples with --labels_per_class.")


def main(_) -> None:
    info = create_task_records(
        FLAGS.task_dir,
        FLAGS.task,
        load_tokenizer(find_tokenizer(FLAGS.tokenizer), FLAGS.do_lower_case),
        FLAGS.output_dir,
        FLAGS.transfer_file,
        shared_flags.records_options(FLAGS.seed, FLAGS.max_seq_length or 128),
        augmented=FLAGS.augmented,
    )
    counts = {name: split["records"] for name, split in info.splits.items()}
    logging.info("Records are in %s: %s; dropped: %s.", info.folder, counts, dict(info.dropped))


def run() -> None:
    define_flags()
    command_line.run(main)


if __name__ == "__main__":
    run()
