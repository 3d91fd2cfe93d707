"""The loop: runs one stage on one or more replicas, saves, resumes and reports.

    begin:  restore the newest complete checkpoint, or evaluate the starting weights
    loop:   n updates in one compiled call -> summaries -> evaluate when due -> save
    end:    restore the best weights, publish them with the result

Everything a step depends on is in the checkpoint, or is a pure function of
(seed, stage, step): the batches, the order of an epoch, dropout, the schedule.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import tensorflow as tf
from absl import logging

from xdistil_tf import checkpoints, recipe, strategies
from xdistil_tf.interruption import Interrupted, Interruption
from xdistil_tf.objective import Objective
from xdistil_tf.optimizers import Optimizer
from xdistil_tf.stage_parts import count_parameters, stage_variables, unreached_parts
from xdistil_tf.summaries import StageSummaries
from xdistil_tf.updates import Updates, stage_seed


class StageData(Protocol):
    """Batches as a pure function of the step."""

    steps_per_epoch: int

    def dataset(
        self,
        first_step: int,
        last_step: int,
        num_replicas: int,
        accumulation: int,
        worker: tuple[int, int] = (0, 1),
    ) -> tf.data.Dataset:
        """Slices of the global batches in the order (step, micro-batch, replica).

        `worker` says which process asks, of how many: it gets those of its replicas.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Evaluator:
    """Scores the current weights on data that the stage does not train on.

    Attributes:
      data: Name of the data, for summaries.
      measure: Gives metrics by name and sample predictions as Markdown, or `None`. It is given a
        function that it asks now and then whether to raise `Interrupted`.
      key: The metric that chooses the best weights.
      higher_is_better: Its direction.
      logged: Metrics that a log line tells; TensorBoard has all.
    """

    data: str
    measure: Callable[[Callable[[], bool]], tuple[Mapping[str, float], str | None]]
    key: str
    higher_is_better: bool
    logged: tuple[str, ...] = ("objective",)

    def better(self, value: float, best: float | None) -> bool:
        """Whether `value` beats `best` (anything beats `None`)."""
        if best is None:
            return True
        return value > best if self.higher_is_better else value < best


@dataclasses.dataclass(frozen=True)
class TrainerOptions:
    """Speed and logging; no objective depends on it.

    Only dropout does: another number of micro-batches draws other masks.

    Attributes:
      steps_per_loop: Updates in one compiled call.
      checkpoint_interval: Updates between checkpoints.
      gradient_accumulation: Micro-batches of one update.
      xla: Whether the loop is compiled by XLA. On a CPU it is slower (docs/performance.md).
      progress: Whether a progress bar is shown.
    """

    steps_per_loop: int = 20
    checkpoint_interval: int = 500
    gradient_accumulation: int = 1
    xla: bool = False
    progress: bool = True

    def __post_init__(self):
        for name in ("steps_per_loop", "checkpoint_interval", "gradient_accumulation"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"Invalid {name}. Expected a positive integer. Received: {getattr(self, name)}."
                )


class Trainer:
    """Trains a model, stage after stage.

    Args:
      model: A model with `parts`, `named_variables()` and outputs, created in `strategy.scope()`.
      strategy: A `tf.distribute` strategy; `None`: the one in scope.
      seed: Of the run.
      precision: `mixed_float16` turns on loss scaling.
      options: Speed and logging.
      interruption: Asked after each loop, and in evaluations, whether to save and stop.

    Raises:
      ValueError: If XLA is asked for with several replicas.
    """

    def __init__(
        self,
        model,
        *,
        strategy: tf.distribute.Strategy | None = None,
        seed: int = 42,
        precision: str = "float32",
        options: TrainerOptions = TrainerOptions(),
        interruption: Interruption | None = None,
    ):
        self.model = model
        self.strategy = strategy or tf.distribute.get_strategy()
        if options.xla and self.strategy.num_replicas_in_sync > 1:
            raise ValueError(
                "XLA compiles no update of several replicas. Expected xla=False, or one replica. "
                f"Received: xla=True with {self.strategy.num_replicas_in_sync} replicas."
            )
        self.seed = seed
        self.precision = precision
        self.options = options
        self.interruption = interruption or Interruption()

    def run(
        self,
        stage: recipe.Stage,
        objective: Objective,
        data: StageData,
        folder: checkpoints.StageFolder,
        *,
        teacher: Callable | None = None,
        evaluator: Evaluator | None = None,
    ) -> dict[str, Any]:
        """Runs one stage to its end, from wherever its folder stands.

        Args:
          stage: Without `unfreeze`.
          objective: Built from the stage's terms.
          data: The stage's batches.
          folder: The stage's folder.
          teacher: `(features, request) -> outputs`; `None` where no term needs one.
          evaluator: Chooses the best weights; `None` keeps the last.

        Returns:
          The stage's result, as in `stage.json`.

        Raises:
          FloatingPointError: If the loss is not finite. The last checkpoint, if any, stays.
          Interrupted: If a stop was asked for; everything is saved.
          ValueError: If a part that `stage.train` names gets no gradient.
        """
        if folder.finished:
            self._assign(folder.weights())
            return folder.result()
        run = _StageRun(self, stage, objective, data, folder, teacher, evaluator)
        return run.to_its_end()

    def weights(self) -> dict[str, np.ndarray]:
        """The model's variables by name."""
        return {name: v.numpy() for name, v in self.model.named_variables().items()}

    def _assign(self, weights: checkpoints.Tensors) -> None:
        assign(self.model.named_variables(), weights)


def assign(variables: Mapping[str, tf.Variable], arrays: checkpoints.Tensors) -> None:
    """Sets variables by name.

    Raises:
      ValueError: If the names differ.
    """
    if set(variables) != set(arrays):
        odd = sorted(set(variables) ^ set(arrays))
        raise ValueError(f"The checkpoint does not fit the model: {odd[:5]} are on one side only.")
    for name, variable in variables.items():
        variable.assign(arrays[name])


def stage_steps(stage: recipe.Stage, steps_per_epoch: int) -> int:
    """Updates of a stage."""
    return stage.steps or max(1, math.ceil(stage.epochs * steps_per_epoch))


@dataclasses.dataclass
class _Progress:
    """The state of a stage apart from its variables."""

    slices: int
    best: float | None = None
    best_step: int | None = None
    best_metrics: dict[str, float] = dataclasses.field(default_factory=dict)
    initial_metrics: dict[str, float] = dataclasses.field(default_factory=dict)
    without_progress: int = 0
    seconds: float = 0.0
    examples: float = 0.0
    trained_parameters: int = 0
    loss: float | None = None
    stopped: bool = False
    evaluation_due: bool = False  # A stop was asked for in the middle of it.


class _StageRun:
    def __init__(self, trainer: Trainer, stage, objective, data, folder, teacher, evaluator):
        self._trainer = trainer
        self._model = trainer.model
        self._strategy = trainer.strategy
        self._options = trainer.options
        self._stage = stage
        self._objective = objective
        self._data = data
        self._folder = folder
        self._evaluator = evaluator
        self._total = stage_steps(stage, data.steps_per_epoch)
        self._variables = stage_variables(trainer.model, stage)
        with self._strategy.scope():
            self._optimizer = Optimizer(
                stage.optimizer,
                list(self._variables.items()),
                self._total,
                loss_scaling=trainer.precision == "mixed_float16",
            )
        self._updates = Updates(
            trainer.model,
            objective,
            self._optimizer,
            self._variables,
            strategy=self._strategy,
            teacher=teacher,
            seed=stage_seed(trainer.seed, stage.name),
            accumulation=trainer.options.gradient_accumulation,
            xla=trainer.options.xla,
        )
        self._step = 0
        self._worker = strategies.worker_of(self._strategy)
        self._slices = self._strategy.num_replicas_in_sync * self._options.gradient_accumulation
        self._progress = _Progress(self._slices)
        self._best_weights: checkpoints.Tensors | None = None

    def to_its_end(self) -> dict[str, Any]:
        resumed = self._restore()
        shown = self._folder.path if self._worker.writes else None
        with StageSummaries(
            shown, self._stage.name, self._total, self._step, self._options.progress
        ) as summaries:
            self._summaries = summaries
            if not resumed:
                summaries.hyperparameters(
                    recipe.to_plain(self._stage)
                    | {"objective": " + ".join(self._objective.term_names)}
                )
            if not resumed or self._progress.evaluation_due:
                self._evaluate()
            if self._step < self._total and not self._progress.stopped:
                self._train()
        return self._finish()

    def _train(self) -> None:
        replicas, accumulation = (
            self._strategy.num_replicas_in_sync,
            self._options.gradient_accumulation,
        )
        # One pass over the whole remaining range: position is arithmetic, not iterator state.
        place = (self._worker.index, self._worker.count)
        dataset = self._data.dataset(self._step, self._total, replicas, accumulation, place)
        iterator = iter(self._strategy.distribute_datasets_from_function(lambda _: dataset))
        logging.info("Stage %s: the first update is compiled.", self._stage.name)
        self._updates.trace(iterator)
        self._check_reached()
        while self._step < self._total and not self._progress.stopped:
            self._run_loop(iterator)
            if self._step % self._evaluation_interval() == 0 or self._step == self._total:
                self._evaluate()
            # Not after each evaluation: a resumed run evaluates again and finds the same.
            if self._step % self._options.checkpoint_interval == 0:
                self._save()
            self._stop_if_asked()

    def _stop_if_asked(self) -> None:
        # A signal reaches one worker; all stop at the same step.
        if strategies.any_of(self._strategy, self._trainer.interruption.requested):
            self._save()
            raise Interrupted(f"Stopped in stage {self._stage.name} at step {self._step}.")

    def _run_loop(self, iterator) -> None:
        stop = min(
            self._step + self._options.steps_per_loop,
            _next_multiple(self._step, self._evaluation_interval()),
            _next_multiple(self._step, self._options.checkpoint_interval),
            self._total,
        )
        count = stop - self._step
        began = time.perf_counter()
        totals = self._updates(iterator, self._step, count)
        seconds = time.perf_counter() - began
        self._step = stop
        self._progress.seconds += seconds
        self._report(totals, count, seconds)

    def _report(self, totals: dict[str, float], count: int, seconds: float) -> None:
        examples, tokens = totals.pop("examples"), totals.pop("tokens")
        means = {name: value / count for name, value in totals.items()}
        if not math.isfinite(means["loss"]):
            terms = ", ".join(f"{name} {value:.4g}" for name, value in means.items())
            saved = self._folder.latest()
            kept = f" Checkpoint {saved.step} stays in {self._folder.path}." if saved else ""
            raise FloatingPointError(
                f"The loss is not a number in stage {self._stage.name}, steps "
                f"{self._step - count}..{self._step} ({terms}).{kept} Lower the learning rate, set "
                "optimizer.clip_norm, or use --precision=float32."
            )
        self._progress.loss = means["loss"]
        self._progress.examples += examples
        means["learning_rate"] = float(self._optimizer.learning_rate(tf.constant(self._step - 1)))
        means["examples_per_second"] = examples / seconds
        means["tokens_per_second"] = tokens / seconds
        self._summaries.training(self._step, count, means)

    def _check_reached(self) -> None:
        reached = self._updates.reached
        unreached = unreached_parts(self._model, self._stage, reached)
        trained = stage_variables(self._model, self._stage, reached)
        self._progress.trained_parameters = count_parameters(trained)
        missing = [name for name in self._variables if name not in trained]
        if missing:
            logging.info(
                "Stage %s leaves %s as they are: its objective does not reach them.",
                self._stage.name,
                unreached or missing,
            )

    def _evaluation_interval(self) -> int:
        evaluate, epoch = self._stage.evaluate, self._data.steps_per_epoch
        if evaluate is None:
            return epoch
        return evaluate.every_steps or max(1, round((evaluate.every_epochs or 1.0) * epoch))

    def _evaluate(self) -> None:
        """Scores the current weights; the ones a stage starts from are a candidate, too."""
        if self._evaluator is None:
            return
        began = time.perf_counter()
        metrics, samples = self._measured()
        progress, evaluator = self._progress, self._evaluator
        self._summaries.evaluation(self._step, evaluator.data, metrics, samples, evaluator.logged)
        if self._step == 0:
            progress.initial_metrics = dict(metrics)
        value = strategies.agreed(self._strategy, metrics[evaluator.key])
        if evaluator.better(value, progress.best):
            progress.best, progress.best_step = value, self._step
            progress.best_metrics = dict(metrics)
            progress.without_progress = 0
            self._best_weights = self._trainer.weights()
        else:
            progress.without_progress += 1
            patience = self._stage.evaluate.patience
            progress.stopped = patience is not None and progress.without_progress >= patience
        progress.seconds += time.perf_counter() - began

    def _measured(self) -> tuple[Mapping[str, float], str | None]:
        """What the evaluator measures; after a stop in its middle it is due as the run goes on."""
        interruption, alone = self._trainer.interruption, self._worker.count == 1
        try:
            measured = self._evaluator.measure(lambda: alone and interruption.requested)
        except Interrupted:
            if self._step:  # The weights of step 0 are evaluated anew anyway.
                self._progress.evaluation_due = True
                self._save()
            raise Interrupted(
                f"Stopped in stage {self._stage.name}, in the evaluation of step {self._step}."
            ) from None
        self._progress.evaluation_due = False
        return measured

    def _save(self) -> None:
        progress = self._progress
        new_best = self._best_weights if self._saved_best != progress.best_step else None
        arrays = {name: variable.numpy() for name, variable in self._state_variables().items()}
        self._folder.save(self._step, dataclasses.asdict(progress), arrays, new_best)
        self._saved_best = progress.best_step

    _saved_best: int | None = None

    def _restore(self) -> bool:
        checkpoint = self._folder.latest()
        if checkpoint is None:
            return False
        assign(self._state_variables(), checkpoint.tensors)
        self._step = checkpoint.step
        self._progress = _Progress(**checkpoint.state)
        self._best_weights = checkpoint.best
        self._saved_best = self._progress.best_step
        logging.info("Stage %s goes on at step %d.", self._stage.name, self._step)
        if self._progress.slices != self._slices:
            logging.info(
                "Its batches were cut into %d slices (replicas x micro-batches), now into %d: "
                "sums differ in their last bits, and dropout draws other masks.",
                self._progress.slices,
                self._slices,
            )
            self._progress.slices = self._slices
        return True

    def _state_variables(self) -> dict[str, tf.Variable]:
        state = {f"model/{name}": v for name, v in self._model.named_variables().items()}
        return state | {f"optimizer/{name}": v for name, v in self._optimizer.state.items()}

    def _finish(self) -> dict[str, Any]:
        progress = self._progress
        if self._best_weights is not None:
            assign(self._model.named_variables(), self._best_weights)
        result = {
            "name": self._stage.name,
            "data": self._stage.data,
            "outputs": sorted(self._objective.student_request),
            "steps": self._step,
            "planned_steps": self._total,
            "steps_per_epoch": self._data.steps_per_epoch,
            "key": self._evaluator.key if self._evaluator else None,
            "best": progress.best,
            "best_step": progress.best_step,
            "metrics": progress.best_metrics,
            "initial_metrics": progress.initial_metrics,
            "loss": progress.loss,
            "seconds": round(progress.seconds, 3),
            "trained_parameters": progress.trained_parameters,
        }
        self._folder.finish(result, self._trainer.weights())
        kept = ""
        if self._best_weights is not None:
            kept = f" Kept: step {progress.best_step}, {self._evaluator.key} {progress.best:.4g}."
        logging.info(
            "Stage %s ended after %d steps in %.1f s, %.0f examples/s with its evaluations.%s",
            self._stage.name,
            self._step,
            progress.seconds,
            progress.examples / max(progress.seconds, 1e-9),
            kept,
        )
        if self._best_weights is not None and progress.best_step == 0 < self._step:
            logging.warning(
                "Stage %s keeps the weights that it began with: by %s on %s nothing that it "
                "learnt is better. More updates (smaller batches, more epochs) or another "
                "evaluate.keep_best may help.",
                self._stage.name,
                self._evaluator.key,
                self._stage.evaluate.data,
            )
        if not self._worker.writes:
            return result | {"fingerprint": self._folder.fingerprint}
        return self._folder.result()


def _next_multiple(step: int, interval: int) -> int:
    return (step // interval + 1) * interval
