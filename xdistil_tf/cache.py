"""The teacher cache: one pass of the teacher over all records, its outputs kept beside them.

plan    -> bytes a split and output, compared with the free disk
write   -> one side-car a record shard and output; finished shards are skipped

What is kept of a record is in `cache_rows.py`; `cache_folder.py` opens what is finished;
`cache_checks.py` recomputes random records, and writes text.
"""

from __future__ import annotations

import contextlib
import pathlib
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging
from tqdm import tqdm

from xdistil_tf import checkpoints, files, outputs, teacher_pass, versions
from xdistil_tf.cache_folder import FORMAT, CacheSpec, TeacherCache, read_info, sidecar_stem
from xdistil_tf.cache_rows import Row, kept_rows, planned_bytes, row_precision
from xdistil_tf.data.record_set import RecordSet
from xdistil_tf.data.row_files import sidecar_paths
from xdistil_tf.data.sidecars import SidecarWriter
from xdistil_tf.data.slot_sidecars import (
    SlotRow,
    SlotSidecarWriter,
    read_slot_index,
)
from xdistil_tf.interruption import Interrupted, Interruption
from xdistil_tf.teacher_pass import Subset
from xdistil_tf.teachers import LiveTeacher


def write_cache(
    teacher: LiveTeacher,
    spec: CacheSpec,
    record_sets: Sequence[RecordSet],
    folder: files.Path,
    task_type: str | None = "classification",
    batch_size: int | None = None,
    interruption: Interruption | None = None,
) -> TeacherCache:
    """Runs the teacher once over all records.

    Shards that are complete are skipped, so an interrupted pass goes on; a finished cache made
    from the same inputs is opened as it is.

    Args:
      teacher: The live teacher.
      spec: What to keep.
      record_sets: The data; shards that stand in several sets are computed once.
      folder: The cache folder.
      task_type: `tagging` keeps one row a token.
      batch_size: Examples of a forward pass; `None`: 128, or 32 for `masked_lm_top_k`, whose
        scores of a whole vocabulary take memory.
      interruption: Asked after each shard whether to stop.

    Raises:
      Interrupted: If a stop was asked for; finished shards stay.
      DiskFullError: If the plan does not fit the disk; nothing is written.
      ValueError: If the folder holds the cache of another teacher, or other outputs; or if
        different record files have one name.
    """
    folder = pathlib.Path(folder)
    batch_size = batch_size or (32 if outputs.TOP_K in spec.request else 128)
    shards = _by_stem(record_sets)
    shapes = kept_rows(teacher, spec.request, task_type)
    info = _known(folder / "cache.json", spec.identity(), shards)
    pending = {
        stem: records
        for stem, records in shards.items()
        if not all(index.is_file() for _, index in _sidecars(folder, records, shapes))
    }
    if info["finished"] and not pending:
        logging.info("%s is complete already.", folder)
        return TeacherCache(folder)
    planned = _plan(folder, shards, pending, shapes, spec.precision)
    info |= {"finished": False, "planned_bytes": planned}
    files.write_json(folder / "cache.json", info)
    began = time.perf_counter()
    _fill(folder, teacher, spec, pending, shapes, batch_size, interruption)
    seconds = round(info.get("seconds", 0.0) + time.perf_counter() - began, 2)
    content = {"finished": True, "seconds": seconds, "versions": versions.environment()}
    files.write_json(
        folder / "cache.json",
        info | content | _written(folder, shards.values(), shapes, spec.precision),
    )
    return TeacherCache(folder)


def _by_stem(record_sets: Iterable[RecordSet]) -> dict[str, RecordSet]:
    """Stem of each shard -> the shard; side-cars are named after it."""
    shards: dict[str, RecordSet] = {}
    for path in [path for records in record_sets for path in records.paths]:
        shard = RecordSet(path)
        known = shards.setdefault(path.stem, shard)
        if known.fingerprint != shard.fingerprint:
            raise ValueError(
                f"{known.paths[0]} and {path} have one name and different content; the cache "
                "names its files after them. Rename the files of one set, without their .index."
            )
    return shards


def _known(path: pathlib.Path, made_from: dict, shards: Mapping[str, RecordSet]) -> dict[str, Any]:
    """What `cache.json` says, with the new shards; refuses a cache of something else."""
    wanted = {
        stem: one
        for records in shards.values()
        for stem, one in records.shard_fingerprints().items()
    }
    if not path.is_file():
        return {"format": FORMAT, "made_from": made_from, "records": wanted, "finished": False}
    info = read_info(path)
    changes = checkpoints.differences(info["made_from"], made_from)
    changes += [
        f"records {stem} differ"
        for stem, content in wanted.items()
        if info["records"].get(stem, content) != content
    ]
    if changes:
        raise ValueError(
            f"The teacher cache {path.parent} was made from something else: "
            f"{'; '.join(changes[:5])}. Use another folder, or remove this one."
        )
    return info | {"records": info["records"] | wanted}


def _sidecars(
    folder: pathlib.Path, shard: RecordSet, shapes: Iterable[str]
) -> list[tuple[pathlib.Path, pathlib.Path]]:
    """The `.bin` and `.index` of every output of a shard."""
    return [sidecar_paths(sidecar_stem(folder, shard.paths[0], name)) for name in shapes]


def _plan(
    folder: pathlib.Path,
    shards: Mapping[str, RecordSet],
    pending: Mapping[str, RecordSet],
    shapes: Mapping[str, Row],
    precision: str,
) -> int:
    """Says what the cache takes, and checks that there is room for what is still to be written."""
    sizes = {stem: planned_bytes(shapes, [one], precision) for stem, one in shards.items()}
    planned = sum(sizes.values())
    per_slot = [
        f"{row.slot_bytes(precision)} bytes a masked slot"
        for row in shapes.values()
        if isinstance(row, SlotRow)
    ]
    logging.info(
        "Teacher cache: %.1f MB in %d files planned (%s); %d of %d record files are done.",
        planned / 1e6,
        len(shards) * len(shapes),
        ", ".join([*(name.removeprefix("teacher/") for name in shapes), *per_slot]),
        len(shards) - len(pending),
        len(shards),
    )
    files.require_disk(folder, sum(sizes[stem] for stem in pending), "The teacher cache")
    return planned


def _written(
    folder: pathlib.Path,
    shards: Iterable[RecordSet],
    shapes: Mapping[str, Row],
    precision: str,
) -> dict[str, Any]:
    """What `cache.json` says of the finished side-cars."""
    shards = list(shards)
    made = [one for shard in shards for one in _sidecars(folder, shard, shapes)]
    content = {
        "outputs": {name: _described(row) for name, row in shapes.items()},
        "bytes": sum(data.stat().st_size for data, _ in made),
    }
    words = [
        read_slot_index(sidecar_stem(folder, shard.paths[0], name))
        for shard in shards
        for name, row in shapes.items()
        if isinstance(row, SlotRow)
    ]
    if words:
        slots = sum(one.slots for one in words)
        content |= {
            "slots": slots,
            "bytes_per_slot": round(sum(int(one.offsets[-1]) for one in words) / slots, 2),
            "largest_error": max(one.largest_error for one in words),
        }
        logging.info(
            "Teacher cache: %d masked slots of %.1f bytes; the largest error of a probability in "
            "%s is %.2g.",
            *(slots, content["bytes_per_slot"], precision, content["largest_error"]),
        )
    return content


def _described(row: Row) -> dict[str, Any]:
    if isinstance(row, SlotRow):
        return {"kind": "slot", "shape": [row.k], "vocab_size": row.vocab_size}
    return {"kind": row.kind, "shape": list(row.shape)}


def _fill(
    folder: pathlib.Path,
    teacher: LiveTeacher,
    spec: CacheSpec,
    pending: Mapping[str, RecordSet],
    shapes: Mapping[str, Row],
    batch_size: int,
    interruption: Interruption | None,
) -> None:
    """Writes the side-cars of the shards that have none, one shard after the other."""
    step = teacher_pass.compiled(teacher, spec.request)
    total = sum(map(len, pending.values()))
    with tqdm(
        total=total, desc="teacher", unit="record", disable=not sys.stderr.isatty()
    ) as progress:
        for number, (stem, records) in enumerate(pending.items(), start=1):
            stems = {name: sidecar_stem(folder, records.paths[0], name) for name in shapes}
            _write_shard(step, records, stems, shapes, spec.precision, batch_size, progress)
            logging.info("Teacher cache: %s is done, %d of %d.", stem, number, len(pending))
            if interruption is not None and interruption.requested:
                raise Interrupted(
                    f"Stopped after {number} of {len(pending)} files of the teacher cache."
                )


def _write_shard(
    step: teacher_pass.Step,
    records: RecordSet,
    stems: Mapping[str, pathlib.Path],
    shapes: Mapping[str, Row],
    precision: str,
    batch_size: int,
    progress: tqdm,
) -> None:
    """Computes one shard window by window and writes its rows in record order."""
    writers = {name: _writer(stems[name], row, precision) for name, row in shapes.items()}
    window = _window(shapes, records)
    with _all_of(writers.values()):
        for start in range(0, len(records), window):
            part = Subset(records, np.arange(start, min(start + window, len(records))))
            rows: dict[str, dict[int, np.ndarray]] = {name: {} for name in shapes}
            for batch in teacher_pass.answers(step, part, batch_size):
                for name, values in batch.values.items():
                    rows[name].update(zip(batch.numbers.tolist(), values, strict=True))
                progress.update(len(batch.numbers))
            for name, writer in writers.items():
                for number, (one, length) in enumerate(zip(part.ids, part.lengths, strict=True)):
                    writer.write([one], [rows[name][number]], [length])


def _writer(stem: pathlib.Path, row: Row, precision: str) -> SidecarWriter | SlotSidecarWriter:
    if isinstance(row, SlotRow):
        return SlotSidecarWriter(stem, row, precision)
    return SidecarWriter(stem, row.kind, row.shape, row_precision(row, precision))


def _window(shapes: Mapping[str, Row], records: RecordSet, limit: int = 1 << 28) -> int:
    """So many records that their float32 rows stay below `limit` bytes."""
    largest = int(records.lengths.max())
    per_record = 4 * sum(
        # A record has fewer slots than tokens.
        largest * 2 * (row.k + 1)
        if isinstance(row, SlotRow)
        else int(row.elements(np.array([largest]))[0])
        for row in shapes.values()
    )
    return int(np.clip(limit // max(per_record, 1), 1, 16384))


def _all_of(managers) -> contextlib.ExitStack:
    stack = contextlib.ExitStack()
    for manager in managers:
        stack.enter_context(manager)
    return stack
