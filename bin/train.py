r"""Trains one model as a recipe says; run it again to go on where it was killed.

python bin/train.py --recipe=configs/bert/finetune.yaml --init_checkpoint=bert-base-uncased \
    --data=train='records/train-*' --data=heldout='records/heldout-*' --model_dir=runs/teacher
"""

from __future__ import annotations

from absl import flags, logging

import xdistil_tf.with_tensorflow  # noqa: F401 - quiet, before all that import it
from xdistil_tf import command_line, recipe_files, recipes
from xdistil_tf.bin import shared_flags
from xdistil_tf.interruption import Interruption
from xdistil_tf.run import run as run_recipe

FLAGS = flags.FLAGS


def define_flags() -> None:
    shared_flags.define_run_flags()
    flags.DEFINE_string("recipe", None, "YAML file; see configs/.", required=True)
    flags.DEFINE_multi_string("data", [], "name=glob of record shards; once for each name.")
    flags.DEFINE_string("model_dir", None, "The run folder.", required=True)
    flags.DEFINE_string("teacher", None, "Model to learn from.")
    flags.DEFINE_string("teacher_cache", None, "Its outputs, made before by cache_teacher.")
    flags.DEFINE_string("init_checkpoint", None, "What an encoder starts from.")
    flags.DEFINE_integer(
        "worker_timeout", 120, "Seconds until a silent worker counts as dead.", lower_bound=1
    )


def data_bindings(pairs: list[str]) -> dict[str, str]:
    """`["train=records/train-*"]` -> `{"train": "records/train-*"}`."""
    bound = dict(pair.partition("=")[::2] for pair in pairs)
    if not bound or not all(bound.values()):
        raise ValueError(f"Invalid --data. Expected name=glob. Received: {pairs}.")
    if len(bound) < len(pairs):
        raise ValueError(
            f"Invalid --data. Expected each name once, several globs separated by commas. "
            f"Received: {pairs}."
        )
    return {name: pattern.strip("'\"") for name, pattern in bound.items()}


def main(_) -> None:
    strategy = shared_flags.strategy(FLAGS.worker_timeout)
    config = recipe_files.load_recipe(recipes.find(FLAGS.recipe), shared_flags.recipe_overrides())
    data = data_bindings(FLAGS.data)
    for name in sorted(set(data) - config.data_names()):
        logging.warning("No stage of the recipe reads the data %r, which --data binds.", name)
    with Interruption().listening() as interruption:
        run_recipe(
            config,
            data,
            FLAGS.model_dir,
            teacher=FLAGS.teacher,
            teacher_cache=FLAGS.teacher_cache,
            init_checkpoint=FLAGS.init_checkpoint,
            strategy=strategy,
            options=shared_flags.trainer_options(),
            interruption=interruption,
        )


def run() -> None:
    define_flags()
    command_line.run(main)


if __name__ == "__main__":
    run()
