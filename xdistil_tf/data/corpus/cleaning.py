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
_SWITCH = re.compile(r"__[A-Z]{4,}__")
# Tags that WikiExtractor leaves, escaped; and what no parser could pair.
_TAG = re.compile(
    r"</?(?:ref|references|templatestyles|br|div|span|p|small|big|sub|sup|i|b|u|s|em|strong|center|"
    r"blockquote|gallery|nowiki|poem|section|onlyinclude|includeonly|noinclude|table|tr|td|th|li|"
    r"ul|ol|font|code|abbr|var|hr|mapframe|maplink|math|score|timeline|indicator)\b[^<>]*>",
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
    line = _MARKER.sub("", _TAG.sub(" ", _SWITCH.sub("", line)) if "<" in line or "__" in line else line)
    line = _BRACES.sub("", _FORMULA.sub("", line))
    before = None
    while before != line and any(one in line for one in _OPEN):  # One pair may hold another.
        before, line = line, _HOLLOW.sub("", line)
    line = _TRAILING.sub("", _LEADING.sub("", line))
    line = _BEFORE_STOP.sub("", _REPEATED.sub(r"\1", line))
    return _SPACES.sub(" ", _DANGLING.sub("", line)).strip()
