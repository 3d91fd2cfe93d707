"""Schemes of tags: whatever marks the spans in a user's files becomes IOB2.

IOB2 begins every span with `B-` and goes on with `I-`; IOB1 writes `B-` only where a span follows
another one of its type; IOBES marks ends and single words (`E-`, `S-`; BILOU: `L-`, `U-`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

SCHEMES = ("auto", "iob", "iob2", "iobes", "none")
OUTSIDE = "O"
NO_SPANS = "word_accuracy"  # The metric of tags that mark no spans.
_PREFIXES = {"iob": "BI", "iob2": "BI", "iobes": "BIESLU"}
_TAG = re.compile(r"([BIESLU])-(.+)", re.DOTALL)
_BEGINS, _ENDS = "BSU", "ESLU"
_SPANS = "BISU"  # Without one of them, prefixes mark nothing.


def detect(tags: Iterable[str]) -> str:
    """The scheme of some tags: `iob`, `iobes` or `none`.

    >>> detect(["O", "I-PER"]), detect(["O", "S-PER"]), detect(["NOUN", "B-flat"])
    ('iob', 'iobes', 'none')
    """
    found: set[str] = set()
    for tag in set(tags) - {OUTSIDE}:
        match = _TAG.fullmatch(tag)
        if not match:
            return "none"
        found.add(match[1])
    if not found & set(_SPANS):
        return "none"
    return "iobes" if found - {"B", "I"} else "iob"


def odd_ones(tags: Iterable[str]) -> list[str]:
    """The few tags without a prefix where most have one: more likely faults than a scheme.

    >>> odd_ones(["B-PER", "B-LOC", "0", "O"]), odd_ones(["NOUN", "B-flat"])
    (['0'], [])
    """
    marked = set(tags) - {OUTSIDE}
    odd = sorted(tag for tag in marked if not _TAG.fullmatch(tag))
    return odd if 0 < 2 * len(odd) < len(marked) else []


def to_iob2(tags: Sequence[str], scheme: str) -> tuple[tuple[str, ...], int]:
    """One sentence's tags in IOB2, and how many spans began with a tag that goes on with one.

    >>> to_iob2(["I-LOC", "I-LOC", "O", "S-PER"], "iobes")
    (('B-LOC', 'I-LOC', 'O', 'B-PER'), 1)

    Raises:
      ValueError: If a tag does not belong to the scheme, or goes on with nothing in `iob2`.
    """
    if scheme == "none":
        return tuple(tags), 0
    converted, open_type, begun = [], None, 0
    for number, tag in enumerate(tags, start=1):
        if tag == OUTSIDE:
            converted.append(OUTSIDE)
            open_type = None
            continue
        prefix, kind = _parts(tag, scheme)
        begins = prefix in _BEGINS
        if not begins and open_type != kind:
            if scheme == "iob2":
                before = f"after {tags[number - 2]!r}" if number > 1 else "as the first tag"
                raise ValueError(f"expected an entity to begin with B-, received {tag!r} {before}")
            begins, begun = True, begun + 1
        converted.append(f"{'B' if begins else 'I'}-{kind}")
        open_type = None if prefix in _ENDS else kind
    return tuple(converted), begun


def entities(tags: Sequence[str]) -> list[tuple[int, int, str]]:
    """First word, last word and type of each entity of one sentence in IOB2, in its order.

    >>> entities(["B-LOC", "I-LOC", "O", "B-PER"])
    [(0, 1, 'LOC'), (3, 3, 'PER')]
    """
    found: list[tuple[int, int, str]] = []
    for number, tag in enumerate(tags):
        if tag.startswith("B-"):
            found.append((number, number, tag[2:]))
        elif tag != OUTSIDE:
            first, _, kind = found[-1]
            found[-1] = first, number, kind
    return found


def labels_to_iob2(labels: Sequence[str], scheme: str) -> tuple[str, ...]:
    """The labels of a scheme as those of IOB2, in their order; a missing `B-` comes last.

    >>> labels_to_iob2(["O", "I-PER", "S-PER"], "iobes"), labels_to_iob2(["I-LOC", "O"], "iob")
    (('O', 'I-PER', 'B-PER'), ('I-LOC', 'O', 'B-LOC'))

    Raises:
      ValueError: If a label does not belong to the scheme.
    """
    if scheme == "none":
        return tuple(labels)
    converted: dict[str, None] = {}
    for label in labels:
        if label != OUTSIDE:
            prefix, kind = _parts(label, scheme)
            label = f"{'B' if prefix in _BEGINS else 'I'}-{kind}"
        converted[label] = None
    for label in list(converted):
        if label.startswith("I-"):
            converted.setdefault(f"B-{label[2:]}")
    return tuple(converted)


def _parts(tag: str, scheme: str) -> tuple[str, str]:
    match = _TAG.fullmatch(tag)
    if not match or match[1] not in _PREFIXES[scheme]:
        prefixes = ", ".join(f"{one}-" for one in _PREFIXES[scheme])
        raise ValueError(f"expected O or a tag that begins with {prefixes}, received {tag!r}")
    return match[1], match[2]
