"""The parts and shards of pretraining records, run by an Apache Beam pipeline.

    write_pretraining_records(..., execute=pretraining.execution("DirectRunner"))

Each pass is one pipeline, whose elements are the same calls that a process makes; so shards are
byte-identical. All workers must see the input and the output folder under the same paths.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from xdistil_tf.data.pretraining.processes import Execution


def execution(runner: str) -> Execution:
    """Runs calls as elements of a pipeline.

    Raises:
      ImportError: If Apache Beam is not installed.
      ValueError: If there is no such runner.
    """
    try:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as error:
        raise ImportError(
            f"--runner={runner} needs Apache Beam: pip install 'xdistil_tf[beam]'. Without "
            "--runner the same records are made by processes of this machine."
        ) from error
    try:
        made = beam.runners.create_runner(runner)
    except (ValueError, ImportError, AttributeError) as error:
        raise ValueError(
            f"Expected a runner of Apache Beam (DirectRunner, FlinkRunner, ...). Received: "
            f"--runner={runner}."
        ) from error

    def execute(function: Callable[..., None], arguments: Sequence[tuple]) -> None:
        if not arguments:
            return
        with beam.Pipeline(runner=made, options=PipelineOptions([])) as pipeline:
            (
                pipeline
                | "Calls" >> beam.Create(list(arguments), reshuffle=True)
                | "Run" >> beam.MapTuple(function)
            )

    return execute
