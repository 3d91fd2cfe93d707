"""The files of a task folder, split by split, and those that a flag names."""

from __future__ import annotations

import glob
import pathlib
from collections.abc import Sequence

from xdistil_tf.data.glue import DIAGNOSTIC, DIAGNOSTIC_FILES, SPLIT_FILES

_SUFFIXES = (".tsv", ".csv", ".jsonl", ".json", ".conll", ".txt")


def task_files(
    folder: pathlib.Path, splits: Sequence[str] | None = None, task: str | None = None
) -> dict[str, list[tuple[pathlib.Path, str | None]]]:
    """The files of each split with their language: `train.tsv`, or `train-en.tsv` and others.

    Args:
      folder: Of the task.
      splits: Those that must be there; None: all there are.
      task: A name of GLUE, some of whose files are called otherwise.

    Raises:
      ValueError: If a split stands there twice.
      FileNotFoundError: If a wanted split is missing.
    """
    found: dict[str, list[tuple[pathlib.Path, str | None]]] = {}
    for split in splits or SPLIT_FILES:
        stems = SPLIT_FILES.get(split, (split,))
        if task == DIAGNOSTIC and split == "test":
            stems = DIAGNOSTIC_FILES
        plain = [folder / (stem + end) for stem in stems for end in _SUFFIXES]
        plain = [path for path in plain if path.is_file()]
        if len(plain) > 1:
            raise ValueError(f"The split {split!r} stands twice in {folder}: {file_names(plain)}.")
        by_language = [
            (path, path.stem[len(split) + 1 :])
            for path in sorted(folder.glob(f"{split}-*"))
            if path.suffix in _SUFFIXES
        ]
        if plain:
            found[split] = [(plain[0], None)]
        elif by_language:
            found[split] = by_language
        elif splits:
            raise FileNotFoundError(f"No file of the split {split!r} in {folder}.")
    return found


def given_files(patterns: str | Sequence[str], flag: str) -> list[pathlib.Path]:
    """Expands the comma-separated globs of a flag; every one must match."""
    paths: list[pathlib.Path] = []
    for pattern in patterns.split(",") if isinstance(patterns, str) else patterns:
        matches = sorted(glob.glob(str(pattern)))
        if not matches:
            raise FileNotFoundError(f"No file matches {pattern!r}. Correct --{flag}.")
        paths.extend(pathlib.Path(one) for one in matches if pathlib.Path(one) not in paths)
    stems = [path.stem for path in paths]
    for path in paths:
        if stems.count(path.stem) > 1:
            raise ValueError(
                f"Two files of --{flag} are called {path.stem!r}; ids would be ambiguous. "
                "Rename one."
            )
    return paths


def file_names(paths: Sequence[pathlib.Path]) -> str:
    """The names of files, for a message."""
    return ", ".join(path.name for path in paths)
