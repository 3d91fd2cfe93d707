"""Scores a masked language model on pretraining records, and beside it its teacher."""

from __future__ import annotations

import collections
import pathlib
from typing import Any

import tensorflow as tf

from xdistil_tf import preflight, pretraining_scores
from xdistil_tf.bound_data import BoundData
from xdistil_tf.data.pipeline import Batches, check_lengths
from xdistil_tf.data.record_set import RecordSet
from xdistil_tf.models import folders
from xdistil_tf.predictions import batches_once


def is_pretraining(pattern: str) -> bool:
    """Whether records belong to no task."""
    return not (RecordSet(pattern).paths[0].parent / "task.json").is_file()


def evaluate_pretraining(
    model_dir: str,
    pattern: str,
    teacher: str | None = None,
    precision: str = "float32",
    batch_size: int = 32,
) -> dict[str, Any]:
    """Scores a model, and how far it is from a teacher, on masked tokens and pairs.

    Args:
      model_dir: A model or run folder, or a Hugging Face folder.
      pattern: Glob of record shards with masks on disk.
      teacher: A model of the same vocabulary; `None`: the model alone.
      precision: `float32`, `bfloat16` or `mixed_float16`.
      batch_size: Examples of a forward pass.

    Returns:
      The content of `metrics.json`; see docs/pretraining.md, section 3.

    Raises:
      FileNotFoundError: If there is no such model or no such records.
      ValueError: If a model has no head to score, or another vocabulary, or the records no masks.
    """
    bound = BoundData({"heldout": pattern})
    records = bound.sets["heldout"]
    batches = Batches(records, batch_size, shuffle=False)
    folder = folders.find(model_dir)
    model = _model(folder, "model", bound, batches, precision)
    if teacher is None:
        totals = _totals(model, None, batches)
    else:
        teacher_folder = folders.find(teacher)
        other = _model(teacher_folder, "teacher", bound, batches, precision)
        if other.config["vocab_size"] != model.config["vocab_size"]:
            raise ValueError(
                f"The teacher {teacher_folder} has {other.config['vocab_size']} words, {folder} "
                f"has {model.config['vocab_size']}. Expected one vocabulary."
            )
        totals = _totals(model, other, batches)
    result = {
        "model": str(folder),
        "split": records.paths[0].stem.rsplit("-", 3)[0],
        "examples": len(records),
        "masked_tokens": int(totals["model/masked_tokens"]),
        "metric": "masked_lm_loss",
        "metrics": pretraining_scores.metrics(_of("model", totals)),
        "by_language": {},
    }
    if teacher is not None:
        together = _of("together", totals) | {"masked_tokens": totals["model/masked_tokens"]}
        result["teacher"] = {
            "model": str(teacher_folder),
            "metrics": pretraining_scores.metrics(_of("teacher", totals)),
            **pretraining_scores.comparison(together),
        }
    return result


def _model(folder: str, role: str, bound: BoundData, batches: Batches, precision: str):
    preflight.check_model(folder, role, bound.tokenizer, None, bound.longest)
    model = folders.load_model(folder, precision, only_run=True)
    if "masked_lm_logits" not in model.available:
        raise ValueError(
            f"{folder} has no masked-LM head to score. Expected a model pretrained by "
            "masked language modelling. Received: a head of kind "
            f"{folders.head_kind(folder)!r}."
        )
    features = batches.dataset().element_spec
    if "masked_lm_ids" not in features:
        raise ValueError(
            f"{batches.records.paths[0]} has no masks on disk. Expected records of "
            "create_pretraining_data, with --dynamic_masking the heldout split."
        )
    check_lengths(batches.records, folders.longest_input(model.config), f"the {role}")
    return model


def _totals(model, teacher, batches: Batches) -> dict[str, float]:
    """Sums over all records, `model/...`, `teacher/...` and `together/...`."""
    spec = batches.dataset().element_spec
    wanted = pretraining_scores.request(model.available, spec)

    @tf.function(input_signature=[spec])
    def step(batch):
        given = model(batch, training=False, request=wanted)
        found = _named("model", pretraining_scores.sums(batch, given))
        if teacher is not None:
            asked = pretraining_scores.request(teacher.available, spec)
            theirs = teacher(batch, training=False, request=asked)
            found |= _named("teacher", pretraining_scores.sums(batch, theirs))
            compared = pretraining_scores.comparison_sums(batch, theirs, given)
            found |= _named("together", compared)
        return found

    totals: dict[str, float] = collections.defaultdict(float)
    for batch in batches_once(batches):
        for name, value in step(batch).items():
            totals[name] += float(value)
    if not totals["model/masked_tokens"]:
        place = pathlib.Path(batches.records.paths[0])
        raise ValueError(f"{place} and its set mask no token. Expected masked_lm_prob above 0.")
    return totals


def _named(who: str, values: dict) -> dict:
    return {f"{who}/{name}": value for name, value in values.items()}


def _of(who: str, totals: dict[str, float]) -> dict[str, float]:
    start = f"{who}/"
    return {n.removeprefix(start): v for n, v in totals.items() if n.startswith(start)}
