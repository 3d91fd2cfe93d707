"""How examples are augmented."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Settings:
    """The flags of `augment` of the same names; docs/tinybert.md, section 6.

    Attributes:
      rounds: `None`: by task.
    """

    method: str = "tinybert"
    rounds: int | None = None
    candidates: int = 15
    replace_prob: float = 0.4
    batch_tokens: int = 8192
    as_published: bool = False
    seed: int = 1
    precision: str = "float32"

    def __post_init__(self):
        if self.method != "tinybert":
            raise ValueError(f"Unknown method. Expected 'tinybert'. Received: {self.method!r}.")
        if (self.rounds is not None and self.rounds < 1) or self.candidates < 1:
            raise ValueError(
                "Expected rounds and candidates of at least 1. Received: "
                f"rounds={self.rounds}, candidates={self.candidates}."
            )
        if not 0 < self.replace_prob <= 1:
            raise ValueError(
                f"Expected replace_prob above 0 and at most 1. Received: {self.replace_prob}."
            )
