"""What making instances must know of a tokenizer, as arrays."""

from __future__ import annotations

import dataclasses

import numpy as np

from xdistil_tf.data.tokenizer import Tokenizer

_WIDEST_SHORT = 1 << 16


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """Special tokens, and which pieces go on with a word.

    Attributes:
      special: bool [V]: never predicted; there is nothing to learn from an `[UNK]`.
      continues: bool [V]: whether the piece goes on with a word.
      uses_segments: Whether the second segment of a pair has segment 1.
    """

    cls_id: int
    sep_id: int
    mask_id: int | None
    special: np.ndarray
    continues: np.ndarray
    uses_segments: bool = True

    @property
    def size(self) -> int:
        return len(self.special)

    @property
    def id_type(self) -> np.dtype:
        """Of ids on disk: 2 bytes where they suffice."""
        return id_type(self.size)

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Vocabulary:
        """Reads a tokenizer.

        Raises:
          ValueError: If it has no `[CLS]` or `[SEP]`.
        """
        if tokenizer.cls_id is None or tokenizer.sep_id is None:
            raise ValueError(
                "Pretraining records need a tokenizer with [CLS] and [SEP] (or <s> and </s>). "
                f"Received one of {tokenizer.vocab_size} tokens without. Choose another."
            )
        special = np.zeros(tokenizer.vocab_size, bool)
        special[[tokenizer.tokens.index(one) for one in tokenizer.special_tokens.values()]] = True
        continues = [_continues(token, tokenizer.kind) for token in tokenizer.tokens]
        return cls(
            tokenizer.cls_id,
            tokenizer.sep_id,
            tokenizer.mask_id,
            special,
            np.array(continues, bool),
            tokenizer.uses_segments,
        )

    def require_mask(self, masked_lm_prob: float) -> None:
        """Checks that there is something to mask with.

        Raises:
          ValueError: If tokens are to be masked and there is no `[MASK]`.
        """
        if masked_lm_prob and self.mask_id is None:
            raise ValueError(
                "The vocabulary has no [MASK]. Add it to the tokenizer, or set masked_lm_prob=0."
            )


def id_type(vocab_size: int) -> np.dtype:
    """Little-endian, 2 bytes where all ids fit, else 4."""
    return np.dtype("<u2" if vocab_size <= _WIDEST_SHORT else "<u4")


def _continues(token: str, kind: str) -> bool:
    if kind == "wordpiece":
        return token.startswith("##")
    return not token.startswith("\u2581" if kind == "unigram" else "\u0120")
