"""Builds models and data from a recipe and runs its stages in order.

run(recipe, {"train": "records/train-*", "heldout": "records/heldout-*"}, "runs/student",
    teacher="runs/teacher")

records -> teacher -> model -> objectives of all stages -> stage after stage -> model folder
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import tensorflow as tf
from absl import logging

from xdistil_tf import files, gradients, preflight, recipe, strategies, versions
from xdistil_tf.bound_data import BoundData
from xdistil_tf.data.pipeline import data_error
from xdistil_tf.interruption import Interruption
from xdistil_tf.models import folders
from xdistil_tf.stages import Stages
from xdistil_tf.start import Start
from xdistil_tf.teaching import Teaching
from xdistil_tf.trainer import Trainer, TrainerOptions


@gradients.released()
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
    strategy = strategy or tf.distribute.get_strategy()
    worker = strategies.worker_of(strategy)
    if worker.count > 1:
        _check_workers(config, teacher, teacher_cache)
    try:
        return _run(
            config, bindings, pathlib.Path(model_dir), cache_dir, strategy, options, interruption
        )
    except tf.errors.OpError as error:
        raise data_error(error) or _in_words(error, worker) from error


def _run(
    config: recipe.Recipe,
    bindings: dict[str, Any],
    folder: pathlib.Path,
    cache_dir: files.Path | None,
    strategy: tf.distribute.Strategy,
    options: TrainerOptions,
    interruption: Interruption | None,
) -> dict[str, Any]:
    """`run` without words for what TensorFlow raises; `bindings` as they stand in `run.json`."""
    worker = strategies.worker_of(strategy)
    teacher, init_checkpoint = (
        folders.find(bindings[role]) if bindings[role] else None
        for role in ("teacher", "init_checkpoint")
    )
    bound = BoundData(bindings["data"])
    _check_records(config, bound, {"teacher": teacher, "init_checkpoint": init_checkpoint})
    folder.mkdir(parents=True, exist_ok=True)
    with strategy.scope():
        tokenizer = bound.tokenizer.fingerprint if bound.tokenizer else ""
        teaching = Teaching(config, teacher, bindings["teacher_cache"], bound.task, tokenizer)
    observed = [bound.sets[name] for name in ("train", "transfer") if name in bound.sets]
    start = Start(
        config, bound.tokenizer, bound.task, teacher, teaching.width, init_checkpoint, observed
    )
    model, fingerprint = start.model(folder / "00_start", strategy)
    trainer = Trainer(
        model,
        strategy=strategy,
        seed=config.seed,
        precision=config.precision,
        options=options,
        interruption=interruption,
    )
    stages = Stages(config, model, bound, teaching, folder)
    stages.prepare(strategy, cache_dir or folder / "cache", fingerprint, interruption)
    if worker.writes:
        with files.replaced_file(folder / "recipe.yaml", "w") as handle:
            handle.write(config.to_yaml())
    results, fingerprint = stages.train(trainer, fingerprint)
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
    if worker.writes:
        _save_model(model, folder / "model", fingerprint, config, bound)
        files.write_json(folder / "run.json", summary)
        logging.info("The trained model is in %s.", folder / "model")
    strategies.any_of(strategy, False)  # Who leaves first is missed by the others.
    return summary


def _check_workers(config: recipe.Recipe, teacher: str | None, teacher_cache: str | None) -> None:
    if teacher and not teacher_cache and config.teacher and config.teacher.mode != "live":
        raise ValueError(
            "Several workers cannot make the cache of a teacher. Make it before with cache_teacher "
            "and give --teacher_cache, or --set teacher.mode=live."
        )


def _in_words(error: tf.errors.OpError, worker: strategies.Worker) -> Exception:
    """What is said when a worker is gone; any other error as it is."""
    gone = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.DeadlineExceededError)
    if worker.count == 1 or not isinstance(error, (*gone, tf.errors.InternalError)):
        return error
    return ConnectionError(
        f"Worker {worker.index} of {worker.count} lost another one. Start all of them again with "
        "the same commands: they go on from the last checkpoint."
    )


def _check_records(
    config: recipe.Recipe, bound: BoundData, models: Mapping[str, str | None]
) -> None:
    """Compares recipe and models with what the records were made with.

    Args:
      config: The recipe.
      bound: The records.
      models: Role -> model folder.

    Raises:
      ValueError: If another length was asked for, or a model has other ids, positions or labels.
    """
    bound.check_length(config.max_seq_length)
    for role, folder in models.items():
        if folder is not None:
            preflight.check_model(folder, role, bound.tokenizer, bound.task, bound.longest)


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
