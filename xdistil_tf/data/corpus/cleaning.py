"""What is mended in the text of an encyclopedia when markup and templates have left it."""

from __future__ import annotations

import re

_OPEN = "(（[［"
# What stays in parentheses whose templates are gone: "( ; )", "(, )", "（，）".
_HOLLOW = re.compile(r"\s?[(（\[［][\s,;:/.·•|、，；：–—-]*[)）\]］]")
_LEADING = re.compile(r"(?<=[(（])[\s,;:、，；：]+(?=\S)")
_TRAILING = re.compile(r"[\s,;:、，；：]+(?=[)）])")
_REPEATED = re.compile(r"([,;:])(?:\s*[,;:])+(?=\s|$)")
_BEFORE_STOP = re.compile(r"[ \t\u00a0]+(?=[,;.!?](?:\s|$))")
_DANGLING = re.compile(r"[,;:]+(?=\.(?:\s|$))")
_SPACES = re.compile(r"[ \t\u00a0]+")
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
    lines = (_tidy_line(line) for line in text.split("\n"))
    return "\n".join(line for line in lines if line)


def _tidy_line(line: str) -> str:
    if _TABLE_LINE.match(line):
        return ""
    for pattern in (_SWITCH, _TAG, _FORMULA):
        line = pattern.sub("", line)
    line = _BRACES.sub("", _MARKER.sub("", _VARIANTS.sub(_first_variant, line)))
    before = None
    while before != line and any(one in line for one in _OPEN):  # One pair may hold another.
        before, line = line, _HOLLOW.sub("", line)
    line = _TRAILING.sub("", _LEADING.sub("", _HOLLOW_QUOTES.sub("", line)))
    line = _BEFORE_STOP.sub("", _REPEATED.sub(r"\1", line))
    return _START.sub("", _SPACES.sub(" ", _DANGLING.sub("", line))).strip()


def _first_variant(match: re.Match) -> str:
    """What one reader sees of text that is written in several ways."""
    first = match[1].split(";", 1)[0]
    return first.rpartition(":")[2] if first.lstrip().startswith("zh") else match[1]
