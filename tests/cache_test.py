"""The teacher cache: what it holds, what it costs, how it resumes, what it refuses."""

import shutil

import numpy as np
import pytest
import tensorflow as tf

from tests.small_task import encoder_folder, make_cache
from xdistil_tf import (
    cache,
    cache_checks,
    cache_rows,
    files,
    outputs,
    teacher_pass,
    teaching,
    versions,
)
from xdistil_tf.data import records as record_files
from xdistil_tf.data.pipeline import Batches
from xdistil_tf.data.record_set import RecordSet
from xdistil_tf.data.sidecars import RowShape, SidecarReader, SidecarWriter

pytest_plugins = ["tests.small_task"]

EVERYTHING = {"logits": None, "representation": None, "hidden": (0, 2), "attention": (1,)}


@pytest.fixture(scope="module")
def teacher(small):
    return teaching.load_teacher(small.teacher, -1, False)


@pytest.fixture(scope="module")
def everything(small, tmp_path_factory):
    return make_cache(small, tmp_path_factory.mktemp("everything") / "cache", **EVERYTHING)


def spec_of(small, teacher, request, precision="float16"):
    fingerprint = small.tokenizer.fingerprint
    return teaching.cache_spec(small.teacher, teacher, request, precision, fingerprint)


def sets_of(small):
    return [small.records(name) for name in small.data()]


def test_cached_equals_live_within_the_precision_kept(small, teacher, everything):
    """Joined by id into shuffled batches, real tokens only, zeros elsewhere."""
    records = small.records("transfer")
    batches = Batches(records, 16, seed=3, sidecars=everything.readers(EVERYTHING, records))
    for batch in batches.dataset(0, 3):
        kept = everything.teacher()(batch, EVERYTHING)
        live = teacher(batch, EVERYTHING)
        mask = tf.cast(batch["input_mask"], tf.float32)
        masks = {
            "hidden": mask[:, :, None],
            "attention": mask[:, None, :, None] * mask[:, None, None, :],
        }
        for key in EVERYTHING:
            for left, right in zip(
                tf.nest.flatten(kept[key]), tf.nest.flatten(live[key]), strict=True
            ):
                right = right * masks.get(key, 1.0)
                np.testing.assert_allclose(left, right, rtol=2e-3, atol=2e-3, err_msg=key)


def test_planned_bytes_equal_real_bytes(small, teacher, everything):
    info = everything.info
    assert info["planned_bytes"] == info["bytes"]
    assert info["bytes"] == sum(one.stat().st_size for one in everything.folder.glob("*.bin"))
    shapes = cache_rows.row_shapes(teacher, EVERYTHING, "classification")
    assert shapes["teacher/logits"] == RowShape("example", (2,))
    assert shapes["teacher/hidden/2"] == RowShape("token", (32,))
    assert shapes["teacher/attention/1"] == RowShape("pair", (4,))
    lengths = np.concatenate([one.lengths for one in sets_of(small)]).astype(np.int64)
    numbers = len(lengths) * (2 + 32) + lengths.sum() * 2 * 32 + (lengths**2).sum() * 4
    assert info["bytes"] == 2 * numbers


def test_a_finished_cache_is_opened_as_it_is(small, teacher, everything, monkeypatch):
    monkeypatch.setattr(cache, "_write_shard", None)
    again = cache.write_cache(
        teacher, spec_of(small, teacher, EVERYTHING), sets_of(small), everything.folder
    )
    assert again.info == everything.info


def test_an_interrupted_pass_goes_on_by_shard(small, teacher, small_cache, tmp_path, monkeypatch):
    request = {"logits": None, "representation": None}
    spec = spec_of(small, teacher, request)
    original, written = cache._write_shard, []

    def write_shard(step, records, *arguments):
        if len(written) == 2:
            raise KeyboardInterrupt
        original(step, records, *arguments)
        written.append(records.paths[0].name)

    monkeypatch.setattr(cache, "_write_shard", write_shard)
    with pytest.raises(KeyboardInterrupt):
        cache.write_cache(teacher, spec, sets_of(small), tmp_path)
    with pytest.raises(ValueError, match="is not finished. Run cache_teacher again"):
        cache.TeacherCache(tmp_path)
    done = list(written)
    written.clear()
    monkeypatch.setattr(
        cache,
        "_write_shard",
        lambda step, records, *rest: (
            written.append(records.paths[0].name),
            original(step, records, *rest),
        ),
    )
    whole = cache.write_cache(teacher, spec, sets_of(small), tmp_path)
    assert not set(done) & set(written) and len(written) == 4
    for path in small_cache.folder.glob("*.bin"):
        assert (whole.folder / path.name).read_bytes() == path.read_bytes(), path.name


def test_another_teacher_is_refused(small, small_cache, tmp_path):
    head = {"kind": "classification", "num_labels": 2}
    other = encoder_folder(tmp_path / "other", small.tokenizer, head, initializer_range=0.1)
    live = teaching.load_teacher(other, -1, False)
    spec = teaching.cache_spec(
        other,
        live,
        {"logits": None, "representation": None},
        "float16",
        small.tokenizer.fingerprint,
    )
    with pytest.raises(ValueError, match="was made from something else: labels.*teacher was"):
        cache.write_cache(live, spec, sets_of(small), small_cache.folder)


def test_other_outputs_and_precisions_are_refused(small, teacher, small_cache):
    both = {"logits": None, "representation": None}
    for spec, field in (
        (spec_of(small, teacher, {"logits": None}), "request.representation|layer was"),
        (spec_of(small, teacher, both, "bfloat16"), "precision was float16 and is now bfloat16"),
    ):
        with pytest.raises(ValueError, match=field):
            cache.write_cache(teacher, spec, sets_of(small), small_cache.folder)


def test_other_records_are_refused(small, teacher, small_cache, tmp_path):
    """The same names and ids, another content."""
    copy = tmp_path / "records"
    copy.mkdir()
    for name in ("00000", "00001"):
        for source, target in (("train", "transfer"),):
            for suffix in ("tfrecord", "index"):
                stem = f"-{name}-of-00002.{suffix}"
                path = small.info.folder / f"{source}{stem}"
                shutil.copy(path, copy / f"{target}{stem}")
    records = RecordSet(str(copy / "transfer-*"))
    assert not small_cache.covers(records)
    assert small_cache.covers(small.records("transfer"))
    spec = spec_of(small, teacher, {"logits": None, "representation": None})
    with pytest.raises(ValueError, match="records transfer-00000-of-00002 differ"):
        cache.write_cache(teacher, spec, [records], small_cache.folder)


def test_new_records_are_added(small, teacher, tmp_path):
    request = {"logits": None}
    spec = spec_of(small, teacher, request)
    first = cache.write_cache(teacher, spec, [small.records("heldout")], tmp_path)
    assert not first.covers(small.records("dev"))
    both = cache.write_cache(
        teacher, spec, [small.records("heldout"), small.records("dev")], tmp_path
    )
    assert both.covers(small.records("heldout")) and both.covers(small.records("dev"))


def test_verify_finds_a_wrong_value(small, teacher, small_cache, tmp_path):
    folder = tmp_path / "cache"
    shutil.copytree(small_cache.folder, folder)
    records = small.records("transfer")
    assert cache_checks.verify(cache.TeacherCache(folder), teacher, records, 1000) < 5e-3
    shard = RecordSet(records.paths[0])
    stem = cache.sidecar_stem(folder, shard.paths[0], "teacher/logits")
    values = SidecarReader([stem]).read(shard.ids, shard.lengths, 1)
    values[2, 1] += 1
    with SidecarWriter(stem, "example", (2,)) as writer:
        writer.write(shard.ids, values, shard.lengths)
    assert cache_checks.verify(cache.TeacherCache(folder), teacher, records, 1000) > 0.9


def test_a_flipped_bit_is_found_and_the_named_cure_repairs_it(
    small, teacher, small_cache, tmp_path
):
    folder = tmp_path / "cache"
    shutil.copytree(small_cache.folder, folder)
    path = folder / "transfer-00000-of-00002.logits.bin"
    whole = path.read_bytes()
    path.write_bytes(bytes([whole[0], whole[1] ^ 0x40]) + whole[2:])
    records = small.records("transfer")
    with pytest.raises(ValueError, match="logits.bin is damaged: .* Delete it with its .index"):
        cache.TeacherCache(folder).readers({"logits": None}, records)
    path.unlink()
    path.with_suffix(".index").unlink()
    spec = spec_of(small, teacher, {"logits": None, "representation": None})
    cache.write_cache(teacher, spec, sets_of(small), folder)
    assert path.read_bytes() == whole


def test_a_truncated_side_car_is_refused(small, small_cache, tmp_path):
    folder = tmp_path / "cache"
    shutil.copytree(small_cache.folder, folder)
    path = folder / "transfer-00000-of-00002.logits.bin"
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(ValueError, match="logits.bin is damaged: expected .* bytes"):
        cache.TeacherCache(folder).readers({"logits": None}, small.records("transfer"))


def test_logits_as_text(small, small_cache, tmp_path):
    records = small.records("heldout")
    path = tmp_path / "logits.tsv"
    cache_checks.write_tsv(small_cache, records, path)
    header, *rows = [line.split("\t") for line in path.read_text().splitlines()]
    assert header == ["id", *(f"logit_{label}" for label in small.info.labels)]
    assert [row[0].encode() for row in rows] == records.ids.tolist()
    reader = small_cache.readers({"logits": None}, records)["teacher/logits"]
    np.testing.assert_allclose(
        [[float(cell) for cell in row[1:]] for row in rows],
        reader.read(records.ids, records.lengths, 8),
        rtol=1e-5,
    )


def test_records_with_one_id_keep_their_own_rows(small, teacher, tmp_path):
    """Foreign records name themselves: ids may repeat, in a file and from set to set."""
    spec = spec_of(small, teacher, {"logits": None})
    random = np.random.default_rng(0)
    texts = [random.integers(5, small.tokenizer.vocab_size, 2 + n % 7).tolist() for n in range(40)]
    rows = {}
    for name, distinct in (("own", 40), ("repeated", 5)):
        folder = tmp_path / name
        folder.mkdir()
        made = [
            {"id": f"text:{n % distinct}".encode(), "input_ids": text}
            for n, text in enumerate(texts)
        ]
        record_files.write_records(folder, "first", made[:20], 20, 1)
        record_files.write_records(folder, "second", made[20:], 20, 1)
        records = RecordSet([folder / "first-*", folder / "second-*"])
        kept = cache.write_cache(teacher, spec, [records], tmp_path / f"cache_{name}")
        assert cache_checks.verify(kept, teacher, records, len(records)) < 5e-3
        cache_checks.write_tsv(kept, records, tmp_path / "logits.tsv")
        lines = (tmp_path / "logits.tsv").read_text().splitlines()[1:]
        rows[name] = [line.partition("\t")[2] for line in lines]
    assert len(set(rows["own"])) == 40
    assert rows["repeated"] == rows["own"]


def test_a_plan_larger_than_the_disk_writes_nothing(small, teacher, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 100})
    monkeypatch.setattr(files.shutil, "disk_usage", lambda path: usage)
    spec = spec_of(small, teacher, {"logits": None})
    with pytest.raises(files.DiskFullError, match="The teacher cache needs .* GB"):
        cache.write_cache(teacher, spec, sets_of(small), tmp_path)
    assert not list(tmp_path.glob("*.bin"))


def test_an_output_that_the_teacher_does_not_have_is_refused(small, teacher, small_cache, tmp_path):
    spec = spec_of(small, teacher, {"masked_lm_logits": None})
    with pytest.raises(ValueError, match="teacher does not give the output 'masked_lm_logits'"):
        cache.write_cache(teacher, spec, sets_of(small), tmp_path)
    with pytest.raises(ValueError, match="does not give the output 'hidden'"):
        small_cache.readers({"hidden": (1,)}, small.records("train"))


def test_no_cache_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="No cache.json in"):
        cache.TeacherCache(tmp_path)


def test_requests_are_read_from_flags():
    parse = teacher_pass.parse_request
    assert parse(["logits", "hidden"], ["4", "0"], 4) == {"logits": None, "hidden": (0, 4)}
    with pytest.raises(ValueError, match="Unknown output. Expected some of .*Received: 'logit'"):
        parse(["logit"], None, 4)
    with pytest.raises(ValueError, match="'attention' needs --layers"):
        parse(["attention"], None, 4)
    for layer in ("top", "5", "-6"):
        with pytest.raises(ValueError, match="Invalid --layers for 'attention'"):
            parse(["attention"], [layer], 4)
    assert outputs.feature_names({"hidden": (0,)}) == ("teacher/hidden/0",)


def test_embeddings_and_attention_are_asked_for_in_one_call():
    """What TinyBERT compares; attention has no layer 0."""
    request = teacher_pass.parse_request(["hidden", "attention"], ["0", "2", "-1"], 4)
    assert request == {"hidden": (0, 2, 4), "attention": (2, 4)}
    with pytest.raises(ValueError, match="'attention' needs --layers, numbers of blocks up to 4"):
        teacher_pass.parse_request(["attention"], ["0"], 4)


def test_different_record_files_of_one_name_are_refused(small, teacher, tmp_path):
    """Side-cars are named after the record files: one set would learn from the other's."""
    (tmp_path / "other").mkdir()
    for source, target in zip(
        small.records("heldout").paths, small.records("transfer").paths, strict=True
    ):
        shutil.copy(source, tmp_path / "other" / target.name)
    other = RecordSet(str(tmp_path / "other" / "transfer-*"))
    spec = spec_of(small, teacher, {"logits": None})
    with pytest.raises(ValueError, match="have one name and different content.*Rename the files"):
        cache.write_cache(teacher, spec, [small.records("transfer"), other], tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_half_written_cache_asks_the_disk_for_the_rest_only(
    small, teacher, tmp_path, monkeypatch
):
    spec = spec_of(small, teacher, {"logits": None})
    first, second = small.records("transfer"), small.records("heldout")
    cache.write_cache(teacher, spec, [first], tmp_path)
    shapes = cache_rows.row_shapes(teacher, spec.request, "classification")
    rest = cache_rows.planned_bytes(shapes, [second], "float16")
    usage = type("Usage", (), {"free": rest})
    monkeypatch.setattr(files.shutil, "disk_usage", lambda path: usage)
    assert cache.write_cache(teacher, spec, [first, second], tmp_path).covers(second)


def test_a_pass_in_another_precision_is_refused(small, small_cache):
    rough = teaching.load_teacher(small.teacher, -1, False, "bfloat16")
    spec = spec_of(small, rough, {"logits": None, "representation": None})
    with pytest.raises(ValueError, match="compute was float32 and is now bfloat16"):
        cache.write_cache(rough, spec, sets_of(small), small_cache.folder)


def test_a_cache_of_another_format_is_refused(small_cache, tmp_path):
    files.write_json(tmp_path / "cache.json", small_cache.info | {"format": 1})
    with pytest.raises(ValueError, match="has format 1. Expected 2. Remove the folder"):
        cache.TeacherCache(tmp_path)


def test_the_pass_shows_how_far_it_is(small, teacher, tmp_path, monkeypatch):
    seen = []

    class Bar(cache.tqdm):
        def update(self, n=1):
            seen.append(n)
            return super().update(n)

    monkeypatch.setattr(cache, "tqdm", Bar)
    records = small.records("heldout")
    spec = spec_of(small, teacher, {"logits": None, "hidden": (0, 1)})
    cache.write_cache(teacher, spec, [records], tmp_path, batch_size=16)
    assert sum(seen) == len(records) and len(seen) > len(records.paths)


def test_the_cache_keeps_the_teachers_own_tokenizer_and_the_versions(small, small_cache, tmp_path):
    assert small_cache.info["made_from"]["tokenizer"] == small.tokenizer.fingerprint
    assert small_cache.info["versions"] == versions.environment()
    teacher = teaching.load_teacher(small.teacher, -1, False)
    spec = teaching.cache_spec(small.teacher, teacher, {"logits": None}, "float16", "of records")
    assert spec.tokenizer == small.tokenizer.fingerprint
