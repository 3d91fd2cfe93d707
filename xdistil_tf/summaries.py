"""What a run shows while it runs: TensorBoard events, log lines, a progress bar."""

from __future__ import annotations

import datetime
import pathlib
import sys
import time
from collections.abc import Collection, Mapping
from typing import Any

import tensorflow as tf
from absl import logging
from tensorboard.plugins.hparams import summary_v2 as hparams
from tqdm import tqdm

_LINE_SECONDS = 60.0


class StageSummaries:
    """Writes one stage's curves; use as a context manager.

    Where there is no progress bar, as in a file, a line a minute says how far it is.

    Args:
      folder: Where the event files go; `None`: nowhere, and no bar is shown.
      title: The stage's name, for the progress bar.
      total_steps: Length of the bar.
      first_step: Where a resumed stage goes on.
      progress: Whether a bar is shown; never when standard error is no terminal.
    """

    def __init__(
        self,
        folder: pathlib.Path | None,
        title: str,
        total_steps: int,
        first_step: int = 0,
        progress: bool = True,
    ):
        self._title, self._total = title, total_steps
        self._told = self._told_at(first_step) if folder and progress else None
        self._writer = (
            tf.summary.create_file_writer(str(folder))
            if folder
            else tf.summary.create_noop_writer()
        )
        self._bar = tqdm(
            total=total_steps,
            initial=first_step,
            desc=title,
            unit="step",
            disable=not (folder and progress and sys.stderr.isatty()),
        )

    def __enter__(self) -> StageSummaries:
        return self

    def __exit__(self, *exception) -> None:
        self._bar.close()
        self._writer.close()

    def hyperparameters(self, values: Mapping[str, Any]) -> None:
        """Fills the HParams page; nested data is flattened to `a.b.c`."""
        with self._writer.as_default():
            hparams.hparams(_flat(values))

    def training(self, step: int, steps: int, values: Mapping[str, float]) -> None:
        """Scalars of a loop of `steps` updates that ended at `step`."""
        self._bar.update(steps)
        self._bar.set_postfix(loss=f"{values['loss']:.4g}", refresh=False)
        self._scalars(step, values)
        if self._told and self._bar.disable:
            self._tell(step, values)

    def _tell(self, step: int, values: Mapping[str, float]) -> None:
        """Logs step, loss, speed and the time that is left, if that was a minute ago."""
        earlier, then = self._told
        seconds = time.monotonic() - then
        if seconds < _LINE_SECONDS:
            return
        self._told = self._told_at(step)
        left = (self._total - step) * seconds / max(step - earlier, 1)
        logging.info(
            "%s step %d of %d: loss %.4g, %.0f examples/s, %s left.",
            self._title, step, self._total, values["loss"], values["examples_per_second"],
            datetime.timedelta(seconds=round(left)),
        )  # fmt: skip

    @staticmethod
    def _told_at(step: int) -> tuple[int, float]:
        return step, time.monotonic()

    def evaluation(
        self,
        step: int,
        data: str,
        metrics: Mapping[str, float],
        samples: str | None,
        logged: Collection[str],
    ) -> None:
        """Scalars `<data>/<metric>` and the text panel of sample predictions (Markdown).

        The log line has only the metrics `logged`.
        """
        self._scalars(step, {f"{data}/{name}": value for name, value in metrics.items()})
        if samples:
            with self._writer.as_default():
                tf.summary.text("sample predictions", samples, step=step)
        figures = ", ".join(f"{n} {value:.4g}" for n, value in metrics.items() if n in logged)
        logging.info("%s step %d: %s %s", self._title, step, data, figures)
        self._writer.flush()

    def _scalars(self, step: int, values: Mapping[str, float]) -> None:
        with self._writer.as_default():
            for name, value in values.items():
                tf.summary.scalar(name, value, step=step)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            plain = isinstance(value, bool | int | float | str)
            flat[f"{prefix}{name}"] = value if plain else str(value)
    return flat
