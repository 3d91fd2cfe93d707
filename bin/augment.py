r"""Writes examples that differ from a task's in some words: as TinyBERT does, or by rules.

python bin/augment.py --method=tinybert --task=sst-2 --task_dir=glue/SST-2 --masked_lm=runs/lm \
    --word_vectors=glove.txt --output_file=train_aug.tsv --seed=1
python bin/augment.py --method=rules --task=sst-2 --task_dir=glue/SST-2 --p_mask=0.1 --p_pos=0.1 \
    --p_ngram=0.25 --n_iter=20 --output_file=transfer.tsv --seed=1
"""

from __future__ import annotations

from typing import Any

from absl import flags, logging

import xdistil_tf.with_tensorflow  # noqa: F401 - quiet, before all that import it
from xdistil_tf import augment, augment_rules, command_line
from xdistil_tf.bin import augment_flags, shared_flags
from xdistil_tf.interruption import Interruption

FLAGS = flags.FLAGS


def define_flags() -> None:
    shared_flags.define_task_flags()
    shared_flags.define_precision_flag()
    flags.DEFINE_enum("method", "tinybert", ["tinybert", "rules"], "How words are replaced.")
    flags.DEFINE_string("output_file", None, "A TSV; beside it <name>.json.", required=True)
    flags.DEFINE_bool("as_published", False, "The published code, where ours differs on purpose.")
    flags.DEFINE_integer("seed", 1, "Of what is drawn.")
    augment_flags.define_tinybert_flags()
    augment_flags.define_rule_flags()


def main(_) -> None:
    with Interruption().listening() as interruption:
        made = (_by_rules if FLAGS.method == "rules" else _as_tinybert)(interruption)
    logging.info(
        "%s has %d rows of %d examples; dropped: %s.",
        FLAGS.output_file, made["rows"], made["examples"], made["dropped"],
    )  # fmt: skip


def _as_tinybert(interruption: Interruption) -> dict[str, Any]:
    settings = augment_flags.tinybert_settings()
    return augment.augment(
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


def _by_rules(interruption: Interruption) -> dict[str, Any]:
    return augment_rules.augment_by_rules(
        FLAGS.task_dir,
        FLAGS.task,
        FLAGS.output_file,
        augment_flags.rule_settings(),
        shared_flags.columns(),
        FLAGS.max_bad_rows,
        FLAGS.num_processes,
        interruption,
    )


def run() -> None:
    define_flags()
    command_line.run(main)


if __name__ == "__main__":
    run()
