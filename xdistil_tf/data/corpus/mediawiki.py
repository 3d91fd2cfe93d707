"""A MediaWiki dump (pages-articles XML) as documents, page by page, in its order.

The parser gets bytes, so the encoding that the XML declares counts. Memory holds one page.
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterator
from xml.parsers import expat

from xdistil_tf.data.corpus import inputs
from xdistil_tf.data.corpus.documents import Document, Dropped, Found

_CHUNK = 1 << 18
_FILE, _CATEGORY = "6", "14"
_KEPT = {"title", "ns", "text", "model", "redirect"}
# Dumps before version 0.4 of the format do not mark redirects; MediaWiki's words for it.
_REDIRECT = re.compile(
    r"\s*#\s*(?:redirect(?:ion)?|redirecci[oó]n|redirecionamento|weiterleitung|doorverwijzing|"
    r"rinvia|patrz|omdirigering|omdirigera|viderestilling|ohjaus|uudelleenohjaus|yönlendi̇?rme|"
    r"yönlendirme|átirányítás|přesměruj|presmeruj|preusmeritev|preusmjeri|suuna|перенаправление|"
    r"перенапр|перенаправлення|пренасочване|виж|преусмери|đổi|ανακατευθυνση|ανακατεύθυνση|"
    r"ប្តូរទីតាំង|تحويل|تغییر_?مسیر|رجوع_مکرر|הפניה|पुनर्प्रेषित|अनुप्रेषित|เปลี่ยนทาง|"
    r"重定向|転送|リダイレクト|넘겨주기|alih|lencong)[\w ]*:?\s*\[\[",
    re.IGNORECASE,
)


def read_pages(path: pathlib.Path) -> Iterator[Found]:
    """Yields the articles of a dump, and for each other page why it is none.

    Raises:
      ValueError: If the XML is cut off, damaged or no dump of MediaWiki; names file and line.
    """
    parser = _Parser(str(path))
    with inputs.opened(path) as handle:
        while chunk := handle.read(_CHUNK):
            yield from parser.feed(chunk)
        yield from parser.feed(b"", last=True)


class _Parser:
    """Turns bytes of XML into pages.

    ```
    start("page") -> start("title") text end("title") ... -> end("page"): one more in `_pages`
    ```
    """

    def __init__(self, path: str):
        self._path = path
        self._depth = 0
        self._page: dict[str, str] | None = None
        self._field: str | None = None
        self._namespace: tuple[str, list[str]] | None = None
        self._pieces: list[str] = []
        self._pages: list[Found] = []
        self._number = 0
        self._hidden = {"file", "image", "category"}
        self._prefixes: dict[str, str] = {}  # Of titles, in lower case -> number.
        # A separator makes names "<namespace> <name>", whatever version of the format it is.
        self._expat = expat.ParserCreate(namespace_separator=" ")
        self._expat.buffer_text = True
        self._expat.buffer_size = _CHUNK
        self._expat.StartElementHandler = self._start
        self._expat.EndElementHandler = self._end
        self._expat.CharacterDataHandler = self._text

    def feed(self, data: bytes, last: bool = False) -> list[Found]:
        """Takes bytes; returns the pages that ended in them."""
        try:
            self._expat.Parse(data, last)
        except expat.ExpatError as error:
            raise ValueError(self._in_words(error)) from error
        except (ValueError, LookupError) as error:
            if str(error).startswith(self._path):  # Our own, from a handler.
                raise
            raise ValueError(
                f"{self._path}: expected XML in UTF-8, UTF-16 or an encoding of one byte a letter. "
                f"Received: {error}. Convert it to UTF-8, its declaration too."
            ) from error
        pages, self._pages = self._pages, []
        return pages

    def _in_words(self, error: expat.ExpatError) -> str:
        words = expat.errors.messages.get(error.code) or expat.ErrorString(error.code)
        where = f"{self._path}, line {error.lineno}"
        cut = (
            expat.errors.XML_ERROR_NO_ELEMENTS,
            expat.errors.XML_ERROR_UNCLOSED_TOKEN,
            expat.errors.XML_ERROR_PARTIAL_CHAR,
            expat.errors.XML_ERROR_UNCLOSED_CDATA_SECTION,
        )
        if words in cut:
            return f"{where}: the XML is cut off. Download or copy it again."
        return f"{where}: expected the XML of a MediaWiki dump. Received: {words}."

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        name = name.rsplit(" ", 1)[-1]
        self._depth += 1
        if self._depth == 1 and name != "mediawiki":
            line = self._expat.CurrentLineNumber
            raise ValueError(
                f"{self._path}, line {line}: expected the XML of a MediaWiki dump, with <mediawiki>"
                f" around it. Received: <{name}>."
            )
        if name == "page":
            self._page = {}
        elif name == "namespace" and self._page is None:
            self._namespace = (attributes.get("key", ""), [])
            self._pieces = []
        elif name == "redirect" and self._page is not None:
            self._page["redirect"] = attributes.get("title", "")
        elif name in _KEPT and self._page is not None:
            self._field, self._pieces = name, []

    def _text(self, data: str) -> None:
        if self._field or self._namespace:
            self._pieces.append(data)

    def _end(self, name: str) -> None:
        name = name.rsplit(" ", 1)[-1]
        self._depth -= 1
        if name == self._field:
            self._page[name] = "".join(self._pieces)  # Of several revisions the last one counts.
            self._field = None
        elif name == "namespace" and self._namespace:
            self._add_namespace(self._namespace[0], "".join(self._pieces).strip().lower())
            self._namespace = None
        elif name == "page" and self._page is not None:
            self._number += 1
            self._pages.append(self._found(self._page))
            self._page = None

    def _add_namespace(self, key: str, name: str) -> None:
        if key in (_FILE, _CATEGORY):
            self._hidden.add(name)
        if name:
            self._prefixes[name] = key

    def _found(self, page: dict[str, str]) -> Found:
        title, text = page.get("title", ""), page.get("text", "")
        if page.get("ns", self._namespace_of(title)).strip() != "0":
            return Dropped("other_namespace")
        if "redirect" in page or _REDIRECT.match(text):
            return Dropped("redirect")
        if page.get("model", "wikitext") != "wikitext" or not text.strip():
            return Dropped("empty")
        return Document(
            "wikitext", title, text, self._path, self._number, tuple(sorted(self._hidden))
        )

    def _namespace_of(self, title: str) -> str:
        """Dumps before version 0.6 of the format name it in the title alone."""
        prefix, colon, _ = title.partition(":")
        return self._prefixes.get(prefix.strip().lower(), "0") if colon else "0"
