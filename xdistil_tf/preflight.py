"""Checks before anything expensive: do teacher, records and machine fit together?

Each check returns a line for the report, or raises a `ValueError` that says what to do.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from xdistil_tf import files, metrics
from xdistil_tf.data.record_set import RecordSet
from xdistil_tf.data.task_records import TaskInfo
from xdistil_tf.data.tokenization import Tokenizer, check_same_vocabulary, load_tokenizer
from xdistil_tf.evaluate import Predictions, logits_function, predict_records
from xdistil_tf.models import encoder_config, folders, pretrained


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


def check_tokenizer(teacher_folder: str, tokenizer: Tokenizer) -> Check:
    """The teacher reads ids as the records' tokenizer wrote them, id by id.

    Raises:
      ValueError: Names the first ids that differ.
    """
    own = load_tokenizer(teacher_folder)
    differences = check_same_vocabulary(own, tokenizer)
    if differences:
        raise ValueError(
            f"The teacher {teacher_folder} reads other ids than the records have: "
            f"{'; '.join(differences)}. Create the records with --tokenizer={teacher_folder}."
        )
    return Check("tokenizer", True, f"{tokenizer.vocab_size} pieces, equal id by id")


def check_sizes(teacher_folder: str, tokenizer: Tokenizer, max_seq_length: int) -> Check:
    """The teacher has a row for every id and a position for every token.

    Raises:
      ValueError: Says which limit is exceeded.
    """
    if folders.is_bilstm(teacher_folder):
        return Check("sizes", True, "a recurrent teacher has no longest sequence")
    config = pretrained.read_config(teacher_folder)
    if config["vocab_size"] < tokenizer.vocab_size:
        raise ValueError(
            f"The tokenizer of {teacher_folder} has {tokenizer.vocab_size} ids, its model only "
            f"{config['vocab_size']} rows. Tokenizer and weights belong to different models."
        )
    limit = config["max_position_embeddings"]
    if encoder_config.FAMILIES[config["model_type"]].positions_after_padding:
        limit -= config["pad_token_id"] + 1
    if max_seq_length > limit:
        raise ValueError(
            f"The teacher {teacher_folder} takes at most {limit} tokens. Received: "
            f"max_seq_length={max_seq_length}. Lower --max_seq_length."
        )
    return Check("sizes", True, f"{config['vocab_size']} rows, {limit} positions")


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
            "labels (--teacher_labels) and its training, or go on with --accept_weak_teacher."
        )
    return Check("teacher quality", passed, detail)


def score_heldout(model, task: TaskInfo) -> Predictions:
    """A model's predictions on the split that selects."""
    records = RecordSet(task.pattern(task.select))
    return predict_records(logits_function(model), records, task)


def check_resources(folder: files.Path, parameters: int, largest_batch_tokens: int) -> Check:
    """Disk for checkpoints and exports, memory for the largest batch.

    Args:
      folder: Where the results go.
      parameters: Of the largest model that is trained.
      largest_batch_tokens: Examples times tokens of the largest batch.

    Raises:
      DiskFullError: If two checkpoints, the best and the final weights do not fit.
      ValueError: If weights, gradients, moments and activations exceed the memory.
    """
    # Weights with two moments, twice; best, final and exported weights.
    disk = parameters * 4 * (2 * 3 + 3)
    files.require_disk(folder, disk, "Checkpoints and exports")
    # Weights, gradients and moments; a few kilobytes of activations a token.
    memory = parameters * 4 * 4 + largest_batch_tokens * 16384
    available = _available_memory()
    if available is not None and memory > available:
        raise ValueError(
            f"Training needs about {memory / 1e9:.1f} GB of memory; {available / 1e9:.1f} GB are "
            "available. Lower batch_size, or use --gradient_accumulation."
        )
    return Check("resources", True, f"{disk / 1e9:.2f} GB of disk, {memory / 1e9:.2f} GB of memory")


def _available_memory() -> int | None:
    try:
        with open("/proc/meminfo", encoding="ascii") as handle:
            fields = dict(line.split(":", 1) for line in handle)
    except OSError:
        return None
    return int(fields["MemAvailable"].split()[0]) * 1024
