"""What may stand in the place of each word of some texts, each (text, word) asked about once.

A word of one piece: the most probable words of a masked LM at its place. A word of several pieces:
the nearest word vectors. The masked variants of many texts go through the model together, sorted by
length (Jiao et al., 2020, section 3.3, algorithm 1; its released code asks word by word).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Container, Iterator, Mapping, Sequence

import numpy as np
from absl import logging

from xdistil_tf.data.augmentation.words import Text, Word
from xdistil_tf.data.pretraining.vocabulary import Vocabulary
from xdistil_tf.data.tokenizer import Tokenizer

_SCORES = 1 << 25  # Of a forward pass: words of the vocabulary times rows.

# (input_ids, segment_ids, lengths, positions) int32 [N, T], [N, T], [N], [N] -> ids [N, count], the
# most probable ones first.
MaskedLm = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Options:
    """How candidates are made.

    Attributes:
      count: Candidates of a word.
      max_length: Pieces of a model input; words beyond have none of the masked LM.
      batch_tokens: Pieces of a forward pass, padding included.
      as_published: The unmasked text stands behind the masked one as second segment; candidates
        are those of the `count` most probable pieces that begin a word, the word itself and special
        tokens included.
    """

    count: int = 15
    max_length: int = 512
    batch_tokens: int = 8192
    as_published: bool = False


class Wordlist:
    """Which pieces of a vocabulary are words, and how they are written.

    Attributes:
      allowed: bool [V], what may be a candidate of the masked LM.
      whole: bool [V], what is a word by itself, and so may be a neighbour of one.
    """

    def __init__(self, tokenizer: Tokenizer, vocabulary: Vocabulary, as_published: bool):
        self._tokenizer = tokenizer
        self._texts: dict[int, str] = {}
        self.whole = ~vocabulary.continues & ~vocabulary.special
        if as_published:
            self.allowed = np.ones(vocabulary.size, bool)
            return
        letters = np.array([self.text(number).isalpha() for number in range(vocabulary.size)])
        self.allowed = self.whole = self.whole & letters

    def text(self, token_id: int) -> str:
        """A piece as it is written in a text."""
        if token_id not in self._texts:
            token = self._tokenizer.tokens[token_id]
            if self._tokenizer.kind == "bpe":  # Letters of other scripts are several bytes there.
                token = self._tokenizer.backend.decode([token_id])
            self._texts[token_id] = token.lstrip("\u2581").strip()
        return self._texts[token_id]


def find_candidates(
    texts: Sequence[Text],
    asked: Sequence[Container[int]],
    masked_lm: MaskedLm,
    neighbours: Mapping[str, Sequence[str]],
    wordlist: Wordlist,
    vocabulary: Vocabulary,
    options: Options,
) -> list[dict[int, tuple[str, ...]]]:
    """For each text: number of a word -> what may stand there; words without any are left out.

    Args:
      texts: With their words.
      asked: Of each text the numbers of the words in question.
      masked_lm: Gives at least one id more than `options.count`.
      neighbours: Of words of several pieces, in lower case.
      wordlist: Of the masked LM's vocabulary.
      vocabulary: The same.
      options: See there.
    """
    found: list[dict[int, tuple[str, ...]]] = [{} for _ in texts]
    variants = []
    for number, text in enumerate(texts):
        for place, word in enumerate(text.words):
            if place not in asked[number] or not word.replaceable:
                continue
            if word.pieces > 1:
                near = _like(word, neighbours.get(word.text.lower(), ())[: options.count])
                if near:
                    found[number][place] = near
            elif (variant := _variant(text, word, vocabulary, options)) is not None:
                variants.append((number, place, *variant))
    most_rows = max(1, _SCORES // vocabulary.size)
    answered = 0
    for batch in _batches(variants, options.batch_tokens, most_rows):
        logging.log_every_n_seconds(
            logging.INFO, "Words: %d of %d of these texts.", 30, answered, len(variants)
        )
        answered += len(batch)
        for (number, place, *_), ids in zip(batch, _predicted(masked_lm, batch), strict=True):
            text = texts[number]
            word = text.words[place]
            if options.as_published:
                ids = [
                    one for one in ids[: options.count].tolist() if not vocabulary.continues[one]
                ]
            else:
                ids = [one for one in ids.tolist() if one != text.ids[word.first]][: options.count]
            chosen = [one for one in map(wordlist.text, ids) if one]
            if not options.as_published:
                chosen = [one for one in chosen if one.lower() != word.text.lower()]
            if chosen:
                found[number][place] = _like(word, chosen)
    return [dict(sorted(one.items())) for one in found]


def several_pieces(texts: Sequence[Text]) -> set[str]:
    """The replaceable words that word vectors are asked about, in lower case."""
    return {
        word.text.lower()
        for text in texts
        for word in text.words
        if word.pieces > 1 and word.replaceable
    }


def _variant(
    text: Text, word: Word, vocabulary: Vocabulary, options: Options
) -> tuple[list[int], int, int] | None:
    """Ids with the word masked, where the second segment begins, and the place of the mask."""
    position = word.first + 1
    if position > options.max_length - 2:
        return None
    # The published code cuts the whole input, its end with it.
    pieces = text.ids if options.as_published else text.ids[: options.max_length - 2]
    ids = [vocabulary.cls_id, *pieces, vocabulary.sep_id]
    ids[position] = vocabulary.mask_id
    second = len(ids)
    if options.as_published:
        ids += [*text.ids, vocabulary.sep_id]
    if not vocabulary.uses_segments:
        second = len(ids)
    return ids[: options.max_length], min(second, options.max_length), position


def _batches(variants: list[tuple], batch_tokens: int, most_rows: int) -> Iterator[list[tuple]]:
    """Variants of similar lengths together; which ones depends on them alone."""
    batch: list[tuple] = []
    for one in sorted(variants, key=lambda one: len(one[2])):
        full = (len(batch) + 1) * len(one[2]) > batch_tokens or len(batch) == most_rows
        if batch and full:
            yield batch
            batch = []
        batch.append(one)
    if batch:
        yield batch


def _predicted(masked_lm: MaskedLm, batch: Sequence[tuple]) -> np.ndarray:
    lengths = np.array([len(one[2]) for one in batch], np.int32)
    input_ids = np.zeros((len(batch), int(lengths.max())), np.int32)
    segment_ids = np.zeros_like(input_ids)
    for row, (_, _, ids, second, _) in enumerate(batch):
        input_ids[row, : len(ids)] = ids
        segment_ids[row, second : len(ids)] = 1
    positions = np.array([one[4] for one in batch], np.int32)
    return masked_lm(input_ids, segment_ids, lengths, positions)


def _like(word: Word, candidates: Sequence[str]) -> tuple[str, ...]:
    """Candidates with a capital where the word has one."""
    if word.text[:1].isupper():
        return tuple(one[:1].upper() + one[1:] for one in candidates)
    return tuple(candidates)
