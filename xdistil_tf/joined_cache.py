"""Caches of teachers that read other ids, or of several teachers, as one cache of the student's.

```
cache of each teacher over its own records of the same texts -> rows by id, or by sentence and word
                                                             -> weighted mean -> side-cars
```

The result looks as if one teacher had been asked about the student's records, except that of
tokens only the first piece of each word says something.
"""

from __future__ import annotations

import dataclasses
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from xdistil_tf import files, recipe, versions
from xdistil_tf.cache_folder import FORMAT, TeacherCache, read_info, sidecar_stem
from xdistil_tf.data import windows
from xdistil_tf.data.record_set import RecordSet
from xdistil_tf.data.row_files import sidecar_paths
from xdistil_tf.data.sidecars import RowShape, SidecarReader, SidecarWriter
from xdistil_tf.interruption import Interrupted, Interruption
from xdistil_tf.teacher_weights import Weights

_CHUNK = 1024  # Records that are joined together.
# What can be compared between texts that were cut into other pieces.
JOINABLE = ("logits", "representation", "marginals")


@dataclasses.dataclass(frozen=True)
class Source:
    """A teacher's answers.

    Attributes:
      cache: Over the teacher's own records.
      records: These records by split.
      same_ids: Whether they are the student's.
    """

    cache: TeacherCache
    records: Mapping[str, RecordSet]
    same_ids: bool


def demanded(config: recipe.Recipe, by_word: bool = False) -> dict[str, None]:
    """What a recipe's stages ask of a teacher, as far as other ids allow it.

    Args:
      config: The recipe.
      by_word: Whether answers are joined word by word, of which further pieces know nothing.

    Raises:
      ValueError: If a term compares what only equal ids have, or all pieces where words alone are
        known; names it.
    """
    wanted: dict[str, None] = {}
    for stage in config.stages:
        for term in stage.objective:
            if term.loss == "soft_task":
                wanted["logits"] = None
            elif term.loss != "task" and term.target == "teacher":
                name = term.target_output or term.output
                if name not in JOINABLE:
                    raise ValueError(
                        f"Stage {stage.name!r} compares {name!r}, which several teachers, or one "
                        f"with another tokenizer, do not share. Expected one of {list(JOINABLE)}."
                    )
                wanted[name] = None
            if by_word and term.target == "teacher" and term.loss != "task" and term.at != "word":
                raise ValueError(
                    f"Stage {stage.name!r} compares all pieces, and a teacher with another "
                    "tokenizer is compared word by word. Set at: word for its terms."
                )
    if not wanted:
        raise ValueError("The recipe compares nothing with a teacher. Give one teacher, or none.")
    return wanted


def write_joined_cache(
    sources: Sequence[Source],
    weights: Weights,
    record_sets: Mapping[str, RecordSet],
    folder: files.Path,
    identity: Mapping[str, Any],
    interruption: Interruption | None = None,
) -> TeacherCache:
    """Joins caches; complete shards are skipped, a finished cache of the same is left as it is.

    Args:
      sources: The teachers' answers; all hold the same outputs.
      weights: How much each counts.
      record_sets: The student's records by split.
      folder: The new cache.
      identity: What `cache.json` says under `made_from`: the request, and from what it was made.
      interruption: Asked after each shard whether to stop.

    Raises:
      Interrupted: If a stop was asked for; finished shards stay.
      ValueError: If a sentence, or one of its words, is missing in a source; if widths differ; or
        if the folder holds something else.
    """
    folder = pathlib.Path(folder)
    shards = [
        (split, RecordSet(path)) for split, records in record_sets.items() for path in records.paths
    ]
    known = {name: one for _, shard in shards for name, one in shard.shard_fingerprints().items()}
    path = folder / "cache.json"
    info = {"format": FORMAT, "made_from": dict(identity), "records": known, "finished": False}
    if path.is_file():
        earlier = read_info(path)
        if files.fingerprint(earlier["made_from"]) != files.fingerprint(info["made_from"]):
            raise ValueError(
                f"The teacher cache {folder} was made from something else. Use another folder, or "
                "remove this one."
            )
        if earlier["finished"] and earlier["records"] == known:
            logging.info("%s is complete already.", folder)
            return TeacherCache(folder)
        # Before the new records are written down: a stop in between must not vouch for them.
        _remove_rows(folder, [n for n, one in earlier["records"].items() if known.get(n) != one])
    files.write_json(path, info)
    began = time.perf_counter()
    answers = {
        split: [_Answers(one, split, identity["request"]) for one in sources]
        for split in record_sets
    }
    rows = _common_rows(answers)
    for number, (split, shard) in enumerate(shards, start=1):
        _join_shard(answers[split], weights, shard, folder, rows, identity["precision"])
        if interruption is not None and interruption.requested:
            raise Interrupted(f"Stopped after joining {number} of {len(shards)} files.")
    made = [
        sidecar_paths(sidecar_stem(folder, shard.paths[0], name))[0]
        for _, shard in shards
        for name in rows
    ]
    size = sum(one.stat().st_size for one in made)
    info |= {
        "finished": True,
        "outputs": {n: {"kind": r.kind, "shape": list(r.shape)} for n, r in rows.items()},
        "bytes": size,
        "planned_bytes": size,
        "seconds": round(time.perf_counter() - began, 2),
        "versions": versions.environment(),
    }
    files.write_json(path, info)
    return TeacherCache(folder)


def _remove_rows(folder: pathlib.Path, shards: Sequence[str]) -> None:
    """Of shards whose records are others now."""
    for shard in shards:
        for path in folder.glob(f"{shard}.*"):
            path.unlink()


def _common_rows(answers: Mapping[str, Sequence[_Answers]]) -> dict[str, RowShape]:
    """The rows that all sources have."""
    every = [one.rows for some in answers.values() for one in some]
    for other in every:
        if other != every[0]:
            raise ValueError(
                f"The teachers' outputs differ in width: {every[0]} and {other}. Expected teachers "
                "of one width, or terms on logits alone."
            )
    return every[0]


def _join_shard(
    answers: Sequence[_Answers],
    weights: Weights,
    shard: RecordSet,
    folder: pathlib.Path,
    rows: Mapping[str, RowShape],
    precision: str,
) -> None:
    stems = {name: sidecar_stem(folder, shard.paths[0], name) for name in rows}
    if all(sidecar_paths(stem)[1].is_file() for stem in stems.values()):
        return
    for name, row in rows.items():
        with SidecarWriter(stems[name], row.kind, row.shape, precision) as writer:
            for start in range(0, len(shard), _CHUNK):
                numbers = np.arange(start, min(start + _CHUNK, len(shard)))
                part = _Part.of(shard, numbers)
                shares = weights.of(part.languages)
                mean = sum(
                    one.values(name, part) * share.reshape(-1, *[1] * (len(row.of(1))))
                    for one, share in zip(answers, shares, strict=True)
                )
                writer.write(part.ids.tolist(), mean, part.lengths.tolist())


@dataclasses.dataclass(frozen=True)
class _Part:
    """Some records: their ids, lengths and languages, and the word of each piece."""

    ids: np.ndarray
    lengths: np.ndarray
    languages: np.ndarray
    words: np.ndarray  # int64 [B, T], -1 where there is none.

    @classmethod
    def of(cls, records: RecordSet, numbers: np.ndarray) -> _Part:
        parsers = {
            "language": tf.io.FixedLenFeature([], tf.string, b"default"),
            "word_index": tf.io.RaggedFeature(tf.int64),
        }
        parsed = tf.io.parse_example(records.read_many(numbers), parsers)
        lengths = records.lengths[numbers]
        words = parsed["word_index"].to_tensor(-1).numpy()
        missing = int(lengths.max()) - words.shape[1]
        words = np.pad(words, [(0, 0), (0, max(missing, 0))], constant_values=-1)
        return cls(records.ids[numbers], lengths, parsed["language"].numpy(), words)

    @property
    def begins(self) -> np.ndarray:
        """bool `[B, T]`, where a word begins."""
        return windows.first_pieces(self.words)


class _Answers:
    """Rows of one source for the student's records."""

    def __init__(self, source: Source, split: str, request: Mapping[str, Any]):
        self._same_ids, self._records = source.same_ids, source.records[split]
        names = {key: None for key in request}
        self._readers: dict[str, SidecarReader] = source.cache.readers(names, self._records)
        self.rows = {name: reader.row for name, reader in self._readers.items()}
        self._windows: dict[str, list[int]] = {}
        if not source.same_ids:
            for number, name in enumerate(self._records.ids.tolist()):
                sentence = windows.sentence_of(name.decode("utf-8"))[0]
                self._windows.setdefault(sentence, []).append(number)

    def values(self, name: str, part: _Part) -> np.ndarray:
        """float32 `[B, *row]`, padded to the longest of the part."""
        reader, longest = self._readers[name], int(part.lengths.max())
        if self._same_ids or reader.row.kind == "example":
            return reader.read(part.ids, part.lengths, longest)
        out = np.zeros((len(part.ids), *reader.row.of(longest)), np.float32)
        chosen = [self._of_sentence(name) for name in part.ids.tolist()]
        numbers = np.array(sorted({number for some in chosen for number in some}))
        place = {number: row for row, number in enumerate(numbers.tolist())}
        theirs = _Part.of(self._records, numbers)
        given = reader.read(theirs.ids, theirs.lengths, int(theirs.lengths.max()))
        begins, their_begins = part.begins, theirs.begins
        for row, some in enumerate(chosen):
            found = _best_places([place[number] for number in some], theirs.words, their_begins)
            for position in np.flatnonzero(begins[row]):
                word = int(part.words[row, position])
                if word not in found:
                    sentence = part.ids[row].decode("utf-8", "replace")
                    raise ValueError(
                        f"The teacher's records {self._records.paths[0]} lack word {word} "
                        f"of {sentence}. Make them again from the same texts."
                    )
                out[row, position] = given[found[word]]
        return out

    def _of_sentence(self, name: bytes) -> list[int]:
        sentence = windows.sentence_of(name.decode("utf-8"))[0]
        if sentence not in self._windows:
            raise ValueError(
                f"The teacher's records {self._records.paths[0]} lack {sentence}. Make them "
                "again from the same texts."
            )
        return self._windows[sentence]


def _best_places(
    rows: Sequence[int], words: np.ndarray, begins: np.ndarray
) -> dict[int, tuple[int, int]]:
    """Word -> row and place of its first piece, where it is farthest from a border."""
    found: dict[int, tuple[int, tuple[int, int]]] = {}
    for order, row in enumerate(rows):
        places = np.flatnonzero(begins[row])
        if not len(places):
            continue
        first, last = int(words[row, places[0]]), int(words[row, places[-1]])
        for place in places.tolist():
            word = int(words[row, place])
            # The sentence's own ends are no borders.
            ahead = word - first if order else len(words[row])
            behind = last - word if order < len(rows) - 1 else len(words[row])
            distance = min(ahead, behind)
            if word not in found or distance > found[word][0]:
                found[word] = distance, (row, place)
    return {word: place for word, (_, place) in found.items()}


def joined_identity(
    request: Mapping[str, None],
    sources: Sequence[Source],
    weights: Weights,
    tokenizer: str,
    labels: Sequence[str],
) -> dict[str, Any]:
    """What `cache.json` says of a joined cache under `made_from`.

    Args:
      request: The outputs.
      sources: The teachers.
      weights: How much each counts.
      tokenizer: Fingerprint of the student's tokenizer.
      labels: The task's classes.
    """
    made = [one.cache.info["made_from"] for one in sources]
    first = made[0]
    return {
        "request": {key: None for key in request},
        "layer": first["layer"],
        "depth": first["depth"],
        "precision": first["precision"],
        "teacher": files.fingerprint([one["teacher"] for one in made]),
        "tokenizer": tokenizer,
        "labels": list(labels),
        "compute": first["compute"],
        "teachers": made,
        "weights": {"default": list(weights.usual)}
        | {name: list(one) for name, one in weights.by_language.items()},
        "by_word": any(not one.same_ids for one in sources),
    }


def check_terms(objective, made_from: Mapping[str, Any], folder: files.Path) -> None:
    """A cache joined by word knows first pieces alone.

    Raises:
      ValueError: If a term compares others; names it.
    """
    if not made_from.get("by_word"):
        return
    for term in objective.terms:
        if term.target == "teacher" and term.positions == "tokens" and not term.first_pieces:
            raise ValueError(
                f"Term {term.name!r} compares all pieces, and the teacher cache {folder} was "
                "joined by word, from a teacher with another tokenizer. Set at: word."
            )
