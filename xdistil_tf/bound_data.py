"""The record sets of a run by name, with the task and the tokenizer that they were made with."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Mapping

from xdistil_tf import files
from xdistil_tf.data.pretraining.manifest import MANIFEST
from xdistil_tf.data.record_set import RecordSet
from xdistil_tf.data.task_info import TaskInfo, load_task_info
from xdistil_tf.data.tokenization import load_tokenizer
from xdistil_tf.data.tokenizer import Tokenizer


class BoundData:
    """The record sets of a run by name, with the task and the tokenizer they were made with.

    Attributes:
      sets: Name -> records.
      task: `None` for records that belong to no task, as in pretraining.
      tokenizer: `None` where the records folder holds none.
    """

    def __init__(self, data: Mapping[str, str]):
        self.sets = {name: RecordSet(pattern) for name, pattern in data.items()}
        parents = {path.parent for records in self.sets.values() for path in records.paths}
        infos = [load_task_info(one) for one in sorted(parents) if (one / "task.json").is_file()]
        if len({(info.task_type, info.labels) for info in infos}) > 1:
            raise ValueError(
                "The data come from records with different labels: "
                f"{[f'{info.folder}: {list(info.labels)}' for info in infos]}. Expected one task."
            )
        self._infos = {info.folder: info for info in infos}
        made_with = _tokenizers(sorted(parents))
        if len(set(made_with.values())) > 1:
            raise ValueError(
                f"The data come from records of {len(set(made_with.values()))} different "
                f"tokenizers: {list(map(str, made_with))}. Create them with one tokenizer."
            )
        self.task: TaskInfo | None = infos[0] if infos else None
        self.tokenizer: Tokenizer | None = None
        for parent in sorted(parents):
            if (parent / "tokenizer").is_dir():
                self.tokenizer = load_tokenizer(parent / "tokenizer")
                break

    def named(self, name: str, stage: str) -> RecordSet:
        """The records of a data name.

        Raises:
          ValueError: If nothing is bound to it.
        """
        if name not in self.sets:
            raise ValueError(
                f"Stage {stage!r} reads the data {name!r}, to which nothing is bound. Expected "
                f"--data {name}=<glob>. Bound are {sorted(self.sets)}."
            )
        return self.sets[name]

    def reported(self, records: RecordSet) -> str | None:
        """The reported split, if these are its records.

        Not where dev and test have no labels: then the split that selects is all there is to report
        on, and the report says so.
        """
        for path in records.paths:
            info = self._infos.get(path.parent)
            if info and info.report != info.select and path.name.startswith(f"{info.report}-"):
                return info.report
        return None

    @property
    def longest(self) -> int:
        """Tokens that a record may have: those its task was cut to, or else of the longest one."""
        if self.task is not None:
            return self.task.max_seq_length
        return max(int(records.lengths.max()) for records in self.sets.values())

    def check_length(self, max_seq_length: int) -> None:
        """Compares a recipe's length with that of the records, which predictions are cut to.

        Raises:
          ValueError: If the records were made with another one.
        """
        for info in self._infos.values():
            if info.max_seq_length != max_seq_length:
                raise ValueError(
                    f"The recipe says max_seq_length={max_seq_length}, the records in "
                    f"{info.folder} were made with {info.max_seq_length}. Expected equal lengths: "
                    f"--set max_seq_length={info.max_seq_length}, or other records."
                )

    def without_labels(self, records: RecordSet) -> bool:
        """Whether none of these records has a label; `False` where their folder does not say."""
        return all(self._labelled(path) == 0 for path in records.paths)

    def _labelled(self, shard: pathlib.Path) -> int | None:
        info = self._infos.get(shard.parent)
        split = shard.stem.rsplit("-", 3)[0]
        return info.splits.get(split, {}).get("labelled") if info else None


def _tokenizers(folders: Iterable[pathlib.Path]) -> dict[pathlib.Path, str]:
    """Folder -> fingerprint of the tokenizer; without those that name none."""
    found = {}
    for folder in folders:
        for name in ("task.json", MANIFEST):
            if (folder / name).is_file():
                named = files.read_json(folder / name).get("tokenizer") or {}
                found |= {folder: named["fingerprint"]} if "fingerprint" in named else {}
    return found
