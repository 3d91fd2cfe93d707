"""Rows to examples: labels, languages and tags are checked where they are read."""

from __future__ import annotations

import math
import pathlib
import re
from collections.abc import Iterator, Sequence

from absl import logging

from xdistil_tf.data import layouts, tags
from xdistil_tf.data.examples import DEFAULT_LANGUAGE, Example
from xdistil_tf.data.layouts import Fields, Spec
from xdistil_tf.data.rows import Problem

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


class RowReader:
    """Turns rows into examples, counting the damaged ones.

    Args:
      spec: What a row of the task holds.
      labels: Those that may occur; none while they are not known.
      max_bad_rows: So many damaged rows are listed in `bad_rows`; one more is an error.
      allow_empty: Whether an empty text is a text.
      scheme: Of the tags, one of `tags.SCHEMES`.
    """

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
        """Yields the examples of a file.

        Args:
          path: The file.
          label: Whether a row's label is `required`, `optional` or `ignored`.
          language: Of the whole file, if it has one.
          empty_is_unknown: Whether an empty label says that gold is unknown.

        Raises:
          ValueError: If there are more damaged rows than may be; names file, line and cure.
        """
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
    split = without_language(label.strip(), known, language)
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
            split = without_language(tag, known, "")
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


def without_language(label: str, known: frozenset[str], language: str) -> tuple[str, str] | Problem:
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


def _some(known: frozenset[str]) -> str:
    shown = sorted(known)[:12]
    return f"{shown}{' and others' * (len(known) > 12)}" if known else "at least one character"
