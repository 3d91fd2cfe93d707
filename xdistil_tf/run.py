"""Builds models and data from a recipe and runs its stages in order.

run(recipe, {"train": "records/train-*", "heldout": "records/heldout-*"}, "runs/student",
    teacher="runs/teacher")

records -> teacher -> model -> objectives of all stages -> stage after stage -> model folder
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from xdistil_tf import files, metrics, recipe, versions
from xdistil_tf.checkpoints import StageFolder
from xdistil_tf.data.pipeline import Batches, data_error
from xdistil_tf.data.record_set import RecordSet
from xdistil_tf.data.task_records import TaskInfo, load_task_info
from xdistil_tf.data.tokenization import Tokenizer, load_tokenizer
from xdistil_tf.evaluate import StageScorer
from xdistil_tf.interruption import Interruption
from xdistil_tf.models import folders
from xdistil_tf.objective import Objective
from xdistil_tf.start import Start
from xdistil_tf.teaching import Teaching
from xdistil_tf.trainer import Evaluator, Trainer, TrainerOptions, stage_steps, stage_variables

_EVALUATION_BATCH = 256


def run(
    config: recipe.Recipe,
    data: Mapping[str, str],
    model_dir: files.Path,
    *,
    teacher: str | None = None,
    teacher_cache: str | None = None,
    cache_dir: files.Path | None = None,
    init_checkpoint: str | None = None,
    strategy: tf.distribute.Strategy | None = None,
    options: TrainerOptions = TrainerOptions(),
    interruption: Interruption | None = None,
) -> dict[str, Any]:
    """Trains one model as its recipe says; the same call goes on where a killed one was.

    Args:
      config: The recipe.
      data: Name of the data -> glob of record shards.
      model_dir: The run folder.
      teacher: A model folder, where a term or the student's embeddings need a teacher.
      teacher_cache: A cache made before.
      cache_dir: Where a cache is made if none is given; default: `cache` in the run folder.
      init_checkpoint: What an encoder starts from.
      strategy: A `tf.distribute` strategy.
      options: Speed and logging.
      interruption: Asked whether to save and stop.

    Returns:
      The content of `run.json`: bindings, versions and the result of every stage.

    Raises:
      ValueError: Before the first step, if recipe, data, model and teacher do not fit together or
        the folder was made from something else; later, if a record is damaged.
    """
    bindings = {
        "data": dict(data),
        "teacher": teacher,
        "teacher_cache": teacher_cache,
        "init_checkpoint": init_checkpoint,
    }
    teacher = folders.find(teacher) if teacher else None
    init_checkpoint = folders.find(init_checkpoint) if init_checkpoint else None
    strategy = strategy or tf.distribute.get_strategy()
    bound = BoundData(data)
    folder = pathlib.Path(model_dir)
    folder.mkdir(parents=True, exist_ok=True)
    with strategy.scope():
        teaching = Teaching(config, teacher, teacher_cache, bound.task)
    observed = [bound.sets[name] for name in ("train", "transfer") if name in bound.sets]
    start = Start(config, bound.tokenizer, bound.task, teacher, init_checkpoint, observed)
    model, fingerprint = start.model(folder / "00_start", strategy)
    stages = _Stages(config, model, bound, teaching, folder)
    teaching.settle(stages.demands(), cache_dir or folder / "cache", interruption)
    stages.check(fingerprint)
    stages.describe()
    with files.replaced_file(folder / "recipe.yaml", "w") as handle:
        handle.write(config.to_yaml())
    trainer = Trainer(
        model,
        strategy=strategy,
        seed=config.seed,
        precision=config.precision,
        options=options,
        interruption=interruption,
    )
    try:
        results, fingerprint = stages.train(trainer, fingerprint)
    except tf.errors.OpError as error:
        raise data_error(error) or error from error
    _save_model(model, folder / "model", fingerprint, config, bound)
    summary = {
        "bindings": bindings,
        "seed": config.seed,
        "precision": config.precision,
        "replicas": strategy.num_replicas_in_sync,
        "fingerprint": fingerprint,
        "seconds": round(sum(result["seconds"] for result in results), 2),
        "stages": results,
        "versions": versions.environment(),
    }
    files.write_json(folder / "run.json", summary)
    logging.info("The trained model is in %s.", folder / "model")
    return summary


class BoundData:
    """The record sets of a run by name, with the task and the tokenizer they were made with.

    Attributes:
      sets: Name -> records.
      task: `None` for records that belong to no task, as in pretraining.
      tokenizer: `None` where the records folder holds none.
    """

    def __init__(self, data: Mapping[str, str]):
        self.sets = {name: RecordSet(pattern) for name, pattern in data.items()}
        parents = {path.parent for records in self.sets.values() for path in records.paths}
        infos = [load_task_info(one) for one in sorted(parents) if (one / "task.json").is_file()]
        if len({(info.task_type, info.labels) for info in infos}) > 1:
            raise ValueError(
                "The data come from records with different labels: "
                f"{[f'{info.folder}: {list(info.labels)}' for info in infos]}. Expected one task."
            )
        self._infos = {info.folder: info for info in infos}
        tokenizers = {info.tokenizer["fingerprint"] for info in infos}
        if len(tokenizers) > 1:
            raise ValueError(
                f"The data come from records of {len(tokenizers)} different tokenizers: "
                f"{[str(info.folder) for info in infos]}. Create them with one tokenizer."
            )
        self.task: TaskInfo | None = infos[0] if infos else None
        self.tokenizer: Tokenizer | None = None
        for parent in sorted(parents):
            if (parent / "tokenizer").is_dir():
                self.tokenizer = load_tokenizer(parent / "tokenizer")
                break

    def named(self, name: str, stage: str) -> RecordSet:
        """The records of a data name.

        Raises:
          ValueError: If nothing is bound to it.
        """
        if name not in self.sets:
            raise ValueError(
                f"Stage {stage!r} reads the data {name!r}, to which nothing is bound. Expected "
                f"--data {name}=<glob>. Bound are {sorted(self.sets)}."
            )
        return self.sets[name]

    def reported(self, records: RecordSet) -> str | None:
        """The reported split, if these are its records.

        Not where dev and test have no labels: then the split that selects is all there is to report
        on, and the report says so.
        """
        for path in records.paths:
            info = self._infos.get(path.parent)
            if info and info.report != info.select and path.name.startswith(f"{info.report}-"):
                return info.report
        return None


class _Stages:
    """The expanded stages of a recipe, each with its objective, checked before the first step."""

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
        self._stages = recipe.expand(config, tuple(model.parts))
        self._objectives = [self._objective(stage) for stage in self._stages]

    def demands(self) -> list[tuple[Objective, list[RecordSet]]]:
        """Each stage's objective, with the records on which it asks the teacher."""
        return [
            (objective, self._seen(stage))
            for stage, objective in zip(self._stages, self._objectives, strict=True)
        ]

    def describe(self) -> None:
        """Logs the stages with what they train."""
        for number, stage in enumerate(self._stages, start=1):
            records = self._bound.named(stage.data, stage.name)
            variables = stage_variables(self._model, stage)
            logging.info(
                "Stage %d %s: %d steps of %d on %s, trains %s (%d parameters).",
                number,
                stage.name,
                stage_steps(stage, -(-len(records) // stage.batch_size)),
                stage.batch_size,
                stage.data,
                ", ".join(stage.train or ("all parts",)),
                sum(int(np.prod(v.shape)) for v in variables.values()),
            )

    def check(self, fingerprint: str) -> None:
        """Compares all stages that were begun with what they are asked to be now.

        Raises:
          ValueError: If one was made from something else; names the fields.
        """
        for number, (stage, objective) in enumerate(
            zip(self._stages, self._objectives, strict=True), start=1
        ):
            definition = self._definition(stage, objective, fingerprint)
            path = self._path(number, stage)
            if path.exists():
                StageFolder(path, definition)
            fingerprint = files.fingerprint(definition)

    def train(self, trainer: Trainer, fingerprint: str) -> tuple[list[dict[str, Any]], str]:
        """Runs all stages; returns their results and the fingerprint of the last."""
        results = []
        for number, (stage, objective) in enumerate(
            zip(self._stages, self._objectives, strict=True), start=1
        ):
            definition = self._definition(stage, objective, fingerprint)
            folder = StageFolder(self._path(number, stage), definition)
            fingerprint = folder.fingerprint
            if not folder.finished:
                for part in stage.reinitialise:
                    self._model.initialise_part(part, self._config.seed + number)
            data = _StageData(
                self._bound.named(stage.data, stage.name),
                stage.batch_size,
                (self._config.seed, number),
                self._teaching.sidecars(objective, self._bound.named(stage.data, stage.name)),
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

    def _path(self, number: int, stage: recipe.Stage) -> pathlib.Path:
        return self._folder / f"{number:02d}_{stage.name}"

    def _objective(self, stage: recipe.Stage) -> Objective:
        self._seen(stage)
        self._check_selection(stage)
        try:
            return Objective(
                stage.objective,
                self._task_type,
                self._model.available,
                self._teaching.available,
                teacher_layers=self._teaching.depth,
            )
        except ValueError as error:
            raise ValueError(f"Stage {stage.name!r}: {error}") from error

    def _seen(self, stage: recipe.Stage) -> list[RecordSet]:
        names = [stage.data, *([stage.evaluate.data] if stage.evaluate else [])]
        return [self._bound.named(name, stage.name) for name in names]

    def _check_selection(self, stage: recipe.Stage) -> None:
        """What is selected on is never what is reported."""
        task = self._bound.task
        for use, records in zip(("trains", "selects"), self._seen(stage), strict=False):
            if reported := self._bound.reported(records):
                raise ValueError(
                    f"Stage {stage.name!r} {use} on {reported!r}, the split that is reported. "
                    "Expected data: train or transfer, and evaluate.data: heldout."
                )
        if stage.evaluate is None:
            return
        if task is None and stage.evaluate.keep_best == "task":
            raise ValueError(
                f"Stage {stage.name!r} selects by the task's metric, but its data belong to no "
                "task. Expected evaluate.keep_best: objective."
            )

    def _definition(self, stage: recipe.Stage, objective: Objective, parent: str) -> dict[str, Any]:
        seen = [records.fingerprint for records in self._seen(stage)]
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
        key = task.metric if key == "task" else key
        # Where no term reads the logits, nothing has trained the head yet: no metrics then.
        scored = task if key != "objective" or "logits" in objective.student_request else None
        records = self._bound.named(stage.evaluate.data, stage.name)
        scorer = StageScorer(
            self._model,
            Batches(
                records,
                _EVALUATION_BATCH,
                shuffle=False,
                sidecars=self._teaching.sidecars(objective, records),
            ),
            objective,
            self._teaching.teacher(objective),
            scored,
            self._samples if scored else None,
        )
        return Evaluator(stage.evaluate.data, scorer.measure, key, metrics.higher_is_better(key))

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


class _StageData:
    """`StageData` of the trainer over a record set."""

    def __init__(self, records: RecordSet, batch_size: int, seed: tuple[int, int], sidecars):
        self._records = records
        self._options = {"seed": seed, "sidecars": sidecars}
        self._batch_size = batch_size
        self.steps_per_epoch = -(-len(records) // batch_size)

    def dataset(
        self, first_step: int, last_step: int, num_replicas: int, accumulation: int
    ) -> tf.data.Dataset:
        batches = Batches(
            self._records,
            self._batch_size,
            num_replicas=num_replicas,
            accumulation=accumulation,
            **self._options,
        )
        return batches.dataset(first_step, last_step)


def _save_model(
    model, folder: pathlib.Path, fingerprint: str, config: recipe.Recipe, bound: BoundData
) -> None:
    marker = folder / "xdistil.json"
    if marker.is_file() and files.read_json(marker).get("fingerprint") == fingerprint:
        return
    task = bound.task
    with files.replaced_folder(folder) as aside:
        folders.save_model(model, aside, (task.labels or None) if task else None)
        if bound.tokenizer is not None:
            bound.tokenizer.save(aside)
        if task is not None:
            folders.write_labels(
                aside,
                folders.Labels(task.task_type, task.labels, task.metric, task.pair, task.task),
            )
        files.write_json(
            aside / "xdistil.json",
            {
                "fingerprint": fingerprint,
                "max_seq_length": config.max_seq_length,
                "versions": versions.environment(),
            },
        )
