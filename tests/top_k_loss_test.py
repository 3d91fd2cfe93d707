"""Soft labels from some words: where each tail has its minimum, and what the numbers survive."""

import numpy as np
import pytest
import tensorflow as tf

from xdistil_tf import losses, outputs
from xdistil_tf.objective import Objective
from xdistil_tf.recipe import Term
from xdistil_tf.teachers import top_k_words
from xdistil_tf.top_k_loss import TAILS, top_k_cross_entropy


def words(probabilities, left):
    """One slot of a teacher that says so of the words 0, 1, ..., and `left` of all others."""
    kept = np.asarray(probabilities, np.float32)[None, None]
    return {
        "ids": tf.range(kept.shape[-1])[None, None],
        "log_probs": tf.math.log(kept),
        "log_tail": tf.fill([1, 1], np.log(left, dtype=np.float32)),
    }


def gradient(target, q, **options):
    logits = tf.Variable(np.log(np.asarray(q, np.float32))[None, None])
    with tf.GradientTape() as tape:
        value = top_k_cross_entropy(target, logits, **options)
    return tape.gradient(value, logits).numpy()[0, 0]


@pytest.mark.parametrize(
    ("tail", "optimum"),
    [
        ("bucket", (0.6, 0.3, 0.1)),
        ("renormalise", (2 / 3, 1 / 3, 1e-9)),
        ("as_published", (2 / 3, 1 / 3, 1e-9)),
    ],
)
def test_where_each_tail_has_its_minimum(tail, optimum):
    target = words((0.6, 0.3), 0.1)
    np.testing.assert_allclose(gradient(target, optimum, tail=tail), 0, atol=1e-6)
    for other in ((0.6, 0.3, 0.1), (2 / 3, 1 / 3, 1e-9)):
        if other != optimum:
            assert np.abs(gradient(target, other, tail=tail)).max() > 0.01


def test_the_bucket_is_one_word_however_many_it_stands_for():
    target = words((0.6, 0.3), 0.1)
    values = [
        top_k_cross_entropy(target, np.log(np.float32([[q]])))
        for q in ((0.6, 0.3, 0.1), (0.6, 0.3, 0.07, 0.03))
    ]
    expected = -(0.6 * np.log(0.6) + 0.3 * np.log(0.3) + 0.1 * np.log(0.1))
    np.testing.assert_allclose(values, np.full((2, 1, 1), expected), rtol=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("tail", TAILS)
def test_all_words_give_the_whole_cross_entropy(tail, temperature):
    teacher, student = np.random.default_rng(0).normal(size=(2, 3, 4, 9)).astype(np.float32) * 3
    target = top_k_words(teacher, 9, (2.5,))
    given = top_k_cross_entropy(target, student, tail=tail, temperature=temperature)
    whole = losses.soft_cross_entropy(teacher, student, temperature=temperature)
    np.testing.assert_allclose(given, whole, rtol=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("tail", TAILS)
def test_a_prefix_of_many_words_is_what_few_words_are(tail, temperature):
    teacher, student = np.random.default_rng(1).normal(size=(2, 3, 4, 9)).astype(np.float32) * 3
    options = {"tail": tail, "temperature": temperature}
    few = top_k_cross_entropy(top_k_words(teacher, 2, (2.5,)), student, **options)
    prefix = top_k_cross_entropy(top_k_words(teacher, 6, (2.5,)), student, k=2, **options)
    np.testing.assert_allclose(prefix, few, rtol=1e-5)


@pytest.mark.parametrize("margin", [10.0, 25.0, 60.0])
def test_the_tail_keeps_its_gradient_where_the_student_is_sure(margin):
    """1 - sum(q) is 0 in float32 from a margin of 17 on."""
    logits = tf.Variable([[[margin, margin, 0.0, 0.0]]])
    with tf.GradientTape() as tape:
        value = top_k_cross_entropy(words((0.6, 0.3), 0.1), logits)
    found = tape.gradient(value, logits).numpy()[0, 0]
    np.testing.assert_allclose(found, [-0.15, 0.15, 0, 0] + np.float32([0.05, 0.05, -0.05, -0.05]),
                               atol=2e-4)  # fmt: skip
    np.testing.assert_allclose(value, 0.9 * np.log(2) + 0.1 * (margin + np.log(1)), rtol=1e-3)


def test_a_sure_teacher_has_no_tail_and_no_nan():
    target = top_k_words(tf.constant([[[200.0, 0.0, 0.0, -50.0]]]), 2, (2.0,))
    np.testing.assert_array_equal(target["log_tail"], [[outputs.NO_TAIL]])
    for temperature in (1.0, 2.0):
        for tail in TAILS:
            value = top_k_cross_entropy(
                target, tf.zeros([1, 1, 4]), tail=tail, temperature=temperature
            )
            np.testing.assert_allclose(value, [[np.log(4)]], rtol=1e-6)


def test_slots_that_do_not_count_may_hold_anything():
    """Ids that no word has, and NaN, which a weight of 0 would keep out of the value alone."""
    term = Term(loss="top_k_cross_entropy", output="masked_lm_logits")
    objective = Objective(
        [term], None, {"masked_lm_logits": None}, {"masked_lm_logits": None, outputs.TOP_K: None}
    )
    target = {
        "ids": tf.constant([[[7, 9]]]),
        "log_probs": tf.fill([1, 1, 2], np.nan),
        "log_tail": tf.fill([1, 1], np.nan),
    }
    features = {"example_weights": tf.ones([1]), "masked_lm_weights": tf.zeros([1, 1])}
    logits = tf.Variable(tf.ones([1, 1, 5]))
    with tf.GradientTape() as tape:
        sums = objective.numerators(features, {"masked_lm_logits": logits}, {outputs.TOP_K: target})
        total = objective.total(sums, objective.denominators(features))
    assert total == 0
    np.testing.assert_array_equal(tape.gradient(total, logits), tf.zeros([1, 1, 5]))


def resolve(**fields):
    term = {"loss": "top_k_cross_entropy", "output": "masked_lm_logits"} | fields
    teacher = {"masked_lm_logits": None, outputs.TOP_K: None}
    return Objective([Term(**term)], None, {"masked_lm_logits": None}, teacher)


def test_the_teachers_words_are_the_target_by_themselves():
    (term,) = resolve(options={"k": 4, "tail": "renormalise"}, temperature=2.0).terms
    assert term.teacher_request == {outputs.TOP_K: None} and term.positions == "slots"
    assert (term.top_k, term.temperature) == (4, 2.0)
    assert term.function.keywords == {"temperature": 2.0, "tail": "renormalise", "k": 4}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"options": {"tail": "buckett"}}, "unknown tail.*Did you mean 'bucket'"),
        ({"options": {"tails": "bucket"}}, r"unknown option. Expected one of \['tail', 'k'\]"),
        ({"options": {"k": 0}}, "whole number of at least 1. Received: options.k=0"),
        ({"options": {"k": 2.5}}, "whole number of at least 1"),
        ({"options": {"k": True}}, "whole number of at least 1"),
        ({"target_output": "masked_lm_logits"}, "Expected target='teacher' and target_output="),
        ({"target": "masked_lm_ids"}, "compares with a teacher's 'masked_lm_top_k' alone"),
        (
            {"loss": "soft_cross_entropy", "target_output": outputs.TOP_K},
            "'soft_cross_entropy' cannot compare 'masked_lm_top_k'.*top_k_cross_entropy",
        ),
        ({"loss": "soft_cross_entropy", "options": {"k": 1}}, "has no options"),
        ({"reduction": "as_published"}, "has no published variant"),
    ],
)
def test_a_term_that_means_nothing_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        resolve(**fields)


def test_more_than_was_kept_is_refused():
    target, logits = words((0.6, 0.3), 0.1), tf.zeros([1, 1, 4])
    with pytest.raises(ValueError, match="at most the 2 words kept. Received: k=3"):
        top_k_cross_entropy(target, logits, k=3)
    with pytest.raises(ValueError, match="not kept for temperature 2. Expected 'logsumexp/2'"):
        top_k_cross_entropy(target, logits, temperature=2.0)
    with pytest.raises(ValueError, match="Invalid temperature"):
        top_k_cross_entropy(target, logits, temperature=0.0)
