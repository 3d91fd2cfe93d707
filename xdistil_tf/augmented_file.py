"""A file of augmented examples: its manifest, and the folder where its parts are kept meanwhile."""

from __future__ import annotations

import pathlib
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from absl import logging

from xdistil_tf import files, versions
from xdistil_tf.interruption import Interrupted, Interruption

FORMAT = 2
_BEGUN = "begun.json"


def make(
    output_file: files.Path,
    inputs: Sequence[files.Path],
    made_from: Mapping[str, Any],
    basis: Mapping[str, Any],
    write: Callable[[pathlib.Path, pathlib.Path], dict[str, Any]],
) -> dict[str, Any]:
    """Writes a file and, last of all, `<output_file>.json`, unless that says that it is there.

    Args:
      output_file: The file.
      inputs: The files that are read for it.
      made_from: What it is made from, as the manifest tells it.
      basis: What else decides its content.
      write: Takes the file and a folder for its parts, `<output_file>.work`, which may hold those
        of a call that was stopped; returns what the manifest says besides.

    Returns:
      The content of the manifest; its `seconds` are those of the call that finished.

    Raises:
      ValueError: If the file is one of the inputs.
    """
    began, output = time.monotonic(), pathlib.Path(output_file)
    if output.resolve() in (pathlib.Path(one).resolve() for one in inputs):
        raise ValueError(f"{output_file} is read here. Expected another --output_file.")
    manifest = manifest_path(output)
    wanted = files.fingerprint({**made_from, **basis})
    earlier = files.read_json(manifest) if manifest.is_file() else {}
    if earlier.get("fingerprint") == wanted and output.is_file():
        logging.info("%s is up to date.", output)
        shutil.rmtree(_work_folder(output), ignore_errors=True)  # Of a call killed at its very end.
        return earlier
    work, described = _work(output, wanted), None
    try:
        described = write(output, work)
    finally:
        if described is None and [one.name for one in work.iterdir()] == [_BEGUN]:
            shutil.rmtree(work)  # Nothing was made that another call could go on with.
    content = {
        **made_from,
        **described,
        "fingerprint": wanted,
        "seconds": round(time.monotonic() - began, 1),
        "versions": versions.environment(),
    }
    files.write_json(manifest, content)
    shutil.rmtree(work)
    return content


def manifest_path(output_file: files.Path) -> pathlib.Path:
    """What says how a file was made."""
    output = pathlib.Path(output_file)
    return output.with_name(f"{output.name}.json")


def check(interruption: Interruption, kept: str) -> None:
    """Raises Interrupted if a stop was asked for; `kept` is what stays."""
    if interruption.requested:
        raise Interrupted(f"Stopped; {kept} are kept.")


def _work_folder(output: pathlib.Path) -> pathlib.Path:
    return output.with_name(f"{output.name}.work")


def _work(output: pathlib.Path, wanted: str) -> pathlib.Path:
    """Where parts are kept until the file is complete; begun anew for anything else."""
    work = _work_folder(output)
    begun = work / _BEGUN
    if not begun.is_file() or files.read_json(begun).get("fingerprint") != wanted:
        shutil.rmtree(work, ignore_errors=True)
        files.write_json(begun, {"fingerprint": wanted})
    return work
