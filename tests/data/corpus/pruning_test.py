"""What shows no text goes before the parser; what is read out of the rest stays as it was."""

import pytest

from xdistil_tf.data.corpus import pruning, wikitext

mwparserfromhell = pytest.importorskip("mwparserfromhell")


def _prune(markup, shown=()):
    return pruning.prune(markup, lambda name: name in shown)


@pytest.mark.parametrize(
    ("markup", "expected"),
    [
        ("A<!-- no\n\nprose --> b", "A b"),
        ("A<ref>{{cite|x}}</ref> b", "A b"),
        ("A<REF Name='x' /> b<Ref name=y>c</ref > d", "A b d"),
        ("A<ref>first <ref>second</ref> b", "A<ref>first  b"),
        ("A<references/> b", "A<references/> b"),
        ("A<math>\\frac{{a}}{b}} < 1</math> b", "A b"),
        ("A<gallery>\nB.jpg|[[C]]\n</gallery> b", "A b"),
        ("A {{b}} c", "A  c"),
        ("A {{b|{{c|{{d}}}}}} e", "A  e"),
        ("A {{{1|b}}} c", "A  c"),
        ("A\n{|\n| b {{c}}\n|}\nd", "A\n\nd"),
        ("A\n{|\n|\n{| \n| b\n|}\n|}\nc", "A\n\nc"),
        ("A\n:{|\n| b {{c|d\n|}}\n|}\ne", "A\n\x03\ne"),
        ("A\n{|\n| b {{c\n|} d\n}}\n|}\ne", "A\n\ne"),
        ("A [[b]], [[c (d)|c]] e", "A b, c e"),
        ("A [[b_c]]s", "A b cs"),
        (
            "A<sub>2</sub>&nbsp;<span class='x'>b</span>\n<small>* c</small>",
            "A2\u00a0b\n<!---->* c",
        ),
        ("a\n== B 'c' ==\nd\n=== [[e]] ===\n==f", "a\n\n\x022b 'c\n\nd\n\n\x023e\n\n==f"),
        ("* a\n#: b\nc * d\n; e : f\n*; g : h", "\x03 a\n\x03\x03 b\nc * d\n; e : f\n*; g : h"),
    ],
)
def test_what_shows_no_text_is_cut_and_plain_links_are_text(markup, expected):
    assert _prune(markup).markup == expected


@pytest.mark.parametrize(
    "markup",
    [
        "A {{b c",
        "A }} b",
        "A<ref>b",
        "A<!-- b",
        "A\n{|\n| b",
        "A\n|}\nb",
        "A {| b |} c",
        "A <nowiki>{{b}} [[c]] <!-- d --></nowiki> e",
        "[[File:A.jpg|thumb|b]]",
        "[[A|''b'' {{c",
    ],
)
def test_what_is_not_closed_or_not_plain_stays_for_the_parser(markup):
    assert _prune(markup).markup == markup


@pytest.mark.parametrize("opening", ["<nowiki>", "<!--", "<pre>", "<ref>", "{{", "{|\n", "[["])
def test_a_page_of_what_is_never_closed_takes_time_in_proportion_to_its_length(opening):
    markup = f"\n{opening} x" * 30_000
    assert _prune(markup).markup == markup  # Minutes, were each looked for to the end.


@pytest.mark.parametrize("rest", ["; b", "* b", "# b", "  b", "== b =="])
@pytest.mark.parametrize("cut", ["{{x}}", "<ref>x</ref>"])
def test_a_cut_at_the_start_of_a_line_makes_no_list_or_heading_of_the_rest(cut, rest):
    assert str(mwparserfromhell.parse(_prune(f"A\n{cut}{rest}").markup).strip_code()) == (
        f"A\n{rest}"
    )


def test_links_to_files_and_categories_are_cut():
    markup = "A [[Category:B|c]]\n[[ my_file :d.jpg|thumb|e]] [[File:f|[[g]]]] [[h:i]]"
    pruned = pruning.prune(markup, lambda name: False, ("category", "my file"))
    assert pruned.markup == "A \n<!----> [[File:f|g]] [[h:i]]"


def test_a_link_that_would_begin_a_list_stays_a_link():
    assert _prune("[[*b]] and [[*c]]").markup == "[[*b]] and *c"


def test_templates_that_show_text_stay_with_what_stands_around_them():
    pruned = _prune("A {{Convert|3|km}} b {{c|{{convert|4|m}}}}", shown={"convert"})
    assert pruned.markup == "A {{Convert|3|km}} b "


def test_a_template_within_one_that_shows_text_is_cut():
    assert _prune("{{lang|fr|a {{b}} c}}", shown={"lang"}).markup == "{{lang|fr|a  c}}"


def test_names_are_of_templates_on_the_page_itself():
    markup = "{{ Foo_Bar | x={{Inner}} }} {{template:Baz}} {|\n|{{In table}}\n|}\n{|\n|{{T}}\n|}"
    pruned = _prune(markup, shown={"baz"})
    assert pruned.template_names == {"foo bar", "baz", "in table"}


@pytest.mark.parametrize(
    "markup",
    [
        "'''Foo''' ({{lang|fr|''Fou''}}; {{IPA|x}}) is a [[town]] of {{cvt|3|km2}}.<ref>R</ref>",
        "{{Infobox\n| a = {{b}}\n| c = [[d]]\n}}\nFoo is [[bar|baz]]bing.\n* {{x}}item\n{{y}}; z",
        "A {{ndash}} B {{{1|c}}}<math>x}}</math> D <nowiki>{{e}}</nowiki>\n{|\n! f\n|-\n| g\n|}\nh",
        "[[File:A.jpg|thumb|[[b]] {{c}}]]\nFoo. [[Category:D]]\n== See also ==\n* [[e]]",
        "A {{b|c|}} d {{e|\n{|\n|f\n|}\n}} g",
    ],
)
def test_the_text_of_a_page_is_the_same_with_and_without_pruning(markup, monkeypatch):
    pruned = wikitext.Page(markup).text()
    monkeypatch.setattr(pruning, "prune", lambda markup, *_: pruning.Pruned(markup, frozenset()))
    assert pruned == wikitext.Page(markup).text()
    assert pruned
