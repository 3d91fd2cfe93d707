"""Checks before anything expensive."""

import re

import numpy as np
import pytest

from tests.small_task import encoder_folder
from xdistil_tf import files, preflight
from xdistil_tf.data.tokenization import load_tokenizer
from xdistil_tf.evaluate import Predictions

pytest_plugins = ["tests.small_task"]


def test_the_same_tokenizer_passes(small):
    check = preflight.check_tokenizer(small.encoder, small.tokenizer)
    assert check.passed and "equal id by id" in check.detail


@pytest.mark.parametrize("change", ["one token", "one more", "case"])
def test_a_tokenizer_that_differs_by_one_token_is_refused(small, tmp_path, change):
    tokens = list(small.tokenizer.tokens)
    changed = tokens[100]
    if change == "one token":
        tokens[100] = "zzzz"
    elif change == "one more":
        tokens.append("zzzz")
    path = tmp_path / "vocab.txt"
    path.write_text("".join(f"{one}\n" for one in tokens), encoding="utf-8")
    other = load_tokenizer(path, do_lower_case=change != "case")
    with pytest.raises(ValueError, match="reads other ids than the records have") as caught:
        preflight.check_tokenizer(small.encoder, other)
    assert f"Create the records with --tokenizer={small.encoder}" in str(caught.value)
    if change == "one token":
        assert "100" in str(caught.value) and changed in str(caught.value)


def test_a_model_with_fewer_rows_than_ids_is_refused(small, tmp_path):
    size = small.tokenizer.vocab_size
    folder = encoder_folder(tmp_path / "short", small.tokenizer, vocab_size=size - 1)
    with pytest.raises(ValueError, match=f"has {size} ids, its model only {size - 1} rows"):
        preflight.check_sizes(folder, small.tokenizer, 32)


def test_sequences_longer_than_the_teacher_takes_are_refused(small, tmp_path):
    assert preflight.check_sizes(small.encoder, small.tokenizer, 64).passed
    with pytest.raises(ValueError, match="at most 64 tokens. Received: max_seq_length=65"):
        preflight.check_sizes(small.encoder, small.tokenizer, 65)
    roberta = encoder_folder(
        tmp_path / "roberta", small.tokenizer, model_type="roberta", pad_token_id=1
    )
    with pytest.raises(ValueError, match="at most 62 tokens. Received: max_seq_length=63"):
        preflight.check_sizes(roberta, small.tokenizer, 63)


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


def test_missing_disk_or_memory_is_refused(tmp_path, monkeypatch):
    assert preflight.check_resources(tmp_path, 10, 10).passed
    with pytest.raises(ValueError, match="Training needs about .* GB of memory;.*Lower batch_size"):
        preflight.check_resources(tmp_path, 10, 10**12)
    monkeypatch.setattr(files.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 9}))
    with pytest.raises(files.DiskFullError, match="Checkpoints and exports needs"):
        preflight.check_resources(tmp_path, 10, 10)
