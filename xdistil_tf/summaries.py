"""What a run shows while it runs: TensorBoard events, log lines, a progress bar."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Collection, Mapping
from typing import Any

import tensorflow as tf
from absl import logging
from tensorboard.plugins.hparams import summary_v2 as hparams
from tqdm import tqdm


class StageSummaries:
    """Writes one stage's curves; use as a context manager.

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
        self._title = title
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
