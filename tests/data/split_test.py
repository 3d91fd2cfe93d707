import dataclasses
import random

import pytest

from xdistil_tf.data.examples import Example, TaskData
from xdistil_tf.data.split import split_task, text_key


def example(number, label="0", text=None, split="train", text_b=None, source_id=None):
    text = f"text number {number}" if text is None else text
    source = (f"{split}.tsv", number)
    return Example(f"{split}:{number}", text, text_b, label, "default", source, source_id)


def task(train, dev=(), test=(), task_type="classification", labels=("0", "1")):
    splits = {"train": list(train), "dev": list(dev), "test": list(test)}
    return TaskData("sst-2", task_type, False, "accuracy", labels, splits, [])


def rows(count, start=0):
    return [example(number, str(number % 2)) for number in range(start, start + count)]


def texts(examples):
    return {text_key(one) for one in examples}


def test_holds_out_the_larger_of_share_and_rows():
    assert len(split_task(task(rows(1000))).heldout) == 200
    assert len(split_task(task(rows(8000))).heldout) == 400
    assert len(split_task(task(rows(100))).heldout) == 50


def test_taking_more_than_a_third_is_said(caplog):
    with caplog.at_level("INFO", logger="absl"):
        split_task(task(rows(1000)))
        assert caplog.text == ""
        split_task(task(rows(300)))
    assert "150 of 300 labelled texts are held out" in caplog.text


def test_heldout_depends_on_the_texts_alone():
    train = rows(1000)
    first = split_task(task(train), seed=1)
    random.Random(0).shuffle(train)
    second = split_task(task(train), seed=2)
    assert texts(first.heldout) == texts(second.heldout)
    grown = split_task(task(train + rows(20, start=1000)))
    assert len(texts(first.heldout) & texts(grown.heldout)) > 180


def test_every_labelled_text_trains_or_selects_never_both():
    splits = split_task(task(rows(1000)))
    assert len(splits.train) == 800
    assert not texts(splits.train) & texts(splits.heldout)
    assert not texts(splits.transfer) & texts(splits.heldout)


def test_equal_texts_stay_on_one_side():
    train = [example(n, text=f"text {n // 4}") for n in range(400)]
    splits = split_task(task(train), heldout_rows=50)
    assert not texts(splits.train) & texts(splits.heldout)
    assert len(splits.train) + len(splits.heldout) == 400
    assert splits.counts["duplicate"] == (len(splits.train) // 4) * 3


def test_transfer_is_train_by_default():
    splits = split_task(task(rows(500)))
    assert texts(splits.transfer) == texts(splits.train)
    assert [one.label for one in splits.transfer] == [one.label for one in splits.train]


def test_transfer_texts_have_the_label_of_an_equal_train_text_and_no_other():
    train = rows(20)
    known, other = train[4], example(3, "9", "Text of somebody else", "more")
    said = dataclasses.replace(known, id="more:1", label="9", source=("more.tsv", 1))
    splits = split_task(task(train), [said, other], heldout_rows=2)
    labels = {one.id: one.label for one in splits.transfer}
    held = {one.text for one in splits.heldout}
    assert known.text not in held
    assert labels == {"more:1": known.label, other.id: None}


def test_transfer_does_not_tell_labels_that_were_not_drawn():
    splits = split_task(task(rows(100)), labels_per_class=5, heldout_rows=2)
    drawn = {one.id: one.label for one in splits.train}
    assert {one.id: one.label for one in splits.transfer if one.label is not None} == drawn
    assert len(splits.transfer) > 80 > 10 > len(drawn)


def test_overlap_leaves_train_and_transfer_and_is_listed():
    dev = [example(1, text="text  number\u00a03", split="dev")]
    test = [example(1, None, "Text number 4", "test"), example(2, None, "cafe\u0301", "test")]
    train = rows(10) + [example(10, text="caf\u00e9")]
    splits = split_task(task(train, dev, test), heldout_rows=2)
    assert splits.counts["overlap"] == 2
    assert splits.dropped == [
        ("train.tsv", 3, "overlap: the text of train stands in dev"),
        ("train.tsv", 10, "overlap: the text of train stands in test"),
    ]
    assert len(splits.train) + len(splits.heldout) == 9  # Case counts: "text number 4" stays.
    assert splits.dev == dev and splits.test == test


def test_pairs_are_compared_as_pairs():
    train = [example(1, text="a", text_b="b"), example(2, text="a", text_b="c")]
    dev = [example(1, text="a", text_b="c", split="dev")]
    splits = split_task(task(train, dev), heldout_rows=0)
    assert [one.id for one in splits.train] == ["train:1"]


def test_words_are_compared_as_their_text():
    train = [example(1, ("O", "O"), ("a", "b")), example(2, ("O",), ("c",))]
    dev = [example(1, ("O", "O"), ("a", "b"), "dev")]
    splits = split_task(task(train, dev, task_type="tagging"), heldout_rows=0)
    assert [one.id for one in splits.train] == ["train:2"]


def test_a_transfer_file_loses_overlap_duplicates_and_what_derives_from_heldout():
    data = task(rows(20), [example(1, text="reported", split="dev")])
    held = split_task(data, heldout_rows=2).heldout[0]
    transfer = [
        example(1, None, "new", "x"),
        example(2, None, " new ", "x"),
        example(3, None, "reported", "x"),
        example(4, None, held.text, "x"),
        example(5, None, "rewritten", "x", source_id=held.id),
        example(6, None, "rewritten dev", "x", source_id="dev:1"),
        example(7, None, "rewritten train", "x", source_id="train:999"),
    ]
    splits = split_task(data, transfer, heldout_rows=2)
    assert [one.id for one in splits.transfer] == ["x:1", "x:7"]
    assert splits.counts == {"overlap": 2, "duplicate": 1, "heldout": 2}
    assert [(file, row) for file, row, _ in splits.dropped] == [("x.tsv", n) for n in range(2, 7)]


def test_a_transfer_file_of_reported_texts_is_refused():
    test = [example(n, None, f"test {n}", "test") for n in range(10)]
    data = task(rows(20), test=test)
    with pytest.raises(ValueError, match="10 of 11 transfer texts stand in dev or test"):
        split_task(data, [*test, example(99, None)])
    splits = split_task(data, test, allow_transductive=True)
    assert len(splits.transfer) == 10
    half = test[:5] + [example(n, None) for n in range(200, 205)]
    assert len(split_task(data, half).transfer) == 5


def test_labels_per_class_draws_by_the_seed_and_leaves_the_rest_as_transfer():
    train = rows(400)
    splits = split_task(task(train), labels_per_class=50, seed=3, heldout_rows=10)
    labelled = splits.train + splits.heldout
    assert sorted(one.label for one in labelled) == ["0"] * 50 + ["1"] * 50
    assert len(splits.heldout) == 10
    assert len(splits.transfer) == 390
    again = split_task(task(train[::-1]), labels_per_class=50, seed=3, heldout_rows=10)
    assert texts(labelled) == texts(again.train + again.heldout)
    other = split_task(task(train), labels_per_class=50, seed=4, heldout_rows=10)
    assert texts(labelled) != texts(other.train + other.heldout)
    larger = split_task(task(train), labels_per_class=80, seed=3, heldout_rows=10)
    assert texts(labelled) < texts(larger.train + larger.heldout)


def test_labels_per_class_beyond_the_data_is_an_error():
    with pytest.raises(ValueError, match="labels_per_class=6 examples of the label '0'.* has 5"):
        split_task(task(rows(10)), labels_per_class=6)
    with pytest.raises(ValueError, match="needs a classification task. Received: regression"):
        split_task(task(rows(10), task_type="regression"), labels_per_class=1)


def test_an_impossible_share_is_an_error():
    with pytest.raises(ValueError, match=r"heldout_fraction in \[0, 0.5\]. Received: 0.7"):
        split_task(task(rows(10)), heldout_fraction=0.7)


def test_a_single_example_is_kept_for_training():
    splits = split_task(task(rows(1)))
    assert len(splits.train) == 1 and not splits.heldout
    assert list(splits.named()) == ["train", "transfer"]
