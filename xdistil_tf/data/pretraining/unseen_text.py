"""Text without the lines that stand in a task's reported texts: nothing is learnt from those.

Before, `corpus.txt` with the lines `the soup was great` and `the waiter was kind`, of which the
first stands in dev. After, a copy of the file with the second alone.
"""

from __future__ import annotations

import pathlib
from collections.abc import Collection, Sequence

from absl import logging

from xdistil_tf import files
from xdistil_tf.data import rows
from xdistil_tf.data.examples import Example
from xdistil_tf.data.pretraining import text
from xdistil_tf.data.split import text_key

_MANIFEST = "unseen.json"


def text_keys(examples: Sequence[Example]) -> set[bytes]:
    """A digest of each text, of pairs of either one; spaces and Unicode forms do not count."""
    texts = [one.text if isinstance(one.text, str) else " ".join(one.text) for one in examples]
    texts += [one.text_b for one in examples if one.text_b is not None]
    return {_key(one) for one in texts}


def copy_without(
    patterns: Sequence[str], reported: Collection[bytes], folder: files.Path
) -> list[pathlib.Path]:
    """Copies text files into a folder, without the lines that are reported texts.

    Nothing is done where the same was copied before.

    Args:
      patterns: Globs of text, one sentence a line.
      reported: As `text_keys` gives them.
      folder: Of its own.

    Returns:
      The copies, in the order of the files.

    Raises:
      FileNotFoundError: If a glob matches nothing.
      ValueError: If a line is not UTF-8; names file and line.
    """
    folder, sources = pathlib.Path(folder), text.input_files(list(patterns))
    made_from = {
        "inputs": [files.file_fingerprint(one) for one in sources],
        "reported": files.fingerprint(sorted(one.hex() for one in reported)),
    }
    copies = [folder / f"{number:05d}.txt" for number in range(len(sources))]
    marker = folder / _MANIFEST
    if marker.is_file() and files.read_json(marker)["made_from"] == made_from:
        return copies
    folder.mkdir(parents=True, exist_ok=True)
    dropped = sum(map(_copied, sources, copies, [reported] * len(sources)))
    logging.info("%d lines of the text stand in reported texts and were left out.", dropped)
    files.write_json(marker, {"made_from": made_from, "dropped": dropped})
    return copies


def _copied(source: pathlib.Path, copy: pathlib.Path, reported: Collection[bytes]) -> int:
    """Copies one file; returns how many lines were left out."""
    dropped = 0
    with files.replaced_file(copy, "w") as handle:
        for number, line in rows.read_lines(source):
            if isinstance(line, rows.Problem):
                raise ValueError(
                    f"{source} line {number}: {line.reason}. Convert the file to UTF-8."
                )
            if line.strip() and _key(line) in reported:
                dropped += 1
            else:
                handle.write(line + "\n")
    return dropped


def _key(line: str) -> bytes:
    return text_key(Example("", line))
