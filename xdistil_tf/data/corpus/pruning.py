"""What of a page's markup shows no text, cut out before the parser sees it.

Before: `A {{fact|date=May}} town.<ref>{{cite book|title=B}}</ref>`. After: `A  town.` The parser
takes nine tenths of the time of a page for what is thrown away afterwards: templates, tables,
references. Plain links become their text, marks of items one character. What is not closed stays,
for the parser to judge.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Collection
from typing import NamedTuple

# Tags whose content is no markup, as mwparserfromhell has them; of `nowiki` it is shown.
_RAW = (
    "categorytree|ce|chem|gallery|graph|hiero|imagemap|inputbox|math|pre|score|section|source|"
    "syntaxhighlight|templatedata|timeline"
)
_ATTRIBUTES = r"(?:[^<>\"'/]|/(?!>)|\"[^\"<>]*\"|'[^'<>]*')*"
# Where a pattern, or each of its branches, begins with a letter, `re` finds it ten times as fast as
# where it begins with a group or ignores cases.
_OPENING = re.compile(
    rf"<(?:(?P<comment>!--)|(?P<shown>(?i:nowiki)>)|(?P<name>(?i:ref|{_RAW}))\b{_ATTRIBUTES}"
    r"(?P<empty>/)?>)"
)
_COMMENT_END = re.compile("-->")
_CLOSINGS = {name: re.compile(rf"</(?i:{name})\s*>") for name in ("nowiki", *_RAW.split("|"))}
# Of two references that open before one is closed, the second is taken.
_REFERENCE = re.compile(r"<(?:(?P<end>/(?i:ref)\s*>)|(?i:ref)\b|/(?i:ref)\b)")
_MARK = re.compile(r"\{\{\{[^{}]*\}\}\}|\{\{|\}\}|\{\||\|\}(?!\})")
# Of a page, of which nothing says that it is a file or category.
_LINK = re.compile(r"\[\[([^\[\]|{}<>\n:=\0]+)(?:\|([^\[\]|{}<>\n:=\0]+))?\]\]")
_NAME = re.compile(r"[^|{}]*")
# Of which the content alone is shown.
_SPAN = re.compile(r"</?(?:sub|sup|small|big|span|code|font|abbr|s|u|i|b|em|strong)(?:\s[^<>]*)?>")
_ENTITIES = {"&nbsp;": "\u00a0", "&ndash;": "–", "&mdash;": "—"}
_HEADINGS = re.compile(r"\n(={2,6})([^=\n\[\]{}<>|&\0]+)\1(?=\n)")
# A `;` may have its `:` further on in the line.
_ITEMS = re.compile(r"\n[*#:]+(?!;)")
_KEPT = re.compile("\0(\\d+)\0")  # The place of what is shown as it is.
# What means something at the start of a line alone must not come to stand there.
_LINE_MARKS = tuple("*#:;=|!{-_ \t")
_STAND_IN = "<!---->"
_OPENED_BY = {"}}": "{{", "|}": "{|"}


# Not legal in XML, so in no page. One begins a line with the level and title of a heading; the
# other stands instead of each `*`, `#` or `:` that begins a list's item.
HEADING, ITEM = "\x02", "\x03"


class Pruned(NamedTuple):
    """What is left of a page.

    Attributes:
      markup: Parses to the same text, sooner.
      template_names: Of the templates on the page itself, not within others or within tables; in
        lower case, with single spaces.
    """

    markup: str
    template_names: frozenset[str]


def prune(
    markup: str, shows: Callable[[str], bool], hidden: Collection[str] = frozenset()
) -> Pruned:
    """Cuts out comments, references, tables, tags without markup, and templates.

    Links become their text; items of lists begin with `ITEM`.

    Args:
      markup: Wikitext of a page.
      shows: Whether the template of this name shows text; such ones stay.
      hidden: Names of namespaces whose links show no text, in lower case.
    """
    markup, shown = _without_unseen(markup.replace("\0", ""))
    cuts: list[tuple[int, int]] = []  # Apart from each other, in their order.
    names: list[tuple[int, str]] = []
    opened: list[tuple[str, int]] = []
    for match in _MARK.finditer(markup):
        mark, start = match[0], match.start()
        if mark in ("{|", "|}") and not _begins_line(markup, start):
            continue
        if mark in ("{{", "{|"):
            opened.append((mark, start))
        elif mark.startswith("{{{"):
            cuts.append(match.span())
        elif mark in _OPENED_BY and (start := _close(opened, mark)) is not None:
            while names and names[-1][0] > start:
                names.pop()
            if mark == "}}":
                name = template_name(_NAME.match(markup, start + 2)[0])
                names.append((start, name))
                if shows(name):
                    continue
            while cuts and cuts[-1][0] > start:
                cuts.pop()
            cuts.append((start, match.end()))
    kept, place = [], 0
    for start, end in cuts:
        kept += markup[place:start], _stand_in(markup, start, end)
        place = end
    markup = "".join([*kept, markup[place:]])
    for entity, character in _ENTITIES.items():
        markup = markup.replace(entity, character)
    for unseen in (_SPAN, _hidden_link(frozenset(hidden))):
        markup = unseen.sub(lambda m: _stand_in(m.string, m.start(), m.end()), markup)
    markup = _LINK.sub(_link_text, markup)
    markup = _ITEMS.sub(lambda match: "\n" + ITEM * (len(match[0]) - 1), f"\n{markup}\n")
    markup = _HEADINGS.sub(_heading, markup)[1:-1]
    markup = _KEPT.sub(lambda match: shown[int(match[1])], markup)
    return Pruned(markup, frozenset(name for _, name in names))


@functools.lru_cache(maxsize=64)
def _hidden_link(hidden: frozenset[str]) -> re.Pattern:
    """A link to a file or category, without links in its text."""
    names = "|".join(re.escape(one).replace("\\ ", "[ _]") for one in sorted(hidden)) or "(?!)"
    return re.compile(rf"\[\[\s*(?i:{names})\s*:[^\[\]{{}}\n]*\]\]")


def template_name(name: str) -> str:
    """As templates are looked up: lower case, single spaces, without the name of the namespace."""
    return " ".join(name.replace("_", " ").split()).lower().removeprefix("template:")


def _without_unseen(markup: str) -> tuple[str, list[str]]:
    """Cuts out comments, references and raw tags, in one pass whatever is left open.

    Returns:
      The rest, where `nowiki` has a number between two NULs; and what stood there.
    """
    kept: list[str] = []
    shown: list[str] = []
    unclosed: set[str] = set()  # Of what nothing further on closes, which is looked for once.
    place = 0
    while match := _OPENING.search(markup, place):
        kind = (match["name"] or match["comment"] or "nowiki").lower()
        end = match.end() if match["empty"] else _end(markup, match.end(), kind, unclosed)
        if end is None:
            kept.append(markup[place : match.end()])
        else:
            kept.append(markup[place : match.start()])
            if match["shown"]:
                kept.append(f"\0{len(shown)}\0")
                shown.append(markup[match.start() : end])
            elif not match["comment"]:  # They go before anything else looks at a line.
                kept.append(_stand_in(markup, match.start(), end))
        place = match.end() if end is None else end
    return "".join([*kept, markup[place:]]), shown


def _end(markup: str, place: int, kind: str, unclosed: set[str]) -> int | None:
    """Where the tag or comment ends whose opening ends at `place`; `None` if it does not."""
    if kind in unclosed:
        return None
    if kind == "!--":
        match = _COMMENT_END.search(markup, place)
    elif kind == "ref":
        match = _REFERENCE.search(markup, place)
        if match and not match["end"]:
            return None
    else:
        match = _CLOSINGS[kind].search(markup, place)
    if not match:
        unclosed.add(kind)
    return match.end() if match else None


def _link_text(match: re.Match) -> str:
    """What is shown of a link, unless it would mean something there."""
    text = match[2] or (match[1] or "").strip().replace("_", " ")
    at_start = _begins_line(match.string, match.start())
    return match[0] if not text or at_start and text.startswith(_LINE_MARKS) else text


def heading_line(level: int, title: str) -> str:
    """A heading as a line of text."""
    return f"{HEADING}{level}{title.strip().strip(chr(39)).lower()}"


def _heading(match: re.Match) -> str:
    return "\n\n" + heading_line(len(match[1]), match[2]) + "\n"


def _stand_in(markup: str, start: int, end: int) -> str:
    """Nothing, or what keeps the rest of a line from its start."""
    begins = start == 0 or markup[start - 1] == "\n"
    return _STAND_IN if begins and markup.startswith(_LINE_MARKS, end) else ""


def _begins_line(markup: str, place: int) -> bool:
    """Whether nothing but white space or an indent stands before it."""
    return not markup[markup.rfind("\n", 0, place) + 1 : place].strip(" \t:")


def _close(opened: list[tuple[str, int]], end: str) -> int | None:
    """Takes away the last one that this end closes, and all behind it; returns its start."""
    mark = _OPENED_BY[end]
    for place in range(len(opened) - 1, -1, -1):
        if opened[place][0] == mark:
            start = opened[place][1]
            del opened[place:]
            return start
        if end == "|}":
            return None  # A template in the table is not closed yet: this belongs to that.
    return None
