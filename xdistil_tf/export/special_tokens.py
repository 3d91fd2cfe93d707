"""Special tokens such as `[SEP]` that stand in a text: one id each, as the training tokenizer says.

They are found before the text is normalised. Each is replaced by one private-use character that
the later ops know; a text that holds such a character itself gets another one, unknown to all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

MARKS = range(0x10FF00, 0x10FFFE)
ANY_MARK = f"[{chr(MARKS[0])}-{chr(MARKS[-1])}]"
_OTHER = chr(0xF8FF)


def obstacle(spec: Mapping[str, Any]) -> str | None:
    """Why the added tokens of a `tokenizer.json` cannot be marked; None when they can."""
    added = spec["added_tokens"]
    if len(added) > len(MARKS):
        return f"it has {len(added)} added tokens, more than {len(MARKS)}"
    for token in added:
        if token["normalized"] or token["single_word"]:
            return f"its added token {token['content']!r} is matched after normalisation or by word"
    return None


def contents(spec: Mapping[str, Any]) -> list[str]:
    """The added tokens of a `tokenizer.json`; the i-th is marked by `MARKS[i]`."""
    return [token["content"] for token in spec["added_tokens"]]


def mark(text: tf.Tensor, special: Sequence[str], around: str = "") -> tf.Tensor:
    """Replaces each special token in the text by its mark.

    Args:
      text: String `[B]`.
      special: See `contents`.
      around: Written before and after each mark.

    Returns:
      String `[B]`.
    """
    text = tf.strings.regex_replace(text, ANY_MARK, _OTHER)
    for code, token in zip(MARKS, special, strict=False):
        pattern = "".join(f"\\x{{{ord(char):x}}}" for char in token)
        text = tf.strings.regex_replace(text, pattern, f"{around}{chr(code)}{around}")
    return text
