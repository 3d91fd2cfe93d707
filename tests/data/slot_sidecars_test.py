"""Words at masked slots on disk: bytes, precision, order, damage; and their way into a batch."""

import ml_dtypes
import numpy as np
import pytest

from xdistil_tf.data import records as record_files
from xdistil_tf.data.pipeline import Batches
from xdistil_tf.data.record_set import RecordSet
from xdistil_tf.data.slot_rows import SlotRow
from xdistil_tf.data.slot_sidecars import SlotSidecarReader, SlotSidecarWriter, read_slot_index

IDS = [b"train:1", b"train:2", b"train:3"]
COUNTS = (2, 3, 0)
LENGTHS = np.array([9, 9, 9])
# The largest error of a probability.
ERRORS = {"float16": 1e-3, "bfloat16": 6e-3, "uint8": 0.03}


def words(slots, row, seed=0):
    """What a teacher says at so many slots."""
    random = np.random.default_rng(seed)
    scores = random.normal(size=(slots, row.k + 5)) * 3
    log_p = scores - np.log(np.exp(scores).sum(-1, keepdims=True))
    log_p = -np.sort(-log_p, axis=-1)
    ids = np.array([random.permutation(row.vocab_size)[: row.k] for _ in range(slots)], np.int32)
    given = {
        "ids": ids.reshape(slots, row.k),
        "log_probs": log_p[:, : row.k].astype(np.float32),
        "log_tail": np.log(np.exp(log_p[:, row.k :]).sum(-1)).astype(np.float32),
    }
    sums = {
        f"logsumexp/{one:g}": np.log(np.exp(log_p / one).sum(-1)).astype(np.float32)
        for one in row.temperatures
    }
    return given | sums


def write(path, row, precision="float16", ids=IDS, counts=COUNTS):
    values = [words(count, row, seed) for seed, count in enumerate(counts)]
    with SlotSidecarWriter(path, row, precision) as writer:
        writer.write(ids, values, LENGTHS[: len(ids)])
    return writer, values


@pytest.mark.parametrize("precision", ERRORS)
def test_rows_round_trip_within_the_precision(tmp_path, precision):
    row = SlotRow(4, 50, (2.0, 3.5))
    writer, values = write(tmp_path / "a", row, precision)
    reader = SlotSidecarReader([tmp_path / "a"])
    assert reader.row == row and len(reader) == 3
    found = reader.read(IDS, LENGTHS, 9)
    errors = []
    for number, (given, count) in enumerate(zip(values, COUNTS, strict=True)):
        for name, value in given.items():
            assert found[name].shape[:2] == (3, 3)
            assert not found[name][number, count:].any(), name
            kept = found[name][number, :count]
            if name == "ids":
                np.testing.assert_array_equal(kept, value)
            elif name == "log_probs":
                errors += np.abs(np.exp(kept) - np.exp(value)).ravel().tolist()
            else:
                np.testing.assert_allclose(kept, value, rtol=1e-2, atol=1e-3)
    assert 0 < max(errors) < ERRORS[precision]
    assert writer.largest_error == pytest.approx(max(errors))
    index = read_slot_index(tmp_path / "a")
    assert (index.slots, index.largest_error) == (5, writer.largest_error)


@pytest.mark.parametrize("precision", ERRORS)
def test_what_is_kept_and_what_is_left_are_everything(precision):
    """The coarse steps of uint8 would else add up to some percent too much or too little."""
    row = SlotRow(6, 50)
    given = words(40, row)
    kept = row.decode(row.encode(given, precision), precision)
    total = np.exp(kept["log_probs"]).sum(-1) + np.exp(kept["log_tail"])
    np.testing.assert_allclose(total, 1, atol=0.012 if precision == "bfloat16" else 2e-3)


def test_a_slot_with_nearly_everything_left_keeps_its_small_probabilities():
    row = SlotRow(2, 50)
    given = {
        "ids": np.array([[1, 2]], np.int32),
        "log_probs": np.log(np.float32([[3e-5, 1e-5]])),
        "log_tail": np.log1p(np.float32([-4e-5])),
    }
    kept = row.decode(row.encode(given, "uint8"), "uint8")
    np.testing.assert_allclose(np.exp(kept["log_probs"]), [[3e-5, 1e-5]], rtol=0.05)


@pytest.mark.parametrize(
    ("vocab_size", "precision", "temperatures", "expected"),
    [
        (30_522, "float16", (), 42),
        (65_536, "float16", (), 42),
        (65_537, "float16", (), 62),
        (30_522, "bfloat16", (2.0,), 44),
        (30_522, "uint8", (), 32),
    ],
)
def test_the_bytes_of_a_slot_are_what_is_planned(
    tmp_path, vocab_size, precision, temperatures, expected
):
    row = SlotRow(10, vocab_size, temperatures)
    assert row.slot_bytes(precision) == expected
    writer, _ = write(tmp_path / "a", row, precision)
    planned = sum(row.bytes(count, precision) for count in COUNTS)
    assert (tmp_path / "a.bin").stat().st_size == writer.bytes == planned
    # Beside the slots only the step of uint8, once a record.
    assert planned == sum(COUNTS) * expected + 3 * (4 if precision == "uint8" else 0)


def test_ids_of_a_large_vocabulary_are_not_cut(tmp_path):
    row = SlotRow(1, 70_000)
    given = words(1, row) | {"ids": np.array([[69_999]], np.int32)}
    with SlotSidecarWriter(tmp_path / "a", row) as writer:
        writer.write(IDS[:1], [given], [9])
    assert SlotSidecarReader([tmp_path / "a"]).read(IDS[:1], LENGTHS[:1], 9)["ids"] == 69_999


def test_rows_are_found_by_id_in_several_shards(tmp_path):
    row = SlotRow(4, 50)
    _, values = write(tmp_path / "a", row, ids=IDS[:2], counts=COUNTS[:2])
    write(tmp_path / "b", row, ids=[b"other"], counts=(1,))
    reader = SlotSidecarReader([tmp_path / "b", tmp_path / "a.bin"])
    for guess in (None, np.array([0, 1])):
        found = reader.read(np.array([b"train:2", b"other"]), LENGTHS[:2], 9, guess)
        np.testing.assert_array_equal(found["ids"][0], values[1]["ids"])
    assert reader.missing(np.array([b"train:1", b"train:9"])).tolist() == [b"train:9"]
    with pytest.raises(ValueError, match="No row for id train:9 in .*b.bin and 1 more"):
        reader.read(np.array([b"train:9"]), LENGTHS[:1], 9)


def test_side_cars_that_differ_are_refused(tmp_path):
    write(tmp_path / "a", SlotRow(4, 50))
    write(tmp_path / "b", SlotRow(3, 50))
    with pytest.raises(ValueError, match="differ in words, temperatures or precision"):
        SlotSidecarReader([tmp_path / "a", tmp_path / "b"])


def test_damage_is_found(tmp_path):
    write(tmp_path / "a", SlotRow(4, 50))
    path = tmp_path / "a.bin"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(ValueError, match=f"expected {len(whole)} bytes, found {len(whole) - 1}"):
        SlotSidecarReader([path])
    path.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    with pytest.raises(ValueError, match="its content is not what was written"):
        SlotSidecarReader([path])
    (tmp_path / "a.index").write_bytes(b"no index")
    with pytest.raises(ValueError, match="a.index is damaged"):
        SlotSidecarReader([path])
    (tmp_path / "a.index").unlink()
    with pytest.raises(FileNotFoundError, match="No side-car .*a.index"):
        SlotSidecarReader([path])


@pytest.mark.parametrize("field", ["log_probs", "log_tail"])
def test_what_is_no_number_is_refused_and_nothing_is_written(tmp_path, field):
    row = SlotRow(4, 50)
    given = words(2, row)
    given[field] = given[field] + np.nan
    with pytest.raises(ValueError, match=f"id b'train:1' has {field} that are no log-prob"):
        with SlotSidecarWriter(tmp_path / "a", row) as writer:
            writer.write(IDS[:1], [given], [9])
    assert not list(tmp_path.iterdir())


def test_a_row_of_another_shape_or_precision_is_refused(tmp_path):
    with SlotSidecarWriter(tmp_path / "a", SlotRow(4, 50)) as writer:
        with pytest.raises(ValueError, match=r"Expected ids of shape \(2, 4\)"):
            writer.write(IDS[:1], [words(2, SlotRow(3, 50))], [9])
    with pytest.raises(ValueError, match="Unknown precision.*'uint8'.*Received: 'int4'"):
        SlotSidecarWriter(tmp_path / "b", SlotRow(4, 50), "int4")


def records_with_slots(folder, padded):
    """Three records of 2, 3 and 0 real slots, with BERT's padding to 5 or without."""
    made = []
    for name, count in zip(IDS, COUNTS, strict=True):
        unused = 5 - count if padded else 0
        made.append(
            {
                "id": name,
                "input_ids": [1] * 9,
                "masked_lm_positions": [1] * count + [0] * unused,
                "masked_lm_ids": [2] * count + [0] * unused,
                "masked_lm_weights": [1.0] * count + [0.0] * unused,
            }
        )
    record_files.write_records(folder, "train", made, 3, 1)
    return RecordSet(str(folder / "train-*"))


@pytest.mark.parametrize("padded", [True, False])
def test_words_join_a_batch_at_the_slots_of_the_records(tmp_path, padded):
    records = records_with_slots(tmp_path, padded)
    row = SlotRow(4, 50, (2.0,))
    _, values = write(tmp_path / "a", row)
    reader = SlotSidecarReader([tmp_path / "a"])
    for replicas in (1, 2):
        batches = Batches(
            records, 3, shuffle=False, num_replicas=replicas, sidecars={"teacher/words": reader}
        )
        slices = list(batches.dataset(0, 1))
        assert len(slices) == replicas
        for batch in slices:
            most = 5 if padded else 3
            assert batch["teacher/words/ids"].shape[1:] == (most, 4)
            assert batch["teacher/words/ids"].dtype.name == "int32"
            assert batch["teacher/words/logsumexp/2"].shape[1:] == (most,)
            for place, name in enumerate(batch["id"].numpy()):
                number = IDS.index(name)
                found = batch["teacher/words/ids"][place].numpy()
                np.testing.assert_array_equal(found[: COUNTS[number]], values[number]["ids"])
                assert not found[COUNTS[number] :].any()
        static = batches.dataset(0, 1).element_spec["teacher/words/log_probs"].shape
        assert static.as_list() == [None, None, 4]


def test_bfloat16_is_what_it_says(tmp_path):
    row = SlotRow(4, 50)
    _, values = write(tmp_path / "a", row, "bfloat16")
    kept = SlotSidecarReader([tmp_path / "a"]).rows(IDS[:1])[0]["log_probs"]
    expected = values[0]["log_probs"].astype(ml_dtypes.bfloat16).astype(np.float32)
    np.testing.assert_array_equal(kept, expected)
