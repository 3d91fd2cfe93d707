"""The whole job: text to records, in one process or several, killed and gone on with."""

import collections
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf

from xdistil_tf import files, versions
from xdistil_tf.data import pretraining, records, synthetic
from xdistil_tf.data.pipeline import Batches
from xdistil_tf.data.pretraining import masking, processes, shards, text
from xdistil_tf.data.pretraining.vocabulary import Vocabulary
from xdistil_tf.data.record_set import RecordSet
from xdistil_tf.data.records import decode_example
from xdistil_tf.data.tokenization import load_tokenizer
from xdistil_tf.interruption import Interrupted, Interruption


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    synthetic.generate_corpus(folder / "corpus.txt", 80, seed=1)
    tokenizer = synthetic.train_wordpiece(folder / "corpus.txt", 700, folder / "tokenizer")
    return folder / "corpus.txt", tokenizer


def shard_bytes(folder):
    return {
        path.name: path.read_bytes()
        for path in sorted(pathlib.Path(folder).iterdir())
        if path.suffix in (".tfrecord", ".index")
    }


def decoded(folder, split):
    records = RecordSet(str(folder / f"{split}-*"))
    return records, [decode_example(records.read(i), str(i)) for i in range(len(records))]


def parts_of(size, monkeypatch):
    """Makes parts that small."""
    monkeypatch.setattr(text.list_parts, "__defaults__", (size,))


def test_records_hold_berts_features(corpus, tmp_path):
    path, tokenizer = corpus
    manifest = pretraining.write_pretraining_records(path, tokenizer, tmp_path, max_seq_length=48)
    records, rows = decoded(tmp_path, "train")
    assert len(records) == manifest["splits"]["train"]["records"]
    for row in rows:
        assert {name: len(values) for name, values in row.items()} == {
            "id": 1,
            "input_ids": 48,
            "input_mask": 48,
            "segment_ids": 48,
            "masked_lm_positions": 20,
            "masked_lm_ids": 20,
            "masked_lm_weights": 20,
            "next_sentence_labels": 1,
        }
        assert row["input_ids"][0] == tokenizer.cls_id
    assert (
        sum(sum(row["masked_lm_weights"]) for row in rows)
        == (manifest["splits"]["train"]["masked"])
    )
    assert sum(sum(row["input_mask"]) for row in rows) == manifest["splits"]["train"]["tokens"]
    assert manifest["splits"]["heldout"]["documents"] == 4
    assert manifest["splits"]["train"]["documents"] == 76


def test_index_counts_real_tokens(corpus, tmp_path):
    path, tokenizer = corpus
    pretraining.write_pretraining_records(path, tokenizer, tmp_path, max_seq_length=48)
    records, rows = decoded(tmp_path, "train")
    assert records.lengths.tolist() == [sum(row["input_mask"]) for row in rows]


def test_pipeline_reads_the_records(corpus, tmp_path):
    path, tokenizer = corpus
    pretraining.write_pretraining_records(path, tokenizer, tmp_path, max_seq_length=48)
    batch = next(iter(Batches(RecordSet(str(tmp_path / "train-*")), 8).dataset(0, 1)))
    rows = {row["id"][0]: row for row in decoded(tmp_path, "train")[1]}
    length = int(batch["input_mask"].numpy().sum(axis=1).max())
    for number, name in enumerate(batch["id"].numpy()):
        for key in ("input_ids", "segment_ids", "masked_lm_positions", "masked_lm_ids"):
            read, wrote = batch[key].numpy()[number], rows[name][key]
            assert read[:length].tolist() == wrote[: min(length, len(read))]
        assert batch["next_sentence_labels"].numpy()[number] == rows[name]["next_sentence_labels"]
        assert sum(batch["masked_lm_weights"].numpy()[number]) == sum(
            rows[name]["masked_lm_weights"]
        )


def test_train_and_heldout_share_no_document(corpus, tmp_path):
    path, tokenizer = corpus
    settings = {"max_seq_length": 512, "masked_lm_prob": 0.0, "short_seq_prob": 0.0}
    pretraining.write_pretraining_records(
        path, tokenizer, tmp_path, **settings, next_sentence=False, heldout_fraction=0.2
    )
    texts = {}
    for split in ("train", "heldout"):
        rows = decoded(tmp_path, split)[1]
        assert all("next_sentence_labels" not in row for row in rows)
        texts[split] = {tuple(row["input_ids"]) for row in rows}
    assert len(texts["heldout"]) == 16 and len(texts["train"]) == 64
    assert not texts["train"] & texts["heldout"]


def test_result_is_reused_until_something_changes(corpus, tmp_path):
    path, tokenizer = corpus
    first = pretraining.write_pretraining_records(path, tokenizer, tmp_path, max_seq_length=48)
    stamp = (tmp_path / "pretraining.json").stat().st_mtime_ns
    again = pretraining.write_pretraining_records(path, tokenizer, tmp_path, max_seq_length=48)
    assert again == first == files.read_json(tmp_path / "pretraining.json")
    assert (tmp_path / "pretraining.json").stat().st_mtime_ns == stamp
    assert first["versions"] == versions.environment()
    other = pretraining.write_pretraining_records(
        path, tokenizer, tmp_path, max_seq_length=48, heldout_fraction=0, num_shards=2
    )
    assert other["fingerprint"] != first["fingerprint"] and "heldout" not in other["splits"]
    names = sorted(one.name for one in tmp_path.glob("*.tfrecord"))
    assert names == [f"train-0000{number}-of-00002.tfrecord" for number in (0, 1)]
    assert load_tokenizer(tmp_path / "tokenizer").fingerprint == tokenizer.fingerprint


def test_equal_input_gives_equal_bytes(corpus, tmp_path):
    path, tokenizer = corpus
    for name in ("a", "b"):
        pretraining.write_pretraining_records(path, tokenizer, tmp_path / name, max_seq_length=48)
    for one in (tmp_path / "a").glob("*.tfrecord"):
        assert one.read_bytes() == (tmp_path / "b" / one.name).read_bytes()


def test_a_file_ends_a_document(tokenizer, write):
    folder = write({"a.txt": "good film\nbad film", "b.txt": "the film\n"})
    manifest = pretraining.write_pretraining_records(
        f"{folder}/*.txt", tokenizer, folder / "records", heldout_fraction=0
    )
    assert manifest["splits"]["train"]["documents"] == 2


def test_bad_text_is_named(tokenizer, write):
    folder = write(
        {"bytes.txt": b"good\n\nb\xe4d\n", "empty.txt": "\n \n", "one.txt": "good film\nbad film\n"}
    )

    def create(name, **options):
        return pretraining.write_pretraining_records(
            folder / name, tokenizer, folder / "records", **options
        )

    with pytest.raises(ValueError, match="bytes.txt line 3: expected UTF-8.*0xe4.*Convert"):
        create("bytes.txt")
    with pytest.raises(ValueError, match="empty.txt is empty. Expected one sentence a line"):
        create("empty.txt")
    with pytest.raises(FileNotFoundError, match="No file matches .*missing.txt"):
        create("missing.txt")
    with pytest.raises(
        ValueError, match="at least 4 .*Received: 1.*empty line.*next_sentence=False"
    ):
        create("one.txt")
    with pytest.raises(ValueError, match="at least 2 .*Received: 1.*next_sentence=False"):
        create("one.txt", heldout_fraction=0)
    with pytest.raises(ValueError, match="heldout_fraction from 0 to 0.5. Received: 0.9"):
        create("one.txt", heldout_fraction=0.9)
    done = create("one.txt", heldout_fraction=0, next_sentence=False)
    assert done["splits"]["train"]["records"] == 1


def test_a_vocabulary_without_mask_is_refused(write):
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad"]
    folder = write({"vocab.txt": "\n".join(tokens) + "\n", "text.txt": "good\n\nbad\n"})
    unmasked = load_tokenizer(folder / "vocab.txt", do_lower_case=True)
    options = {"heldout_fraction": 0}
    with pytest.raises(ValueError, match=r"has no \[MASK\].*masked_lm_prob=0"):
        pretraining.write_pretraining_records(
            folder / "text.txt", unmasked, folder / "records", **options
        )
    manifest = pretraining.write_pretraining_records(
        folder / "text.txt", unmasked, folder / "records", masked_lm_prob=0.0, **options
    )
    assert manifest["splits"]["train"]["masked"] == 0


def test_task_records_are_not_touched(corpus, tmp_path):
    (tmp_path / "task.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match="holds the records of a task. Choose another output_dir"):
        pretraining.write_pretraining_records(corpus[0], corpus[1], tmp_path)


def test_records_that_are_not_ours_are_not_touched(corpus, tmp_path):
    other = tmp_path / "train-00000-of-00001.tfrecord"
    other.write_bytes(b"precious")
    with pytest.raises(ValueError, match="records without a pretraining.json.*output_dir, or rem"):
        pretraining.write_pretraining_records(corpus[0], corpus[1], tmp_path)
    assert other.read_bytes() == b"precious"
    other.unlink()
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(ValueError, match="work is not of this program"):
        pretraining.write_pretraining_records(corpus[0], corpus[1], tmp_path)


def test_earlier_records_stay_until_others_can_be_written(corpus, tmp_path, write):
    pretraining.write_pretraining_records(corpus[0], corpus[1], tmp_path / "records")
    before = shard_bytes(tmp_path / "records")
    one = write({"one.txt": "good film\n"}) / "one.txt"
    with pytest.raises(ValueError, match="Received: 1"):
        pretraining.write_pretraining_records(one, corpus[1], tmp_path / "records")
    assert shard_bytes(tmp_path / "records") == before
    again = pretraining.write_pretraining_records(corpus[0], corpus[1], tmp_path / "records")
    assert again["splits"]["train"]["documents"] == 76
    assert not (tmp_path / "records" / "work").exists()


def test_the_manifest_has_the_promised_fields(corpus, tmp_path):
    path, tokenizer = corpus
    manifest = pretraining.write_pretraining_records(path, tokenizer, tmp_path, dupe_factor=2)
    assert list(manifest) == [
        "format", "settings", "tokenizer", "inputs", "splits", "masking", "fingerprint", "seconds",
        "versions",
    ]  # fmt: skip
    assert manifest["format"] == 3 and manifest["masking"] == "static"
    assert manifest["settings"] == {
        "max_seq_length": 128, "max_predictions_per_seq": 20, "masked_lm_prob": 0.15,
        "short_seq_prob": 0.1, "dupe_factor": 2, "do_whole_word_mask": False,
        "next_sentence": True, "dynamic_masking": False, "heldout_fraction": 0.05,
        "num_shards": 4, "seed": 12345,
    }  # fmt: skip
    assert manifest["inputs"] == {str(path): files.file_fingerprint(path)}
    for name, split in manifest["splits"].items():
        found, rows = decoded(tmp_path, name)
        assert list(split) == [
            "documents", "records", "shards", "tokens", "masked", "random_next", "length_mean",
            "length_max", "fingerprint",
        ]  # fmt: skip
        assert split["random_next"] == sum(row["next_sentence_labels"][0] for row in rows)
        assert split["length_max"] == found.lengths.max()
        assert split["length_mean"] == round(found.lengths.mean(), 2)
        digests = [records.read_index(records.index_path(one)).sha256 for one in found.paths]
        assert split["fingerprint"] == records.shards_fingerprint(digests)
        names = [row["id"][0].decode() for row in rows]
        assert len(set(names)) == len(names) and names[0] == f"{found.paths[0].stem}:0"


def test_dynamic_masking_leaves_train_without_masks_and_heldout_with_them(corpus, tmp_path):
    path, tokenizer = corpus
    options = {"max_seq_length": 48, "do_whole_word_mask": True}
    manifest = pretraining.write_pretraining_records(
        path, tokenizer, tmp_path / "a", dynamic_masking=True, **options
    )
    pretraining.write_pretraining_records(path, tokenizer, tmp_path / "b", **options)
    assert manifest["masking"] == "dynamic" and manifest["settings"]["dynamic_masking"]
    assert manifest["splits"]["train"]["masked"] == 0 < manifest["splits"]["heldout"]["masked"]
    held, static = (shard_bytes(tmp_path / name) for name in "ab")
    assert held["heldout-00000-of-00001.tfrecord"] == static["heldout-00000-of-00001.tfrecord"]
    vocabulary = Vocabulary.of(tokenizer)
    _, masked = decoded(tmp_path / "b", "train")
    _, rows = decoded(tmp_path / "a", "train")
    assert len(rows) == len(masked)
    for row, other in zip(rows, masked, strict=True):
        length = len(row["input_ids"])
        assert set(row) == {
            "id", "input_ids", "input_mask", "segment_ids", "word_starts", "next_sentence_labels",
        }  # fmt: skip
        assert row["input_mask"] == [1] * length and sum(other["input_mask"]) == length
        ids = np.array([row["input_ids"]])
        starts = masking.word_starts(ids, vocabulary, np.zeros_like(ids, bool))
        assert row["word_starts"] == starts[0].tolist()
        tokens = list(other["input_ids"][:length])
        for place, token, weight in zip(
            *(other[f"masked_lm_{name}"] for name in ("positions", "ids", "weights")), strict=True
        ):
            tokens[place] = token if weight else tokens[place]
        assert row["input_ids"] == tokens


@pytest.mark.parametrize("options", [{}, {"dynamic_masking": True}, {"next_sentence": False}])
def test_processes_do_not_change_a_byte(corpus, tmp_path, monkeypatch, options):
    path, tokenizer = corpus
    parts_of(6000, monkeypatch)
    options |= {"max_seq_length": 48, "num_shards": 3}
    pretraining.write_pretraining_records(path, tokenizer, tmp_path / "one", **options)
    assert len(text.list_parts([path])) > 2
    pretraining.write_pretraining_records(
        path, tokenizer, tmp_path / "two", **options, execute=processes.execution(2)
    )
    assert shard_bytes(tmp_path / "one") == shard_bytes(tmp_path / "two")


def test_parts_do_not_change_a_byte(corpus, tmp_path, monkeypatch):
    path, tokenizer = corpus
    pretraining.write_pretraining_records(path, tokenizer, tmp_path / "whole")
    parts_of(3000, monkeypatch)
    pretraining.write_pretraining_records(path, tokenizer, tmp_path / "parts")
    assert shard_bytes(tmp_path / "whole") == shard_bytes(tmp_path / "parts")


def test_plans_in_several_files_do_not_change_a_byte(corpus, tmp_path, monkeypatch):
    path, tokenizer = corpus
    options = {"max_seq_length": 32, "dupe_factor": 3, "num_shards": 1}
    pretraining.write_pretraining_records(path, tokenizer, tmp_path / "one", **options)
    monkeypatch.setattr(shards, "_BUCKET", 200)
    monkeypatch.setattr(shards, "_SPILLED", 64)
    monkeypatch.setattr(shards, "_ROWS", 100)
    pretraining.write_pretraining_records(path, tokenizer, tmp_path / "many", **options)
    assert shard_bytes(tmp_path / "one") == shard_bytes(tmp_path / "many")


def instances_in(folder, split="train"):
    """All that records say but for their ids, with how often each is there."""
    rows = decoded(folder, split)[1]
    return collections.Counter(
        json.dumps({name: row[name] for name in row if name != "id"}) for row in rows
    )


def test_instances_of_a_document_do_not_depend_on_shards_or_other_documents(
    corpus, tmp_path, write
):
    path, tokenizer = corpus
    options = {"next_sentence": False, "heldout_fraction": 0, "max_seq_length": 24}
    pretraining.write_pretraining_records(path, tokenizer, tmp_path / "a", **options)
    documents = path.read_text(encoding="utf-8").split("\n\n")
    fewer = write({"text.txt": "\n\n".join(documents[-40:])}) / "text.txt"
    pretraining.write_pretraining_records(fewer, tokenizer, tmp_path / "b", **options, num_shards=7)
    every, some = instances_in(tmp_path / "a"), instances_in(tmp_path / "b")
    assert 100 < some.total() < every.total()
    assert not some - every


def test_equal_documents_are_never_paired_and_have_draws_of_their_own(tokenizer, tmp_path, write):
    words = ["good", "bad", "film", "the", "a", "very", "in", "paris", "john", "sleeps"]
    lines = [" ".join(words[(k + j) % 10] for j in range(k % 4 + 1)) for k in range(40)]
    folder = write({"text.txt": "\n\n".join(["\n".join(lines)] * 5 + ["john"])})
    options = {"heldout_fraction": 0, "masked_lm_prob": 0.0, "max_seq_length": 32}
    pretraining.write_pretraining_records(
        folder / "text.txt", tokenizer, tmp_path / "r", short_seq_prob=0, **options
    )
    john = tokenizer.backend.token_to_id("john")
    rows = decoded(tmp_path / "r", "train")[1]
    for row in rows:
        second = [t for t, s in zip(row["input_ids"], row["segment_ids"], strict=True) if s]
        alone = row["input_ids"][:3] == [tokenizer.cls_id, john, tokenizer.sep_id]
        if row["next_sentence_labels"] == [1] and not alone:
            assert second == [john, tokenizer.sep_id]
    firsts = collections.Counter(
        tuple(row["input_ids"][: row["segment_ids"].index(1)]) for row in rows
    )
    # With equal draws all five copies would have the same few.
    assert len(firsts) > 12 and max(firsts.values()) < 5


def test_passes_and_splits_draw_differently(corpus, tmp_path):
    path, tokenizer = corpus
    once = {"max_seq_length": 48, "num_shards": 1}
    pretraining.write_pretraining_records(path, tokenizer, tmp_path / "a", **once)
    pretraining.write_pretraining_records(path, tokenizer, tmp_path / "b", **once, dupe_factor=3)
    rows = {name: instances_in(tmp_path / name) for name in "ab"}
    assert not rows["a"] - rows["b"]  # The first pass is one of three.
    assert len(rows["b"]) > 0.95 * rows["b"].total() > 2.5 * rows["a"].total()
    held = [shard_bytes(tmp_path / one)["heldout-00000-of-00001.tfrecord"] for one in "ab"]
    assert held[0] == held[1]


def test_records_of_a_shard_are_in_random_order(corpus, tmp_path):
    path, tokenizer = corpus
    pretraining.write_pretraining_records(
        path, tokenizer, tmp_path, max_seq_length=32, num_shards=1, masked_lm_prob=0.0,
        heldout_fraction=0,
    )  # fmt: skip
    lines = path.read_text(encoding="utf-8").split("\n")
    places = {}
    for number, encoding in enumerate(tokenizer.backend.encode_batch(lines)):
        places.setdefault(tuple(encoding.ids[1:6]), number)
    found = [places.get(tuple(row["input_ids"][1:6])) for row in decoded(tmp_path, "train")[1]]
    found = [place for place in found if place is not None]
    assert len(found) > 60
    assert abs(np.corrcoef(found, np.arange(len(found)))[0, 1]) < 4 / np.sqrt(len(found))


KILLED = """
import os, signal, sys
from xdistil_tf.data import pretraining
from xdistil_tf.data.pretraining import text
from xdistil_tf.data.tokenization import load_tokenizer
text.list_parts.__defaults__ = (6000,)
left, replace = int(sys.argv[4]), os.replace
def counted(a, b):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(a, b)
os.replace = counted
pretraining.write_pretraining_records(
    sys.argv[1], load_tokenizer(sys.argv[2]), sys.argv[3], max_seq_length=48, num_shards=2
)
"""


def test_a_killed_call_goes_on_and_ends_with_the_same_bytes(corpus, tmp_path, monkeypatch):
    path, tokenizer = corpus
    parts_of(6000, monkeypatch)
    options = {"max_seq_length": 48, "num_shards": 2}
    pretraining.write_pretraining_records(path, tokenizer, tmp_path / "whole", **options)
    # Killed at one rename after the other, by calls that go on where the one before died.
    for step in (3, 9, 9, 9, 5, 4, 4, 4, 4, 4, 60):
        code = subprocess.run(
            [sys.executable, "-c", KILLED, str(path), str(corpus[0].parent / "tokenizer"),
             str(tmp_path / "killed"), str(step)],
            stderr=subprocess.DEVNULL,
        ).returncode  # fmt: skip
        if not code:
            break
        assert code == -signal.SIGKILL
        assert not (tmp_path / "killed" / "pretraining.json").exists()
    pretraining.write_pretraining_records(path, tokenizer, tmp_path / "killed", **options)
    assert shard_bytes(tmp_path / "whole") == shard_bytes(tmp_path / "killed")
    assert not (tmp_path / "killed" / "work").exists()


class Crash(Exception):
    pass


def crashing(after):
    """Runs so many calls, then raises."""

    def execute(function, arguments):
        nonlocal after
        for one in arguments:
            if not after:
                raise Crash
            after -= 1
            function(*one)

    return execute


@pytest.mark.parametrize("after", [0, 2, 5, 6, 8])
def test_parts_and_shards_that_are_complete_are_not_made_again(
    corpus, tmp_path, monkeypatch, after
):
    path, tokenizer = corpus
    parts_of(6000, monkeypatch)
    parts = len(text.list_parts([path]))
    with pytest.raises(Crash):
        pretraining.write_pretraining_records(path, tokenizer, tmp_path, execute=crashing(after))
    called = []

    def execute(function, arguments):
        called.extend((function.__name__, one[1:]) for one in arguments)
        for one in arguments:
            function(*one)

    pretraining.write_pretraining_records(path, tokenizer, tmp_path, execute=execute)
    assert len(called) == parts + 5 - after


def test_other_settings_do_not_go_on_with_what_was_begun(corpus, tmp_path):
    path, tokenizer = corpus
    for after in (1, 3):
        with pytest.raises(Crash):
            pretraining.write_pretraining_records(
                path, tokenizer, tmp_path / "a", seed=1, execute=crashing(after)
            )
        pretraining.write_pretraining_records(path, tokenizer, tmp_path / "a", seed=2)
        pretraining.write_pretraining_records(path, tokenizer, tmp_path / "b", seed=2)
        assert shard_bytes(tmp_path / "a") == shard_bytes(tmp_path / "b")


def test_workers_import_neither_tensorflow_nor_the_program(corpus, tmp_path):
    """The module of the call is imported, and what it imports; nothing of the caller."""
    program = tmp_path / "program.py"
    program.write_text(
        "import sys\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "import json, reported\n"
        "import tensorflow_stands_for_anything_slow\n"
        "from xdistil_tf.data.pretraining import create, processes\n"
        "processes.execution(2)(reported.report, [(sys.argv[2],)] * 2)\n"
        "assert __file__ and 'tensorflow_stands_for_anything_slow' in sys.modules\n",
        encoding="utf-8",
    )
    (tmp_path / "tensorflow_stands_for_anything_slow.py").write_text("", encoding="utf-8")
    (tmp_path / "reported.py").write_text(
        "import json, sys\n"
        "from xdistil_tf.data.pretraining import create\n"
        "def report(path):\n"
        "    with open(path, 'a') as handle:\n"
        "        handle.write(json.dumps(sorted(sys.modules)) + '\\n')\n",
        encoding="utf-8",
    )
    out = tmp_path / "modules.txt"
    subprocess.run([sys.executable, program, tmp_path, out], check=True)
    lines = out.read_text(encoding="utf-8").splitlines()
    assert len(lines) == 2
    for modules in map(json.loads, lines):
        assert "xdistil_tf.data.pretraining.create" in modules
        assert "tensorflow" not in modules and "transformers" not in modules
        assert "tensorflow_stands_for_anything_slow" not in modules


def test_an_error_in_a_worker_reaches_the_caller(corpus, tmp_path, monkeypatch):
    path = tmp_path / "text.txt"
    path.write_bytes(b"good\n\n" * 100 + b"b\xe4d\n")
    parts_of(300, monkeypatch)
    with pytest.raises(ValueError, match="text.txt line 201: expected UTF-8"):
        pretraining.write_pretraining_records(
            path, corpus[1], tmp_path / "records", execute=processes.execution(2)
        )
    with pytest.raises(RuntimeError, match="A worker process ended.*fewer --num_processes"):
        processes.execution(2)(os._exit, [(1,), (1,)])
    with pytest.raises(ValueError, match="num_processes of at least 0.*Received: -1"):
        processes.execution(-1)


def test_a_request_to_stop_is_heard_between_calls(corpus, tmp_path):
    stop, called = Interruption(), []

    def call(number):
        called.append(number)
        stop.requested = number == 1

    with pytest.raises(Interrupted, match="complete are kept"):
        processes.execution(1, stop)(call, [(0,), (1,), (2,)])
    assert called == [0, 1]


def test_a_worker_ends_when_its_parent_is_killed(tmp_path):
    program = (
        "import sys, time\n"
        "from xdistil_tf.data.pretraining import processes\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "import asleep\n"
        "processes.execution(2)(asleep.sleep, [(sys.argv[1], 0), (sys.argv[1], 1)])\n"
    )
    (tmp_path / "asleep.py").write_text(
        "import os, time\n"
        "def sleep(folder, number):\n"
        "    open(f'{folder}/{number}.pid', 'w').write(str(os.getpid()))\n"
        "    time.sleep(60)\n",
        encoding="utf-8",
    )
    parent = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)])
    workers = [tmp_path / "0.pid", tmp_path / "1.pid"]
    until(lambda: all(one.is_file() and one.read_text() for one in workers))
    parent.kill()
    parent.wait()
    until(lambda: not any(runs(int(one.read_text())) for one in workers))


def until(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def runs(process):
    """Whether it is there and not merely waiting to be collected."""
    try:
        status = pathlib.Path(f"/proc/{process}/stat").read_text(encoding="utf-8")
    except FileNotFoundError:
        return False
    return status.rsplit(")", 1)[1].split()[0] != "Z"


def test_a_line_of_a_megabyte_is_cut(tokenizer, tmp_path, write):
    long = "good film the bad " * 60_000
    folder = write({"text.txt": f"{long}\ngood\n\n{'x' * 1_000_000}\n\nbad film\n"})
    for name, options in (("pairs", {}), ("packed", {"next_sentence": False})):
        manifest = pretraining.write_pretraining_records(
            folder / "text.txt", tokenizer, tmp_path / name, heldout_fraction=0,
            short_seq_prob=0, **options,
        )  # fmt: skip
        assert manifest["splits"]["train"]["documents"] == 3
        assert manifest["splits"]["train"]["length_max"] == 128
    assert manifest["splits"]["train"]["tokens"] > 4 * 60_000


def test_files_of_google_research_bert_are_read_without_index_and_id(corpus, tmp_path):
    path, tokenizer = corpus
    pretraining.write_pretraining_records(path, tokenizer, tmp_path / "ours", max_seq_length=48)
    found, rows = decoded(tmp_path / "ours", "train")
    theirs = tmp_path / "tf_examples.tfrecord"
    with tf.io.TFRecordWriter(str(theirs)) as writer:
        for number in range(len(found)):
            example = tf.train.Example.FromString(found.read(number))
            del example.features.feature["id"]
            writer.write(example.SerializeToString())
    read = RecordSet(str(theirs))
    assert read.lengths.tolist() == found.lengths.tolist()
    batch = next(iter(Batches(read, 4).dataset(0, 1)))
    for number, name in enumerate(batch["id"].numpy()):
        row = rows[int(name.split(b":")[1])]
        assert batch["masked_lm_ids"].numpy()[number].tolist() == row["masked_lm_ids"]
        assert batch["next_sentence_labels"].numpy()[number] == row["next_sentence_labels"]


def test_a_tokenizer_of_many_words_takes_four_bytes_an_id(tmp_path, write):
    words = [f"w{number}" for number in range(70_000)]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    folder = write(
        {"vocab.txt": "\n".join(vocabulary) + "\n", "text.txt": "w69999 w1\n\nw69998 w2\n"}
    )
    large = load_tokenizer(folder / "vocab.txt", do_lower_case=True)
    pretraining.write_pretraining_records(
        folder / "text.txt", large, tmp_path / "r", heldout_fraction=0, masked_lm_prob=0.0
    )
    tokens = {token for row in decoded(tmp_path / "r", "train")[1] for token in row["input_ids"]}
    assert {70_004, 70_003, 6, 7} <= tokens


def test_the_binary_makes_the_records_and_names_bad_input_in_one_line(corpus, tmp_path):
    root = pathlib.Path(pretraining.__file__).parents[3]

    def call(*flags):
        return subprocess.run(
            [sys.executable, root / "bin" / "create_pretraining_data.py", *flags,
             f"--tokenizer={corpus[0].parent / 'tokenizer'}",
             f"--output_dir={tmp_path / 'records'}"],
            capture_output=True, text=True, cwd=root,
        )  # fmt: skip

    made = call(f"--input_file={corpus[0]}", "--dupe_factor=2", "--num_shards=2",
                "--num_processes=2", "--max_seq_length=64", "--seed=3")  # fmt: skip
    assert made.returncode == 0, made.stderr
    assert "Traceback" not in made.stderr
    pretraining.write_pretraining_records(
        corpus[0], corpus[1], tmp_path / "same", dupe_factor=2, num_shards=2, max_seq_length=64,
        seed=3,
    )  # fmt: skip
    assert shard_bytes(tmp_path / "records") == shard_bytes(tmp_path / "same")
    bad = call(f"--input_file={tmp_path / 'missing-*'}")
    assert bad.returncode == 1 and "Traceback" not in bad.stderr
    lines = [line for line in bad.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and lines[0].startswith("error: No file matches")


def test_records_that_lost_a_shard_are_told(corpus, tmp_path):
    pretraining.write_pretraining_records(*corpus, tmp_path)
    (tmp_path / "train-00001-of-00004.tfrecord").unlink()
    with pytest.raises(ValueError, match="is damaged: train-00001-of-00004.tfrecord is missing"):
        pretraining.write_pretraining_records(*corpus, tmp_path)
