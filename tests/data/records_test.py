import gc
import os
import pathlib
import shutil
import sys

import pytest
import tensorflow as tf

from xdistil_tf import files
from xdistil_tf.data import records
from xdistil_tf.data.record_set import RecordSet


def features(number, length=None):
    length = length or 2 + number % 5
    return {
        "id": f"train:{number}".encode(),
        "input_ids": [number * 1000 + place for place in range(length)],
        "input_mask": [1] * length,
        "segment_ids": [0] * length,
        "word_index": [-1] + list(range(length - 1)),
        "label_ids": [number % 2],
        "label_weights": [0.5],
        "language": b"default",
    }


def written(folder, count=10, num_shards=3, split="train"):
    made = (features(number) for number in range(count))
    return records.write_records(folder, split, made, count, num_shards)


def google_example(ids, width=8):
    def ints(values):
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))

    padding = [0] * (width - len(ids))
    floats = tf.train.Feature(float_list=tf.train.FloatList(value=[1.0, 0.0]))
    parts = {
        "input_ids": ints([*ids, *padding]),
        "input_mask": ints([1] * len(ids) + padding),
        "segment_ids": ints([0] * width),
        "masked_lm_positions": ints([1, 0]),
        "masked_lm_ids": ints([ids[1], 0]),
        "masked_lm_weights": floats,
        "next_sentence_labels": ints([1]),
    }
    return tf.train.Example(features=tf.train.Features(feature=parts))


def test_records_are_tf_train_examples_in_tfrecord_framing(tmp_path):
    written(tmp_path, 4, 2)
    paths = [str(records.shard_path(tmp_path, "train", shard, 2)) for shard in range(2)]
    contents = list(tf.data.TFRecordDataset(paths).as_numpy_iterator())
    for number, content in enumerate(contents):
        expected = features(number)
        example = tf.train.Example.FromString(content)
        assert example.SerializeToString(deterministic=True) == content
        found = records.decode_example(content, "here")
        for name, value in expected.items():
            assert found[name] == ([value] if isinstance(value, bytes) else value)


def test_a_set_reads_what_was_written_in_order(tmp_path):
    result = written(tmp_path)
    read = RecordSet(str(tmp_path / "train-*"))
    assert len(read) == 10
    assert read.lengths.tolist() == [2 + number % 5 for number in range(10)]
    assert read.ids.tolist() == [f"train:{number}".encode() for number in range(10)]
    for number in range(10):
        found = records.decode_example(read.read(number), "here")
        assert found["input_ids"] == features(number)["input_ids"]
    assert (result.records, result.shards, result.length_max) == (10, 3, 6)
    assert result.fingerprint == read.fingerprint
    assert read.shard_of(3) == (1, 0)


def test_there_are_never_more_shards_than_records(tmp_path):
    assert written(tmp_path, count=2, num_shards=4).shards == 2
    assert len(RecordSet(str(tmp_path / "train-*"))) == 2


def test_equal_records_have_equal_fingerprints(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert written(tmp_path / "a").fingerprint == written(tmp_path / "b").fingerprint
    assert written(tmp_path / "b", count=9).fingerprint != written(tmp_path / "a").fingerprint


def test_an_interrupted_writing_leaves_no_shard(tmp_path):
    def broken():
        yield features(0)
        raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError):
        records.write_records(tmp_path, "train", broken(), 2, 1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("count", [1, 3])
def test_a_wrong_count_is_an_error(tmp_path, count):
    made = [features(0), features(1)]
    with pytest.raises(ValueError, match=f"Expected {count} records of 'train'"):
        records.write_records(tmp_path, "train", made, count, 1)


def test_a_damaged_record_is_named(tmp_path):
    written(tmp_path)
    path = records.shard_path(tmp_path, "train", 1, 3)
    index = records.read_index(records.index_path(path))
    read = RecordSet(str(tmp_path / "train-*"))
    content = bytearray(path.read_bytes())
    content[int(index.offsets[2]) + 40] ^= 1
    path.write_bytes(content)
    read.read(4)
    message = f"train-00001-of-00003.tfrecord is damaged: record 2 at byte {index.offsets[2]}"
    with pytest.raises(ValueError, match=message):
        read.read(5)
    with pytest.raises(ValueError, match=message):
        RecordSet(str(tmp_path / "train-*"))


@pytest.mark.parametrize("place", [0, 9, -1])
def test_damage_in_the_framing_is_found(tmp_path, place):
    written(tmp_path, 1, 1)
    path = records.shard_path(tmp_path, "train", 0, 1)
    read = RecordSet(path)
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="record 0 at byte 0 fails its checksum"):
        read.read(0)
    with pytest.raises(ValueError, match="train-00000-of-00001.tfrecord is damaged: "):
        RecordSet(path)


def test_a_truncated_shard_is_found_when_it_is_opened(tmp_path):
    written(tmp_path)
    path = records.shard_path(tmp_path, "train", 2, 3)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ValueError, match="train-00002-of-00003.tfrecord is truncated: its index"):
        RecordSet(str(tmp_path / "train-*"))


def test_files_are_closed_with_their_set(tmp_path, monkeypatch):
    written(tmp_path, 1, 1)
    closed, close = [], os.close
    monkeypatch.setattr(os, "close", lambda one: closed.append(one) or close(one))
    read = RecordSet(str(tmp_path / "train-*"))
    read.read(0)
    descriptor = read._open(read.paths[0]).descriptor
    os.fstat(descriptor)
    del read
    gc.collect()
    assert descriptor in closed


def test_a_shard_that_is_gone_is_one_error_alone(tmp_path, monkeypatch):
    """Nothing is said about a file that was never opened when its object goes."""
    unheard = []
    monkeypatch.setattr(sys, "unraisablehook", unheard.append)
    written(tmp_path, 1, 1)
    read = RecordSet(str(tmp_path / "train-*"))
    read.paths[0].unlink()
    with pytest.raises(FileNotFoundError, match="train-00000-of-00001.tfrecord"):
        read.read(0)
    gc.collect()
    assert not unheard


def test_a_missing_shard_and_mixed_writings_are_found(tmp_path):
    written(tmp_path)
    written(tmp_path, num_shards=2, split="dev")
    written(tmp_path, num_shards=3, split="dev")
    records.shard_path(tmp_path, "train", 1, 3).unlink()
    with pytest.raises(ValueError, match="train-00001-of-00003.tfrecord is missing"):
        RecordSet(str(tmp_path / "train-*"))
    with pytest.raises(ValueError, match=r"dev-\* holds shards of \[2, 3\] each"):
        RecordSet(str(tmp_path / "dev-*"))


def test_a_pattern_without_match_is_an_error_with_its_cure(tmp_path):
    written(tmp_path)
    with pytest.raises(FileNotFoundError, match="No record file matches .*create_task_data"):
        RecordSet(str(tmp_path / "test-*"))


def test_a_damaged_index_is_an_error_with_its_cure(tmp_path):
    written(tmp_path, 1, 1)
    place = records.index_path(records.shard_path(tmp_path, "train", 0, 1))
    place.write_bytes(place.read_bytes()[:50])
    with pytest.raises(ValueError, match="train-00000-of-00001.index is damaged .* Delete it"):
        RecordSet(str(tmp_path / "train-*"))


def write_google(path: pathlib.Path):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for ids in ([5, 6, 7], [5, 6, 7, 8, 9]):
            writer.write(google_example(ids).SerializeToString())


def test_records_of_google_bert_get_an_index(tmp_path):
    path = tmp_path / "examples.tfrecord"
    write_google(path)
    for _ in range(2):  # Scanned, then from the index.
        read = RecordSet(str(path))
        assert read.ids.tolist() == [b"examples:0", b"examples:1"]
        assert read.lengths.tolist() == [3, 5]
        assert records.decode_example(read.read(1), "here")["input_ids"][:5] == [5, 6, 7, 8, 9]
    assert records.index_path(path).is_file()


def test_a_truncated_file_without_index_is_named(tmp_path):
    path = tmp_path / "examples.tfrecord"
    write_google(path)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ValueError, match="examples.tfrecord is truncated: record 1 at byte"):
        RecordSet(str(path))


def test_a_file_that_is_no_tfrecord_is_named(tmp_path):
    path = tmp_path / "examples.tfrecord"
    path.write_bytes(b"sentence\tlabel\n" * 4)
    with pytest.raises(ValueError, match="no record starts at byte 0 .*without compression"):
        RecordSet(str(path))


def test_a_replaced_file_beside_an_old_index_is_an_error_with_its_cure(tmp_path):
    path = tmp_path / "examples.tfrecord"
    write_google(path)
    RecordSet(str(path))
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(ValueError, match="If the file was replaced, delete .*examples.index"):
        RecordSet(str(path))


def test_a_file_replaced_by_one_of_the_same_framing_gets_a_new_index(tmp_path):
    """Swapped labels keep every size; the old time stamp says nothing either."""
    for label, name in ((0, "old"), (1, "new")):
        one = features(1) | {"label_ids": [label]}
        (tmp_path / name).mkdir()
        records.write_records(tmp_path / name, "train", [one], 1, 1)
    path, new = (records.shard_path(tmp_path / name, "train", 0, 1) for name in ("old", "new"))
    before = RecordSet(path).fingerprint
    stamp = path.stat().st_mtime_ns
    shutil.copy(new, path)
    os.utime(path, ns=(stamp, stamp))
    after = RecordSet(path).fingerprint
    assert after == RecordSet(new).fingerprint != before
    assert records.read_index(records.index_path(path)).sha256 == files.file_fingerprint(path)


def test_a_copied_set_keeps_its_indices(tmp_path, monkeypatch):
    """Copying sets new times; the content is compared once."""
    written(tmp_path)
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in sorted(tmp_path.glob("train-*"), key=lambda one: one.suffix):  # Indices first.
        shutil.copy(path, copy)
    monkeypatch.setattr(records, "scan", None)
    expected = RecordSet(str(tmp_path / "train-*")).fingerprint
    assert RecordSet(str(copy / "train-*")).fingerprint == expected
    monkeypatch.setattr(files, "file_fingerprint", None)
    assert RecordSet(str(copy / "train-*")).fingerprint == expected


def test_negative_and_large_numbers_round_trip():
    made = {"id": b"x", "input_ids": [-1, 0, 127, 128, 2**31, -(2**40)]}
    assert (
        records.decode_example(records.encode_example(made), "x")["input_ids"]
        == (made["input_ids"])
    )


def test_an_index_covers_its_shard(tmp_path, monkeypatch):
    monkeypatch.setattr(records._Columns, "_BLOCK", 2)
    names = [b"a", b"bcd", b"e", b"fg", b"h"]
    with records.ShardWriter(tmp_path / "one.tfrecord") as writer:
        for size, name in enumerate(names, start=1):
            writer.append(b"x" * size, 10 * size, name)
    index = records.read_index(tmp_path / "one.index")
    assert index.ids.tolist() == names and index.lengths.tolist() == [10, 20, 30, 40, 50]
    assert index.sizes.tolist() == [size + 16 for size in range(1, 6)]
    assert index.offsets.tolist() == [0, 17, 35, 54, 74]
    assert index.shard_bytes == (tmp_path / "one.tfrecord").stat().st_size
