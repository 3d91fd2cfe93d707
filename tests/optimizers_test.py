"""Optimizers against NumPy over three updates; schedules, clipping, decay, loss scaling."""

import numpy as np
import pytest
import tensorflow as tf

from tests import tiny
from xdistil_tf import optimizers, recipe
from xdistil_tf.optimizers import Optimizer, learning_rate_schedule

RANDOM = np.random.default_rng(0)
START = {"kernel": RANDOM.normal(size=(3, 2)), "bias": RANDOM.normal(size=2)}
GRADIENTS = [{name: RANDOM.normal(size=v.shape) for name, v in START.items()} for _ in range(3)]


def config(name="adam", **fields):
    return recipe.Optimizer(name=name, **{"learning_rate": 0.1} | fields)


def run(one, gradients=GRADIENTS, total=10, loss_scaling=False, scale=1.0, strategy=None):
    """Final weights, norms, and the optimizer after updates of these gradients."""
    strategy = strategy or tf.distribute.get_strategy()
    with strategy.scope():
        variables = {name: tf.Variable(value, dtype=tf.float32) for name, value in START.items()}
        optimizer = Optimizer(one, list(variables.items()), total, loss_scaling)

    @tf.function
    def update(gradients, step):
        return strategy.run(optimizer.apply, args=(gradients, step))

    norms = []
    for step, gradient in enumerate(gradients):
        dense = [
            None if gradient.get(n) is None else tf.constant(gradient[n] * scale, tf.float32)
            for n in variables
        ]
        norm = update(dense, tf.constant(step, tf.int64))
        norms.append(float(strategy.experimental_local_results(norm)[0]))
    return {name: v.numpy() for name, v in variables.items()}, norms, optimizer


def adam(gradients, rate=0.1, betas=(0.9, 0.999), epsilon=1e-8, decay=0.0, corrected=True):
    """Kingma & Ba, algorithm 1; decay of matrices as Loshchilov & Hutter, algorithm 2."""
    weights = {n: v.copy() for n, v in START.items()}
    first = {n: np.zeros_like(v) for n, v in START.items()}
    second = {n: np.zeros_like(v) for n, v in START.items()}
    for count, gradient in enumerate(gradients, start=1):
        for name, g in gradient.items():
            first[name] = betas[0] * first[name] + (1 - betas[0]) * g
            second[name] = betas[1] * second[name] + (1 - betas[1]) * g**2
            factor = np.sqrt(1 - betas[1] ** count) / (1 - betas[0] ** count) if corrected else 1
            step = rate * factor * first[name] / (np.sqrt(second[name]) + epsilon)
            if weights[name].ndim > 1:
                step = step + rate * decay * weights[name]
            weights[name] = weights[name] - step
    return weights


def adadelta(gradients, rate=0.1, rho=0.95, epsilon=1e-6):
    weights = {n: v.copy() for n, v in START.items()}
    squares = {n: np.zeros_like(v) for n, v in START.items()}
    steps = {n: np.zeros_like(v) for n, v in START.items()}
    for gradient in gradients:
        for name, g in gradient.items():
            squares[name] = rho * squares[name] + (1 - rho) * g**2
            step = np.sqrt(steps[name] + epsilon) / np.sqrt(squares[name] + epsilon) * g
            steps[name] = rho * steps[name] + (1 - rho) * step**2
            weights[name] = weights[name] - rate * step
    return weights


def clipped(gradients, limit):
    result = []
    for gradient in gradients:
        norm = np.sqrt(sum(np.sum(g**2) for g in gradient.values()))
        result.append({n: g * min(1.0, limit / norm) for n, g in gradient.items()})
    return result


CASES = {
    "adam": (config(), adam(GRADIENTS)),
    "adam-decay": (config(weight_decay=0.5), adam(GRADIENTS, decay=0.5)),
    "adamw": (config("adamw"), adam(GRADIENTS, decay=0.01)),
    "adamw-betas": (
        config("adamw", weight_decay=0.2, beta_1=0.5, beta_2=0.9, epsilon=0.1),
        adam(GRADIENTS, decay=0.2, betas=(0.5, 0.9), epsilon=0.1),
    ),
    "bert_adam": (
        config("bert_adam"),
        adam(clipped(GRADIENTS, 1.0), decay=0.01, epsilon=1e-6, corrected=False),
    ),
    "adadelta": (config("adadelta"), adadelta(GRADIENTS)),
    "adadelta-rho": (
        config("adadelta", rho=0.5, epsilon=0.01),
        adadelta(GRADIENTS, 0.1, 0.5, 0.01),
    ),
    "clip": (config(clip_norm=0.5), adam(clipped(GRADIENTS, 0.5))),
}


def assert_close(left, right, tolerance=2e-6):
    for name in right:
        np.testing.assert_allclose(left[name], right[name], atol=tolerance, err_msg=name)


@pytest.mark.parametrize("case", CASES)
def test_equals_numpy_over_three_updates(case):
    one, expected = CASES[case]
    assert_close(run(one)[0], expected, 1e-5)


def test_two_replicas_update_like_one():
    assert_close(run(config("adamw"), strategy=tiny.two_replicas())[0], run(config("adamw"))[0], 0)


def test_decay_leaves_biases_alone():
    none = [{"kernel": np.zeros((3, 2)), "bias": np.zeros(2)}]
    weights, _, _ = run(config("adamw", weight_decay=0.5), none)
    np.testing.assert_allclose(weights["kernel"], START["kernel"] * (1 - 0.1 * 0.5), rtol=1e-6)
    np.testing.assert_allclose(weights["bias"], START["bias"], rtol=1e-6)


def test_a_variable_without_gradient_is_neither_moved_nor_decayed():
    gradients = [{"bias": np.ones(2)}] * 2
    weights, _, optimizer = run(config("adamw", weight_decay=0.5), gradients)
    np.testing.assert_array_equal(weights["kernel"], START["kernel"].astype(np.float32))
    assert not optimizer.state["kernel.first"].numpy().any()
    assert optimizer.state["bias.first"].numpy().all()


def test_the_norm_is_the_one_before_clipping():
    _, norms, _ = run(config(clip_norm=0.1))
    expected = [np.sqrt(sum(np.sum(g**2) for g in one.values())) for one in GRADIENTS]
    np.testing.assert_allclose(norms, expected, rtol=1e-6)


def test_a_gradient_below_the_limit_is_not_scaled_up():
    assert_close(run(config(clip_norm=1e3))[0], run(config())[0], 0)


def rates(total=10, **fields):
    schedule = learning_rate_schedule(config(**{"learning_rate": 2.0} | fields), total)
    return np.array([float(schedule(tf.constant(step))) for step in range(total + 2)])


def test_a_constant_rate_is_constant():
    np.testing.assert_allclose(rates(), 2.0)


def test_a_linear_rate_falls_to_its_end():
    expected = 2.0 - (2.0 - 0.5) * np.minimum(np.arange(12), 10) / 10
    np.testing.assert_allclose(
        rates(schedule="linear", final_learning_rate=0.5), expected, rtol=1e-6
    )


def test_a_cosine_rate_falls_without_restart():
    progress = np.minimum(np.arange(12), 10) / 10
    expected = 0.5 + 0.5 * 1.5 * (1 + np.cos(np.pi * progress))
    np.testing.assert_allclose(
        rates(schedule="cosine", final_learning_rate=0.5), expected, rtol=1e-5
    )


@pytest.mark.parametrize("fields", [{"warmup_steps": 4}, {"warmup_proportion": 0.4}])
def test_the_rate_rises_during_warm_up_and_falls_after(fields):
    expected = np.concatenate([[0.5, 1.0, 1.5, 2.0], 2.0 * (1 - np.arange(7) / 6), [0.0]])
    np.testing.assert_allclose(rates(schedule="linear", **fields), expected, atol=1e-6)


def test_a_warm_up_as_long_as_the_stage_is_refused():
    with pytest.raises(ValueError, match="warm-up shorter than the stage. Received: 10 steps"):
        rates(warmup_steps=10)


def test_the_schedule_is_applied():
    gradients = [{n: np.ones_like(v) for n, v in START.items()}] * 2
    weights, _, _ = run(config(schedule="linear"), gradients, total=2)
    # Adam moves by the rate where all gradients are equal: 0.1 and then 0.05.
    np.testing.assert_allclose(weights["bias"], START["bias"] - 0.15, atol=1e-5)


def test_loss_scaling_gives_the_same_updates():
    plain, norms, _ = run(config("adamw"))
    scaled, scaled_norms, _ = run(config("adamw"), loss_scaling=True, scale=2.0**15)
    assert_close(plain, scaled)
    np.testing.assert_allclose(norms, scaled_norms, rtol=1e-6)


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_an_update_that_is_not_finite_is_skipped_and_halves_the_scale(bad):
    broken = {"kernel": np.full((3, 2), bad), "bias": np.ones(2)}
    weights, _, optimizer = run(config("adamw"), [broken], loss_scaling=True)
    assert_close(weights, {n: v.astype(np.float32) for n, v in START.items()}, 0)
    assert float(optimizer.loss_scale) == 2.0**14
    assert int(optimizer.state["updates"]) == 0
    assert not optimizer.state["bias.first"].numpy().any()


def test_the_scale_doubles_after_two_thousand_good_updates():
    _, _, optimizer = run(config(), [], loss_scaling=True)
    optimizer.state["good_updates"].assign(1999)
    strategy = tf.distribute.get_strategy()
    gradients = [tf.constant(GRADIENTS[0][n], tf.float32) for n in START]
    strategy.run(optimizer.apply, args=(gradients, tf.constant(0, tf.int64)))
    assert float(optimizer.loss_scale) == 2.0**16
    assert int(optimizer.state["good_updates"]) == 0


def test_the_state_holds_every_variable_of_the_optimizer():
    _, _, optimizer = run(config(), [], loss_scaling=True)
    assert set(optimizer.state) == {
        "updates", "loss_scale", "good_updates",
        "kernel.first", "kernel.second", "bias.first", "bias.second",
    }  # fmt: skip


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("name", ["adam", "adamw", "bert_adam"])
def test_every_optimizer_of_a_process_gives_large_variables_the_same_updates(
    monkeypatch, name, replicas
):
    """A run makes a new one in each stage; what is compiled stays."""
    monkeypatch.setattr(optimizers, "_LARGE", 1)
    _, expected = CASES[name]
    for _ in range(3):
        strategy = tiny.two_replicas() if replicas == 2 else None
        weights, _, _ = run(config(name), strategy=strategy)
        assert_close(weights, expected, 1e-5)


def test_berts_adam_moves_a_scalar_as_published():
    """A constant gradient of 1 moves it by 3.162, 4.250, ... and at the twelfth update most."""
    variable = tf.Variable(0.0)
    one = config("bert_adam", learning_rate=1.0, weight_decay=0.0)
    optimizer, moved = Optimizer(one, [("scalar", variable)], 100), []
    for step in range(20):
        before = float(variable)
        optimizer.apply([tf.constant(1.0)], tf.constant(step, tf.int64))
        moved.append(before - float(variable))
    np.testing.assert_allclose(moved[:2], [3.162, 4.250], atol=1e-3)
    assert np.argmax(moved) == 11 and moved[11] == pytest.approx(6.569, abs=1e-3)


def test_berts_warm_up_begins_with_a_rate_of_zero():
    found = rates(name="bert_adam", schedule="linear", warmup_steps=4)
    expected = np.concatenate([[0.0, 0.5, 1.0, 1.5], 2.0 * (1 - np.arange(7) / 6), [0.0]])
    np.testing.assert_allclose(found, expected, atol=1e-6)
