"""Which records an epoch has where small languages are to count for more than their share.

Languages are drawn with probability proportional to n^(1/T) (Arivazhagan et al., 2019, "Massively
Multilingual Neural Machine Translation in the Wild", section 4.2): T = 1 is the data's own share,
a large T gives all languages the same.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from xdistil_tf.data.plan import permutation, random_bits
from xdistil_tf.data.record_set import RecordSet

_CHUNK = 8192  # Records that are read together.
_DRAW = 3  # Sets these draws apart from those of the plan.


class LanguageDraw:
    """The records of any epoch, a pure function of its number.

    Each language is an endless row of shuffled passes over its records, and each epoch takes the
    next ones: of a small language several passes, of a large one another part each time. All
    records of a language come equally often, give or take one.

    Args:
      languages: Of each record, [N].
      temperature: T, above 0.
      seed: Integers.

    Attributes:
      sizes: Records of each language in an epoch; they add up to N.
    """

    def __init__(self, languages: np.ndarray, temperature: float, seed: tuple[int, ...] = (0,)):
        if temperature <= 0:
            raise ValueError(f"Expected language_temperature above 0. Received: {temperature}.")
        names, codes = np.unique(languages, return_inverse=True)
        self._rows = [np.flatnonzero(codes == code) for code in range(len(names))]
        counts = np.array([len(rows) for rows in self._rows], np.float64)
        sizes = _shared_out(counts ** (1 / temperature), len(languages))
        self.sizes = dict(zip(names.tolist(), sizes.tolist(), strict=True))
        self._seed = seed

    def __call__(self, epoch: int) -> np.ndarray:
        """int64 [N]: record numbers in rising order, some of them several times."""
        sizes = self.sizes.values()
        parts = [
            self._taken(number, rows, epoch * size, size)
            for number, (rows, size) in enumerate(zip(self._rows, sizes, strict=True))
        ]
        return np.sort(np.concatenate(parts))

    def _taken(self, number: int, rows: np.ndarray, begin: int, size: int) -> np.ndarray:
        """`size` of a language's endless row from place `begin` on."""
        taken = []
        while size:
            run, place = divmod(begin, len(rows))
            random = random_bits(*self._seed, _DRAW, number, run)
            part = rows[permutation(random, len(rows))][place : place + size]
            taken.append(part)
            begin, size = begin + len(part), size - len(part)
        return np.concatenate([*taken, np.zeros(0, np.int64)]).astype(np.int64)


def read_languages(records: RecordSet) -> np.ndarray:
    """The language of each record, bytes [N]; `default` where it says none."""
    language = {"language": tf.io.FixedLenFeature([], tf.string, b"default")}
    found = []
    for start in range(0, len(records), _CHUNK):
        content = records.read_many(range(start, min(start + _CHUNK, len(records))))
        found.append(tf.io.parse_example(content, language)["language"].numpy().astype("S"))
    return np.concatenate(found)


def _shared_out(shares: np.ndarray, total: int) -> np.ndarray:
    """Whole numbers in proportion to `shares` that add up to `total`; largest remainders gain."""
    exact = shares / shares.sum() * total
    sizes = np.floor(exact).astype(np.int64)
    gaining = np.argsort(sizes - exact, kind="stable")[: total - int(sizes.sum())]
    sizes[gaining] += 1
    return sizes
