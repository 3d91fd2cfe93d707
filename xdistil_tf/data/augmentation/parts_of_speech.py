"""The part of speech of each word, by a tagger of a library.

| name | tags | needs |
|---|---|---|
| `pattern` | Penn Treebank's, English | TextBlob, no data (the extra `rules`) |
| `nltk` | Penn Treebank's, English | NLTK and its averaged perceptron |
| `spacy:<pipeline>` | Universal ones, the pipeline's language | spaCy and that pipeline |
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
from collections.abc import Callable, Sequence
from types import ModuleType

Words = Sequence[str]
Tagger = Callable[[Sequence[Words]], list[list[str]]]

TAGGERS = ("pattern", "nltk", "spacy:<pipeline>")
_LIBRARIES = {"pattern": "textblob", "nltk": "nltk", "spacy": "spacy"}


@functools.cache
def load_tagger(name: str) -> Tagger:
    """A function from sentences, as words, to the tags of their words.

    Raises:
      ValueError: If the name is none of `TAGGERS`, or what the tagger needs cannot be loaded.
      ImportError: If its library is not installed.
    """
    kind, _, pipeline = name.partition(":")
    if kind not in _LIBRARIES or (kind == "spacy") != bool(pipeline):
        raise ValueError(f"Unknown pos_tagger. Expected one of {list(TAGGERS)}. Received: {name!r}")
    return {"pattern": _pattern, "nltk": _nltk, "spacy": _spacy}[kind](pipeline)


def version(name: str) -> str:
    """The library of a tagger and its version, of which the tags are."""
    library = _LIBRARIES[name.partition(":")[0]]
    return f"{library} {importlib.metadata.version(library)}"


def _library(kind: str, module: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        library = _LIBRARIES[kind]
        raise ImportError(
            f"--pos_tagger={kind} needs {library}. Expected it to be installed: pip install "
            f"{library}; or set --p_pos=0. ({error})"
        ) from error


def _pattern(_: str) -> Tagger:
    find_tags = _library("pattern", "textblob.en").parser.find_tags
    return lambda sentences: [[tag for _, tag in find_tags(list(one))] for one in sentences]


def _nltk(_: str) -> Tagger:
    tagging = _library("nltk", "nltk.tag")
    try:
        tagging.pos_tag(["word"])
    except LookupError as error:
        raise ValueError(
            "--pos_tagger=nltk needs NLTK's data. Expected 'averaged_perceptron_tagger_eng' in one "
            "of its folders: python -m nltk.downloader averaged_perceptron_tagger_eng."
        ) from error
    return lambda sentences: [
        [tag for _, tag in one] for one in tagging.pos_tag_sents([list(one) for one in sentences])
    ]


def _spacy(pipeline: str) -> Tagger:
    spacy = _library("spacy", "spacy")
    try:
        load = spacy.load(pipeline)
    except OSError as error:
        raise ValueError(
            f"--pos_tagger=spacy:{pipeline}: spaCy cannot load this pipeline. Expected the name of "
            f"an installed one or its folder: python -m spacy download {pipeline}. ({error})"
        ) from error
    doc = importlib.import_module("spacy.tokens").Doc

    def tag(sentences: Sequence[Words]) -> list[list[str]]:
        docs = (doc(load.vocab, words=list(one)) for one in sentences)
        return [[token.pos_ for token in one] for one in load.pipe(docs)]

    return tag
