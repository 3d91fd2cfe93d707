"""Random numbers as a pure function of a key: whoever has the key has the draws, in any order.

A document in a pass has a key of its own, and so has each of its instances. What is drawn for one
depends on no other, on no shard and on no process.
"""

from __future__ import annotations

import hashlib

import numpy as np

# SplitMix64 (Steele, Lea and Flood, 2014): a counter times an odd constant, then mixed.
_STEP = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)
_STREAM_BITS = np.uint64(32)


def key(*parts: int | str) -> int:
    """A number of 64 bits that follows from the parts and from nothing else."""
    text = "\t".join(map(str, parts))
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest(), "little")


def numbers(keys: np.ndarray, stream: int, count: int, first: int = 0) -> np.ndarray:
    """`count` numbers of 64 random bits for each key.

    Args:
      keys: uint64 [N].
      stream: Which of the independent sequences of a key.
      first: How many numbers of the sequence are passed over.

    Returns:
      uint64 [N, count].
    """
    places = np.arange(first + 1, first + count + 1, dtype=np.uint64) + (
        np.uint64(stream) << _STREAM_BITS
    )
    return mixed(keys[:, None] + places * _STEP)


def mixed(state: np.ndarray) -> np.ndarray:
    """Spreads every bit of a state over all 64; uint64 of any shape, changed in place."""
    for shift, factor in ((30, _FIRST), (27, _SECOND)):
        state ^= state >> np.uint64(shift)
        state *= factor
    state ^= state >> np.uint64(31)
    return state


def shares(bits: np.ndarray) -> np.ndarray:
    """Numbers in [0, 1) of the upper 53 bits."""
    return (bits >> np.uint64(11)) * 2.0**-53


def heads(keys: np.ndarray, stream: int, tosses: np.ndarray) -> np.ndarray:
    """How many of `tosses` fair coins show heads, for each key.

    Args:
      keys: uint64 [N].
      tosses: int [N].

    Returns:
      int64 [N].
    """
    words = -(-int(tosses.max(initial=0)) // 64)
    counts = np.zeros(len(keys), np.int64)
    for word in range(words):
        rows = np.flatnonzero(tosses > 64 * word)
        bits = numbers(keys[rows], stream, 1, first=word)[:, 0]
        left = np.minimum(tosses[rows] - 64 * word, 64).astype(np.uint64)
        bits >>= np.uint64(64) - left
        octets = bits.view(np.uint8).reshape(-1, 8)
        counts[rows] += np.unpackbits(octets, axis=1).sum(axis=1, dtype=np.int64)
    return counts
