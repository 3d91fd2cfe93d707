"""What a teacher cache keeps of each record, and the bytes that this takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import tensorflow as tf

from xdistil_tf import outputs
from xdistil_tf.data.record_set import RecordSet
from xdistil_tf.data.sidecars import PRECISIONS, RowShape
from xdistil_tf.data.slot_rows import SlotRow

Row = RowShape | SlotRow
_CHUNK = 4096


def row_shapes(model, request: outputs.Request, task_type: str | None) -> dict[str, RowShape]:
    """Feature name -> the shape of one record's row, from a call on two tokens and one slot."""
    probe = {
        name: tf.fill([1, 2], value)
        for name, value in (("input_ids", 0), ("input_mask", 1), ("segment_ids", 0))
    }
    if any("P" in outputs.OUTPUTS[key].axes for key in request):
        probe["masked_lm_positions"] = tf.zeros([1, 1], tf.int32)
    if "marginals" in request:
        probe["word_index"] = tf.constant([[-1, 0]])
    given = model(probe, request)
    shapes = {}
    for key, layers in request.items():
        spec = outputs.OUTPUTS[key]
        axes = spec.token_axes if spec.token_axes and task_type == "tagging" else spec.axes
        for name, value in flat_answer(key, given[key]).items():
            shape = tuple(value.shape[1:])
            if axes.endswith("TT"):
                shapes[name] = RowShape("pair", shape[:-2])
            elif axes[1] in "TP":
                shapes[name] = RowShape("token" if axes[1] == "T" else "slot", shape[1:])
            else:
                shapes[name] = RowShape("example", shape)
    return shapes


def flat_answer(key: str, value) -> dict[str, tf.Tensor]:
    """One output of a teacher by feature name: of each layer, of each tensor, or as it is."""
    if isinstance(value, Mapping):
        return {f"teacher/{key}/{one}": tensor for one, tensor in value.items()}
    return {f"teacher/{key}": value}


def kept_rows(teacher, request: outputs.Request, task_type: str | None) -> dict[str, Row]:
    """Name of each side-car -> its row.

    Raises:
      ValueError: If an output is not kept on disk.
    """
    outputs.validate_request(request, teacher.available, "teacher")
    if "masked_lm_logits" in request:
        raise ValueError(
            "masked_lm_logits of a whole vocabulary are not kept on disk. Keep masked_lm_top_k "
            "(loss: top_k_cross_entropy), or set teacher.mode: live."
        )
    plain = {key: layers for key, layers in request.items() if key != outputs.TOP_K}
    rows: dict[str, Row] = row_shapes(teacher, plain, task_type) if plain else {}
    if outputs.TOP_K in request:
        rows[f"teacher/{outputs.TOP_K}"] = SlotRow(
            teacher.top_k, teacher.vocab_size, teacher.temperatures
        )
    return rows


def row_precision(row: Row, precision: str) -> str:
    """`uint8` is for words alone; whatever stands beside them keeps float16."""
    return "float16" if precision == "uint8" and not isinstance(row, SlotRow) else precision


def planned_bytes(rows: Mapping[str, Row], record_sets: Iterable[RecordSet], precision: str) -> int:
    """Bytes that the values of a cache take; slots are counted in the records."""
    total = 0
    for records in record_sets:
        for row in rows.values():
            one = row_precision(row, precision)
            if isinstance(row, SlotRow):
                slots = int(slot_counts(records).sum())
                total += len(records) * row.bytes(0, one) + slots * row.slot_bytes(one)
            else:
                size = PRECISIONS[one].itemsize
                total += size * int(row.elements(records.lengths).sum())
    return total


def slot_counts(records: RecordSet) -> np.ndarray:
    """Real masked slots of each record, int64 [N].

    Raises:
      ValueError: If the records have none, or unused slots between used ones.
    """
    parser = {"masked_lm_weights": tf.io.RaggedFeature(tf.float32)}
    counts = []
    for start in range(0, len(records), _CHUNK):
        numbers = np.arange(start, min(start + _CHUNK, len(records)))
        weights = tf.io.parse_example(records.read_many(numbers), parser)["masked_lm_weights"]
        counts.append(real_slots(weights.to_tensor().numpy(), records.ids[numbers]))
    counts = np.concatenate(counts)
    if not counts.any():
        raise ValueError(
            f"{records.paths[0]} and its set have no masked slots (masked_lm_weights). Expected "
            "records of create_pretraining_data with masks on disk."
        )
    return counts


def real_slots(weights: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """How many slots of each record count; they stand first.

    Args:
      weights: `masked_lm_weights`, `[B, P]`.
      ids: Of the records, to name one.

    Raises:
      ValueError: If a slot that does not count stands before one that does.
    """
    used = weights > 0
    counts = used.sum(axis=1)
    scattered = (used != (np.arange(used.shape[1]) < counts[:, None])).any(axis=1)
    if scattered.any():
        name = bytes(ids[int(np.argmax(scattered))]).decode("utf-8", "replace")
        raise ValueError(
            f"The record {name} has an unused masked slot before a used one. Expected "
            "masked_lm_weights 1 ... 1 0 ... 0; create the records again."
        )
    return counts
