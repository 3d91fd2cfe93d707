r"""Text -> masked-LM records of BERT.

python bin/create_pretraining_data.py --input_file='text/*.txt' --output_dir=records \
    --tokenizer=bert-base-uncased --max_seq_length=128 --dupe_factor=5 --do_whole_word_mask
"""

from __future__ import annotations

import contextlib

from absl import flags, logging

from xdistil_tf import command_line
from xdistil_tf.bin import runner_flags
from xdistil_tf.data.pretraining import processes, write_pretraining_records
from xdistil_tf.data.tokenization import find_tokenizer, load_tokenizer
from xdistil_tf.interruption import Interruption

FLAGS = flags.FLAGS


def define_flags() -> None:
    flags.DEFINE_list(
        "input_file",
        None,
        "Globs of text, one sentence a line, an empty line between documents; or of TinyBERT's "
        "epoch_<i>.json.",
        required=True,
    )
    flags.DEFINE_string("output_dir", None, "A folder of its own.", required=True)
    flags.DEFINE_string("tokenizer", None, "Model folder, hub name or vocab.txt.", required=True)
    flags.DEFINE_bool("do_lower_case", None, "For a bare vocab.txt: fold case.")
    flags.DEFINE_integer("max_seq_length", 128, "Tokens of a sequence.")
    flags.DEFINE_integer("max_predictions_per_seq", 20, "Slots for masked tokens.")
    flags.DEFINE_float("masked_lm_prob", 0.15, "Share of the tokens to predict; 0 masks nothing.")
    flags.DEFINE_float("short_seq_prob", 0.1, "Share of the documents with shorter sequences.")
    flags.DEFINE_integer("dupe_factor", 10, "Passes over the text, each with other masks.")
    flags.DEFINE_bool("do_whole_word_mask", False, "Mask all pieces of a word or none.")
    flags.DEFINE_bool("next_sentence", True, "Pairs; else sequences are packed with sentences.")
    flags.DEFINE_bool("dynamic_masking", False, "Draw masks when reading; needs --dupe_factor=1.")
    flags.DEFINE_float("heldout_fraction", 0.05, "Share of the documents that is held out.")
    flags.DEFINE_integer("num_shards", 16, "Files of train records.")
    flags.DEFINE_integer("num_processes", 0, "0: all cores. Does not change a byte.")
    flags.DEFINE_integer("seed", 12345, "Of everything random.")
    runner_flags.define_runner_flags()


def main(_) -> None:
    tokenizer = load_tokenizer(find_tokenizer(FLAGS.tokenizer), FLAGS.do_lower_case)
    runner = runner_flags.runner()
    with contextlib.ExitStack() as stack:
        if runner is None:
            # A runner is stopped by the signal itself; the records' shards are whole all the same.
            interruption = stack.enter_context(Interruption().listening())
            execute = processes.execution(FLAGS.num_processes, interruption)
        else:
            from xdistil_tf.beam import pretraining

            execute = pretraining.execution(runner)
        manifest = write_pretraining_records(
            FLAGS.input_file,
            tokenizer,
            FLAGS.output_dir,
            FLAGS.max_seq_length,
            FLAGS.max_predictions_per_seq,
            FLAGS.masked_lm_prob,
            FLAGS.dupe_factor,
            FLAGS.do_whole_word_mask,
            FLAGS.seed,
            FLAGS.next_sentence,
            FLAGS.heldout_fraction,
            FLAGS.short_seq_prob,
            FLAGS.num_shards,
            FLAGS.dynamic_masking,
            execute,
        )
    counts = {name: split["records"] for name, split in manifest["splits"].items()}
    logging.info("Records are in %s: %s.", FLAGS.output_dir, counts)


def run() -> None:
    define_flags()
    command_line.run(main)


if __name__ == "__main__":
    run()
