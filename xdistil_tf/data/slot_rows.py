"""What a teacher's words at masked slots take on disk, and how their tensors become bytes.

A row is a record, real slots only, and its arrays stand one after the other, little-endian:

    least      float32          uint8 only: the smallest log-probability of the row
    ids        P * K            uint16, or uint32 where the vocabulary has more than 65,536 words
    log_probs  P * K            float16, bfloat16, or uint8: least * value / 255
    log_tail   P                float16 or bfloat16 (of uint8: float16)
    logsumexp  P, a temperature alike
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from xdistil_tf import outputs
from xdistil_tf.data.sidecars import PRECISIONS

SLOT_PRECISIONS = (*PRECISIONS, "uint8")
_STEPS = 255


@dataclasses.dataclass(frozen=True)
class SlotRow:
    """What is kept at each masked slot.

    Attributes:
      k: Words.
      vocab_size: Of the teacher; decides the bytes of an id.
      temperatures: Whose log-sum-exps are kept.
    """

    k: int
    vocab_size: int
    temperatures: tuple[float, ...] = ()

    @property
    def fields(self) -> dict[str, tuple[type, tuple[int, ...]]]:
        """Name of each tensor -> its type and its shape at a slot."""
        per_slot = ["log_tail", *map(outputs.logsumexp_field, self.temperatures)]
        words = {"ids": (np.int32, (self.k,)), "log_probs": (np.float32, (self.k,))}
        return words | {name: (np.float32, ()) for name in per_slot}

    def bytes(self, slots: int, precision: str) -> int:
        """Of a row with so many real slots."""
        return self._head(precision) + slots * self.slot_bytes(precision)

    def slot_bytes(self, precision: str) -> int:
        """Of each slot."""
        words = self._id_type.itemsize + (1 if precision == "uint8" else 2)
        return self.k * words + 2 * (1 + len(self.temperatures))

    def slots(self, size: int, precision: str) -> int:
        """How many slots a row of so many bytes has."""
        return (size - self._head(precision)) // self.slot_bytes(precision)

    def encode(self, values: Mapping[str, np.ndarray], precision: str) -> bytes:
        """One record's tensors, `[P, ...]` of real slots, as the bytes of a row."""
        fine = PRECISIONS.get(precision, PRECISIONS["float16"])
        parts = [np.ascontiguousarray(values["ids"], self._id_type)]
        log_probs = np.asarray(values["log_probs"], np.float32)
        if precision == "uint8":
            least = np.float32(min(log_probs.min(initial=0.0), -1e-6))
            parts.insert(0, np.array([least], "<f4"))
            parts.append(np.rint(log_probs / least * _STEPS).astype(np.uint8))
        else:
            parts.append(log_probs.astype(fine))
        parts += [np.asarray(values[name]).astype(fine) for name in list(self.fields)[2:]]
        return b"".join(np.ascontiguousarray(part).tobytes() for part in parts)

    def decode(self, content: bytes | memoryview, precision: str) -> dict[str, np.ndarray]:
        """The inverse of `encode`, within the precision; int32 and float32."""
        fine = PRECISIONS.get(precision, PRECISIONS["float16"])
        head, slots = self._head(precision), self.slots(len(content), precision)
        words, place = slots * self.k, head
        found = {}
        for name in self.fields:
            kind, count = fine, slots
            if name in ("ids", "log_probs"):
                kind, count = self._id_type if name == "ids" else fine, words
            if name == "log_probs" and precision == "uint8":
                kind = np.dtype(np.uint8)
            found[name] = np.frombuffer(content, kind, count, place)
            place += count * kind.itemsize
        log_probs = found["log_probs"].astype(np.float32)
        if precision == "uint8":
            least = np.frombuffer(content, "<f4", 1)[0]
            log_probs = log_probs * (least / np.float32(_STEPS))
        decoded = {name: value.astype(np.float32) for name, value in found.items()}
        decoded["ids"] = found["ids"].astype(np.int32).reshape(slots, self.k)
        decoded["log_probs"] = log_probs.reshape(slots, self.k)
        if precision == "uint8":
            decoded["log_probs"] = _fitted(decoded["log_probs"], decoded["log_tail"])
        return decoded

    @property
    def _id_type(self) -> np.dtype:
        return np.dtype("<u2" if self.vocab_size <= 1 << 16 else "<u4")

    def _head(self, precision: str) -> int:
        return 4 if precision == "uint8" else 0


def _fitted(log_probs: np.ndarray, log_tail: np.ndarray) -> np.ndarray:
    """Coarse steps, moved so that the words have again all that the tail does not."""
    total = np.log(np.exp(log_probs).sum(axis=-1))
    tail = np.minimum(log_tail, -1e-3)
    # Where nearly everything is left, what is kept is a rounding error of the tail.
    moved = np.where(log_tail < -1e-3, np.log1p(-np.exp(tail)) - total, 0.0)
    return log_probs + moved[:, None].astype(np.float32)
