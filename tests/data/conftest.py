"""Hand-made vocabularies and task folders."""

import pathlib
import string

import pytest

from xdistil_tf.data.tokenization import load_tokenizer

WORDS = ["good", "bad", "film", "the", "a", "very", "paris", "john", "sleeps", "in", "##s", "##ly"]


@pytest.fixture(scope="session")
def vocabulary(tmp_path_factory):
    """A lower-cased WordPiece vocabulary that can spell every ASCII word."""
    letters = list(string.ascii_lowercase + string.digits)
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *letters]
    tokens += ["##" + one for one in letters if one != "s"] + list(".,:?!'")
    path = tmp_path_factory.mktemp("vocabulary") / "vocab.txt"
    path.write_text("\n".join(tokens) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def tokenizer(vocabulary):
    return load_tokenizer(vocabulary, do_lower_case=True)


@pytest.fixture
def write(tmp_path):
    """Writes `name -> content` into a folder and returns it."""

    def write_files(contents: dict, folder: str = "task") -> pathlib.Path:
        place = tmp_path / folder
        place.mkdir(exist_ok=True)
        for name, content in contents.items():
            data = content if isinstance(content, bytes) else content.encode("utf-8")
            (place / name).write_bytes(data)
        return place

    return write_files
