"""Text to masked-LM records: BERT's instances, in two passes that can be stopped at any moment.

Before, one sentence a line and an empty line between documents:

    the soup was great
    the waiter was kind

After, with 1 of 12 tokens to predict (`[MASK]`, a random token, or the token itself):

    input_ids            [CLS] the soup [MASK] great [SEP] the waiter was kind [SEP] [PAD] ...
    masked_lm_positions  3 0 ...    masked_lm_ids  was [PAD] ...    masked_lm_weights  1 0 ...
    next_sentence_labels 0          (1: the second segment comes from another document)

First a store of tokens, part of the input by part; then records, shard by shard.
"""

from __future__ import annotations

import collections
import dataclasses
import pathlib
import time
from collections.abc import Sequence
from typing import Any

from absl import logging

from xdistil_tf.data import records
from xdistil_tf.data.pretraining import manifest, processes, store, text, tinybert_epochs
from xdistil_tf.data.pretraining.job import Job
from xdistil_tf.data.pretraining.settings import Settings
from xdistil_tf.data.pretraining.shards import counts_path, open_store, write_shard
from xdistil_tf.data.pretraining.splits import Split, divide
from xdistil_tf.data.pretraining.vocabulary import Vocabulary
from xdistil_tf.data.tokenizer import Tokenizer

Path = str | pathlib.Path


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
    dynamic_masking: bool = False,
    execute: processes.Execution | None = None,
) -> dict[str, Any]:
    """Writes `train-*` and `heldout-*` records, a copy of the tokenizer and `pretraining.json`.

    Nothing is done if the manifest there was made from the same text, tokenizer and settings. A
    call that was killed goes on. Files end documents. Held-out documents are chosen by a hash of
    their text, never duplicated, and paired only with each other.

    Args:
      input_files: Files, or globs separated by commas: UTF-8, one sentence a line, an empty line
        between documents. Or TinyBERT's `epoch_<i>.json`, whose instances are taken as they are:
        of the settings only the sizes, the seed, and those of splits and shards count then.
      output_dir: A folder of its own; earlier pretraining records in it are replaced.
      seed, others: As `Settings`.
      heldout_fraction: Share of the documents; 0 for none.
      num_shards: Of the train records, at most one a document; held-out ones are one shard.
      execute: How parts and shards are run; default: one after another in this process.

    Returns:
      The manifest: settings, fingerprints, counts of each split, and versions.

    Raises:
      FileNotFoundError: If a file or glob matches nothing.
      ValueError: If a setting is impossible, a file empty or not UTF-8, the documents too few, the
        vocabulary without `[MASK]`, or the folder one of other records.
    """
    began = time.monotonic()
    settings = Settings(
        max_seq_length,
        max_predictions_per_seq,
        masked_lm_prob,
        short_seq_prob,
        dupe_factor,
        do_whole_word_mask,
        next_sentence,
        dynamic_masking,
    )
    _check(heldout_fraction, num_shards)
    Vocabulary.of(tokenizer).require_mask(masked_lm_prob)
    paths = text.input_files(input_files)
    epochs = tinybert_epochs.epoch_files(paths)
    if epochs:
        paths, settings = epochs, _of_epochs(settings)
    names = tuple(map(str, paths))
    others = {"heldout_fraction": heldout_fraction, "num_shards": num_shards, "seed": seed}
    content = manifest.made_from(dataclasses.asdict(settings) | others, names, tokenizer)
    folder, wanted = pathlib.Path(output_dir), manifest.fingerprint(content)
    if (done := manifest.finished(folder, wanted)) is not None:
        logging.info("%s holds these records already.", folder)
        manifest.remove_work(folder)  # Killed just before it was.
        return done
    job = Job(
        str(folder), names, bool(epochs), settings, seed, heldout_fraction, num_shards, wanted
    )
    parts = text.list_parts(names)
    manifest.begin(folder, wanted, tokenizer)
    splits = _create(job, parts, execute or processes.execution())
    made = manifest.finish(job, content, splits, tokenizer, time.monotonic() - began)
    logging.info("Pretraining records in %s: %s", folder, made["splits"])
    return made


def tokenize_part(job: Job, part: text.Part) -> None:
    """Puts a part of the input into the store."""
    id_type = job.vocabulary.id_type
    if job.epoch_files:
        ids = {token: number for number, token in enumerate(job.tokenizer.tokens)}
        tinybert_epochs.write_part(job.work, part, ids, id_type, job.settings)
    else:
        documents = text.read_documents(part)
        store.write_part(job.work, part, documents, job.tokenize, id_type)


def _create(job: Job, parts: Sequence[text.Part], execute: processes.Execution) -> dict[str, Split]:
    """Both passes; what is complete is not done again."""
    left = [part for part in parts if not store.part_is_written(job.work, part.number)]
    logging.info("Tokenizing: %d of %d parts are left.", len(left), len(parts))
    execute(tokenize_part, [(job, part) for part in left])
    store.merge_parts(job.work, len(parts), job.vocabulary.id_type)
    opened = open_store(job.work, job.fingerprint)
    if job.epoch_files:
        _check_epochs(parts, opened)
    pairs = job.settings.next_sentence and not job.epoch_files
    splits = divide(job.work, opened, job.heldout_fraction, job.num_shards, pairs)
    manifest.clear(pathlib.Path(job.folder))
    shards = [
        (job, name, number)
        for name, split in splits.items()
        for number in range(split.num_shards)
        if not counts_path(
            job, records.shard_path(job.folder, name, number, split.num_shards)
        ).is_file()
    ]
    logging.info(
        "Writing: %d of %d shards are left.",
        len(shards),
        sum(s.num_shards for s in splits.values()),
    )
    execute(write_shard, shards)
    return splits


def _of_epochs(settings: Settings) -> Settings:
    """The settings that count where instances are made already."""
    if settings.dynamic_masking:
        raise ValueError(
            "TinyBERT's epoch files hold their masks. Received: dynamic_masking=True. Leave it "
            "out, or create records from text."
        )
    return Settings(settings.max_seq_length, settings.max_predictions_per_seq)


def _check_epochs(parts: Sequence[text.Part], opened: store.Store) -> None:
    counts: collections.Counter[str] = collections.Counter()
    borders = opened.part_documents
    for part in parts:
        counts[part.path] += borders[part.number + 1] - borders[part.number]
    for path, count in counts.items():
        tinybert_epochs.check_counts(path, count)


def _check(heldout_fraction: float, num_shards: int) -> None:
    if not 0 <= heldout_fraction <= 0.5:
        raise ValueError(f"Expected heldout_fraction from 0 to 0.5. Received: {heldout_fraction}.")
    if num_shards < 1:
        raise ValueError(f"Expected num_shards of at least 1. Received: {num_shards}.")
