"""Masks drawn as records are read: other ones in each epoch, each time the same ones in it."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import numpy as np

from xdistil_tf import files
from xdistil_tf.data.pretraining import draws, masking
from xdistil_tf.data.pretraining.manifest import MANIFEST
from xdistil_tf.data.pretraining.settings import Settings
from xdistil_tf.data.pretraining.vocabulary import Vocabulary
from xdistil_tf.data.record_set import RecordSet
from xdistil_tf.data.tokenization import load_tokenizer

# What `draw` gives, in order.
FEATURES = ("input_ids", "masked_lm_positions", "masked_lm_ids", "masked_lm_weights")


class DynamicMasking:
    """Draws the masks of a run's data; a record's masks follow from (seed, epoch, number) alone.

    Args:
      settings: `max_predictions_per_seq`, `masked_lm_prob` and `do_whole_word_mask` count.
      vocabulary: Of the records' tokenizer.
      seed: One or several integers, of the run and its stage.
    """

    def __init__(self, settings: Settings, vocabulary: Vocabulary, seed: int | Sequence[int]):
        vocabulary.require_mask(settings.masked_lm_prob)
        self.slots = settings.max_predictions_per_seq
        self._settings = settings
        self._vocabulary = vocabulary
        self._seed = (seed,) if isinstance(seed, int) else tuple(seed)

    @property
    def definition(self) -> dict[str, float | int | bool]:
        """What decides the masks, apart from records and seed."""
        names = ("masked_lm_prob", "max_predictions_per_seq", "do_whole_word_mask")
        return {name: getattr(self._settings, name) for name in names}

    def draw(
        self,
        numbers: np.ndarray,
        epoch: int,
        input_ids: np.ndarray,
        word_starts: np.ndarray,
        lengths: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Masks some tokens of a batch.

        Args:
          numbers: int [B], places of the records in their set.
          epoch: Which reading of the set.
          input_ids, word_starts: int [B, T], padded.
          lengths: int [B], real tokens.

        Returns:
          The features that `FEATURES` names: int32 [B, T], int32, int32 and float32 [B, P].
        """
        base = np.uint64(draws.key("dynamic", *self._seed, int(epoch)))
        keys = draws.mixed(base + draws.mixed(np.asarray(numbers).astype(np.uint64)))
        batch = masking.Batch(
            np.array(input_ids, np.int64), np.asarray(lengths, np.int64), None,
            np.asarray(word_starts, np.int8), None,
        )  # fmt: skip
        masking.mask(batch, keys, self._vocabulary, self._settings)
        weights = np.arange(self.slots) < batch.counts[:, None]
        return (
            batch.input_ids.astype(np.int32),
            batch.positions.astype(np.int32),
            batch.masked_ids.astype(np.int32),
            weights.astype(np.float32),
        )


def masking_of(records: RecordSet, seed: int | Sequence[int]) -> DynamicMasking | None:
    """What draws the masks of these records; `None` where they have theirs on disk, or none.

    Raises:
      ValueError: If the shards come from several folders that were made differently, or are train
        and held-out ones together.
    """
    settings = _settings_of(records)
    if settings is None:
        return None
    tokenizer = load_tokenizer(records.paths[0].parent / "tokenizer")
    return DynamicMasking(settings, Vocabulary.of(tokenizer), seed)


def draws_masks(records: RecordSet) -> bool:
    """Whether the masks of these records are drawn as they are read; no teacher's cache fits them.

    Raises:
      ValueError: As `masking_of`.
    """
    return _settings_of(records) is not None


def _settings_of(records: RecordSet) -> Settings | None:
    """How masks are drawn; `None` where they stand on disk, or nowhere."""
    made = [_dynamic_settings(parent) for parent in sorted({one.parent for one in records.paths})]
    if any(one != made[0] for one in made):
        raise ValueError(
            f"{records.paths[0]} and its set come from folders with other masks. Expected one "
            "folder, or folders of create_pretraining_data with equal settings."
        )
    return made[0] if made[0] is not None and _lacks_masks(records) else None


def _dynamic_settings(folder: pathlib.Path) -> Settings | None:
    path = folder / MANIFEST
    manifest = files.read_json(path) if path.is_file() else {}
    if manifest.get("masking") != "dynamic":
        return None
    fields = Settings.__dataclass_fields__
    return Settings(**{k: v for k, v in manifest["settings"].items() if k in fields})


def _lacks_masks(records: RecordSet) -> bool:
    """Held-out records of the same folder have their masks on disk."""
    lacking = {path: b"word_starts" in first for path, first in records.first_of_each_shard()}
    if len(set(lacking.values())) > 1:
        masked = next(path for path, lacks in lacking.items() if not lacks)
        raise ValueError(
            f"{masked} has its masks on disk, others of its set have none. Expected train-* and "
            "heldout-* of --dynamic_masking to be bound to names of their own."
        )
    return all(lacking.values())
