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


@dataclasses.dataclass(frozen=True)
class RuleSettings:
    """The flags of `augment --method=rules` of the same names; docs/dbert.md, section 1.

    Attributes:
      n_iter: `None`: 20 of single texts, 10 of pairs.
      num_samples: At most so many variants; `None`: all.
    """

    p_mask: float = 0.1
    p_pos: float = 0.1
    p_ngram: float = 0.25
    n_iter: int | None = None
    num_samples: int | None = None
    ngram_lengths: tuple[int, ...] = (1, 2, 3, 4, 5)
    pos_tagger: str = "pattern"
    as_published: bool = False
    seed: int = 1

    def __post_init__(self):
        chances = {name: getattr(self, name) for name in ("p_mask", "p_pos", "p_ngram")}
        for name, value in chances.items():
            if not 0 <= value <= 1:
                raise ValueError(f"Expected {name} in [0, 1]. Received: {value}.")
        if self.p_mask + self.p_pos > 1:
            raise ValueError(
                "Expected p_mask and p_pos of at most 1 together: a word is masked or replaced. "
                f"Received: p_mask={self.p_mask}, p_pos={self.p_pos}."
            )
        if not any(chances.values()):
            raise ValueError(
                "Expected one of p_mask, p_pos and p_ngram above 0: else nothing changes. "
                f"Received: {chances}."
            )
        for name in ("n_iter", "num_samples"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"Expected {name} of at least 1. Received: {value}.")
        if not self.ngram_lengths or min(self.ngram_lengths) < 1:
            raise ValueError(
                f"Expected ngram_lengths of at least 1. Received: {list(self.ngram_lengths)}."
            )
