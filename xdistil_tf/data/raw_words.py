"""The words of running text, with where they stand: what tagging models read one tag for each of.

White space separates words. What else does follows the tokenizer: WordPiece after BERT's splitting
makes a word of each punctuation mark, and of each Chinese character where its normaliser sets them
apart.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from tokenizers import pre_tokenizers

from xdistil_tf.data.tokenizer import Tokenizer

Spans = list[tuple[int, int]]

_BETWEEN_SPACES = re.compile(r"\S+")
# The blocks of BERT's tokenizer: ideographs, not kana or hangul.
_CHINESE = re.compile(
    "([\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002a6df\U0002a700-\U0002b81f"
    "\U0002b820-\U0002ceaf\U0002f800-\U0002fa1f])"
)


def word_splitter(tokenizer: Tokenizer) -> Callable[[str], Spans]:
    """A function from a text to where each word begins and ends, the end not included."""
    normalizer = tokenizer.normalizer or {}
    if not splits_punctuation(tokenizer):
        return split_at_spaces
    if normalizer.get("handle_chinese_chars"):
        return _split_as_bert
    return _split_punctuation


def splits_punctuation(tokenizer: Tokenizer) -> bool:
    """Whether the tokenizer's own splitting makes punctuation marks words, as BERT's does."""
    return (tokenizer.pre_tokenizer or {}).get("type") == "BertPreTokenizer"


def split_at_spaces(text: str) -> Spans:
    """What white space separates.

    >>> split_at_spaces("Ada  sleeps.")
    [(0, 3), (5, 12)]
    """
    return [match.span() for match in _BETWEEN_SPACES.finditer(text)]


_BERT = pre_tokenizers.BertPreTokenizer()


def _split_punctuation(text: str) -> Spans:
    return [span for _, span in _BERT.pre_tokenize_str(text)]


def _split_as_bert(text: str) -> Spans:
    spans = _split_punctuation(text)
    if not _CHINESE.search(text):
        return spans
    found = []
    for start, stop in spans:
        place = start
        for part in _CHINESE.split(text[start:stop]):
            if part:
                found.append((place, place + len(part)))
            place += len(part)
    return found
