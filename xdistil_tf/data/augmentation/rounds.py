"""Rounds: each word that may be replaced is, or not, by one of its candidates.

What a round makes of a text follows from (seed, id, column, round) alone, and which words it
replaces is known before there are candidates: nobody has to look for those of the others.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence

from xdistil_tf.data.augmentation.words import Text
from xdistil_tf.data.pretraining import draws


def drawn_words(
    text: Text, rounds: int, replace_prob: float, key: Sequence[int | str]
) -> Iterator[dict[int, float]]:
    """Yields for each round: number of a word that it replaces -> which candidate, in [0, 1).

    Args:
      text: The text.
      rounds: How many.
      replace_prob: Of each replaceable word in each round.
      key: What the draws follow from, the round excepted.
    """
    replaceable = [number for number, word in enumerate(text.words) if word.replaceable]
    for number in range(1, rounds + 1):
        rng = random.Random(draws.key("augment", *key, number))
        both = ((word, rng.random(), rng.random()) for word in replaceable)
        yield {word: choice for word, choice, chance in both if chance < replace_prob}


def augmented_texts(
    text: Text,
    candidates: Mapping[int, Sequence[str]],
    rounds: int,
    replace_prob: float,
    key: Sequence[int | str],
) -> Iterator[tuple[int, str]]:
    """Yields (round, text) of each round that gives something new; at most `rounds`.

    Args:
      text: The text.
      candidates: Number of a word -> what may stand there; words without any stay.
      rounds: How often; what was there before counts as a round, too.
      replace_prob, key: As `drawn_words` takes them.
    """
    seen = {text.text}
    for number, drawn in enumerate(drawn_words(text, rounds, replace_prob, key), start=1):
        made = _replaced(text, candidates, drawn)
        if made not in seen:
            seen.add(made)
            yield number, made


def _replaced(
    text: Text, candidates: Mapping[int, Sequence[str]], drawn: Mapping[int, float]
) -> str:
    pieces, place = [], 0
    for number, choice in drawn.items():
        if choices := candidates.get(number):
            word = text.words[number]
            pieces += text.text[place : word.start], choices[int(choice * len(choices))]
            place = word.stop
    return "".join([*pieces, text.text[place:]])
