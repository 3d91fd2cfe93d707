import collections
import json

import pytest

from xdistil_tf.data.pretraining import processes, text, write_pretraining_records
from xdistil_tf.data.record_set import RecordSet
from xdistil_tf.data.records import decode_example

INSTANCE = {
    "tokens": ["[CLS]", "good", "[MASK]", "[SEP]", "the", "film", "##s", "[SEP]"],
    "segment_ids": [0, 0, 0, 0, 1, 1, 1, 1],
    "is_random_next": True,
    "masked_lm_positions": [2, 5],
    "masked_lm_labels": ["bad", "paris"],
}


def instance(number, **changes):
    words = ["good", "bad", "film", "the"]
    tokens = ["[CLS]", *(words[number >> 2 * one & 3] for one in range(4)), "[SEP]", "[SEP]"]
    return {
        "tokens": tokens,
        "segment_ids": [0] * 6 + [1],
        "is_random_next": number % 2 == 0,
        "masked_lm_positions": [],
        "masked_lm_labels": [],
    } | changes


def epoch(rows, count=None):
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    metrics = {"num_training_examples": len(rows) if count is None else count, "max_seq_len": 128}
    return lines, json.dumps(metrics)


@pytest.fixture
def create(write, tokenizer, tmp_path):
    """Writes epochs, each a list of instances, and makes records of them."""

    def make(*epochs, name="records", **options):
        contents = {}
        for number, rows in enumerate(epochs):
            lines, metrics = epoch(rows) if isinstance(rows, list) else rows
            contents[f"epoch_{number}.json"] = lines
            contents[f"epoch_{number}_metrics.json"] = metrics
        folder = write(
            {name: one for name, one in contents.items() if one is not None}, name + "_of"
        )
        options = {"max_seq_length": 10, "max_predictions_per_seq": 3, **options}
        return write_pretraining_records(f"{folder}/*.json", tokenizer, tmp_path / name, **options)

    return make


def rows_of(folder, split="train"):
    found = RecordSet(f"{folder}/{split}-*")
    return [decode_example(found.read(number), "") for number in range(len(found))]


def test_an_instance_is_taken_as_it_is(create, tokenizer, tmp_path):
    manifest = create([INSTANCE], heldout_fraction=0, masked_lm_prob=0.0, dupe_factor=3)
    (row,) = rows_of(tmp_path / "records")
    ids = tokenizer.backend.token_to_id
    assert row == {
        "id": [b"train-00000-of-00001:0"],
        "input_ids": [*map(ids, INSTANCE["tokens"]), 0, 0],
        "input_mask": [1] * 8 + [0, 0],
        "segment_ids": [0, 0, 0, 0, 1, 1, 1, 1, 0, 0],
        "masked_lm_positions": [2, 5, 0],
        "masked_lm_ids": [ids("bad"), ids("paris"), 0],
        "masked_lm_weights": [1.0, 1.0, 0.0],
        "next_sentence_labels": [1],
    }
    assert manifest["masking"] == "static"
    assert manifest["splits"]["train"] | {"fingerprint": ""} == {
        "documents": 1, "records": 1, "shards": 1, "tokens": 8, "masked": 2, "random_next": 1,
        "length_mean": 8.0, "length_max": 8, "fingerprint": "",
    }  # fmt: skip


def test_every_instance_of_every_epoch_is_in_one_split_once(create, tokenizer, tmp_path):
    # One of them stands in both epochs.
    epochs = [[instance(number) for number in range(100)]]
    epochs += [[instance(number) for number in range(99, 180)]]
    manifest = create(*epochs, heldout_fraction=0.2, num_shards=3)
    assert manifest["masking"] == "none" and manifest["splits"]["train"]["shards"] == 3
    assert len(manifest["inputs"]) == 2
    found = {
        split: [tuple(row["input_ids"]) for row in rows_of(tmp_path / "records", split)]
        for split in ("train", "heldout")
    }
    assert not set(found["train"]) & set(found["heldout"]) and len(found["heldout"]) >= 36
    expected = [
        tuple([*map(tokenizer.backend.token_to_id, row["tokens"]), 0, 0, 0])
        for rows in epochs
        for row in rows
    ]
    both = found["train"] + found["heldout"]
    assert collections.Counter(both) == collections.Counter(expected)
    assert both != expected


def test_parts_and_processes_do_not_change_a_byte(create, tmp_path, monkeypatch):
    rows = [instance(number) for number in range(60)]
    create(rows, name="a")
    monkeypatch.setattr(text.list_parts, "__defaults__", (2500,))
    create(rows, name="b", execute=processes.execution(2))
    for path in (tmp_path / "a").glob("*.tfrecord"):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokens": ["[CLS]", *["unheard"] * 6]}, "the token 'unheard' is not in the vocabulary"),
        ({"tokens": ["good"] * 11, "segment_ids": [0] * 11}, "max_seq_length=10 tokens.* 11"),
        ({"segment_ids": [0]}, "received 7 tokens, 1 segments, 0 positions and 0 labels"),
        ({"segment_ids": [0, 0, 0, 0, 0, 0, 2]}, "segment_ids of 0 and 1"),
        ({"masked_lm_positions": [7], "masked_lm_labels": ["bad"]}, r"below 7, .* \[7\]"),
        ({"masked_lm_positions": [1], "masked_lm_labels": ["un"]}, "the token 'un' is not in the"),
        (
            {"masked_lm_positions": [1] * 4, "masked_lm_labels": ["bad"] * 4},
            "max_predictions_per_seq=3 masked positions, received 4",
        ),
        ({"tokens": None}, "expected the lists tokens, segment_ids"),
        ({"segment_ids": [[0]] * 7}, "segment_ids of 0 and 1"),
        ({"segment_ids": [0.0] * 7}, "segment_ids of 0 and 1"),
        (
            {"masked_lm_positions": [1, 1], "masked_lm_labels": ["bad"] * 2},
            r"different masked_lm_positions below 7, .*\[1, 1\]",
        ),
        ({"masked_lm_positions": [True], "masked_lm_labels": ["bad"]}, r"below 7, .*\[True\]"),
        ({"is_random_next": "yes"}, "is_random_next of true or false, received 'yes'"),
        ({"is_random_next": None}, "is_random_next of true or false, received None"),
    ],
)
def test_a_bad_instance_is_named_by_file_and_line(create, changes, message):
    rows = [instance(number) for number in range(20)]
    rows[6] = instance(6, **changes)
    with pytest.raises(ValueError, match=f"epoch_0.json line 7: .*{message}"):
        create(rows)


def test_a_damaged_line_is_named(create):
    lines = epoch([instance(1), instance(2)])[0]
    with pytest.raises(ValueError, match="epoch_0.json line 2: expected one JSON object a line"):
        create((lines[:-20], "{}"))


def test_an_epoch_that_was_cut_off_is_found_by_its_metrics(create):
    rows = [instance(number) for number in range(5)]
    with pytest.raises(ValueError, match="epoch_1.json has 5 instances; .*_examples=9. Copy or"):
        create(rows, epoch(rows, count=9))
    made = create((epoch(rows)[0], None), (epoch(rows)[0], None), name="unknown")
    assert made["splits"]["train"]["documents"] + made["splits"]["heldout"]["documents"] == 10


def test_text_beside_epochs_and_dynamic_masks_are_refused(create, write, tokenizer, tmp_path):
    with pytest.raises(ValueError, match="hold their masks. Received: dynamic_masking=True"):
        create([INSTANCE], dynamic_masking=True)
    folder = write({"epoch_0.json": epoch([INSTANCE])[0], "text.txt": "good\n"})
    with pytest.raises(ValueError, match="not both. Received: .*text.txt beside .*epoch_0.json"):
        write_pretraining_records(f"{folder}/*", tokenizer, tmp_path / "r")
