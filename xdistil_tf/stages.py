"""The stages of a run: expanded, checked before anything expensive, and run in order.

expand -> objectives, selection, schedules -> rehearsal: shapes, parts that are reached
       -> stage after stage
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from xdistil_tf import (
    cache_rows,
    files,
    metrics,
    outputs,
    recipe,
    strategies,
    updates,
    word_demands,
)
from xdistil_tf.bound_data import BoundData
from xdistil_tf.checkpoints import StageFolder
from xdistil_tf.data import language_draw
from xdistil_tf.data.pipeline import Batches, check_lengths
from xdistil_tf.data.pretraining.dynamic import masking_of
from xdistil_tf.data.record_set import RecordSet
from xdistil_tf.data.task_info import TaskInfo
from xdistil_tf.interruption import Interruption
from xdistil_tf.metrics import classification
from xdistil_tf.models import folders
from xdistil_tf.objective import Objective
from xdistil_tf.optimizers import learning_rate_schedule
from xdistil_tf.stage_parts import count_parameters, stage_variables, unreached_parts
from xdistil_tf.stage_scorer import StageScorer
from xdistil_tf.teachers import CachedTeacher, LiveTeacher
from xdistil_tf.teaching import Teaching
from xdistil_tf.trainer import Evaluator, Trainer, stage_steps

_EVALUATION_BATCH = 256
_PRETRAINING_BATCH = 32  # Scores of a whole vocabulary at each masked slot take memory.
# What a masked language model may be selected by, and the output that it is a metric of.
_OF_MASKED_LM = {
    "masked_lm_loss": "masked_lm_logits",
    "masked_lm_accuracy": "masked_lm_logits",
    "next_sentence_accuracy": "next_sentence_logits",
}


class Stages:
    """The expanded stages of a recipe, each with its objective, checked before the first step.

    Args:
      config: The recipe.
      model: With its starting weights.
      bound: The records.
      teaching: The teacher.
      folder: The run folder.

    Raises:
      ValueError: If a stage asks for what data, model or teacher do not have; names the stage.
    """

    def __init__(
        self,
        config: recipe.Recipe,
        model,
        bound: BoundData,
        teaching: Teaching,
        folder: pathlib.Path,
    ):
        self._config = config
        self._model = model
        self._bound = bound
        self._teaching = teaching
        self._folder = folder
        self._task_type = bound.task.task_type if bound.task else None
        frozen = [
            name
            for name, part in model.parts.items()
            if not any(layer.trainable_variables for layer in part)
        ]
        self._stages = recipe.expand(config, tuple(model.parts), frozen)
        self._objectives = [self._objective(stage) for stage in self._stages]

    def prepare(
        self,
        strategy: tf.distribute.Strategy,
        cache_dir: files.Path,
        fingerprint: str,
        interruption: Interruption | None = None,
    ) -> None:
        """Checks all that can be known before the first step, logs the stages, asks the teacher.

        Args:
          strategy: Its scope owns the model's variables.
          cache_dir: Where a cache of the teacher is made.
          fingerprint: Of the starting weights.
          interruption: Asked in the teacher's pass whether to stop.

        Raises:
          Interrupted: If a stop was asked for.
          ValueError: If outputs do not fit together, a named part is not reached, or a stage that
            was begun was made from something else.
        """
        demands = [(objective, self._seen(stage)) for stage, objective in self._pairs()]
        live = any(isinstance(self._teaching.teacher(one), LiveTeacher) for one, _ in demands)
        if live:  # Before its pass, which may take hours; a cache is compared before it is read.
            self._describe(self._rehearse(strategy))
        self._teaching.settle(demands, cache_dir, interruption)
        reached = None if live else self._rehearse(strategy)
        self._check(fingerprint)
        if reached is not None:
            self._describe(reached)

    def train(self, trainer: Trainer, fingerprint: str) -> tuple[list[dict[str, Any]], str]:
        """Runs all stages; returns their results and the fingerprint of the last."""
        results = []
        for number, (stage, objective) in enumerate(self._pairs(), start=1):
            definition = self._definition(stage, objective, fingerprint)
            worker = strategies.worker_of(trainer.strategy)
            folder = StageFolder(self._path(number, stage), definition, writes=worker.writes)
            fingerprint = folder.fingerprint
            if not folder.finished:
                for part in stage.reinitialise:
                    self._model.initialise_part(part, self._config.seed + number)
            records, seed = self._bound.named(stage.data, stage.name), (self._config.seed, number)
            data = _StageData(
                records,
                stage.batch_size,
                seed=seed,
                sidecars=self._teaching.sidecars(objective, records),
                masking=masking_of(records, seed),
                draw=_draw(stage, records, seed),
            )
            result = trainer.run(
                stage,
                objective,
                data,
                folder,
                teacher=self._teaching.teacher(objective),
                evaluator=self._evaluator(stage, objective),
            )
            results.append(result)
        return results, fingerprint

    def _describe(self, reached: Sequence[set[str]]) -> None:
        """Logs the stages with what they train.

        Args:
          reached: For each stage the names of the variables that its objective reaches.
        """
        updates_to_do = 0
        stages = zip(self._stages, self._objectives, reached, strict=True)
        for number, (stage, objective, names) in enumerate(stages, start=1):
            if (self._path(number, stage) / "stage.json").exists():
                logging.info("Stage %d %s is finished already.", number, stage.name)
                continue
            updates_to_do += self._steps(stage)
            unreached = unreached_parts(self._model, stage, names)
            all_parts = f"all parts{' but ' * bool(unreached)}{', '.join(unreached)}"
            logging.info(
                "Stage %d %s: %d steps of %d on %s, trains %s (%d parameters).",
                number,
                stage.name,
                self._steps(stage),
                stage.batch_size,
                stage.data,
                ", ".join(stage.train) if stage.train else all_parts,
                count_parameters(stage_variables(self._model, stage, names)),
            )
            _log_layer_maps(number, stage, objective)
        if updates_to_do:
            logging.info("At most %d updates are to be done.", updates_to_do)
        else:
            logging.info("Nothing is left to train.")

    def _rehearse(self, strategy: tf.distribute.Strategy) -> list[set[str]]:
        """Traces the objectives without computing anything.

        Returns:
          For each stage the names of the variables that its objective reaches.

        Raises:
          ValueError: If outputs do not fit together or a named part is not reached.
        """
        traced, found = None, []
        for stage, objective in self._pairs():
            # The steps of an unfreezing differ in their parts alone.
            if traced != (stage.objective, stage.data):
                traced = (stage.objective, stage.data)
                reached = self._reached(stage, objective, strategy)
            unreached_parts(self._model, stage, reached)
            found.append(reached)
        return found

    def _reached(
        self, stage: recipe.Stage, objective: Objective, strategy: tf.distribute.Strategy
    ) -> set[str]:
        records = self._bound.named(stage.data, stage.name)
        sidecars = self._teaching.sidecars(objective, records)
        batches = Batches(
            records, 1, shuffle=False, sidecars=sidecars, masking=masking_of(records, 0)
        )
        batch = dict(batches.dataset().element_spec)
        if objective.teacher_request and not sidecars:
            live = self._teaching.teacher(objective)
            rows = cache_rows.row_shapes(live, objective.teacher_request, self._task_type)
            for name, row in rows.items():
                shape = [None if size == -1 else size for size in row.of(-1)]
                batch[name] = tf.TensorSpec([None, *shape], tf.float32)
        teacher = CachedTeacher(objective.teacher_request)
        try:
            return updates.reached_variables(self._model, objective, batch, strategy, teacher)
        except ValueError as error:
            raise ValueError(f"Stage {stage.name!r}: {error}") from error

    def _check(self, fingerprint: str) -> None:
        """Compares all stages that were begun with what they are asked to be now.

        Raises:
          ValueError: If one was made from something else; names the fields.
        """
        for number, (stage, objective) in enumerate(self._pairs(), start=1):
            definition = self._definition(stage, objective, fingerprint)
            path = self._path(number, stage)
            if path.exists():
                StageFolder(path, definition, writes=False)
            fingerprint = files.fingerprint(definition)

    def _pairs(self) -> Iterator[tuple[recipe.Stage, Objective]]:
        return zip(self._stages, self._objectives, strict=True)

    def _steps(self, stage: recipe.Stage) -> int:
        records = self._bound.named(stage.data, stage.name)
        return stage_steps(stage, -(-len(records) // stage.batch_size))

    def _path(self, number: int, stage: recipe.Stage) -> pathlib.Path:
        return self._folder / f"{number:02d}_{stage.name}"

    def _objective(self, stage: recipe.Stage) -> Objective:
        self._check_splits(stage)
        _check_metric(stage, self._bound.task, self._model.available)
        for records in self._seen(stage):
            check_lengths(records, folders.longest_input(self._model.config), "the model")
        try:
            learning_rate_schedule(stage.optimizer, self._steps(stage))
            objective = Objective(
                stage.objective,
                self._task_type,
                self._model.available,
                self._teaching.available,
                teacher_layers=self._teaching.depth,
            )
            word_demands.check_vocabulary(
                objective, self._teaching.vocab_size, self._model.config.get("vocab_size", 0)
            )
        except ValueError as error:
            raise ValueError(f"Stage {stage.name!r}: {error}") from error
        self._check_labels(stage, objective)
        return objective

    def _seen(self, stage: recipe.Stage) -> list[RecordSet]:
        names = [stage.data, *([stage.evaluate.data] if stage.evaluate else [])]
        return [self._bound.named(name, stage.name) for name in names]

    def _check_splits(self, stage: recipe.Stage) -> None:
        """What is trained on never selects, and what is selected on is never what is reported."""
        seen = self._seen(stage)
        for use, records in zip(("trains", "selects"), seen, strict=False):
            if reported := self._bound.reported(records):
                raise ValueError(
                    f"Stage {stage.name!r} {use} on {reported!r}, the split that is reported. "
                    "Expected data: train or transfer, and evaluate.data: heldout."
                )
        shared = set.intersection(*(set(records.paths) for records in seen))
        if len(seen) > 1 and shared:
            raise ValueError(
                f"Stage {stage.name!r} trains and selects on {min(shared)}. Expected "
                "evaluate.data that the stage does not train on."
            )

    def _check_labels(self, stage: recipe.Stage, objective: Objective) -> None:
        uses = [("trains", "label_weights" in objective.required_features)]
        if stage.evaluate is not None:
            selects_by_task = stage.evaluate.keep_best != "objective"
            uses.append(("selects", uses[0][1] or selects_by_task))
        for (use, reads_labels), records in zip(uses, self._seen(stage), strict=True):
            if reads_labels and self._bound.without_labels(records):
                raise ValueError(
                    f"Stage {stage.name!r} {use} by labels, and no record of {records.paths[0]} "
                    "and its set has one. Expected data with labels (train, heldout), or terms "
                    "with target: teacher and evaluate.keep_best: objective."
                )

    def _definition(self, stage: recipe.Stage, objective: Objective, parent: str) -> dict[str, Any]:
        seen = [_content(records) for records in self._seen(stage)]
        return {
            "stage": recipe.to_plain(stage),
            "parent": parent,
            "data": seen[0],
            "evaluation_data": seen[1] if len(seen) > 1 else None,
            "teacher": self._teaching.identity(objective),
            "seed": self._config.seed,
            "precision": self._config.precision,
        }

    def _evaluator(self, stage: recipe.Stage, objective: Objective) -> Evaluator | None:
        if stage.evaluate is None:
            return None
        task = self._bound.task
        key = stage.evaluate.keep_best
        if key == "task" or (key == metrics.MACRO and len(task.languages) == 1):
            key = task.metric
        # Where no term reads the logits, nothing has trained the head yet: no metrics then.
        trained = not {"logits", "potentials", "marginals"}.isdisjoint(objective.student_request)
        scored = task if key != "objective" or trained else None
        records = self._bound.named(stage.evaluate.data, stage.name)
        scorer = StageScorer(
            self._model,
            Batches(
                records,
                _EVALUATION_BATCH if task else _PRETRAINING_BATCH,
                shuffle=False,
                sidecars=self._teaching.sidecars(objective, records),
            ),
            objective,
            self._teaching.teacher(objective),
            scored,
            self._samples if scored else None,
        )
        logged = ("objective", key, "standard_error", *([task.metric] if scored else []))
        logged += tuple(_OF_MASKED_LM) if task is None else ()
        better = metrics.higher_is_better(key)
        return Evaluator(stage.evaluate.data, scorer.measure, key, better, logged)

    def _samples(self, batch: Mapping[str, np.ndarray], logits: np.ndarray) -> str | None:
        """A Markdown table of the first predictions of a batch."""
        task, tokenizer = self._bound.task, self._bound.tokenizer
        if task.task_type == "tagging" or tokenizer is None:
            return None
        lines = ["| text | gold | predicted |", "|---|---|---|"]
        for row in range(min(12, len(logits))):
            ids = batch["input_ids"][row][batch["input_mask"][row] > 0]
            text = tokenizer.backend.decode(ids.tolist()).replace("|", "\\|")
            if task.task_type == "regression":
                gold, predicted = f"{batch['label_values'][row]:.3g}", f"{logits[row][0]:.3g}"
            else:
                gold = task.labels[batch["label_ids"][row]]
                predicted = task.labels[int(np.argmax(logits[row]))]
            lines.append(f"| {text} | {gold} | {predicted} |")
        return "\n".join(lines)


def _log_layer_maps(number: int, stage: recipe.Stage, objective: Objective) -> None:
    for term in objective.terms:
        if term.pairs is not None:
            pairs = ", ".join(f"{ours} <- {theirs}" for ours, theirs in term.pairs)
            logging.info(
                "Stage %d %s: %s, layers of student <- teacher: %s.",
                number, stage.name, term.name, pairs,
            )  # fmt: skip


def _check_metric(stage: recipe.Stage, task: TaskInfo | None, available: outputs.Request) -> None:
    """A stage selects by what its data can be measured by."""
    if stage.evaluate is None:
        return
    names = _selectable(task, available)
    if stage.evaluate.keep_best not in names:
        raise ValueError(
            f"Stage {stage.name!r} cannot select by {stage.evaluate.keep_best!r}. Expected "
            f"evaluate.keep_best to be one of {list(names)}, which is what "
            f"{'its data have' if task else 'data without a task and this model have'}."
        )


def _selectable(task: TaskInfo | None, available: outputs.Request) -> tuple[str, ...]:
    if task is None:
        return ("objective", *(n for n, output in _OF_MASKED_LM.items() if output in available))
    of_task = ("objective", "task", metrics.MACRO)
    if task.task_type == "tagging":
        return (*of_task, task.metric)
    if task.task_type == "regression":
        return (*of_task, *classification.REGRESSION)
    binary = classification.BINARY if len(task.labels) != 2 else ()
    known = [name for name in classification.CLASSIFICATION if name not in binary]
    return (*of_task, *known)


def _content(records: RecordSet) -> dict[str, Any] | str:
    """The content of each shard, so that a refusal names the one that changed.

    And how their masks are drawn, where the shards hold none.
    """
    shards = records.shard_fingerprints()
    # Two folders may have shards of one name.
    content = shards if len(shards) == len(records.paths) else records.fingerprint
    masking = masking_of(records, 0)
    if masking is None:
        return content
    named = content if isinstance(content, dict) else {"all": content}
    return named | {"masking": masking.definition}


def _draw(
    stage: recipe.Stage, records: RecordSet, seed: tuple[int, int]
) -> language_draw.LanguageDraw | None:
    """How the languages of a stage are drawn, if it says so."""
    if stage.language_temperature is None:
        return None
    languages = language_draw.read_languages(records)
    draw = language_draw.LanguageDraw(languages, stage.language_temperature, seed)
    sizes = {name.decode("utf-8"): size for name, size in draw.sizes.items()}
    logging.info("Stage %s: an epoch has, by language, %s.", stage.name, sizes)
    return draw


class _StageData:
    """`StageData` of the trainer over a record set."""

    def __init__(self, records: RecordSet, batch_size: int, **options):
        self._records = records
        self._options = options
        self._batch_size = batch_size
        self.steps_per_epoch = -(-len(records) // batch_size)

    def dataset(
        self,
        first_step: int,
        last_step: int,
        num_replicas: int,
        accumulation: int,
        worker: tuple[int, int] = (0, 1),
    ) -> tf.data.Dataset:
        batches = Batches(
            self._records,
            self._batch_size,
            num_replicas=num_replicas,
            accumulation=accumulation,
            worker=worker,
            **self._options,
        )
        return batches.dataset(first_step, last_step)
