"""Taggers of libraries, and what is said where one is missing."""

import sys
import types

import pytest

from xdistil_tf.data.augmentation import parts_of_speech


@pytest.fixture(autouse=True)
def fresh():
    parts_of_speech.load_tagger.cache_clear()
    yield
    parts_of_speech.load_tagger.cache_clear()


def test_textblob_tags_words_as_they_are_split():
    tag = parts_of_speech.load_tagger("pattern")
    sentences = [["The", "soup", "is", "n't", "good", "/", "fine", "."], ["film"]]
    tags = tag(sentences)
    assert [len(one) for one in tags] == [8, 1]
    assert tags[0][:3] == ["DT", "NN", "VBZ"] and tags[0][4] == "JJ" and tags[1] == ["NN"]
    assert parts_of_speech.version("pattern").startswith("textblob ")


def test_spacy_gives_universal_tags(monkeypatch):
    token = types.SimpleNamespace

    class Doc(list):
        def __init__(self, vocab, words):
            super().__init__(token(text=word, pos_="") for word in words)

    class Pipeline:
        vocab = None

        def pipe(self, docs):
            for doc in docs:
                for one in doc:
                    one.pos_ = "NOUN" if one.text[0].isupper() else "VERB"
                yield doc

    def load(name):
        if name != "de_small":
            raise OSError("no such pipeline")
        return Pipeline()

    monkeypatch.setitem(sys.modules, "spacy", types.SimpleNamespace(load=load))
    monkeypatch.setitem(sys.modules, "spacy.tokens", types.SimpleNamespace(Doc=Doc))
    tag = parts_of_speech.load_tagger("spacy:de_small")
    assert tag([["Suppe", "schmeckt"], ["Ja"]]) == [["NOUN", "VERB"], ["NOUN"]]
    with pytest.raises(ValueError, match="spaCy cannot load this pipeline.*spacy download other"):
        parts_of_speech.load_tagger("spacy:other")


@pytest.mark.parametrize("name", ["penn", "spacy", "pattern:en", ""])
def test_an_unknown_tagger_is_named(name):
    with pytest.raises(ValueError, match="Unknown pos_tagger. Expected one of"):
        parts_of_speech.load_tagger(name)


def test_a_missing_library_and_missing_data_are_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "textblob.en", None)
    with pytest.raises(ImportError, match="needs textblob.*pip install textblob.*--p_pos=0"):
        parts_of_speech.load_tagger("pattern")

    def no_data(words):
        raise LookupError

    monkeypatch.setitem(sys.modules, "nltk.tag", types.SimpleNamespace(pos_tag=no_data))
    with pytest.raises(ValueError, match="nltk.downloader averaged_perceptron_tagger_eng"):
        parts_of_speech.load_tagger("nltk")
