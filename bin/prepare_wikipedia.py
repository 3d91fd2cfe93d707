"""A dump, or any text -> shards of sentences, one a line, an empty line between documents.

python bin/prepare_wikipedia.py --input=dump.xml.bz2 --output_dir=text --num_shards=64
"""

from __future__ import annotations

from absl import flags, logging

from xdistil_tf import command_line
from xdistil_tf.bin import runner_flags
from xdistil_tf.data.corpus import inputs
from xdistil_tf.data.corpus.prepare import Options, prepare_corpus
from xdistil_tf.interruption import Interruption

FLAGS = flags.FLAGS


def define_flags() -> None:
    flags.DEFINE_list("input", None, "Files, globs or folders (with all below).", required=True)
    flags.DEFINE_enum(
        "input_format",
        "auto",
        ["auto", *inputs.FORMATS],
        "What the files are; auto looks at the first bytes of each.",
    )
    flags.DEFINE_string("text_field", "text", "Where the text of a JSON line stands.")
    flags.DEFINE_string("output_dir", None, "A folder of its own, for the shards.", required=True)
    flags.DEFINE_integer(
        "num_shards", 16, "Files to write; at most as many as documents.", lower_bound=1
    )
    flags.DEFINE_integer(
        "num_processes", 0, "0: all cores. Changes no byte of the output.", lower_bound=0
    )
    flags.DEFINE_integer(
        "max_bad_rows",
        0,
        "So many damaged documents or lines are left out and listed.",
        lower_bound=0,
    )
    runner_flags.define_runner_flags()


def main(_) -> None:
    options = Options(FLAGS.input_format, FLAGS.text_field, FLAGS.num_shards, FLAGS.max_bad_rows)
    runner = runner_flags.runner()
    if runner is not None:
        from xdistil_tf.beam.prepare import prepare_with_beam

        corpus = prepare_with_beam(FLAGS.input, FLAGS.output_dir, options, runner)
    else:
        with Interruption().listening() as interruption:
            corpus = prepare_corpus(
                FLAGS.input, FLAGS.output_dir, options, FLAGS.num_processes, interruption
            )
    logging.info(
        "The text is in %s: %d documents, %d sentences; dropped: %s.",
        FLAGS.output_dir, corpus["documents"], corpus["sentences"], corpus["dropped"],
    )  # fmt: skip


def run() -> None:
    define_flags()
    command_line.run(main)


if __name__ == "__main__":
    run()
