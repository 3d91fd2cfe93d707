"""The order of an epoch: which records form which batch, as a pure function of its arguments.

Records of similar length share a batch, so little is padded. Order is made window by window: an
epoch visits contiguous blocks of records in random order, a window of many blocks is sorted by
(slightly disturbed) length, cut into batches, and its batches are shuffled. Reading stays mostly
sequential, and any batch is found by arithmetic, not by replaying the epoch.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np

BLOCK = 512
WINDOW = 64 * BLOCK
_NOISE = 0.1


class Plan:
    """The batches of all epochs by step number.

    Each epoch holds each record once, or what `draw` says; only its last batch can be short.
    Before: lengths [3, 9, 3, 8], batch size 2. After, for some seed, the batches of epoch 0:
    `[1, 3]`, `[2, 0]`.

    Attributes:
      steps_per_epoch: Batches of an epoch.
    """

    def __init__(
        self,
        lengths: np.ndarray,
        batch_size: int,
        seed: int | Sequence[int] = 0,
        shuffle: bool = True,
        window: int = WINDOW,
        block: int = BLOCK,
        draw: Callable[[int], np.ndarray] | None = None,
    ):
        """Checks and keeps the arguments.

        Args:
          lengths: Tokens of each record, int [N].
          batch_size: Examples of a global batch.
          seed: An integer or several (run, stage).
          shuffle: False gives each epoch the same order, sorted by length within windows.
          window: Records that are sorted together; rounded up to whole batches.
          block: Contiguous records that stay together before that.
          draw: The records of each epoch, as many as there are, some of them perhaps several times;
            None: all of them.

        Raises:
          ValueError: If a number is not positive, or there is no record.
        """
        self.lengths = np.asarray(lengths)
        for name, value in (("batch_size", batch_size), ("window", window), ("block", block)):
            if value < 1:
                raise ValueError(f"Expected {name} of at least 1. Received: {name}={value}.")
        self.batch_size = batch_size
        if not len(self.lengths):
            raise ValueError("Expected at least one record. Received: none.")
        self.steps_per_epoch = -(-len(self.lengths) // batch_size)
        self._seed = [seed] if isinstance(seed, int | np.integer) else list(seed)
        self._shuffle = shuffle
        self._block = block
        self._draw = None if draw is None else functools.lru_cache(maxsize=2)(draw)
        self._window_batches = -(-window // batch_size)
        # Two windows: the one being read and, at its border, the one before.
        self._window = functools.lru_cache(maxsize=2)(self._make_window)
        self._blocks = functools.lru_cache(maxsize=2)(self._make_blocks)

    def batch(self, step: int) -> np.ndarray:
        """The record numbers of the global batch of a step, counted from 0 over all epochs."""
        epoch, place = divmod(step, self.steps_per_epoch)
        window, place = divmod(place, self._window_batches)
        return self._window(epoch if self._shuffle else 0, window)[place]

    def _make_window(self, epoch: int, window: int) -> list[np.ndarray]:
        size = self._window_batches * self.batch_size
        start, total = window * size, len(self.lengths)
        numbers = self._visited(epoch, start, min(start + size, total))
        if self._draw is not None:
            numbers = self._draw(epoch)[numbers]
        if not self._shuffle:
            numbers = numbers[np.argsort(self.lengths[numbers], kind="stable")]
            return _cut(numbers, self.batch_size)
        random = random_bits(*self._seed, epoch, window + 1)
        numbers = numbers[permutation(random, len(numbers))]
        short = len(numbers) % self.batch_size
        rest, last = numbers[short:], numbers[:short]
        # Disturbed lengths, or small data sets would form nearly the same batches each epoch.
        noise = 1 + _NOISE * (2 * _uniform(random, len(rest)) - 1)
        rest = rest[np.argsort(self.lengths[rest] * noise, kind="stable")]
        batches = _cut(rest, self.batch_size)
        batches = [batches[number] for number in permutation(random, len(batches))]
        return batches + [last] * bool(short)

    def _visited(self, epoch: int, start: int, stop: int) -> np.ndarray:
        """Record numbers at the places `start … stop` of the epoch's order of blocks."""
        if not self._shuffle:
            return np.arange(start, stop)
        blocks, ends = self._blocks(epoch)
        first = int(np.searchsorted(ends, start, side="right"))
        last = int(np.searchsorted(ends, stop, side="left"))
        total, begin = len(self.lengths), int(ends[first - 1]) if first else 0
        parts = [
            np.arange(number * self._block, min((number + 1) * self._block, total))
            for number in blocks[first : last + 1].tolist()
        ]
        return np.concatenate(parts)[start - begin : stop - begin]

    def _make_blocks(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The order of the blocks, and where each ends in the epoch."""
        total = len(self.lengths)
        blocks = permutation(random_bits(*self._seed, epoch, 0), -(-total // self._block))
        sizes = np.minimum((blocks + 1) * self._block, total) - blocks * self._block
        return blocks, np.cumsum(sizes)


def _cut(numbers: np.ndarray, size: int) -> list[np.ndarray]:
    return [numbers[start : start + size] for start in range(0, len(numbers), size)]


def random_bits(*entropy: int) -> np.random.Philox:
    """A source of random bits, a pure function of some integers.

    NumPy keeps the raw stream of a bit generator for ever, that of `Generator` it may change.
    """
    return np.random.Philox(np.random.SeedSequence([int(one) % 2**64 for one in entropy]))


def permutation(random: np.random.Philox, size: int) -> np.ndarray:
    """Numbers below `size` in random order."""
    return np.argsort(random.random_raw(size), kind="stable")


def _uniform(random: np.random.Philox, size: int) -> np.ndarray:
    """Numbers in [0, 1), 53 bits each."""
    return (random.random_raw(size) >> np.uint64(11)) * 2.0**-53
