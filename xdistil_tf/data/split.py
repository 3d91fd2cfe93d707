"""Which texts train, select and report: held-out texts by hash, transfer texts, overlaps dropped.

What is selected on is never what is reported: `heldout` is a fixed part of the labelled texts; its
texts, and all that derive from them, stand in no other split that trains.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from absl import logging

from xdistil_tf.data.examples import Example, TaskData

TRAINING_SPLITS = ("train", "heldout", "transfer", "augmented")


@dataclasses.dataclass
class Splits:
    """The examples of each split, and what was left out.

    Attributes:
      train, heldout, transfer: What trains and selects; of transfer, gold is known where a text is
        one of train's.
      others: The splits that are only reported on (`dev`, `test`, `dev_mismatched`, …).
      dropped: `(file, row, reason)` of each example left out.
      counts: How many were dropped for each reason.
      augmented: What was derived from train, if anything; read anew at each iteration.
    """

    train: list[Example]
    heldout: list[Example]
    transfer: list[Example]
    others: dict[str, list[Example]]
    dropped: list[tuple[str, int, str]]
    counts: dict[str, int]
    augmented: Collection[Example] = ()

    @property
    def dev(self) -> list[Example]:
        return self.others.get("dev", [])

    @property
    def test(self) -> list[Example]:
        return self.others.get("test", [])

    def named(self) -> dict[str, Collection[Example]]:
        """All splits that hold examples, by name."""
        splits = {"train": self.train, "heldout": self.heldout, "transfer": self.transfer}
        splits["augmented"] = self.augmented
        return {name: rows for name, rows in {**splits, **self.others}.items() if len(rows)}


def split_task(
    data: TaskData,
    transfer: Sequence[Example] | None = None,
    *,
    heldout_fraction: float = 0.05,
    heldout_rows: int = 200,
    labels_per_class: int | None = None,
    labels_per_language: int | None = None,
    seed: int = 42,
    allow_transductive: bool = False,
) -> Splits:
    """Divides a task's examples.

    Train examples whose text stands in dev or test leave first. `heldout` then takes the texts
    with the smallest hash: the same ones whatever the seed and the order of the file. With
    `labels_per_class` or `labels_per_language`, so many labelled examples of each are drawn by the
    seed before that, and the others serve as transfer texts only.

    Args:
      data: The task as read.
      transfer: Texts without labels; None takes all texts of train.
      heldout_fraction: Share of the labelled examples that is held out, ...
      heldout_rows: ... but not fewer than these; never more than half.
      labels_per_class: Labelled examples per class; None keeps all.
      labels_per_language: Labelled examples per language; None keeps all.
      seed: Of that draw.
      allow_transductive: Keep transfer texts that stand in dev or test.

    Raises:
      ValueError: If a class or language has too few examples, if `labels_per_class` is set for a
        task without classes, if both are set, or if most transfer texts are dev or test texts.
    """
    others = {name: rows for name, rows in data.splits.items() if name != "train"}
    reported = {text_key(one): name for name, rows in others.items() for one in rows}
    dropped: list[tuple[str, int, str]] = []
    labelled = []
    for one in data.splits.get("train", []):
        where = reported.get(text_key(one))
        if where:
            dropped.append((*one.source, f"overlap: the text of train stands in {where}"))
        else:
            labelled.append(one)
    train_texts = labelled
    if labels_per_class is not None and labels_per_language is not None:
        raise ValueError("Expected labels_per_class or labels_per_language. Received: both.")
    if labels_per_class is not None:
        labelled = _draw_classes(labelled, data, labels_per_class, seed)
    if labels_per_language is not None:
        spoken = sorted({one.language for one in labelled})
        groups = {one: [row for row in labelled if row.language == one] for one in spoken}
        labelled = _draw(labelled, groups, "labels_per_language", labels_per_language, seed)
    heldout, train = _hold_out(labelled, heldout_fraction, heldout_rows)
    if 3 * len(heldout) > len(labelled):
        logging.info(
            "%d of %d labelled texts are held out and do not train (--heldout_rows=%d).",
            len(heldout), len(labelled), heldout_rows,
        )  # fmt: skip
    source = train_texts if transfer is None else transfer
    if transfer is not None and not allow_transductive:
        _refuse_transductive(transfer, reported)
    found: list[tuple[str, int, str]] = []
    gold = {text_key(one): one.label for one in reversed(train)}
    kept = _transfer(source, heldout, {} if allow_transductive else reported, others, gold, found)
    if transfer is None:  # Held-out texts of train moved, they were not dropped.
        found = [one for one in found if not one[2].startswith("heldout")]
    dropped.extend(found)
    counts = collections.Counter(reason.split(":")[0] for _, _, reason in dropped)
    return Splits(
        train,
        heldout,
        kept,
        others,
        dropped,
        {name: counts[name] for name in ("overlap", "duplicate", "heldout")},
    )


def text_key(example: Example) -> bytes:
    """A digest of the text or pair after NFC and collapsing of white space; case is kept."""
    text = example.text if isinstance(example.text, str) else " ".join(example.text)
    return key_of_texts(text, example.text_b)


def key_of_texts(text: str, text_b: str | None) -> bytes:
    """The digest of a text or pair that `text_key` gives an example."""
    both = f"{_normalised(text)}\t{_normalised(text_b) if text_b else ''}"
    return hashlib.blake2b(both.encode("utf-8"), digest_size=16).digest()


def _normalised(text: str) -> str:
    if not text.isascii():  # What is ASCII is in NFC.
        text = unicodedata.normalize("NFC", text)
    return " ".join(text.split())


def _draw_classes(
    examples: Sequence[Example], data: TaskData, per_class: int, seed: int
) -> list[Example]:
    if data.task_type != "classification":
        raise ValueError(
            f"labels_per_class needs a classification task. Received: {data.task_type}. "
            "Leave --labels_per_class out; --labels_per_language draws of each language."
        )
    groups = {name: [one for one in examples if one.label == name] for name in data.labels}
    return _draw(examples, groups, "labels_per_class", per_class, seed)


def _draw(
    examples: Sequence[Example],
    groups: Mapping[str, list[Example]],
    option: str,
    count: int,
    seed: int,
) -> list[Example]:
    """Draws examples of each group: those with the smallest hash keyed by the seed.

    So a larger draw of the same seed contains the smaller one.
    """
    if count < 1:
        raise ValueError(f"Expected {option} of at least 1. Received: {count}.")
    key = str(seed).encode("ascii")
    drawn: set[str] = set()
    for name, group in groups.items():
        if len(group) < count:
            kind = "language" if option.endswith("language") else "label"
            raise ValueError(
                f"Expected at least {option}={count} examples of the {kind} {name!r}. "
                f"Train has {len(group)}. Lower --{option}."
            )
        group = sorted(
            group, key=lambda one: hashlib.blake2b(text_key(one), key=key, digest_size=16).digest()
        )
        drawn.update(one.id for one in group[:count])
    return [one for one in examples if one.id in drawn]


def _hold_out(
    examples: Sequence[Example], fraction: float, rows: int
) -> tuple[list[Example], list[Example]]:
    """Divides into held-out examples and the rest; equal texts stay together."""
    if not 0 <= fraction <= 0.5:
        raise ValueError(f"Expected heldout_fraction in [0, 0.5]. Received: {fraction}.")
    wanted = min(max(round(fraction * len(examples)), rows), len(examples) // 2)
    groups = collections.Counter(text_key(one) for one in examples)
    chosen: set[bytes] = set()
    taken = 0
    for key in sorted(groups):
        if taken >= wanted:
            break
        if taken + groups[key] <= len(examples) // 2:
            chosen.add(key)
            taken += groups[key]
    heldout = [one for one in examples if text_key(one) in chosen]
    return heldout, [one for one in examples if text_key(one) not in chosen]


def _refuse_transductive(transfer: Sequence[Example], reported: dict[bytes, str]) -> None:
    keys = {text_key(one) for one in transfer}
    found = sum(key in reported for key in keys)
    if found * 2 > len(keys):
        raise ValueError(
            f"{found} of {len(keys)} transfer texts stand in dev or test: the student would be "
            "trained on what it is reported on. Choose another --transfer_file, or set "
            "--allow_transductive and say so in the report."
        )


def _transfer(
    source: Iterable[Example],
    heldout: Sequence[Example],
    reported: dict[bytes, str],
    others: dict[str, list[Example]],
    gold: Mapping[bytes, Any],
    dropped: list[tuple[str, int, str]],
) -> list[Example]:
    """Transfer texts once each, without what selects or is reported on.

    Of labels they have those of equal train texts, whatever stands in their files.
    """
    held_texts = {text_key(one) for one in heldout}
    held_ids = {one.id for one in heldout}
    reported_ids = {one.id for rows in others.values() for one in rows} if reported else set()
    seen: set[bytes] = set()
    kept = []
    for one in source:
        key = text_key(one)
        reason = None
        if key in held_texts or one.source_id in held_ids:
            reason = "heldout: the text is held out for selection"
        elif key in reported:
            reason = f"overlap: the text of transfer stands in {reported[key]}"
        elif one.source_id in reported_ids:
            reason = "overlap: derived from a text of dev or test"
        elif key in seen:
            reason = "duplicate: the text stands in transfer before"
        if reason:
            dropped.append((*one.source, reason))
            continue
        seen.add(key)
        kept.append(dataclasses.replace(one, label=gold.get(key)))
    return kept
