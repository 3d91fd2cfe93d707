"""A linear-chain conditional random field over the tags of a sentence (Lafferty et al., 2001).

```
emissions [B, T, C], transitions -> potentials [B, T, C + 1, C] -> likelihood, marginals, best tags
```

`potentials[b, t, i, j]` is the score of tag j at position t after tag i at the word before; i = C
stands for the beginning of the sentence. Positions that are no word, such as further pieces and
padding, are passed over. All tensors are float32.
"""

from __future__ import annotations

import tensorflow as tf

_LOWEST = -1e9  # The log of nothing; minus infinity has no gradient.


def make_potentials(emissions: tf.Tensor, transitions: tf.Tensor, start: tf.Tensor) -> tf.Tensor:
    """What all functions here take.

    Args:
      emissions: `[B, T, C]`.
      transitions: `[C, C]`, from a tag to the next one.
      start: `[C]`, of first tags.

    Returns:
      `[B, T, C + 1, C]`.
    """
    rows = tf.concat([transitions, start[tf.newaxis]], 0)
    return emissions[:, :, tf.newaxis] + rows


def first_pieces(word_index: tf.Tensor) -> tf.Tensor:
    """Where a word begins, bool `[B, T]`; `word_index` is -1 for special tokens and padding."""
    before = tf.pad(word_index[:, :-1], [[0, 0], [1, 0]], constant_values=-1)
    return (word_index >= 0) & (word_index != before)


def log_marginals(potentials: tf.Tensor, words: tf.Tensor) -> tf.Tensor:
    """The log-probability of each tag of each word, given the sentence.

    Args:
      potentials: `[B, T, C + 1, C]`.
      words: bool `[B, T]`, which positions are words.

    Returns:
      `[B, T, C]`; 0 where there is no word.
    """
    alphas, _ = _forward(potentials, words)
    betas = _backward(potentials, words)
    found = tf.nn.log_softmax(tf.transpose((alphas + betas)[..., :-1], [1, 0, 2]))
    return tf.where(words[..., tf.newaxis], found, 0.0)


def best_tags(potentials: tf.Tensor, words: tf.Tensor) -> tf.Tensor:
    """The most probable sequence of tags (Viterbi), int32 `[B, T]`; 0 where there is no word.

    Args:
      potentials: `[B, T, C + 1, C]`.
      words: bool `[B, T]`.
    """
    time_major, steps = _time_major(potentials, words)
    states = tf.shape(time_major)[2]
    same = tf.range(states)[tf.newaxis]

    def forward(carried, inputs):
        scores, _ = carried
        step, word = inputs
        candidates = scores[:, :, tf.newaxis] + _with_start(step)  # [B, from, to]
        before = tf.where(word, tf.argmax(candidates, 1, tf.int32), same)
        return tf.where(word, tf.reduce_max(candidates, 1), scores), before

    nowhere = tf.zeros_like(time_major[0, :, :, 0], tf.int32)
    scores, before = tf.scan(forward, (time_major, steps), (_at_start(time_major), nowhere))
    last = tf.argmax(scores[-1], -1, tf.int32)  # [B]

    def backward(state, choices):
        return tf.gather(choices, state, batch_dims=1)

    earlier = tf.scan(backward, before, last, reverse=True)  # The state before each position.
    states_at = tf.concat([earlier[1:], last[tf.newaxis]], 0)
    return tf.where(words, tf.transpose(states_at), 0)


def negative_log_likelihood(labels, potentials, *, weights) -> tf.Tensor:
    """How improbable the tags of a sentence are, shared out over its words.

    A word's value is what it adds to the log of the sum over all sequences, less the potential of
    its own step; a sentence's values add up to its negative log-likelihood, while a single one
    may be negative.

    Args:
      labels: int `[B, T]`; anything where `weights` is 0.
      potentials: `[B, T, C + 1, C]`.
      weights: `[B, T]`; positions with a weight above 0 are the chain.

    Returns:
      Nats per position, `[B, T]`, 0 where there is no word.
    """
    words = weights > 0
    labels = tf.where(words, tf.cast(labels, tf.int32), 0)  # An index that there is.
    potentials = _of_words(tf.cast(potentials, tf.float32), words)
    _, added = _forward(potentials, words)
    own = tf.gather_nd(potentials, tf.stack([_before(labels, words, potentials), labels], -1), 2)
    return tf.where(words, tf.transpose(added) - own, 0.0)


def _before(labels: tf.Tensor, words: tf.Tensor, potentials: tf.Tensor) -> tf.Tensor:
    """The tag of the word before each position, C before the first word; int32 `[B, T]`."""
    start = tf.fill(tf.shape(labels)[:1], tf.shape(potentials)[-1])

    def step(last, inputs):
        label, word = inputs
        return tf.where(word, label, last)

    after = tf.scan(step, (tf.transpose(labels), tf.transpose(words)), start)
    return tf.transpose(tf.concat([start[tf.newaxis], after[:-1]], 0))


def _forward(potentials: tf.Tensor, words: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """How probable each state is after the beginning of a sentence, and what each word adds.

    The sums over all beginnings grow with the sentence, and float32 would lose the digits that
    tell states apart; so each step is taken apart into its share and its growth.

    Returns:
      Log-probabilities `[T, B, C + 1]`; the growth of the log of the sum, `[T, B]`, 0 where there
      is no word.
    """
    time_major, steps = _time_major(potentials, words)

    def forward(carried, inputs):
        scores, _ = carried
        step, word = inputs
        sums = tf.reduce_logsumexp(scores[:, :, tf.newaxis] + _with_start(step), 1)
        growth = tf.reduce_logsumexp(sums, -1, keepdims=True)
        return tf.where(word, sums - growth, scores), tf.where(word, growth, 0.0)

    start = _at_start(time_major)
    scores, growth = tf.scan(forward, (time_major, steps), (start, tf.zeros_like(start[:, :1])))
    return scores, growth[..., 0]


def _backward(potentials: tf.Tensor, words: tf.Tensor) -> tf.Tensor:
    """The log of the sum over all ends that follow each state, less the greatest, `[T, B, C + 1]`."""
    time_major, steps = _time_major(potentials, words)

    def backward(scores, inputs):
        step, word = inputs
        sums = tf.reduce_logsumexp(_with_start(step) + scores[:, tf.newaxis], 2)
        # What is taken from all states alike has no part in marginals, nor in their gradients.
        greatest = tf.stop_gradient(tf.reduce_max(sums, -1, keepdims=True))
        return tf.where(word, sums - greatest, scores)

    after_last = tf.zeros_like(time_major[0, :, :, 0])
    before = tf.scan(backward, (time_major, steps), after_last, reverse=True)
    return tf.concat([before[1:], after_last[tf.newaxis]], 0)


def _time_major(potentials: tf.Tensor, words: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """`[T, B, C + 1, C]`, and bool `[T, B, 1]`."""
    potentials = _of_words(potentials, words)
    return tf.transpose(potentials, [1, 0, 2, 3]), tf.transpose(words)[..., tf.newaxis]


def _of_words(potentials: tf.Tensor, words: tf.Tensor) -> tf.Tensor:
    """0 where there is no word: what stands there may be infinite, and so would gradients."""
    return tf.where(words[:, :, tf.newaxis, tf.newaxis], potentials, 0.0)


def _with_start(step: tf.Tensor) -> tf.Tensor:
    """`[B, C + 1, C]` -> `[B, C + 1, C + 1]`: nothing leads back to the beginning."""
    return tf.pad(step, [[0, 0], [0, 0], [0, 1]], constant_values=_LOWEST)


def _at_start(time_major: tf.Tensor) -> tf.Tensor:
    """`[B, C + 1]`: every sentence is at its beginning."""
    shape = tf.shape(time_major)
    return tf.tile(tf.one_hot([shape[2] - 1], shape[2], 0.0, _LOWEST), [shape[1], 1])
