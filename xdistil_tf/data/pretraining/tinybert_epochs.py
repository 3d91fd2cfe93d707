"""TinyBERT's `epoch_<i>.json`: instances that are made already, one JSON object a line.

    {"tokens": ["[CLS]", "the", "[MASK]", …], "segment_ids": [0, 0, …], "is_random_next": false,
     "masked_lm_positions": [2], "masked_lm_labels": ["soup"]}

They are taken as they are. In the store an instance is a document of five sentences: tokens,
segments, positions, labels, and whether the next segment is random. Instances say nothing of the
document they come from: held-out ones may share text with those of train.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from xdistil_tf import files
from xdistil_tf.data.pretraining import draws, instances, masking, store, text
from xdistil_tf.data.pretraining.settings import Settings
from xdistil_tf.data.pretraining.vocabulary import Vocabulary

_EPOCH = re.compile(r"epoch_\d+\.json")
_METRICS = re.compile(r"epoch_\d+_metrics\.json")
_LISTS = ("tokens", "segment_ids", "masked_lm_positions", "masked_lm_labels")


def epoch_files(paths: Sequence[pathlib.Path]) -> list[pathlib.Path]:
    """The epoch files among the input; a glob may match their metrics too. Empty for text.

    Raises:
      ValueError: If text stands beside them.
    """
    epochs = [path for path in paths if _EPOCH.fullmatch(path.name)]
    others = [path for path in paths if path not in epochs and not _METRICS.fullmatch(path.name)]
    if epochs and others:
        raise ValueError(
            f"Expected text or TinyBERT's epoch files, not both. Received: {others[0]} beside "
            f"{epochs[0]}. Call once for each, with other output folders."
        )
    return epochs


def write_part(
    folder: pathlib.Path,
    part: text.Part,
    token_ids: Mapping[str, int],
    id_type: np.dtype,
    settings: Settings,
) -> None:
    """Converts the lines that begin in a part.

    Raises:
      ValueError: If a line is no instance or does not fit the settings; names file and line.
    """
    values: list[list[int]] = []
    digests = []
    for offset, line in _lines(part):
        try:
            row = _row(line, token_ids, settings)
        except ValueError as error:
            raise ValueError(text.damage(part.path, offset, str(error))) from error
        values += row
        digest = hashlib.blake2b(repr(row[:4]).encode("ascii"), digest_size=8).digest()
        digests.append(int.from_bytes(digest, "little"))
    flat = np.array(list(itertools.chain.from_iterable(values)), id_type)
    store.write_tokens(folder, part.number, flat)
    sizes = np.array(list(map(len, values)), np.int64)
    documents = np.full(len(digests), 5, np.int64)
    store.write_part_index(folder, part.number, sizes, documents, np.array(digests, np.uint64))


def _lines(part: text.Part) -> Iterator[tuple[int, bytes]]:
    with open(part.path, "rb") as handle:
        handle.seek(max(part.start - 1, 0))
        if part.start:
            handle.readline()
        while (offset := handle.tell()) < part.stop and (line := handle.readline()):
            if line.strip():
                yield offset, line


def _row(line: bytes, token_ids: Mapping[str, int], settings: Settings) -> list[list[int]]:
    """The five lists of an instance."""
    try:
        row = json.loads(line)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"expected one JSON object a line, received: {error}.") from error
    _check_shape(row, settings)
    segments, positions = row["segment_ids"], row["masked_lm_positions"]
    tokens, labels = (_ids(row[name], token_ids) for name in ("tokens", "masked_lm_labels"))
    return [tokens, segments, positions, labels, [int(row.get("is_random_next", False))]]


def _check_shape(row: Any, settings: Settings) -> None:
    lists = isinstance(row, dict) and all(isinstance(row.get(name), list) for name in _LISTS)
    if not lists:
        raise ValueError(f"expected the lists {', '.join(_LISTS)}. Make the file again.")
    length, slots = len(row["tokens"]), len(row["masked_lm_positions"])
    if not length or len(row["segment_ids"]) != length or len(row["masked_lm_labels"]) != slots:
        raise ValueError(
            "expected a segment for each token and a label for each masked position, received "
            f"{length} tokens, {len(row['segment_ids'])} segments, {slots} positions and "
            f"{len(row['masked_lm_labels'])} labels. Make the file again."
        )
    if length > settings.max_seq_length:
        raise ValueError(
            f"expected at most max_seq_length={settings.max_seq_length} tokens, received "
            f"{length}. Raise --max_seq_length."
        )
    if slots > settings.max_predictions_per_seq:
        raise ValueError(
            f"expected at most max_predictions_per_seq={settings.max_predictions_per_seq} masked "
            f"positions, received {slots}. Raise --max_predictions_per_seq."
        )
    if not all(type(one) is int and one in (0, 1) for one in row["segment_ids"]):
        raise ValueError("expected segment_ids of 0 and 1. Make the file again.")
    positions = row["masked_lm_positions"]
    whole = all(type(one) is int and 0 <= one < length for one in positions)
    if not whole or len(set(positions)) < slots:
        raise ValueError(
            f"expected different masked_lm_positions below {length}, the number of tokens, "
            f"received {positions}. Make the file again."
        )
    following = row.get("is_random_next", False)
    if following not in (False, True):
        raise ValueError(
            f"expected is_random_next of true or false, received {following!r}. Make the file "
            "again."
        )


def _ids(tokens: Sequence[str], token_ids: Mapping[str, int]) -> list[int]:
    try:
        return [token_ids[token] for token in tokens]
    except (KeyError, TypeError) as error:
        unknown = next(one for one in tokens if not isinstance(one, str) or one not in token_ids)
        raise ValueError(
            f"the token {unknown!r} is not in the vocabulary. Set --tokenizer to the one that "
            "made the file."
        ) from error


def check_counts(path: str, count: int) -> None:
    """Compares the lines of an epoch file with what stands in the metrics beside it.

    Raises:
      ValueError: If there are more or fewer: the file was cut off, or is of another run.
    """
    metrics = pathlib.Path(path).with_name(pathlib.Path(path).stem + "_metrics.json")
    if not metrics.is_file():
        logging.warning("There is no %s; whether %s is complete is not known.", metrics, path)
        return
    expected = files.read_json(metrics).get("num_training_examples")
    if expected != count:
        raise ValueError(
            f"{path} has {count} instances; {metrics} says num_training_examples={expected}. "
            "Copy or make the file again."
        )


def plan(source: store.Store, documents: np.ndarray, seed: int) -> Iterator[instances.Plan]:
    """Each instance once; only its place and its key, from which the order follows."""
    digests, occurrences = source.digests, source.occurrences
    for document in documents.tolist():
        key = draws.key(seed, int(digests[document]), int(occurrences[document]))
        yield instances.Plan(key, document, document + 1, 0, 0, False)


def build(
    source: store.Store, vocabulary: Vocabulary, settings: Settings, plans: np.ndarray
) -> masking.Batch:
    """The instances of some plans, padded."""
    rows = len(plans)
    input_ids = np.zeros((rows, settings.max_seq_length), np.int64)
    segment_ids = np.zeros(input_ids.shape, np.uint8)
    positions, labels = np.zeros((2, rows, settings.max_predictions_per_seq), np.int64)
    lengths, counts, following = np.zeros((3, rows), np.int64)
    for row, document in enumerate(plans["a_start"].tolist()):
        borders = source.borders(document).tolist()
        fields = [source.tokens(*one) for one in itertools.pairwise(borders)]
        lengths[row], counts[row], following[row] = len(fields[0]), len(fields[2]), fields[4][0]
        for target, values in zip((input_ids, segment_ids, positions, labels), fields[:4]):
            target[row, : len(values)] = values
    padding = np.arange(settings.max_seq_length) >= lengths[:, None]
    starts = masking.word_starts(input_ids, vocabulary, padding)
    return masking.Batch(
        input_ids, lengths, segment_ids, starts, following.astype(np.uint8), positions, labels,
        counts,
    )  # fmt: skip
