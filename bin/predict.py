"""Labels and probabilities for a file of texts, in its order; of tagging models words and entities.

python bin/predict.py --model_dir=runs/sst2 --input_file=sentences.txt --output_file=predictions.tsv
python bin/predict.py --model_dir=runs/panx --input_file=raw.txt --output_file=entities.jsonl
"""

from __future__ import annotations

from absl import flags, logging

import xdistil_tf.with_tensorflow  # noqa: F401 - quiet, before all that import it
from xdistil_tf import command_line, glue_submission, predict
from xdistil_tf.bin import shared_flags

FLAGS = flags.FLAGS


def define_flags() -> None:
    shared_flags.define_precision_flag()
    flags.DEFINE_string("model_dir", None, "Model, run or distill folder.", required=True)
    flags.DEFINE_string(
        "input_file", None, "One text a line, pairs tab-separated; -: standard input."
    )
    flags.DEFINE_string(
        "output_file", None, "TSV, of tagging models lines of JSON; -: standard output."
    )
    flags.DEFINE_bool(
        "pretokenized", False, "Tagging: words are what white space separates, and nothing else."
    )
    flags.DEFINE_string("task_dir", None, "Folder of a GLUE task, instead of a file.")
    flags.DEFINE_string("task", None, "Its name: sst-2, cola, mrpc, ..., or ax.")
    flags.DEFINE_string("split", "test", "Of the task folder; of MNLI also test_mismatched.")
    flags.DEFINE_string(
        "glue_submission_dir", None, "Where <Task>.tsv goes, as gluebenchmark.com takes it."
    )
    flags.DEFINE_integer("batch_size", 64, "Texts of a forward pass.", lower_bound=1)


def main(_) -> None:
    of_file = (FLAGS.input_file, FLAGS.output_file)
    of_task = (FLAGS.task_dir, FLAGS.task, FLAGS.glue_submission_dir)
    if all(of_file) == all(of_task) or any(of_file) == any(of_task):
        raise ValueError(
            "Expected --input_file and --output_file, or --task_dir, --task and "
            "--glue_submission_dir."
        )
    predictor = predict.Predictor(FLAGS.model_dir, FLAGS.precision)
    if all(of_task):
        path = glue_submission.write_submission(
            predictor, FLAGS.task_dir, FLAGS.task, FLAGS.split, FLAGS.glue_submission_dir,
            FLAGS.batch_size,
        )  # fmt: skip
        logging.info("The predictions are in %s.", path)
        return
    count = predict.predict_file(
        predictor, FLAGS.input_file, FLAGS.output_file, FLAGS.batch_size, FLAGS.pretokenized
    )
    place = "on standard output" if FLAGS.output_file == "-" else f"in {FLAGS.output_file}"
    logging.log(logging.INFO if count else logging.WARNING, "%d predictions are %s.", count, place)


def run() -> None:
    define_flags()
    command_line.run(main)


if __name__ == "__main__":
    run()
