import ml_dtypes
import numpy as np
import pytest

from xdistil_tf.data.sidecars import RowShape, SidecarReader, SidecarWriter

IDS = [b"train:1", b"train:2", b"train:3"]
LENGTHS = np.array([2, 4, 3])
SHAPES = {"example": (5,), "token": (3,), "pair": (2,)}


def padded(kind, seed=0):
    """[B, ...] rows; what lies beyond the real tokens is garbage."""
    row = RowShape(kind, SHAPES[kind])
    return np.random.default_rng(seed).normal(size=(3, *row.of(4))).astype(np.float32)


def masked(kind, values, lengths, pad_to):
    row = RowShape(kind, SHAPES[kind])
    out = np.zeros((len(values), *row.of(pad_to)), np.float32)
    for number, length in enumerate(lengths):
        part = tuple(slice(size) for size in row.of(length))
        out[(number, *part)] = values[(number, *part)]
    return out


def write(path, kind, values, ids=IDS, lengths=LENGTHS, precision="float16"):
    with SidecarWriter(path, kind, SHAPES[kind], precision) as writer:
        writer.write(ids, values, lengths)
    return writer


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_rows_round_trip_in_any_order(tmp_path, kind, precision):
    values = padded(kind)
    writer = write(tmp_path / "a.x", kind, values, precision=precision)
    reader = SidecarReader([tmp_path / "a.x"])
    stored = values.astype(np.float16 if precision == "float16" else ml_dtypes.bfloat16)
    expected = masked(kind, stored.astype(np.float32), LENGTHS, 6)
    np.testing.assert_array_equal(reader.read(IDS, LENGTHS, 6), expected)
    np.testing.assert_array_equal(reader.read(IDS, LENGTHS, 6, guess=np.arange(3)), expected)
    order = [2, 0, 2]
    found = reader.read(np.array(IDS)[order], LENGTHS[order], 6, guess=np.arange(3))
    np.testing.assert_array_equal(found, expected[order])
    size = RowShape(kind, SHAPES[kind]).elements(LENGTHS).sum() * 2
    assert (tmp_path / "a.x.bin").stat().st_size == writer.bytes == size


def test_several_shards_are_one(tmp_path):
    values = padded("token")
    write(tmp_path / "a", "token", values[:2], IDS[:2], LENGTHS[:2])
    write(tmp_path / "b", "token", values[2:], IDS[2:], LENGTHS[2:])
    reader = SidecarReader([tmp_path / "a", tmp_path / "b.bin"])
    expected = masked("token", values.astype(np.float16).astype(np.float32), LENGTHS, 4)
    np.testing.assert_array_equal(reader.read(IDS, LENGTHS, 4), expected)


def test_a_missing_id_is_named_with_its_file(tmp_path):
    write(tmp_path / "a", "token", padded("token"))
    reader = SidecarReader([tmp_path / "a"])
    assert reader.missing(np.array([b"train:1", b"zz"])).tolist() == [b"zz"]
    with pytest.raises(ValueError, match="No row for id train:10 in .*a.bin"):
        reader.read([b"train:10"], [2], 4)


def test_a_row_of_another_length_is_refused(tmp_path):
    write(tmp_path / "a", "token", padded("token"))
    with pytest.raises(ValueError, match="6 values for id train:1. Expected 9 for 3 tokens"):
        SidecarReader([tmp_path / "a"]).read([b"train:1"], [3], 4)


def test_a_truncated_side_car_is_found_when_it_is_opened(tmp_path):
    write(tmp_path / "a", "token", padded("token"))
    path = tmp_path / "a.bin"
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(ValueError, match="a.bin is damaged: expected 54 bytes, found 52"):
        SidecarReader([tmp_path / "a"])


def test_a_missing_side_car_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="No side-car .*a.bin. Make the teacher cache"):
        SidecarReader([tmp_path / "a"])


def test_an_interrupted_writing_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError):
        with SidecarWriter(tmp_path / "a", "token", (3,)) as writer:
            writer.write(IDS, padded("token"), LENGTHS)
            raise RuntimeError("interrupted")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("error")
def test_a_value_beyond_the_precision_is_refused(tmp_path):
    values = padded("example")
    values[1, 0] = 1e6
    with pytest.raises(ValueError, match="row of id b'train:2' .* --cache_precision=bfloat16"):
        write(tmp_path / "a", "example", values)
    write(tmp_path / "a", "example", values, precision="bfloat16")


def test_wrong_shapes_and_names_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"Expected a row of \(4, 3\) for id b'train:2'"):
        write(tmp_path / "a", "token", padded("token")[:, :3])
    with pytest.raises(ValueError, match="as many rows as ids"):
        write(tmp_path / "a", "token", padded("token"), IDS[:2])
    with pytest.raises(ValueError, match="Expected one of .*'pair'.*Received: batch"):
        SidecarWriter(tmp_path / "a", "batch", (3,))
    with pytest.raises(ValueError, match="Unknown precision. .*Received: 'float8'"):
        SidecarWriter(tmp_path / "a", "token", (3,), "float8")
