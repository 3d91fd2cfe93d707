"""The whole of augmentation by rules: rows, pairs, what is left out, going on, processes."""

import pytest

from tests.small_task import write_lines
from xdistil_tf import augment_rules, files
from xdistil_tf.augment_rules import augment_by_rules
from xdistil_tf.data import readers
from xdistil_tf.data.augmentation import rows as rows_lib
from xdistil_tf.data.augmentation.settings import RuleSettings
from xdistil_tf.data.record_set import RecordSet
from xdistil_tf.data.records import decode_example
from xdistil_tf.data.task_records import Options, create_task_records
from xdistil_tf.interruption import Interrupted, Interruption

pytest_plugins = ["tests.small_task"]

SETTINGS = RuleSettings(p_mask=0.2, p_pos=0.2, n_iter=4)


@pytest.fixture(scope="module")
def made(small, tmp_path_factory):
    path = tmp_path_factory.mktemp("made") / "rules.tsv"
    manifest = augment_by_rules(small.task_dir, "classification", path, SETTINGS, num_processes=1)
    return path, manifest


def rows(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0].split("\t") == list(rows_lib.HEADER)
    return [dict(zip(rows_lib.HEADER, line.split("\t"), strict=True)) for line in lines[1:]]


def test_examples_keep_their_label_and_variants_have_none(small, made):
    path, manifest = made
    found = rows(path)
    data = readers.read_task(small.task_dir, "classification")
    train = {one.id: one for one in data.splits["train"]}
    reported = {one.text for one in data.splits["dev"]}
    not_varied = sum(one.text in reported for one in train.values())
    originals = [one for one in found if not one["rules"]]
    assert {one["text"] for one in originals} == ({one.text for one in train.values()} - reported)
    for one in originals:
        assert one["id"] == one["source_id"] and train[one["id"]].label == one["label"]
    variants = [one for one in found if one["rules"]]
    assert len(variants) > len(originals)
    for one in variants:
        assert one["label"] == "" and one["id"].startswith(one["source_id"] + "/")
        assert ("mask" in one["rules"]) == ("[MASK]" in one["text"])
    assert len({one["text"] for one in found}) == len(found) == manifest["rows"]
    assert not reported & {one["text"] for one in found}
    rates = manifest["rates"]
    assert rates["attempts"] == 4 * (manifest["examples"] - not_varied)
    assert abs(rates["mask"] - 0.2) < 0.02 and abs(rates["pos"] - 0.2) < 0.02
    assert manifest["tagger"].startswith("textblob ")


def test_processes_and_chunks_do_not_change_the_file(small, made, tmp_path, monkeypatch):
    monkeypatch.setattr(augment_rules, "_CHUNK", 70)
    path = tmp_path / "rules.tsv"
    augment_by_rules(small.task_dir, "classification", path, SETTINGS, num_processes=2)
    assert path.read_bytes() == made[0].read_bytes()


def test_another_seed_gives_another_file_and_a_finished_one_is_left(small, made, tmp_path):
    path = tmp_path / "rules.tsv"
    arguments = (small.task_dir, "classification")
    augment_by_rules(*arguments, path, RuleSettings(0.2, 0.2, n_iter=4, seed=2), num_processes=1)
    assert path.read_bytes() != made[0].read_bytes()
    before = made[0].stat().st_mtime_ns
    assert augment_by_rules(*arguments, made[0], SETTINGS) == made[1]
    assert made[0].stat().st_mtime_ns == before and not list(made[0].parent.glob("*.work"))


class Crash(Exception):
    """Stands for SIGKILL."""


@pytest.mark.parametrize("function", ["write_tags", "write_variants"])
def test_a_crash_leaves_no_file_and_the_next_call_goes_on(
    small, made, tmp_path, monkeypatch, function
):
    monkeypatch.setattr(augment_rules, "_CHUNK", 50)
    original, done = getattr(augment_rules, function), []

    def crash(task):
        if len(done) == 2:
            raise Crash
        done.append(task[1])
        return original(task)

    path = tmp_path / "rules.tsv"
    arguments = (small.task_dir, "classification", path, SETTINGS)
    monkeypatch.setattr(augment_rules, function, crash)
    with pytest.raises(Crash):
        augment_by_rules(*arguments, num_processes=1)
    assert not path.exists() and not path.with_name("rules.tsv.json").exists()

    def counted(task):
        done.append(task[1])
        return original(task)

    monkeypatch.setattr(augment_rules, function, counted)
    augment_by_rules(*arguments, num_processes=1)
    assert path.read_bytes() == made[0].read_bytes()
    assert sorted(done) == list(range(len(done)))  # No chunk twice.


def test_a_stop_keeps_what_was_finished(small, made, tmp_path, monkeypatch):
    monkeypatch.setattr(augment_rules, "_CHUNK", 50)
    stop, path = Interruption(), tmp_path / "rules.tsv"
    stop.requested = True
    arguments = (small.task_dir, "classification", path, SETTINGS)
    with pytest.raises(Interrupted, match="chunks that were finished are kept"):
        augment_by_rules(*arguments, num_processes=1, interruption=stop)
    assert len(list((tmp_path / "rules.tsv.work").glob("tags-*"))) == 1
    augment_by_rules(*arguments, num_processes=1)
    assert path.read_bytes() == made[0].read_bytes()


def test_a_number_of_samples_takes_early_iterations_of_all_examples(small, made, tmp_path):
    path = tmp_path / "rules.tsv"
    settings = RuleSettings(0.2, 0.2, n_iter=4, num_samples=100)
    manifest = augment_by_rules(small.task_dir, "classification", path, settings, num_processes=1)
    all_rows, some = rows(made[0]), rows(path)
    variants = [one for one in some if one["rules"]]
    iterations = [int(one["id"].split("/")[1]) for one in variants]
    assert len(variants) == 100 and manifest["rows"] == len(some)
    assert [one for one in some if not one["rules"]] == [
        one for one in all_rows if not one["rules"]
    ]
    earlier = [one for one in all_rows if one["rules"] and int(one["id"].split("/")[1]) == 1]
    assert set(iterations) == {1} and len(earlier) >= 100
    assert variants == earlier[:100]
    assert manifest["dropped"]["beyond_num_samples"] == len(all_rows) - len(some)


def test_without_replacements_no_tagger_is_needed(small, tmp_path, monkeypatch):
    monkeypatch.setattr(augment_rules.parts_of_speech, "load_tagger", None)
    path = tmp_path / "rules.tsv"
    settings = RuleSettings(p_pos=0.0, n_iter=2)
    manifest = augment_by_rules(small.task_dir, "classification", path, settings, num_processes=1)
    assert manifest["tagger"] is None and manifest["rates"]["pos"] == 0
    assert {one["rules"] for one in rows(path)} == {"", "mask", "ngram", "mask+ngram"}


def test_what_stands_in_dev_or_test_gives_no_rows(tmp_path):
    folder, path = tmp_path / "task", tmp_path / "rules.tsv"
    write_lines(folder / "train.tsv", ["text\tlabel", "a b c d\tx", "e f g h\ty", "i j\tx"])
    write_lines(folder / "dev.tsv", ["text\tlabel", "a b c d\tx"])
    write_lines(folder / "test.tsv", ["text\tlabel", "e f\ty"])
    settings = RuleSettings(p_mask=0, p_pos=0, p_ngram=1.0, ngram_lengths=(2,), n_iter=50)
    manifest = augment_by_rules(folder, "classification", path, settings, num_processes=1)
    assert {one["text"] for one in rows(path)} == {"e f g h", "f g", "g h", "i j"}
    assert manifest["dropped"]["overlap"] == 2  # An example, and one text of another.


def test_a_variant_does_not_stand_for_an_example(tmp_path):
    folder, path = tmp_path / "task", tmp_path / "rules.tsv"
    write_lines(folder / "train.tsv", ["text\tlabel", "a b c\tx", "a b\ty"])
    settings = RuleSettings(p_mask=0, p_pos=0, p_ngram=1.0, ngram_lengths=(2,), n_iter=30)
    augment_by_rules(folder, "classification", path, settings, num_processes=1)
    assert [(one["text"], one["label"]) for one in rows(path)] == [
        ("a b c", "x"), ("b c", ""), ("a b", "y"),
    ]  # fmt: skip


def test_of_pairs_one_or_both_sides_vary(tmp_path):
    folder, path = tmp_path / "task", tmp_path / "rules.tsv"
    lines = [f"a{n} b c d\te{n} f g h\t{n % 2}" for n in range(100)]
    write_lines(folder / "train.tsv", ["text\ttext_b\tlabel", *lines])
    settings = RuleSettings(p_mask=0.3, p_pos=0.0, p_ngram=0.3)
    manifest = augment_by_rules(folder, "classification", path, settings, num_processes=1)
    assert manifest["settings"]["n_iter"] == 10
    sides = set()
    for one in (one for one in rows(path) if one["rules"]):
        number = int(one["source_id"].split(":")[1]) - 1
        changed = (one["text"] != f"a{number} b c d", one["text_b"] != f"e{number} f g h")
        assert changed == ("a:" in one["rules"], "b:" in one["rules"])
        assert one["text"] and one["text_b"]
        sides.add(changed)
    assert sides == {(True, False), (False, True), (True, True)}


def test_what_derives_from_held_out_texts_does_not_train(small, made, tmp_path):
    options = Options(max_seq_length=64, heldout_rows=40, num_shards=1)
    info = create_task_records(
        small.task_dir, "classification", small.tokenizer, tmp_path / "records", str(made[0]),
        options,
    )  # fmt: skip
    transfer = RecordSet(info.pattern("transfer"))
    by_id = {f"rules:{n}".encode(): one for n, one in enumerate(rows(made[0]), start=1)}
    heldout = {one.decode() for one in RecordSet(info.pattern("heldout")).ids}
    assert len(transfer) > 200
    assert not {by_id[one]["source_id"] for one in transfer.ids} & heldout
    masks = 0
    for number in range(len(transfer)):
        record = decode_example(transfer.read(number), "transfer")
        text = by_id[record["id"][0]]["text"]
        masks += text.count("[MASK]")
        assert record["input_ids"].count(small.tokenizer.mask_id) == text.count("[MASK]")
    assert masks > 100


def test_the_manifest_names_what_it_was_made_from(small, made):
    manifest = files.read_json(made[0].with_name("rules.tsv.json"))
    assert manifest == made[1] and manifest["method"] == "rules"
    assert manifest["inputs"]["train.tsv"] == files.file_fingerprint(small.task_dir / "train.tsv")
    assert manifest["settings"]["p_mask"] == 0.2


def test_a_task_of_tags_is_refused(tmp_path):
    with pytest.raises(ValueError, match="Tags belong to words"):
        augment_by_rules(tmp_path, "ner", tmp_path / "x.tsv")
