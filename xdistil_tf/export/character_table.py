"""What a BERT tokenizer does to each single character, as tables that a graph can look up.

Cleaning, spacing of CJK, accents, lower-casing and splitting at punctuation all work
character by character. The tables are filled by asking the training tokenizer itself about
every code point, because the Unicode versions of Rust, ICU and Python differ by thousands of
characters.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from tokenizers.normalizers import Normalizer
from tokenizers.pre_tokenizers import PreTokenizer

SPACE = 0x20
ITSELF = -1
PAGE = 256
_LAST = 0x10FFFF
_CHUNK = 2048


@dataclasses.dataclass(frozen=True)
class CharacterTable:
    """Replacement of every code point by a short sequence of code points.

    The replacement of `c` is row `entries[pages[c // 256], c % 256]` of the ragged array
    `(values, splits)`; `ITSELF` in a row stands for `c`. Words are separated by spaces.

    Attributes:
      pages: `[4352]` int32, row of `entries` of each block of 256 code points.
      entries: `[distinct pages, 256]` int32.
      values: `[sum of lengths]` int32.
      splits: `[rows + 1]` int32.
    """

    pages: np.ndarray
    entries: np.ndarray
    values: np.ndarray
    splits: np.ndarray

    def replacement(self, code_point: int) -> list[int]:
        """The replacement of one code point, a list of ints."""
        row = self.entries[self.pages[code_point // PAGE], code_point % PAGE]
        values = self.values[self.splits[row] : self.splits[row + 1]].tolist()
        return [code_point if value == ITSELF else value for value in values]


def build_character_table(
    normalizer: Normalizer | None,
    pre_tokenizer: PreTokenizer,
    extra: Mapping[int, str] | None = None,
) -> CharacterTable:
    """Asks a character-wise normalizer and pre-tokenizer about all of Unicode.

    Args:
      normalizer: A `tokenizers` normalizer (`BertNormalizer`), or None.
      pre_tokenizer: A `tokenizers` pre-tokenizer (`BertPreTokenizer`).
      extra: Replacements that win over the tokenizer's, `{code point: str}`.

    Returns:
      A `CharacterTable`. Takes about a second.
    """
    normalise = normalizer.normalize_str if normalizer else str
    rows = {(ITSELF,): 0, (SPACE, ITSELF, SPACE): 1}
    row_of = np.zeros(_LAST + 1, np.int32)
    for start in range(0, _LAST + 1, _CHUNK):
        # A surrogate is no character: the decoder gives U+FFFD for it, its row is never read.
        codes = [code for code in range(start, start + _CHUNK) if not 0xD800 <= code < 0xE000]
        for code, sequence in _changes(codes, normalise, pre_tokenizer):
            row_of[code] = rows.setdefault(sequence, len(rows))
    for code_point, text in (extra or {}).items():
        row_of[code_point] = rows.setdefault(tuple(map(ord, text)), len(rows))
    return _pack(row_of, rows)


def _changes(
    codes: Sequence[int], normalise: Callable[[str], str], pre_tokenizer: PreTokenizer
) -> list[tuple[int, tuple[int, ...]]]:
    """(code point, replacement) of those that are not replaced by themselves."""
    whole = "".join(map(chr, codes))
    normalised = normalise(whole)
    if not normalised:  # Most blocks are wholly removed, or
        return [(code, ()) for code in codes]
    if normalised == whole and len(pre_tokenizer.pre_tokenize_str(whole)) == 1:
        return []  # wholly kept, as one word.
    texts = normalise("|".join(whole)).split("|")
    if len(texts) != len(codes):  # The block that holds the separator itself.
        texts = [normalise(char) for char in whole]
    kinds = _kinds(sorted(set("".join(texts))), pre_tokenizer)
    changes = []
    for code, text in zip(codes, texts, strict=True):
        sequence = _separate(text, kinds)
        if sequence == (SPACE, code, SPACE):
            sequence = (SPACE, ITSELF, SPACE)
        if sequence != (code,):
            changes.append((code, sequence))
    return changes


def _kinds(characters: Sequence[str], pre_tokenizer: PreTokenizer) -> dict[str, str]:
    """`{character: "space" | "alone"}`; characters inside words are left out."""
    pieces = pre_tokenizer.pre_tokenize_str(" ".join(f"a{char}a" for char in characters))
    # The character of index i stands at offset 4 i + 1.
    whole = {begin for _, (begin, end) in pieces if end - begin == 3}
    alone = {begin for _, (begin, end) in pieces if end - begin == 1 and begin % 4 == 1}
    kinds = {}
    for index, char in enumerate(characters):
        if 4 * index + 1 in alone:
            kinds[char] = "alone"
        elif 4 * index not in whole:
            kinds[char] = "space"
    return kinds


def _separate(text: Iterable[str], kinds: Mapping[str, str]) -> tuple[int, ...]:
    sequence = []
    for char in text:
        kind = kinds.get(char)
        if kind == "alone":
            sequence += [SPACE, ord(char), SPACE]
        else:
            sequence.append(SPACE if kind == "space" else ord(char))
    return tuple(sequence)


def _pack(row_of: np.ndarray, rows: Mapping[tuple[int, ...], int]) -> CharacterTable:
    blocks, pages = np.unique(row_of.reshape(-1, PAGE), axis=0, return_inverse=True)
    lengths = [len(sequence) for sequence in rows]
    return CharacterTable(
        pages=pages.reshape(-1).astype(np.int32),
        entries=blocks.astype(np.int32),
        values=np.array([value for sequence in rows for value in sequence], np.int32),
        splits=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32),
    )
