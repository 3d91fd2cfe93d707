"""The whole of augmentation: rows, pairs, what is left out, going on, bad input."""

import collections

import numpy as np
import pytest

from tests.small_task import encoder_folder, write_lines
from xdistil_tf import augment, augmented_file, files
from xdistil_tf.augment import Settings
from xdistil_tf.data import readers
from xdistil_tf.data.augmentation import rows as rows_lib
from xdistil_tf.data.layouts import Columns
from xdistil_tf.data.task_records import Options, create_task_records
from xdistil_tf.interruption import Interrupted, Interruption
from xdistil_tf.models import folders

pytest_plugins = ["tests.small_task"]

SETTINGS = Settings(rounds=3, candidates=4, replace_prob=0.5)


@pytest.fixture(scope="module")
def masked_lm(small, tmp_path_factory):
    folder = tmp_path_factory.mktemp("masked_lm")
    return encoder_folder(folder, small.tokenizer, {"kind": "pretraining"}, initializer_range=0.3)


@pytest.fixture(scope="module")
def made(small, masked_lm, tmp_path_factory):
    path = tmp_path_factory.mktemp("made") / "train_aug.tsv"
    return path, augment.augment(small.task_dir, "classification", masked_lm, path, SETTINGS)


def rows(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    return [dict(zip(lines[0].split("\t"), line.split("\t"), strict=True)) for line in lines[1:]]


def test_every_example_stands_there_with_what_it_becomes(small, made):
    path, manifest = made
    found = rows(path)
    originals = [one for one in found if not one["rules"]]
    train = readers.read_task(small.task_dir, "classification").splits["train"]
    reported = {
        one.text for one in readers.read_task(small.task_dir, "classification").splits["dev"]
    }
    labels = {one.text: one.label for one in reversed(train) if one.text not in reported}
    assert {one["text"]: one["label"] for one in originals} == labels
    assert len(found) > 2 * len(originals)
    assert len({one["text"] for one in found}) == len(found) == manifest["rows"]
    by_id = {one.id: one for one in train}
    for one in found:
        source = by_id[one["source_id"]]
        assert one["label"] == source.label and len(one["text"].split()) == len(source.text.split())
        assert (one["rules"] == "tinybert") == ("/a" in one["id"])


def test_a_variant_does_not_stand_for_an_example_with_a_label_of_its_own(
    small, masked_lm, tmp_path, monkeypatch
):
    folder, path = tmp_path / "task", tmp_path / "aug.tsv"
    write_lines(folder / "train.tsv", ["text\tlabel", "the soup\ta", "the stew\tb"])
    monkeypatch.setattr(
        augment.candidates_lib,
        "find_candidates",
        lambda texts, *_: [{1: ("stew",)} for _ in texts],
    )
    settings = Settings(rounds=1, replace_prob=1.0)
    made = augment.augment(folder, "classification", masked_lm, path, settings)
    assert [(one["text"], one["label"]) for one in rows(path)] == [
        ("the soup", "a"), ("the stew", "b"),
    ]  # fmt: skip
    assert made["dropped"] == {"duplicate": 1, "overlap": 0}


def test_published_candidates_begin_words(small, masked_lm, tmp_path):
    folder, path = tmp_path / "task", tmp_path / "aug.tsv"
    write_lines(folder / "train.tsv", ["text\tlabel", "zzxqj soup\ta"])
    settings = Settings(rounds=20, candidates=4, as_published=True)
    augment.augment(folder, "classification", masked_lm, path, settings)
    assert len(rows(path)) > 3 and not any("##" in one["text"] for one in rows(path))


def test_what_is_read_is_not_written_over(small, masked_lm):
    path = small.task_dir / "train.tsv"
    before = path.read_bytes()
    with pytest.raises(ValueError, match="train.tsv is read here. Expected another --output_file"):
        augment.augment(small.task_dir, "classification", masked_lm, path, SETTINGS)
    assert path.read_bytes() == before


def test_a_small_vocabulary_has_fewer_candidates(small, masked_lm):
    allowed = np.zeros(small.tokenizer.vocab_size, bool)
    allowed[[7, 9]] = True
    ask = augment.masked_lm_function(folders.load_model(masked_lm), allowed, 16)
    found = ask(*(np.array(one, np.int32) for one in ([[2, 4, 3]], [[0, 0, 0]], [3], [1])))
    assert sorted(found[0].tolist()) == [7, 9]


def test_the_same_seed_gives_the_same_file_and_another_another(small, masked_lm, made, tmp_path):
    again, other = tmp_path / "again.tsv", tmp_path / "other.tsv"
    augment.augment(small.task_dir, "classification", masked_lm, again, SETTINGS)
    assert again.read_bytes() == made[0].read_bytes()
    changed = Settings(rounds=3, candidates=4, replace_prob=0.5, seed=2)
    augment.augment(small.task_dir, "classification", masked_lm, other, changed)
    assert other.read_bytes() != made[0].read_bytes()


def test_a_finished_file_is_left_as_it_is(small, masked_lm, made):
    before = made[0].stat().st_mtime_ns
    manifest = augment.augment(small.task_dir, "classification", masked_lm, made[0], SETTINGS)
    assert manifest == made[1] and made[0].stat().st_mtime_ns == before
    assert files.read_json(made[0].with_name("train_aug.tsv.json")) == manifest
    work = made[0].with_name("train_aug.tsv.work")
    assert not work.exists()
    work.mkdir()  # What a call leaves that was killed at its very end.
    augment.augment(small.task_dir, "classification", masked_lm, made[0], SETTINGS)
    assert not work.exists()


def test_a_call_that_was_stopped_asks_no_text_twice(small, masked_lm, made, tmp_path, monkeypatch):
    monkeypatch.setattr(augment, "_CHUNK", 50)
    asked, original = [], augment.candidates_lib.find_candidates

    def counted(texts, *arguments):
        asked.extend(one.text for one in texts)
        stop.requested = True
        return original(texts, *arguments)

    monkeypatch.setattr(augment.candidates_lib, "find_candidates", counted)
    stop, path = Interruption(), tmp_path / "aug.tsv"
    arguments = (small.task_dir, "classification", masked_lm, path, SETTINGS)
    with pytest.raises(Interrupted, match="candidates that were found are kept"):
        augment.augment(*arguments, interruption=stop)
    assert len(asked) == 50 and not path.exists()
    augment.augment(*arguments)
    assert len(asked) == len(set(asked)) == made[1]["texts"]
    assert path.read_bytes() == made[0].read_bytes()


def test_words_that_no_round_replaces_are_not_asked_about_and_change_nothing(
    small, masked_lm, tmp_path, monkeypatch
):
    asked, original = [], augment.candidates_lib.find_candidates

    def counted(texts, places, *arguments):
        made = original(texts, places, *arguments)
        asked.append(sum(map(len, made)))
        return made

    monkeypatch.setattr(augment.candidates_lib, "find_candidates", counted)
    settings = Settings(rounds=1, candidates=4, replace_prob=0.4)
    arguments = (small.task_dir, "classification", masked_lm)
    augment.augment(*arguments, tmp_path / "drawn.tsv", settings)
    drawn = sum(asked)
    monkeypatch.setattr(
        augment._Asked, "_replaced_words", lambda self, text, users: set(range(len(text.words)))
    )
    augment.augment(*arguments, tmp_path / "all.tsv", settings)
    # The small task says the same sentences often, in several examples.
    assert 0.3 * (sum(asked) - drawn) < drawn < 0.9 * (sum(asked) - drawn)
    assert (tmp_path / "drawn.tsv").read_bytes() == (tmp_path / "all.tsv").read_bytes()


class Crash(Exception):
    """Stands for SIGKILL."""


@pytest.mark.parametrize(
    ("module", "function", "calls"),
    [("candidates_lib", "find_candidates", 2), ("rounds", "augmented_texts", 70)],
)
def test_a_crash_leaves_no_half_written_file_and_the_next_call_goes_on(
    small, masked_lm, made, tmp_path, monkeypatch, module, function, calls
):
    monkeypatch.setattr(augment, "_CHUNK", 50)
    owner, left = getattr(augment, module), [calls]
    original = getattr(owner, function)

    def crash(*arguments):
        left[0] -= 1
        if not left[0]:
            raise Crash
        return original(*arguments)

    path = tmp_path / "aug.tsv"
    arguments = (small.task_dir, "classification", masked_lm, path, SETTINGS)
    monkeypatch.setattr(owner, function, crash)
    with pytest.raises(Crash):
        augment.augment(*arguments)
    assert not path.exists() and not path.with_name("aug.tsv.json").exists()
    augment.augment(*arguments)
    assert path.read_bytes() == made[0].read_bytes()


def test_what_said_how_an_earlier_file_was_made_goes_before_the_file(
    small, masked_lm, tmp_path, monkeypatch
):
    path = tmp_path / "aug.tsv"
    arguments = (small.task_dir, "classification", masked_lm, path)
    augment.augment(*arguments, SETTINGS)
    monkeypatch.setattr(augment.files, "write_json", lambda *_: (_ for _ in ()).throw(Crash))
    work = path.with_name("aug.tsv.work")
    monkeypatch.setattr(augmented_file, "_work", lambda *_: work)
    work.mkdir()
    other = Settings(rounds=1, candidates=4)
    monkeypatch.setattr(augment._Asked, "write_candidates", lambda *_: None)
    monkeypatch.setattr(augment, "Found", lambda *_: lambda text: {})
    with pytest.raises(Crash):
        augment.augment(*arguments, other)
    assert path.exists() and not path.with_name("aug.tsv.json").exists()


@pytest.fixture
def pairs(small, tmp_path):
    train = rows_of_text(small)
    folder = tmp_path / "pairs"
    write_lines(
        folder / "train.tsv",
        ["text\ttext_b\tlabel", *(f'{a}\t"{b}" x\t{n % 2}' for n, (a, b) in enumerate(train))],
    )
    write_lines(folder / "dev.tsv", ["text\ttext_b\tlabel", f'{train[0][0]}\t"{train[0][1]}" x\t0'])
    return folder


def rows_of_text(small):
    train = readers.read_task(small.task_dir, "classification").splits["train"]
    texts = list(dict.fromkeys(one.text for one in train))
    return list(zip(texts[:8], texts[8:16], strict=True))


def test_of_a_pair_one_text_varies_and_quotes_stay(small, masked_lm, pairs, tmp_path):
    path = tmp_path / "aug.tsv"
    manifest = augment.augment(pairs, "classification", masked_lm, path, SETTINGS)
    sources, varied = rows_of_text(small), collections.Counter()
    for one in rows(path):
        a, b = sources[int(one["source_id"].split(":")[1]) - 1]
        changed = (one["text"] != a, one["text_b"] != f'"{b}" x')
        assert changed == ("/a" in one["id"], "/b" in one["id"])
        varied[changed] += 1
        assert one["text_b"].startswith('"')
    assert varied[True, False] > 5 and varied[False, True] > 5
    assert manifest["rows"] <= manifest["examples"] * (2 * SETTINGS.rounds + 1)
    assert manifest["dropped"]["overlap"] == 1  # The first pair stands in dev.


def test_what_derives_from_held_out_texts_does_not_train(small, made, tmp_path):
    info = create_task_records(
        small.task_dir, "classification", small.tokenizer, tmp_path / "records", None,
        Options(max_seq_length=32, heldout_rows=40, num_shards=1), augmented=str(made[0]),
    )  # fmt: skip
    heldout = {one.split(b":")[1] for one in small.records("heldout").ids}
    sources = {
        number: one["source_id"].split(":")[1].encode()
        for number, one in enumerate(rows(made[0]), start=1)
    }
    from xdistil_tf.data.record_set import RecordSet

    records = RecordSet(info.pattern("augmented"))
    assert len(records) == info.splits["augmented"]["records"] > 100
    used = {sources[int(one.split(b":")[1])] for one in records.ids}
    assert not used & heldout
    assert info.dropped["augmented_heldout"] > 0
    assert len(records) + sum(
        count for name, count in info.dropped.items() if name.startswith("augmented_")
    ) == len(sources)


def test_equal_texts_of_what_is_held_out_do_not_train_either(small, tmp_path):
    """A draw of labels may part two rows of one text."""
    folder, path = tmp_path / "task", tmp_path / "aug.tsv"
    texts = [f"soup {n}" for n in range(30) for _ in range(2)]
    lines = [f"{text}\t{'ab'[n // 2 % 2]}" for n, text in enumerate(texts)]
    write_lines(folder / "train.tsv", ["text\tlabel", *lines])
    header = "\t".join(rows_lib.HEADER)
    rows_of = [f"{n}/a1\tbroth {n}\t\ta\ttrain:{n}\ttinybert" for n in range(1, 61)]
    write_lines(path, [header, *rows_of])
    for drawn in (3, 5, 7):
        info = create_task_records(
            folder, "classification", small.tokenizer, tmp_path / str(drawn), None,
            Options(max_seq_length=32, heldout_rows=4, labels_per_class=drawn, num_shards=1),
            augmented=str(path),
        )  # fmt: skip
        from xdistil_tf.data.record_set import RecordSet

        def texts_of(name, info=info):
            ids = [int(one.split(b":")[1]) for one in RecordSet(info.pattern(name)).ids]
            return {texts[number - 1] for number in ids}

        assert texts_of("augmented") and not texts_of("augmented") & texts_of("heldout")


def test_rows_have_the_language_of_what_they_derive_from(small, masked_lm, tmp_path):
    from xdistil_tf.data.record_set import RecordSet
    from xdistil_tf.data.records import decode_example

    folder, path = tmp_path / "task", tmp_path / "aug.tsv"
    for language, words in (("en", "the soup was good"), ("sw", "the stew was bad")):
        lines = [f"{words} {n}\t{'ab'[n % 2]}" for n in range(20)]
        write_lines(folder / f"train-{language}.tsv", ["text\tlabel", *lines])
    augment.augment(folder, "classification", masked_lm, path, SETTINGS)

    def languages(name, **options):
        options = Options(max_seq_length=32, heldout_rows=4, num_shards=1, **options)
        info = create_task_records(
            folder, "classification", small.tokenizer, tmp_path / name, None, options,
            augmented=str(path),
        )  # fmt: skip
        records = RecordSet(info.pattern("augmented"))
        spoken = {decode_example(records.read(n), name)["language"][0] for n in range(len(records))}
        return spoken, info.dropped

    assert languages("all")[0] == {b"en", b"sw"}
    spoken, dropped = languages("some", languages=("sw",))
    assert spoken == {b"sw"} and dropped["augmented_language"] >= 20


def test_damaged_rows_are_counted_and_listed(small, tmp_path):
    header = "\t".join(rows_lib.HEADER)
    path = tmp_path / "aug.tsv"
    label = small.info.labels[0]
    good = [f"{n}/a1\tnew {n}\t\t{label}\ttrain:{n}\ttinybert" for n in range(1, 90)]
    write_lines(path, [header, *good, "x\tthe soup\t\tno label\ttrain:1\ttinybert"])
    info = create_task_records(
        small.task_dir, "classification", small.tokenizer, tmp_path / "records", None,
        Options(max_seq_length=32, heldout_rows=4, max_bad_rows=1), augmented=str(path),
    )  # fmt: skip
    assert info.dropped["bad_rows"] == 1
    listed = (tmp_path / "records" / "dropped.tsv").read_text("utf-8")
    assert "aug.tsv\t91\texpected a label" in listed


def test_drawn_labels_do_not_tell_those_of_others(small, made, tmp_path):
    info = create_task_records(
        small.task_dir, "classification", small.tokenizer, tmp_path / "records", None,
        Options(max_seq_length=32, heldout_rows=4, labels_per_class=5), augmented=str(made[0]),
    )  # fmt: skip
    augmented = info.splits["augmented"]
    assert 0 < augmented["labelled"] < augmented["records"] / 2


def test_a_file_of_another_train_is_refused(small, masked_lm, pairs, made, tmp_path):
    path = tmp_path / "aug.tsv"
    augment.augment(pairs, "classification", masked_lm, path, SETTINGS)
    arguments = ("classification", small.tokenizer, tmp_path / "records")
    with pytest.raises(ValueError, match="aug.tsv was made from another train.tsv.*Make it anew"):
        create_task_records(small.task_dir, *arguments, augmented=str(path))
    path.with_name("aug.tsv.json").unlink()
    header = "\t".join(rows_lib.HEADER)
    write_lines(path, [header, "x\tthe soup\t\t\ttrain:123456\ttinybert"])
    with pytest.raises(ValueError, match="aug.tsv line 2 derives from 'train:123456'"):
        create_task_records(small.task_dir, *arguments, augmented=str(path))


def test_a_text_that_is_reported_on_is_not_varied(small, masked_lm, made, tmp_path):
    train = readers.read_task(small.task_dir, "classification").splits["train"]
    folder = tmp_path / "task"
    rows_of_train = [f"{one.text}\t{one.label}" for one in train[:6]]
    write_lines(folder / "train.tsv", ["text\tlabel", *rows_of_train])
    write_lines(folder / "dev.tsv", ["text\tlabel", rows_of_train[0]])
    path = tmp_path / "aug.tsv"
    manifest = augment.augment(folder, "classification", masked_lm, path, SETTINGS)
    assert manifest["dropped"]["overlap"] == 1
    assert "train:1" not in {one["source_id"] for one in rows(path)}
    # Nor does a row of others that derives from it train.
    header = "\t".join(rows_lib.HEADER)
    path.with_name("aug.tsv.json").unlink()
    write_lines(
        path,
        [header, *(f"{n}\tnew {n}\t\t{train[0].label}\ttrain:{n}\tx" for n in range(1, 7))],
    )
    info = create_task_records(
        folder, "classification", small.tokenizer, tmp_path / "records", None,
        Options(max_seq_length=32, heldout_rows=1), augmented=str(path),
    )  # fmt: skip
    assert info.dropped["augmented_overlap"] == 1


GLUE_ROWS = {
    "sst-2": ("sentence\tlabel", "{text}\t1"),
    "cola": (None, "gj04\t1\t\t{text}"),
    "mrpc": ("Quality\t#1 ID\t#2 ID\t#1 String\t#2 String", "1\t1\t2\t{text}\t{text} too"),
    "mnli": ("index\tsentence1\tsentence2\tgold_label", "0\t{text}\t{text} too\tneutral"),
    "sts-b": ("index\tsentence1\tsentence2\tscore", "0\t{text}\t{text} too\t2.5"),
}


@pytest.mark.parametrize("task", GLUE_ROWS)
def test_tasks_of_glue_take_what_was_made_of_them(small, masked_lm, tmp_path, task):
    texts = [
        one.text for one in readers.read_task(small.task_dir, "classification").splits["train"]
    ]
    header, row = GLUE_ROWS[task]
    lines = [row.format(text=text) for text in list(dict.fromkeys(texts))[:6]]
    write_lines(tmp_path / "task" / "train.tsv", [*([header] if header else []), *lines])
    path = tmp_path / "aug.tsv"
    made = augment.augment(tmp_path / "task", task, masked_lm, path, SETTINGS)
    info = create_task_records(
        tmp_path / "task", task, small.tokenizer, tmp_path / "records", None,
        Options(max_seq_length=32, heldout_rows=1), augmented=str(path),
    )  # fmt: skip
    augmented = info.splits["augmented"]
    assert made["rows"] > 6 and augmented["labelled"] == augmented["records"] > 6


def test_breaks_in_cells_of_json_do_not_break_rows(small, masked_lm, tmp_path):
    folder, path = tmp_path / "task", tmp_path / "aug.tsv"
    write_lines(folder / "train.jsonl", ['{"text": "the\\tsoup\\nwas good", "label": "a"}'] * 2)
    augment.augment(folder, "classification", masked_lm, path, SETTINGS)
    assert rows(path)[0]["text"] == "the soup was good"


def test_neighbours_come_from_the_file_of_vectors(small, masked_lm, tmp_path):
    folder, path = tmp_path / "task", tmp_path / "aug.tsv"
    write_lines(folder / "train.tsv", ["text\tlabel", "zzxqj zzxqj\ta"])
    write_lines(tmp_path / "v.txt", ["zzxqj 1.0 0.0", "stew 1.0 0.1", "far -1.0 0.0"])
    settings = Settings(rounds=20, candidates=1)
    augment.augment(
        folder, "classification", masked_lm, path, settings, word_vectors=tmp_path / "v.txt"
    )
    assert {one["text"] for one in rows(path)} == {
        "zzxqj zzxqj", "stew zzxqj", "zzxqj stew", "stew stew",
    }  # fmt: skip


def test_a_file_has_at_most_the_examples_times_columns_times_rounds_and_one(made):
    assert made[1]["rows"] <= made[1]["examples"] * (SETTINGS.rounds + 1)


def test_other_columns_make_another_file(small, masked_lm, tmp_path):
    folder, path = tmp_path / "task", tmp_path / "aug.tsv"
    write_lines(folder / "train.tsv", ["one\ttwo\tlabel", "the soup\tthe tea\ta"])
    for name in ("one", "two"):
        augment.augment(
            folder, "classification", masked_lm, path, SETTINGS, columns=Columns(text=name)
        )
    assert rows(path)[0]["text"] == "the tea"


def test_bad_input_is_one_line(small, masked_lm, tmp_path):
    arguments = (small.task_dir, "classification")
    with pytest.raises(
        ValueError, match="no masked-LM head to ask. Received: .*continue_pretraining"
    ):
        augment.augment(*arguments, small.teacher, tmp_path / "a.tsv", SETTINGS)
    with pytest.raises(FileNotFoundError, match="none.txt"):
        augment.augment(*arguments, masked_lm, tmp_path / "a.tsv", SETTINGS, tmp_path / "none.txt")
    with pytest.raises(ValueError, match="above 0 and at most 1. Received: 0"):
        Settings(replace_prob=0)
    with pytest.raises(ValueError, match="at least 1. Received: rounds=0"):
        Settings(rounds=0)
    header = "\t".join(rows_lib.HEADER)
    write_lines(tmp_path / "bad.tsv", [header, "x\tthe soup\t\tno label\ttrain:1\ttinybert"])
    with pytest.raises(ValueError, match="bad.tsv line 2: expected a label of"):
        create_task_records(
            *arguments, small.tokenizer, tmp_path / "r", None, augmented=str(tmp_path / "bad.tsv")
        )
