"""Tags of whole sentences from the scores of their words: each for itself, or by a CRF."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from xdistil_tf import crf

_TOGETHER = 256  # Sentences of similar length that go through the CRF at once.

# Emissions float32 [W, C] of each sentence -> tags int [W] and their probabilities float32 [W].
Decoder = Callable[[Sequence[np.ndarray]], list[tuple[np.ndarray, np.ndarray]]]


def decoder_of(model) -> Decoder:
    """How a model's logits become tags: Viterbi's way and marginals where it has a CRF."""
    layer = getattr(getattr(model, "encoder", model), "crf", None)
    return most_probable if layer is None else _CrfDecoder(layer.transitions, layer.start)


def most_probable(sentences: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Each word's most probable tag by itself, and its probability."""
    return [_most_probable(one) for one in sentences]


def _most_probable(emissions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if not len(emissions):
        return _nothing()
    exponentials = np.exp(emissions - emissions.max(-1, keepdims=True))
    return emissions.argmax(-1), 1 / exponentials.sum(-1)


class _CrfDecoder:
    """Reads the scores of a CRF at each call: they may be in training."""

    def __init__(self, transitions: tf.Variable, start: tf.Variable):
        count = start.shape[0]
        signature = [tf.TensorSpec([None, None, count]), tf.TensorSpec([None], tf.int32)]

        @tf.function(input_signature=signature)
        def decode(emissions, lengths):
            words = tf.sequence_mask(lengths, tf.shape(emissions)[1])
            parts = tf.convert_to_tensor(transitions), tf.convert_to_tensor(start)
            potentials = crf.make_potentials(emissions, *parts)
            tags = crf.best_tags(potentials, words)
            marginals = tf.exp(crf.log_marginals(potentials, words))
            return tags, tf.gather(marginals, tags, batch_dims=2)

        self._decode = decode

    def __call__(self, sentences: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        found = [_nothing()] * len(sentences)
        order = sorted(range(len(sentences)), key=lambda number: len(sentences[number]))
        order = [number for number in order if len(sentences[number])]
        for start in range(0, len(order), _TOGETHER):
            chosen = order[start : start + _TOGETHER]
            lengths = np.array([len(sentences[number]) for number in chosen], np.int32)
            padded = np.zeros((len(chosen), lengths.max(), sentences[chosen[0]].shape[1]), "f4")
            for row, number in enumerate(chosen):
                padded[row, : lengths[row]] = sentences[number]
            tags, scores = (one.numpy() for one in self._decode(padded, lengths))
            for row, number in enumerate(chosen):
                found[number] = tags[row, : lengths[row]], scores[row, : lengths[row]]
        return found


def _nothing() -> tuple[np.ndarray, np.ndarray]:
    return np.zeros(0, np.int64), np.zeros(0, np.float32)
