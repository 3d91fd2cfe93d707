"""The compiled part of training: some updates in one call, on one or more replicas.

for each update:  next micro-batches -> denominators, summed over the whole global batch
                  -> gradients of each micro-batch's share of the loss, summed
                  -> one optimizer step
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf

from xdistil_tf.objective import Objective
from xdistil_tf.optimizers import Optimizer


class Updates:
    """Updates of one stage.

    Args:
      model: Gives outputs for a request.
      objective: The stage's.
      optimizer: Of `variables`, in their order.
      variables: Name -> variable that is trained.
      strategy: Its replicas take slices of each global batch.
      teacher: `(features, request) -> outputs`, or `None`.
      seed: Two int32 numbers that dropout follows from, with step and slice.
      accumulation: Micro-batches of an update.
      xla: Whether an update is compiled by XLA, anew for every shape of batch.

    Attributes:
      reached: After `trace`, the names of the variables that get a gradient.
    """

    def __init__(
        self,
        model,
        objective: Objective,
        optimizer: Optimizer,
        variables: Mapping[str, tf.Variable],
        *,
        strategy: tf.distribute.Strategy,
        teacher: Callable | None,
        seed: tuple[int, int],
        accumulation: int = 1,
        xla: bool = False,
    ):
        self._model = model
        self._objective = objective
        self._optimizer = optimizer
        self._variables = dict(variables)
        self._strategy = strategy
        self._teacher = teacher
        self._seed = seed
        self._accumulation = accumulation
        self._replica_step = tf.function(self._update, jit_compile=True) if xla else self._update
        self._compiled = tf.function(self._loop, reduce_retracing=True)
        self.reached: set[str] = set()

    def trace(self, iterator) -> None:
        """Compiles without an update, so that what does not fit is found before the first."""
        self(iterator, 0, 0)

    def __call__(self, iterator, first_step: int, count: int) -> dict[str, float]:
        """Does `count` updates; returns sums over them of all reported scalars."""
        numbers = (tf.constant(first_step, tf.int64), tf.constant(count, tf.int64))
        return {name: float(value) for name, value in self._compiled(iterator, *numbers).items()}

    def _loop(self, iterator, first_step, count):
        names = ["loss", "gradient_norm", "examples", "tokens"]
        for term in self._objective.term_names:
            names += [f"terms/{term}", f"weighted_terms/{term}"]
        totals = {name: tf.constant(0.0) for name in names}
        for offset in tf.range(count):
            batches = [_numbers(next(iterator)) for _ in range(self._accumulation)]
            values = self._strategy.run(self._replica_step, args=(batches, first_step + offset))
            # All values are sums over replicas, so every replica holds the same.
            values = {n: self._strategy.experimental_local_results(v)[0] for n, v in values.items()}
            totals = {name: totals[name] + values[name] for name in names}
        return totals

    @tf.autograph.experimental.do_not_convert
    def _update(self, batches, step):
        objective = self._objective
        denominators = _sum([objective.denominators(batch) for batch in batches])
        denominators = self._over_replicas(denominators)
        numerators, gradients = [], []
        for index, batch in enumerate(batches):
            sums, slice_gradients = self._slice_gradients(batch, step, index, denominators)
            numerators.append(sums)
            gradients.append(slice_gradients)
        gradients = [
            None if pieces[0] is None else tf.add_n(pieces)
            for pieces in zip(*gradients, strict=True)
        ]
        self.reached = {
            name for name, g in zip(self._variables, gradients, strict=True) if g is not None
        }
        # Divided by the weight of all replicas already, so gradients are summed, not averaged.
        summed = self._over_replicas(
            (_sum(numerators), [g for g in gradients if g is not None], _sizes(batches))
        )
        numerators, present, sizes = summed
        present = iter(present)
        gradients = [None if g is None else next(present) for g in gradients]
        norm = self._optimizer.apply(gradients, step)
        values = {"loss": objective.total(numerators, denominators), "gradient_norm": norm}
        means = objective.values(numerators, denominators)
        for term in objective.terms:
            values[f"terms/{term.name}"] = means[term.name]
            values[f"weighted_terms/{term.name}"] = term.weight * means[term.name]
        return values | sizes

    def _slice_gradients(self, batch, step, index, denominators):
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        piece = index * self._strategy.num_replicas_in_sync + replica
        fold_in = tf.random.experimental.stateless_fold_in
        seed = fold_in(fold_in(tf.constant(self._seed, tf.int32), step), piece)
        teacher_outputs = {}
        if self._teacher is not None:
            teacher_outputs = self._teacher(batch, self._objective.teacher_request)
        variables = list(self._variables.values())
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            outputs = self._model(
                batch, training=True, request=self._objective.student_request, seed=seed
            )
            numerators = self._objective.numerators(batch, outputs, teacher_outputs)
            loss = self._objective.total(numerators, denominators)
            if self._optimizer.loss_scale is not None:
                loss *= self._optimizer.loss_scale
        gradients = tape.gradient(loss, variables)
        # Dense, so that norms are right and slots decay in every row as the papers' do.
        dense = [None if g is None else tf.convert_to_tensor(g) for g in gradients]
        return numerators, dense

    def _over_replicas(self, values):
        if self._strategy.num_replicas_in_sync == 1:
            return values
        context = tf.distribute.get_replica_context()
        return context.all_reduce(tf.distribute.ReduceOp.SUM, values)


def reached_variables(
    model,
    objective: Objective,
    batch: Mapping[str, tf.TensorSpec],
    strategy: tf.distribute.Strategy,
    teacher: Callable,
) -> set[str]:
    """Names of the trainable variables that an objective reaches, found without computing it.

    Args:
      model: Gives outputs for a request.
      objective: Of a stage.
      batch: Feature name -> its type and shape, the teacher's outputs among them.
      strategy: Its scope owns the model's variables.
      teacher: `(features, request) -> outputs`, read from the batch.

    Raises:
      ValueError: If the batch lacks a feature, or an output and its target differ in shape; names
        the term.
    """
    variables = {name: v for name, v in model.named_variables().items() if v.trainable}
    reached = set()

    def replica_step(features):
        outputs_of_teacher = teacher(features, objective.teacher_request)
        with tf.GradientTape() as tape:
            given = model(
                features,
                training=True,
                request=objective.student_request,
                seed=tf.zeros([2], tf.int32),
            )
            numerators = objective.numerators(features, given, outputs_of_teacher)
            loss = objective.total(numerators, objective.denominators(features))
        gradients = tape.gradient(loss, list(variables.values()))
        reached.update(name for name, g in zip(variables, gradients, strict=True) if g is not None)

    # Converted code would wrap errors in a listing of the source.
    step = tf.function(lambda one: strategy.run(replica_step, args=(one,)), autograph=False)
    step.get_concrete_function(_numbers(batch))
    return reached


def stage_seed(seed: int, name: str) -> tuple[int, int]:
    """Two int32 numbers that follow from the run's seed and the stage's name."""
    digest = hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=8).digest()
    values = np.frombuffer(digest, dtype="<i4")
    return int(values[0]), int(values[1])


def _sum(dictionaries: list[dict[str, tf.Tensor]]) -> dict[str, tf.Tensor]:
    return {name: tf.add_n([d[name] for d in dictionaries]) for name in dictionaries[0]}


def _numbers(batch):
    """A batch without its strings, which are for people and not for a compiler."""
    return {name: value for name, value in batch.items() if name not in ("id", "language")}


def _sizes(batches) -> dict[str, tf.Tensor]:
    """Real examples and tokens of a replica's batches."""
    weights = [batch["example_weights"] for batch in batches]
    masks = [tf.cast(batch["input_mask"], tf.float32) for batch in batches]
    tokens = [
        tf.reduce_sum(mask * weight[:, tf.newaxis])
        for mask, weight in zip(masks, weights, strict=True)
    ]
    return {"examples": tf.add_n([tf.reduce_sum(w) for w in weights]), "tokens": tf.add_n(tokens)}
