"""Task folders and transfer files as examples; every row is checked where it is read.

Reads what users have: GLUE's folders, XtremeDistil's (`text<TAB>label`, `words<TAB>tags`, language
prefixes), headed TSV, CSV, JSON lines and CoNLL files. UTF-8, no quoting in TSV.
"""

from __future__ import annotations

import dataclasses
import glob
import itertools
import math
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence

from absl import logging

from xdistil_tf.data import layouts, rows, tags
from xdistil_tf.data.glue import DIAGNOSTIC, DIAGNOSTIC_FILES, GLUE, SPLIT_FILES
from xdistil_tf.data.layouts import USUAL_COLUMNS, Columns, Fields, Spec
from xdistil_tf.data.rows import Problem

DEFAULT_LANGUAGE = "default"
_TASK_TYPES = ("classification", "regression", "tagging")
_METRICS = {
    "classification": "accuracy",
    "regression": "pearson_spearman",
    "tagging": "span_f1",
}
_LOOKED_AT = 10_000  # Sentences of a file that tell the scheme of its tags.
_SUFFIXES = (".tsv", ".csv", ".jsonl", ".json", ".conll", ".txt")
_LANGUAGE = re.compile(r"([a-z]{2,3})((?:-[A-Za-z]+)?):(.+)", re.DOTALL)
_ISO_639_1 = frozenset(
    "aa ab ae af ak am an ar as av ay az ba be bg bh bi bm bn bo br bs ca ce ch co cr cs cu "
    "cv cy da de dv dz ee el en eo es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi "
    "ho hr ht hu hy hz ia id ie ig ii ik io is it iu ja jv ka kg ki kj kk kl km kn ko kr ks "
    "ku kv kw ky la lb lg li ln lo lt lu lv mg mh mi mk ml mn mr ms mt my na nb nd ne ng nl "
    "nn no nr nv ny oc oj om or os pa pi pl ps pt qu rm rn ro ru rw sa sc sd se sg sh si sk "
    "sl sm sn so sq sr ss st su sv sw ta te tg th ti tk tl tn to tr ts tt tw ty ug uk ur uz "
    "ve vi vo wa wo xh yi yo za zh zu".split()
)


@dataclasses.dataclass(frozen=True, slots=True)
class Example:
    """One row.

    Attributes:
      id: `<file stem>:<row>`, rows counted from 1 among the data rows.
      text: The text; in tagging the words.
      text_b: The second text of a pair.
      label: A label, a number (regression), one tag per word, or None where gold is unknown.
      language: `default` where the data names none.
      source: File and line.
      source_id: The id of the example it was derived from (augmented data).
    """

    id: str
    text: str | tuple[str, ...]
    text_b: str | None = None
    label: str | float | tuple[str, ...] | None = None
    language: str = DEFAULT_LANGUAGE
    source: tuple[str, int] = ("", 0)
    source_id: str | None = None


@dataclasses.dataclass
class TaskData:
    """A task as read: its kind, its labels in the order of their ids, its splits."""

    task: str
    task_type: str
    pair: bool
    metric: str
    labels: tuple[str, ...]
    splits: dict[str, list[Example]]
    bad_rows: list[tuple[str, int, str]]
    files: tuple[pathlib.Path, ...] = ()

    @property
    def languages(self) -> tuple[str, ...]:
        return tuple(sorted({one.language for split in self.splits.values() for one in split}))


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
    reader = _Reader(spec, known, max_bad_rows, allow_empty, scheme)
    data = {}
    for split in sorted(found, key=lambda one: one != "train"):
        kind = "optional" if split.startswith("test") else "required"
        data[split] = [
            example
            for path, language in found[split]
            if not (languages and language) or language in languages
            for example in reader.read(path, kind, language)
            if not languages or example.language in languages
        ]
        if not data[split]:
            empty = f"{_names([path for path, _ in found[split]])} of {folder} has no rows"
            if split == "train":
                raise ValueError(f"{empty}. Expected labelled texts.")
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
        _check_languages(task_data, folder, tuple(languages or ()))
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
      ValueError: If a row is damaged, or two files have the same name.
    """
    spec = dataclasses.replace(_task(task, columns)[1], pair=pair, headed=False)
    reader = _Reader(spec, (), max_bad_rows)
    examples = []
    for path in given_files(patterns, "transfer_file"):
        examples.extend(
            one
            for one in reader.read(path, "ignored", None)
            if not languages or one.language in (*languages, DEFAULT_LANGUAGE)
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
    reader = _Reader(
        Spec(data.task_type, data.pair, columns, headed=True), data.labels, max_bad_rows
    )
    if bad_rows is not None:
        reader.bad_rows = bad_rows
    for path in given_files(patterns, "augmented"):
        yield from reader.read(path, "optional", None, empty_is_unknown=True)


def task_files(
    folder: pathlib.Path, splits: Sequence[str] | None = None, task: str | None = None
) -> dict[str, list[tuple[pathlib.Path, str | None]]]:
    """The files of each split with their language: `train.tsv`, or `train-en.tsv` and others.

    Args:
      folder: Of the task.
      splits: Those that must be there; None: all there are.
      task: A name of GLUE, some of whose files are called otherwise.

    Raises:
      ValueError: If a split stands there twice.
      FileNotFoundError: If a wanted split is missing.
    """
    found: dict[str, list[tuple[pathlib.Path, str | None]]] = {}
    for split in splits or SPLIT_FILES:
        stems = SPLIT_FILES.get(split, (split,))
        if task == DIAGNOSTIC and split == "test":
            stems = DIAGNOSTIC_FILES
        plain = [folder / (stem + end) for stem in stems for end in _SUFFIXES]
        plain = [path for path in plain if path.is_file()]
        if len(plain) > 1:
            raise ValueError(f"The split {split!r} stands twice in {folder}: {_names(plain)}.")
        by_language = [
            (path, path.stem[len(split) + 1 :])
            for path in sorted(folder.glob(f"{split}-*"))
            if path.suffix in _SUFFIXES
        ]
        if plain:
            found[split] = [(plain[0], None)]
        elif by_language:
            found[split] = by_language
        elif splits:
            raise FileNotFoundError(f"No file of the split {split!r} in {folder}.")
    return found


def given_files(patterns: str | Sequence[str], flag: str) -> list[pathlib.Path]:
    """Expands the comma-separated globs of a flag; every one must match."""
    paths: list[pathlib.Path] = []
    for pattern in patterns.split(",") if isinstance(patterns, str) else patterns:
        matches = sorted(glob.glob(str(pattern)))
        if not matches:
            raise FileNotFoundError(f"No file matches {pattern!r}. Set --{flag}.")
        paths.extend(pathlib.Path(one) for one in matches if pathlib.Path(one) not in paths)
    stems = [path.stem for path in paths]
    for path in paths:
        if stems.count(path.stem) > 1:
            raise ValueError(
                f"Two files of --{flag} are called {path.stem!r}; ids would be ambiguous. "
                "Rename one."
            )
    return paths


def _check_languages(data: TaskData, folder: pathlib.Path, wanted: Sequence[str]) -> None:
    """Refuses a language that was named and cannot be trained on or reported."""
    spoken = {name: {one.language for one in split} for name, split in data.splits.items() if split}
    for name in ("train", "dev", "test"):
        missing = set(wanted or spoken["train"]) - spoken[name] if name in spoken else ()
        if missing and wanted:
            raise ValueError(
                f"The {name} split of {folder} has no examples of {', '.join(sorted(missing))}. It "
                f"has {', '.join(sorted(spoken[name]))}. Leave it out of --languages."
            )
        if missing:
            logging.warning("%s has no %s of %s.", folder, name, ", ".join(sorted(missing)))


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
    split = (_without_language(tag.strip(), frozenset(known), "") for tag in seen if tag.strip())
    found_tags = [*(one[0] for one in split if isinstance(one, tuple)), *known]
    scheme = tags.detect(found_tags)
    if scheme == "none" and (odd := tags.odd_ones(found_tags)):
        raise ValueError(
            f"{_names([path for path, _ in group])}: most tags mark spans (B-, I-), and "
            f"{', '.join(map(repr, odd[:3]))} not. Correct them, or say --tag_scheme=none."
        )
    logging.info("Tags of %s: scheme %s.", _names([path for path, _ in group]), scheme)
    return scheme


def _labels_in_iob2(known: Sequence[str], scheme: str, label_file: pathlib.Path) -> tuple[str, ...]:
    try:
        return tags.labels_to_iob2(known, scheme)
    except ValueError as error:
        raise ValueError(
            f"{label_file}: {error}. Name the scheme of the tags with --tag_scheme."
        ) from error


class _Reader:
    """Turns rows into examples, counting the damaged ones."""

    def __init__(
        self,
        spec: Spec,
        labels: Sequence[str],
        max_bad_rows: int,
        allow_empty: bool = False,
        scheme: str = "none",
    ):
        self.spec = spec
        self._allow_empty = allow_empty
        self._scheme = scheme
        self.labels = tuple(labels)
        self.bad_rows: list[tuple[str, int, str]] = []
        self._max_bad_rows = max_bad_rows

    def read(
        self,
        path: pathlib.Path,
        label: str,
        language: str | None,
        empty_is_unknown: bool = False,
    ) -> Iterator[Example]:
        stem, file = path.stem, str(path)
        known = frozenset(self.labels)
        row = begun = 0
        for line, fields in layouts.open_rows(path, self.spec, label):
            row += 1
            made = fields
            if isinstance(fields, Fields):
                if label == "optional" and fields.label == "-1" and "-1" not in known:
                    fields = fields._replace(label=None)  # As GLUE's test sets are exported.
                if empty_is_unknown and not (fields.label or "").strip():
                    fields = fields._replace(label=None)
                made = _example(fields, self.spec.task_type, known, language, self._allow_empty)
            if isinstance(made, tuple) and self.spec.task_type == "tagging":
                made, count = _in_iob2(made, self._scheme, known)
                begun += count
            if isinstance(made, Problem):
                self._report(file, line, made.reason)
                continue
            text, text_b, gold, spoken = made
            yield Example(
                f"{stem}:{row}", text, text_b, gold, spoken, (file, line), fields.source_id
            )
        if begun:
            logging.info(
                "%s: %d tags I- that go on with nothing begin an entity: IOB1, or faults.",
                path,
                begun,
            )

    def _report(self, file: str, line: int, reason: str) -> None:
        self.bad_rows.append((file, line, reason))
        if len(self.bad_rows) > self._max_bad_rows:
            raise ValueError(
                f"{file} line {line}: {reason}. Correct the row, or leave such rows out with "
                f"--max_bad_rows (now {self._max_bad_rows})."
            )


def _example(
    fields: Fields,
    task_type: str,
    known: frozenset[str],
    language: str | None,
    allow_empty: bool = False,
) -> tuple | Problem:
    """The text, text_b, label and language of a row, or what is wrong with it."""
    language = fields.language or language or DEFAULT_LANGUAGE
    if task_type == "tagging":
        return _tagged(fields, known, language)
    text = fields.text.strip()
    text_b = None if fields.text_b is None else fields.text_b.strip()
    if not allow_empty and (not text or text_b == ""):
        return Problem("expected text, received an empty text")
    label = fields.label
    if label is None:
        return text, text_b, None, language
    split = _without_language(label.strip(), known, language)
    if isinstance(split, Problem):
        return split
    label, language = split
    if task_type == "regression":
        number = _number(label)
        if not math.isfinite(number):
            return Problem(f"expected a number as label, received {label!r}")
        return text, text_b, number, language
    if not label or (known and label not in known):
        return Problem(f"expected a label of {_some(known)}, received {label!r}")
    return text, text_b, label, language


def _tagged(fields: Fields, known: frozenset[str], language: str) -> tuple | Problem:
    words = tuple(fields.text.split(fields.separator))
    if fields.separator != "\t":  # Spaces may be doubled; a token of a column may be any.
        words = tuple(word for word in words if word.strip())
    if not any(word.strip() for word in words):
        return Problem("expected words, received an empty text")
    words, language = _words_without_language(words, language)
    if fields.label is None:
        return words, None, None, language
    gold = []
    for tag in fields.label.split(fields.separator):
        tag = tag.strip()
        if tag:
            split = _without_language(tag, known, "")
            if isinstance(split, Problem):
                return split
            tag, found = split
            gold.append(tag)
            language = found or language
    if len(words) != len(gold):
        return Problem(f"expected one tag per word, received {len(words)} words, {len(gold)} tags")
    return words, None, tuple(gold), language


def _words_without_language(words: tuple[str, ...], language: str) -> tuple[tuple, str]:
    """Takes off what PAN-X as it is distributed has before every word: `en:Ada`."""
    code = words[0].partition(":")[0]
    if code not in _ISO_639_1 or not all(word.startswith(f"{code}:") for word in words):
        return words, language
    return tuple(word[len(code) + 1 :] or " " for word in words), code


def _in_iob2(made: tuple, scheme: str, known: frozenset[str]) -> tuple[tuple | Problem, int]:
    """What a row says with its tags in IOB2, and how many entities began with `I-`."""
    words, text_b, gold, language = made
    if gold is None:
        return made, 0
    try:
        gold, begun = tags.to_iob2(gold, scheme)
    except ValueError as error:
        return Problem(f"{error} (--tag_scheme={scheme})"), 0
    unknown = next((tag for tag in gold if known and tag not in known), None)
    if unknown is not None:
        return Problem(f"expected a tag of {_some(known)}, received {unknown!r}"), 0
    return (words, text_b, gold, language), begun


def _without_language(
    label: str, known: frozenset[str], language: str
) -> tuple[str, str] | Problem:
    """Splits `en:B-PER`. A label that is known as it stands keeps its colon.

    Where no labels are known, `num:date` and `ent:date` may be two classes. Only two-letter codes,
    and what stands before a number, are then languages.
    """
    match = None if label in known else _LANGUAGE.fullmatch(label)
    if not match:
        return label, language
    prefix, region, rest = match.groups()
    if known or prefix in _ISO_639_1 or math.isfinite(_number(rest)):
        return rest, prefix + region
    return Problem(
        f"{label!r} may be one label, or the label {rest!r} in the language {prefix + region!r}; "
        "expected a labels.tsv beside it that lists the one that is meant"
    )


def _number(text: str) -> float:
    """The value of a text, NaN if it is no number."""
    try:
        return float(text)
    except ValueError:
        return math.nan


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


def _some(known: frozenset[str]) -> str:
    shown = sorted(known)[:12]
    return f"{shown}{' and others' * (len(known) > 12)}" if known else "at least one character"


def _names(paths: Sequence[pathlib.Path]) -> str:
    return ", ".join(path.name for path in paths)
