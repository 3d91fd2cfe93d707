"""The CRF against the enumeration of all sequences of tags."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from xdistil_tf import crf

CLASSES = 3
WORDS = np.array([[1, 0, 1, 1, 0], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0], [0, 1, 1, 1, 1]], bool)


@pytest.fixture(scope="module", params=range(4))
def parts(request):
    """Emissions, transitions and scores of first tags; where there is no word, infinity."""
    rng = np.random.default_rng(request.param)
    shapes = (*WORDS.shape, CLASSES), (CLASSES, CLASSES), (CLASSES,)
    emissions, transitions, start = (rng.normal(size=shape).astype("f4") for shape in shapes)
    emissions[~WORDS] = np.inf
    return emissions, 2 * transitions, start


@pytest.fixture(scope="module")
def potentials(parts):
    return crf.make_potentials(*(tf.constant(one) for one in parts)).numpy()


def sequences(parts, row):
    """Every sequence of tags of a row's words with its score."""
    emissions, transitions, start = parts
    places = np.flatnonzero(WORDS[row])
    for tags in itertools.product(range(CLASSES), repeat=len(places)):
        score = sum(emissions[row, place, tag] for place, tag in zip(places, tags, strict=True))
        score += sum(transitions[one, after] for one, after in itertools.pairwise(tags))
        yield tags, score + sum(start[tag] for tag in tags[:1])


@pytest.mark.parametrize("row", range(len(WORDS)))
def test_the_likelihood_is_that_of_all_sequences(parts, potentials, row):
    scores = dict(sequences(parts, row))
    total = np.log(np.sum(np.exp(list(scores.values()))))
    rng = np.random.default_rng(row)
    labels = rng.integers(0, CLASSES, WORDS.shape)
    values = crf.negative_log_likelihood(labels, potentials, weights=WORDS.astype(np.float32))
    expected = total - scores[tuple(labels[row][WORDS[row]])]
    assert values.shape == WORDS.shape
    np.testing.assert_allclose(np.sum(values[row]), expected, atol=1e-4)
    np.testing.assert_array_equal(values.numpy()[~WORDS], 0)


@pytest.mark.parametrize("row", [0, 1, 3])
def test_marginals_are_sums_over_sequences(parts, potentials, row):
    found = np.exp(crf.log_marginals(potentials, tf.constant(WORDS)))
    expected = np.zeros((WORDS[row].sum(), CLASSES))
    for tags, score in sequences(parts, row):
        expected[np.arange(len(tags)), list(tags)] += np.exp(score)
    expected /= expected.sum(-1, keepdims=True)
    np.testing.assert_allclose(found[row][WORDS[row]], expected, atol=1e-5)


@pytest.mark.parametrize("row", range(len(WORDS)))
def test_the_best_tags_have_the_highest_score(parts, potentials, row):
    found = crf.best_tags(potentials, tf.constant(WORDS)).numpy()
    best = max(sequences(parts, row), key=lambda one: one[1])[0]
    assert tuple(found[row][WORDS[row]]) == best
    np.testing.assert_array_equal(found[~WORDS], 0)


def test_without_transitions_each_word_stands_for_itself():
    emissions = tf.random.stateless_normal([2, 4, CLASSES], [1, 2])
    potentials = crf.make_potentials(emissions, tf.zeros([CLASSES, CLASSES]), tf.zeros([CLASSES]))
    words = tf.ones([2, 4], tf.bool)
    labels = tf.constant([[0, 1, 2, 0], [2, 2, 1, 0]])
    values = crf.negative_log_likelihood(labels, potentials, weights=tf.ones([2, 4]))
    expected = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, emissions)
    np.testing.assert_allclose(values, expected, atol=1e-5)
    np.testing.assert_array_equal(crf.best_tags(potentials, words), tf.argmax(emissions, -1))
    np.testing.assert_allclose(
        crf.log_marginals(potentials, words), tf.nn.log_softmax(emissions), atol=1e-5
    )


def test_gradients_are_finite_and_pass_over_what_is_no_word(potentials):
    tensor = tf.constant(potentials)
    with tf.GradientTape() as tape:
        tape.watch(tensor)
        labels = tf.zeros(WORDS.shape, tf.int32)
        total = tf.reduce_sum(
            crf.negative_log_likelihood(labels, tensor, weights=tf.cast(WORDS, tf.float32))
        )
    gradient = tape.gradient(total, tensor).numpy()
    assert np.isfinite(gradient).all()
    np.testing.assert_array_equal(gradient[~WORDS], 0)
    assert np.abs(gradient[WORDS]).max() > 0.01


def test_where_there_is_no_word_marginals_are_zero_and_labels_may_be_anything(potentials):
    found = crf.log_marginals(potentials, tf.constant(WORDS)).numpy()
    np.testing.assert_array_equal(found[~WORDS], 0)
    weights = tf.cast(WORDS, tf.float32)
    known = tf.zeros(WORDS.shape, tf.int32)
    unknown = tf.where(tf.constant(WORDS), known, -100)
    np.testing.assert_array_equal(
        crf.negative_log_likelihood(known, potentials, weights=weights),
        crf.negative_log_likelihood(unknown, potentials, weights=weights),
    )


def test_a_long_sentence_of_large_scores_loses_no_digits():
    rng = np.random.default_rng(0)
    emissions, transitions = rng.normal(size=(1, 400, 9)) * 60, rng.normal(size=(9, 9)) * 2
    start = np.zeros(9)
    words, labels = tf.ones([1, 400], tf.bool), rng.integers(0, 9, [1, 400])
    steps = [emissions[0, 0] + start]
    for emission in emissions[0, 1:]:
        steps.append(np.logaddexp.reduce(steps[-1][:, None] + transitions, 0) + emission)
    ends = [np.zeros(9)]
    for emission in emissions[0, :0:-1]:
        ends.append(np.logaddexp.reduce(transitions + emission + ends[-1], 1))
    expected = np.array(steps) + np.array(ends[::-1])
    expected -= np.logaddexp.reduce(steps[-1])
    parts = (tf.constant(one, tf.float32) for one in (emissions, transitions, start))
    potentials = crf.make_potentials(*parts)
    found = crf.log_marginals(potentials, words)[0]
    np.testing.assert_allclose(np.exp(found), np.exp(expected), atol=5e-5)
    values = crf.negative_log_likelihood(labels, potentials, weights=tf.ones([1, 400]))
    own = emissions[0, np.arange(400), labels[0]].sum() + transitions[
        labels[0, :-1], labels[0, 1:]
    ].sum()
    np.testing.assert_allclose(np.sum(values), np.logaddexp.reduce(steps[-1]) - own, rtol=1e-6)
