"""Finds the recipes and studies that come with the library."""

from __future__ import annotations

import difflib
import importlib.resources
import pathlib
from typing import Literal

_STUDIES = "evidence"


def find(path: str, kind: Literal["recipe", "study"] = "recipe") -> pathlib.Path:
    """A recipe or study by its path, or by its path below `configs/` of the installed library.

    `configs/xtremedistil/text.yaml` works in a checkout and after `pip install`.

    Raises:
      FileNotFoundError: If there is none; names the nearest one, or all of its kind.
    """
    if pathlib.Path(path).is_file():
        return pathlib.Path(path)
    root = pathlib.Path(str(importlib.resources.files("xdistil_tf.configs")))
    packaged = root / path.removeprefix("configs/")
    if packaged.is_file():
        return packaged
    known = (one.relative_to(root) for one in root.rglob("*.yaml"))
    studies = kind == "study"
    names = sorted(f"configs/{one}" for one in known if (one.parts[0] == _STUDIES) == studies)
    # All begin and end alike, so what is near must be very near.
    near = difflib.get_close_matches(path, names, n=1, cutoff=0.9)
    hint = f"Did you mean {near[0]}?" if near else f"The library brings {names}."
    raise FileNotFoundError(f"There is no {kind} {path}. {hint}")
