"""Masked-LM instances as google-research/bert makes them: segment pairs, truncated and masked.

Before, documents of token ids by sentence: `[[[7, 8], [9, 5, 6]], ...]`. After, instances:
`Instance([2, 7, 8, 3, 9, 4, 6, 3], [0, 0, 0, 0, 1, 1, 1, 1], [5], [5], False)`.
Pure functions of a random source; `pretraining` reads and writes the files.
"""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from xdistil_tf.data.tokenization import Tokenizer

Document = Sequence[Sequence[int]]


@dataclasses.dataclass(frozen=True)
class Settings:
    """How instances are made; the defaults are google-research/bert's, `dupe_factor` apart.

    Attributes:
      masked_lm_prob: Share of the tokens (special ones counted) to predict; 0 predicts nothing.
      short_seq_prob: Share of the documents whose instances aim at a shorter, random length.
      dupe_factor: How often each document is used, each time with other masks.
      do_whole_word_mask: All pieces of a word are predicted, or none.
      next_sentence: Pairs of segments; without, one segment of whole sentences.

    Raises:
      ValueError: If a value is out of range.
    """

    max_seq_length: int = 128
    max_predictions_per_seq: int = 20
    masked_lm_prob: float = 0.15
    short_seq_prob: float = 0.1
    dupe_factor: int = 1
    do_whole_word_mask: bool = False
    next_sentence: bool = True

    def __post_init__(self):
        checks = (
            ("max_seq_length", 8 <= self.max_seq_length, "at least 8"),
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


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """What masking must know of a tokenizer.

    Attributes:
      special_ids: Never predicted: there is nothing to learn from an `[UNK]`.
      continues: For each id, whether the piece goes on with a word.
    """

    cls_id: int
    sep_id: int
    mask_id: int | None
    size: int
    special_ids: frozenset[int]
    continues: tuple[bool, ...]
    uses_segments: bool = True

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
        special = frozenset(map(tokenizer.tokens.index, tokenizer.special_tokens.values()))
        return cls(
            tokenizer.cls_id,
            tokenizer.sep_id,
            tokenizer.mask_id,
            tokenizer.vocab_size,
            special,
            tuple(_continues(token, tokenizer.kind) for token in tokenizer.tokens),
            tokenizer.uses_segments,
        )


class Instance(NamedTuple):
    """One masked sequence without padding; `is_random_next` is None where there are no pairs."""

    input_ids: list[int]
    segment_ids: list[int]
    masked_lm_positions: list[int]
    masked_lm_ids: list[int]
    is_random_next: bool | None


def create_instances(
    documents: Sequence[Document],
    rng: random.Random,
    vocabulary: Vocabulary,
    settings: Settings = Settings(),
) -> list[Instance]:
    """Makes shuffled instances, drawing from `rng` in the order of google-research/bert.

    So a seed gives what `create_pretraining_data.py` gives for the same documents, but for two
    repairs: a random next segment is never of the same document, and a piece that begins a segment
    never joins the last word of the segment before it.

    Args:
      documents: Token ids of each sentence of each document, without empty ones.

    Raises:
      ValueError: If there are too few documents, or nothing to mask with.
    """
    if settings.masked_lm_prob and vocabulary.mask_id is None:
        raise ValueError(
            "The vocabulary has no [MASK]. Add it to the tokenizer, or set masked_lm_prob=0."
        )
    if settings.next_sentence and len(documents) < 2:
        raise ValueError(
            "Next-sentence pairs need at least 2 documents, as a random next segment comes from "
            f"another one. Received: {len(documents)}. Separate documents by an empty line, or "
            "set next_sentence=False."
        )
    documents = list(documents)
    rng.shuffle(documents)
    instances = []
    for _, number in itertools.product(range(settings.dupe_factor), range(len(documents))):
        instances += _instances_of(documents, number, rng, vocabulary, settings)
    rng.shuffle(instances)
    return instances


def _instances_of(
    documents: Sequence[Document],
    number: int,
    rng: random.Random,
    vocabulary: Vocabulary,
    settings: Settings,
) -> Iterator[Instance]:
    if settings.next_sentence:
        room = settings.max_seq_length - 3
        target = _target_length(room, rng, settings.short_seq_prob)
        for pair in segment_pairs(documents, number, rng, target):
            segments = truncate_pair(pair.a, pair.b, room, rng)
            yield _masked(segments, pair.is_random_next, rng, vocabulary, settings)
    else:
        target = _target_length(settings.max_seq_length - 2, rng, settings.short_seq_prob)
        for segment in packed_segments(documents[number], target):
            yield _masked((segment,), None, rng, vocabulary, settings)


def _target_length(room: int, rng: random.Random, short_seq_prob: float) -> int:
    """Drawn once per document and round, as BERT does."""
    return rng.randint(2, room) if rng.random() < short_seq_prob else room


class SegmentPair(NamedTuple):
    a: list[int]
    b: list[int]
    is_random_next: bool


def segment_pairs(
    documents: Sequence[Document], number: int, rng: random.Random, target: int
) -> Iterator[SegmentPair]:
    """Cuts a document into pairs of about `target` tokens, not truncated yet.

    Half of the pairs go on with the document. The others end in a piece of another document, and
    the sentences that would have followed are used again in the next pair.
    """
    document = documents[number]
    start = 0
    while start < len(document):
        end, length = start, 0
        while end < len(document) and length < target:
            length += len(document[end])
            end += 1
        count = end - start
        middle = start + (rng.randint(1, count - 1) if count > 1 else 1)
        segment_a = list(itertools.chain.from_iterable(document[start:middle]))
        if count == 1 or rng.random() < 0.5:
            segment_b = _random_segment(documents, number, rng, target - len(segment_a))
            yield SegmentPair(segment_a, segment_b, True)
            start = middle
        else:
            segment_b = list(itertools.chain.from_iterable(document[middle:end]))
            yield SegmentPair(segment_a, segment_b, False)
            start = end


def _random_segment(
    documents: Sequence[Document], number: int, rng: random.Random, length: int
) -> list[int]:
    """Sentences of another document from a random one on, until they have `length` tokens."""
    other = number
    while other == number:
        other = rng.randint(0, len(documents) - 1)
    segment: list[int] = []
    for sentence in documents[other][rng.randint(0, len(documents[other]) - 1) :]:
        segment += sentence
        if len(segment) >= length:
            break
    return segment


def truncate_pair(
    segment_a: list[int], segment_b: list[int], room: int, rng: random.Random
) -> tuple[list[int], list[int]]:
    """Drops tokens of the longer segment (B, if equal), at either end by chance, down to `room`."""
    ends = [[0, len(segment_a)], [0, len(segment_b)]]
    lengths = [len(segment_a), len(segment_b)]
    for _ in range(sum(lengths) - room):
        longer = 0 if lengths[0] > lengths[1] else 1
        lengths[longer] -= 1
        if rng.random() < 0.5:
            ends[longer][0] += 1
        else:
            ends[longer][1] -= 1
    return segment_a[slice(*ends[0])], segment_b[slice(*ends[1])]


def packed_segments(document: Document, target: int) -> Iterator[list[int]]:
    """As many whole sentences as fit into `target` tokens; a longer sentence is cut into parts."""
    segment: list[int] = []
    for sentence in document:
        for start in range(0, len(sentence), target):
            part = list(sentence[start : start + target])
            if segment and len(segment) + len(part) > target:
                yield segment
                segment = []
            segment = segment + part
    if segment:
        yield segment


def _masked(
    segments: Sequence[list[int]],
    is_random_next: bool | None,
    rng: random.Random,
    vocabulary: Vocabulary,
    settings: Settings,
) -> Instance:
    """`[CLS] A [SEP] B [SEP]`, some of its tokens masked."""
    input_ids, segment_ids, starts = [vocabulary.cls_id], [0], set()
    for number, segment in enumerate(segments):
        starts.add(len(input_ids))
        input_ids += [*segment, vocabulary.sep_id]
        segment_ids += [number if vocabulary.uses_segments else 0] * (len(segment) + 1)
    words = _candidates(input_ids, starts, vocabulary, settings.do_whole_word_mask)
    positions = choose_positions(words, num_predictions(len(input_ids), settings), rng)
    masked_lm_ids = {}
    for position in positions:
        masked_lm_ids[position] = input_ids[position]
        input_ids[position] = _replacement(input_ids[position], rng, vocabulary)
    ordered = sorted(positions)
    return Instance(
        input_ids, segment_ids, ordered, [masked_lm_ids[one] for one in ordered], is_random_next
    )


def num_predictions(length: int, settings: Settings) -> int:
    """How many tokens of a sequence are predicted; 19 of 128. Rounds halves to even, as BERT.

    >>> num_predictions(128, Settings()), num_predictions(3, Settings())
    (19, 1)
    """
    if not settings.masked_lm_prob:
        return 0
    wanted = max(1, int(round(length * settings.masked_lm_prob)))
    return min(settings.max_predictions_per_seq, wanted)


def _candidates(
    input_ids: Sequence[int], starts: set[int], vocabulary: Vocabulary, whole_words: bool
) -> list[list[int]]:
    """Positions that are masked together: single pieces, or whole words."""
    words: list[list[int]] = []
    for position, token_id in enumerate(input_ids):
        if token_id in vocabulary.special_ids:
            continue
        joins = whole_words and vocabulary.continues[token_id] and position not in starts
        if joins and words and words[-1][-1] == position - 1:
            words[-1].append(position)
        else:
            words.append([position])
    return words


def choose_positions(words: list[list[int]], count: int, rng: random.Random) -> list[int]:
    """Draws whole words up to `count` positions, passing over those that would exceed it."""
    positions: list[int] = []
    rng.shuffle(words)
    for word in words:
        if len(positions) >= count:
            break
        if len(positions) + len(word) <= count:
            positions += word
    return positions


def _replacement(token_id: int, rng: random.Random, vocabulary: Vocabulary) -> int:
    """80 % `[MASK]`, 10 % the token itself, 10 % any of the vocabulary."""
    if rng.random() < 0.8:
        return vocabulary.mask_id
    if rng.random() < 0.5:
        return token_id
    return rng.randint(0, vocabulary.size - 1)


def instance_features(instance: Instance, settings: Settings) -> dict[str, Any]:
    """The features of a record, padded with 0, named as google-research/bert names them."""
    length, slots = settings.max_seq_length, settings.max_predictions_per_seq
    weights = [1.0] * len(instance.masked_lm_ids)
    features = {
        "input_ids": _padded(instance.input_ids, length),
        "input_mask": _padded([1] * len(instance.input_ids), length),
        "segment_ids": _padded(instance.segment_ids, length),
        "masked_lm_positions": _padded(instance.masked_lm_positions, slots),
        "masked_lm_ids": _padded(instance.masked_lm_ids, slots),
        "masked_lm_weights": _padded(weights, slots, 0.0),
    }
    if instance.is_random_next is not None:
        features["next_sentence_labels"] = [int(instance.is_random_next)]
    return features


def _padded(values: list, length: int, padding: float = 0) -> list:
    return values + [padding] * (length - len(values))


def _continues(token: str, kind: str) -> bool:
    if kind == "wordpiece":
        return token.startswith("##")
    return not token.startswith("\u2581" if kind == "unigram" else "\u0120")
