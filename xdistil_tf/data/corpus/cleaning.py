"""What is mended in the text of an encyclopedia when markup and templates have left it."""

from __future__ import annotations

import re
from collections.abc import Iterable

_BRACKETS, _QUOTES = "(（[［)）", '"“„«「'
# What stays in parentheses whose templates are gone: "( ; )", "(, )", "（，）".
_HOLLOW = re.compile(r"\s?[(（\[［][\s,;:/.·•|、，；：–—-]*[)）\]］]")
_LEADING = re.compile(r"(?<=[(（])[\s,;:、，；：]+(?=\S)")
_TRAILING = re.compile(r"[\s,;:、，；：]+(?=[)）])")
_REPEATED = re.compile(r"([,;:])(?:[^\S\n]*[,;:])+(?=\s|$)")
_BEFORE_STOP = re.compile(r"[ \t\u00a0]+(?=[,;.!?](?:\s|$))")
_DANGLING = re.compile(r"[,;:]+(?=\.(?:\s|$))")
_SPACES = re.compile(r"[ \t\u00a0]{2,}|[\t\u00a0]")  # One space is as it should be.
_MARKER = re.compile(r"^[\s*#:;•·‣▪◦]+(?=\S)|^\s*[-–—]\s+(?=\S)")
_HOLLOW_QUOTES = re.compile(r"(?<!\S)(?:\"\"|“”|„“|«\s?»|「」)(?=[\s,.;:]|$) ?")
_START = re.compile(r"^[\s,;:)）、，；：]+")
_SWITCH = re.compile(r"__[A-Z]{3,}__")
# Chinese wikis: "-{zh-hans:甲;zh-hant:乙}-" shows one of them, "-{甲}-" is not converted.
_VARIANTS = re.compile(r"-\{(?:[^{}|]*\|)?([^{}]*)\}-")
# Tags that WikiExtractor leaves, escaped; and what no parser could pair.
_TAG = re.compile(
    r"</[a-z][a-z0-9]*\s*>|<(?:ref|references|templatestyles|br|div|span|p|small|big|sub|sup|i|b|u|s|"
    r"em|strong|center|blockquote|gallery|nowiki|poem|section|onlyinclude|includeonly|noinclude|"
    r"table|tr|td|th|li|ul|ol|dl|dt|dd|font|code|abbr|var|hr|mapframe|maplink|math|score|timeline|"
    r"indicator|dynamicpagelist)\b[^<>]*>",
    re.IGNORECASE,
)
_BRACES = re.compile(r"\{\{[^{}]*\}\}|\{\{|\}\}|\[\[|\]\]|'{2,}")
_FORMULA = re.compile(r"\b(?:formula|codice)_\d+\b")
_TABLE_LINE = re.compile(r"^\s*(?:\{\||\|[}+-]?|!(?!\w)).*$")


def tidy(text: str) -> str:
    """The text's lines without what removed markup leaves behind; empty lines are left out.

    >>> tidy("Foo ( ; ) is a town , in  Bar.\\n* An item.")
    'Foo is a town, in Bar.\\nAn item.'
    """
    text = "\n".join(_without_markup(line) for line in text.split("\n"))
    text = _BEFORE_STOP.sub("", _REPEATED.sub(r"\1", text))
    text = _SPACES.sub(" ", _DANGLING.sub("", text))
    lines = (_START.sub("", line).strip() for line in text.split("\n"))
    return "\n".join(line for line in lines if line)


def _without_markup(line: str) -> str:
    """A line without what no parser took for markup, and what stands in empty brackets."""
    if _TABLE_LINE.match(line):
        return ""
    # Most lines have nothing of most kinds: a look for a letter costs a tenth of a substitution.
    if "_" in line:
        line = _FORMULA.sub("", _SWITCH.sub("", line))
    if "<" in line:
        line = _TAG.sub("", line)
    if "-{" in line:
        line = _VARIANTS.sub(_first_variant, line)
    line = _MARKER.sub("", line)
    if _has(line, "{}[]'"):
        line = _BRACES.sub("", line)
    bracketed = _has(line, _BRACKETS)
    before = None
    while bracketed and before != line:  # One pair may hold another.
        before, line = line, _HOLLOW.sub("", line)
    if _has(line, _QUOTES):
        line = _HOLLOW_QUOTES.sub("", line)
    if bracketed:
        line = _TRAILING.sub("", _LEADING.sub("", line))
    return line


def _has(line: str, parts: Iterable[str]) -> bool:
    return any(one in line for one in parts)


def _first_variant(match: re.Match) -> str:
    """What one reader sees of text that is written in several ways."""
    first = match[1].split(";", 1)[0]
    return first.rpartition(":")[2] if first.lstrip().startswith("zh") else match[1]
