"""One shard: its documents cut, the instances put in a random order, masked, encoded, written.

First only plans (what is taken from where, 49 bytes an instance), spread by their random order
over as many files as keep each in memory; then tokens, batch by batch.
"""

from __future__ import annotations

import contextlib
import functools
import pathlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np

from xdistil_tf import files
from xdistil_tf.data import records
from xdistil_tf.data.pretraining import draws, instances, masking, splits, tinybert_epochs
from xdistil_tf.data.pretraining.encoding import encode_rows
from xdistil_tf.data.pretraining.job import Job
from xdistil_tf.data.pretraining.settings import Settings
from xdistil_tf.data.pretraining.store import Store
from xdistil_tf.data.pretraining.vocabulary import Vocabulary

_ROWS = 1024  # Of a batch: enough for numpy to be fast, little enough for the cache.
_SPILLED = 1 << 14  # Plans between two writes.
_BUCKET = 1 << 20  # About so many plans are ordered in memory at once.
_PLANS = np.dtype(
    [("order", "<u8"), ("key", "<u8")]
    + [(name, "<i8") for name in ("a_start", "a_stop", "b_start", "b_stop")]
    + [("is_random_next", "u1")]
)


def write_shard(job: Job, split: str, number: int) -> None:
    """Writes a shard, its index, and its counts, which say that it is complete."""
    store = open_store(job.work, job.fingerprint)
    own = splits.read_splits(job.work)[split]
    settings = job.settings if split == "train" else job.settings.heldout()
    path = records.shard_path(job.folder, split, number, own.num_shards)
    documents = splits.shard_documents(store, own, number)
    if job.epoch_files:
        plans = tinybert_epochs.plan(store, documents, job.seed)
        build = functools.partial(tinybert_epochs.build, store, job.vocabulary, settings)
    else:
        plans = _plan(job, store, split, documents, settings)
        build = functools.partial(_build, store, job.vocabulary, settings)
    buckets = _num_buckets(store, len(documents), settings)
    spilled = [job.work / f"{path.stem}.plans-{one:04d}" for one in range(buckets)]
    _spill(plans, spilled)
    counts = _write(path, store, _ordered(spilled), build)
    files.write_json(counts_path(job, path), counts)
    for one in spilled:
        one.unlink()


def counts_path(job: Job, shard: pathlib.Path) -> pathlib.Path:
    return job.work / f"{shard.stem}.json"


@functools.lru_cache(maxsize=1)
def open_store(folder: pathlib.Path, fingerprint: str) -> Store:
    """The store of a job, opened once in a process."""
    del fingerprint  # Another job may have the same folder.
    return Store(folder)


def _plan(
    job: Job, store: Store, split: str, documents: np.ndarray, settings: Settings
) -> Iterator[instances.Plan]:
    """The instances of the documents in every pass.

    A document's source of random numbers is keyed by (seed, split, pass, text, how many equal
    texts stand before): it depends on no other document, shard or process.
    """
    pool = memoryview(store.mapped(splits.documents_path(job.work, split), "<i8"))
    digests = memoryview(store.digests)
    occurrences = memoryview(store.occurrences)

    def other_than(digest: int) -> instances.Other:
        def draw(rng: random.Random) -> memoryview:
            while digests[number := pool[int(rng.random() * len(pool))]] == digest:
                pass
            return store.borders(number)

        return draw

    for document in documents.tolist():
        digest, borders = digests[document], store.borders(document).tolist()
        other = other_than(digest) if settings.next_sentence else None
        for number in range(settings.dupe_factor):
            key = draws.key(job.seed, split, number, digest, occurrences[document])
            yield from instances.plan_document(borders, random.Random(key), settings, other)


def _num_buckets(store: Store, documents: int, settings: Settings) -> int:
    tokens = store.borders(len(store) - 1)[-1] * documents / len(store)
    instances_at_most = tokens * settings.dupe_factor / (settings.max_seq_length / 4) + documents
    return int(instances_at_most // _BUCKET) + 1


def _spill(plans: Iterator[instances.Plan], paths: list[pathlib.Path]) -> None:
    """Spreads plans over files by the upper bits of their random order."""
    with contextlib.ExitStack() as stack:
        handles = [stack.enter_context(open(path, "wb")) for path in paths]
        for block in _blocks(plans):
            upper = (block["order"] >> np.uint64(32)) * np.uint64(len(paths)) >> np.uint64(32)
            for number, handle in enumerate(handles):
                handle.write(block[upper == number].tobytes())


def _blocks(plans: Iterator[instances.Plan]) -> Iterator[np.ndarray]:
    held: list[tuple] = []
    for plan in plans:
        held.append((0, *plan))
        if len(held) == _SPILLED:
            yield _with_order(held)
            held = []
    if held:
        yield _with_order(held)


def _with_order(held: list[tuple]) -> np.ndarray:
    block = np.array(held, _PLANS)
    block["order"] = draws.numbers(block["key"], instances.ORDER, 1)[:, 0]
    return block


def _ordered(paths: list[pathlib.Path]) -> Iterator[np.ndarray]:
    """Batches of plans in their random order, which does not depend on the number of files."""
    left = np.zeros(0, _PLANS)
    for path in paths:
        plans = np.fromfile(path, _PLANS)
        plans = plans[np.argsort(plans["order"], kind="stable")]
        left = np.concatenate([left, plans])
        whole = len(left) // _ROWS * _ROWS
        yield from (left[start : start + _ROWS] for start in range(0, whole, _ROWS))
        left = left[whole:]
    if len(left):
        yield left


def _build(
    store: Store, vocabulary: Vocabulary, settings: Settings, plans: np.ndarray
) -> masking.Batch:
    """`[CLS] A [SEP] B [SEP]` for each plan, some tokens masked where masks are on disk."""
    batch = assemble(store, vocabulary, settings, plans)
    if not settings.dynamic_masking:
        masking.mask(batch, plans["key"], vocabulary, settings)
    return batch


def assemble(
    store: Store, vocabulary: Vocabulary, settings: Settings, plans: np.ndarray
) -> masking.Batch:
    """The sequences of plans, truncated and padded, without masks."""
    room = settings.max_seq_length - settings.special_tokens
    cut = instances.truncate(
        plans["a_stop"] - plans["a_start"], plans["b_stop"] - plans["b_start"], room, plans["key"]
    )
    front_a, length_a, front_b, length_b = cut
    input_ids = np.zeros((len(plans), settings.max_seq_length), np.int64)
    rows = np.arange(len(plans))
    places = np.arange(settings.max_seq_length)
    input_ids[:, 0] = vocabulary.cls_id
    ends = length_a + 1  # Place of the first [SEP].
    lengths = ends + 1
    _fill(input_ids, store, plans["a_start"] + front_a, length_a, np.ones_like(ends))
    input_ids[rows, ends] = vocabulary.sep_id
    segment_ids = np.zeros(input_ids.shape, np.uint8)
    if settings.next_sentence:
        _fill(input_ids, store, plans["b_start"] + front_b, length_b, lengths)
        lengths = lengths + length_b + 1
        input_ids[rows, lengths - 1] = vocabulary.sep_id
        if vocabulary.uses_segments:
            segment_ids[:] = (places > ends[:, None]) & (places < lengths[:, None])
    starts = masking.word_starts(input_ids, vocabulary, places >= lengths[:, None])
    following = plans["is_random_next"] if settings.next_sentence else None
    return masking.Batch(input_ids, lengths, segment_ids, starts, following)


def _fill(
    input_ids: np.ndarray, store: Store, starts: np.ndarray, lengths: np.ndarray, places: np.ndarray
) -> None:
    """Puts spans of the store's tokens into rows, from a place of each row on."""
    tokens = store.gather(starts, lengths)
    rows = np.repeat(np.arange(len(lengths)), lengths)
    offsets = np.arange(len(tokens)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    input_ids[rows, np.repeat(places, lengths) + offsets] = tokens


def _write(path: pathlib.Path, store: Store, ordered: Iterator[np.ndarray], build) -> dict:
    counts: dict[str, Any] = dict.fromkeys(("records", "tokens", "masked", "random_next"), 0)
    stem = path.stem
    with records.ShardWriter(path) as writer:
        for plans in ordered:
            batch = build(plans)
            first = counts["records"]
            ids = [f"{stem}:{first + one}".encode() for one in range(len(plans))]
            lengths = batch.lengths.tolist()
            writer.extend(encode_rows(batch, ids), lengths, ids)
            store.release()
            counts["records"] += len(plans)
            counts["tokens"] += sum(lengths)
            counts["masked"] += 0 if batch.counts is None else int(batch.counts.sum())
            if batch.is_random_next is not None:
                counts["random_next"] += int(batch.is_random_next.sum())
    length_max = int(writer.index.lengths.max(initial=0))
    return counts | {"length_max": length_max, "sha256": writer.index.sha256}
