"""A stage's folder: what it was asked to do, its checkpoints, and whether it is finished.

folder = StageFolder(path, definition)   # refuses a folder made from another definition
if folder.finished: ...                  # restore `folder.weights()`, go to the next stage
checkpoint = folder.latest()             # newest complete one, or None
folder.save(step, state, tensors)        # aside, synced, renamed
folder.finish(result, weights)
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
import shutil
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import safetensors.numpy
from absl import logging

from xdistil_tf import files

Tensors = Mapping[str, np.ndarray]
_FINGERPRINT = re.compile("[0-9a-f]{64}")


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint.

    Attributes:
      step: Updates done in this stage.
      state: JSON-able state: best value, patience, seconds, loss scale, ...
      tensors: Name -> array of every variable that the next step depends on.
      best: Name -> array of the best weights so far, or `None`.
    """

    step: int
    state: dict[str, Any]
    tensors: Tensors
    best: Tensors | None


class StageFolder:
    """Keeps the last checkpoints of one stage, its definition, and its result.

    Args:
      path: `<model_dir>/<nn>_<stage>`.
      definition: Everything that decides the stage's result, as nested JSON-able data:
        stage, parent, data, teacher, seed, ... Not: logging and speed.
      keep: Number of checkpoints that stay; two, so that one may be damaged.
      writes: False for all but one of several workers, which read what that one writes.

    Raises:
      ValueError: If the folder was begun or finished with another definition. Names the fields.
    """

    def __init__(
        self, path: files.Path, definition: Mapping[str, Any], keep: int = 2, writes: bool = True
    ):
        self.path = pathlib.Path(path)
        self.definition = dict(definition)
        self.fingerprint = files.fingerprint(self.definition)
        self._keep = keep
        self._writes = writes
        self._checkpoints = self.path / "checkpoints"
        file = self.path / "definition.json"
        if file.exists():
            changes = differences(files.read_json(file), _as_json(self.definition))
            if changes:
                raise ValueError(
                    f"{self.path} was made with other settings: {'; '.join(changes[:5])}. "
                    "Use another --model_dir, or remove this folder and those after it."
                )
        elif writes:
            self.path.mkdir(parents=True, exist_ok=True)
            files.write_json(file, self.definition)

    @property
    def finished(self) -> bool:
        """Whether the stage's result and weights are there."""
        return (self.path / "stage.json").exists()

    def result(self) -> dict[str, Any]:
        """What `finish` was given."""
        return files.read_json(self.path / "stage.json")

    def weights(self) -> Tensors:
        """The weights that the stage ended with.

        Raises:
          ValueError: If the file is damaged.
        """
        return read_weights(self.path)

    def save(
        self, step: int, state: Mapping[str, Any], tensors: Tensors, best: Tensors | None = None
    ) -> None:
        """Publishes a checkpoint and removes those beyond the last `keep`.

        Args:
          step: Updates done.
          state: JSON-able.
          tensors: All variables by name.
          best: The best weights, where they differ from the ones in the checkpoint before;
            `None` keeps those.
        """
        if not self._writes:
            return
        with files.replaced_folder(self._checkpoints / f"{step:09d}") as folder:
            written = _write_tensors(folder / "tensors", tensors)
            best_step = state.get("best_step")
            if best is not None:
                self._publish_best(best_step, best)
            files.write_json(
                folder / "checkpoint.json", {"step": step, "state": dict(state)} | written
            )
        self._remove_old()

    def latest(self, warn: Callable[[str], None] = logging.warning) -> Checkpoint | None:
        """The newest checkpoint that is complete; damaged ones are skipped with a message."""
        for folder in sorted(self._checkpoints.glob("[0-9]*"), reverse=True):
            try:
                return self._read(folder)
            except (ValueError, OSError, KeyError) as error:
                warn(f"Skipping the checkpoint {folder}: {error}")
        return None

    def finish(self, result: Mapping[str, Any], weights: Tensors) -> None:
        """Writes the final weights, then the result, then removes the checkpoints."""
        if not self._writes:
            return
        with files.replaced_folder(self.path / "weights") as folder:
            written = _write_tensors(folder / "tensors", weights)
            files.write_json(folder / "checkpoint.json", written)
        files.write_json(self.path / "stage.json", dict(result) | {"fingerprint": self.fingerprint})
        shutil.rmtree(self._checkpoints, ignore_errors=True)
        shutil.rmtree(self.path / "best", ignore_errors=True)

    def _publish_best(self, step: int, best: Tensors) -> None:
        with files.replaced_folder(self.path / "best" / f"{step:09d}") as folder:
            written = _write_tensors(folder / "tensors", best)
            files.write_json(folder / "checkpoint.json", written)

    def _read(self, folder: pathlib.Path) -> Checkpoint:
        content = files.read_json(folder / "checkpoint.json")
        best_step = content["state"].get("best_step")
        best = None
        if best_step is not None:
            best = _read_tensors(self.path / "best" / f"{best_step:09d}")
        return Checkpoint(content["step"], content["state"], _read_tensors(folder), best)

    def _remove_old(self) -> None:
        folders = sorted(self._checkpoints.glob("[0-9]*"))
        for folder in folders[: -self._keep]:
            shutil.rmtree(folder)
        needed = set()
        for folder in folders[-self._keep :]:
            try:
                step = files.read_json(folder / "checkpoint.json")["state"].get("best_step")
            except (ValueError, OSError, KeyError):
                continue
            needed.add(f"{step:09d}" if step is not None else None)
        for folder in (self.path / "best").glob("[0-9]*"):
            if folder.name not in needed:
                shutil.rmtree(folder)


def read_weights(stage: files.Path) -> Tensors:
    """The weights that a finished stage ended with.

    Raises:
      FileNotFoundError: If the stage is not finished.
      ValueError: If the file is damaged.
    """
    return _read_tensors(pathlib.Path(stage) / "weights")


def differences(before: Any, after: Any, where: str = "") -> list[str]:
    """Lists the fields in which two nested values differ, each with both values.

    >>> differences({"stage": {"epochs": 3}}, {"stage": {"epochs": 4}})
    ['stage.epochs was 3 and is now 4']
    """
    if isinstance(before, dict) and isinstance(after, dict):
        found = []
        for key in sorted({*before, *after}):
            path = f"{where}.{key}" if where else str(key)
            found += differences(before.get(key), after.get(key), path)
        return found
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        return [
            line
            for index, pair in enumerate(zip(before, after, strict=True))
            for line in differences(*pair, f"{where}.{index}")
        ]
    return [] if before == after else [f"{where} was {_short(before)} and is now {_short(after)}"]


def _short(value: Any) -> str:
    text = "unset" if value is None else str(value)
    if _FINGERPRINT.fullmatch(text):
        return text[:12]
    return text if len(text) <= 48 else f"{text[:45]}..."


def _as_json(data: Any) -> Any:
    return json.loads(json.dumps(data, default=str))


def _write_tensors(stem: pathlib.Path, tensors: Tensors) -> dict[str, Any]:
    path = stem.with_suffix(".safetensors")
    content = safetensors.numpy.save(
        {name: np.asarray(t, order="C") for name, t in tensors.items()}
    )
    path.write_bytes(content)
    return {"bytes": len(content), "crc32": zlib.crc32(content)}


def _read_tensors(folder: pathlib.Path) -> Tensors:
    """Reads what `_write_tensors` wrote after comparing size and checksum."""
    expected = files.read_json(folder / "checkpoint.json")
    path = folder / "tensors.safetensors"
    content = path.read_bytes()
    if len(content) != expected["bytes"] or zlib.crc32(content) != expected["crc32"]:
        raise ValueError(
            f"{path} is damaged: expected {expected['bytes']} bytes with CRC-32 "
            f"{expected['crc32']}. Received: {len(content)} bytes with {zlib.crc32(content)}."
        )
    return safetensors.numpy.load(content)
