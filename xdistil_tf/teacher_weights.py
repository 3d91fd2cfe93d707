"""How much each of several teachers counts, language by language."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Weights:
    """How much each teacher counts.

    Attributes:
      usual: One number a teacher.
      by_language: Other numbers for some languages.

    Raises:
      ValueError: If a number is negative, or all of a language are 0.
    """

    usual: tuple[float, ...]
    by_language: Mapping[str, tuple[float, ...]] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        for name, numbers in (("default", self.usual), *self.by_language.items()):
            wrong = len(numbers) != len(self.usual) or any(one < 0 for one in numbers)
            if wrong or not sum(numbers):
                raise ValueError(
                    f"Invalid weights of teachers for {name!r}. Expected {len(self.usual)} numbers "
                    f"of at least 0, not all 0. Received: {list(numbers)}."
                )

    def of(self, languages: Sequence[bytes]) -> np.ndarray:
        """float32 `[teachers, B]`; those of a record sum to 1."""
        chosen = [self.by_language.get(one.decode("utf-8"), self.usual) for one in languages]
        numbers = np.array(chosen, np.float32).T
        return numbers / numbers.sum(0)


def parse_weights(text: str | None, count: int) -> Weights:
    """`1,2;sw:0,1`: the usual weights, and those of some languages.

    >>> parse_weights("1,2;sw:0,1", 2)
    Weights(usual=(1.0, 2.0), by_language={'sw': (0.0, 1.0)})

    Raises:
      ValueError: If it is not of this form, or names other than `count` numbers.
    """
    usual, by_language = (1.0,) * count, {}
    for part in (text or "").split(";"):
        if not part.strip():
            continue
        language, colon, numbers = part.rpartition(":")
        try:
            parsed = tuple(float(one) for one in numbers.split(","))
        except ValueError:
            raise ValueError(
                "Invalid --teacher_weights. Expected numbers such as 1,2;sw:0,1. Received: "
                f"{text!r}."
            ) from None
        if colon:
            by_language[language.strip()] = parsed
        else:
            usual = parsed
    if len(usual) != count:
        raise ValueError(
            f"Invalid --teacher_weights. Expected {count} numbers, one a teacher. Received: "
            f"{text!r}."
        )
    return Weights(usual, by_language)
