"""Finds the recipes that come with the library."""

from __future__ import annotations

import importlib.resources
import pathlib


def find(path: str) -> pathlib.Path:
    """A recipe file by its path, or by its path below `configs/` of the installed library.

    `configs/xtremedistil/text.yaml` works in a checkout and after `pip install`.

    Raises:
      FileNotFoundError: If there is none; lists the recipes that there are.
    """
    if pathlib.Path(path).is_file():
        return pathlib.Path(path)
    root = pathlib.Path(str(importlib.resources.files("xdistil_tf.configs")))
    packaged = root / path.removeprefix("configs/")
    if packaged.is_file():
        return packaged
    names = sorted(f"configs/{one.relative_to(root)}" for one in root.rglob("*.yaml"))
    raise FileNotFoundError(f"There is no recipe {path}. The library brings {names}.")
