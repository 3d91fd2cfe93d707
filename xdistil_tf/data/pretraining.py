"""Text to masked-LM records: BERT's instances, to the constant, in one process and in memory.

Before, one sentence a line and an empty line between documents:

    the soup was great
    the waiter was kind

After, with 1 of 12 tokens to predict (`[MASK]`, a random token, or the token itself):

    input_ids            [CLS] the soup [MASK] great [SEP] the waiter was kind [SEP] [PAD] ...
    masked_lm_positions  3 0 ...    masked_lm_ids  was [PAD] ...    masked_lm_weights  1 0 ...
    next_sentence_labels 0          (1: the second segment comes from another document)
"""

from __future__ import annotations

import dataclasses
import glob
import hashlib
import itertools
import math
import pathlib
import random
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from absl import logging

from xdistil_tf import files, versions
from xdistil_tf.data import records, rows
from xdistil_tf.data.instances import (
    Document,
    Instance,
    Settings,
    Vocabulary,
    create_instances,
    instance_features,
)
from xdistil_tf.data.tokenization import Tokenizer

Path = str | pathlib.Path
MANIFEST = "pretraining.json"
_LINES = 4096  # A call of the tokenizer: enough for all cores.


def write_pretraining_records(
    input_files: Path | Sequence[Path],
    tokenizer: Tokenizer,
    output_dir: Path,
    max_seq_length: int = 128,
    max_predictions_per_seq: int = 20,
    masked_lm_prob: float = 0.15,
    dupe_factor: int = 1,
    do_whole_word_mask: bool = False,
    seed: int = 12345,
    next_sentence: bool = True,
    heldout_fraction: float = 0.05,
    short_seq_prob: float = 0.1,
    num_shards: int = 4,
) -> dict[str, Any]:
    """Writes `train-*` and `heldout-*` records, a copy of the tokenizer and `pretraining.json`.

    Nothing is done if the manifest there was made from the same text, tokenizer and settings.
    Files end documents. Held-out documents are chosen by a hash of their text, never duplicated,
    and paired only with each other.

    Args:
      input_files: Files, or globs separated by commas: UTF-8, one sentence a line, an empty line
        between documents.
      output_dir: A folder of its own; earlier pretraining records in it are replaced.
      seed, others: As `Settings`.
      heldout_fraction: Share of the documents; 0 for none.
      num_shards: Of the train records; held-out ones are one shard.

    Returns:
      The manifest: settings, fingerprints, counts of each split, and versions.

    Raises:
      FileNotFoundError: If a file or glob matches nothing.
      ValueError: If a setting is impossible, a file empty or not UTF-8, the documents too few, the
        vocabulary without `[MASK]`, or the folder one of task records.
    """
    settings = Settings(
        max_seq_length,
        max_predictions_per_seq,
        masked_lm_prob,
        short_seq_prob,
        dupe_factor,
        do_whole_word_mask,
        next_sentence,
    )
    if not 0 <= heldout_fraction <= 0.5:
        raise ValueError(f"Expected heldout_fraction from 0 to 0.5. Received: {heldout_fraction}.")
    paths = _input_files(input_files)
    manifest = _plan(paths, tokenizer, settings, seed, heldout_fraction, num_shards)
    folder = pathlib.Path(output_dir)
    if _is_written(folder, manifest["fingerprint"]):
        logging.info("%s holds these records already.", folder)
        return files.read_json(folder / MANIFEST)
    vocabulary = Vocabulary.of(tokenizer)
    train, heldout = _split(_read_documents(paths, tokenizer), heldout_fraction, settings)
    made = {"train": create_instances(train, random.Random(seed), vocabulary, settings)}
    if heldout:
        once = dataclasses.replace(settings, dupe_factor=1)
        made["heldout"] = create_instances(
            heldout, random.Random(f"heldout {seed}"), vocabulary, once
        )
    _clear(folder)
    for split, documents in (("train", train), ("heldout", heldout)):
        if split in made:
            shards = num_shards if split == "train" else 1
            written = _write_split(folder, split, made[split], settings, shards)
            manifest["splits"][split] = {"documents": len(documents), **written}
    tokenizer.save(folder / "tokenizer")
    files.write_json(folder / MANIFEST, manifest)
    logging.info("Pretraining records in %s: %s", folder, manifest["splits"])
    return manifest


def _plan(
    paths: Sequence[pathlib.Path],
    tokenizer: Tokenizer,
    settings: Settings,
    seed: int,
    heldout_fraction: float,
    num_shards: int,
) -> dict[str, Any]:
    """The manifest as far as it is known beforehand."""
    made_from = {
        "format": 1,
        **dataclasses.asdict(settings),
        "seed": seed,
        "heldout_fraction": heldout_fraction,
        "num_shards": num_shards,
        "tokenizer": {
            "kind": tokenizer.kind,
            "fingerprint": tokenizer.fingerprint,
            "vocab_size": tokenizer.vocab_size,
            "do_lower_case": tokenizer.do_lower_case,
        },
        "inputs": {str(path): files.file_fingerprint(path) for path in paths},
    }
    content = {**made_from, "inputs": list(made_from["inputs"].values())}
    return {
        **made_from,
        "splits": {},
        "fingerprint": files.fingerprint(content),
        "versions": versions.environment(),
    }


def _is_written(folder: pathlib.Path, fingerprint: str) -> bool:
    path = folder / MANIFEST
    return path.is_file() and files.read_json(path).get("fingerprint") == fingerprint


def _clear(folder: pathlib.Path) -> None:
    """Removes earlier records, so that shards of two corpora never stand side by side."""
    if (folder / "task.json").exists():
        raise ValueError(f"{folder} holds the records of a task. Choose another output_dir.")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST).unlink(missing_ok=True)
    for split, end in itertools.product(("train", "heldout"), ("tfrecord", "index")):
        for path in folder.glob(f"{split}-*-of-*.{end}"):
            path.unlink()


def _write_split(
    folder: pathlib.Path,
    split: str,
    instances: Sequence[Instance],
    settings: Settings,
    num_shards: int,
) -> dict[str, Any]:
    features = (
        {"id": f"{split}:{number}".encode(), **instance_features(instance, settings)}
        for number, instance in enumerate(instances)
    )
    written = records.write_records(folder, split, features, len(instances), num_shards)
    tokens = sum(len(instance.input_ids) for instance in instances)
    counts = {
        **dataclasses.asdict(written),
        "tokens": tokens,
        "masked": sum(len(instance.masked_lm_ids) for instance in instances),
    }
    if settings.next_sentence:
        counts["random_next"] = sum(bool(instance.is_random_next) for instance in instances)
    return counts


def _input_files(patterns: Path | Sequence[Path]) -> list[pathlib.Path]:
    if isinstance(patterns, str | pathlib.Path):
        patterns = str(patterns).split(",")
    paths: list[pathlib.Path] = []
    for pattern in map(str, patterns):
        found = sorted(one for one in map(pathlib.Path, glob.glob(pattern)) if one.is_file())
        if not found:
            raise FileNotFoundError(f"No file matches {pattern!r}. Set input_file to text files.")
        paths += [path for path in found if path not in paths]
    return paths


class _Read(NamedTuple):
    digest: bytes
    sentences: list[list[int]]


def _read_documents(paths: Sequence[pathlib.Path], tokenizer: Tokenizer) -> list[_Read]:
    """Tokenizes all documents; those without a token are left out.

    Raises:
      ValueError: If a file holds no text or a line is not UTF-8; names file and line.
    """
    texts = [lines for path in paths for lines in _documents_of(path)]
    sentences = _token_ids([line for lines in texts for line in lines], tokenizer)
    documents = []
    for lines in texts:
        kept = [ids for ids in itertools.islice(sentences, len(lines)) if ids]
        if kept:
            digest = hashlib.blake2b("\n".join(lines).encode("utf-8")).digest()
            documents.append(_Read(digest, kept))
    return documents


def _documents_of(path: pathlib.Path) -> list[list[str]]:
    documents: list[list[str]] = [[]]
    for number, line in rows.read_lines(path):
        if isinstance(line, rows.Problem):
            raise ValueError(f"{path} line {number}: {line.reason}. Convert the file to UTF-8.")
        if line.strip():
            documents[-1].append(line.strip())
        elif documents[-1]:
            documents.append([])
    if not documents[-1]:
        documents.pop()
    if not documents:
        raise ValueError(f"{path} is empty. Expected one sentence a line.")
    return documents


def _token_ids(lines: Sequence[str], tokenizer: Tokenizer) -> Iterator[list[int]]:
    backend = tokenizer.backend
    for start in range(0, len(lines), _LINES):
        block = list(lines[start : start + _LINES])
        for encoding in backend.encode_batch_fast(block, add_special_tokens=False):
            yield encoding.ids


def _split(
    documents: Sequence[_Read], heldout_fraction: float, settings: Settings
) -> tuple[list[Document], list[Document]]:
    """Holds out the documents with the smallest hashes; equal documents stay together."""
    least = 2 if settings.next_sentence else 1
    digests = sorted({document.digest for document in documents})
    needed = least * 2 if heldout_fraction else least
    if len(digests) < needed:
        cures = ["Separate documents by an empty line", "add text"]
        cures += ["set heldout_fraction=0"] * (heldout_fraction > 0)
        cures += ["set next_sentence=False"] * settings.next_sentence
        raise ValueError(
            f"Expected at least {needed} different documents. Received: {len(digests)}. "
            f"{', '.join(cures[:-1])}, or {cures[-1]}."
        )
    count = max(least, math.ceil(heldout_fraction * len(digests))) if heldout_fraction else 0
    chosen = set(digests[:count])
    return (
        [document.sentences for document in documents if document.digest not in chosen],
        [document.sentences for document in documents if document.digest in chosen],
    )
