"""How instances are made: google-research/bert's settings, checked."""

from __future__ import annotations

import dataclasses

_LONGEST = 65535  # Places in a sequence are kept in 16 bits.


@dataclasses.dataclass(frozen=True)
class Settings:
    """How instances are made; the defaults are google-research/bert's, `dupe_factor` apart.

    Attributes:
      masked_lm_prob: Share of the tokens (special ones counted) to predict; 0 predicts nothing.
      short_seq_prob: Share of the documents whose instances aim at a shorter, random length.
      dupe_factor: How often each document is used, each time with other pairs and masks.
      do_whole_word_mask: All pieces of a word are predicted, or none.
      next_sentence: Pairs of segments; without, one segment of whole sentences.
      dynamic_masking: Train records carry no masks; they are drawn when records are read.

    Raises:
      ValueError: If a value is out of range, or two contradict each other.
    """

    max_seq_length: int = 128
    max_predictions_per_seq: int = 20
    masked_lm_prob: float = 0.15
    short_seq_prob: float = 0.1
    dupe_factor: int = 1
    do_whole_word_mask: bool = False
    next_sentence: bool = True
    dynamic_masking: bool = False

    def __post_init__(self):
        checks = (
            ("max_seq_length", self.max_seq_length >= 8, "at least 8"),
            ("max_seq_length", self.max_seq_length <= _LONGEST, f"at most {_LONGEST}"),
            ("max_predictions_per_seq", self.max_predictions_per_seq >= 1, "at least 1"),
            ("masked_lm_prob", 0 <= self.masked_lm_prob < 1, "a share from 0 to below 1"),
            ("short_seq_prob", 0 <= self.short_seq_prob <= 1, "a share from 0 to 1"),
            ("dupe_factor", self.dupe_factor >= 1, "at least 1"),
        )
        for name, sound, expected in checks:
            if not sound:
                raise ValueError(
                    f"Invalid {name}. Expected {expected}. Received: {name}={getattr(self, name)}."
                )
        if self.dynamic_masking:
            self._check_dynamic()

    def _check_dynamic(self) -> None:
        if self.dupe_factor != 1:
            raise ValueError(
                "With dynamic_masking every epoch draws other masks, and passes would only repeat "
                f"the text. Expected dupe_factor=1. Received: dupe_factor={self.dupe_factor}."
            )
        if not self.masked_lm_prob:
            raise ValueError(
                "With dynamic_masking there must be masks to draw. Expected masked_lm_prob above "
                "0. Received: masked_lm_prob=0. Leave one of the two out."
            )

    @property
    def masking(self) -> str:
        """Of the train records: `static` (on disk), `dynamic` (drawn at reading) or `none`."""
        if self.dynamic_masking:
            return "dynamic"
        return "static" if self.masked_lm_prob else "none"

    @property
    def special_tokens(self) -> int:
        """`[CLS] A [SEP] B [SEP]` has 3, `[CLS] A [SEP]` has 2."""
        return 3 if self.next_sentence else 2

    def heldout(self) -> Settings:
        """Those of held-out records: one pass, masked on disk, so that they stay comparable."""
        return dataclasses.replace(self, dupe_factor=1, dynamic_masking=False)


def num_predictions(length: int, settings: Settings) -> int:
    """How many tokens of a sequence are predicted; 19 of 128. Rounds halves to even, as BERT.

    >>> num_predictions(128, Settings()), num_predictions(3, Settings())
    (19, 1)
    """
    if not settings.masked_lm_prob:
        return 0
    wanted = max(1, int(round(length * settings.masked_lm_prob)))
    return min(settings.max_predictions_per_seq, wanted)
