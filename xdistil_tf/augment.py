"""Augments the train examples of a task; the file that `distill --augmented` takes.

```
task folder -> texts, each once -> candidates, chunk by chunk -> rounds -> one TSV and its manifest
```

A killed call goes on at the chunk that was not finished.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from xdistil_tf import augmented_file, files
from xdistil_tf.data import readers
from xdistil_tf.data.augmentation import candidates as candidates_lib
from xdistil_tf.data.augmentation import rounds, rows, vectors, words
from xdistil_tf.data.augmentation.settings import Settings
from xdistil_tf.data.examples import TaskData
from xdistil_tf.data.layouts import USUAL_COLUMNS, Columns
from xdistil_tf.data.pretraining.vocabulary import Vocabulary
from xdistil_tf.data.tokenization import find_tokenizer, load_tokenizer
from xdistil_tf.data.tokenizer import Tokenizer
from xdistil_tf.interruption import Interruption
from xdistil_tf.models import folders, pretrained

# Rounds of each task as published; the paper says 20 for all.
ROUNDS = {"sst-2": 20, "qnli": 20, "qqp": 10, "mnli": 10}
_ROUNDS = 30
_CHUNK = 1024  # Texts whose candidates are found, and kept, together.
_PUBLISHED_ROWS = 100_000  # Of the word vectors that the released code looks at.


def augment(
    task_dir: files.Path,
    task: str,
    masked_lm: str,
    output_file: files.Path,
    settings: Settings = Settings(),
    word_vectors: files.Path | None = None,
    columns: Columns = USUAL_COLUMNS,
    max_bad_rows: int = 0,
    interruption: Interruption | None = None,
) -> dict[str, Any]:
    """Writes augmented examples and, last of all, `<output_file>.json`.

    Nothing is done if that says that the file was made from the same.

    Args:
      task_dir, task, columns, max_bad_rows: As `read_task` takes them.
      masked_lm: Model folder with a masked-LM head.
      output_file: A headed TSV: `id text text_b label source_id rules`.
      settings: How.
      word_vectors: GloVe text; `None`: the word embeddings of the masked LM.
      interruption: Asked after each chunk of texts whether to stop.

    Returns:
      The content of the manifest; its `seconds` are those of the call that finished.

    Raises:
      FileNotFoundError, ValueError: If task, model or vectors are missing or do not fit.
      Interrupted: If a stop was asked for; chunks that are complete stay.
    """
    if readers.task_name(task) == "tagging":
        raise ValueError("Tags belong to words, which would change. Expected a task of sentences.")
    data = readers.read_task(task_dir, task, columns, max_bad_rows)
    file_vectors = vectors.FileVectors(word_vectors) if word_vectors else None
    settings = dataclasses.replace(
        settings, rounds=settings.rounds or ROUNDS.get(data.task, _ROUNDS)
    )
    folder, stop = folders.find(masked_lm), interruption or Interruption()
    tokenizer = load_tokenizer(find_tokenizer(folder))

    def write(output: pathlib.Path, work: pathlib.Path) -> dict[str, Any]:
        asked = _Asked(tokenizer, folder, file_vectors, settings)
        examples = [rows.on_one_line(one) for one in data.splits["train"]]
        users = rows.users(examples)
        asked.write_candidates(users, work, stop)
        augmented_file.manifest_path(output).unlink(missing_ok=True)  # It speaks of another file.
        found = Found(work, list(users))
        counts = rows.write_rows(
            output, data, examples, found, tokenizer, settings, lambda: _check(stop)
        )
        return {"examples": len(examples), "texts": len(users), **counts}

    return augmented_file.make(
        output_file,
        [*data.files, *([word_vectors] if word_vectors else [])],
        _made_from(data, folder, tokenizer, word_vectors, settings),
        {"columns": dataclasses.asdict(columns), "max_bad_rows": max_bad_rows, "chunk": _CHUNK},
        write,
    )


def _made_from(
    data: TaskData,
    folder: str,
    tokenizer: Tokenizer,
    word_vectors: files.Path | None,
    settings: Settings,
) -> dict[str, Any]:
    return {
        "format": augmented_file.FORMAT,
        "method": settings.method,
        "task": data.task,
        "settings": dataclasses.asdict(settings),
        "inputs": {path.name: files.file_fingerprint(path) for path in data.files},
        "masked_lm": pretrained.weights_fingerprint(folder),
        "tokenizer": tokenizer.fingerprint,
        "word_vectors": files.file_fingerprint(word_vectors) if word_vectors else None,
    }


class _Asked:
    """Masked LM and word vectors, asked about texts."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        folder: str,
        file_vectors: vectors.FileVectors | None,
        settings: Settings,
    ):
        self._tokenizer, self._settings = tokenizer, settings
        self._vocabulary = Vocabulary.of(tokenizer)
        self._vocabulary.require_mask(1.0)
        self._model = _load_masked_lm(folder, tokenizer, settings.precision)
        self._options = candidates_lib.Options(
            count=settings.candidates,
            max_length=min(512, folders.longest_input(self._model.config) or 512),
            batch_tokens=settings.batch_tokens,
            as_published=settings.as_published,
        )
        self._wordlist = candidates_lib.Wordlist(tokenizer, self._vocabulary, settings.as_published)
        self._file_vectors = file_vectors

    def write_candidates(
        self,
        users: Mapping[str, Sequence[rows.User]],
        work: pathlib.Path,
        interruption: Interruption,
    ) -> None:
        """Of each text, chunk by chunk; what was found before is not asked for again."""
        texts = list(users)
        masked_lm = masked_lm_function(
            self._model, self._wordlist.allowed, self._settings.candidates + 1
        )
        neighbours = self._neighbours(texts, work, interruption)
        for number, start in enumerate(range(0, len(texts), _CHUNK)):
            path = _chunk_path(work, number)
            if not path.is_file():
                chunk = words.read_texts(self._tokenizer, texts[start : start + _CHUNK])
                made = candidates_lib.find_candidates(
                    chunk,
                    [self._replaced_words(one, users[one.text]) for one in chunk],
                    masked_lm,
                    neighbours,
                    self._wordlist,
                    self._vocabulary,
                    self._options,
                )
                with files.replaced_file(path, "w") as handle:
                    handle.writelines(json.dumps(one) + "\n" for one in made)
                logging.info(
                    "Candidates of %d of %d texts.", min(start + _CHUNK, len(texts)), len(texts)
                )
            _check(interruption)

    def _replaced_words(self, text: words.Text, users: Sequence[rows.User]) -> set[int]:
        """The words that any round of any example replaces."""
        chosen = self._settings
        return {
            word
            for user in users
            for drawn in rounds.drawn_words(
                text, chosen.rounds, chosen.replace_prob, (chosen.seed, *user)
            )
            for word in drawn
        }

    def _neighbours(
        self, texts: Sequence[str], work: pathlib.Path, interruption: Interruption
    ) -> dict[str, list[str]]:
        """Of words of several pieces, in lower case."""
        path = work / "neighbours.json"
        if not path.is_file():
            wanted: set[str] = set()
            for start in range(0, len(texts), _CHUNK):
                chunk = words.read_texts(self._tokenizer, texts[start : start + _CHUNK])
                wanted |= candidates_lib.several_pieces(chunk)
            logging.info("Neighbours of %d words of several pieces.", len(wanted))
            files.write_json(path, self._nearest(wanted, interruption))
        return files.read_json(path)

    def _nearest(self, wanted: set[str], interruption: Interruption) -> dict[str, tuple[str, ...]]:
        published = self._settings.as_published
        if self._file_vectors is not None:
            table = self._file_vectors
            queries = table.of(wanted)
        else:
            matrix = self._model.embedding.word.numpy()
            whole = np.flatnonzero(self._wordlist.whole[: len(matrix)])
            table = vectors.TableVectors(
                [self._wordlist.text(int(one)) for one in whole], matrix[whole]
            )
            queries = {
                one.text: matrix[list(one.ids)].mean(0)
                for one in words.read_texts(self._tokenizer, sorted(wanted))
                if one.ids
            }
        return vectors.nearest(
            queries,
            _checked(table.blocks(_PUBLISHED_ROWS if published else None), interruption),
            self._settings.candidates,
            (lambda word: True) if published else str.isalpha,
        )


def _load_masked_lm(folder: str, tokenizer: Tokenizer, precision: str):
    """The model.

    Raises:
      ValueError: If it has no masked-LM head, or fewer words than the tokenizer.
    """
    model = folders.load_model(folder, precision, only_run=True)
    if "masked_lm_logits" not in model.available:
        raise ValueError(
            f"{folder} has no masked-LM head to ask. Received: a head of kind "
            f"{folders.head_kind(folder)!r}. Expected a model pretrained by masked language "
            "modelling; train --recipe=configs/bert/continue_pretraining.yaml "
            "--init_checkpoint=<it> makes one."
        )
    if model.config["vocab_size"] < tokenizer.vocab_size:
        raise ValueError(
            f"{folder} has {model.config['vocab_size']} words, its tokenizer "
            f"{tokenizer.vocab_size}. Expected a tokenizer of the model."
        )
    return model


def _checked(blocks: vectors.Blocks, interruption: Interruption) -> vectors.Blocks:
    for block in blocks:
        _check(interruption)
        yield block


def _check(interruption: Interruption) -> None:
    augmented_file.check(interruption, "candidates that were found")


def _chunk_path(work: pathlib.Path, number: int) -> pathlib.Path:
    return work / f"candidates-{number:05d}.jsonl"


class Found:
    """Candidates by text, read line by line as they are needed: all of them may fill memory."""

    def __init__(self, work: pathlib.Path, texts: Sequence[str]):
        self._places = {text: number for number, text in enumerate(texts)}
        self._work = work
        self._begins = np.zeros(len(texts), np.int64)  # Of the line of each text in its chunk.
        for number, start in enumerate(range(0, len(texts), _CHUNK)):
            with open(_chunk_path(work, number), "rb") as handle:
                sizes = np.array([len(line) for line in handle])
            self._begins[start : start + _CHUNK] = np.cumsum(sizes) - sizes

    def __call__(self, text: str) -> rows.Candidates:
        place = self._places[text]
        with open(_chunk_path(self._work, place // _CHUNK), "rb") as handle:
            handle.seek(self._begins[place])
            return {int(k): tuple(v) for k, v in json.loads(handle.readline()).items()}


def masked_lm_function(model, allowed: np.ndarray, count: int) -> candidates_lib.MaskedLm:
    """The most probable allowed words at one place of each row, computed in the graph.

    Args:
      model: With a masked-LM head.
      allowed: bool, at most one for each word of the model.
      count: How many; fewer where no more are allowed.
    """
    size = model.config["vocab_size"]
    padded = np.zeros(size, bool)
    padded[: len(allowed)] = allowed
    out = tf.constant(np.where(padded, 0.0, -1e9), tf.float32)
    count = min(count, int(padded.sum()))
    ids = tf.TensorSpec([None, None], tf.int32)
    one = tf.TensorSpec([None], tf.int32)

    @tf.function(input_signature=[ids, ids, one, one])
    def step(input_ids, segment_ids, lengths, positions):
        features = {
            "input_ids": input_ids,
            "input_mask": tf.sequence_mask(lengths, tf.shape(input_ids)[1], tf.int32),
            "segment_ids": segment_ids,
            "masked_lm_positions": positions[:, tf.newaxis],
        }
        given = model(features, training=False, request={"masked_lm_logits": None})
        scores = tf.cast(given["masked_lm_logits"][:, 0], tf.float32) + out
        return tf.math.top_k(scores, count).indices

    return lambda *arrays: step(*map(tf.constant, arrays)).numpy()
