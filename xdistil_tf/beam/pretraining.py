"""The parts and shards of pretraining records, run by an Apache Beam pipeline.

    write_pretraining_records(..., execute=pretraining.execution(Runner("DirectRunner")))

Each pass is one pipeline, whose elements are the same calls that a process makes; so shards are
byte-identical. All workers must see the input and the output folder under the same paths.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from xdistil_tf.beam.runners import Runner
from xdistil_tf.data.pretraining.processes import Execution


def execution(runner: Runner) -> Execution:
    """Runs calls as elements of a pipeline."""

    def execute(function: Callable[..., None], arguments: Sequence[tuple]) -> None:
        if not arguments:
            return
        beam = runner.beam
        with runner.pipeline() as pipeline:
            (
                pipeline
                | "Calls" >> beam.Create(list(arguments), reshuffle=True)
                | "Run" >> beam.MapTuple(function)
            )

    return execute
