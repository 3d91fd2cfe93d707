import numpy as np
import pytest
import tensorflow as tf

from tests import tiny
from xdistil_tf.data import records
from xdistil_tf.data.pipeline import Batches, check_lengths, data_error
from xdistil_tf.data.record_set import RecordSet
from xdistil_tf.data.sidecars import SidecarReader, SidecarWriter

COUNT = 37


def features(number, length, tagging=False):
    weights = [0.0] + [1.0] * (length - 2) + [0.0]
    made = {
        "id": f"train:{number}".encode(),
        "input_ids": [number + 1] * length,
        "input_mask": [1] * length,
        "segment_ids": [number % 2] * length,
        "label_ids": [number % 3] * (length if tagging else 1),
        "label_weights": weights if tagging else [float(number % 2)],
        "language": b"en",
    }
    if tagging:
        made["word_index"] = [-1, *range(length - 2), -1]
    return made


def make_set(folder, tagging=False, seed=0):
    lengths = np.random.default_rng(seed).integers(2, 20, COUNT)
    made = (features(n, int(length), tagging) for n, length in enumerate(lengths))
    records.write_records(folder, "train", made, COUNT, 3)
    return RecordSet(str(folder / "train-*"))


@pytest.fixture(scope="module")
def train(tmp_path_factory):
    return make_set(tmp_path_factory.mktemp("records"))


def numpy(dataset):
    return list(dataset.as_numpy_iterator())


def assert_equal(one, other):
    assert len(one) == len(other)
    for left, right in zip(one, other, strict=True):
        assert left.keys() == right.keys()
        for name in left:
            np.testing.assert_array_equal(left[name], right[name])


def joined(slices):
    return {name: np.concatenate([one[name] for one in slices]) for name in slices[0]}


def test_a_batch_holds_its_records_padded_to_the_longest(train):
    batches = Batches(train, 8, seed=1, window=16, block=4)
    for step, batch in enumerate(numpy(batches.dataset(0, 5))):
        rows = batches.plan.batch(step)
        longest = train.lengths[rows].max()
        assert batch["input_ids"].shape == (len(rows), longest)
        np.testing.assert_array_equal(batch["id"], train.ids[rows].astype(object))
        np.testing.assert_array_equal(batch["input_mask"].sum(1), train.lengths[rows])
        expected = (rows[:, None] + 1) * batch["input_mask"]
        np.testing.assert_array_equal(batch["input_ids"], expected)
        np.testing.assert_array_equal(batch["label_ids"], rows % 3)
        np.testing.assert_array_equal(batch["label_weights"], rows % 2)
        np.testing.assert_array_equal(batch["example_weights"], np.ones(len(rows)))
        assert set(batch["language"]) == {b"en"}


def test_types_and_ranks_are_those_of_the_interface(train):
    spec = Batches(train, 8).dataset(0, 1).element_spec
    found = {name: (one.dtype.name, one.shape.rank) for name, one in spec.items()}
    assert found == {
        "id": ("string", 1),
        "input_ids": ("int32", 2),
        "input_mask": ("int32", 2),
        "segment_ids": ("int32", 2),
        "label_ids": ("int32", 1),
        "label_weights": ("float32", 1),
        "language": ("string", 1),
        "example_weights": ("float32", 1),
    }


def test_tagging_features_are_per_token(tmp_path):
    batches = Batches(make_set(tmp_path, tagging=True), 8)
    (batch,) = numpy(batches.dataset(0, 1))
    shape = batch["input_ids"].shape
    for name in ("label_ids", "label_weights", "word_index"):
        assert batch[name].shape == shape
    assert (batch["word_index"][batch["input_mask"] == 0] == -1).all()
    assert (batch["label_weights"][batch["input_mask"] == 0] == 0).all()


@pytest.mark.parametrize("start", [1, 4, 5, 12])
def test_a_run_resumed_at_a_step_equals_the_tail(train, start):
    options = {"seed": (3, 1), "num_replicas": 2, "window": 16, "block": 4}
    whole = numpy(Batches(train, 8, **options).dataset(0, 14))
    tail = numpy(Batches(train, 8, **options).dataset(start, 14))
    assert_equal(whole[2 * start :], tail)


@pytest.mark.parametrize(("replicas", "accumulation"), [(2, 1), (1, 3), (2, 2), (16, 1)])
def test_slices_together_are_the_global_batch(train, replicas, accumulation):
    whole = numpy(Batches(train, 8, seed=1).dataset(0, 5))
    sliced = Batches(train, 8, seed=1, num_replicas=replicas, accumulation=accumulation)
    elements = numpy(sliced.dataset(0, 5))
    count = replicas * accumulation
    assert len(elements) == 5 * count
    for step, batch in enumerate(whole):
        slices = elements[step * count : (step + 1) * count]
        rows = -(-len(batch["id"]) // count)
        assert {len(one["id"]) for one in slices} == {rows}
        together = joined(slices)
        real = together["example_weights"] > 0
        assert_equal([{name: value[real] for name, value in together.items()}], [batch])
        fillers = together["id"][~real]
        assert set(fillers) <= {batch["id"][0]}


def test_an_epoch_gives_every_record_once(train):
    batches = Batches(train, 8, seed=1, num_replicas=2)
    for epoch in range(2):
        first = epoch * batches.steps_per_epoch
        elements = joined(
            [
                {"id": one["id"], "weights": one["example_weights"]}
                for one in numpy(batches.dataset(first, first + batches.steps_per_epoch))
            ]
        )
        seen = elements["id"][elements["weights"] > 0]
        assert sorted(seen) == sorted(train.ids.tolist())


def test_a_record_longer_than_a_model_takes_is_an_error_with_its_cure(train):
    longest = int(train.lengths.max())
    check_lengths(train, None, "the student")
    check_lengths(train, longest, "the student")
    message = f"a record of {longest} tokens, the student takes 10. .*--max_seq_length=10"
    with pytest.raises(ValueError, match=message):
        check_lengths(train, 10, "the student")


def test_impossible_numbers_are_refused(train):
    with pytest.raises(ValueError, match="num_replicas of at least 1. Received: num_replicas=0"):
        Batches(train, 8, num_replicas=0)


def test_damage_during_a_run_is_reported_with_file_and_record(tmp_path):
    opened = make_set(tmp_path)
    path = records.shard_path(tmp_path, "train", 1, 3)
    index = records.read_index(records.index_path(path))
    content = bytearray(path.read_bytes())
    content[int(index.offsets[4]) + 30] ^= 1
    path.write_bytes(content)
    dataset = Batches(opened, 8).dataset(0, 5)
    with pytest.raises(tf.errors.OpError) as error:
        numpy(dataset)
    plain = data_error(error.value)
    assert isinstance(plain, ValueError)
    assert str(plain).endswith("Delete the records folder and create it again.")
    assert f"{path} is damaged: record 4 at byte {index.offsets[4]}" in str(plain)
    assert data_error(tf.errors.OutOfRangeError(None, None, "end")) is None


def google_example(ids, width=8):
    def ints(values):
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))

    padding = [0] * (width - len(ids))
    parts = {
        "input_ids": ints([*ids, *padding]),
        "input_mask": ints([1] * len(ids) + padding),
        "segment_ids": ints([0] * width),
        "masked_lm_positions": ints([1, 0]),
        "masked_lm_ids": ints([ids[1], 0]),
        "masked_lm_weights": tf.train.Feature(float_list=tf.train.FloatList(value=[1.0, 0.0])),
        "next_sentence_labels": ints([1]),
    }
    return tf.train.Example(features=tf.train.Features(feature=parts)).SerializeToString()


def test_google_bert_records_are_trimmed_to_their_real_length(tmp_path):
    path = str(tmp_path / "examples.tfrecord")
    with tf.io.TFRecordWriter(path) as writer:
        for ids in ([5, 6, 7], [5, 6, 7, 8, 9]):
            writer.write(google_example(ids))
    (batch,) = numpy(Batches(RecordSet(path), 2, shuffle=False).dataset(0, 1))
    np.testing.assert_array_equal(batch["input_ids"], [[5, 6, 7, 0, 0], [5, 6, 7, 8, 9]])
    np.testing.assert_array_equal(batch["masked_lm_ids"], [[6, 0], [6, 0]])
    np.testing.assert_array_equal(batch["masked_lm_weights"], [[1, 0], [1, 0]])
    np.testing.assert_array_equal(batch["next_sentence_labels"], [1, 1])
    np.testing.assert_array_equal(batch["id"], [b"examples:0", b"examples:1"])
    assert batch["segment_ids"].shape == (2, 5)
    assert "label_weights" not in batch
    assert set(batch["language"]) == {b"default"}


def google_classifier_example(ids, label, real, width=8):
    """As google-research/bert's run_classifier.py writes it, filler rows of evaluation included."""
    padding = [0] * (width - len(ids))
    parts = {
        "input_ids": [*ids, *padding],
        "input_mask": [1] * len(ids) + padding,
        "segment_ids": [0] * width,
        "label_ids": [label],
        "is_real_example": [int(real)],
    }
    lists = {name: tf.train.Int64List(value=value) for name, value in parts.items()}
    feature = {name: tf.train.Feature(int64_list=one) for name, one in lists.items()}
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()


def test_rows_that_are_marked_as_no_real_example_do_not_count(tmp_path):
    path = str(tmp_path / "eval.tfrecord")
    with tf.io.TFRecordWriter(path) as writer:
        for ids, real in (([5, 6, 7], True), ([], False), ([5, 6], True), ([5], False)):
            writer.write(google_classifier_example(ids, 1, real))
    (batch,) = numpy(Batches(RecordSet(path), 4, shuffle=False).dataset(0, 1))
    weights = dict(zip(batch["id"], batch["example_weights"], strict=True))
    assert weights == {b"eval:0": 1, b"eval:1": 0, b"eval:2": 1, b"eval:3": 0}
    sliced = Batches(RecordSet(path), 3, shuffle=False, num_replicas=2)
    elements = numpy(sliced.dataset(0, sliced.steps_per_epoch))
    assert sum(one["example_weights"].sum() for one in elements) == 2


def write_sidecar(path, train, order):
    with SidecarWriter(path, "token", (2,)) as writer:
        for row in order:
            length = int(train.lengths[row])
            values = np.full((1, length, 2), row, np.float32)
            writer.write([train.ids[row]], values, [length])


@pytest.mark.parametrize("reverse", [False, True])
def test_side_cars_are_joined_by_id(train, tmp_path, reverse):
    order = range(COUNT)[::-1] if reverse else range(COUNT)
    write_sidecar(tmp_path / "all", train, order)
    sidecars = {"teacher/representation": SidecarReader([tmp_path / "all"])}
    batches = Batches(train, 8, seed=1, num_replicas=2, sidecars=sidecars)
    assert batches.dataset(0, 1).element_spec["teacher/representation"].shape == (None, None, 2)
    for batch in numpy(batches.dataset(0, 5)):
        rows = batch["input_ids"][:, :1] - 1
        expected = np.repeat((rows * batch["input_mask"])[..., np.newaxis], 2, -1)
        np.testing.assert_array_equal(batch["teacher/representation"], expected)


def test_a_side_car_without_all_records_is_refused_beforehand(train, tmp_path):
    write_sidecar(tmp_path / "all", train, range(COUNT - 2))
    sidecars = {"teacher/logits": SidecarReader([tmp_path / "all"])}
    with pytest.raises(ValueError, match="'teacher/logits' .*lacks 2 of 37 records, the first is"):
        Batches(train, 8, sidecars=sidecars)


def test_two_replicas_take_their_slices(train):
    strategy = tiny.two_replicas()
    batches = Batches(train, 8, seed=1, num_replicas=2)
    elements = numpy(batches.dataset(0, 3))
    dealt = strategy.distribute_datasets_from_function(lambda _: batches.dataset(0, 3))
    for step, batch in enumerate(dealt):
        for replica, ids in enumerate(strategy.experimental_local_results(batch["id"])):
            np.testing.assert_array_equal(ids.numpy(), elements[2 * step + replica]["id"])
