"""Wiki markup as plain text: what a reader of the page sees as prose.

Before: `'''Foo''' is a [[town|small town]].<ref>Bar.</ref>`. After: `Foo is a small town.`
Tables, references, headings, files, categories and lists of links are left out, as BERT's authors
did (Devlin et al., 2019, section 3.1). Templates are not expanded: the few that only dress their
argument give it, all others nothing. Needs mwparserfromhell (the extra `wikipedia`).
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence

from xdistil_tf.data.corpus import cleaning, pruning

# Their content is no prose.
_DROPPED_TAGS = frozenset(
    "ref references gallery table math chem ce timeline syntaxhighlight source score imagemap "
    "templatestyles graph hiero inputbox mapframe maplink categorytree indicator section dl "
    "rss tr td th hr pre noinclude css charinsert".split()
)
_BLOCK_TAGS = frozenset("br p div blockquote center poem ul ol li h1 h2 h3 h4 h5 h6".split())
_ITEM_TAGS = frozenset(("li", "dt", "dd"))
# Template -> which argument is shown; a name that ends in "-" takes any ending (lang-de).
_DRESSED = {
    **dict.fromkeys(("lang", "langx", "transl", "transliteration", "nihongo2", "tooltip2"), "2"),
    **dict.fromkeys(("nowrap", "nobr", "nbsp text", "small", "big", "smaller", "larger"), "1"),
    **dict.fromkeys(
        ("abbr", "abbrlink", "tooltip", "nihongo", "nihongo3", "sic", "em", "strong"), "1"
    ),
    **dict.fromkeys(
        ("quote", "blockquote", "cquote", "zitat", "citation bloc", "visible anchor"), "1"
    ),
    **dict.fromkeys(
        ("lang-", "ipa-none", "no break", "unité", "formatnum", "script", "ill", "link-"), "1"
    ),
}
_MEASURES = frozenset(("convert", "cvt"))
_PUNCTUATION = {"ndash": "–", "spaced ndash": " – ", "snd": " – ", "mdash": "—", "nbsp": " ",
                "spnd": " – ", "!": "", "'": "'", "\"": "\"", "·": " · ", "•": " • ",
                "dot": " · ", "=": "=", "snds": " – ", "emdash": "—", "endash": "–"}  # fmt: skip
_SHOWN = _MEASURES | frozenset(_PUNCTUATION)
# Sections that are lists of works and links, in larger wikis.
_LISTS = frozenset(
    [
        *("see also", "references", "external links", "further reading", "notes", "bibliography"),
        *("sources", "footnotes", "citations", "works cited", "notes and references", "gallery"),
        *("discography", "filmography", "publications", "selected publications", "selected works"),
        *("siehe auch", "weblinks", "einzelnachweise", "literatur", "quellen", "fußnoten"),
        *("voir aussi", "notes et références", "références", "liens externes", "bibliographie"),
        *("véase también", "referencias", "enlaces externos", "bibliografía", "notas"),
        *(
            "ver também",
            "referências",
            "ligações externas",
            "bibliografia",
            "note",
            "altri progetti",
        ),
        *(
            "voci correlate",
            "collegamenti esterni",
            "zie ook",
            "externe links",
            "bronnen",
            "zobacz też",
        ),
        *("przypisy", "linki zewnętrzne", "см. также", "примечания", "ссылки", "литература"),
        *("вижте също", "източници", "външни препратки", "бележки", "див. також", "примітки"),
        *("xem thêm", "chú thích", "tham khảo", "liên kết ngoài", "ghi chú", "đọc thêm"),
        *(
            "参考文献",
            "参见",
            "參見",
            "外部链接",
            "外部連結",
            "注释",
            "註釋",
            "参考资料",
            "參考資料",
        ),
        *(
            "脚注",
            "関連項目",
            "外部リンク",
            "出典",
            "注釈",
            "같이 보기",
            "각주",
            "외부 링크",
            "참고 문헌",
        ),
        *(
            "انظر أيضا",
            "انظر أيضًا",
            "مراجع",
            "المراجع",
            "وصلات خارجية",
            "ayrıca bakınız",
            "kaynakça",
        ),
        *("dış bağlantılar", "इन्हें भी देखें", "सन्दर्भ", "बाहरी कड़ियाँ", "อ้างอิง", "ดูเพิ่ม"),
    ]
)
_INTERWIKI = re.compile(r"[a-z]{2,3}(?:-[a-z-]+)?|simple|zh-min-nan|commons|wikt|wikipedia|s|d|q|b")
_SENTENCE_END = re.compile(r"[.!?。！？।؟…][\"'”’»)\]」』）]*\s*\Z")


class Page:
    """The markup of a page, parsed once.

    Args:
      markup: Wikitext, decoded from XML.
      hidden: Names of namespaces whose links show no text, in lower case.

    Attributes:
      template_names: Of the templates that stand on the page itself, not within others; in lower
        case.

    Raises:
      ImportError: If mwparserfromhell is missing.
      ValueError: If the parser gives up.
    """

    def __init__(self, markup: str, hidden: Sequence[str] = ("file", "image", "category")):
        self._hidden = frozenset(hidden)
        parser = _parser()
        pruned = pruning.prune(
            markup,
            lambda name: name in _SHOWN or _argument_of(name) is not None,
            self._hidden,
        )
        self.template_names = pruned.template_names
        try:
            # Bold and italics are cut out as text: unbalanced ones swallow whole pages otherwise.
            self._code = parser.parse(pruned.markup, skip_style_tags=True)
        except (parser.parser.ParserError, RecursionError) as error:
            raise ValueError(f"expected wiki markup, which cannot be parsed: {error}") from error

    def text(self) -> str:
        """The prose, a paragraph a line.

        Raises:
          ValueError: If its markup is nested too deeply.
        """
        try:
            raw = "".join(self._pieces(self._code))
        except RecursionError as error:
            raise ValueError("expected wiki markup, which is nested too deeply") from error
        return cleaning.tidy("\n".join(_prose(raw.split("\n"))))

    def _pieces(self, code) -> Iterator[str]:
        nodes = _parser().nodes
        for node in code.nodes:
            if isinstance(node, nodes.Text):
                yield node.value
            elif isinstance(node, nodes.Wikilink):
                yield from self._link(node)
            elif isinstance(node, nodes.Template):
                yield from self._template(node)
            elif isinstance(node, nodes.Tag):
                yield from self._tag(node)
            elif isinstance(node, nodes.ExternalLink):
                if node.title is not None:
                    yield from self._pieces(node.title)
                elif not node.brackets:
                    yield str(node.url)
            elif isinstance(node, nodes.HTMLEntity):
                yield _entity(node)
            elif isinstance(node, nodes.Heading):
                yield f"\n{pruning.heading_line(node.level, str(node.title))}\n"

    def _link(self, node) -> Iterator[str]:
        target = str(node.title).strip()
        prefix = target.partition(":")[0].strip().lower().replace("_", " ") if ":" in target else ""
        if prefix in self._hidden:
            return
        if prefix and node.text is None and _INTERWIKI.fullmatch(prefix):
            return
        if node.text is None:
            yield html.unescape(target.removeprefix(":").replace("_", " "))
        else:
            yield from self._pieces(node.text)

    def _template(self, node) -> Iterator[str]:
        name = pruning.template_name(node.name.strip_code())
        if name in _PUNCTUATION:
            yield _PUNCTUATION[name]
        elif name in _MEASURES and node.has("1") and node.has("2"):
            yield " ".join(html.unescape(str(node.get(one).value)).strip() for one in ("1", "2"))
        else:
            shown = _argument_of(name)
            if shown and node.has(shown):
                yield from self._pieces(node.get(shown).value)

    def _tag(self, node) -> Iterator[str]:
        name = str(node.tag).strip().lower()
        if node.wiki_markup and name in _ITEM_TAGS:
            yield pruning.ITEM
            return
        if name in _DROPPED_TAGS:
            return
        if name in _BLOCK_TAGS:
            yield "\n\n"  # One would be a space.
        if node.contents is not None:
            yield from self._pieces(node.contents)
        if name in _BLOCK_TAGS:
            yield "\n\n"  # One would be a space.


def _prose(lines: Sequence[str]) -> Iterator[str]:
    """Paragraphs, whose lines are joined as MediaWiki shows them, and items that are sentences.

    Headings are left out, and sections that are lists by their heading.
    """
    listed = 0  # The level of the heading that began such a section.
    paragraph: list[str] = []
    for line in [*lines, ""]:
        if line.strip() and line[0] not in pruning.HEADING + pruning.ITEM:
            paragraph += [] if listed else [line.replace(pruning.ITEM, "")]
            continue
        yield " ".join(paragraph)
        paragraph = []
        if line.startswith(pruning.HEADING):
            level, title = int(line[1]), line[2:].strip()
            if not listed or level <= listed:
                listed = level if title in _LISTS else 0
        elif line.startswith(pruning.ITEM) and not listed:
            item = line.replace(pruning.ITEM, "").strip()
            if _SENTENCE_END.search(item):
                yield item


def _entity(node) -> str:
    try:
        return node.normalize()
    except (ValueError, OverflowError):
        return "\ufffd"  # A number beyond Unicode.


def _argument_of(name: str) -> str | None:
    """Which argument of a template is shown, if one is."""
    return _DRESSED.get(name) or _DRESSED.get(name.partition("-")[0] + "-")


def _parser():
    try:
        import mwparserfromhell
    except ImportError as error:
        raise ImportError(
            "Reading a MediaWiki dump needs mwparserfromhell. Install the extra: "
            "pip install 'xdistil_tf[wikipedia]'."
        ) from error
    return mwparserfromhell
