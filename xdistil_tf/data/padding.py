"""Token ids of a few texts as one batch, outside `tf.data`: to predict and to compare exports."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def pad_batch(
    input_ids: Sequence[Sequence[int]], segment_ids: Sequence[Sequence[int]]
) -> dict[str, np.ndarray]:
    """Pads texts to the longest with zeros, as the pipeline does.

    Args:
      input_ids: Token ids of each text.
      segment_ids: As many segments of each.

    Returns:
      `input_ids`, `input_mask` and `segment_ids`, int32 `[B, T]`; T is 1 where there is no text.
    """
    shape = (len(input_ids), max(map(len, input_ids), default=1))
    names = ("input_ids", "input_mask", "segment_ids")
    batch = {name: np.zeros(shape, np.int32) for name in names}
    for row, (ids, segments) in enumerate(zip(input_ids, segment_ids, strict=True)):
        batch["input_ids"][row, : len(ids)] = ids
        batch["input_mask"][row, : len(ids)] = 1
        batch["segment_ids"][row, : len(ids)] = segments
    return batch
