"""Where a model may be in a folder that a flag names; known without TensorFlow."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator


def candidates(folder: str | pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields the model folder of a run folder, that of a distill folder, and the folder itself."""
    for place in ("model", "student/model", "."):
        yield pathlib.Path(folder) / place
