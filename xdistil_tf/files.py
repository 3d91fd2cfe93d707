"""Files that are never half-written, and fingerprints of content.

Everything is written beside its place, synced, and renamed into it: whoever finds a file under its
final name finds all of it. What a killed process left beside a place is removed when that place is
written again.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import pathlib
import re
import shutil
from collections.abc import Iterator
from typing import Any

Path = str | pathlib.Path

_LEFTOVER = re.compile(r"\.(\d+)\.(tmp|old)")  # What follows the name of the place.


class DiskFullError(OSError):
    """The disk is full; what was complete before is untouched."""


@contextlib.contextmanager
def replaced_file(path: Path, mode: str = "wb", sync: bool = True) -> Iterator[Any]:
    """Opens a file for writing that takes its place only when the block ends well.

    Args:
      path: The file; its folder is made.
      mode: `wb` or `w`.
      sync: Whether it is on the disk then. Without, a power cut may leave a damaged file: for files
        that their reader checks, and makes again.

    Raises:
      DiskFullError: If the disk fills up. The previous file, if any, stays.
    """
    path = pathlib.Path(path)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    encoding = None if "b" in mode else "utf-8"
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path)
    with _cleared_on_failure(aside), _named_disk_full(path):
        with open(aside, mode, encoding=encoding) as handle:
            yield handle
            handle.flush()
            if sync:
                os.fsync(handle.fileno())
        os.replace(aside, path)
        if sync:
            _sync_folder(path.parent)


@contextlib.contextmanager
def replaced_folder(path: Path) -> Iterator[pathlib.Path]:
    """Gives an empty folder to write into that takes its place only when the block ends well.

    A folder that stands there already is replaced.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    _remove_leftovers(path)
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


def require_folder(path: Path, expected: str) -> None:
    """Checks that a folder that a flag names is there.

    Raises:
      FileNotFoundError: If it is not; says what was expected.
    """
    if not pathlib.Path(path).is_dir():
        raise FileNotFoundError(f"No such folder {path}. Expected {expected}.")


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
        _remove(aside)
        raise


def _remove_leftovers(path: pathlib.Path) -> None:
    """Removes what processes that are gone left beside a place; those at work keep theirs."""
    name = f".{path.name}"
    for other in path.parent.iterdir():
        left = other.name.startswith(name) and _LEFTOVER.fullmatch(other.name[len(name) :])
        if not left or (left[2] == "old" and not path.exists()):
            continue  # Killed between two renames: nothing else is left until this ends well.
        # Our own number may be that of a process before us: containers give the same ones.
        if int(left[1]) == os.getpid() or not _runs(int(left[1])):
            _remove(other)


def _remove(path: pathlib.Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)  # Signal 0 only asks.
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # Somebody else's.
    return True


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
