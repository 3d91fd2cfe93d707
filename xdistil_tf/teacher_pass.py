"""One pass of a teacher over records: what it is asked, its answers batch by batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import tensorflow as tf

from xdistil_tf import outputs
from xdistil_tf.cache_rows import flat_answer, real_slots
from xdistil_tf.data.pipeline import Batches
from xdistil_tf.data.record_set import RecordSet

Step = Callable[[Mapping[str, tf.Tensor]], Mapping]


@dataclasses.dataclass(frozen=True)
class Answers:
    """What a teacher says about a batch.

    Attributes:
      numbers: int64 [B], which of the records; their ids may repeat.
      values: Feature name -> float32 `[B, *row]`, padded; of words one mapping a record, with the
        tensors of its real slots.
    """

    numbers: np.ndarray
    values: Mapping[str, np.ndarray | list[dict[str, np.ndarray]]]


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


def compiled(teacher, request: outputs.Request) -> Step:
    """The teacher's answer to a batch, compiled once for all shapes.

    A graph for the shapes that came first would differ in the last bits of its values, so a pass
    that was interrupted would not give what an undisturbed one does.
    """
    answer = tf.function(lambda batch: teacher(batch, request))

    def step(batch):
        free = {name: tf.TensorSpec([None] * v.shape.rank, v.dtype) for name, v in batch.items()}
        return answer.get_concrete_function(free)(batch)

    return step


def answers(step: Step, records: RecordSet | Subset, batch_size: int) -> Iterator[Answers]:
    """The teacher's answers to all records, similar lengths together."""
    batches = Batches(records, batch_size, shuffle=False)
    for number, batch in enumerate(batches.dataset(0, batches.steps_per_epoch)):
        values = {}
        for key, value in step(batch).items():
            if key == outputs.TOP_K:
                values[f"teacher/{key}"] = _at_real_slots(value, batch)
                continue
            for name, one in flat_answer(key, value).items():
                values[name] = tf.cast(one, tf.float32).numpy()
        yield Answers(batches.plan.batch(number), values)


def _at_real_slots(
    words: Mapping[str, tf.Tensor], batch: Mapping[str, tf.Tensor]
) -> list[dict[str, np.ndarray]]:
    arrays = {name: value.numpy() for name, value in words.items()}
    counts = real_slots(batch["masked_lm_weights"].numpy(), batch["id"].numpy())
    return [
        {name: value[row, :count] for name, value in arrays.items()}
        for row, count in enumerate(counts)
    ]


def parse_request(
    names: Sequence[str], layers: Sequence[str] | None, depth: int | None
) -> dict[str, tuple[int, ...] | None]:
    """What the flags `--outputs` and `--layers` ask for.

    Layer 0 is the embeddings, which `hidden` alone has; negative numbers count from the top:
    `["hidden", "attention"]`, `["0", "-1"]` of a teacher with 4 blocks give
    `{"hidden": (0, 4), "attention": (4,)}`.

    Raises:
      ValueError: If an output is unknown, or layers are missing, no numbers or not there.
    """
    request: dict[str, tuple[int, ...] | None] = {}
    for name in names:
        if name not in outputs.OUTPUTS:
            raise ValueError(
                f"Unknown output. Expected some of {sorted(outputs.OUTPUTS)}. Received: {name!r}."
            )
        request[name] = None
        if outputs.OUTPUTS[name].per_layer:
            request[name] = _layers(name, layers, depth)
    return request


def _layers(name: str, layers: Sequence[str] | None, depth: int | None) -> tuple[int, ...]:
    try:
        found = {outputs.resolve_layer(int(one), depth or 0) for one in layers or ()}
    except ValueError as error:
        raise ValueError(f"Invalid --layers for {name!r}: {error}") from error
    if name != "hidden":
        found -= {0}
    if not found:
        raise ValueError(
            f"{name!r} needs --layers, numbers of {'layers' if name == 'hidden' else 'blocks'} up "
            f"to {depth}. Received: {layers}."
        )
    return tuple(sorted(found))
