"""Rounds: each word that has candidates is replaced by one of them, or not.

What a round makes of a text follows from (seed, id, column, round) alone.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence

from xdistil_tf.data.augmentation.words import Text
from xdistil_tf.data.pretraining import draws


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
      candidates: Number of a word -> what may stand there.
      rounds: How often; what was there before counts as a round, too.
      replace_prob: Of each word in each round.
      key: What the draws follow from, the round excepted.
    """
    seen = {text.text}
    for number in range(1, rounds + 1):
        rng = random.Random(draws.key("augment", *key, number))
        made = _replaced(text, candidates, replace_prob, rng)
        if made not in seen:
            seen.add(made)
            yield number, made


def _replaced(
    text: Text, candidates: Mapping[int, Sequence[str]], replace_prob: float, rng: random.Random
) -> str:
    pieces, place = [], 0
    for number, choices in candidates.items():
        choice = choices[int(rng.random() * len(choices))]
        if rng.random() < replace_prob:
            word = text.words[number]
            pieces += text.text[place : word.start], choice
            place = word.stop
    return "".join([*pieces, text.text[place:]])
