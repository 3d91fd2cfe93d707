"""A line of text as sentences, in any script, without a model and without a language to name.

Before: `Dr. Smith paid 3.50. "Why?" she asked.` After: `Dr. Smith paid 3.50.` and
`"Why?" she asked.` Rules in the manner of Punkt (Kiss and Strunk, 2006), whose lists are fixed
here rather than learned: what stands before a full stop and what comes after it decide together.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from xdistil_tf.data.corpus import abbreviations

LONGEST = 5000

_CLOSERS = "\"'”’»›)\\]}」』】）》〉〕］｝"
_OPENERS = "\"'“‘„‚«‹([{「『【（《〈〔［｛¿¡"
# Scripts whose stop needs no space behind it; Arabic and Urdu often leave it out.
_TIGHT = "。！？｡．‼⁇⁈⁉؟۔।॥՞။៕།༎።፧፨᙮᠃᠉꓿𑁇"
_LOOSE = ".!?…‽"
_END = re.compile(f"[{_LOOSE}{_TIGHT}]+[{_CLOSERS}]*")
_NEXT = re.compile(rf"[{re.escape(_OPENERS)}\s]*(\d|[^\W\d_]+(?:['’][^\W\d_]+)?)?")
_INITIALS = re.compile(r"(?:[^\W\d_]\.[-‐]?)*[^\W\d_]")
_HAS_WORD = re.compile(r"[^\W_]")
# Japanese quotation goes on with these; Chinese and other sentences end at the mark.
_QUOTED_ON = ("と", "って", "という", "などと")
_SURROGATES = re.compile("[\ud800-\udfff]")
_CONTROLS = re.compile("[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u200b\u2060\ufeff\ufffe\uffff]")


def split_text(text: str) -> list[str]:
    """The sentences of a text; each of its lines ends one.

    White space becomes one space. What has no letter and no digit is no sentence. A sentence of
    more than `LONGEST` characters is cut between words.

    >>> split_text("你好。我是学生！\\nMr. J. R. Hill left. He is 3.5 m tall.")
    ['你好。', '我是学生！', 'Mr. J. R. Hill left.', 'He is 3.5 m tall.']
    """
    return [
        part
        for line in text.splitlines()
        for sentence in _split_line(" ".join(_without_controls(line).split()))
        for part in _cut(sentence)
        if _HAS_WORD.search(part)
    ]


def _without_controls(line: str) -> str:
    if line.isprintable():
        return line
    return _CONTROLS.sub("", _SURROGATES.sub("\ufffd", line))


def _split_line(line: str) -> Iterator[str]:
    """Sentences of a line whose words one space parts."""
    start = 0
    for match in _END.finditer(line):
        if match.end() < len(line) and _ends(line, start, match):
            yield line[start : match.end()].strip()
            start = match.end()
    if rest := line[start:].strip():
        yield rest


def _ends(line: str, start: int, match: re.Match) -> bool:
    """Whether a sentence that began at `start` ends with these stops."""
    stops, after = match[0], match.end()
    if stops != "." and any(one in _TIGHT for one in stops):
        closed = stops[-1] not in _TIGHT + _LOOSE
        return not (closed and line.startswith(_QUOTED_ON, after))
    if line[after] != " ":
        return False
    upcoming = _NEXT.match(line, after)
    following = upcoming[1] or ""
    if following[:1].islower():
        return False
    if stops == "." and len(following) == 1 and line.startswith(".", upcoming.end()):
        # Initials follow each other: "J. R. R. Hill", "z. B."; "vitamin C. A. Hill" is rarer.
        if _INITIALS.fullmatch(line[max(start, match.start() - 2) : match.start()].strip()):
            return False
    # Only a bare "." may belong to an abbreviation: `(see p. 3.)` and `?` do not.
    return stops != "." or not _abbreviates(line, start, match.start(), following)


def _abbreviates(line: str, start: int, stop: int, following: str) -> bool:
    """Whether the stop at `stop` belongs to the word before it and ends no sentence."""
    word = line[max(start, stop - 40) : stop].rpartition(" ")[2].lstrip(_OPENERS)
    lower = word.lower()
    if len(word) > 1 and word.isalpha() and lower not in abbreviations.KNOWN:
        return False  # As most words are.
    starts = following.lower() in abbreviations.STARTERS
    if lower in abbreviations.TITLES or lower in abbreviations.INSIDE:
        return True
    if lower in abbreviations.BEFORE_NUMBERS and (following[:1].isdigit() or _is_roman(following)):
        return True
    if word.isdigit():
        first = not line[start : stop - len(word)].strip()  # "1. Paris": the number of an item.
        ordinal = len(word) <= 2 and following.lower() in abbreviations.ORDINAL_NOUNS
        return ordinal or (first and len(word) <= 2)
    if lower in abbreviations.OPEN or (_INITIALS.fullmatch(word) and word[0].isupper()):
        return not starts and not following[:1].isdigit() and bool(following)
    return bool("." in word and _INITIALS.fullmatch(word)) and not starts


def _is_roman(word: str) -> bool:
    return bool(word) and set(word) <= set("IVXLC")


def _cut(sentence: str) -> Iterator[str]:
    """Parts of at most `LONGEST` characters, cut at spaces, or else before a whole character."""
    while len(sentence) > LONGEST:
        at = sentence.rfind(" ", 1, LONGEST + 1)
        if at < 0:
            at = LONGEST
            # Marks belong to the letter before them; a text of marks alone is cut all the same.
            while at > LONGEST // 2 and unicodedata.category(sentence[at]).startswith("M"):
                at -= 1
        yield sentence[:at].rstrip()
        sentence = sentence[at:].lstrip()
    if sentence:
        yield sentence
