"""Labels and probabilities for a file of texts, in its order.

python bin/predict.py --model_dir=runs/sst2 --input_file=sentences.txt --output_file=predictions.tsv
"""

from __future__ import annotations

from absl import flags, logging

import xdistil_tf.with_tensorflow  # noqa: F401 - quiet, before all that import it
from xdistil_tf import command_line, predict
from xdistil_tf.bin import shared_flags

FLAGS = flags.FLAGS


def define_flags() -> None:
    shared_flags.define_precision_flag()
    flags.DEFINE_string("model_dir", None, "Model, run or distill folder.", required=True)
    flags.DEFINE_string(
        "input_file",
        None,
        "One text a line, pairs tab-separated; -: standard input.",
        required=True,
    )
    flags.DEFINE_string("output_file", None, "TSV; -: standard output.", required=True)
    flags.DEFINE_integer("batch_size", 64, "Texts of a forward pass.", lower_bound=1)


def main(_) -> None:
    predictor = predict.Predictor(FLAGS.model_dir, FLAGS.precision)
    count = predict.predict_file(predictor, FLAGS.input_file, FLAGS.output_file, FLAGS.batch_size)
    place = "on standard output" if FLAGS.output_file == "-" else f"in {FLAGS.output_file}"
    logging.info("%d predictions are %s.", count, place)


def run() -> None:
    define_flags()
    command_line.run(main)


if __name__ == "__main__":
    run()
