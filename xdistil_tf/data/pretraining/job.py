"""A job: what is made from what, in plain values that every process can be given."""

from __future__ import annotations

import dataclasses
import functools
import pathlib

from xdistil_tf.data.pretraining.settings import Settings
from xdistil_tf.data.pretraining.vocabulary import Vocabulary
from xdistil_tf.data.pretraining.words import Tokenize, fast_tokenization
from xdistil_tf.data.tokenization import load_tokenizer
from xdistil_tf.data.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class Job:
    """What the parts and shards of one output folder are made from.

    Attributes:
      folder: Where the records go.
      paths: The input files, all text or all epoch files.
      epoch_files: Whether they are TinyBERT's.
      fingerprint: Of everything that decides bytes.
    """

    folder: str
    paths: tuple[str, ...]
    epoch_files: bool
    settings: Settings
    seed: int
    heldout_fraction: float
    num_shards: int
    fingerprint: str

    @property
    def work(self) -> pathlib.Path:
        """What is needed until the records are complete."""
        return pathlib.Path(self.folder) / "work"

    @property
    def tokenizer(self) -> Tokenizer:
        return _tokenizer(self.work / "tokenizer", self.fingerprint)

    @property
    def tokenize(self) -> Tokenize:
        return _tokenize(self.work / "tokenizer", self.fingerprint)

    @property
    def vocabulary(self) -> Vocabulary:
        return _vocabulary(self.work / "tokenizer", self.fingerprint)


@functools.lru_cache(maxsize=1)
def _tokenizer(folder: pathlib.Path, fingerprint: str) -> Tokenizer:
    del fingerprint  # Another job may have the same folder.
    return load_tokenizer(folder)


@functools.lru_cache(maxsize=1)
def _vocabulary(folder: pathlib.Path, fingerprint: str) -> Vocabulary:
    return Vocabulary.of(_tokenizer(folder, fingerprint))


@functools.lru_cache(maxsize=1)
def _tokenize(folder: pathlib.Path, fingerprint: str) -> Tokenize:
    return fast_tokenization(_tokenizer(folder, fingerprint))
