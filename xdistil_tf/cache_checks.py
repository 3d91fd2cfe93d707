"""A teacher cache against its teacher, and as text for other tools."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import numpy as np

from xdistil_tf import files, teacher_pass
from xdistil_tf.cache import TeacherCache
from xdistil_tf.data.record_set import RecordSet
from xdistil_tf.data.slot_sidecars import SlotSidecarReader
from xdistil_tf.teacher_pass import Subset
from xdistil_tf.teachers import LiveTeacher


def verify(
    cache: TeacherCache, teacher: LiveTeacher, records: RecordSet, count: int, seed: int = 0
) -> float:
    """The largest absolute difference between cached and recomputed values of random records.

    Of words it is that of a probability: of a word, or of all that are left.
    """
    rng = np.random.default_rng(seed)
    numbers = np.sort(rng.choice(len(records), min(count, len(records)), replace=False))
    readers = cache.readers(cache.available, records)
    largest = 0.0
    step = functools.partial(teacher, request=cache.available)
    for batch in teacher_pass.answers(step, Subset(records, numbers), 32):
        rows = numbers[batch.numbers]
        ids, lengths = records.ids[rows], records.lengths[rows]
        for name, values in batch.values.items():
            if isinstance(readers[name], SlotSidecarReader):
                kept = readers[name].rows(ids, rows)
                pairs = zip(kept, values, strict=True)
                largest = max([largest, *(_difference(*pair) for pair in pairs)])
                continue
            cached = readers[name].read(ids, lengths, int(lengths.max()), rows)
            for row, length in enumerate(lengths):
                place = tuple(slice(size) for size in readers[name].row.of(int(length)))
                difference = np.abs(cached[row][place] - values[row][place])
                largest = max(largest, float(difference.max()))
    return largest


def _difference(kept: Mapping[str, np.ndarray], given: Mapping[str, np.ndarray]) -> float:
    """The largest difference of a probability at the slots of a record.

    Words are compared by id: nearly equal ones may stand in either order, and which of them is the
    last that is kept may differ. A word that the other side lacks has there at most the
    probability of the last.
    """
    if kept["ids"].shape != given["ids"].shape:
        raise ValueError(
            f"Expected {kept['ids'].shape} words in the cache as in the teacher. Received: "
            f"{given['ids'].shape}. The cache was made from other records; make it again."
        )
    if not kept["ids"].size:
        return 0.0
    same = kept["ids"][:, :, None] == given["ids"][:, None, :]  # [P, kept, given]
    largest = np.abs(np.exp(kept["log_tail"]) - np.exp(given["log_tail"])).max()
    for axis, (ours, theirs) in ((2, (kept, given)), (1, (given, kept))):
        p, q = np.exp(ours["log_probs"]), np.exp(theirs["log_probs"])
        other = np.einsum("pij,pj->pi" if axis == 2 else "pij,pi->pj", same.astype(np.float32), q)
        least = np.maximum(p - q[:, -1:], 0.0)
        largest = max(largest, np.where(same.any(axis=axis), np.abs(p - other), least).max())
    fields = set(kept) - {"ids", "log_probs", "log_tail"}
    return float(max([largest, *(np.abs(kept[name] - given[name]).max() for name in fields)]))


def check_tsv(names: Sequence[str], task_type: str | None) -> None:
    """Checks, before anything is computed, that these outputs of a task can be text.

    Raises:
      ValueError: If there are no logits, or one row a token.
    """
    if "logits" not in names or task_type == "tagging":
        raise ValueError(
            "Only logits of sentences can be written as text. Expected --outputs with logits, and "
            f"no tagging task. Received: --outputs={','.join(names)}, task type {task_type}."
        )


def write_tsv(cache: TeacherCache, records: RecordSet, path: files.Path) -> None:
    """Writes cached logits as text, `id` and one column a class, for other tools.

    The cache is one that `check_tsv` accepts.
    """
    reader = cache.readers({"logits": None}, records)["teacher/logits"]
    labels = cache.info["made_from"]["labels"] or range(reader.row.shape[-1])
    with files.replaced_file(path, "w") as handle:
        handle.write("\t".join(["id", *(f"logit_{label}" for label in labels)]) + "\n")
        for start in range(0, len(records), 1024):
            numbers = np.arange(start, min(start + 1024, len(records)))
            ids, lengths = records.ids[numbers], records.lengths[numbers]
            rows = reader.read(ids, lengths, int(lengths.max()), numbers)
            for name, row in zip(ids, rows, strict=True):
                handle.write("\t".join([name.decode(), *(f"{v:.6g}" for v in row)]) + "\n")
