"""Optimizers and learning-rate schedules: update rules apart from their state.

Each update is one fused pass over a variable and its slots: on a CPU this takes a fraction of the
time of the unfused Keras optimizer (docs/performance.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import tensorflow as tf

from xdistil_tf import recipe

EPSILON = {"adam": 1e-8, "adamw": 1e-8, "bert_adam": 1e-6, "adadelta": 1e-6}
WEIGHT_DECAY = {"adam": 0.0, "adamw": 0.01, "bert_adam": 0.01, "adadelta": 0.0}
CLIP_NORM = {"bert_adam": 1.0}
# Elements from which on a compiled update pays for its compilation.
_LARGE = 1 << 16


def learning_rate_schedule(
    config: recipe.Optimizer, total_steps: int
) -> Callable[[tf.Tensor], tf.Tensor]:
    """The learning rate as a function of the step, counted from 0.

    Rises linearly to `learning_rate` over the warm-up, then stays (`constant`) or falls to
    `final_learning_rate` at `total_steps` (`linear`, `cosine`: half a period, no restart). The
    first update of a warm-up has a rate already, but for `bert_adam`: BERT's code begins at 0.

    Args:
      config: The optimizer's fields.
      total_steps: Updates of the whole stage.

    Raises:
      ValueError: If the warm-up is not shorter than the stage.
    """
    warmup = config.warmup_steps
    if warmup is None:
        warmup = round(config.warmup_proportion * total_steps)
    if warmup >= total_steps and warmup > 0:
        raise ValueError(
            f"Expected a warm-up shorter than the stage. Received: {warmup} steps of warm-up "
            f"in a stage of {total_steps} steps."
        )
    peak, final = config.learning_rate, config.final_learning_rate
    first = 0.0 if config.name == "bert_adam" else 1.0

    def learning_rate(step: tf.Tensor) -> tf.Tensor:
        step = tf.cast(step, tf.float32)
        progress = tf.clip_by_value((step - warmup) / max(total_steps - warmup, 1), 0.0, 1.0)
        if config.schedule == "linear":
            value = peak + (final - peak) * progress
        elif config.schedule == "cosine":
            value = final + 0.5 * (peak - final) * (1.0 + tf.cos(math.pi * progress))
        else:
            value = tf.fill([], peak)
        return tf.where(step < warmup, peak * (step + first) / max(warmup, 1), value)

    return learning_rate


class Optimizer:
    """Updates variables; its own state is one pair of slots a variable and a count of updates.

    Adam (Kingma & Ba, 2015), AdamW (Loshchilov & Hutter, 2019; decay of matrices only, so biases
    and normalisation are left out), BERT's Adam (AdamW without bias correction) and Adadelta
    (Zeiler, 2012). Create it inside `strategy.scope()`.

    Args:
      config: The optimizer's fields.
      variables: Pairs (unique name, variable).
      total_steps: Updates of the whole stage, for the schedule.
      loss_scaling: For float16: multiply the loss by `loss_scale`, skip updates whose gradients
        are not finite, halve the scale then, double it after 2,000 good ones.

    Attributes:
      state: Name -> variable; everything that a checkpoint must hold.
      loss_scale: Scalar variable, or `None`.
    """

    def __init__(
        self,
        config: recipe.Optimizer,
        variables: Sequence[tuple[str, tf.Variable]],
        total_steps: int,
        loss_scaling: bool = False,
    ):
        self.config = config
        self.learning_rate = learning_rate_schedule(config, total_steps)
        self.clip_norm = config.clip_norm or CLIP_NORM.get(config.name)
        self._epsilon = EPSILON[config.name] if config.epsilon is None else config.epsilon
        decay = config.weight_decay
        self._decay = WEIGHT_DECAY[config.name] if decay is None else decay
        # With replicas, the compiled update goes wrong for the second optimizer of a process.
        self._compiles = tf.distribute.get_strategy().num_replicas_in_sync == 1
        self._variables = [variable for _, variable in variables]
        self._slots = []
        self._updates = _state_variable(0, tf.int64, "updates")
        self.state: dict[str, tf.Variable] = {"updates": self._updates}
        for name, variable in variables:
            pair = tuple(
                _state_variable(tf.zeros_like(variable), variable.dtype, f"{name}.{slot}")
                for slot in ("first", "second")
            )
            self._slots.append(pair)
            self.state |= {f"{name}.first": pair[0], f"{name}.second": pair[1]}
        self.loss_scale = None
        if loss_scaling:
            self.loss_scale = _state_variable(2.0**15, tf.float32, "loss_scale")
            self._good_updates = _state_variable(0, tf.int64, "good_updates")
            self.state |= {"loss_scale": self.loss_scale, "good_updates": self._good_updates}

    def apply(self, gradients: Sequence[tf.Tensor | None], step: tf.Tensor) -> tf.Tensor:
        """Clips and applies gradients; call in a replica context.

        Args:
          gradients: One a variable, dense, summed over replicas, of the scaled loss where there
            is a loss scale; `None` leaves the variable and its slots alone.
          step: The stage's step, for the schedule.

        Returns:
          The global norm before clipping, scalar.
        """
        present = [gradient for gradient in gradients if gradient is not None]
        factor = tf.constant(1.0)
        if self.loss_scale is not None:
            factor = 1.0 / self.loss_scale
        norm = tf.linalg.global_norm(present) * factor
        if self.clip_norm is not None:
            factor *= self.clip_norm / tf.maximum(norm, self.clip_norm)
        targets = [
            pair
            for pair, gradient in zip(
                zip(self._variables, self._slots, strict=True), gradients, strict=True
            )
            if gradient is not None
        ]

        def update(strategy, rate, factor, finite, *dense):
            if self.loss_scale is None:
                self._update_all(strategy, targets, dense, rate, factor)
                return
            # Every replica holds the same sum, so the first one's answer is everybody's.
            finite = strategy.experimental_local_results(finite)[0]
            tf.cond(
                finite,
                lambda: self._update_all(strategy, targets, dense, rate, factor),
                lambda: None,
            )
            self._adjust_scale(strategy, finite)

        rate = self.learning_rate(step)
        context = tf.distribute.get_replica_context()
        context.merge_call(update, args=(rate, factor, tf.math.is_finite(norm), *present))
        return norm

    def _update_all(self, strategy, targets, gradients, rate, factor):
        count = strategy.extended.read_var(self._updates) + 1
        for (variable, slots), gradient in zip(targets, gradients, strict=True):
            strategy.extended.update(
                variable, self._update, args=(*slots, gradient, factor, rate, count), group=True
            )
        strategy.extended.update(self._updates, lambda updates: updates.assign_add(1))

    def _adjust_scale(self, strategy, finite):
        good = tf.where(finite, strategy.extended.read_var(self._good_updates) + 1, 0)
        scale = strategy.extended.read_var(self.loss_scale)
        grown = tf.where(good >= 2000, scale * 2.0, scale)
        scale = tf.where(finite, grown, tf.maximum(scale / 2.0, 1.0))
        good = tf.where(good >= 2000, tf.zeros_like(good), good)
        strategy.extended.update(self.loss_scale, lambda v, s: v.assign(s), args=(scale,))
        strategy.extended.update(self._good_updates, lambda v, g: v.assign(g), args=(good,))

    def _update(self, variable, first, second, gradient, factor, rate, count):
        decay = self._decay if variable.shape.rank > 1 else 0.0
        if self.config.name == "adadelta":
            if decay:
                variable.assign_sub(rate * decay * variable)
            return adadelta_update(
                variable, first, second, gradient * factor, rate, self.config.rho, self._epsilon
            )
        betas = self.config.beta_1, self.config.beta_2
        exponent = tf.cast(count, tf.float32)
        powers = tuple(tf.pow(beta, exponent) for beta in betas)
        if self.config.name == "bert_adam":
            powers = (tf.zeros([]), tf.zeros([]))
        large = self._compiles and variable.shape.num_elements() >= _LARGE
        update = large_adam_update if large else adam_update
        return update(
            variable, first, second, gradient, factor, rate, decay, betas, powers, self._epsilon
        )


def adam_update(variable, first, second, gradient, factor, rate, decay, betas, powers, epsilon):
    """Algorithm 1 of Kingma & Ba in its efficient form (end of their section 2), with decay.

    Args:
      variable: Changed in place, like the moments `first` and `second`, all of one shape.
      gradient: The same shape.
      factor: Scalar that the gradient is multiplied by: clipping, and the inverse loss scale.
      rate: Learning rate, scalar.
      decay: Decoupled weight decay (Loshchilov & Hutter, algorithm 2), of the weights that the
        gradient was taken at.
      betas: Decay of the two moments.
      powers: `betas` to the power of the update's number; zeros leave out bias correction.
      epsilon: Added to the root of the second moment.
    """
    if decay:
        variable.assign_sub(rate * decay * variable)
    return tf.raw_ops.ResourceApplyAdam(
        var=variable.handle,
        m=first.handle,
        v=second.handle,
        beta1_power=powers[0],
        beta2_power=powers[1],
        lr=rate,
        beta1=betas[0],
        beta2=betas[1],
        epsilon=epsilon,
        grad=gradient * factor,
    )


@tf.function(jit_compile=True)
def large_adam_update(
    variable, first, second, gradient, factor, rate, decay, betas, powers, epsilon
):
    """`adam_update` compiled into one pass over memory, which is what limits a large variable."""
    gradient *= factor
    first.assign(betas[0] * first + (1 - betas[0]) * gradient)
    second.assign(betas[1] * second + (1 - betas[1]) * tf.square(gradient))
    corrected = rate * tf.sqrt(1 - powers[1]) / (1 - powers[0])
    step = corrected * first / (tf.sqrt(second) + epsilon)
    variable.assign(variable * (1 - rate * decay) - step)


def adadelta_update(variable, first, second, gradient, rate, rho, epsilon):
    """Algorithm 1 of Zeiler (2012); `first` and `second` are E[g^2] and E[dx^2]."""
    return tf.raw_ops.ResourceApplyAdadelta(
        var=variable.handle,
        accum=first.handle,
        accum_update=second.handle,
        lr=rate,
        rho=rho,
        epsilon=epsilon,
        grad=gradient,
    )


def _state_variable(value, dtype, name):
    return tf.Variable(
        value,
        dtype=dtype,
        trainable=False,
        name=name,
        aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
    )
