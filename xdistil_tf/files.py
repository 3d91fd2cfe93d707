"""Files that are never half-written, and fingerprints of content.

Everything is written beside its place, synced, and renamed into it: whoever finds a file under its
final name finds all of it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

Path = str | pathlib.Path


class DiskFullError(OSError):
    """The disk is full; what was complete before is untouched."""


@contextlib.contextmanager
def replaced_file(path: Path, mode: str = "wb") -> Iterator[Any]:
    """Opens a file for writing that takes its place only when the block ends well.

    Raises:
      DiskFullError: If the disk fills up. The previous file, if any, stays.
    """
    path = pathlib.Path(path)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    encoding = None if "b" in mode else "utf-8"
    path.parent.mkdir(parents=True, exist_ok=True)
    with _cleared_on_failure(aside), _named_disk_full(path):
        with open(aside, mode, encoding=encoding) as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(aside, path)
        _sync_folder(path.parent)


@contextlib.contextmanager
def replaced_folder(path: Path) -> Iterator[pathlib.Path]:
    """Gives an empty folder to write into that takes its place only when the block ends well.

    A folder that stands there already is replaced.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    with _cleared_on_failure(aside), _named_disk_full(path):
        aside.mkdir()
        yield aside
        for file in sorted(aside.rglob("*")):
            if file.is_file():
                _sync_file(file)
        if path.exists():
            old = path.with_name(f".{path.name}.{os.getpid()}.old")
            os.replace(path, old)
            os.replace(aside, path)
            shutil.rmtree(old)
        else:
            os.replace(aside, path)
        _sync_folder(path.parent)


def write_json(path: Path, data: Any) -> None:
    """Writes indented JSON under the rules of `replaced_file`."""
    with replaced_file(path, "w") as handle:
        json.dump(data, handle, indent=2, ensure_ascii=False, default=str)
        handle.write("\n")


def read_json(path: Path) -> Any:
    """Reads JSON.

    Raises:
      FileNotFoundError: If there is no such file.
      ValueError: If it is not JSON; names the file.
    """
    try:
        return json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is damaged: expected JSON. Received: {error}.") from error


def fingerprint(data: Any) -> str:
    """SHA-256 of data in canonical JSON: equal for equal content, whatever the order of keys."""
    text = json.dumps(data, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def file_fingerprint(path: Path) -> str:
    """SHA-256 of a file's content."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def require_disk(folder: Path, needed: int, purpose: str) -> None:
    """Checks that `needed` bytes are free where `folder` is or will be.

    Raises:
      DiskFullError: If they are not; names both figures.
    """
    place = pathlib.Path(folder).absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if needed > free:
        raise DiskFullError(
            f"{purpose} needs {needed / 1e9:.2f} GB in {folder}; {free / 1e9:.2f} GB are free. "
            "Free some space or choose another folder."
        )


@contextlib.contextmanager
def _cleared_on_failure(aside: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        if aside.is_dir():
            shutil.rmtree(aside, ignore_errors=True)
        else:
            aside.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _named_disk_full(path: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DiskFullError(
            f"No space left while writing {path}. What was complete before is kept; "
            "free some space and run the same command again."
        ) from error


def _sync_file(path: pathlib.Path) -> None:
    with open(path, "rb") as handle:
        os.fsync(handle.fileno())


def _sync_folder(path: pathlib.Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
