import numpy as np
import tensorflow as tf

from xdistil_tf.data import records
from xdistil_tf.data.pretraining.encoding import encode_rows
from xdistil_tf.data.pretraining.masking import Batch

LENGTHS = [8, 5]
IDS = [[2, 7, 30000, 4, 3, 300, 16384, 3], [2, 7, 3, 70000, 3, 0, 0, 0]]
SEGMENTS = [[0, 0, 0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 0, 0, 0]]
STARTS = [[-1, 1, 0, 1, -1, 1, 0, -1], [-1, 1, -1, 1, -1, -1, -1, -1]]


def batch(**changes):
    fields = {
        "input_ids": np.array(IDS),
        "lengths": np.array(LENGTHS),
        "segment_ids": np.array(SEGMENTS, np.uint8),
        "word_starts": np.array(STARTS, np.int8),
        "is_random_next": np.array([1, 0], np.uint8),
    }
    return Batch(**fields | changes)


def masked(**changes):
    return batch(
        positions=np.array([[3, 200, 0], [3, 0, 0]]),
        masked_ids=np.array([[9, 30521, 0], [128, 0, 0]]),
        counts=np.array([2, 1]),
        **changes,
    )


def static_features(row):
    features = {
        "id": f"train-00000-of-00001:{row}".encode(),
        "input_ids": IDS[row],
        "input_mask": [1] * LENGTHS[row] + [0] * (8 - LENGTHS[row]),
        "segment_ids": SEGMENTS[row],
        "masked_lm_positions": [[3, 200, 0], [3, 0, 0]][row],
        "masked_lm_ids": [[9, 30521, 0], [128, 0, 0]][row],
        "masked_lm_weights": [[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]][row],
        "next_sentence_labels": [1 - row],
    }
    return features


NAMES = [static_features(row)["id"] for row in (0, 1)]


def test_rows_are_encoded_as_records_encodes_them_one_by_one():
    rows = encode_rows(masked(), NAMES)
    assert rows == [records.encode_example(static_features(row)) for row in (0, 1)]


def test_without_pairs_there_is_no_label_of_the_next_sentence():
    rows = encode_rows(masked(is_random_next=None), NAMES)
    for row in (0, 1):
        features = static_features(row)
        del features["next_sentence_labels"]
        assert rows[row] == records.encode_example(features)


def test_with_dynamic_masking_sequences_have_their_true_length_and_word_starts():
    rows = encode_rows(batch(), NAMES)
    for row, length in enumerate(LENGTHS):
        expected = {
            "id": NAMES[row],
            "input_ids": IDS[row][:length],
            "input_mask": [1] * length,
            "segment_ids": SEGMENTS[row][:length],
            "word_starts": STARTS[row][:length],
            "next_sentence_labels": [1 - row],
        }
        assert rows[row] == records.encode_example(expected)


def test_a_shard_of_encoded_rows_equals_one_of_features(tmp_path):
    with records.ShardWriter(tmp_path / "a.tfrecord") as plain:
        for row in (0, 1):
            plain.write(static_features(row))
    with records.ShardWriter(tmp_path / "b.tfrecord") as encoded:
        for row, content in enumerate(encode_rows(masked(), NAMES)):
            encoded.append(content, LENGTHS[row], NAMES[row])
    assert (tmp_path / "a.tfrecord").read_bytes() == (tmp_path / "b.tfrecord").read_bytes()
    assert plain.index.sha256 == encoded.index.sha256
    for name in ("offsets", "sizes", "lengths", "ids"):
        assert (getattr(plain.index, name) == getattr(encoded.index, name)).all()


def test_the_features_of_google_research_bert_are_read_from_them():
    spec = {
        "input_ids": tf.io.FixedLenFeature([8], tf.int64),
        "input_mask": tf.io.FixedLenFeature([8], tf.int64),
        "segment_ids": tf.io.FixedLenFeature([8], tf.int64),
        "masked_lm_positions": tf.io.FixedLenFeature([3], tf.int64),
        "masked_lm_ids": tf.io.FixedLenFeature([3], tf.int64),
        "masked_lm_weights": tf.io.FixedLenFeature([3], tf.float32),
        "next_sentence_labels": tf.io.FixedLenFeature([1], tf.int64),
    }
    for row, content in enumerate(encode_rows(masked(), NAMES)):
        parsed = tf.io.parse_single_example(content, spec)
        for name in spec:
            assert parsed[name].numpy().tolist() == static_features(row)[name], name
