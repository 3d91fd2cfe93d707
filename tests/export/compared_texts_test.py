"""The texts of the gate: always the same, of many kinds, or those of a named file."""

import pytest

from xdistil_tf.export import compared_texts


def test_built_in_texts_are_always_the_same_and_of_many_kinds():
    texts = compared_texts.built_in(pair=False)
    assert texts == compared_texts.built_in(pair=False)
    assert len(texts) == len(set(texts)) == 200
    assert "" in texts and max(map(len, texts)) > 1000
    scripts = {"ß", "é", "С", "我", "ه", "य", "İ", "„", "€"}
    assert scripts <= set("".join(texts))


def test_built_in_pairs_have_two_texts():
    pairs = compared_texts.built_in(pair=True)
    compared_texts.check(pairs, pair=True)
    assert len(set(pairs)) == 200 and ("", pairs[-1][0]) in pairs


def test_a_file_gives_its_first_texts(tmp_path):
    path = tmp_path / "texts.txt"
    path.write_bytes(b"a film\r\n\nmore\nrest\n")
    assert compared_texts.read_file(path, pair=False, count=3) == ["a film", "", "more"]
    path.write_text("a\tb\n", encoding="utf-8")
    assert compared_texts.read_file(path, pair=True) == [("a", "b")]


@pytest.mark.parametrize(
    ("pair", "content", "message"),
    [
        (False, b"", "--parity_file: .*texts.txt is empty. Expected one text a line"),
        (False, b"a\nb\tc\n", "--parity_file: .*texts.txt line 2: expected one text,.* 2 columns"),
        (True, b"a\tb\nc\n", "--parity_file: .*texts.txt line 2: expected two .* 1 column\\."),
        (False, b"\xff\n", "--parity_file: .*texts.txt line 1: expected UTF-8"),
    ],
)
def test_a_file_that_does_not_fit_is_named_with_line_and_flag(tmp_path, pair, content, message):
    path = tmp_path / "texts.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        compared_texts.read_file(path, pair)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="--parity_file: there is no file .*no.txt"):
        compared_texts.read_file(tmp_path / "no.txt", pair=False)
