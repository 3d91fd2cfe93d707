"""Several teachers, or one with another tokenizer: each learns and answers on its own records.

```
teacher n: teacher_records/n (where its ids are not the student's) -> teacher_n -> cache_n
all of them: cache_1, cache_2, ... -> cache, over the student's records
```
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

from xdistil_tf import cache, joined_cache, preflight, task_teacher, teacher_weights, teaching
from xdistil_tf.data.record_set import RecordSet
from xdistil_tf.data.task_info import TaskInfo
from xdistil_tf.data.task_records import create_task_records
from xdistil_tf.data.tokenization import load_tokenizer
from xdistil_tf.data.tokenizer import Tokenizer
from xdistil_tf.job import Job
from xdistil_tf.models import folders
from xdistil_tf.recipe import Recipe


@dataclasses.dataclass(frozen=True)
class Teacher:
    """One of them.

    Attributes:
      source: What was given.
      folder: The model folder of the teacher with its head.
      task: Its own records.
      same_ids: Whether they are the student's.
    """

    source: str
    folder: str
    task: TaskInfo
    same_ids: bool


@dataclasses.dataclass(frozen=True)
class Taught:
    """What they say, joined.

    Attributes:
      teachers: In the order of `--teacher`.
      cache: Over the student's records.
      checks: Of all of them.
    """

    teachers: tuple[Teacher, ...]
    cache: cache.TeacherCache
    checks: tuple[preflight.Check, ...]

    @property
    def of_the_students_words(self) -> str | None:
        """The folder of the first one, if its word embeddings belong to the student's ids."""
        return self.teachers[0].folder if self.teachers[0].same_ids else None


def teach(
    job: Job, sources: Sequence[str], task: TaskInfo, tokenizer: Tokenizer, training: dict[str, Any]
) -> Taught:
    """Makes the teachers and their joined cache; what is there is left as it is.

    Args:
      job: What is to be done.
      sources: Model folders.
      task: The student's records.
      tokenizer: The student's.
      training: Of `run`.

    Raises:
      ValueError: If the recipe compares what other ids do not allow, or wants a live teacher; or as
        the steps of one teacher.
    """
    if job.recipe.teacher is None or job.recipe.teacher.mode == "live":
        raise ValueError(
            "Several teachers, or one with another tokenizer, are joined in a cache. Expected a "
            "recipe with teacher.mode: cached."
        )
    tagging = task.task_type == "tagging"
    other_ids = [load_tokenizer(one).fingerprint != tokenizer.fingerprint for one in sources]
    request = joined_cache.demanded(job.recipe, tagging and any(other_ids))
    weights = teacher_weights.parse_weights(job.teacher_weights, len(sources))
    _check(job.recipe, request, sources, other_ids[0], weights, task)
    request |= {"logits": None}  # They are reported.
    names = _splits(job, task)
    teachers, joined, checks = [], [], []
    for number, source in enumerate(sources, start=1):
        one, found = _teacher(job, number, source, task, tokenizer, training)
        made = _cached(job, number, one, request, names, training)
        teachers.append(one)
        joined.append(made)
        checks += found
    identity = joined_cache.joined_identity(
        request, joined, weights, tokenizer.fingerprint, task.labels
    )
    sets = {name: RecordSet(task.pattern(name)) for name in names}
    folder = pathlib.Path(job.model_dir) / "cache"
    made = joined_cache.write_joined_cache(
        joined, weights, sets, folder, identity, training["interruption"]
    )
    return Taught(tuple(teachers), made, tuple(checks))


def _check(
    recipe: Recipe,
    request: dict[str, None],
    sources: Sequence[str],
    first_has_other_ids: bool,
    weights: teacher_weights.Weights,
    task: TaskInfo,
) -> None:
    """Refuses before the first teacher learns what could not be joined after the last one has."""
    model = recipe.model
    if model.kind == "bilstm" and model.embedding.source == "teacher" and first_has_other_ids:
        raise ValueError(
            "model.embedding.source: teacher needs word embeddings of the student's own ids, and "
            f"{sources[0]} has another tokenizer. Expected source: random, or a file."
        )
    widths = [folders.read_config(one)["hidden_size"] for one in sources]
    if "representation" in request and len(set(widths)) > 1:
        raise ValueError(
            f"The teachers are {', '.join(map(str, widths))} wide, and the recipe compares their "
            "representation. Expected teachers of one width, or terms on logits alone."
        )
    if unknown := sorted(set(weights.by_language) - set(task.languages)):
        raise ValueError(
            f"--teacher_weights names {', '.join(unknown)}, which the task does not have. Expected "
            f"some of {list(task.languages)}."
        )


def _splits(job: Job, task: TaskInfo) -> list[str]:
    """What the stages read, and what is reported."""
    bound = task_teacher.bindings(task)
    evaluated = {stage.evaluate.data for stage in job.recipe.stages if stage.evaluate}
    wanted = {*job.recipe.data_names(), *evaluated} & set(bound)
    if "augmented" in job.recipe.data_names() and "augmented" not in bound:
        wanted.add("train")
    return [name for name in task.splits if name in wanted | {task.report}]


def _teacher(
    job: Job,
    number: int,
    source: str,
    task: TaskInfo,
    tokenizer: Tokenizer,
    training: dict[str, Any],
) -> tuple[Teacher, list[preflight.Check]]:
    folder, own = pathlib.Path(job.model_dir), load_tokenizer(source)
    same_ids = own.fingerprint == tokenizer.fingerprint
    records = task if same_ids else _own_records(job, folder / "teacher_records" / str(number), own)
    order = task_teacher.class_order(job, source, records)
    checks = task_teacher.early_checks(job, source, order is None, records, training, task)
    made = task_teacher.ready_teacher(
        job, source, order, records, folder / f"teacher_{number}", training
    )
    checks.append(task_teacher.teacher_check(job, made, records))
    return Teacher(source, made, records, same_ids), checks


def _own_records(job: Job, folder: pathlib.Path, tokenizer: Tokenizer) -> TaskInfo:
    """The task in a teacher's ids: the same splits, which depend on texts alone."""
    return create_task_records(
        job.task_dir,
        job.task,
        tokenizer,
        folder,
        list(job.transfer_file) if job.transfer_file else None,
        job.records,
        augmented=list(job.augmented) if job.augmented else None,
    )


def _cached(
    job: Job,
    number: int,
    teacher: Teacher,
    request: dict[str, None],
    names: Sequence[str],
    training: dict[str, Any],
) -> joined_cache.Source:
    task, recipe = teacher.task, job.recipe
    live = teaching.load_teacher(
        teacher.folder, recipe.teacher.layer, task.task_type == "tagging", recipe.precision
    )
    spec = teaching.cache_spec(
        teacher.folder, live, request, recipe.teacher.precision, task.tokenizer["fingerprint"]
    )
    sets = {name: RecordSet(task.pattern(name)) for name in names}
    made = cache.write_cache(
        live,
        spec,
        list(sets.values()),
        pathlib.Path(job.model_dir) / f"cache_{number}",
        task.task_type,
        interruption=training["interruption"],
    )
    return joined_cache.Source(made, sets, teacher.same_ids)
