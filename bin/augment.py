r"""Writes examples that differ from a task's in some words; TinyBERT's data augmentation.

python bin/augment.py --method=tinybert --task=sst-2 --task_dir=glue/SST-2 --masked_lm=runs/lm \
    --word_vectors=glove.txt --output_file=train_aug.tsv --seed=1
"""

from __future__ import annotations

from absl import flags, logging

import xdistil_tf.with_tensorflow  # noqa: F401 - quiet, before all that import it
from xdistil_tf import augment, command_line
from xdistil_tf.bin import shared_flags
from xdistil_tf.interruption import Interruption

FLAGS = flags.FLAGS


def define_flags() -> None:
    shared_flags.define_task_flags()
    shared_flags.define_precision_flag()
    flags.DEFINE_enum("method", "tinybert", ["tinybert"], "How words are replaced.")
    flags.DEFINE_string("masked_lm", None, "Model folder with a masked-LM head.", required=True)
    flags.DEFINE_string(
        "word_vectors", None, "GloVe text. Default: the masked LM's own word embeddings."
    )
    flags.DEFINE_string("output_file", None, "A TSV; beside it <name>.json.", required=True)
    flags.DEFINE_integer("rounds", None, "Rounds a text. Default: by task, 10 to 30.")
    flags.DEFINE_integer("candidates", 15, "Of a word.")
    flags.DEFINE_float("replace_prob", 0.4, "Of a word in a round.")
    flags.DEFINE_integer("batch_tokens", 8192, "Pieces of a forward pass.", lower_bound=1)
    flags.DEFINE_bool("as_published", False, "Second segment and candidates of the published code.")
    flags.DEFINE_integer("seed", 1, "Of the rounds.")


def main(_) -> None:
    names = ("method", "rounds", "candidates", "replace_prob", "batch_tokens", "as_published")
    settings = augment.Settings(
        **{name: FLAGS[name].value for name in (*names, "seed", "precision")}
    )
    with Interruption().listening() as interruption:
        made = augment.augment(
            FLAGS.task_dir,
            FLAGS.task,
            FLAGS.masked_lm,
            FLAGS.output_file,
            settings,
            FLAGS.word_vectors,
            shared_flags.columns(),
            FLAGS.max_bad_rows,
            interruption,
        )
    logging.info(
        "%s has %d rows of %d examples; dropped: %s.",
        FLAGS.output_file, made["rows"], made["examples"], made["dropped"],
    )  # fmt: skip


def run() -> None:
    define_flags()
    command_line.run(main)


if __name__ == "__main__":
    run()
