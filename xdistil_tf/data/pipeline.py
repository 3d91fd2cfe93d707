"""Records to batches: planned, padded to the longest, sliced for replicas, side-cars joined by id.

Nothing here is iterator state: the batch of a step follows from the records, the seed and the
step, so a run resumes by asking for the next step.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from xdistil_tf.data.features import FEATURES, FeatureSpec
from xdistil_tf.data.plan import BLOCK, WINDOW, Plan
from xdistil_tf.data.pretraining.dynamic import FEATURES as MASKED
from xdistil_tf.data.pretraining.dynamic import DynamicMasking
from xdistil_tf.data.record_set import RecordSet
from xdistil_tf.data.records import decode_example
from xdistil_tf.data.sidecars import SidecarReader
from xdistil_tf.data.slot_sidecars import SlotSidecarReader

Sidecar = SidecarReader | SlotSidecarReader
_DTYPES = {"int": tf.int64, "float": tf.float32, "bytes": tf.string}


class Batches:
    """The global batches of a stage, cut into equal slices.

    ```
    batches = Batches(RecordSet("records/train-*"), 32, seed=(42, 0), num_replicas=2)
    for slice in batches.dataset(start_step=100, stop_step=200): ...
    ```

    Element k of step s is the slice of micro-batch `k // num_replicas` for replica
    `k % num_replicas`, so `strategy.distribute_datasets_from_function(lambda _: dataset)` deals
    them out. A slice has `ceil(batch / slices)` rows; rows that fill it up have
    `example_weights` 0, as have records whose `is_real_example` is 0. All slices of a step are
    padded to the same length.

    Attributes:
      plan: Which records form which batch.
      steps_per_epoch: Global batches of an epoch.
      slices: Elements of a step, `num_replicas * accumulation`.
    """

    def __init__(
        self,
        records: RecordSet,
        batch_size: int,
        *,
        seed: int | Sequence[int] = 0,
        shuffle: bool = True,
        num_replicas: int = 1,
        accumulation: int = 1,
        sidecars: Mapping[str, Sidecar] | None = None,
        masking: DynamicMasking | None = None,
        worker: tuple[int, int] = (0, 1),
        window: int = WINDOW,
        block: int = BLOCK,
        draw: Callable[[int], np.ndarray] | None = None,
    ):
        """Checks that everything fits together; reads one record.

        Args:
          records: The data.
          batch_size: Examples of a global batch, all replicas and micro-batches together.
          seed: Of the order; an integer or several (run, stage).
          shuffle: False for evaluation: each record once, similar lengths together; sort by `id`.
          num_replicas: Replicas that take slices of each batch.
          accumulation: Micro-batches of each batch.
          sidecars: Teacher outputs by feature name, `teacher/logits`.
          masking: Draws the masks of records that have none on disk.
          worker: Which process, of how many; each reads the slices of its own replicas.
          window, block, draw: See `Plan`.

        Raises:
          ValueError: If numbers are not positive, replicas cannot be shared out evenly, a side-car
            lacks a record, or masks are drawn for which no teacher was asked.
        """
        for name, value in (("num_replicas", num_replicas), ("accumulation", accumulation)):
            if value < 1:
                raise ValueError(f"Expected {name} of at least 1. Received: {name}={value}.")
        self.records = records
        self.plan = Plan(records.lengths, batch_size, seed, shuffle, window, block, draw)
        self.steps_per_epoch = self.plan.steps_per_epoch
        self.slices = num_replicas * accumulation
        self._masking = masking
        self._own = _own_slices(num_replicas, accumulation, *worker)
        self._sidecars = dict(sidecars or {})
        if masking is not None and self._sidecars:
            raise ValueError(
                f"Expected no cached outputs of a teacher for {records.paths[0]}, whose masks are "
                f"drawn as it is read. Received: {sorted(self._sidecars)}. Set teacher.mode: live, "
                "or create records without --dynamic_masking."
            )
        for name, reader in self._sidecars.items():
            _check_sidecar(name, reader, records)
        self._joined = {}
        for name, reader in self._sidecars.items():
            self._joined |= reader.features(name)
        self._schema = _schema(records)

    def dataset(
        self, start_step: int = 0, stop_step: int | None = None, prefetch: int | None = None
    ) -> tf.data.Dataset:
        """The worker's slices of the steps `start_step … stop_step` (None: without end), in order.

        Features are those of `docs/interfaces.md`, section 3, int32, float32 and string.
        `prefetch` global batches are made ahead; None: 4, or 2 with side-cars, which are large.
        """
        if prefetch is None:
            prefetch = 2 if self._sidecars else 4
        if stop_step is None:
            stop_step = np.iinfo(np.int64).max
        steps = tf.data.Dataset.range(start_step, stop_step)
        batches = steps.map(self._load).map(
            self._parse, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
        )
        if len(self._own) > 1:
            return batches.prefetch(prefetch).map(self._slice).unbatch()
        return batches.prefetch(prefetch)

    def rows(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Record numbers of a step's global batch, filled up, and their `example_weights`."""
        batch = self.plan.batch(step)
        missing = -len(batch) % self.slices
        weights = np.ones(len(batch) + missing, np.float32)
        weights[len(batch) :] = 0
        return np.concatenate([batch, np.repeat(batch[:1], missing)]), weights

    def padded_length(self, step: int) -> int:
        """T of a step's batch: its longest record, at least 1."""
        return max(int(self.records.lengths[self.plan.batch(step)].max()), 1)

    @tf.autograph.experimental.do_not_convert
    def _load(self, step: tf.Tensor) -> dict[str, tf.Tensor]:
        names = ["record", "id", "example_weights", "padded_length", "lengths", "numbers", "epoch"]
        names += self._joined
        kinds = [tf.string, tf.string, tf.float32, tf.int32, tf.int32, tf.int64, tf.int64]
        kinds += [tf.as_dtype(kind) for kind, _ in self._joined.values()]
        values = tf.numpy_function(self._read, [step], kinds)
        loaded = dict(zip(names, values, strict=True))
        for name, value in loaded.items():
            if name in ("padded_length", "epoch"):
                value.set_shape([])
            elif name in self._joined:
                shape = self._joined[name][1]
                value.set_shape([None, *(None if size == -1 else size for size in shape)])
            else:
                value.set_shape([None])
        return loaded

    def _read(self, step: np.int64) -> list[Any]:
        rows, weights = self._own_rows(*self.rows(int(step)))
        # Fillers repeat the first record of the batch.
        content = self.records.read_many(rows)
        ids, lengths = self.records.ids[rows], self.records.lengths[rows]
        pad_to = self.padded_length(int(step))
        joined = [
            array
            for reader in self._sidecars.values()
            for array in reader.arrays(ids, lengths, pad_to, rows)
        ]
        return [
            np.array(content, object), ids.astype(object), weights, np.int32(pad_to), lengths,
            rows.astype(np.int64), np.int64(step // self.steps_per_epoch), *joined,
        ]  # fmt: skip

    def _own_rows(self, rows: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Those of the worker's slices."""
        if len(self._own) == self.slices:
            return rows, weights
        return tuple(one.reshape(self.slices, -1)[self._own].ravel() for one in (rows, weights))

    @tf.autograph.experimental.do_not_convert
    def _parse(self, loaded: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        loaded = dict(loaded)
        parsed = tf.io.parse_example(loaded.pop("record"), _parsers(self._schema))
        pad_to, lengths = loaded.pop("padded_length"), loaded.pop("lengths")
        numbers, epoch = loaded.pop("numbers"), loaded.pop("epoch")
        batch = {name: _dense(parsed[name], spec, pad_to) for name, spec in self._schema.items()}
        if self._masking is not None:
            batch |= self._masked(numbers, epoch, batch, lengths)
        for name, reader in self._sidecars.items():
            if isinstance(reader, SlotSidecarReader):
                for field in reader.features(name):
                    loaded[field] = _at_slots(loaded[field], batch["masked_lm_positions"])
        batch.update(loaded)
        return _completed(batch, lengths, pad_to)

    def _masked(self, numbers, epoch, batch, lengths) -> dict[str, tf.Tensor]:
        kinds = [tf.int32, tf.int32, tf.int32, tf.float32]
        inputs = [numbers, epoch, batch["input_ids"], batch["word_starts"], lengths]
        drawn = dict(zip(MASKED, tf.numpy_function(self._masking.draw, inputs, kinds), strict=True))
        for name, value in drawn.items():
            value.set_shape([None, None if name == "input_ids" else self._masking.slots])
        return drawn

    @tf.autograph.experimental.do_not_convert
    def _slice(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        def cut(value: tf.Tensor) -> tf.Tensor:
            shape = tf.shape(value)  # [slices * rows, ...]
            count = len(self._own)
            split = tf.concat([[count, shape[0] // count], shape[1:]], 0)
            cut = tf.reshape(value, split)
            cut.set_shape([count, None, *value.shape[1:]])
            return cut

        return {name: cut(value) for name, value in batch.items()}


def _own_slices(num_replicas: int, accumulation: int, index: int, count: int) -> list[int]:
    """Slices of a global batch that a worker takes, in the order (micro-batch, replica).

    >>> _own_slices(4, 2, 1, 2)
    [2, 3, 6, 7]
    """
    if num_replicas % count or not 0 <= index < count:
        raise ValueError(
            f"Expected as many replicas on each worker. Received: {num_replicas} replicas, worker "
            f"{index} of {count}."
        )
    own = num_replicas // count
    return [
        micro_batch * num_replicas + replica
        for micro_batch in range(accumulation)
        for replica in range(index * own, (index + 1) * own)
    ]


def check_lengths(records: RecordSet, max_length: int | None, taker: str) -> None:
    """Checks that a model takes the longest of the records, before anything is computed.

    Args:
      records: The data.
      max_length: Tokens that the model takes at most; `None` for any number.
      taker: What the message calls it, such as `the student`.

    Raises:
      ValueError: If a record is longer.
    """
    longest = int(records.lengths.max())
    if max_length is not None and longest > max_length:
        raise ValueError(
            f"{records.paths[0]} and its set hold a record of {longest} tokens, {taker} takes "
            f"{max_length}. Create the records with --max_seq_length={max_length}."
        )


def data_error(error: tf.errors.OpError) -> ValueError | None:
    """The `ValueError` of damaged data inside an error of `tf.data`; None if it is another one."""
    match = re.search(r"ValueError: (.*?)(?:\nTraceback|\n\n|$)", error.message or "", re.DOTALL)
    return ValueError(match[1].strip()) if match else None


def _check_sidecar(name: str, reader: Sidecar, records: RecordSet) -> None:
    if np.array_equal(reader.ids, records.ids):
        return
    missing = reader.missing(records.ids)
    if len(missing):
        raise ValueError(
            f"The side-car {name!r} ({reader.paths[0]}) lacks {len(missing)} of {len(records)} "
            f"records, the first is {missing[0].decode('utf-8', 'replace')}. Make the cache again."
        )


def _schema(records: RecordSet) -> dict[str, FeatureSpec]:
    """The features of the first record, with their axes."""
    first = decode_example(records.read(0), str(records.paths[0]))
    if "input_ids" not in first:
        raise ValueError(
            f"{records.paths[0]} has no feature 'input_ids'. It has {sorted(first)}. "
            "Expected records of bin/create_task_data or of google-research/bert."
        )
    schema = {}
    for name, values in first.items():
        if name == "id":
            continue  # The index knows it.
        known = FEATURES.get(name)
        kind = known.kind if known else _kind(values)
        axis = known.axis if known else "slot"
        if axis == "label" or not known:
            # A sentence of words may have a single piece.
            if len(values) == 1 and not (axis == "label" and "word_index" in first):
                axis = "example"
            elif axis == "label" or len(values) == len(first["input_ids"]):
                axis = "token"
        schema[name] = FeatureSpec(kind, axis, known.padding if known else _empty(kind))
    return schema


def _kind(values: Sequence[Any]) -> str:
    if values and isinstance(values[0], bytes):
        return "bytes"
    return "float" if values and isinstance(values[0], float) else "int"


def _empty(kind: str) -> int | float | bytes:
    return {"int": 0, "float": 0.0, "bytes": b""}[kind]


def _parsers(schema: Mapping[str, FeatureSpec]) -> dict[str, Any]:
    return {
        name: tf.io.FixedLenFeature([], _DTYPES[spec.kind], spec.padding)
        if spec.axis == "example"
        else tf.io.RaggedFeature(_DTYPES[spec.kind], row_splits_dtype=tf.int32)
        for name, spec in schema.items()
    }


def _dense(value: tf.Tensor | tf.RaggedTensor, spec: FeatureSpec, pad_to: tf.Tensor) -> tf.Tensor:
    if spec.axis == "token":
        value = value.to_tensor(spec.padding, shape=tf.stack([-1, pad_to]))  # [B, T], cut if longer
        value.set_shape([None, None])
    elif spec.axis == "slot":
        value = value.to_tensor(spec.padding)  # [B, P]
    return tf.cast(value, tf.int32) if spec.kind == "int" else value


def _at_slots(value: tf.Tensor, positions: tf.Tensor) -> tf.Tensor:
    """Real slots stand first: `[B, real, ...]` padded to `[B, P, ...]`, the slots of records."""
    missing = tf.shape(positions)[1] - tf.shape(value)[1]
    padded = tf.pad(value, [[0, 0], [0, missing], *[[0, 0]] * (value.shape.rank - 2)])
    padded.set_shape([None, None, *value.shape[2:]])
    return padded


def _completed(
    batch: dict[str, tf.Tensor], lengths: tf.Tensor, pad_to: tf.Tensor
) -> dict[str, tf.Tensor]:
    """Adds what foreign records leave out, and leaves out what they mark as filler."""
    ids = batch["input_ids"]
    if "is_real_example" in batch:
        batch["example_weights"] *= tf.cast(batch["is_real_example"], tf.float32)
    if "input_mask" not in batch:
        batch["input_mask"] = tf.sequence_mask(lengths, pad_to, tf.int32)
    if "segment_ids" not in batch:
        batch["segment_ids"] = tf.zeros_like(ids)
    if "language" not in batch:
        batch["language"] = tf.fill(tf.shape(ids)[:1], "default")
    gold = batch.get("label_ids", batch.get("label_values"))
    if gold is not None and "label_weights" not in batch:
        weights = tf.ones_like(batch["example_weights"])
        if gold.shape.rank == 2:
            weights = tf.cast(batch["input_mask"], tf.float32)
        batch["label_weights"] = weights
    return batch
