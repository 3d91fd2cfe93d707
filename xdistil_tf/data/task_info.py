"""`task.json`: what a records folder holds and was made from."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from xdistil_tf import files

FORMAT = 1


@dataclasses.dataclass(frozen=True)
class TaskInfo:
    """The content of `task.json`; field by field in `docs/interfaces.md`, section 4."""

    folder: pathlib.Path
    task: str
    task_type: str
    pair: bool
    labels: tuple[str, ...]
    metric: str
    tokenizer: Mapping[str, Any]
    max_seq_length: int
    splits: Mapping[str, Mapping[str, Any]]
    select: str
    report: str
    languages: tuple[str, ...]
    dropped: Mapping[str, int]
    inputs: Mapping[str, Any]
    fingerprint: str
    format: int = FORMAT

    @property
    def tokenizer_folder(self) -> pathlib.Path:
        return self.folder / "tokenizer"

    def pattern(self, split_name: str) -> str:
        """The glob of a split's shards.

        Raises:
          ValueError: If there is no such split; names those there are.
        """
        if split_name not in self.splits:
            raise ValueError(
                f"{self.folder} has no split {split_name!r}. It has {list(self.splits)}."
            )
        return str(self.folder / f"{split_name}-*.tfrecord")


def load_task_info(folder: str | pathlib.Path) -> TaskInfo:
    """Reads `task.json`.

    Raises:
      FileNotFoundError: If the folder has none.
      ValueError: If it is damaged or of another format.
    """
    folder = pathlib.Path(folder)
    path = folder / "task.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"No task.json in {folder}: it is no finished records folder. Run create_task_data."
        )
    content = files.read_json(path)
    if content.get("format") != FORMAT:
        raise ValueError(
            f"{path} has format {content.get('format')}. Expected {FORMAT}. Create the records "
            "again."
        )
    names = {field.name for field in dataclasses.fields(TaskInfo)} - {"folder"}
    if missing := sorted(names - set(content)):
        raise ValueError(f"{path} is damaged: it lacks {missing}. Create the records again.")
    known = {name: content[name] for name in names}
    known["labels"], known["languages"] = tuple(known["labels"]), tuple(known["languages"])
    return TaskInfo(folder=folder, **known)


def current(output_dir: str | pathlib.Path, inputs: Mapping[str, Any]) -> TaskInfo | None:
    """The finished records folder, if it was made from the same inputs."""
    try:
        info = load_task_info(output_dir)
    except (FileNotFoundError, ValueError):
        return None
    return info if files.fingerprint(info.inputs) == files.fingerprint(inputs) else None
