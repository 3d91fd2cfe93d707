"""Hand-made values, identities and errors of single losses; promises to all: conformance/."""

import numpy as np
import pytest
import tensorflow as tf

from xdistil_tf import losses


def test_mean_squared_error_has_no_factor_one_half():
    value = losses.mean_squared_error([[0.0, 0.0], [1.0, 1.0]], [[3.0, 1.0], [1.0, 1.0]])
    np.testing.assert_allclose(value, [5.0, 0.0])


def test_mean_squared_error_of_attention_averages_heads():
    scores = np.random.default_rng(0).normal(size=(2, 3, 4, 4)).astype(np.float32)
    value = losses.mean_squared_error(np.zeros_like(scores), scores, axis=1)
    np.testing.assert_allclose(value, (scores**2).mean(axis=1), rtol=1e-5)


def test_zeroed_mean_squared_error_zeroes_keys_and_scores_down_to_minus_100():
    target = np.zeros((1, 1, 1, 4), np.float32)
    scores = np.array([[[[-100.0, -99.9, 2.0, 3.0]]]], np.float32)
    mask = np.array([1, 1, 1, 0])[None, None, None]
    value = losses.zeroed_mean_squared_error(target, scores, mask=mask)
    np.testing.assert_allclose(value, [[[0.0, 99.9**2, 4.0, 0.0]]], rtol=1e-6)


def test_kl_divergence_by_hand():
    value = losses.kl_divergence(np.log([[0.5, 0.5]]), np.log([[0.25, 0.75]]))
    np.testing.assert_allclose(value, [0.5 * np.log(2) + 0.5 * np.log(2 / 3)], rtol=1e-6)


def test_kl_divergence_of_equal_logits_is_zero_at_every_temperature():
    logits = np.array([[1.0, -2.0, 30.0]], np.float32)
    for temperature in (0.1, 1.0, 20.0):
        value = losses.kl_divergence(logits, logits, temperature=temperature)
        np.testing.assert_array_equal(value, [0.0])


def test_kl_divergence_masked_equals_sliced():
    random = np.random.default_rng(1)
    target, logits = random.normal(size=(2, 4, 6)).astype(np.float32)
    mask = np.array([1, 0, 1, 1, 0, 1])
    masked = losses.kl_divergence(target, logits, mask=mask, temperature=2.0)
    sliced = losses.kl_divergence(target[:, mask > 0], logits[:, mask > 0], temperature=2.0)
    np.testing.assert_allclose(masked, sliced, rtol=1e-5)


def test_kl_divergence_of_nothing_is_zero_with_zero_gradient():
    logits = tf.constant([[1.0, np.inf, -3.0]])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = losses.kl_divergence([[0.0, 5.0, np.nan]], logits, mask=[0, 0, 0])
    np.testing.assert_array_equal(value, [0.0])
    np.testing.assert_array_equal(tape.gradient(value, logits), [[0.0, 0.0, 0.0]])


def test_kl_divergence_stays_finite_for_far_logits():
    value = losses.kl_divergence([[500.0, -500.0]], [[-500.0, 500.0]])
    np.testing.assert_allclose(value, [1000.0])


def test_keras_clipped_kl_equals_the_formula_of_keras():
    target, output = [[0.5, -3.0, 2.0]], [[0.25, 0.1, -1.0]]
    expected = 0.5 * np.log(0.5 / 0.25) + 1e-7 * np.log(1e-7 / 0.1) + 1.0 * np.log(1 / 1e-7)
    np.testing.assert_allclose(losses.keras_clipped_kl(target, output), [expected], rtol=1e-6)


def test_keras_clipped_kl_may_be_negative():
    assert losses.keras_clipped_kl([[0.1, 0.1]], [[0.9, 0.9]])[0] < 0


def test_soft_cross_entropy_of_equal_logits_is_the_entropy():
    logits = np.log([[0.2, 0.3, 0.5]])
    entropy = -sum(p * np.log(p) for p in (0.2, 0.3, 0.5))
    np.testing.assert_allclose(losses.soft_cross_entropy(logits, logits), [entropy], rtol=1e-6)
    published = losses.class_averaged_soft_cross_entropy(logits, logits)
    np.testing.assert_allclose(published, [entropy / 3], rtol=1e-6)


def test_soft_cross_entropy_has_the_gradient_of_kl_divergence():
    target, logits = tf.constant([[1.0, 2.0, -1.0]]), tf.constant([[0.5, 0.0, 3.0]])
    gradients = []
    for loss in (losses.soft_cross_entropy, losses.kl_divergence):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            value = loss(target, logits, temperature=2.0)
        gradients.append(tape.gradient(value, logits))
    np.testing.assert_allclose(*gradients, rtol=1e-5)


def test_cross_entropy_by_hand():
    logits = np.log([[[0.2, 0.8], [0.6, 0.4]]])
    value = losses.cross_entropy([[1, 0]], logits)
    np.testing.assert_allclose(value, [[-np.log(0.8), -np.log(0.6)]], rtol=1e-6)


def test_cosine_distance_is_blind_to_length():
    value = losses.cosine_distance(
        [[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]], [[7.0, 0.0], [0.0, 0.1], [-2.0, 0.0]]
    )
    np.testing.assert_allclose(value, [0.0, 1.0, 2.0], atol=1e-6)


def test_cosine_distance_of_zeros_has_a_finite_gradient():
    output = tf.zeros([1, 3])
    with tf.GradientTape() as tape:
        tape.watch(output)
        value = losses.cosine_distance([[1.0, 2.0, 3.0]], output)
    np.testing.assert_array_equal(value, [1.0])
    assert np.isfinite(tape.gradient(value, output)).all()


@pytest.mark.parametrize(
    "loss",
    [
        losses.mean_squared_error,
        losses.kl_divergence,
        losses.keras_clipped_kl,
        losses.soft_cross_entropy,
        losses.class_averaged_soft_cross_entropy,
        losses.cosine_distance,
    ],
)
def test_shapes_are_never_broadcast(loss):
    for shape in ((1, 3), (3,), (2, 1), (2, 4)):
        with pytest.raises(ValueError, match=r"Shape mismatch.*equal shapes.*\(2, 3\)"):
            loss(tf.zeros(shape), tf.zeros([2, 3]))


def test_cross_entropy_names_wrong_shapes_and_types():
    with pytest.raises(ValueError, match=r"Shape mismatch.*label_ids \(2, 1\) and logits \(2, 3\)"):
        losses.cross_entropy([[0], [1]], tf.zeros([2, 3]))
    with pytest.raises(ValueError, match="Expected an integer type. Received: float32"):
        losses.cross_entropy([0.0, 1.0], tf.zeros([2, 3]))


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_temperature_must_be_positive(temperature):
    for loss in (losses.kl_divergence, losses.soft_cross_entropy):
        with pytest.raises(ValueError, match="Expected a positive number. Received: "):
            loss(tf.zeros([2, 3]), tf.zeros([2, 3]), temperature=temperature)


def test_relations_need_neither_equal_widths_nor_equal_heads():
    random = tf.random.Generator.from_seed(1)
    teacher, student = random.normal([2, 5, 12]), random.normal([2, 5, 6])
    values = losses.relation_kl_divergence(teacher, student, heads=3)
    assert values.shape == (2, 5) and (values.numpy() > 0).all()
    # The same relations, stretched over more numbers.
    wide = tf.reshape(tf.repeat(tf.reshape(student, [2, 5, 3, 2]), 2, axis=-1), [2, 5, 12])
    doubled = losses.relation_kl_divergence(wide / 2**0.25, student, heads=3)
    np.testing.assert_allclose(doubled, 0, atol=1e-6)


def test_relations_to_masked_tokens_do_not_count():
    random = tf.random.Generator.from_seed(2)
    teacher, student = random.normal([1, 5, 4]), random.normal([1, 5, 4])
    mask = tf.constant([1, 1, 1, 0, 0])[None, None, None, :]
    whole = losses.relation_kl_divergence(teacher, student, heads=2, mask=mask)
    sliced = losses.relation_kl_divergence(teacher[:, :3], student[:, :3], heads=2)
    np.testing.assert_allclose(whole[:, :3], sliced, rtol=1e-5)


def test_a_width_that_relation_heads_do_not_divide_is_named():
    with pytest.raises(ValueError, match="multiples of heads=12. Received: a width of 8.*options"):
        losses.relation_kl_divergence(tf.zeros([1, 2, 12]), tf.zeros([1, 2, 8]))
