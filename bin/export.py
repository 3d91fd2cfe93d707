"""A SavedModel that takes raw strings, compared with the model it came from.

python bin/export.py --model_dir=runs/sst2 --output_dir=served/sst2/1
"""

from __future__ import annotations

from absl import flags, logging

import xdistil_tf.with_tensorflow  # noqa: F401 - quiet, before all that import it
from xdistil_tf import command_line
from xdistil_tf.export import compared_texts
from xdistil_tf.export.model_folder import export_model_folder, trained_labels

FLAGS = flags.FLAGS


def define_flags() -> None:
    flags.DEFINE_string("model_dir", None, "Model, run or distill folder.", required=True)
    flags.DEFINE_string(
        "output_dir", None, "The SavedModel; a number for TF Serving.", required=True
    )
    flags.DEFINE_integer("parity_texts", 200, "Of --parity_file, at most so many.", lower_bound=1)
    flags.DEFINE_string(
        "parity_file",
        None,
        "Texts to compare on, one a line; stored in the export. Default: built in.",
    )
    flags.DEFINE_enum("signatures", "all", ["all", "ids"], "ids: loads without tensorflow_text.")


def main(_) -> None:
    texts = None
    if FLAGS["parity_texts"].present and not FLAGS.parity_file:
        raise ValueError("--parity_texts counts texts of --parity_file. Expected that flag, too.")
    if FLAGS["parity_file"].present:
        pair = trained_labels(FLAGS.model_dir).pair
        texts = compared_texts.read_file(FLAGS.parity_file, pair, FLAGS.parity_texts)
    export_model_folder(FLAGS.model_dir, FLAGS.output_dir, texts, FLAGS.signatures)
    logging.info("The SavedModel is in %s.", FLAGS.output_dir)


def run() -> None:
    define_flags()
    command_line.run(main)


if __name__ == "__main__":
    run()
