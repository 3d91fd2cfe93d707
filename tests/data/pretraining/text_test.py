import pytest

from xdistil_tf.data.pretraining import text

CORPUS = (
    "one a\none b\n\ntwo a\n \n\u3000\n\nthree a\r\nthree b\r\n\r\nf\u00f6ur\n\n\n\nfive\nfive b\n"
)
DOCUMENTS = [["one a", "one b"], ["two a"], ["three a", "three b"], ["f\u00f6ur"]]
DOCUMENTS += [["five", "five b"]]


def read(paths, part_bytes):
    parts = text.list_parts(paths, part_bytes)
    return [[list(one) for one in text.read_documents(part)] for part in parts]


@pytest.mark.parametrize("ending", ["", "\n", "\n \n\n", "\nsix"])
@pytest.mark.parametrize("beginning", ["", "\n\n", " \n", "\ufeff", "\ufeff\n"])
def test_parts_of_any_size_hold_every_document_once_and_whole(write, beginning, ending):
    content = beginning + CORPUS + ending
    folder = write({"a.txt": content})
    expected = [*DOCUMENTS[:-1], DOCUMENTS[-1] + ["six"] * (ending == "\nsix")]
    if ending == "\nsix":
        expected = [*DOCUMENTS, ["six"]]
    for size in [*range(1, 40), len(content.encode()), 10**6]:
        parts = read([folder / "a.txt"], size)
        assert [document for part in parts for document in part] == expected, size


def test_the_end_of_a_file_ends_a_document(write):
    folder = write({"a.txt": "one", "b.txt": "two\n"})
    assert read([folder / "a.txt", folder / "b.txt"], 100) == [[["one"]], [["two"]]]
    numbers = [part.number for part in text.list_parts([folder / "a.txt", folder / "b.txt"], 2)]
    assert numbers == [0, 1, 2, 3]


def test_documents_need_not_be_read_to_their_ends(write):
    folder = write({"a.txt": CORPUS})
    (part,) = text.list_parts([folder / "a.txt"])
    firsts = [next(document) for document in text.read_documents(part)]
    assert firsts == [document[0] for document in DOCUMENTS]


def test_a_line_that_is_not_utf8_is_named_in_every_part(write):
    folder = write({"a.txt": b"good\n\nfine\n\n\nfine too\nb\xe4d\n\nlast\n"})
    for size in (1, 7, 100):
        with pytest.raises(ValueError, match=r"a.txt line 7: expected UTF-8.*0xe4 at position 2"):
            read([folder / "a.txt"], size)


def test_files_are_taken_once_and_missing_ones_are_named(write):
    folder = write({"b.txt": "b", "a.txt": "a"})
    found = text.input_files(f"{folder}/b.txt,{folder}/*.txt")
    assert [path.name for path in found] == ["b.txt", "a.txt"]
    with pytest.raises(FileNotFoundError, match="No file matches '.*c.txt'. Set input_file"):
        text.input_files([folder / "a.txt", folder / "c.txt"])


def test_an_empty_file_is_named(write):
    folder = write({"full.txt": "a", "empty.txt": "", "white.txt": "\n \n\u3000\n"})
    for name in ("empty.txt", "white.txt"):
        with pytest.raises(ValueError, match=f"{name} is empty. Expected one sentence a line"):
            text.list_parts([folder / "full.txt", folder / name])


def test_no_part_reads_on_for_a_document_that_does_not_begin_in_it(write, monkeypatch):
    folder = write({"a.txt": "line\n" * 1000})
    taken, advance = [], text._Reader._advance
    monkeypatch.setattr(text._Reader, "_advance", lambda self: taken.append(1) or advance(self))
    parts = read([folder / "a.txt"], 50)
    assert [len(part) for part in parts] == [1, *[0] * 99]
    assert len(taken) < 2300  # Of each line once, by the part of the document, and once for all.
