import json

import pytest
import tokenizers

from xdistil_tf import files
from xdistil_tf.data import task_info, task_records
from xdistil_tf.data.record_set import RecordSet
from xdistil_tf.data.records import decode_example
from xdistil_tf.data.tokenization import load_tokenizer

OPTIONS = task_records.Options(heldout_rows=4, num_shards=2)


@pytest.fixture
def task_dir(write):
    train = "".join(f"good film {n}\t1\nvery bad {n}\t0\n" for n in range(10))
    return write(
        {
            "train.tsv": "sentence\tlabel\n" + train,
            "dev.tsv": "sentence\tlabel\ngood film 3\t1\nfilm\t0\n",
            "test.tsv": "index\tsentence\n0\tthe film\n",
        }
    )


def create(task_dir, tokenizer, tmp_path, **options):
    return task_records.create_task_records(
        task_dir, "sst-2", tokenizer, tmp_path / "records", **{"options": OPTIONS, **options}
    )


def test_a_task_becomes_a_records_folder(task_dir, tokenizer, tmp_path):
    info = create(task_dir, tokenizer, tmp_path)
    counts = {name: one["records"] for name, one in info.splits.items()}
    assert counts == {"train": 15, "heldout": 4, "transfer": 15, "dev": 2, "test": 1}
    assert (info.task, info.task_type, info.labels) == ("sst-2", "classification", ("0", "1"))
    assert (info.select, info.report, info.metric) == ("heldout", "dev", "accuracy")
    assert info.dropped == {"overlap": 1, "duplicate": 0, "heldout": 0, "bad_rows": 0}
    assert info.tokenizer["fingerprint"] == tokenizer.fingerprint
    assert load_tokenizer(info.tokenizer_folder).fingerprint == tokenizer.fingerprint
    dev = RecordSet(info.pattern("dev"))
    assert dev.fingerprint == info.splits["dev"]["fingerprint"]
    assert dev.ids.tolist() == [b"dev:1", b"dev:2"]
    transfer = decode_example(RecordSet(info.pattern("transfer")).read(0), "here")
    assert transfer["label_weights"] == [1.0]
    dropped = (tmp_path / "records" / "dropped.tsv").read_text().split("\n")
    assert dropped[0] == "file\trow\treason"
    assert dropped[1].endswith("train.tsv\t8\toverlap: the text of train stands in dev")


def test_splits_say_how_many_records_are_labelled(task_dir, tokenizer, tmp_path):
    info = create(task_dir, tokenizer, tmp_path)
    labelled = {name: one["labelled"] for name, one in info.splits.items()}
    assert labelled == {"train": 15, "heldout": 4, "transfer": 15, "dev": 2, "test": 0}


def test_versions_are_told_and_change_no_fingerprint(task_dir, tokenizer, tmp_path, monkeypatch):
    first = create(task_dir, tokenizer, tmp_path)
    content = json.loads((tmp_path / "records" / "task.json").read_text())
    assert content["versions"]["tokenizers"] == tokenizers.__version__
    monkeypatch.setattr(task_records.versions, "environment", lambda: {"python": "4"})
    (tmp_path / "records" / "task.json").unlink()
    (tmp_path / "records" / ".unfinished").touch()
    assert create(task_dir, tokenizer, tmp_path).fingerprint == first.fingerprint


def test_the_same_inputs_are_not_written_twice(task_dir, tokenizer, tmp_path):
    first = create(task_dir, tokenizer, tmp_path)
    written = (tmp_path / "records" / "task.json").stat().st_mtime_ns
    assert create(task_dir, tokenizer, tmp_path) == first
    assert (tmp_path / "records" / "task.json").stat().st_mtime_ns == written
    (task_dir / "dev.tsv").write_text("sentence\tlabel\nfilm\t0\n")
    assert create(task_dir, tokenizer, tmp_path).fingerprint != first.fingerprint


def test_another_number_of_shards_replaces_the_old_ones(task_dir, tokenizer, tmp_path):
    create(task_dir, tokenizer, tmp_path)
    options = task_records.Options(heldout_rows=4, num_shards=3)
    info = create(task_dir, tokenizer, tmp_path, options=options)
    assert len(RecordSet(info.pattern("train")).paths) == 3


def test_records_of_others_are_not_removed(task_dir, tokenizer, tmp_path):
    foreign = tmp_path / "records" / "train-00000-of-00001.tfrecord"
    foreign.parent.mkdir()
    foreign.write_bytes(b"theirs")
    with pytest.raises(ValueError, match="not written by create_task_data .*--output_dir"):
        create(task_dir, tokenizer, tmp_path)
    assert foreign.read_bytes() == b"theirs"


def test_an_interrupted_writing_is_done_again(task_dir, tokenizer, tmp_path):
    folder = tmp_path / "records"
    create(task_dir, tokenizer, tmp_path)
    (folder / "task.json").unlink()
    (folder / ".unfinished").touch()
    (folder / ".train-00000-of-00009.tfrecord.77.tmp").touch()
    info = create(task_dir, tokenizer, tmp_path)
    assert not list(folder.glob(".*"))
    shards = RecordSet(info.pattern("train"))
    stated = shards.shard_fingerprints()
    assert stated == {path.stem: files.file_fingerprint(path) for path in shards.paths}


def test_a_transfer_file_replaces_the_default(task_dir, tokenizer, tmp_path, write):
    folder = write({"more.txt": "a very good film\nfilm\na film\na film\n"}, "other")
    info = create(task_dir, tokenizer, tmp_path, transfer_file=str(folder / "*.txt"))
    assert RecordSet(info.pattern("transfer")).ids.tolist() == [b"more:1", b"more:3"]
    assert info.dropped["duplicate"] == 1


def test_a_transfer_file_with_the_ids_of_another_file_is_refused(
    task_dir, tokenizer, tmp_path, write
):
    folder = write({"train.txt": "a very good film\n"}, "other")
    with pytest.raises(ValueError, match="other/train.txt is called 'train' like .*train.tsv; ids"):
        create(task_dir, tokenizer, tmp_path, transfer_file=str(folder / "train.txt"))
    assert not (tmp_path / "records").exists()
    info = create(task_dir, tokenizer, tmp_path, transfer_file=str(task_dir / "train.tsv"))
    assert info.splits["transfer"]["records"] == 15  # The very file: one id, one text.


def test_records_that_may_not_be_replaced_stay(task_dir, tokenizer, tmp_path):
    first = create(task_dir, tokenizer, tmp_path)
    assert create(task_dir, tokenizer, tmp_path, replace=False) == first
    (task_dir / "dev.tsv").write_text("sentence\tlabel\nfilm\t0\n")
    second = create(task_dir, tokenizer, tmp_path, replace=False)
    assert second.fingerprint != first.fingerprint  # Nothing was trained on dev.
    with (task_dir / "train.tsv").open("a") as handle:
        handle.write("a new film\t1\n")
    options = task_records.Options(heldout_rows=4, num_shards=3)
    message = r"were made of other inputs \(num_shards, train.tsv differ\).*another folder"
    with pytest.raises(ValueError, match=message):
        create(task_dir, tokenizer, tmp_path, replace=False, options=options)
    assert task_info.load_task_info(tmp_path / "records") == second


def test_a_labelled_test_set_reports(write, tokenizer, tmp_path):
    folder = write({"train.tsv": "good\ta\nbad\tb\n", "test.tsv": "film\ta\n"}, "labelled")
    info = task_records.create_task_records(
        folder, "classification", tokenizer, tmp_path / "records", options=OPTIONS
    )
    assert info.report == "test"


def test_an_unknown_split_names_those_there_are(task_dir, tokenizer, tmp_path):
    info = create(task_dir, tokenizer, tmp_path)
    with pytest.raises(ValueError, match="no split 'dev2'. It has .*'heldout'"):
        info.pattern("dev2")


def test_an_unfinished_folder_is_an_error_with_its_cure(tmp_path):
    with pytest.raises(FileNotFoundError, match="no finished records folder. Run create_task_data"):
        task_info.load_task_info(tmp_path)
    (tmp_path / "task.json").write_text(json.dumps({"format": 7}))
    with pytest.raises(ValueError, match="has format 7. Expected 1"):
        task_info.load_task_info(tmp_path)
    (tmp_path / "task.json").write_text(json.dumps({"format": 1, "task": "x"}))
    with pytest.raises(ValueError, match="is damaged: it lacks"):
        task_info.load_task_info(tmp_path)
