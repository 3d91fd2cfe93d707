"""The flags of Apache Beam, of binaries that work without TensorFlow."""

from __future__ import annotations

from absl import flags

FLAGS = flags.FLAGS


def define_runner_flags() -> None:
    """Which runner does the work, instead of processes of this machine."""
    flags.DEFINE_string(
        "runner", None, "An Apache Beam runner makes the same files; DirectRunner, for example."
    )
    flags.DEFINE_multi_string(
        "runner_option",
        [],
        "An option of the runner, such as flink_master=host:8081. May be given several times.",
    )


def runner():
    """The `xdistil_tf.beam.runners.Runner` that the flags name, or `None`.

    Raises:
      ImportError: If Apache Beam is missing.
      ValueError: If Beam knows no such runner or option, or options have no runner.
    """
    if not FLAGS.runner:
        if FLAGS.runner_option:
            raise ValueError("--runner_option needs --runner. Name the runner, or leave it out.")
        return None
    from xdistil_tf.beam.runners import Runner

    return Runner(FLAGS.runner, FLAGS.runner_option)
