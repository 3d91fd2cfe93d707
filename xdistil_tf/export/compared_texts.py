"""The texts that an export is compared on: built in, or those of a file.

They stay in the export, so nothing of a user's data is taken unless a file is named.
"""

from __future__ import annotations

import itertools
import pathlib
import random
from collections.abc import Sequence

from xdistil_tf.data import rows
from xdistil_tf.data.reviews import LABELS, TOPICS, Grammar

Text = str | tuple[str, str]

_HAND_MADE = (
    "",
    "a gripping , well - acted film .",
    "It's 3:45 p.m.; Don't panic!",
    "Die Straße heißt „Große Allee“, Ärger inklusive.",
    "Le cœur déçu mais l'âme plutôt naïve",
    "Съешь ещё этих мягких французских булок",
    "我喜欢这部电影，非常好看。",
    "هذا الفيلم رائع جدا",
    "यह फ़िल्म अच्छी है",
    "İstanbul'da güzel bir gün",
    "www.example.org/a_b?c=d#e 100% 1,000.50 €5",
    "word " * 300,
)


def built_in(pair: bool, count: int = 200) -> list[Text]:
    """Hand-made texts of many scripts, then generated sentences and documents; always the same.

    For a pair task (text, text_pair).
    """
    grammar = Grammar(random.Random("parity"))
    labels = itertools.cycle([*TOPICS, *LABELS[3]])
    generated = (
        " ".join(grammar.document()) if label == "neutral" else grammar.labelled(label)
        for label in labels
    )
    texts = list(itertools.islice(itertools.chain(_HAND_MADE, generated), count))
    return list(zip(texts, reversed(texts), strict=True)) if pair else texts


def read_file(path: str | pathlib.Path, pair: bool, count: int = 200) -> list[Text]:
    """The first texts of a file, one a line; for a pair task two columns.

    Raises:
      FileNotFoundError: If there is no such file.
      ValueError: If it is empty, or a line is not UTF-8 or has other columns; names the line.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"--parity_file: there is no file {path}.")
    texts = [_text(path, *row, pair) for row in itertools.islice(rows.read_lines(path), count)]
    if not texts:
        raise ValueError(
            f"--parity_file: {path} is empty. Expected one text a line; without the flag, built-in "
            "texts are compared."
        )
    return texts


def check(texts: Sequence[Text], pair: bool) -> None:
    """Refuses texts that do not fit the task.

    Raises:
      ValueError: If there are none, or not all are strings (pairs of strings).
    """
    if not texts:
        raise ValueError("Invalid `parity_texts`. Expected at least one text, or None.")
    for number, text in enumerate(texts, start=1):
        cells = text if pair and isinstance(text, tuple | list) else [text]
        if len(cells) != 1 + pair or not all(isinstance(one, str) for one in cells):
            expected = "(text, text_pair)" if pair else "a string"
            raise ValueError(
                f"Invalid `parity_texts`. Expected {expected}. Received: {text!r}, number {number}."
            )


def _text(path: pathlib.Path, number: int, line: str | rows.Problem, pair: bool) -> Text:
    if isinstance(line, rows.Problem):
        raise ValueError(f"--parity_file: {path} line {number}: {line.reason}.")
    cells = line.split("\t")
    if len(cells) != 1 + pair:
        expected = "two tab-separated texts" if pair else "one text"
        raise ValueError(
            f"--parity_file: {path} line {number}: expected {expected}, as the model was trained "
            f"on, received {len(cells)} column{'s' * (len(cells) != 1)}."
        )
    return tuple(cells) if pair else line
