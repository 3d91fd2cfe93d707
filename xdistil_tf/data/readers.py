"""Task folders and transfer files as examples; every row is checked where it is read.

Reads what users have: GLUE's folders, XtremeDistil's (`text<TAB>label`, `words<TAB>tags`, language
prefixes), headed TSV, CSV, JSON lines and CoNLL files. UTF-8, no quoting in TSV.
"""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from absl import logging

from xdistil_tf.data import layouts, rows, tags
from xdistil_tf.data.examples import DEFAULT_LANGUAGE, Example, TaskData
from xdistil_tf.data.glue import GLUE
from xdistil_tf.data.layouts import USUAL_COLUMNS, Columns, Fields, Spec
from xdistil_tf.data.row_reader import RowReader, without_language
from xdistil_tf.data.rows import Problem
from xdistil_tf.data.task_files import file_names, given_files, task_files

_TASK_TYPES = ("classification", "regression", "tagging")
_METRICS = {
    "classification": "accuracy",
    "regression": "pearson_spearman",
    "tagging": "span_f1",
}
_LOOKED_AT = 10_000  # Sentences of a file that tell the scheme of its tags.


def read_task(
    task_dir: str | pathlib.Path,
    task: str,
    columns: Columns = USUAL_COLUMNS,
    max_bad_rows: int = 0,
    languages: Sequence[str] | None = None,
    labels: Sequence[str] | None = None,
    splits: Sequence[str] | None = None,
    allow_empty: bool = False,
) -> TaskData:
    """Reads a task folder.

    Args:
      task_dir: Folder with `train`, `dev`, `test` (`.tsv .csv .jsonl .conll`; `train-en.tsv` where
        languages have a file each) and perhaps `labels.tsv`, one label a line in order of ids.
      task: A GLUE name, or `classification`, `regression`, `tagging` (`ner`).
      columns: Names of columns, for headed TSV, CSV and JSON lines.
      max_bad_rows: So many damaged rows are left out and listed; one more is an error.
      languages: Keep only examples of these.
      labels: The labels in order, where they are known (of a trained model).
      splits: Read only these; the labels must then come from `labels`, `labels.tsv` or GLUE.
      allow_empty: Whether an empty text is a text: where each row wants an answer.

    Raises:
      FileNotFoundError: If the folder or its train file is missing.
      ValueError: If the task is unknown, train is empty, or a row is damaged; names file, line
        and cure.
    """
    folder = pathlib.Path(task_dir)
    if not folder.is_dir():
        raise FileNotFoundError(f"No folder {folder}. Set --task_dir to a folder of TSV files.")
    name, spec, glue_labels, metric = _task(task, columns)
    found = task_files(folder, splits, name)
    if splits is None and "train" not in found:
        raise FileNotFoundError(
            f"No train file in {folder}. Expected train.tsv (or .csv, .jsonl, .conll)."
        )
    if spec.pair is None:
        first = found.get("train") or next(iter(found.values()), None)
        spec = dataclasses.replace(spec, pair=bool(first) and layouts.has_pairs(first[0][0], spec))
    label_file = folder / "labels.tsv"
    known = tuple(labels or ()) or glue_labels
    if not known and spec.task_type != "regression" and label_file.is_file():
        known = _read_labels(label_file)
    scheme = "none"
    if spec.task_type == "tagging":
        scheme = _scheme(found, spec, known)
        known = _labels_in_iob2(known, scheme, label_file)
        metric = tags.NO_SPANS if scheme == "none" else metric
    reader = RowReader(spec, known, max_bad_rows, allow_empty, scheme)
    data: dict[str, list[Example]] = {}
    spoken: dict[str, set[str]] = {}
    for split in sorted(found, key=lambda one: one != "train"):
        kind = "optional" if split.startswith("test") else "required"
        data[split], spoken[split] = _of_languages(reader, found[split], kind, languages or ())
        if not data[split]:
            empty = f"{file_names([path for path, _ in found[split]])} of {folder} has no rows"
            if spoken[split]:
                empty = f"The {split} split of {folder} " + _lacks(languages, spoken[split])
            if split == "train" or splits is not None:
                raise ValueError(f"{empty}. Expected {'labelled ' * (split == 'train')}texts.")
            logging.warning("%s: the task is taken to have no %s split.", empty, split)
        if split == "train" and not reader.labels and spec.task_type != "regression":
            reader.labels = _observed_labels(data[split])
            _refuse_texts_as_labels(reader.labels, data[split], spec.task_type)
    used = [path for group in found.values() for path, _ in group]
    task_data = TaskData(
        name,
        spec.task_type,
        bool(spec.pair),
        metric,
        tuple(reader.labels),
        data,
        reader.bad_rows,
        tuple(used + [label_file] * label_file.is_file()),
    )
    if splits is None:
        _check_languages(task_data, folder, tuple(languages or ()), spoken)
    if task_data.languages != (DEFAULT_LANGUAGE,):
        logging.info("Languages in %s: %s.", folder, ", ".join(task_data.languages))
    return task_data


def read_transfer(
    patterns: str | Sequence[str],
    pair: bool = False,
    task: str = "classification",
    columns: Columns = USUAL_COLUMNS,
    max_bad_rows: int = 0,
    languages: Sequence[str] = (),
) -> tuple[list[Example], list[tuple[str, int, str]]]:
    """Reads texts without labels: one a line, the first columns of a TSV, or a headed TSV.

    Headed files are ours (`id text text_b label source_id rules`), those of the task, or name
    their columns in the usual way; labels are not read. Of `languages` (none: all) and those that
    name no language are kept.

    Returns:
      The examples, and the rows left out (`file, line, reason`).

    Raises:
      FileNotFoundError: If a file or glob matches nothing.
      ValueError: If a row is damaged, two files have the same name, or there is no text.
    """
    spec = dataclasses.replace(_task(task, columns)[1], pair=pair, headed=False)
    reader = RowReader(spec, (), max_bad_rows)
    examples = []
    for path in given_files(patterns, "transfer_file"):
        examples.extend(
            one
            for one in reader.read(path, "ignored", None)
            if not languages or one.language in (*languages, DEFAULT_LANGUAGE)
        )
    if not examples:
        spoken = f" in {', '.join(languages)}" if languages else ""
        raise ValueError(
            f"There are no texts{spoken} in {patterns}. Expected one text a line, or no "
            "--transfer_file: then those of train are taken."
        )
    return examples, reader.bad_rows


def read_augmented(
    patterns: str | Sequence[str],
    data: TaskData,
    max_bad_rows: int = 0,
    bad_rows: list[tuple[str, int, str]] | None = None,
) -> Iterator[Example]:
    """Yields the rows of augmented files; a row without a label is one whose gold is unknown.

    Files may be large: nothing is kept.

    Args:
      patterns: Globs of headed files (`id text text_b label source_id rules`), as `augment` writes
        them.
      data: The task that they belong to.
      max_bad_rows: So many damaged rows are left out.
      bad_rows: A list to which they are added.

    Raises:
      FileNotFoundError: If a file or glob matches nothing.
      ValueError: If a row is damaged; names file and line.
    """
    # The columns of what `augment` writes, whatever those of the task are.
    columns = Columns("text", "text_b" if data.pair else None, "label")
    reader = RowReader(
        Spec(data.task_type, data.pair, columns, headed=True), data.labels, max_bad_rows
    )
    if bad_rows is not None:
        reader.bad_rows = bad_rows
    for path in given_files(patterns, "augmented"):
        yield from reader.read(path, "optional", None, empty_is_unknown=True)


def _of_languages(
    reader: RowReader,
    files: Sequence[tuple[pathlib.Path, str | None]],
    kind: str,
    wanted: Sequence[str],
) -> tuple[list[Example], set[str]]:
    """The examples of some languages (none: of all), and the languages of all examples."""
    kept, spoken = [], set()
    for path, language in files:
        if wanted and language and language not in wanted:
            spoken.add(language)
            continue
        for example in reader.read(path, kind, language):
            spoken.add(example.language)
            if not wanted or example.language in wanted:
                kept.append(example)
    return kept, spoken


def _check_languages(
    data: TaskData,
    folder: pathlib.Path,
    wanted: Sequence[str],
    all_spoken: Mapping[str, Collection[str]],
) -> None:
    """Refuses a language that was named and cannot be trained on or reported."""
    spoken = {name: {one.language for one in split} for name, split in data.splits.items() if split}
    for name in ("train", "dev", "test"):
        missing = set(wanted or spoken["train"]) - spoken[name] if name in spoken else ()
        if missing and wanted:
            raise ValueError(
                f"The {name} split of {folder} {_lacks(missing, all_spoken[name])}. Take "
                f"{_quoted(missing)} out of --languages."
            )
        if missing:
            logging.warning("%s has no %s of %s.", folder, name, ", ".join(sorted(missing)))


def _lacks(wanted: Iterable[str], spoken: Iterable[str]) -> str:
    return f"has no examples of {_quoted(wanted)}, only of {_quoted(spoken)}"


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(map(repr, sorted(names)))


def _scheme(found: Mapping[str, list], spec: Spec, known: Sequence[str]) -> str:
    """The scheme of the tags: as given, as the first split's tags tell, or as the labels do."""
    given = spec.columns.tag_scheme
    if given not in tags.SCHEMES:
        raise ValueError(
            f"Unknown tag_scheme. Expected one of {list(tags.SCHEMES)}. Received: {given!r}."
        )
    if given != "auto":
        return given
    group = found.get("train") or next(iter(found.values()), [])
    seen: set[str] = set()
    for path, _ in group:
        for _, fields in itertools.islice(layouts.open_rows(path, spec, "optional"), _LOOKED_AT):
            if isinstance(fields, Fields) and fields.label is not None:
                seen.update(fields.label.split(fields.separator))
    split = (without_language(tag.strip(), frozenset(known), "") for tag in seen if tag.strip())
    found_tags = [*(one[0] for one in split if isinstance(one, tuple)), *known]
    scheme = tags.detect(found_tags)
    if scheme == "none" and (odd := tags.odd_ones(found_tags)):
        raise ValueError(
            f"{file_names([path for path, _ in group])}: most tags mark spans (B-, I-), and "
            f"{', '.join(map(repr, odd[:3]))} not. Correct them, or say --tag_scheme=none."
        )
    logging.info("Tags of %s: scheme %s.", file_names([path for path, _ in group]), scheme)
    return scheme


def _labels_in_iob2(known: Sequence[str], scheme: str, label_file: pathlib.Path) -> tuple[str, ...]:
    try:
        return tags.labels_to_iob2(known, scheme)
    except ValueError as error:
        raise ValueError(
            f"{label_file}: {error}. Name the scheme of the tags with --tag_scheme."
        ) from error


def task_name(task: str) -> str:
    """A task's name as it is known here: `SST2` is `sst-2`."""
    return {"ner": "tagging", "sst2": "sst-2", "stsb": "sts-b"}.get(task.lower(), task.lower())


def glue_labels(task: str) -> tuple[str, ...]:
    """The classes of a task of GLUE, in BERT's order; empty for a regression."""
    return GLUE[task].labels or ()


def _task(task: str, columns: Columns) -> tuple[str, Spec, tuple[str, ...], str]:
    """The task's name, spec, fixed labels and metric."""
    name = task_name(task)
    if name in GLUE:
        glue = GLUE[name]
        columns = Columns(
            columns.text or glue.text,
            columns.text_b or glue.text_b,
            columns.label or glue.label,
            columns.language,
        )
        pair = columns.text_b is not None
        spec = Spec(glue.task_type, pair, columns, True, glue.positions, glue.width)
        return name, spec, glue.labels or (), glue.metric
    if name not in _TASK_TYPES:
        raise ValueError(
            f"Unknown task. Expected one of {[*GLUE, *_TASK_TYPES, 'ner']}. "
            f"Received: task={task!r}."
        )
    pair = False if name == "tagging" else None
    return name, Spec(name, pair, columns, columns.text is not None), (), _METRICS[name]


def _read_labels(path: pathlib.Path) -> tuple[str, ...]:
    labels: list[str] = []
    for line, text in rows.read_lines(path):
        if isinstance(text, Problem):
            raise ValueError(f"{path} line {line}: {text.reason}.")
        if not text.strip():
            continue
        if text.strip() in labels:
            raise ValueError(f"{path} line {line}: expected each label once, received {text!r}.")
        labels.append(text.strip())
    return tuple(labels)


def _observed_labels(examples: Sequence[Example]) -> tuple[str, ...]:
    """Sorted; numbers by value, so that labels 0 … 10 are their own class ids."""
    found: set[str] = set()
    for one in examples:
        found.update((one.label,) if isinstance(one.label, str) else one.label or ())
    numeric = all(label.isascii() and label.isdigit() for label in found)
    return tuple(sorted(found, key=int if numeric else None))


def _refuse_texts_as_labels(
    labels: Sequence[str], examples: Sequence[Example], task_type: str
) -> None:
    """Columns that are swapped show at once: hardly a row has the label of another one."""
    if task_type == "classification" and len(examples) >= 20 and 2 * len(labels) > len(examples):
        raise ValueError(
            f"{examples[0].source[0]} has {len(labels)} different labels in {len(examples)} rows, "
            f"{labels[0][:40]!r} for example. Expected text, tab, label: are the columns swapped? "
            "Name them in a header with --text_column and --label_column, or list the labels in "
            "labels.tsv."
        )
