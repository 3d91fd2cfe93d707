"""Every format as documents: dumps in any encoding, WikiExtractor 2 and 3, JSON lines, text."""

import bz2
import contextlib
import io
import json

import pytest

from xdistil_tf.data.corpus import convert, extracted, inputs, mediawiki
from xdistil_tf.data.corpus.documents import Bad, Document, Dropped

SITE = (
    '<siteinfo><namespaces><namespace key="0" /><namespace key="1">Talk</namespace>'
    '<namespace key="6">Datei</namespace></namespaces></siteinfo>'
)


def page(title, text, ns="<ns>0</ns>", more=""):
    return (
        f"<page><title>{title}</title>{ns}{more}<id>1</id><revision><id>2</id>"
        f"<contributor><username>u</username></contributor><comment>c</comment>"
        f'<text bytes="9">{text}</text></revision></page>'
    )


def dump(*pages, encoding="utf-8", declared=""):
    text = f'{declared}<mediawiki xmlns="http://x/export-0.11/">{SITE}{"".join(pages)}</mediawiki>'
    return text.encode(encoding)


def written(tmp_path, data, name="dump.xml"):
    path = tmp_path / name
    path.write_bytes(data)
    return path


def found(path, input_format="auto", text_field="text"):
    return list(convert.read_documents(path, input_format, text_field))


def test_dump_gives_articles_in_order_and_says_why_others_are_none(tmp_path):
    redirect = page("R", "#REDIRECT [[A]]", more='<redirect title="A" />')
    pages = [
        page("A", "Foo &amp;amp; bar."),
        redirect,
        page("Talk:A", "x", ns="<ns>1</ns>"),
        page("E", " "),
        page("B", "Baz."),
    ]
    got = found(written(tmp_path, dump(*pages)))
    assert [one.reason for one in got[1:4]] == ["redirect", "other_namespace", "empty"]
    assert [(one.title, one.text, one.row) for one in (got[0], got[4])] == [
        ("A", "Foo &amp; bar.", 1),
        ("B", "Baz.", 5),
    ]
    assert "datei" in got[0].hidden


def test_old_dumps_without_ns_and_redirect_elements(tmp_path):
    pages = [
        page("Talk:A", "x", ns=""),
        page("R", "#WEITERLEITUNG [[A]]", ns=""),
        page("Star: A", "Foo.", ns=""),
    ]
    got = found(written(tmp_path, dump(*pages)))
    assert got[:2] == [Dropped("other_namespace"), Dropped("redirect")]
    assert got[2].title == "Star: A"


def test_of_several_revisions_the_last_one_counts(tmp_path):
    text = page("A", "Old.").replace("</page>", "<revision><text>New.</text></revision></page>")
    (one,) = found(written(tmp_path, dump(text)))
    assert one.text == "New."


@pytest.mark.parametrize(
    ("encoding", "declared"),
    [
        ("utf-8", ""),
        ("utf-16", '<?xml version="1.0" encoding="utf-16"?>'),
        ("utf-16-le", '<?xml version="1.0" encoding="UTF-16LE"?>'),
        ("utf-8-sig", '<?xml version="1.0" encoding="utf-8"?>'),
        ("windows-1251", '<?xml version="1.0" encoding="windows-1251"?>'),
    ],
)
def test_the_declared_encoding_of_a_dump_counts(tmp_path, encoding, declared):
    data = dump(page("Ж", "Жук."), encoding=encoding, declared=declared)
    (one,) = found(written(tmp_path, bz2.compress(data)))
    assert (one.title, one.text) == ("Ж", "Жук.")


def test_multistream_bz2_is_read_to_its_end(tmp_path):
    data = dump(page("A", "Foo."), page("B", "Bar."))
    streams = bz2.compress(data[:300]) + bz2.compress(data[300:500]) + bz2.compress(data[500:])
    assert [one.title for one in found(written(tmp_path, streams))] == ["A", "B"]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda data: bz2.compress(data)[:-20], "dump.xml is cut off.*Download"),
        (lambda data: bz2.compress(data) + b"BZh9junkjunkjunk", "dump.xml"),
        (lambda data: data[:-40], "dump.xml, line 1: the XML is cut off. Download"),
        (lambda data: data.replace(b"<ns>", b"<ns><<"), "dump.xml, line 1: .*not well-formed"),
        (lambda data: b"<?xml version='1.0'?><rss></rss>", "<mediawiki>.*Received: <rss>"),
        (lambda data: b"\x1f\x8b" + data, "gzip.*decompress it first"),
    ],
)
def test_damaged_dump_is_one_line_with_file_and_cure(tmp_path, spoil, message):
    path = written(tmp_path, spoil(dump(page("A", "Foo."), page("B", "Bar. " * 50))))
    if message == "dump.xml":  # What follows the last stream is padding, as for bzip2 itself.
        assert len(found(path, "mediawiki")) == 2
        return
    with pytest.raises(ValueError, match=message) as caught:
        found(path, "mediawiki")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("encoding", ["shift_jis", "no-such-encoding"])
def test_an_encoding_that_the_parser_lacks_names_file_and_cure(tmp_path, encoding):
    data = dump(page("A", "Foo."), declared=f'<?xml version="1.0" encoding="{encoding}"?>')
    with pytest.raises(ValueError, match="dump.xml.*Convert it to UTF-8"):
        found(written(tmp_path, data))


def test_pages_are_given_while_the_dump_is_read_piece_by_piece(tmp_path, monkeypatch):
    monkeypatch.setattr(mediawiki, "_CHUNK", 64)
    data = dump(*[page(f"P{n}", "Foo.") for n in range(1000)])
    handle = io.BytesIO(data)
    monkeypatch.setattr(inputs, "opened", lambda path: contextlib.nullcontext(handle))
    assert next(mediawiki.read_pages(tmp_path)).title == "P0"
    assert handle.tell() < 1000 < len(data)


def test_extracted_disambiguation_is_left_out(tmp_path):
    lines = '<doc id="1" url="u" title="Foo">\nFoo\n\nFoo may refer to:\n</doc>\n'
    (one,) = found(written(tmp_path, lines.encode()))
    assert convert.convert(one) == Dropped("disambiguation")


def test_doc_blocks_lose_their_title_and_are_decoded_once(tmp_path):
    lines = '<doc id="1" url="u" title="A "x" & b">\nA "x" &amp; b\n\nFoo &amp;lt; bar.\n</doc>\n'
    (one,) = found(written(tmp_path, lines.encode()))
    assert (one.title, one.text.strip(), one.row) == ('A "x" & b', "Foo &lt; bar.", 1)


def test_a_first_paragraph_that_is_no_title_stays(tmp_path):
    keys = {"id": "1", "revid": "2", "url": "u", "title": "Foo"}
    version_3 = json.dumps(keys | {"text": "Foo is a town.\nIt is old."})
    version_2 = json.dumps(keys | {"text": "Foo\n\nFoo is a town.\nIt is old."})
    no_newline = json.dumps(keys | {"text": "Foo"})
    path = written(tmp_path, "\n".join([version_3, version_2, no_newline]).encode())
    got = [convert.convert(one) for one in found(path)]
    assert got[0] == got[1] == ["Foo is a town.", "It is old."]
    assert got[2] == Dropped("empty")


def test_json_lines_of_others_keep_title_and_entities(tmp_path):
    path = written(tmp_path, b'{"title": "Foo", "body": "Foo\\nA &lt; b."}\n\n')
    assert inputs.detect_format(path) == "jsonlines"
    (one,) = found(path, text_field="body")
    assert convert.convert(one) == ["Foo", "A &lt; b."]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"text": 1}', "expected text in the field 'text'.*received fields text"),
        (b'{"x": "y"}', "received fields x"),
        (b'{"text": ', "expected one JSON object a line"),
        (b"[1]", "received a list"),
        (b'{"text": "\xff"}', "expected UTF-8, received the byte 0xff"),
    ],
)
def test_damaged_json_line_names_file_line_and_reason(tmp_path, line, reason):
    path = written(tmp_path, b'{"text": "Good."}\n' + line + b'\n{"text": "Good."}\n')
    good, bad, other = found(path)
    assert isinstance(good, Document) and isinstance(other, Document)
    assert (bad.file, bad.row) == (str(path), 2)
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(bad.reason)


@pytest.mark.parametrize(
    ("data", "row", "reason"),
    [
        (b'<doc id="1" url="u" title="A">\nFoo.\n', 1, "cut off"),
        (b'<doc id="1" url="u" title="A">\nFoo.\n<doc id="2" url="u" title="B">\nx\n</doc>\n', 1,
         "</doc> before"),
        (b'<doc id="1" url="u" title="A">\nFoo.\n</doc>\nBar.\n', 4, "received 'Bar.'"),
        (b'<doc id="1" url="u" title="A">\nFoo \xe9.\n</doc>\n', 2, "0xe9"),
    ],
)  # fmt: skip
def test_damaged_doc_block_is_named(tmp_path, data, row, reason):
    bad = [one for one in found(written(tmp_path, data)) if isinstance(one, Bad)]
    assert [one.row for one in bad] == [row] and reason in bad[0].reason


def test_text_has_empty_lines_between_documents(tmp_path):
    path = written(tmp_path, b"\xef\xbb\xbfOne. Two.\r\nThree.\r\n \t\r\n\n\nFour.")
    got = [convert.convert(one) for one in found(path)]
    assert got == [["One.", "Two.", "Three."], ["Four."]]


def test_text_without_empty_lines_is_told_before_memory_is_full(tmp_path, monkeypatch):
    monkeypatch.setattr(extracted, "_LONGEST", 20)
    path = written(tmp_path, b"Short.\n\nOne. Two.\nThree. Four.\nFive.\n")
    with pytest.raises(ValueError, match="row 3: expected an empty line between.*20 characters"):
        list(found(path))


def test_a_line_of_a_megabyte_is_one_document(tmp_path):
    path = written(tmp_path, b"A word. " * 131_072)
    (one,) = found(path)
    assert len(convert.convert(one)) == 131_072


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"<mediawiki>", "mediawiki"),
        (b"\xef\xbb\xbf<?xml?>", "mediawiki"),
        ("<?xml?>".encode("utf-16"), "mediawiki"),
        ("<?xml?>".encode("utf-16-be"), "mediawiki"),
        (b'\n<doc id="1">', "wikiextractor"),
        (b'{"id": "1", "url": "", "title": "", "text": ""}', "wikiextractor"),
        (b'{"id": "1", "url": "", "title": "", "text": "' + b"a" * 100_000 + b'"}',
         "wikiextractor"),
        (b'{"text": ""}', "jsonlines"),
        (b"Text.", "text"),
        (b"\n" * 100_000 + b"Text.", "text"),
    ],
)  # fmt: skip
def test_the_first_bytes_tell_the_format_compressed_or_not(tmp_path, data, expected):
    assert inputs.detect_format(written(tmp_path, data)) == expected
    assert inputs.detect_format(written(tmp_path, bz2.compress(data))) == expected


def test_utf_16_text_names_the_cure(tmp_path):
    with pytest.raises(ValueError, match="UTF-16.*convert it"):
        found(written(tmp_path, "Text.".encode("utf-16")))


def test_inputs_are_found_in_order_each_once(tmp_path):
    for name in ("b/2", "b/1", "a", "b/.hidden", "c.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    got = inputs.find_inputs(f"{tmp_path}/c.*, {tmp_path}/b,{tmp_path}/?")
    assert [str(one.relative_to(tmp_path)) for one in got] == ["c.txt", "b/1", "b/2", "a"]


@pytest.mark.parametrize("content", [b"", b" \n\n"])
def test_empty_file_is_named(tmp_path, content):
    path = written(tmp_path, content, "hollow.txt")
    with pytest.raises(ValueError, match="hollow.txt is empty"):
        for one in inputs.find_inputs(str(path)):
            inputs.detect_format(one)


def test_missing_input_is_named():
    with pytest.raises(FileNotFoundError, match="--input=nowhere/"):
        inputs.find_inputs("nowhere/*")


def test_untitled_needs_the_title_alone():
    assert extracted._untitled("Parisian.\nx", "Paris") == "Parisian.\nx"
