"""Exports of tiny models: signatures, refusals, and the gate that compares them."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import tokenizers
from tokenizers import models, processors

from xdistil_tf import files, predict_tags
from xdistil_tf.data.tokenization import load_tokenizer
from xdistil_tf.data.tokenizer import Tokenizer
from xdistil_tf.export import compared_texts, parity, saved_model
from xdistil_tf.export.saved_model import ServedTask, export_saved_model
from xdistil_tf.models.bilstm import BiLSTM
from xdistil_tf.models.encoder import Encoder
from xdistil_tf.predictions import LogitsFunction

_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
_LETTERS = [chr(code) for code in range(ord("a"), ord("z") + 1)]
_VOCABULARY = [*_SPECIAL, *_LETTERS, *(f"##{letter}" for letter in _LETTERS), ".", ",", "film"]
_SENTIMENT = ServedTask("classification", ("bad", "mittel ü", "good"))
_TEXTS = ["a fine film.", "", "Ärger, film film", "no " * 40]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("vocabulary") / "vocab.txt"
    path.write_text("\n".join(_VOCABULARY) + "\n", encoding="utf-8")
    return load_tokenizer(path, do_lower_case=True)


def _bpe():
    letters = {letter: index + 3 for index, letter in enumerate(_LETTERS)}
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2, **letters}
    backend = tokenizers.Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>"))
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 1))
    names = {"cls_token": "<s>", "sep_token": "</s>", "unk_token": "<unk>", "pad_token": "<unk>"}
    return Tokenizer(backend, names)


def _encoder(kind="classification", labels=3, precision="float32", **changes):
    config = {
        "vocab_size": len(_VOCABULARY),
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "max_position_embeddings": 64,
        "initializer_range": 0.5,
        "head": {"kind": kind, "num_labels": labels},
        **changes,
    }
    return Encoder.from_config_dict(config, precision, seed=3)


@pytest.fixture
def same_process(monkeypatch):
    """The gate without a new interpreter, which costs seconds each time."""

    def check(folder):
        report = parity.check(folder)
        files.write_json(folder / parity.REPORT_FILE, report)
        if not report["passed"]:
            raise ValueError(parity.failure(report))
        return report

    monkeypatch.setattr(parity, "check_in_fresh_process", check)


def _scores(model, tokenizer, texts, texts_b=None, max_length=24):
    """Row by row, without padding."""
    rows = []
    for encoding in tokenizer.encode_batch(texts, texts_b, max_length=max_length):
        features = {
            "input_ids": tf.constant([encoding.input_ids], tf.int32),
            "input_mask": tf.ones([1, len(encoding.input_ids)], tf.int32),
            "segment_ids": tf.constant([encoding.segment_ids], tf.int32),
        }
        rows.append(model(features)["logits"].numpy()[0])
    return rows


def _softmax(logits):
    exponents = np.exp(logits - np.max(logits, -1, keepdims=True))
    return exponents / exponents.sum(-1, keepdims=True)


@pytest.fixture(scope="module")
def exported(tokenizer, tmp_path_factory):
    """One export through the real gate: a fresh process."""
    model = _encoder()
    folder = tmp_path_factory.mktemp("served") / "1"
    export_saved_model(model, tokenizer, _SENTIMENT, folder, max_seq_length=24, parity_texts=_TEXTS)
    return model, folder


def test_strings_give_the_labels_and_scores_of_the_model(exported, tokenizer):
    model, folder = exported
    outputs = parity.load_exported(folder).from_text(_TEXTS)
    expected = [_softmax(row) for row in _scores(model, tokenizer, _TEXTS)]
    np.testing.assert_allclose(outputs["scores"], expected, atol=1e-5)
    assert outputs["scores"].dtype == np.float32
    names = [_SENTIMENT.labels[int(np.argmax(row))] for row in expected]
    assert outputs["label"].tolist() == names


def test_ids_give_the_same_as_strings(exported, tokenizer):
    model = parity.load_exported(exported[1])
    encodings = tokenizer.encode_batch(_TEXTS, max_length=24)
    inputs = {
        "input_ids": [encoding.input_ids for encoding in encodings],
        "segment_ids": [encoding.segment_ids for encoding in encodings],
    }
    by_ids = model.from_ids(parity.stored_batch(inputs, range(len(_TEXTS))))
    by_text = model.from_text(_TEXTS)
    np.testing.assert_array_equal(by_ids["scores"], by_text["scores"])
    assert by_ids["label"].tolist() == by_text["label"].tolist()


def test_any_batch_size_works_zero_too(exported):
    model = parity.load_exported(exported[1])
    empty = model.from_text([])
    assert empty["scores"].shape == (0, 3) and empty["label"].shape == (0,)
    assert model.from_text(["film"] * 65)["scores"].shape == (65, 3)


def test_the_signatures_are_the_documented_ones(exported):
    loaded = tf.saved_model.load(str(exported[1]))
    text = loaded.signatures["serving_default"].structured_input_signature[1]
    assert {key: (spec.shape.as_list(), spec.dtype) for key, spec in text.items()} == {
        "text": ([None], tf.string)
    }
    ids = loaded.signatures["ids"].structured_input_signature[1]
    assert set(ids) == {"input_ids", "input_mask", "segment_ids"}
    assert all(spec.shape.as_list() == [None, None] for spec in ids.values())
    outputs = loaded.signatures["serving_default"].structured_outputs
    assert outputs["label"].dtype == tf.string and outputs["scores"].dtype == tf.float32


def test_the_folder_holds_the_student_alone_and_its_papers(exported, tokenizer):
    model, folder = exported
    saved = tf.train.list_variables(str(folder / "variables" / "variables"))
    shapes = sorted(tuple(shape) for name, shape in saved if name.startswith("weights/"))
    assert shapes == sorted(tuple(value.shape) for value in model.named_variables().values())
    assert [name for name, _ in saved if not name.startswith("weights/")] == [
        "_CHECKPOINTABLE_OBJECT_GRAPH"
    ]
    info = files.read_json(folder / parity.INFO_FILE)
    assert info["labels"] == list(_SENTIMENT.labels) and info["text_signature"]
    assert info["tokenizer"]["fingerprint"] == tokenizer.fingerprint
    report = files.read_json(folder / parity.REPORT_FILE)
    assert report["passed"] and report["examples"] == len(_TEXTS)
    assert report["tokenizer"] == {"examples": len(_TEXTS), "equal_ids": len(_TEXTS)}
    assert report["max_abs_difference"] < 1e-5 and report["label_agreement"] == 1


def test_an_export_keeps_no_texts_but_the_built_in_ones(tokenizer, tmp_path, same_process):
    folder = export_saved_model(
        _encoder(), tokenizer, _SENTIMENT, tmp_path / "1", max_seq_length=24, signatures="ids"
    )
    kept = files.read_json(folder / parity.INPUTS_FILE)["texts"]
    assert kept == compared_texts.built_in(pair=False)


def test_the_same_export_is_not_made_twice(exported, tokenizer, monkeypatch):
    model, folder = exported
    monkeypatch.setattr(tf.saved_model, "save", None)
    again = export_saved_model(model, tokenizer, _SENTIMENT, folder, max_seq_length=24)
    assert again == folder


def test_another_export_or_file_in_the_folder_is_not_overwritten(exported, tokenizer, tmp_path):
    model, folder = exported
    with pytest.raises(ValueError, match="`output_dir`.*an export of another model"):
        export_saved_model(model, tokenizer, _SENTIMENT, folder, max_seq_length=20)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="`output_dir`. Expected a new or empty.*other files"):
        export_saved_model(model, tokenizer, _SENTIMENT, tmp_path, max_seq_length=24)
    assert (tmp_path / "notes.txt").read_text() == "mine"


_PLAIN = """
import json, sys, tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
rows = tf.constant([[2, 9, 3]])
features = {"input_ids": rows, "input_mask": tf.ones_like(rows)}
outputs = model.signatures["serving_default"](**features)
text_ops = any(name.split(".")[0] == "tensorflow_text" for name in sys.modules)
sys.stdout.write(json.dumps([outputs["scores"].shape.as_list(), text_ops]))
"""


def test_an_ids_only_export_loads_without_tensorflow_text(tokenizer, tmp_path, same_process):
    task, folder = ServedTask("regression"), tmp_path / "1"
    model = _encoder("regression", 1, type_vocab_size=1)
    export_saved_model(model, tokenizer, task, folder, max_seq_length=24, signatures="ids")
    done = subprocess.run(
        [sys.executable, "-c", _PLAIN, str(folder)],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [[1, 1], False]
    with pytest.raises(ValueError, match="ids only: signatures='ids' was asked for"):
        parity.load_exported(folder).from_text(["film"])


def test_a_pair_task_needs_both_texts(tokenizer, tmp_path, same_process):
    task = ServedTask("classification", ("no", "yes"), pair=True)
    model, folder = _encoder(labels=2), tmp_path / "1"
    export_saved_model(model, tokenizer, task, folder, max_seq_length=24)
    loaded = parity.load_exported(folder)
    firsts, seconds = ["film", "a b c " * 9, ""], ["no film " * 9, "x", ""]
    expected = [_softmax(row) for row in _scores(model, tokenizer, firsts, seconds)]
    np.testing.assert_allclose(loaded.from_text(firsts, seconds)["scores"], expected, atol=1e-5)
    with pytest.raises(ValueError, match="`texts_b`. Expected pairs of texts"):
        loaded.from_text(firsts)
    with pytest.raises(ValueError, match="Expected \\(text, text_pair\\)"):
        export_saved_model(
            model, tokenizer, task, tmp_path / "2", max_seq_length=24, parity_texts=["film"]
        )


def test_a_bilstm_student_reads_no_segments(tokenizer, tmp_path, same_process):
    config = {
        "vocab_size": len(_VOCABULARY),
        "embedding_dim": 6,
        "lstm_units": 5,
        "projection_dim": 4,
        "num_labels": 3,
    }
    model = BiLSTM.from_config_dict(config, "bfloat16", seed=1)
    folder = tmp_path / "1"
    export_saved_model(model, tokenizer, _SENTIMENT, folder, max_seq_length=24)
    loaded = parity.load_exported(folder)
    reference = BiLSTM.from_config_dict(config, "float32", seed=1)
    expected = [_softmax(row) for row in _scores(reference, tokenizer, _TEXTS)]
    np.testing.assert_allclose(loaded.from_text(_TEXTS)["scores"], expected, atol=1e-5)
    assert loaded.from_text([])["scores"].shape == (0, 3)
    signature = tf.saved_model.load(str(folder)).signatures["ids"]
    assert set(signature.structured_input_signature[1]) == {"input_ids", "input_mask"}


def test_regression_gives_raw_scores_and_no_label(tokenizer, tmp_path, same_process):
    model, folder = _encoder("regression", 1), tmp_path / "1"
    task = ServedTask("regression")
    export_saved_model(model, tokenizer, task, folder, max_seq_length=24)
    outputs = parity.load_exported(folder).from_text(_TEXTS)
    assert list(outputs) == ["scores"] and outputs["scores"].shape == (4, 1)
    expected = _scores(model, tokenizer, _TEXTS)
    np.testing.assert_allclose(outputs["scores"], expected, atol=1e-5)
    assert files.read_json(folder / parity.REPORT_FILE)["label_agreement"] is None


_TAGS = ("O", "B-PER", "I-PER", "B-LOC")
_LONG = " ".join(["good", "film,", "a", "films", "fi\u0301lm", "\u4e2d\u6587"] * 9)
_TAGGED = ["", "  ", "Good films.", "a \u200b b", _LONG, "x" * 250, "[SEP] film", "f\u0130lm!"]


def _tagger(crf, bilstm=False):
    """A random model whose tags vary from word to word."""
    if bilstm:
        model = BiLSTM.from_config_dict(
            {
                "vocab_size": len(_VOCABULARY),
                "embedding_dim": 6,
                "lstm_units": 5,
                "projection_dim": 4,
                "num_labels": len(_TAGS),
                "task_type": "tagging",
                "crf": crf,
            },
            seed=2,
        )
        head = model.head
    else:
        head = {"kind": "tagging", "num_labels": len(_TAGS), "crf": crf}
        model = _encoder(head=head)
        head = model.head_output
    rng = np.random.default_rng(0)
    for variable in head.variables:
        variable.assign(rng.normal(size=variable.shape) * 8)
    if crf:
        for variable in model.crf.variables:
            variable.assign(rng.normal(size=variable.shape) * 2)
    return model


@pytest.mark.parametrize("crf", [False, True], ids=["softmax", "crf"])
@pytest.mark.parametrize("bilstm", [False, True], ids=["encoder", "bilstm"])
def test_a_tagging_model_takes_strings_and_gives_words_and_entities(
    tokenizer, tmp_path, same_process, crf, bilstm
):
    model, task, folder = _tagger(crf, bilstm), ServedTask("tagging", _TAGS), tmp_path / "1"
    export_saved_model(model, tokenizer, task, folder, max_seq_length=16)
    loaded = parity.load_exported(folder)
    logits_of = LogitsFunction(model)
    tagger = predict_tags.Tagger(logits_of, logits_of.decode, tokenizer, _TAGS, 16)
    expected = list(tagger.rows(_TAGGED))
    assert len(expected[4]["words"]) > 60 and sum(len(one["entities"]) for one in expected) > 9
    for found in (loaded.tag(_TAGGED), [loaded.tag([text])[0] for text in _TAGGED]):
        for ours, theirs in zip(found, expected, strict=True):
            for kind in ("words", "entities"):
                ours_plain = [one | {"score": None} for one in ours[kind]]
                assert ours_plain == [one | {"score": None} for one in theirs[kind]]
                np.testing.assert_allclose(
                    [one["score"] for one in ours[kind]],
                    [one["score"] for one in theirs[kind]],
                    atol=1e-4,
                )
    assert loaded.tag([]) == []
    signature = tf.saved_model.load(str(folder)).signatures["serving_default"]
    outputs = signature(text=tf.constant(["", "good film"]))
    assert outputs["num_words"].numpy().tolist() == [0, 2]
    assert outputs["words"].shape == outputs["word_scores"].shape == (2, 2)
    assert outputs["tags"].numpy()[0].tolist() == [b"", b""]
    report = files.read_json(folder / parity.REPORT_FILE)
    assert report["passed"] and report["signatures"] == ["serving_default", "ids"]
    with pytest.raises(ValueError, match="Call `tag`"):
        loaded.from_text(["film"])


def test_tags_that_mark_no_spans_give_no_entities(tokenizer, tmp_path, same_process):
    labels, folder = ("ADJ", "NOUN", "I-X", "Z"), tmp_path / "1"
    task = ServedTask("tagging", labels, metric="word_accuracy")
    export_saved_model(_tagger(False), tokenizer, task, folder, max_seq_length=16)
    (row,) = parity.load_exported(folder).tag([_LONG])
    assert row["entities"] == [] and {"I-X", "ADJ"} & {one["tag"] for one in row["words"]}


def test_ids_of_a_crf_say_where_words_begin(tokenizer, tmp_path, same_process):
    task, folder = ServedTask("tagging", _TAGS), tmp_path / "1"
    export_saved_model(_tagger(True), tokenizer, task, folder, max_seq_length=16, signatures="ids")
    loaded = parity.load_exported(folder)
    ids = {"input_ids": [[2, 9, 10, 3, 0]], "input_mask": [[1, 1, 1, 1, 0]]}
    ids |= {"segment_ids": [[0] * 5], "word_index": [[-1, 0, 0, -1, -1]]}
    outputs = loaded.from_ids(ids)
    assert [bool(label) for label in outputs["label"][0]] == [False, True, False, False, False]
    np.testing.assert_allclose(outputs["scores"][0].sum(-1), [0, 1, 0, 0, 0], atol=1e-5)
    with pytest.raises(ValueError, match="takes ids only"):
        loaded.tag(["film"])


def test_byte_level_bpe_takes_ids_only(tokenizer, tmp_path, same_process):
    export_saved_model(_encoder(), _bpe(), _SENTIMENT, tmp_path / "bpe", max_seq_length=24)
    assert "BPE" in parity.load_exported(tmp_path / "bpe").info["ids_only"]


def test_a_bfloat16_student_is_exported_in_float32(tokenizer, tmp_path, same_process):
    model, reference = _encoder(precision="bfloat16"), _encoder()
    folder = export_saved_model(
        model, tokenizer, _SENTIMENT, tmp_path / "1", max_seq_length=24, signatures="ids"
    )
    rows = np.array([[2, 9, 10, 3]], np.int32)
    features = {"input_ids": rows, "input_mask": rows * 0 + 1, "segment_ids": rows * 0}
    expected = _softmax(reference({k: tf.constant(v) for k, v in features.items()})["logits"])
    found = parity.load_exported(folder).from_ids(features)["scores"]
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("fault", ["scores", "labels", "not a number"])
def test_a_differing_export_fails_and_leaves_nothing(
    tokenizer, tmp_path, same_process, monkeypatch, fault
):
    honest = saved_model._served

    def faulty(student, info):
        if fault == "labels":
            return honest(student, {**info, "labels": info["labels"][::-1]})

        def served(features):
            outputs = honest(student, info)(features)
            shift = np.nan if fault == "not a number" else 2e-4
            return {**outputs, "scores": outputs["scores"] + shift}

        return served

    monkeypatch.setattr(saved_model, "_served", faulty)
    with pytest.raises(ValueError, match="differs from the Keras model: largest difference"):
        export_saved_model(
            _encoder(), tokenizer, _SENTIMENT, tmp_path / "1", max_seq_length=24, signatures="ids"
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"signatures": "text"}, "Unknown `signatures`. Expected one of .* Received: 'text'"),
        ({"max_seq_length": 65}, "`max_seq_length`. Expected at most 64.* Received: 65"),
        ({"task": ServedTask("ranking")}, "Unknown task_type. .* Received: 'ranking'"),
        ({"task": ServedTask("classification", ("a",))}, "Expected 3 labels.* Received: 1"),
        ({"model": _encoder(None)}, "Expected one that gives logits"),
        ({"parity_texts": [("a", "b")]}, "`parity_texts`. Expected a string.* number 1"),
        ({"parity_texts": []}, "`parity_texts`. Expected at least one text"),
    ],
)
def test_bad_arguments_are_named(tokenizer, tmp_path, change, message):
    arguments = {"model": _encoder(), "task": _SENTIMENT, "max_seq_length": 24, **change}
    with pytest.raises(ValueError, match=message):
        export_saved_model(tokenizer=tokenizer, output_dir=tmp_path / "1", **arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_wrapped_model_is_refused(tokenizer, tmp_path):
    class Wrapped:
        parts = {"width_projection": []}

    with pytest.raises(ValueError, match="pass the model that it wraps"):
        export_saved_model(Wrapped(), tokenizer, _SENTIMENT, tmp_path / "1")
