"""One document of any kind as sentences, and its shard. What processes and pipelines share."""

from __future__ import annotations

import hashlib
import pathlib
from collections.abc import Iterator

from xdistil_tf.data.corpus import (
    cleaning,
    disambiguation,
    extracted,
    inputs,
    mediawiki,
    sentences,
    wikitext,
)
from xdistil_tf.data.corpus.documents import Bad, Document, Dropped, Found


def read_documents(path: pathlib.Path, input_format: str, text_field: str) -> Iterator[Found]:
    """Yields what stands in a file, in its order.

    Args:
      path: A file.
      input_format: One of `inputs.FORMATS`, or `auto`.
      text_field: Of JSON lines.

    Raises:
      ValueError: If the file as a whole is empty, cut off or damaged.
    """
    detected = inputs.detect_format(path)
    chosen = detected if input_format == "auto" else input_format
    if chosen == "mediawiki":
        yield from mediawiki.read_pages(path)
    elif chosen == "wikiextractor" and inputs.first_character(path) != "{":
        yield from extracted.read_blocks(path)
    elif chosen in ("wikiextractor", "jsonlines"):
        was_extracted = chosen == "wikiextractor"
        field = "text" if was_extracted else text_field
        yield from extracted.read_json_lines(path, field, was_extracted)
    else:
        yield from extracted.read_text(path)


def convert(found: Found) -> list[str] | Dropped | Bad:
    """The sentences of a document, or why it has none."""
    if not isinstance(found, Document):
        return found
    if found.kind == "plain":
        lines = sentences.split_text(found.text)
    else:
        text = clean_text(found)
        if not isinstance(text, str):
            return text
        lines = sentences.split_text(text)
    return lines or Dropped("empty")


def text_of(lines: list[str]) -> str:
    """A document as it stands in a shard: one sentence a line."""
    return "".join(f"{line}\n" for line in lines)


def shard_of(text: str, num_shards: int) -> int:
    """The shard of a document: a hash of its text, so that no other document moves it."""
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return int.from_bytes(digest[:8], "big") % num_shards


def clean_text(document: Document) -> str | Dropped | Bad:
    """The text of a document without markup, or why there is none."""
    if document.kind == "wikitext":
        try:
            page = wikitext.Page(document.text, document.hidden)
            if disambiguation.is_marked(document.title, document.text, page.template_names):
                return Dropped("disambiguation")
            text = page.text()
        except ValueError as error:
            return Bad(document.file, document.row, f"{error} (page {document.title!r})")
    else:
        text = cleaning.tidy(document.text)
    if disambiguation.reads_like_one(document.title, text):
        return Dropped("disambiguation")
    return text
