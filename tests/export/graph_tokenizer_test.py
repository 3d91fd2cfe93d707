"""In-graph tokenizers against the Rust tokenizers of training."""

import importlib.util
import json
import os
import pathlib
import random

import numpy as np
import pytest
import tensorflow as tf
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, processors

from xdistil_tf.data.tokenization import load_tokenizer
from xdistil_tf.data.tokenizer import Tokenizer
from xdistil_tf.export import unigram as unigram_lib
from xdistil_tf.export.graph_tokenizer import (
    GraphTokenizer,
    longest_first,
    make_graph_tokenizer,
    obstacle,
)

_ROOT = pathlib.Path(__file__).parents[2]
_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGH0123456789äéßσςяж中我ا"
_PUNCTUATION = ".,;:!?'\"()[]-_#$€~¿、"
_WORDS = ["the", "film", "##ing", "un", "##aff", "##able", "HELLO", "we", "##ly"]
_VOCABULARY = [*_SPECIAL, *_LETTERS, *(f"##{char}" for char in _LETTERS), *_PUNCTUATION, *_WORDS]


def _checker():
    path = _ROOT / "tools" / "check_graph_tokenizer.py"
    spec = importlib.util.spec_from_file_location("check_graph_tokenizer", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


checker = _checker()


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    path = tmp_path_factory.mktemp("vocabulary") / "vocab.txt"
    path.write_text("\n".join(_VOCABULARY) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module", params=[True, False], ids=["uncased", "cased"])
def wordpiece(request, vocabulary):
    tokenizer = load_tokenizer(vocabulary, do_lower_case=request.param)
    return tokenizer, make_graph_tokenizer(tokenizer, 1 << 20)


@pytest.fixture(scope="module")
def uncased(vocabulary):
    tokenizer = load_tokenizer(vocabulary, do_lower_case=True)
    return tokenizer, make_graph_tokenizer(tokenizer, 16)


@pytest.fixture(scope="module")
def unigram():
    tokenizer = _unigram()
    return tokenizer, make_graph_tokenizer(tokenizer, 1 << 20)


def _unigram(**changes):
    """A tokenizer of XLM-R's form; as in published ones, its scores are float32."""
    pieces = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -2.1)]
    pieces += [(char, -4.3 - 0.1 * i) for i, char in enumerate("abcdefghilmnostuäя中.,!")]
    pieces += [("\u2581the", -2.7), ("ing", -3.3), ("яя", -5.9), ("\u2581film", -4.1), ("aa", -6.1)]
    pieces = [(piece, float(np.float32(score))) for piece, score in pieces]
    backend = tokenizers.Tokenizer(models.Unigram(pieces, unk_id=3))
    metaspace = pre_tokenizers.Metaspace()
    backend.pre_tokenizer = changes.get(
        "pre_tokenizer",
        pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), metaspace]),
    )
    if "normalizer" in changes:
        backend.normalizer = changes["normalizer"]
    backend.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    names = {"cls_token": "<s>", "sep_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    return Tokenizer(backend, {**names, "mask_token": "<mask>"})


def _ids(graph, *texts):
    features = {key: value.numpy() for key, value in graph(*map(tf.constant, texts)).items()}
    lengths = features["input_mask"].sum(1)
    return [
        (ids[:length].tolist(), segments[:length].tolist())
        for ids, segments, length in zip(
            features["input_ids"], features["segment_ids"], lengths, strict=True
        )
    ]


def _expected(tokenizer, texts, texts_b=None, max_length=1 << 20):
    encodings = tokenizer.encode_batch(texts, texts_b, max_length=max_length)
    return [(encoding.input_ids, encoding.segment_ids) for encoding in encodings]


def test_random_unicode_gives_the_ids_of_training(wordpiece):
    tokenizer, graph = wordpiece
    texts = checker.random_texts(1800, seed=7)
    counts, found = checker.differing(tokenizer, graph, texts)
    assert sum(count["texts"] for count in counts.values()) == 1800
    assert len(found) <= 0.005 * 1800, [ascii(text) for _, text in found[:5]]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   \t\n",
        "the FILMs, unaffable?!",
        "[SEP] a[MASK]b [sep] [CLS",
        "ΑΣ ΟΔΟΣ. İ ß ẞ",
        "ﬁ ² Ａ e\u0301",
        "x" * 100,
        "x" * 101,
        "中" * 150,
        "a\x00b\x1fc\u200dd\ufffde\x85f",
        "\U0010ff00 \U0010fffd \uf8ff \uffff",
        "##s ##ing",
        "😀 👩‍👩‍👧 a😀b",
    ],
)
def test_hard_texts_give_the_ids_of_training(wordpiece, text):
    tokenizer, graph = wordpiece
    assert _ids(graph, [text]) == _expected(tokenizer, [text])


def test_words_longer_than_the_limit_are_unknown(wordpiece):
    tokenizer, graph = wordpiece
    unknown = [tokenizer.cls_id, tokenizer.unk_id, tokenizer.sep_id]
    assert _ids(graph, ["ж" * 101])[0][0] == unknown
    assert len(_ids(graph, ["ж" * 100])[0][0]) == 102


def test_special_tokens_can_stand_in_the_text(wordpiece):
    tokenizer, graph = wordpiece
    ids = _ids(graph, ["we[SEP]we"])[0][0]
    assert ids.count(tokenizer.sep_id) == 2


@pytest.mark.parametrize("make", ["wordpiece", "unigram"])
@pytest.mark.parametrize("length", [5, 6, 9, 10, 23])
def test_truncation_cuts_the_longer_text_as_in_training(uncased, unigram, make, length):
    tokenizer, long = uncased if make == "wordpiece" else unigram
    graph = GraphTokenizer(long.pieces, long.layout, length)
    generator = random.Random(length)
    firsts = ["a " * generator.randint(0, 12) for _ in range(60)]
    seconds = ["b c " * generator.randint(0, 6) for _ in range(60)]
    assert _ids(graph, firsts, seconds) == _expected(tokenizer, firsts, seconds, length)
    assert _ids(graph, firsts) == _expected(tokenizer, firsts, None, length)


def test_longest_first_keeps_the_shorter_text_whole():
    first, second = longest_first(tf.constant([2, 9, 9, 3, 4]), tf.constant([9, 2, 9, 3, 4]), 7)
    assert first.numpy().tolist() == [2, 5, 4, 3, 4]
    assert second.numpy().tolist() == [5, 2, 3, 3, 3]


def test_an_empty_batch_and_empty_texts_have_at_least_two_columns(uncased):
    tokenizer, graph = uncased
    empty = graph(tf.constant([], tf.string))
    assert [tuple(value.shape) for value in empty.values()] == [(0, 2)] * 3
    pair = graph(tf.constant([], tf.string), tf.constant([], tf.string))
    assert pair["input_ids"].shape[0] == 0
    one = graph(tf.constant([""]))
    assert one["input_ids"].numpy().tolist() == [[tokenizer.cls_id, tokenizer.sep_id]]
    assert one["input_ids"].dtype == one["input_mask"].dtype == tf.int32


def test_invalid_bytes_count_as_replacement_characters(uncased):
    tokenizer, graph = uncased
    assert _ids(graph, [b"a\xff\xfeb \xc3"]) == _expected(tokenizer, ["a\ufffd\ufffdb \ufffd"])


def test_padding_follows_the_longest_row(uncased):
    features = uncased[1](tf.constant(["the", "the film we"]))
    np.testing.assert_array_equal(features["input_mask"], [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    np.testing.assert_array_equal(features["input_ids"][0, 3:], [0, 0])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "the film , a things .",
        "  the   film ",
        "thefilm zzz qq the",
        "a<s>b <mask> c</s>",
        "я" * 25,
        "a" * 31 + " я",
        "a\x85b\u2003c\td",
        "\u2581the a\u2581b",
        "\U0010ff01 中中 <mask",
    ],
)
def test_unigram_gives_the_ids_of_training(unigram, text):
    tokenizer, graph = unigram
    assert _ids(graph, [text]) == _expected(tokenizer, [text])


def test_unigram_on_random_texts(unigram):
    tokenizer, graph = unigram
    generator = random.Random(3)
    alphabet = "aaabcdefghilmnostuäяя中.,! qz"
    texts = [
        ("random", "".join(generator.choices(alphabet, k=generator.randint(1, 60))))
        for _ in range(500)
    ]
    _, found = checker.differing(tokenizer, graph, texts)
    assert found == []


def test_what_has_no_graph_form_says_why(vocabulary):
    bpe = tokenizers.Tokenizer(models.BPE({"a": 0, "<unk>": 1}, [], unk_token="<unk>"))
    assert "BPE" in obstacle(bpe)
    with pytest.raises(ValueError, match="No in-graph form .* BPE.* ids signature"):
        make_graph_tokenizer(bpe, 16)
    words = tokenizers.Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    assert "WordLevel" in obstacle(words)
    assert "NFKC is not" in obstacle(_unigram(normalizer=normalizers.NFKC()))
    assert "pre-tokenizer" in obstacle(_unigram(pre_tokenizer=pre_tokenizers.Whitespace()))
    never = pre_tokenizers.Metaspace(prepend_scheme="never")
    assert "begin every word" in obstacle(_unigram(pre_tokenizer=never))
    split = load_tokenizer(vocabulary, do_lower_case=True).backend
    split.pre_tokenizer = pre_tokenizers.Whitespace()
    assert "BertPreTokenizer" in obstacle(split)
    normalised = load_tokenizer(vocabulary, do_lower_case=True).backend
    normalised.add_tokens([tokenizers.AddedToken("film", normalized=True)])
    assert "'film'" in obstacle(normalised)


def test_a_length_without_room_is_refused(uncased):
    with pytest.raises(ValueError, match="`max_seq_length`. Expected at least 4 .* Received: 3"):
        make_graph_tokenizer(uncased[0], 3)


def test_sentencepiece_scores_add_without_rounding():
    spec = json.loads(_unigram().backend.to_str())
    serialized = unigram_lib.sentencepiece_model(spec)
    model = unigram_lib.sentencepiece_proto.ModelProto.FromString(serialized)
    scores = np.array([piece.score for piece in model.pieces], np.float32)
    assert len(scores) == len(spec["model"]["vocab"])
    shuffled = np.random.default_rng(0).permutation(np.repeat(scores, 8))
    assert np.sum(shuffled, dtype=np.float32) == np.sum(np.repeat(scores, 8).astype(np.float64))


@pytest.mark.skipif("XDISTIL_DATA" not in os.environ, reason="XDISTIL_DATA is not set")
@pytest.mark.parametrize("name", ["bert-base-uncased", "bert-base-cased"])
def test_a_sample_of_real_sentences_gives_the_ids_of_training(name):
    data = pathlib.Path(os.environ["XDISTIL_DATA"])
    tokenizer = load_tokenizer(data / "bert" / "vocab" / f"{name}.vocab.txt")
    graph = make_graph_tokenizer(tokenizer, 1 << 20)
    # Real lines differ in length by a factor of a thousand; the tool takes them all.
    real = [row for row in checker.corpus(data) if len(row[1]) < 2000]
    sample = random.Random(0).sample(real, 4000)
    _, found = checker.differing(tokenizer, graph, sample)
    assert [source for source, _ in found] == []
