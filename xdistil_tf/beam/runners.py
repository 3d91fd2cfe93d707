"""What all pipelines share: a runner by name with its options, and errors in one line."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator, Sequence
from typing import Any

_STEP = re.compile(r" \[while running '[^']*'\]")  # What Beam adds to a message.


class Runner:
    """A runner of Apache Beam.

    ```
    with Runner("FlinkRunner", ["flink_master=host:8081"]).pipeline() as pipeline: ...
    ```

    Args:
      name: That Beam knows, such as `DirectRunner`.
      options: Of the runner, `name=value` each, as Beam documents them.

    Raises:
      ImportError: If apache-beam is missing.
      ValueError: If Beam knows no such runner or option.
    """

    def __init__(self, name: str, options: Sequence[str] = ()):
        self.beam = _beam(name)
        try:
            self._runner = self.beam.runners.create_runner(name)
        except (AttributeError, ImportError, ValueError) as error:
            raise ValueError(
                f"Beam knows no runner --runner={name}: {error}. Expected DirectRunner, for "
                "example."
            ) from error
        self._options = [f"--{one.lstrip('-')}" for one in options]
        known = self._made_options().get_all_options()
        for one in self._options:
            if one[2:].partition("=")[0] not in known:
                raise ValueError(
                    f"Beam knows no option --runner_option={one[2:]}. Expected name=value, as the "
                    f"documentation of {name} has them."
                )

    @contextlib.contextmanager
    def pipeline(self) -> Iterator[Any]:
        """A pipeline that runs as the block ends.

        Raises:
          Exception: What a function of the pipeline raised, without what Beam says of it.
        """
        try:
            with (
                _without_traces(),
                self.beam.Pipeline(self._runner, options=self._made_options()) as pipeline,
            ):
                yield pipeline
        except (ValueError, OSError, RuntimeError) as error:
            message = _STEP.sub("", str(error))
            raise type(error)(message) from None

    def _made_options(self):
        # Without arguments Beam would take those of the program.
        return self.beam.options.pipeline_options.PipelineOptions(self._options)


@contextlib.contextmanager
def _without_traces() -> Iterator[None]:
    """Beam logs the traceback of what a function raises, which is raised here as well."""
    logger = logging.getLogger("apache_beam.runners")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _beam(runner: str):
    try:
        import apache_beam
        import apache_beam.options.pipeline_options
        import apache_beam.runners
    except ImportError as error:
        raise ImportError(
            f"--runner={runner} needs Apache Beam: pip install 'xdistil_tf[beam]'. Without "
            "--runner processes of this machine make the same."
        ) from error
    return apache_beam
