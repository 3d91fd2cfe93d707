"""A records folder: the splits of a task as records, its tokenizer, and last `task.json`."""

from __future__ import annotations

import dataclasses
import pathlib
import re
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from absl import logging

from xdistil_tf import files, versions
from xdistil_tf.data import features, readers, records, split, task_files
from xdistil_tf.data.augmented import Augmented
from xdistil_tf.data.examples import Example, TaskData
from xdistil_tf.data.glue import SPLIT_FILES
from xdistil_tf.data.layouts import USUAL_COLUMNS, Columns
from xdistil_tf.data.split import Splits
from xdistil_tf.data.task_info import FORMAT, TaskInfo, current, load_task_info
from xdistil_tf.data.tokenizer import Tokenizer

LABEL_PIECES = ("first", "all")
_SPLITS = "|".join(("train", "heldout", "transfer", "augmented", *SPLIT_FILES))
_OURS = re.compile(rf"\.?({_SPLITS})-\d{{5,}}-of-\d{{5,}}\.(tfrecord|index)(\.\d+\.tmp)?")
_UNFINISHED = ".unfinished"
_REPORTED = ("dev", "test")  # Begins of the names of files that are only reported on.


@dataclasses.dataclass(frozen=True)
class Options:
    """How a task becomes records: the flags of `create_task_data` of the same names."""

    max_seq_length: int = 128
    labels_per_class: int | None = None
    labels_per_language: int | None = None
    label_pieces: str = "first"
    heldout_fraction: float = 0.05
    heldout_rows: int = 200
    seed: int = 42
    num_shards: int = 4
    max_bad_rows: int = 0  # Of the task folder, and again of the transfer files.
    allow_transductive: bool = False
    languages: tuple[str, ...] = ()
    columns: Columns = USUAL_COLUMNS

    def __post_init__(self):
        if self.label_pieces not in LABEL_PIECES:
            raise ValueError(
                f"Unknown label_pieces. Expected one of {list(LABEL_PIECES)}. "
                f"Received: {self.label_pieces!r}."
            )


DEFAULT_OPTIONS = Options()


def create_task_records(
    task_dir: str | pathlib.Path,
    task: str,
    tokenizer: Tokenizer,
    output_dir: str | pathlib.Path,
    transfer_file: str | Sequence[str] | None = None,
    options: Options = DEFAULT_OPTIONS,
    replace: bool = True,
    augmented: str | Sequence[str] | None = None,
) -> TaskInfo:
    """Reads a task folder and writes its records folder, unless that stands there already.

    ```
    read_task -> read_transfer -> split_task -> Augmented -> write_task_records
    ```

    Args:
      task_dir, task: As `read_task` takes them.
      tokenizer: Of teacher and student.
      output_dir: The records folder.
      transfer_file: As `read_transfer` takes it; None: the texts of train.
      options: What else decides the records.
      replace: Whether records of other inputs that stand there give way; else they are refused,
        unless dev and test files alone differ.
      augmented: Globs of files that `augment` wrote from this task; None: there is no such split.

    Raises:
      FileNotFoundError, ValueError: As the functions named above; if two files would give equal
        ids; if `replace` forbids.
    """
    _check_ids(pathlib.Path(task_dir), transfer_file, augmented)
    inputs = {
        "task": task.lower(),
        "files": _input_fingerprints(task_dir, transfer_file, augmented),
        "tokenizer": tokenizer.fingerprint,
        "transfer_file": bool(transfer_file),
        "options": dataclasses.asdict(options),
    }
    info = current(output_dir, inputs)
    if info:
        logging.info("%s is up to date.", output_dir)
        return info
    if not replace:
        _refuse_other_inputs(output_dir, inputs)
    columns, bad = options.columns, options.max_bad_rows
    data = readers.read_task(task_dir, task, columns, bad, options.languages)
    transfer = None
    if transfer_file:
        transfer, rows = readers.read_transfer(
            transfer_file, data.pair, task, columns, bad, options.languages
        )
        data.bad_rows.extend(rows)
    splits = split.split_task(
        data,
        transfer,
        heldout_fraction=options.heldout_fraction,
        heldout_rows=options.heldout_rows,
        labels_per_class=options.labels_per_class,
        labels_per_language=options.labels_per_language,
        seed=options.seed,
        allow_transductive=options.allow_transductive,
    )
    if augmented:
        splits.augmented = _augmented(augmented, data, splits, options)
    return write_task_records(
        splits,
        data,
        tokenizer,
        output_dir,
        options.max_seq_length,
        options.num_shards,
        inputs,
        options.label_pieces,
    )


def _augmented(
    patterns: str | Sequence[str], data: TaskData, splits: Splits, options: Options
) -> Augmented:
    """The rows that may train. Where labels were drawn, others' rows must not tell theirs."""
    labelled = None
    if options.labels_per_class is not None or options.labels_per_language is not None:
        labelled = frozenset(one.id for one in splits.train)

    damaged: list[tuple[str, int, str]] = []

    def read() -> Iterator[Example]:
        damaged.clear()  # They are read twice.
        return readers.read_augmented(patterns, data, options.max_bad_rows, damaged)

    _require_same_train(patterns, data)
    made = Augmented(read, data.splits["train"], splits, labelled, bool(options.languages))
    data.bad_rows.extend(damaged)
    logging.info(
        "Of the augmented rows %d may train; left out: %s.", len(made), dict(made.counts) or "none"
    )
    for reason, count in made.counts.items():
        splits.counts[f"augmented_{reason}"] = count
    if not len(made):
        raise ValueError(
            f"No row of {patterns} may train: {dict(made.counts)}. Expected rows that derive from "
            "train texts of this task; make the file anew with augment."
        )
    return made


def _require_same_train(patterns: str | Sequence[str], data: TaskData) -> None:
    """Refuses rows whose manifest says that they derive from other train files.

    Their `source_id` would then name other examples, held-out ones among them.
    """
    train = {
        path.name: files.file_fingerprint(path)
        for path in data.files
        if path.name.startswith("train")
    }
    for path in task_files.given_files(patterns, "augmented"):
        manifest = path.with_name(f"{path.name}.json")
        if not manifest.is_file():
            continue
        made = files.read_json(manifest)
        inputs = made.get("inputs", {})
        other = [name for name, known in train.items() if inputs.get(name) != known]
        if made.get("task") != data.task or other:
            raise ValueError(
                f"{path} was made from another {', '.join(other) or 'task'} "
                f"(task {made.get('task')!r}, here {data.task!r}). Make it anew with augment."
            )


def write_task_records(
    splits: Splits,
    data: TaskData,
    tokenizer: Tokenizer,
    output_dir: str | pathlib.Path,
    max_seq_length: int = 128,
    num_shards: int = 4,
    inputs: Mapping[str, Any] | None = None,
    label_pieces: str = "first",
) -> TaskInfo:
    """Writes records, `tokenizer/`, `dropped.tsv` and, last of all, `task.json`.

    Records of an earlier writing are removed first. Skipped when `task.json` states the same
    `inputs`.

    Raises:
      ValueError: If the folder holds record shards that were not written by this function.
    """
    inputs = dict(inputs or {})
    info = current(output_dir, inputs) if inputs else None
    if info:
        return info
    folder = pathlib.Path(output_dir)
    _cleared(folder)
    written = {
        name: _write_split(
            folder, name, examples, data, tokenizer, max_seq_length, num_shards, label_pieces
        )
        for name, examples in splits.named().items()
    }
    tokenizer.save(folder / "tokenizer")
    _write_dropped(folder, splits, data)
    content = {
        "format": FORMAT,
        "task": data.task,
        "task_type": data.task_type,
        "pair": data.pair,
        "labels": list(data.labels),
        "metric": data.metric,
        "tokenizer": {
            "kind": tokenizer.kind,
            "fingerprint": tokenizer.fingerprint,
            "vocab_size": tokenizer.vocab_size,
            "do_lower_case": tokenizer.do_lower_case,
        },
        "max_seq_length": max_seq_length,
        "splits": written,
        "select": "heldout",
        "report": _reported(splits),
        "languages": _languages(splits),
        "dropped": {**splits.counts, "bad_rows": len(data.bad_rows)},
        "inputs": inputs,
    }
    content["fingerprint"] = files.fingerprint(
        {key: value for key, value in content.items() if key not in ("inputs", "dropped")}
    )
    content["versions"] = versions.environment()
    files.write_json(folder / "task.json", content)
    (folder / _UNFINISHED).unlink()
    return load_task_info(folder)


def training_fingerprints(
    task_dir: str | pathlib.Path,
    transfer_file: str | Sequence[str] | None,
    augmented: str | Sequence[str] | None,
) -> dict[str, str]:
    """The content of the files that a student learns from, by name."""
    found = _input_fingerprints(task_dir, transfer_file, augmented)
    return {name: one for name, one in found.items() if not name.startswith(_REPORTED)}


def _input_fingerprints(
    task_dir: str | pathlib.Path,
    transfer_file: str | Sequence[str] | None,
    augmented: str | Sequence[str] | None,
) -> dict[str, str]:
    """By names, not paths: a folder that moved is the same input."""
    folder = pathlib.Path(task_dir)
    found = [path for group in task_files.task_files(folder).values() for path, _ in group]
    found += [folder / "labels.tsv"] * (folder / "labels.tsv").is_file()
    named = {path.name: path for path in found}
    for role, flag, patterns in _given(transfer_file, augmented):
        for path in task_files.given_files(patterns, flag):
            named[f"{role}/{path.name}"] = path
    return {name: files.file_fingerprint(path) for name, path in named.items()}


def _given(
    transfer_file: str | Sequence[str] | None, augmented: str | Sequence[str] | None
) -> list[tuple[str, str, str | Sequence[str]]]:
    """Role, flag and patterns of the files that were given beside the folder."""
    roles = (("transfer", "transfer_file", transfer_file), ("augmented", "augmented", augmented))
    return [one for one in roles if one[2]]


def _check_ids(
    folder: pathlib.Path,
    transfer_file: str | Sequence[str] | None,
    augmented: str | Sequence[str] | None = None,
) -> None:
    """Ids are `<file stem>:<row>`: no other file may give those of another file."""
    groups = task_files.task_files(folder).values()
    taken = {path.stem: path for group in groups for path, _ in group}
    for role, flag, patterns in _given(transfer_file, augmented):
        for path in task_files.given_files(patterns, flag):
            other = taken.setdefault(path.stem, path)
            if not path.samefile(other):
                raise ValueError(
                    f"The {role} file {path} is called {path.stem!r} like {other}; ids would be "
                    "ambiguous. Rename it."
                )


def _refuse_other_inputs(folder: str | pathlib.Path, inputs: Mapping[str, Any]) -> None:
    """Refuses to replace records with those of other texts, another tokenizer or other options."""
    if not (pathlib.Path(folder) / "task.json").is_file():
        return
    earlier, wanted = _training_inputs(load_task_info(folder).inputs), _training_inputs(inputs)
    differing = sorted(
        name for name in {*earlier, *wanted} if earlier.get(name) != wanted.get(name)
    )
    if differing:
        raise ValueError(
            f"The records in {folder} were made of other inputs ({', '.join(differing)} differ), "
            "and what was trained on them stands beside them. Choose another folder, or remove it."
        )


def _training_inputs(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs by name, options one by one, without the files that are only reported on."""
    texts = {
        name: fingerprint
        for name, fingerprint in inputs["files"].items()
        if not name.startswith(_REPORTED)
    }
    plain = {name: value for name, value in inputs.items() if name not in ("files", "options")}
    # As JSON gives them back: tuples are lists there.
    return {
        name: files.fingerprint(one) for name, one in (plain | inputs["options"] | texts).items()
    }


def _cleared(folder: pathlib.Path) -> None:
    """Removes an earlier writing, finished or not; refuses shards of others."""
    folder.mkdir(parents=True, exist_ok=True)
    shards = [path for path in folder.iterdir() if _OURS.fullmatch(path.name)]
    ours = (folder / "task.json").is_file() or (folder / _UNFINISHED).is_file()
    if shards and not ours:
        raise ValueError(
            f"{folder} holds records that were not written by create_task_data "
            f"({shards[0].name}). Choose another --output_dir."
        )
    (folder / _UNFINISHED).touch()
    (folder / "task.json").unlink(missing_ok=True)
    for path in shards:
        path.unlink()
    if ours:
        shutil.rmtree(folder / "tokenizer", ignore_errors=True)


def _write_split(
    folder: pathlib.Path,
    name: str,
    examples: Collection[Example],
    data: TaskData,
    tokenizer: Tokenizer,
    max_seq_length: int,
    num_shards: int,
    label_pieces: str,
) -> dict[str, Any]:
    """Writes the shards of a split; returns what `task.json` says of it."""
    truncation = features.Truncation()
    labelled = 0

    def counted() -> Iterator[Example]:
        nonlocal labelled
        for one in examples:
            labelled += one.label is not None
            yield one

    if data.task_type == "tagging":
        stream = features.featurise_words(
            counted(), tokenizer, data.labels, max_seq_length, truncation, label_pieces == "all"
        )
    else:
        stream = features.featurise(
            counted(), tokenizer, data.task_type, data.labels, max_seq_length, truncation
        )
    written = records.write_records(folder, name, stream, len(examples), num_shards)
    logging.info(
        "%s: %d records, %.1f tokens on average, %d truncated to %d.",
        name, written.records, written.length_mean, truncation.count, max_seq_length,
    )  # fmt: skip
    return {
        **dataclasses.asdict(written),
        "truncated": truncation.count,
        "labelled": labelled,
    }


def _write_dropped(folder: pathlib.Path, splits: Splits, data: TaskData) -> None:
    with files.replaced_file(folder / "dropped.tsv", "w") as handle:
        handle.write("file\trow\treason\n")
        for file, row, reason in [*data.bad_rows, *splits.dropped]:
            handle.write(f"{file}\t{row}\t{reason}\n")


def _reported(splits: Splits) -> str:
    """A labelled test set reports, else dev, else what selects."""
    for name in ("test", "dev"):
        if any(one.label is not None for one in splits.others.get(name, [])):
            return name
    return "heldout"


def _languages(splits: Splits) -> list[str]:
    # What was derived has the languages of what it derives from.
    rows = (rows for name, rows in splits.named().items() if name != "augmented")
    return sorted({one.language for some in rows for one in some})
