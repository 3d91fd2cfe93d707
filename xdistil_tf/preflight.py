"""Checks before anything expensive: do teacher, records and machine fit together?

Each check returns a line for the report, or raises a `ValueError` that says what to do.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from xdistil_tf import files, metrics
from xdistil_tf.data.record_set import RecordSet
from xdistil_tf.data.task_info import TaskInfo
from xdistil_tf.data.tokenization import has_tokenizer, load_tokenizer
from xdistil_tf.data.tokenizer import Tokenizer, check_same_vocabulary
from xdistil_tf.models import folders, pretrained
from xdistil_tf.predictions import Predictions, logits_function, predict_records


@dataclasses.dataclass(frozen=True)
class Check:
    """The outcome of one check.

    Attributes:
      name: What was checked.
      passed: False only for what the user chose to accept.
      detail: Figures.
    """

    name: str
    passed: bool
    detail: str


def check_model(
    folder: str,
    role: str,
    tokenizer: Tokenizer | None,
    task: TaskInfo | None,
    max_seq_length: int | None,
) -> list[Check]:
    """A model folder reads the records' ids, at their length, and orders its classes as they do.

    Args:
      folder: A model folder.
      role: `teacher` or `init_checkpoint`; only a teacher's labels are compared.
      tokenizer: Of the records; `None` where they name none.
      task: Of the records; `None` for pretraining.
      max_seq_length: Tokens of the longest record.

    Raises:
      ValueError: Says what differs and what to do.
    """
    checks = []
    if tokenizer is not None and has_tokenizer(folder):
        checks.append(check_tokenizer(folder, role, tokenizer))
    checks.append(check_sizes(folder, role, tokenizer, max_seq_length))
    if role == "teacher" and task is not None and task.labels:
        checks.append(check_labels(folder, task))
    return checks


def check_tokenizer(folder: str, role: str, tokenizer: Tokenizer) -> Check:
    """The model reads ids as the records' tokenizer wrote them, id by id.

    Raises:
      ValueError: Names the first ids that differ.
    """
    differences = check_same_vocabulary(load_tokenizer(folder), tokenizer)
    if differences:
        raise ValueError(
            f"The {role} {folder} reads other ids than the records have: "
            f"{'; '.join(differences)}. Create the records with --tokenizer={folder}."
        )
    return Check(f"{role}: tokenizer", True, f"{tokenizer.vocab_size} pieces, equal id by id")


def check_sizes(
    folder: str, role: str, tokenizer: Tokenizer | None, max_seq_length: int | None
) -> Check:
    """The model has a row for every id and a position for every token.

    Raises:
      ValueError: Says which limit is exceeded.
    """
    config = folders.read_config(folder)
    rows, limit = config["vocab_size"], folders.longest_input(config)
    if tokenizer is not None and rows < tokenizer.vocab_size:
        raise ValueError(
            f"The records' tokenizer has {tokenizer.vocab_size} ids, the {role} {folder} only "
            f"{rows} rows. Create the records with the tokenizer of these weights."
        )
    if limit is not None and max_seq_length is not None and max_seq_length > limit:
        raise ValueError(
            f"The {role} {folder} takes at most {limit} tokens. Received: "
            f"max_seq_length={max_seq_length}. Create the records with --max_seq_length={limit}."
        )
    positions = "any length" if limit is None else f"{limit} positions"
    return Check(f"{role}: sizes", True, f"{rows} rows, {positions}")


def check_labels(teacher_folder: str, task: TaskInfo) -> Check:
    """A teacher's classes stand in the task's order, where it names the task's labels.

    Raises:
      ValueError: If they are the task's labels in another order.
    """
    names = folders.class_names(teacher_folder)
    if names is None:
        return Check("teacher: labels", True, "it has no classes")
    if folders.in_another_order(names, task.labels):
        raise ValueError(
            f"The teacher {teacher_folder} has the classes {list(names)}, the records have "
            f"{list(task.labels)}. Give the teacher/model of a distill folder, which has them in "
            "the records' order, or create the records with a labels.tsv in the teacher's."
        )
    detail = "as in the records" if names == task.labels else "other names than the records'"
    return Check("teacher: labels", True, f"{list(names)}, {detail}")


def match_labels(
    head: Sequence[str] | None, task_labels: Sequence[str], given: Sequence[str] | None
) -> list[int] | None:
    """Where each label of the task stands in the teacher's head, matched by name.

    Args:
      head: The names in the teacher's config; `None`: it has no head.
      task_labels: The task's labels, in the order of their ids.
      given: `--teacher_labels`: the task's names for the teacher's classes, in its order.

    Returns:
      A position per label, or `None` if the head belongs to another task and a new one is needed.

    Raises:
      ValueError: If the head has as many classes and none of the names, or `given` does not fit.
    """
    if given is not None:
        if head is None or len(head) != len(task_labels):
            classes = "no head for this kind of task" if head is None else f"{len(head)} classes"
            raise ValueError(
                f"--teacher_labels names {len(given)} classes, but the teacher has {classes}. "
                "Leave the flag out to have a head trained."
            )
        if sorted(given) != sorted(task_labels):
            raise ValueError(
                f"Invalid --teacher_labels. Expected the task's labels {list(task_labels)} in the "
                f"order of the teacher's classes. Received: {list(given)}."
            )
        return [list(given).index(label) for label in task_labels]
    if head is None:
        return None
    if sorted(head) == sorted(task_labels):
        return [list(head).index(label) for label in task_labels]
    if len(head) != len(task_labels) or set(head) & set(task_labels):
        return None
    raise ValueError(
        f"The teacher's head has {len(head)} classes named {list(head)}, the task's labels are "
        f"{list(task_labels)}. Say which is which with --teacher_labels=<task labels in the order "
        "of the teacher's classes>, or give an encoder without a head to have one trained."
    )


def check_teacher_quality(
    predictions: Predictions, task: TaskInfo, accept_weak_teacher: bool = False
) -> Check:
    """The teacher beats the best constant answer on held-out examples by two standard errors.

    Raises:
      ValueError: If it does not and that was not accepted.
    """
    measured = predictions.metrics(task)
    value, error = measured[task.metric], measured["standard_error"]
    constant = metrics.best_constant(task.metric, predictions.comparable(task)[0])
    detail = (
        f"{task.metric} {value:.4f} (standard error {error:.4f}) against {constant:.4f} of the "
        f"best constant answer, {len(predictions.ids)} held-out examples"
    )
    passed = value - constant > 2 * error
    if not passed and not accept_weak_teacher:
        raise ValueError(
            f"The teacher is not better than a constant answer: {detail}. Check the order of its "
            "labels (--teacher_labels); train it longer (--set_teacher stages.0.epochs=…, in "
            "another --model_dir or after removing teacher/); or go on with --accept_weak_teacher."
        )
    return Check("teacher quality", passed, detail)


def score_heldout(model, task: TaskInfo) -> Predictions:
    """A model's predictions on the split that selects."""
    records = RecordSet(task.pattern(task.select))
    return predict_records(logits_function(model), records, task)


def check_disk(folder: files.Path, parameters: int) -> Check:
    """Checkpoints and exports have room.

    Args:
      folder: Where the results go.
      parameters: Of the largest model that is trained.

    Raises:
      DiskFullError: If two checkpoints, the best and the final weights do not fit.
    """
    # Weights with two moments, twice; best, final and exported weights.
    disk = parameters * 4 * (2 * 3 + 3)
    files.require_disk(folder, disk, "Checkpoints and exports")
    return Check("disk", True, f"{disk / 1e9:.2f} GB")


def check_memory(
    model_folder: str,
    batch_size: int,
    max_seq_length: int,
    accumulation: int = 1,
    replicas: int = 1,
) -> Check:
    """The main memory suffices to train a model in float32.

    Args:
      model_folder: Of the model that is trained.
      batch_size: Examples of an update.
      max_seq_length: Tokens of the longest one.
      accumulation: Micro-batches that an update is cut into.
      replicas: Copies of the model that share this memory.

    Raises:
      ValueError: If weights, gradients, moments and activations exceed what is available.
    """
    config = folders.read_config(model_folder)
    # Weights, gradients and two moments.
    model = 4 * pretrained.weights_bytes(model_folder) * replicas
    tokens = -(-batch_size // accumulation) * max_seq_length
    memory = model + tokens * activation_bytes(config, max_seq_length)
    available = _available_memory()
    if available is not None and memory > available:
        raise ValueError(
            f"Training {model_folder} on {batch_size} x {max_seq_length} tokens an update needs "
            f"about {memory / 1e9:.1f} GB of memory ({model / 1e9:.1f} GB for weights and "
            f"optimizer); {available / 1e9:.1f} GB are available. Raise --gradient_accumulation "
            f"(now {accumulation}), or lower batch_size."
        )
    return Check("memory", True, f"about {memory / 1e9:.2f} GB")


def activation_bytes(config: Mapping[str, Any], length: int) -> int:
    """Bytes that training keeps for each token of a sequence, in float32.

    The factors were measured: the growth of the peak memory with the tokens of a batch.
    """
    if folders.is_bilstm_config(config):
        recurrent = 12 * 2 * config["lstm_units"] * config.get("lstm_layers", 1)
        width = config["embedding_dim"] * (1 + config.get("multichannel", False))
        return 4 * (2 * width + recurrent)
    scores = 2.5 * config["num_attention_heads"] * length
    return int(4 * config["num_hidden_layers"] * (20 * config["hidden_size"] + scores))


def _available_memory() -> int | None:
    try:
        with open("/proc/meminfo", encoding="ascii") as handle:
            fields = dict(line.split(":", 1) for line in handle)
    except OSError:
        return None
    return int(fields["MemAvailable"].split()[0]) * 1024
