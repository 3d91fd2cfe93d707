"""Flags that several binaries take, each group defined once."""

from __future__ import annotations

from absl import flags

from xdistil_tf import recipe, recipe_files, recipes, strategies
from xdistil_tf.data import tags
from xdistil_tf.data.layouts import Columns
from xdistil_tf.data.task_records import LABEL_PIECES, Options
from xdistil_tf.trainer import TrainerOptions

FLAGS = flags.FLAGS


def define_task_flags(required: bool = True) -> None:
    """Where a task is and how its files are read."""
    flags.DEFINE_string("task_dir", None, "Folder with train, dev and test files.")
    flags.DEFINE_string(
        "task",
        "classification",
        "A GLUE name (sst-2, cola, mrpc, qqp, sts-b, mnli, qnli, rte, wnli, ax), or "
        "classification, regression, tagging (ner).",
    )
    flags.DEFINE_integer(
        "max_bad_rows", 0, "So many damaged rows are left out and listed.", lower_bound=0
    )
    for name in ("text", "text_b", "label", "language"):
        flags.DEFINE_string(
            f"{name}_column",
            None,
            f"Name of the {name} column in headed files; of CoNLL files its number, from 0.",
        )
    flags.DEFINE_enum(
        "tag_scheme", "auto", tags.SCHEMES, "How tags mark spans; see docs/tagging.md."
    )
    if required:
        flags.mark_flag_as_required("task_dir")


def columns() -> Columns:
    """How files are read, as the flags say."""
    return Columns(
        FLAGS.text_column,
        FLAGS.text_b_column,
        FLAGS.label_column,
        FLAGS.language_column,
        FLAGS.tag_scheme,
    )


def define_records_flags() -> None:
    """How a task becomes records."""
    flags.DEFINE_list("transfer_file", None, "Globs of files with unlabelled texts.")
    flags.DEFINE_list("augmented", None, "Globs of files that `augment` made of this task.")
    flags.DEFINE_integer(
        "max_seq_length", None, "Tokens of the longest sequence. Default: the recipe's, or 128."
    )
    flags.DEFINE_integer("labels_per_class", None, "Labelled examples per class. Default: all.")
    flags.DEFINE_integer(
        "labels_per_language", None, "Labelled examples per language. Default: all."
    )
    flags.DEFINE_list("languages", [], "Only examples of these. Default: all.")
    flags.DEFINE_enum(
        "label_pieces",
        "first",
        LABEL_PIECES,
        "Tagging: which pieces of a word carry its tag, the first one or all.",
    )
    flags.DEFINE_float("heldout_fraction", 0.05, "Share of the labelled texts that selects.")
    flags.DEFINE_integer("heldout_rows", 200, "At least so many texts select.")
    flags.DEFINE_integer("num_shards", 4, "Files of each split.", lower_bound=1)
    flags.DEFINE_bool(
        "allow_transductive", False, "Accept transfer texts that stand in dev or test."
    )


def records_options(seed: int, max_seq_length: int) -> Options:
    """The records flags."""
    return Options(
        max_seq_length=max_seq_length,
        labels_per_class=FLAGS.labels_per_class,
        labels_per_language=FLAGS.labels_per_language,
        label_pieces=FLAGS.label_pieces,
        languages=tuple(FLAGS.languages),
        heldout_fraction=FLAGS.heldout_fraction,
        heldout_rows=FLAGS.heldout_rows,
        seed=seed,
        num_shards=FLAGS.num_shards,
        max_bad_rows=FLAGS.max_bad_rows,
        allow_transductive=FLAGS.allow_transductive,
        columns=columns(),
    )


def define_precision_flag() -> None:
    """The arithmetic of a model that is only run."""
    flags.DEFINE_enum(
        "precision", "float32", ["float32", "bfloat16", "mixed_float16"], "Arithmetic of the model."
    )


def define_strategy_flags() -> None:
    """Replicas, speed and logging."""
    flags.DEFINE_enum(
        "distribution_strategy",
        "one_device",
        strategies.NAMES,
        "Replicas of the model; multi_worker_mirrored: of train, on several machines (TF_CONFIG).",
    )
    flags.DEFINE_integer(
        "num_replicas", 0, "0: all visible GPUs; logical CPU devices where there is none."
    )
    flags.DEFINE_integer("steps_per_loop", 20, "Updates in one compiled call.", lower_bound=1)
    flags.DEFINE_integer("checkpoint_interval", 500, "Updates between checkpoints.", lower_bound=1)
    flags.DEFINE_integer("gradient_accumulation", 1, "Micro-batches of one update.", lower_bound=1)
    flags.DEFINE_bool("xla", False, "Compile the loop with XLA; slower on CPUs.")
    flags.DEFINE_bool("progress", True, "Show a progress bar on a terminal.")


def define_run_flags() -> None:
    """How training runs, and what overrides a field of the recipe."""
    define_strategy_flags()
    flags.DEFINE_enum(
        "precision",
        None,
        ["float32", "bfloat16", "mixed_float16"],
        "Arithmetic. Default: the recipe's.",
    )
    flags.DEFINE_integer("seed", None, "Seed of everything random. Default: the recipe's.")
    flags.DEFINE_multi_string("set", [], "Any field of the recipe: path=value.")
    flags.DEFINE_integer(
        "teacher_layer", None, "Hidden layer compared; negative numbers count from the top."
    )


def define_pretraining_flags() -> None:
    """Whether and how a teacher goes on with its pretraining."""
    flags.DEFINE_list("continue_pretraining", [], "Globs of text to pretrain the teacher further.")
    flags.DEFINE_string(
        "pretraining_recipe",
        "configs/bert/continue_pretraining.yaml",
        "With --continue_pretraining: how.",
    )
    flags.DEFINE_multi_string("set_pretraining", [], "Of --pretraining_recipe: path=value.")


def pretraining_recipe(seed: int) -> recipe.Recipe | None:
    """The recipe of continued pretraining, with the seed and precision of the run.

    Raises:
      ValueError: If it is described and not asked for.
    """
    overrides = list(FLAGS.set_pretraining)
    if not FLAGS.continue_pretraining:
        if overrides or FLAGS["pretraining_recipe"].present:
            raise ValueError(
                "--pretraining_recipe and --set_pretraining say how --continue_pretraining is "
                "done. Add --continue_pretraining, or leave them out."
            )
        return None
    given = [f"seed={seed}", *([f"precision={FLAGS.precision}"] if FLAGS.precision else [])]
    return recipe_files.load_recipe(recipes.find(FLAGS.pretraining_recipe), given + overrides)


def strategy(worker_timeout: int | None = None):
    """The strategy that the flags describe.

    Args:
      worker_timeout: Seconds until a silent worker counts as dead; `None`: of a binary that runs
        in one process.

    Raises:
      ValueError: If such a binary is asked to be one of several workers.
    """
    if worker_timeout is None:
        if FLAGS.distribution_strategy == "multi_worker_mirrored":
            raise ValueError(
                "Only train runs on several workers. Expected --distribution_strategy=one_device "
                "or mirrored."
            )
        return strategies.make_strategy(FLAGS.distribution_strategy, FLAGS.num_replicas)
    return strategies.make_strategy(FLAGS.distribution_strategy, FLAGS.num_replicas, worker_timeout)


def trainer_options() -> TrainerOptions:
    """The speed and logging flags."""
    return TrainerOptions(
        steps_per_loop=FLAGS.steps_per_loop,
        checkpoint_interval=FLAGS.checkpoint_interval,
        gradient_accumulation=FLAGS.gradient_accumulation,
        xla=FLAGS.xla,
        progress=FLAGS.progress,
    )


def recipe_overrides() -> list[str]:
    """`--set`, and the flags that stand for a field."""
    overrides = list(FLAGS.set)
    for flag, field in (
        ("precision", "precision"),
        ("seed", "seed"),
        ("max_seq_length", "max_seq_length"),
        ("teacher_layer", "teacher.layer"),
    ):
        if flag in FLAGS and FLAGS[flag].value is not None:
            overrides.append(f"{field}={FLAGS[flag].value}")
    return overrides
