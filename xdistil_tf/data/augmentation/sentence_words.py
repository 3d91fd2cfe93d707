"""Sentences as words that can be left out or replaced: what stands before each word is kept.

Words are those of the Penn Treebank, which taggers of English know: `don't` is `do` and `n't`.
Punctuation marks and ideographs are words of their own.
"""

from __future__ import annotations

import dataclasses
import re

_IDEOGRAPH = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002fa1f"
_LETTERS = rf"(?:(?!n['’]t\b)[^\W{_IDEOGRAPH}])+"
_NUMBER = r"\d+(?:[.,]\d+)+"  # 3.5, 1,000
_MARKS = r"\.\.+|--+|[^\w\s]"
_WORD = re.compile(
    rf"(\s*)({_NUMBER}|[{_IDEOGRAPH}]|n['’]t\b|['’](?:s|m|d|ll|re|ve)\b"
    rf"|{_LETTERS}(?:(?:-|['’](?!(?:s|m|d|ll|re|ve|t)\b)){_LETTERS})*|{_MARKS})",
    re.IGNORECASE,
)
# The same of texts in ASCII without apostrophes, in a third of the time.
_PLAIN_WORD = re.compile(rf"(\s*)({_NUMBER}|\w+(?:-\w+)*|{_MARKS})", re.ASCII)


@dataclasses.dataclass(frozen=True, slots=True)
class Sentence:
    """The words of a text.

    Attributes:
      words: In order.
      gaps: What stands before each of them: white space, or nothing.
      pieces: Each word with its gap; joined they are the text.
      inner: Numbers of those that go on with the word before them, as `n't` does.
    """

    words: list[str]
    gaps: list[str]
    pieces: list[str]
    inner: frozenset[int]

    @classmethod
    def of(cls, text: str) -> Sentence:
        """Splits a text; it begins and ends with a word.

        >>> Sentence.of("I don't care, really.").words
        ['I', 'do', "n't", 'care', ',', 'really', '.']
        """
        plain = text.isascii() and "'" not in text
        found = (_PLAIN_WORD if plain else _WORD).findall(text)
        gaps, words = [gap for gap, _ in found], [word for _, word in found]
        pieces = [gap + word for gap, word in found]
        inner = frozenset(
            number
            for number, gap in enumerate(gaps)
            if not gap and number and words[number - 1][-1].isalnum()
        )
        return cls(words, gaps, pieces, inner)
