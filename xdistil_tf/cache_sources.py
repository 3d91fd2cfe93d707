"""Where the records of a teacher's pass come from: a task, or text for pretraining."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence

from xdistil_tf import files, outputs
from xdistil_tf.data.pretraining.manifest import MANIFEST
from xdistil_tf.data.record_set import RecordSet
from xdistil_tf.data.task_info import TaskInfo, load_task_info
from xdistil_tf.data.tokenization import load_tokenizer
from xdistil_tf.data.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class Source:
    """A records folder.

    Attributes:
      folder: Where it is.
      task: Of `task.json`; `None` for pretraining.
      tokenizer: That the records were made with.
      max_seq_length: Tokens of the longest record.
      masking: `static`, `dynamic` or `none`: which slots the records have.
    """

    folder: pathlib.Path
    task: TaskInfo | None
    tokenizer: Tokenizer
    max_seq_length: int
    masking: str

    @property
    def task_type(self) -> str | None:
        """Of the task; `None` for pretraining."""
        return self.task.task_type if self.task else None


def source_of(records: RecordSet) -> Source:
    """Reads what the folder of the records says of them.

    Raises:
      FileNotFoundError: If it is no finished records folder.
      ValueError: If its description is damaged, or of another tokenizer than the one beside it.
    """
    folder = records.paths[0].parent
    path = folder / MANIFEST
    if (folder / "task.json").is_file() or not path.is_file():
        task = load_task_info(folder)
        tokenizer = load_tokenizer(task.tokenizer_folder)
        return Source(folder, task, tokenizer, task.max_seq_length, "none")
    manifest = files.read_json(path)
    tokenizer = load_tokenizer(folder / "tokenizer")
    try:
        fingerprint = manifest["tokenizer"]["fingerprint"]
        # Before format 2 nothing but masks on disk was known.
        masking = manifest["masking"] if manifest["format"] > 1 else "static"
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is damaged: it lacks {error}. Create the records again."
        ) from None
    if tokenizer.fingerprint != fingerprint:
        raise ValueError(
            f"{folder / 'tokenizer'} is not the tokenizer that {path} names. Create the records "
            "again."
        )
    return Source(folder, None, tokenizer, int(records.lengths.max()), masking)


def check_source(source: Source, names: Sequence[str]) -> None:
    """Checks that records have what these outputs are about, before the teacher is loaded.

    Raises:
      ValueError: If masked slots are wanted where there are none, or masks do not stay the same.
    """
    if source.masking == "dynamic":
        raise ValueError(
            f"The records in {source.folder} have other masks each time they are read "
            f"(--dynamic_masking): {', '.join(names)} cannot be kept. Expected records with masks "
            "on disk, or a live teacher (teacher.mode: live)."
        )
    if outputs.TOP_K not in names or source.masking == "static":
        return
    if source.task is not None:
        raise ValueError(
            f"The records in {source.folder} belong to a task and have no masked slots, which "
            f"{outputs.TOP_K} is about. Expected records of create_pretraining_data."
        )
    none = source.masking == "none"
    reason = "no masks (--masked_lm_prob=0)" if none else f"the masking {source.masking!r}"
    raise ValueError(
        f"The records in {source.folder} have {reason}: {outputs.TOP_K} cannot be kept. Expected "
        "records with masks on disk."
    )
