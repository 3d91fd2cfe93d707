"""Masks drawn at reading: a pure function of (seed, epoch, record), BERT's shares, whole words."""

import shutil

import numpy as np
import pytest
import tensorflow as tf

from xdistil_tf import files, stages
from xdistil_tf.data import synthetic
from xdistil_tf.data.pipeline import Batches
from xdistil_tf.data.pretraining import write_pretraining_records
from xdistil_tf.data.pretraining.dynamic import masking_of
from xdistil_tf.data.record_set import RecordSet
from xdistil_tf.data.records import decode_example
from xdistil_tf.data.tokenization import load_tokenizer


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Records without masks, with their tokenizer."""
    folder = tmp_path_factory.mktemp("dynamic")
    synthetic.generate_corpus(folder / "corpus.txt", 120)
    synthetic.train_wordpiece([folder / "corpus.txt"], 400, folder / "tokenizer")
    tokenizer = load_tokenizer(folder / "tokenizer")
    for name, whole_words in (("pieces", False), ("words", True)):
        write_pretraining_records(
            folder / "corpus.txt", tokenizer, folder / name, 64, 10,
            do_whole_word_mask=whole_words, dynamic_masking=True, heldout_fraction=0.1,
        )  # fmt: skip
    return folder


def batches(folder, **options):
    records = RecordSet(f"{folder}/train-*")
    options = {"seed": 1, "masking": masking_of(records, (1, 2))} | options
    return Batches(records, 8, **options)


def epoch(folder, number=0, **options):
    made = batches(folder, **options)
    count = made.steps_per_epoch
    rows = {}
    for batch in made.dataset(number * count, (number + 1) * count):
        arrays = {name: value.numpy() for name, value in batch.items()}
        for row in np.flatnonzero(arrays["example_weights"]):
            length = arrays["input_mask"][row].sum()
            rows[arrays["id"][row]] = {
                "input_ids": arrays["input_ids"][row][:length].tolist(),
                "gold": {
                    int(p): int(i)
                    for p, i, w in zip(
                        arrays["masked_lm_positions"][row], arrays["masked_lm_ids"][row],
                        arrays["masked_lm_weights"][row], strict=True,
                    )
                    if w
                },
            }  # fmt: skip
    return rows


def originals(folder):
    records = RecordSet(f"{folder}/train-*")
    one = (decode_example(records.read(n), "") for n in range(len(records)))
    return dict(zip(records.ids.tolist(), one, strict=True))


def test_what_was_masked_is_known_and_nothing_else_changed(made):
    written = originals(made / "pieces")
    for name, row in epoch(made / "pieces").items():
        restored = [row["gold"].get(i, token) for i, token in enumerate(row["input_ids"])]
        assert restored == written[name]["input_ids"]
        length = len(restored)
        assert len(row["gold"]) == min(10, max(1, round(0.15 * length)))


def test_an_epoch_is_the_same_each_time_and_another_has_other_masks(made):
    first = epoch(made / "pieces")
    assert first == epoch(made / "pieces")
    second = epoch(made / "pieces", 1)
    differing = sum(first[name]["gold"] != second[name]["gold"] for name in first)
    assert differing > 0.95 * len(first)
    other_seed = masking_of(RecordSet(f"{made}/pieces/train-*"), (1, 3))
    assert epoch(made / "pieces", masking=other_seed) != first


def test_masks_do_not_depend_on_batches_replicas_or_workers(made):
    whole = epoch(made / "pieces")
    records = RecordSet(f"{made}/pieces/train-*")
    assert epoch(made / "pieces", num_replicas=2, accumulation=2) == whole
    shared = {}
    for index in range(2):
        part = epoch_of_worker(records, index)
        assert not set(part) & set(shared)
        shared |= part
    assert shared == whole


def epoch_of_worker(records, index):
    made = Batches(
        records, 8, seed=1, masking=masking_of(records, (1, 2)), num_replicas=2, worker=(index, 2)
    )
    rows = {}
    for batch in made.dataset(0, made.steps_per_epoch):
        for row in np.flatnonzero(batch["example_weights"].numpy()):
            length = int(tf.reduce_sum(batch["input_mask"][row]))
            count = int(tf.reduce_sum(batch["masked_lm_weights"][row]))
            rows[batch["id"][row].numpy()] = {
                "input_ids": batch["input_ids"][row][:length].numpy().tolist(),
                "gold": dict(
                    zip(
                        batch["masked_lm_positions"][row][:count].numpy().tolist(),
                        batch["masked_lm_ids"][row][:count].numpy().tolist(),
                        strict=True,
                    )
                ),
            }
    return rows


def test_workers_get_the_slices_of_their_replicas(made):
    """Two workers of two replicas, two micro-batches: the slices of four replicas in one."""
    records = RecordSet(f"{made}/pieces/train-*")

    def slices(**options):
        made = Batches(records, 8, seed=1, num_replicas=4, accumulation=2, **options)
        return [batch["id"].numpy().tolist() for batch in made.dataset(0, 3)]

    whole = slices()
    first, second = slices(worker=(0, 2)), slices(worker=(1, 2))
    order = [(0, 1), (4, 5)]  # (micro-batch, replica) of the first worker in a step's 8 slices.
    expected = [whole[8 * step + i] for step in range(3) for pair in order for i in pair]
    assert first == expected
    assert second == [one for number, one in enumerate(whole) if number % 4 in (2, 3)]


def test_replicas_that_workers_cannot_share_are_refused(made):
    records = RecordSet(f"{made}/pieces/train-*")
    with pytest.raises(ValueError, match="as many replicas on each worker"):
        Batches(records, 8, num_replicas=3, worker=(0, 2))


def test_whole_words_are_masked_together(made):
    written = originals(made / "words")
    for name, row in epoch(made / "words").items():
        starts = written[name]["word_starts"]
        for place in row["gold"]:
            assert starts[place] >= 0
            word = place
            while starts[word] == 0:
                word -= 1
            after = word + 1
            while after < len(starts) and starts[after] == 0:
                after += 1
            assert set(range(word, after)) <= set(row["gold"])


def test_held_out_records_keep_their_masks(made):
    heldout = RecordSet(f"{made}/pieces/heldout-*")
    assert masking_of(heldout, 0) is None
    first = decode_example(heldout.read(0), "")
    assert sum(first["masked_lm_weights"]) > 0


def test_folders_with_other_masks_are_not_read_together(made):
    both = RecordSet([f"{made}/pieces/train-*", f"{made}/words/train-*"])
    with pytest.raises(ValueError, match="come from folders with other masks"):
        masking_of(both, 0)


def test_what_decides_the_masks_is_in_the_definition(made):
    found = masking_of(RecordSet(f"{made}/words/train-*"), 0).definition
    settings = files.read_json(made / "words" / "pretraining.json")["settings"]
    assert found == {name: settings[name] for name in found} and len(found) == 3


@pytest.mark.parametrize("order", [("train", "heldout"), ("heldout", "train")])
def test_train_and_held_out_records_are_not_read_together(made, order):
    both = RecordSet([f"{made}/pieces/{split}-*" for split in order])
    with pytest.raises(ValueError, match="heldout-.* has its masks on disk, others of its set"):
        masking_of(both, 0)


def test_no_cached_outputs_are_joined_to_masks_that_change(made):
    with pytest.raises(ValueError, match="no cached outputs.*masks are drawn.*teacher/hidden.1"):
        batches(made / "pieces", sidecars={"teacher/hidden.1": object()})


def test_shards_of_one_name_and_their_masks_are_all_in_the_definition(made, tmp_path):
    for name in ("a", "b"):
        shutil.copytree(made / "pieces", tmp_path / name)
    patterns = [f"{tmp_path}/{name}/train-*" for name in ("a", "b")]
    before = stages._content(RecordSet(patterns))
    assert before["masking"] == masking_of(RecordSet(patterns), 0).definition
    for ending in ("tfrecord", "index"):
        first, second = (tmp_path / "a" / f"train-0000{n}-of-00004.{ending}" for n in (0, 1))
        shutil.copy(first, second)
    assert stages._content(RecordSet(patterns)) != before
