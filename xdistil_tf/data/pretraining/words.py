"""Tokenizing much text: what stands between two spaces is tokenized once and looked up after that.

BERT's WordPiece sees no further than that, so nothing changes but the time, which is a fifth.
Other tokenizers get whole lines.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence

from xdistil_tf.data.tokenization import Tokenizer

_REMEMBERED = 300_000  # About 80 MB.
_LONGEST = 64  # Characters; longer ones seldom come twice.

# Sentences to all their ids one behind the other, and how many each has.
Tokenize = Callable[[Sequence[str]], tuple[list[int], list[int]]]


def fast_tokenization(tokenizer: Tokenizer) -> Tokenize:
    """The fastest way to the ids that the tokenizer gives, without special tokens."""
    if spaces_separate(tokenizer):
        return _Words(tokenizer)
    return lambda lines: _flat(_encoded(tokenizer, lines))


def spaces_separate(tokenizer: Tokenizer) -> bool:
    """Whether what stands on one side of a space never changes the ids of the other."""
    state = json.loads(tokenizer.backend.to_str())
    kinds = [(state[name] or {}).get("type") for name in ("normalizer", "pre_tokenizer", "model")]
    plain = not any(
        one["lstrip"] or one["rstrip"] or one["single_word"] or " " in one["content"]
        for one in state["added_tokens"]
    )
    return plain and kinds == ["BertNormalizer", "BertPreTokenizer", "WordPiece"]


class _Words:
    """Remembers the ids of words; forgets all when they become too many."""

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._known: dict[str, list[int]] = {}

    def __call__(self, lines: Sequence[str]) -> tuple[list[int], list[int]]:
        split = [line.split(" ") for line in lines]
        new = list(set(itertools.chain.from_iterable(split)).difference(self._known))
        ids = dict(zip(new, _encoded(self._tokenizer, new), strict=True))
        if len(self._known) + len(new) > _REMEMBERED:
            # What this call needs must be known until it ends.
            here = set(itertools.chain.from_iterable(split)) - set(new)
            self._known = {word: self._known[word] for word in here}
        self._known |= ids
        known = self._known
        sentences = [
            list(itertools.chain.from_iterable([known[word] for word in words])) for words in split
        ]
        for word in new:
            if len(word) > _LONGEST:
                del known[word]
        return _flat(sentences)


def _encoded(tokenizer: Tokenizer, lines: Sequence[str]) -> list[list[int]]:
    encodings = tokenizer.backend.encode_batch_fast(list(lines), add_special_tokens=False)
    return [encoding.ids for encoding in encodings]


def _flat(sentences: Sequence[list[int]]) -> tuple[list[int], list[int]]:
    return list(itertools.chain.from_iterable(sentences)), list(map(len, sentences))
