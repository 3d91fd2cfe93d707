"""The teacher cache: one pass of the teacher over all records, its outputs kept beside them.

plan    -> bytes a split and output, compared with the free disk
write   -> one side-car a record shard and output; finished shards are skipped
open    -> a `CachedTeacher` and the readers that the pipeline joins by record id
verify  -> recomputes random records and reports the largest difference
"""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import time
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import tensorflow as tf
from absl import logging

from xdistil_tf import checkpoints, files, outputs
from xdistil_tf.data.pipeline import Batches
from xdistil_tf.data.record_set import RecordSet
from xdistil_tf.data.sidecars import (
    PRECISIONS,
    RowShape,
    SidecarReader,
    SidecarWriter,
    sidecar_paths,
)
from xdistil_tf.interruption import Interrupted, Interruption
from xdistil_tf.teachers import CachedTeacher, LiveTeacher

FORMAT = 1


@dataclasses.dataclass(frozen=True)
class CacheSpec:
    """What a cache is made from and holds.

    Attributes:
      request: Outputs kept.
      layer: The hidden layer that is the representation.
      depth: Blocks of the teacher.
      precision: `float16` or `bfloat16`.
      teacher: Fingerprint of the teacher's weights.
      tokenizer: Fingerprint of the records' tokenizer.
      labels: The teacher's classes, in order.
    """

    request: outputs.Request
    layer: int | None
    depth: int | None
    precision: str
    teacher: str
    tokenizer: str
    labels: tuple[str, ...] = ()

    def identity(self) -> dict:
        """As JSON; equal for equal caches."""
        request = {k: list(v) if v is not None else None for k, v in self.request.items()}
        return dataclasses.asdict(self) | {"request": request, "labels": list(self.labels)}


class TeacherCache:
    """An open cache folder.

    Attributes:
      available: The outputs it holds, as a request.
      fingerprint: Of teacher, outputs and precision; part of every stage's definition.
    """

    def __init__(self, folder: files.Path):
        """Opens a cache.

        Raises:
          FileNotFoundError: If there is no cache.
          ValueError: If it is unfinished or of another format.
        """
        self.folder = pathlib.Path(folder)
        path = self.folder / "cache.json"
        if not path.is_file():
            raise FileNotFoundError(
                f"No cache.json in {folder}. Make the cache with cache_teacher."
            )
        self.info = files.read_json(path)
        if self.info.get("format") != FORMAT or not self.info.get("finished"):
            raise ValueError(f"{folder} is not finished. Run cache_teacher again to complete it.")
        self.available = {
            key: tuple(layers) if layers is not None else None
            for key, layers in self.info["made_from"]["request"].items()
        }
        self.fingerprint = files.fingerprint(self.info["made_from"])

    def teacher(self) -> CachedTeacher:
        """The teacher that this cache stands for."""
        return CachedTeacher(self.available)

    def readers(self, request: outputs.Request, records: RecordSet) -> dict[str, SidecarReader]:
        """Feature name -> reader of the side-cars that belong to these record shards."""
        outputs.validate_request(request, self.available, f"teacher cache {self.folder}")
        return {
            name: SidecarReader([self._stem(path, name) for path in records.paths])
            for name in outputs.feature_names(request)
        }

    def covers(self, records: RecordSet) -> bool:
        """Whether every shard was cached, from the same content."""
        known = self.info["records"]
        return all(known.get(name) == s for name, s in records.shard_fingerprints().items())

    def _stem(self, shard: pathlib.Path, feature: str) -> pathlib.Path:
        return sidecar_stem(self.folder, shard, feature)


def sidecar_stem(folder: files.Path, shard: pathlib.Path, feature: str) -> pathlib.Path:
    """Shard `train-00000-of-00004.tfrecord` -> `<folder>/train-00000-of-00004.hidden.4`."""
    output = feature.removeprefix("teacher/").replace("/", ".")
    return pathlib.Path(folder) / f"{shard.stem}.{output}"


def row_shapes(model, request: outputs.Request, task_type: str | None) -> dict[str, RowShape]:
    """Feature name -> the shape of one record's row, from a call on two tokens."""
    probe = {
        name: tf.fill([1, 2], value)
        for name, value in (("input_ids", 0), ("input_mask", 1), ("segment_ids", 0))
    }
    given = model(probe, request)
    shapes = {}
    for key, layers in request.items():
        spec = outputs.OUTPUTS[key]
        axes = spec.token_axes if spec.token_axes and task_type == "tagging" else spec.axes
        values = (
            {f"teacher/{key}": given[key]}
            if layers is None
            else {f"teacher/{key}/{i}": given[key][i] for i in layers}
        )
        for name, value in values.items():
            shape = tuple(value.shape[1:])
            if axes.endswith("TT"):
                shapes[name] = RowShape("pair", shape[:-2])
            elif "T" in axes:
                shapes[name] = RowShape("token", shape[1:])
            else:
                shapes[name] = RowShape("example", shape)
    return shapes


def planned_bytes(
    shapes: Mapping[str, RowShape], record_sets: Sequence[RecordSet], precision: str
) -> int:
    """Bytes that the values of a cache take, from the records' lengths."""
    size = PRECISIONS[precision].itemsize
    return size * sum(
        int(shape.elements(records.lengths).sum())
        for shape in shapes.values()
        for records in record_sets
    )


def write_cache(
    teacher: LiveTeacher,
    spec: CacheSpec,
    record_sets: Sequence[RecordSet],
    folder: files.Path,
    task_type: str | None = "classification",
    batch_size: int = 128,
    interruption: Interruption | None = None,
) -> TeacherCache:
    """Runs the teacher once over all records.

    Shards that are complete are skipped, so an interrupted pass goes on; a finished cache made
    from the same inputs is opened as it is.

    Args:
      teacher: The live teacher.
      spec: What to keep.
      record_sets: The data; records that stand in several sets are computed once a shard.
      folder: The cache folder.
      task_type: `tagging` keeps one row a token.
      batch_size: Examples of a forward pass.
      interruption: Asked after each shard whether to stop.

    Raises:
      Interrupted: If a stop was asked for; finished shards stay.
      DiskFullError: If the plan does not fit the disk; nothing is written.
      ValueError: If the folder holds the cache of another teacher, or other outputs.
    """
    folder = pathlib.Path(folder)
    made_from = spec.identity()
    shards = [(records, path) for records in record_sets for path in records.paths]
    wanted = {name: s for r in record_sets for name, s in r.shard_fingerprints().items()}
    known = _begin(folder, made_from, wanted)
    shapes = row_shapes(teacher, spec.request, task_type)
    planned = planned_bytes(shapes, record_sets, spec.precision)
    if known.get("finished"):
        logging.info("%s is complete already.", folder)
        return TeacherCache(folder)
    logging.info(
        "Teacher cache: %.1f MB in %d files planned (%s).",
        planned / 1e6,
        len(shards) * len(shapes),
        ", ".join(name.removeprefix("teacher/") for name in shapes),
    )
    files.require_disk(folder, planned, "The teacher cache")
    began = time.perf_counter()
    step = _compiled(teacher, spec.request)
    for number, (_, path) in enumerate(shards, start=1):
        stems = {name: sidecar_stem(folder, path, name) for name in shapes}
        if all(sidecar_paths(stem)[1].is_file() for stem in stems.values()):
            continue
        _write_shard(step, RecordSet(path), stems, shapes, spec.precision, batch_size)
        logging.info("Teacher cache: %d of %d record files done.", number, len(shards))
        if interruption is not None and interruption.requested:
            raise Interrupted(
                f"Stopped after {number} of {len(shards)} files of the teacher cache."
            )
    size = sum(
        sidecar_paths(sidecar_stem(folder, path, name))[0].stat().st_size
        for _, path in shards
        for name in shapes
    )
    seconds = known.get("seconds", 0.0) + time.perf_counter() - began
    files.write_json(
        folder / "cache.json",
        known
        | {
            "finished": True,
            "outputs": {
                name: {"kind": shape.kind, "shape": list(shape.shape)}
                for name, shape in shapes.items()
            },
            "planned_bytes": planned,
            "bytes": size,
            "seconds": round(seconds, 2),
        },
    )
    return TeacherCache(folder)


def verify(
    cache: TeacherCache, teacher: LiveTeacher, records: RecordSet, count: int, seed: int = 0
) -> float:
    """The largest absolute difference between cached and recomputed values of random records."""
    rng = np.random.default_rng(seed)
    numbers = np.sort(rng.choice(len(records), min(count, len(records)), replace=False))
    readers = cache.readers(cache.available, records)
    largest = 0.0
    for name, ids, lengths, values in _computed(
        lambda batch: teacher(batch, cache.available), Subset(records, numbers), 32
    ):
        cached = readers[name].read(ids, lengths, int(lengths.max()))
        for row, length in enumerate(lengths):
            place = tuple(slice(size) for size in readers[name].row.of(int(length)))
            difference = np.abs(cached[row][place] - values[row][place])
            largest = max(largest, float(difference.max()))
    return largest


def parse_request(
    names: Sequence[str], layers: Sequence[str] | None
) -> dict[str, tuple[int, ...] | None]:
    """`["logits", "hidden"]`, `["0", "4"]` -> `{"logits": None, "hidden": (0, 4)}`.

    Raises:
      ValueError: If an output is unknown, or layers are missing or no numbers.
    """
    request: dict[str, tuple[int, ...] | None] = {}
    for name in names:
        if name not in outputs.OUTPUTS:
            raise ValueError(
                f"Unknown output. Expected some of {sorted(outputs.OUTPUTS)}. Received: {name!r}."
            )
        request[name] = None
        if outputs.OUTPUTS[name].per_layer:
            if not layers or not all(one.isdigit() for one in layers):
                raise ValueError(f"{name!r} needs --layers, numbers. Received: {layers}.")
            request[name] = tuple(int(one) for one in layers)
    return request


def write_tsv(cache: TeacherCache, records: RecordSet, path: files.Path) -> None:
    """Writes cached logits as text, `id` and one column a class, for other tools."""
    reader = cache.readers({"logits": None}, records)["teacher/logits"]
    if reader.row.kind != "example":
        raise ValueError(
            "Logits as text need one row an example. Received: the cache of a tagging task."
        )
    labels = cache.info["made_from"]["labels"] or range(reader.row.shape[-1])
    with files.replaced_file(path, "w") as handle:
        handle.write("\t".join(["id", *(f"logit_{label}" for label in labels)]) + "\n")
        for start in range(0, len(records), 1024):
            ids = records.ids[start : start + 1024]
            lengths = records.lengths[start : start + 1024]
            rows = reader.read(ids, lengths, int(lengths.max()))
            for name, row in zip(ids, rows, strict=True):
                handle.write("\t".join([name.decode(), *(f"{v:.6g}" for v in row)]) + "\n")


def _begin(folder: pathlib.Path, made_from: dict, wanted: dict[str, str]) -> dict:
    """Reads or writes `cache.json`; refuses a folder made from something else."""
    path = folder / "cache.json"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        info = {"format": FORMAT, "made_from": made_from, "records": wanted, "finished": False}
        files.write_json(path, info)
        return info
    info = files.read_json(path)
    changes = checkpoints.differences(info.get("made_from"), made_from)
    changes += [
        f"records {stem} differ"
        for stem, content in wanted.items()
        if info["records"].get(stem, content) != content
    ]
    if changes:
        raise ValueError(
            f"The teacher cache {folder} was made from something else: {'; '.join(changes[:5])}. "
            "Use another folder, or remove this one."
        )
    new = [stem for stem in wanted if stem not in info["records"]]
    if new:
        info = info | {"records": info["records"] | wanted, "finished": False}
        files.write_json(path, info)
    return info


def _write_shard(step, records: RecordSet, stems, shapes, precision: str, batch_size: int) -> None:
    """Computes one shard window by window and writes its rows in record order."""
    writers = {
        name: SidecarWriter(stems[name], shape.kind, shape.shape, precision)
        for name, shape in shapes.items()
    }
    window = _window(shapes, records)
    with _all_of(writers.values()):
        for start in range(0, len(records), window):
            numbers = np.arange(start, min(start + window, len(records)))
            rows: dict[str, dict[bytes, tuple[np.ndarray, int]]] = {name: {} for name in shapes}
            for name, ids, lengths, values in _computed(step, Subset(records, numbers), batch_size):
                for one, length, value in zip(ids, lengths, values, strict=True):
                    rows[name][one] = (value, int(length))
            for name, writer in writers.items():
                for one in records.ids[numbers]:
                    value, length = rows[name][one]
                    writer.write([one], value[np.newaxis], [length])


def _compiled(teacher, request: outputs.Request):
    """The teacher's answer to a batch, compiled once for all shapes.

    A graph for the shapes that came first would differ in the last bits of its values, so a pass
    that was interrupted would not give what an undisturbed one does.
    """
    answer = tf.function(lambda batch: teacher(batch, request))

    def step(batch):
        free = {name: tf.TensorSpec([None] * v.shape.rank, v.dtype) for name, v in batch.items()}
        return answer.get_concrete_function(free)(batch)

    return step


class Subset:
    """Some records of a set, seen as a set of their own."""

    def __init__(self, records: RecordSet, numbers: np.ndarray):
        self._records = records
        self._numbers = numbers
        self.paths = records.paths
        self.lengths = records.lengths[numbers]
        self.ids = records.ids[numbers]

    def __len__(self) -> int:
        return len(self._numbers)

    def read(self, number: int) -> bytes:
        """The record at a place of the subset."""
        return self._records.read(int(self._numbers[number]))

    def read_many(self, numbers: Sequence[int]) -> list[bytes]:
        """`read` for each of `numbers`."""
        return self._records.read_many(self._numbers[np.asarray(numbers)])


def _window(shapes: Mapping[str, RowShape], records: RecordSet, limit: int = 1 << 28) -> int:
    """So many records that their float32 rows stay below `limit` bytes."""
    largest = int(records.lengths.max())
    per_record = 4 * sum(int(shape.elements(np.array([largest]))[0]) for shape in shapes.values())
    return int(np.clip(limit // max(per_record, 1), 1, 16384))


def _computed(
    step, records, batch_size: int
) -> Iterator[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
    """(feature name, ids, lengths, values) of each batch, similar lengths together."""
    batches = Batches(records, batch_size, shuffle=False)
    for batch in batches.dataset(0, batches.steps_per_epoch):
        lengths = tf.reduce_sum(batch["input_mask"], -1).numpy()
        ids = batch["id"].numpy()
        for key, value in step(batch).items():
            layers = (
                {f"teacher/{key}/{i}": v for i, v in value.items()}
                if isinstance(value, Mapping)
                else {f"teacher/{key}": value}
            )
            for name, one in layers.items():
                yield name, ids, lengths, tf.cast(one, tf.float32).numpy()


def _all_of(managers) -> contextlib.ExitStack:
    stack = contextlib.ExitStack()
    for manager in managers:
        stack.enter_context(manager)
    return stack
