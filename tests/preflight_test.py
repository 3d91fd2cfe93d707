"""Checks before anything expensive."""

import pathlib
import re
import shutil

import numpy as np
import pytest

from tests.small_task import encoder_folder
from xdistil_tf import files, preflight
from xdistil_tf.data.tokenization import load_tokenizer
from xdistil_tf.models import folders
from xdistil_tf.predictions import Predictions

pytest_plugins = ["tests.small_task"]


def check(small, folder, tokenizer=None, role="teacher", max_seq_length=32):
    tokenizer = tokenizer or small.tokenizer
    return preflight.check_model(folder, role, tokenizer, small.info, max_seq_length)


def test_the_teacher_that_made_the_records_passes(small):
    checks = check(small, small.teacher)
    assert [one.name.split(": ")[1] for one in checks] == ["tokenizer", "sizes", "labels"]
    assert all(one.passed for one in checks) and "equal id by id" in checks[0].detail


@pytest.mark.parametrize("role", ["teacher", "init_checkpoint"])
@pytest.mark.parametrize("change", ["one token", "one more", "case"])
def test_a_tokenizer_that_differs_by_one_token_is_refused(small, tmp_path, change, role):
    tokens = list(small.tokenizer.tokens)
    changed = tokens[100]
    if change == "one token":
        tokens[100] = "zzzz"
    elif change == "one more":
        tokens.append("zzzz")
    path = tmp_path / "vocab.txt"
    path.write_text("".join(f"{one}\n" for one in tokens), encoding="utf-8")
    other = load_tokenizer(path, do_lower_case=change != "case")
    message = f"The {role} .* reads other ids than the records have"
    with pytest.raises(ValueError, match=message) as caught:
        check(small, small.encoder, other, role)
    assert f"Create the records with --tokenizer={small.encoder}" in str(caught.value)
    if change == "one token":
        assert "100" in str(caught.value) and changed in str(caught.value)


def test_a_folder_without_tokenizer_is_checked_for_its_sizes(small, tmp_path):
    folder = tmp_path / "teacher"
    shutil.copytree(small.teacher, folder)
    for path in folder.glob("*token*"):
        path.unlink()
    for path in folder.glob("vocab*"):
        path.unlink()
    assert [one.name.split(": ")[1] for one in check(small, str(folder))] == ["sizes", "labels"]
    with pytest.raises(ValueError, match="takes at most 64 tokens"):
        check(small, str(folder), max_seq_length=65)


def test_a_model_with_fewer_rows_than_ids_is_refused(small, tmp_path):
    size = small.tokenizer.vocab_size
    folder = encoder_folder(tmp_path / "short", small.tokenizer, vocab_size=size - 1)
    with pytest.raises(ValueError, match=f"has {size} ids, the teacher .* only {size - 1} rows"):
        check(small, folder)


def test_sequences_longer_than_the_teacher_takes_are_refused(small, tmp_path):
    assert check(small, small.encoder, max_seq_length=64)
    with pytest.raises(ValueError, match="at most 64 tokens. Received: max_seq_length=65"):
        check(small, small.encoder, max_seq_length=65)
    roberta = encoder_folder(
        tmp_path / "roberta", small.tokenizer, model_type="roberta", pad_token_id=1
    )
    with pytest.raises(ValueError, match="at most 62 tokens. Received: max_seq_length=63"):
        check(small, roberta, max_seq_length=63)


def test_a_teacher_with_the_labels_in_another_order_is_refused(small, tmp_path):
    labels = small.info.labels[::-1]
    head = {"kind": "classification", "num_labels": len(labels)}
    folder = encoder_folder(tmp_path / "reversed", small.tokenizer, head, labels)
    with pytest.raises(ValueError, match="has the classes .* Give the teacher/model of a distill"):
        check(small, folder)
    assert check(small, folder, role="init_checkpoint")


def test_a_teacher_of_another_task_or_without_names_passes(small, tmp_path):
    head = {"kind": "classification", "num_labels": len(small.info.labels)}
    for name, labels in (("other", ("yes", "no")), ("unnamed", None)):
        folder = encoder_folder(tmp_path / name, small.tokenizer, head, labels)
        assert "other names" in check(small, folder)[-1].detail
    assert "no classes" in check(small, small.encoder)[-1].detail


def test_a_recurrent_teacher_takes_any_length(small, trained):
    checks = check(small, folders.find(str(trained)), max_seq_length=10**6)
    assert "any length" in checks[1].detail


LABELS = ("neg", "neutral", "pos")


@pytest.mark.parametrize(
    ("head", "given", "order"),
    [
        (None, None, None),
        (LABELS, None, [0, 1, 2]),
        (("pos", "neg", "neutral"), None, [1, 2, 0]),
        (("LABEL_0", "LABEL_1", "LABEL_2"), ("pos", "neg", "neutral"), [1, 2, 0]),
        (("pos", "neg"), None, None),
        (("neg", "pos", "mixed"), None, None),
    ],
)
def test_labels_are_matched_by_name(head, given, order):
    assert preflight.match_labels(head, LABELS, given) == order


@pytest.mark.parametrize(
    ("head", "given", "message"),
    [
        (("LABEL_0", "LABEL_1", "LABEL_2"), None, "Say which is which with --teacher_labels"),
        (LABELS, ("neg", "pos"), "Invalid --teacher_labels. Expected the task's labels"),
        (LABELS, ("neg", "pos", "pos"), "Invalid --teacher_labels"),
        (None, LABELS, "--teacher_labels names 3 classes, but the teacher has no head"),
        (("a", "b"), LABELS, "--teacher_labels names 3 classes, but the teacher has 2 classes"),
    ],
)
def test_labels_that_cannot_be_matched_are_refused(head, given, message):
    with pytest.raises(ValueError, match=message):
        preflight.match_labels(head, LABELS, given)


def predictions(right, count=100, share=0.6):
    """`share` of the gold is class 0; the first `right` predictions are right."""
    gold = (np.arange(count) >= share * count).astype(int)
    answers = np.where(np.arange(count) < right, gold, 1 - gold)
    scores = np.eye(2, dtype=np.float32)[answers]
    ids = [b"%d" % i for i in range(count)]
    return Predictions(ids, ["default"] * count, list(scores), list(gold))


def test_a_teacher_no_better_than_a_constant_is_refused_or_marked(small):
    assert preflight.check_teacher_quality(predictions(85), small.info).passed
    for right in (50, 60, 65):
        with pytest.raises(ValueError, match="not better than a constant answer") as caught:
            preflight.check_teacher_quality(predictions(right), small.info)
        assert re.search(
            r"against 0.6000 of the best constant answer, 100 held-out", str(caught.value)
        )
        marked = preflight.check_teacher_quality(predictions(right), small.info, True)
        assert not marked.passed


def test_two_standard_errors_are_asked_for(small):
    """0.6 and 2 * sqrt(p * (1 - p) / 100) decide between 0.69 and 0.70."""
    with pytest.raises(ValueError):
        preflight.check_teacher_quality(predictions(69), small.info)
    assert preflight.check_teacher_quality(predictions(70), small.info).passed


def test_missing_disk_is_refused(tmp_path, monkeypatch):
    assert preflight.check_disk(tmp_path, 10).passed
    monkeypatch.setattr(files.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 9}))
    with pytest.raises(files.DiskFullError, match="Checkpoints and exports needs"):
        preflight.check_disk(tmp_path, 10)


def test_missing_memory_is_refused_and_the_cure_works(small, monkeypatch):
    check_memory = preflight.check_memory
    assert check_memory(small.encoder, 32, 32).passed
    weights = 4 * pathlib.Path(small.encoder, "model.safetensors").stat().st_size
    activations = 32 * 32 * 4 * 2 * (20 * 32 + 2.5 * 4 * 32)  # layers * (width, heads * T)
    monkeypatch.setattr(preflight, "_available_memory", lambda: int(weights + activations) - 1)
    with pytest.raises(ValueError, match=r"Training .* 32 x 32 tokens .*--gradient_accumulation"):
        check_memory(small.encoder, 32, 32)
    for batch_size, accumulation in ((32, 2), (31, 1)):
        assert check_memory(small.encoder, batch_size, 32, accumulation).passed
    monkeypatch.setattr(preflight, "_available_memory", lambda: int(weights + activations))
    assert check_memory(small.encoder, 32, 32).passed
    with pytest.raises(ValueError, match="Training"):
        check_memory(small.encoder, 32, 32, replicas=2)


def test_a_large_encoder_keeps_hundreds_of_kilobytes_a_token():
    base = {"model_type": "bert", "num_hidden_layers": 12, "hidden_size": 768}
    assert 700e3 < preflight.activation_bytes(base | {"num_attention_heads": 12}, 128) < 1e6
    student = {"model_type": "xdistil_bilstm", "embedding_dim": 300, "lstm_units": 600}
    assert 55e3 < preflight.activation_bytes(student, 128) < 65e3
