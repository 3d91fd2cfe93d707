"""Markup gives the prose of a page, and nothing but the prose."""

import sys

import pytest

from xdistil_tf.data.corpus import cleaning, disambiguation, wikitext


def text_of(markup, **options):
    return wikitext.Page(markup, **options).text()


@pytest.mark.parametrize(
    ("markup", "expected"),
    [
        ("'''Foo''' is a [[town|small town]] in [[Bar (x)]].", "Foo is a small town in Bar (x)."),
        ("A.<ref name=x>Not [[this]].</ref> B.<ref name=x/>", "A. B."),
        ("{{Infobox\n|a=[[b]]\n|c={{d}}}}\nFoo.", "Foo."),
        ("{|\n! h\n|-\n| a || b\n|}\nFoo.", "Foo."),
        ("== Head ==\nFoo.", "Foo."),
        ("[[File:a.jpg|thumb|A [[caption]].]]Foo.[[Category:Towns]][[de:Fuh]]", "Foo."),
        (
            "[[:Category:Towns]] is shown. [[Star Wars: A]] too.",
            "Category:Towns is shown. Star Wars: A too.",
        ),
        ("Foo <!-- hidden --> bar.", "Foo bar."),
        ("See [http://a.b the page] and [http://a.b].", "See the page and."),
        ("<math>x^2</math> and <gallery>A.jpg|c</gallery> go.", "and go."),
        ("A<br/>B", "A\nB"),
        ("One\nparagraph.\n\nAnother.", "One paragraph.\nAnother."),
        ("* A link\n* An item that is prose.\n:: A reply.", "An item that is prose.\nA reply."),
        ("Foo ({{IPA|x}}; {{lang-de|Fuh}}) is.", "Foo (Fuh) is."),
        ("Foo ({{IPA|x}}; ) is {{convert|5|km|mi}} long{{cn}}.", "Foo is 5 km long."),
        ("A &ndash; b &amp; c &amp;lt; d.", "A – b & c &lt; d."),
        ("__NOTOC__Foo.", "Foo."),
        ("Foo.\n== References ==\nBar.\n=== Sub ===\nBar.\n== Life ==\nBaz.", "Foo.\nBaz."),
        ("Unbalanced ''' bold [[link and {{template.", "Unbalanced bold link and template."),
    ],
)
def test_markup_becomes_what_a_reader_sees(markup, expected):
    assert text_of(markup) == expected


def test_namespaces_of_the_wiki_hide_its_files():
    assert text_of("[[Tập tin:a.jpg|nhỏ|Chữ]]Foo.", hidden=("tập tin",)) == "Foo."


def test_deep_nesting_ends_in_text_or_an_error_and_not_in_a_crash():
    for markup in ("{{a|" * 3000, "[[a|" * 3000, "<b>" * 3000, "{|\n|" * 500):
        try:
            assert isinstance(text_of(markup + "x"), str)
        except ValueError as error:
            assert "markup" in str(error)


def test_missing_parser_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "mwparserfromhell", None)
    with pytest.raises(ImportError, match=r"xdistil_tf\[wikipedia\]"):
        wikitext.Page("a")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("Foo ( ; ) is a town , in  Bar .", "Foo is a town, in Bar."),
        ("Foo （） is（，甲）.", "Foo is（甲）."),
        ("Foo (born , ; ) and (( )) x", "Foo (born) and x"),
        ("• An item", "An item"),
        (", and the rest", "and the rest"),
        ('The "" had said', "The had said"),
        ('A</dl> <ref name="x"/>b<templatestyles src="y"/>', "A b"),
        ("-{zh-hans:甲;zh-hant:乙}-与-{丙}-", "甲与丙"),
        ("| cell", ""),
        ("1 < 2 and a > b", "1 < 2 and a > b"),
    ],
)
def test_tidy_mends_what_templates_leave(line, expected):
    assert cleaning.tidy(line) == expected


@pytest.mark.parametrize(
    ("title", "markup"),
    [
        ("Foo", "'''Foo''' may mean\n* [[Bar]]\n{{disambiguation}}"),
        ("Foo", "* [[Bar]]\n{{Begriffsklärung}}"),
        ("Foo", "* [[Bar]]\n{{Geodis|x=y}}"),
        ("Foo", "* [[Bar]]\n{{ Trang_định hướng <!-- x --> }}"),
        ("甲", "* [[乙]]\n{{消歧义}}"),
        ("Foo", "* [[Bar]] __DISAMBIG__"),
        ("Foo (disambiguation)", "* [[Bar]]"),
    ],
)
def test_disambiguation_is_told_by_template_switch_or_title(title, markup):
    assert disambiguation.is_marked(title, markup, wikitext.Page(markup).template_names)


def test_an_article_is_no_disambiguation():
    markup = "{{About|x|y (disambiguation)}} Foo is [[disambiguation|one]]. {{citation needed}}"
    assert not disambiguation.is_marked("Foo", markup, wikitext.Page(markup).template_names)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Foo may refer to:", True),
        ("Foo\nFoo may also refer to:\nBar, a town\nBaz, a song", True),
        ("甲可以指：", True),
        ("Foo peut désigner :\nBar.", True),
        ("Foo may refer to a town in Bar. It has a church.", False),
        ("Foo may refer to:\n" + "A paragraph of an article. " * 20, False),
        ("Foo is a town.", False),
        ("", False),
    ],
)
def test_text_of_a_title_and_a_list_reads_like_a_disambiguation(text, expected):
    assert disambiguation.reads_like_one("Foo", text) is expected
