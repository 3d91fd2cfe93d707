"""Which documents are held out, and which shard takes which: by the digest of their text alone.

Equal documents have one digest, so they stay together.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib

import numpy as np

from xdistil_tf import files
from xdistil_tf.data.pretraining.store import Store

_CONTENT = "splits.json"


@dataclasses.dataclass(frozen=True)
class Split:
    """One split.

    Attributes:
      documents: How many.
      bounds: The least digest of each shard, and what is above all.
    """

    documents: int
    bounds: tuple[int, ...]

    @property
    def num_shards(self) -> int:
        return len(self.bounds) - 1


def divide(
    folder: pathlib.Path, store: Store, heldout_fraction: float, num_shards: int, pairs: bool
) -> dict[str, Split]:
    """Holds out the documents with the smallest digests, and cuts the others into shards.

    Writes `train.documents` and `heldout.documents` (int64, numbers of documents in order), then
    `splits.json`. No shard is empty: there are never more than different documents.

    Args:
      pairs: Whether a document needs another one of its split.

    Raises:
      ValueError: If there are too few different documents.
    """
    least = 2 if pairs else 1
    digests = np.unique(store.digests)
    _require(len(digests), least, heldout_fraction, pairs)
    count = max(least, math.ceil(heldout_fraction * len(digests))) if heldout_fraction else 0
    made = {"train": _bounds(digests[count:], num_shards)}
    if count:
        made["heldout"] = _bounds(digests[:count], 1)
    splits = {}
    for name, bounds in made.items():
        own = _within(store.digests, bounds[0], bounds[-1])
        with files.replaced_file(documents_path(folder, name)) as handle:
            handle.write(own.astype("<i8").tobytes())
        splits[name] = Split(len(own), bounds)
    files.write_json(folder / _CONTENT, {k: dataclasses.asdict(v) for k, v in splits.items()})
    return splits


def read_splits(folder: pathlib.Path) -> dict[str, Split]:
    """What `divide` wrote."""
    content = files.read_json(folder / _CONTENT)
    return {name: Split(one["documents"], tuple(one["bounds"])) for name, one in content.items()}


def documents_path(folder: pathlib.Path, split: str) -> pathlib.Path:
    return folder / f"{split}.documents"


def shard_documents(store: Store, split: Split, number: int) -> np.ndarray:
    """The numbers of a shard's documents, in order; int64."""
    return _within(store.digests, split.bounds[number], split.bounds[number + 1])


def _bounds(digests: np.ndarray, num_shards: int) -> tuple[int, ...]:
    num_shards = min(num_shards, len(digests))
    firsts = [int(digests[k * len(digests) // num_shards]) for k in range(num_shards)]
    return (*firsts, int(digests[-1]) + 1)


def _within(digests: np.ndarray, least: int, above: int) -> np.ndarray:
    # The greatest digest may be the greatest of its type, whose successor is none.
    return np.flatnonzero((digests >= np.uint64(least)) & (digests <= np.uint64(above - 1)))


def _require(found: int, least: int, heldout_fraction: float, pairs: bool) -> None:
    needed = least * 2 if heldout_fraction else least
    if found < needed:
        cures = ["Separate documents by an empty line", "add text"]
        cures += ["set heldout_fraction=0"] * (heldout_fraction > 0)
        cures += ["set next_sentence=False"] * pairs
        raise ValueError(
            f"Expected at least {needed} different documents. Received: {found}. "
            f"{', '.join(cures[:-1])}, or {cures[-1]}."
        )
