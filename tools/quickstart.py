"""The main job on data that it makes itself: corpus, task, pretrained teacher, student, SavedModel.

python tools/quickstart.py --output_dir=runs/quickstart
python tools/quickstart.py --output_dir=runs/mine --teacher=bert-base-uncased --task_dir=my/task

With a teacher or a task of your own, only what is missing is made.
"""

from __future__ import annotations

import pathlib
import sys

from absl import flags, logging

import xdistil_tf.with_tensorflow  # noqa: F401 - quiet, before all that import it
from xdistil_tf import command_line, recipe_files, recipes, report
from xdistil_tf.data import pretraining, synthetic
from xdistil_tf.data.task_records import Options
from xdistil_tf.data.tokenization import load_tokenizer
from xdistil_tf.distill import distill
from xdistil_tf.interruption import Interruption
from xdistil_tf.job import Job
from xdistil_tf.run import run as run_recipe

FLAGS = flags.FLAGS

_VOCABULARY = 5000
_DOCUMENTS = 4000


def define_flags() -> None:
    flags.DEFINE_string("output_dir", "runs/quickstart", "Where everything goes.")
    flags.DEFINE_string("teacher", "", "Default: a small BERT, pretrained here.")
    flags.DEFINE_string("task_dir", "", "Default: an embedded task, made here.")
    flags.DEFINE_string("task", "classification", "What task_dir holds; a GLUE name, for example.")
    flags.DEFINE_integer("seed", 42, "Of everything.")


def make_task(folder: pathlib.Path, seed: int) -> None:
    """3,000 labelled sentences in 8 topics, 8,000 without labels."""
    if not (folder / "labels.tsv").is_file():
        synthetic.generate_task(
            folder,
            num_train=3000,
            num_dev=1000,
            num_test=1000,
            num_transfer=8000,
            num_classes=8,
            seed=seed,
        )


def pretrain_teacher(folder: pathlib.Path, seed: int, interruption: Interruption) -> str:
    """A small BERT, pretrained on a generated corpus; its run folder."""
    corpus = folder / "corpus.txt"
    if not (folder / "tokenizer" / "tokenizer.json").is_file():
        synthetic.generate_corpus(corpus, _DOCUMENTS, seed)
        synthetic.train_wordpiece([corpus], _VOCABULARY, folder / "tokenizer")
    config = recipe_files.load_recipe(
        recipes.find("configs/bert/pretrain_tiny.yaml"), [f"seed={seed}"]
    )
    records = folder / "records"
    pretraining.write_pretraining_records(
        corpus,
        load_tokenizer(folder / "tokenizer"),
        records,
        max_seq_length=config.max_seq_length,
        max_predictions_per_seq=12,
        dupe_factor=3,
        do_whole_word_mask=True,
        seed=seed,
    )
    run_recipe(
        config,
        {"corpus": str(records / "train-*"), "heldout": str(records / "heldout-*")},
        folder / "run",
        interruption=interruption,
    )
    return str(folder / "run")


def main(_) -> None:
    output = pathlib.Path(FLAGS.output_dir)
    output.mkdir(parents=True, exist_ok=True)
    embedded = not FLAGS.task_dir
    with Interruption().listening() as interruption:
        if embedded:
            make_task(output / "task", FLAGS.seed)
        teacher = FLAGS.teacher or pretrain_teacher(
            output / "pretraining", FLAGS.seed, interruption
        )
        name = "quickstart" if not FLAGS.teacher else "text"
        config = recipe_files.load_recipe(
            recipes.find(f"configs/xtremedistil/{name}.yaml"),
            [f"seed={FLAGS.seed}", "teacher.layer=-1"],
        )
        tuned = [f"seed={FLAGS.seed}", f"max_seq_length={config.max_seq_length}"]
        if not FLAGS.teacher:
            # A small model on few labels wants a larger rate and more epochs than BERT.
            tuned += ["stages.0.epochs=10", "stages.0.optimizer.learning_rate=5e-4"]
        job = Job(
            recipe=config,
            teacher_recipe=recipe_files.load_recipe(
                recipes.find("configs/bert/finetune.yaml"), tuned
            ),
            task_dir=FLAGS.task_dir or str(output / "task"),
            task=FLAGS.task if FLAGS.task_dir else "classification",
            teacher=teacher,
            model_dir=str(output / "distilled"),
            transfer_file=(str(output / "task" / "transfer.txt"),) if embedded else None,
            records=Options(max_seq_length=config.max_seq_length, seed=FLAGS.seed),
        )
        content = distill(job, interruption=interruption)
    sys.stdout.write(report.as_text(content))
    logging.info("The SavedModel is in %s.", output / "distilled" / "export" / "1")


def run() -> None:
    define_flags()
    command_line.run(main)


if __name__ == "__main__":
    run()
