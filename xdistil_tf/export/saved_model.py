"""A SavedModel of the student alone: strings or ids in, labels and scores out.

rebuild the student in float32 -> trace its signatures -> save aside
-> reload in a fresh process and compare (`parity.py`) -> rename into place
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import tensorflow as tf
import tf_keras
from absl import logging

from xdistil_tf import crf, files, predict_tags
from xdistil_tf.data import tags
from xdistil_tf.export import compared_texts, parity
from xdistil_tf.models import folders
from xdistil_tf.predictions import LogitsFunction

FORMAT = 1
_SIGNATURES = ("all", "ids")
_TASK_TYPES = ("classification", "regression", "tagging")


class Task(Protocol):
    """What an export needs to know of a task; `data.records.TaskInfo` and `ServedTask` have it."""

    task_type: str
    labels: Sequence[str]
    pair: bool
    metric: str


@dataclasses.dataclass(frozen=True)
class ServedTask:
    """A task given by hand.

    Attributes:
      task_type: `classification`, `regression` or `tagging`.
      labels: In the order of the model's classes.
      pair: Whether it has two texts.
      metric: `word_accuracy` says that tags mark no spans.
    """

    task_type: str
    labels: tuple[str, ...] = ()
    pair: bool = False
    metric: str = ""


def export_saved_model(
    model: tf_keras.Model,
    tokenizer,
    task: Task,
    output_dir: str | pathlib.Path,
    *,
    max_seq_length: int = 128,
    parity_texts: Sequence | None = None,
    signatures: str = "all",
) -> pathlib.Path:
    """Writes a SavedModel and proves in a fresh process that it equals the Keras model.

    Signatures: `serving_default(text[, text_pair])` and `ids(input_ids, input_mask
    [, segment_ids])`, both to `{label, scores}` (regression: `scores` `[B, 1]` alone); of a tagging
    model `serving_default(text)` gives words, tags and entities, see `graph_tagger.py`. Byte-level
    BPE and `signatures="ids"` give ids only, then `serving_default` is that signature and the
    folder loads without `tensorflow_text`. Scores are float32 probabilities.

    Args:
      model: Any model of ours, in any precision; exported in float32, without optimizer.
      tokenizer: Its `data.tokenization.Tokenizer`.
      task: Task type, labels and whether it reads pairs.
      output_dir: New or empty folder, or one that holds this very export.
      max_seq_length: Most tokens of a row, special tokens included.
      parity_texts: Texts, or (text, text_pair) for a pair task, kept in the export and compared;
        None: built-in ones.
      signatures: `all` or `ids`.

    Returns:
      `output_dir` as a path.

    Raises:
      ValueError: If an argument does not fit the model; if `output_dir` holds something else; if
        the reloaded model differs (nothing is left in `output_dir` then).
    """
    output_dir = pathlib.Path(output_dir)
    _check_arguments(model, task, max_seq_length, signatures)
    reason = _ids_only_reason(tokenizer, task, signatures)
    student = _float32_copy(model)
    info = _describe(student, tokenizer, task, max_seq_length, reason)
    if _already_there(output_dir, info["fingerprint"]):
        logging.info("%s already holds this export.", output_dir)
        return output_dir
    if reason:
        logging.info("The export takes ids only: %s.", reason)
    inputs = _parity_inputs(student, tokenizer, task, info, parity_texts)
    with files.replaced_folder(output_dir) as aside:
        module, functions = _trace(student, tokenizer, info)
        options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
        tf.saved_model.save(module, str(aside), signatures=functions, options=options)
        (aside / "assets.extra").mkdir()
        files.write_json(aside / parity.INFO_FILE, info)
        files.write_json(aside / parity.INPUTS_FILE, inputs)
        report = parity.check_in_fresh_process(aside)
    logging.info(
        "Exported to %s; largest difference %.1e.", output_dir, report["max_abs_difference"]
    )
    return output_dir


def _check_arguments(model, task: Task, max_seq_length: int, signatures: str) -> None:
    if signatures not in _SIGNATURES:
        raise ValueError(
            f"Unknown `signatures`. Expected one of {list(_SIGNATURES)}. Received: {signatures!r}."
        )
    if task.task_type not in _TASK_TYPES:
        raise ValueError(
            f"Unknown task_type. Expected one of {list(_TASK_TYPES)}. Received: {task.task_type!r}."
        )
    if "width_projection" in model.parts:
        raise ValueError(
            "Invalid `model`. Expected the student alone. Received: a model with the part "
            "'width_projection'; pass the model that it wraps."
        )
    if "logits" not in model.available:
        raise ValueError(
            "Invalid `model`. Expected one that gives logits. Received: one that gives "
            f"{sorted(model.available)}; train a head first."
        )
    limit = folders.longest_input(model.config)
    if limit is not None and max_seq_length > limit:
        raise ValueError(
            f"Invalid `max_seq_length`. Expected at most {limit}, the positions of the model. "
            f"Received: {max_seq_length}."
        )


def _ids_only_reason(tokenizer, task: Task, signatures: str) -> str | None:
    """Why there is no string signature; None when there is one."""
    if signatures == "ids":
        return "signatures='ids' was asked for"
    from xdistil_tf.export import graph_tokenizer

    return graph_tokenizer.obstacle(tokenizer)


def _float32_copy(model):
    """The same model in float32, outside any distribution strategy or trainer."""
    copy = type(model).from_config_dict(model.config, precision="float32")
    weights = model.named_variables()
    if set(copy.named_variables()) != set(weights):
        copy.build_weights(0)
    variables = copy.named_variables()
    if set(variables) != set(weights):
        differing = sorted(set(variables) ^ set(weights))
        raise ValueError(
            "Invalid `model`. Expected its config to rebuild the same variables. "
            f"Received: differing {differing[:3]}."
        )
    for name, variable in variables.items():
        variable.assign(weights[name].numpy())
    return copy


def _describe(student, tokenizer, task: Task, max_seq_length: int, reason) -> dict[str, Any]:
    config, variables = student.config, student.named_variables()
    weights = hashlib.sha256()
    for name, variable in variables.items():
        weights.update(name.encode() + variable.numpy().tobytes())
    info = {
        "format": FORMAT,
        "task_type": task.task_type,
        "labels": list(task.labels),
        "pair": bool(task.pair),
        "spans": task.task_type == "tagging" and task.metric != tags.NO_SPANS,
        "max_seq_length": max_seq_length,
        "text_signature": reason is None,
        "segments": config.get("type_vocab_size", 0) > 1,
        "words": getattr(student, "crf", None) is not None,
        "model": {
            "model_type": config.get("model_type"),
            "parameters": sum(int(np.prod(variable.shape)) for variable in variables.values()),
            "weights": weights.hexdigest(),
        },
        "tokenizer": {"kind": tokenizer.kind, "fingerprint": tokenizer.fingerprint},
    }
    fingerprint = files.fingerprint({**info, "config": config})
    return {**info, "fingerprint": fingerprint, "ids_only": reason, "versions": parity.versions()}


def _already_there(output_dir: pathlib.Path, fingerprint: str) -> bool:
    if not output_dir.exists() or (output_dir.is_dir() and not os.listdir(output_dir)):
        return False
    place = output_dir / parity.INFO_FILE
    found = files.read_json(place).get("fingerprint") if place.is_file() else None
    if found != fingerprint:
        what = "an export of another model" if found else "other files"
        raise ValueError(
            f"Invalid `output_dir`. Expected a new or empty folder. Received: {output_dir} with "
            f"{what}; choose another folder (a new version number) or remove it."
        )
    return True


def _trace(student, tokenizer, info: Mapping[str, Any]) -> tuple[tf.Module, dict[str, Callable]]:
    """The module to save and its signatures."""
    served = _served(student, info)
    keys = parity.id_features(info)
    ids_specs = [tf.TensorSpec([None, None], tf.int32, name=key) for key in keys]

    @tf.function(input_signature=ids_specs)
    def from_ids(*values):
        return served(dict(zip(keys, values, strict=True)))

    module = tf.Module(name="student")
    module.from_ids = from_ids
    functions = {"serving_default": from_ids, "ids": from_ids}
    if info["text_signature"] and info["task_type"] == "tagging":
        from xdistil_tf.export import graph_tagger

        module.tagger = graph_tagger.GraphTagger(
            student, tokenizer, info["labels"], info["max_seq_length"], info["spans"]
        )
        module.from_text = tf.function(
            module.tagger.__call__, input_signature=[tf.TensorSpec([None], tf.string, name="text")]
        )
        functions["serving_default"] = module.from_text
    elif info["text_signature"]:
        from xdistil_tf.export import graph_tokenizer

        tokenize = graph_tokenizer.make_graph_tokenizer(tokenizer, info["max_seq_length"])
        names = ["text", "text_pair"] if info["pair"] else ["text"]
        text_specs = [tf.TensorSpec([None], tf.string, name=name) for name in names]
        module.tokenize = tf.function(lambda *texts: tokenize(*texts), input_signature=text_specs)

        @tf.function(input_signature=text_specs)
        def from_text(*texts):
            return served(module.tokenize(*texts))

        module.from_text = functions["serving_default"] = from_text
    # The variables and not the Keras model: no optimizer, no metrics, no Keras metadata.
    module.weights = list(student.named_variables().values())
    return module, functions


def _served(student, info: Mapping[str, Any]) -> Callable:
    labels = tf.constant(info["labels"], tf.string)

    def served(features: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        logits = tf.cast(student(features, training=False)["logits"], tf.float32)
        if info["task_type"] == "regression":
            return {"scores": tf.reshape(logits, [-1, 1])}
        if info["words"]:
            return _chained(student, logits, features["word_index"], labels)
        return {
            "label": tf.gather(labels, tf.argmax(logits, -1)),  # [B]; tagging [B, T]
            "scores": tf.nn.softmax(logits),
        }

    return served


def _chained(student, logits, word_index, labels) -> dict[str, tf.Tensor]:
    """Tags of a CRF's words and their marginals; empty and 0 at further pieces and padding."""
    words, potentials = crf.first_pieces(word_index), student.crf(logits)
    names = tf.gather(labels, crf.best_tags(potentials, words))
    marginals = tf.exp(crf.log_marginals(potentials, words))
    return {
        "label": tf.where(words, names, ""),
        "scores": tf.where(words[..., tf.newaxis], marginals, 0.0),
    }


def _parity_inputs(
    student, tokenizer, task: Task, info: Mapping[str, Any], texts
) -> dict[str, Any]:
    """Texts, their ids by the training tokenizer, and what the Keras model says of them."""
    rows = compared_texts.built_in(task.pair) if texts is None else list(texts)
    compared_texts.check(rows, task.pair)
    firsts = [row[0] for row in rows] if task.pair else rows
    seconds = [row[1] for row in rows] if task.pair else None
    encodings = tokenizer.encode_batch(firsts, seconds, max_length=info["max_seq_length"])
    inputs = {
        "texts": firsts,
        "texts_b": seconds,
        "input_ids": [encoding.input_ids for encoding in encodings],
        "segment_ids": [encoding.segment_ids for encoding in encodings],
    }
    if info["words"]:
        inputs["word_index"] = [encoding.word_index for encoding in encodings]
    scores, labels = [], []
    # On the CPU, as the fresh process: reduced-precision products of a GPU are not the export's.
    with tf.device("CPU:0"):
        for start in range(0, len(firsts), parity.BATCH_SIZE):
            stop = min(start + parity.BATCH_SIZE, len(firsts))
            features = parity.stored_batch(inputs, range(start, stop))
            more = _keras_answers(student, task, info, features)
            scores, labels = scores + more[0], labels + more[1]
        if info["text_signature"] and task.task_type == "tagging":
            inputs["rows"] = _keras_rows(student, tokenizer, info, firsts)
    return {**inputs, "scores": scores, "labels": labels or None}


def _keras_answers(student, task: Task, info: Mapping[str, Any], features) -> tuple[list, list]:
    """Scores and labels of the ids signature, row by row, without padding."""
    tensors = {key: tf.constant(value) for key, value in features.items()}
    logits = tf.cast(student(tensors)["logits"], tf.float32)
    expected = 1 if task.task_type == "regression" else len(task.labels)
    if logits.shape[-1] != expected:
        raise ValueError(
            f"Invalid `task`. Expected {logits.shape[-1]} labels, one per class of the model. "
            f"Received: {expected}."
        )
    if info["words"]:
        answer = _served(student, info)(tensors)
        scores, names = answer["scores"].numpy(), answer["label"].numpy().astype(str)
    else:
        if task.task_type == "regression":
            return logits.numpy().reshape(len(logits), -1).tolist(), []
        scores = tf.nn.softmax(logits).numpy()
        names = np.array(task.labels, object)[scores.argmax(-1)]
    if task.task_type != "tagging":
        return scores.tolist(), names.tolist()
    lengths = features["input_mask"].sum(1)
    return (
        [row[:length].tolist() for row, length in zip(scores, lengths, strict=True)],
        [row[:length].tolist() for row, length in zip(names, lengths, strict=True)],
    )


def _keras_rows(student, tokenizer, info: Mapping[str, Any], texts: Sequence[str]) -> list[dict]:
    """What `predict` says of each text."""
    logits_of = LogitsFunction(student)
    tagger = predict_tags.Tagger(
        logits_of,
        logits_of.decode,
        tokenizer,
        info["labels"],
        info["max_seq_length"],
        spans=info["spans"],
    )
    return list(tagger.rows(texts))
