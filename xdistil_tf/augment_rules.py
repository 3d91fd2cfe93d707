"""Varies the train examples of a task by rules; the file that `distill --transfer_file` takes.

```
task folder -> tags, chunk by chunk -> words of each tag -> variants, chunk by chunk -> one TSV
```

A killed call goes on at the chunks that were not finished.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from absl import logging

from xdistil_tf import augmented_file, files
from xdistil_tf.data import readers
from xdistil_tf.data.augmentation import parts_of_speech, row_chunks, rows, rules
from xdistil_tf.data.augmentation.row_chunks import Row
from xdistil_tf.data.augmentation.rules import Variant
from xdistil_tf.data.augmentation.sentence_words import Sentence
from xdistil_tf.data.augmentation.settings import RuleSettings
from xdistil_tf.data.corpus import workers
from xdistil_tf.data.examples import Example, TaskData
from xdistil_tf.data.layouts import USUAL_COLUMNS, Columns
from xdistil_tf.data.pretraining import draws
from xdistil_tf.interruption import Interruption

_CHUNK = 1024  # Examples of a task for a process.
_KEPT = "chunks that were finished"


def augment_by_rules(
    task_dir: files.Path,
    task: str,
    output_file: files.Path,
    settings: RuleSettings = RuleSettings(),
    columns: Columns = USUAL_COLUMNS,
    max_bad_rows: int = 0,
    num_processes: int = 0,
    interruption: Interruption | None = None,
) -> dict[str, Any]:
    """Writes the examples and their variants and, last of all, `<output_file>.json`.

    Nothing is done if that says that the file was made from the same. Examples keep their label;
    variants have none.

    Args:
      task_dir, task, columns, max_bad_rows: As `read_task` takes them.
      output_file: A headed TSV: `id text text_b label source_id rules`.
      settings: How.
      num_processes: 0: one for each core. The file does not depend on it.
      interruption: Asked after each chunk of examples whether to stop.

    Returns:
      The content of the manifest.

    Raises:
      FileNotFoundError, ValueError: If the task is missing or does not fit; if no text changes.
      ImportError: If the tagger's library is not installed.
      Interrupted: If a stop was asked for; chunks that are complete stay.
    """
    if readers.task_name(task) == "tagging":
        raise ValueError("Tags belong to words, which would change. Expected a task of sentences.")
    data = readers.read_task(task_dir, task, columns, max_bad_rows)
    if settings.n_iter is None:
        settings = dataclasses.replace(settings, n_iter=10 if data.pair else 20)
    tagger = None
    if settings.p_pos:
        parts_of_speech.load_tagger(settings.pos_tagger)  # What is missing is said at once.
        tagger = parts_of_speech.version(settings.pos_tagger)
    made_from = {
        "format": augmented_file.FORMAT,
        "method": "rules",
        "task": data.task,
        "settings": dataclasses.asdict(settings) | {"ngram_lengths": [*settings.ngram_lengths]},
        "inputs": {path.name: files.file_fingerprint(path) for path in data.files},
        "tagger": tagger,
    }
    basis = {"columns": dataclasses.asdict(columns), "max_bad_rows": max_bad_rows, "chunk": _CHUNK}
    job = _Job(data, settings, num_processes, interruption or Interruption())
    return augmented_file.make(output_file, data.files, made_from, basis, job.write)


class _Job:
    """Writes one file."""

    def __init__(
        self,
        data: TaskData,
        settings: RuleSettings,
        num_processes: int,
        interruption: Interruption,
    ):
        self._settings, self._num_processes = settings, num_processes
        self._check = functools.partial(augmented_file.check, interruption, _KEPT)
        self._reported = [
            one for name, split in data.splits.items() if name != "train" for one in split
        ]
        reported = {row_chunks.digest(one) for one in self._reported}
        train = [rows.on_one_line(one) for one in data.splits["train"]]
        self._examples = [one for one in train if row_chunks.digest(one) not in reported]
        self._overlap = len(train) - len(self._examples)
        self._all = len(train)

    def write(self, output: pathlib.Path, work: pathlib.Path) -> dict[str, Any]:
        chunks = [
            self._examples[start : start + _CHUNK]
            for start in range(0, len(self._examples), _CHUNK)
        ]
        if not chunks:
            raise ValueError("All train texts stand in dev or test: there is nothing to vary.")
        if self._settings.p_pos:
            self._tag(work, chunks)
        self._do("Variants", write_variants, work, chunks, row_chunks.is_complete)
        augmented_file.manifest_path(output).unlink(missing_ok=True)  # It speaks of another file.
        limit = self._settings.num_samples
        merged = row_chunks.merge(work, len(chunks), output, self._reported, limit, self._check)
        merged.dropped["overlap"] += self._overlap
        return {
            "examples": self._all,
            "rows": merged.rows,
            "dropped": merged.dropped,
            "rates": _rates(merged.counts),
        }

    def _tag(self, work: pathlib.Path, chunks: Sequence[Sequence[Example]]) -> None:
        if _table_path(work).is_file():
            return
        self._do("Tags", write_tags, work, chunks, lambda *one: _tags_path(*one).is_file())
        counts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
        for number in range(len(chunks)):
            with open(_tags_path(work, number), encoding="utf-8") as handle:
                for tag, seen in json.loads(handle.readline()).items():
                    counts[tag].update(seen)
        files.write_json(_table_path(work), counts)

    def _do(
        self,
        what: str,
        function: Callable[[tuple], int],
        work: pathlib.Path,
        chunks: Sequence[Sequence[Example]],
        is_complete: Callable[[pathlib.Path, int], bool],
    ) -> None:
        """Applies a function to each chunk that is not complete."""
        tasks = [
            (str(work), number, chunk, self._settings)
            for number, chunk in enumerate(chunks)
            if not is_complete(work, number)
        ]
        processes = min(self._num_processes or workers.available_processes(), len(tasks))
        if not tasks:
            return
        with workers.started(function, processes) as ordered:
            for number in ordered(tasks):
                done = min((number + 1) * _CHUNK, len(self._examples))
                logging.info("%s of %d of %d examples.", what, done, len(self._examples))
                self._check()


def _rates(counts: dict[str, int]) -> dict[str, float | int]:
    """What happened, as shares: to words, and to texts in an iteration."""
    words, attempts = max(counts["words"], 1), max(counts["attempts"], 1)
    return {
        "attempts": counts["attempts"],
        "mask": round(counts["mask"] / words, 4),
        "pos": round(counts["pos"] / words, 4),
        "ngram": round(counts["ngram"] / attempts, 4),
        "all_replaced": round(counts["all_replaced"] / attempts, 4),
    }


def write_tags(task: tuple[str, int, Sequence[Example], RuleSettings]) -> int:
    """Tags the texts of a chunk; returns its number.

    The first line counts the words of each tag; then comes a line for each text.
    """
    work, number, examples, settings = task
    sentences = [Sentence.of(text).words for one in examples for text in _texts(one)]
    tags = parts_of_speech.load_tagger(settings.pos_tagger)(sentences)
    counts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for words, given in zip(sentences, tags, strict=True):
        for word, tag in zip(words, given, strict=True):
            counts[tag][word] += 1
    with files.replaced_file(_tags_path(pathlib.Path(work), number), "w") as handle:
        handle.write(json.dumps(counts) + "\n")
        handle.writelines(" ".join(one) + "\n" for one in tags)
    return number


def write_variants(task: tuple[str, int, Sequence[Example], RuleSettings]) -> int:
    """Writes the rows of a chunk; returns its number."""
    folder, number, examples, settings = task
    work, table = pathlib.Path(folder), None
    texts = [Sentence.of(text) for one in examples for text in _texts(one)]
    tags: Iterable[Sequence[int]] = [()] * len(texts)
    if settings.p_pos:
        table = _words_by_tag(str(_table_path(work)))
        lines = _tags_path(work, number).read_text(encoding="utf-8").splitlines()[1:]
        tags = [table.numbers(line.split(" ")) for line in lines]
    keys = [
        draws.key("rules", settings.seed, one.id, letter)
        for one in examples
        for letter, _ in zip("ab", _texts(one), strict=False)
    ]
    alone = [one.text_b is None for one in examples for _ in _texts(one)]
    counts: rules.Counts = collections.Counter()
    made = rules.variants(
        [rules.Task(*one) for one in zip(texts, tags, keys, alone, strict=True)],
        settings,
        settings.n_iter,
        table,
        counts,
    )
    found = iter(made)
    of_examples = [(one, [next(found) for _ in _texts(one)]) for one in examples]
    row_chunks.write_chunk(work, number, _rows(of_examples, settings), counts)
    return number


def _rows(
    examples: Sequence[tuple[Example, Sequence[Sequence[Variant]]]], settings: RuleSettings
) -> Iterator[Row]:
    """Each example, then what its iterations make of it, each text once."""
    for one, variants in examples:
        source, label = one.id, "" if one.label is None else str(one.label)
        yield Row(source, one.text, one.text_b or "", label, source, "", 0)
        made = (
            _of_pair(one, *variants, settings)
            if one.text_b is not None
            else ((iteration, text, "", names) for iteration, text, names in variants[0])
        )
        seen = {(one.text, one.text_b or "")}
        for iteration, text, text_b, names in made:
            if text is None or (text, text_b) in seen:
                continue
            seen.add((text, text_b))
            yield Row(f"{source}/{iteration}", text, text_b, "", source, names, iteration)


def _of_pair(
    example: Example,
    variants: Sequence[Variant],
    variants_b: Sequence[Variant],
    settings: RuleSettings,
) -> Iterator[tuple[int, str | None, str, str]]:
    """Iteration, texts and rules; the text is `None` where nothing is left of one of the two."""
    of_a = {one.iteration: one for one in variants}
    of_b = {one.iteration: one for one in variants_b}
    key = draws.key("rules", settings.seed, example.id, "sides")
    for iteration, side in enumerate(rules.sides(key, settings.n_iter), start=1):
        text, text_b, names = example.text, example.text_b, []
        if "a" in side and iteration in of_a:
            text = of_a[iteration].text
            names.append(f"a:{of_a[iteration].rules}")
        if "b" in side and iteration in of_b:
            text_b = of_b[iteration].text
            names.append(f"b:{of_b[iteration].rules}")
        if names:
            yield iteration, None if text_b is None else text, text_b or "", " ".join(names)


def _texts(example: Example) -> tuple[str, ...]:
    return (example.text,) if example.text_b is None else (example.text, example.text_b)


@functools.lru_cache(maxsize=1)
def _words_by_tag(path: str) -> rules.WordsByTag:
    return rules.WordsByTag(files.read_json(path))


def _tags_path(work: pathlib.Path, number: int) -> pathlib.Path:
    return work / f"tags-{number:05d}.txt"


def _table_path(work: pathlib.Path) -> pathlib.Path:
    return work / "words_by_tag.json"
