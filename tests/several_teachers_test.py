"""Teachers with other tokenizers, and several teachers: what they say, joined for the student."""

import dataclasses

import numpy as np
import pytest

from tests.small_task import BILSTM, OPTIONS, encoder_folder, stage, student_recipe
from xdistil_tf import cache, files, joined_cache, recipe_files, several_teachers, teaching
from xdistil_tf.data import readers, synthetic, windows
from xdistil_tf.data.task_records import Options, create_task_records
from xdistil_tf.data.tokenization import load_tokenizer
from xdistil_tf.distill import distill
from xdistil_tf.job import Job
from xdistil_tf.joined_cache import Source, write_joined_cache
from xdistil_tf.models import folders
from xdistil_tf.predict_tags import Tagger
from xdistil_tf.teacher_weights import Weights, parse_weights

pytest_plugins = ["tests.small_task", "tests.small_tags"]


@pytest.fixture(scope="module")
def other(tagged, tmp_path_factory):
    """The tagged task in the pieces of another tokenizer, and a teacher that reads them."""
    root = tmp_path_factory.mktemp("other")
    (root / "letters.txt").write_text("a b c\n" * 3)
    synthetic.train_wordpiece([root / "letters.txt"], 145, root / "tokenizer")  # Letters, nearly.
    tokenizer = load_tokenizer(root / "tokenizer")
    options = Options(max_seq_length=16, heldout_rows=30, num_shards=2)
    info = create_task_records(tagged.task_dir, "ner", tokenizer, root / "records", None, options)
    head = {"kind": "tagging", "num_labels": len(info.labels)}
    teacher = encoder_folder(root / "teacher", tokenizer, head, info.labels, initializer_range=0.3)
    return dataclasses.replace(tagged, root=root, tokenizer=tokenizer, info=info, teacher=teacher)


def cached(task, folder, names=("transfer", "heldout")):
    teacher = teaching.load_teacher(task.teacher, -1, True)
    request = {"logits": None, "representation": None}
    spec = teaching.cache_spec(
        task.teacher, teacher, request, "float16", task.tokenizer.fingerprint
    )
    sets = {name: task.records(name) for name in names}
    return cache.write_cache(teacher, spec, list(sets.values()), folder, "tagging"), sets


def join(tagged, sources, folder, weights):
    request = {"logits": None, "representation": None}
    identity = joined_cache.joined_identity(
        request, sources, weights, tagged.tokenizer.fingerprint, tagged.info.labels
    )
    sets = {name: tagged.records(name) for name in ("transfer", "heldout")}
    return write_joined_cache(sources, weights, sets, folder, identity)


def rows_of(made, records, feature="teacher/logits"):
    reader = made.readers({"logits": None, "representation": None}, records)[feature]
    numbers = np.arange(len(records))
    return reader.read(records.ids, records.lengths, int(records.lengths.max()), numbers)


def first_pieces(records):
    part = joined_cache._Part.of(records, np.arange(len(records)))
    return part.begins, part.words


def test_each_word_has_what_the_teacher_says_of_its_first_piece(tagged, other, tmp_path):
    assert other.info.splits["transfer"]["records"] > tagged.info.splits["transfer"]["records"]
    made, sets = cached(other, tmp_path / "cache_1")
    source = Source(made, sets, same_ids=False)
    joined = join(tagged, [source], tmp_path / "cache", Weights((1.0,)))
    model = folders.load_model(other.teacher)
    said = {}

    def decode(sentences):  # Keeps what the teacher says of each word.
        said.update(enumerate(sentences))
        return [(np.zeros(len(one), int), np.zeros(len(one))) for one in sentences]

    tagger = Tagger(
        lambda batch: model(batch)["logits"], decode, other.tokenizer, other.info.labels, 16
    )
    records = tagged.records("heldout")
    texts = {one.id: one.text for one in readers.read_task(tagged.task_dir, "ner").splits["train"]}
    names = [windows.sentence_of(name.decode())[0] for name in records.ids.tolist()]
    tagger.tag([texts[name] for name in names])
    values, (begins, words) = rows_of(joined, records), first_pieces(records)
    whole = 0
    for row, name in enumerate(names):
        for place in np.flatnonzero(begins[row]):
            word = words[row, place]
            if len(other.tokenizer.encode_windows([texts[name]], 16)[0]) == 1:
                np.testing.assert_allclose(values[row, place], said[row][word], atol=2e-3)
                whole += 1
            assert np.any(values[row, place])
        assert not np.any(values[row][~begins[row]])
    assert whole > 10


def test_several_teachers_are_averaged_by_language(tagged, other, tmp_path):
    first, own = cached(tagged, tmp_path / "cache_1")
    second, theirs = cached(other, tmp_path / "cache_2")
    sources = [Source(first, own, True), Source(second, theirs, False)]
    alone = [
        join(tagged, [one], tmp_path / f"alone_{number}", Weights((1.0,)))
        for number, one in enumerate(sources)
    ]
    weights = parse_weights("1,3;sw:0,1", 2)
    joined = join(tagged, sources, tmp_path / "cache", weights)
    records = tagged.records("heldout")
    begins, _ = first_pieces(records)
    languages = joined_cache._Part.of(records, np.arange(len(records))).languages
    given = [rows_of(one, records) for one in alone]
    mean = rows_of(joined, records)
    for row, language in enumerate(languages):
        share = (0.0, 1.0) if language == b"sw" else (0.25, 0.75)
        expected = share[0] * given[0][row] + share[1] * given[1][row]
        np.testing.assert_allclose(mean[row][begins[row]], expected[begins[row]], atol=5e-3)
    assert {b"en", b"sw"} == set(languages.tolist())


def test_a_joined_cache_is_kept_and_refuses_others(tagged, other, tmp_path, monkeypatch):
    made, sets = cached(other, tmp_path / "cache_1")
    source = Source(made, sets, False)
    join(tagged, [source], tmp_path / "cache", Weights((1.0,)))
    monkeypatch.setattr(joined_cache, "_join_shard", None)  # Nothing is done again.
    join(tagged, [source], tmp_path / "cache", Weights((1.0,)))
    with pytest.raises(ValueError, match="was made from something else"):
        join(tagged, [source], tmp_path / "cache", Weights((2.0,)))


def test_rows_of_records_that_changed_are_joined_again(tagged, other, tmp_path):
    made, sets = cached(other, tmp_path / "cache_1")
    source = Source(made, sets, False)
    arguments = (tagged, [source], tmp_path / "cache", Weights((1.0,)))
    join(*arguments)
    info = files.read_json(tmp_path / "cache" / "cache.json")
    info["records"] = {
        name: "others" if name.startswith("heldout") else known
        for name, known in info["records"].items()
    }
    files.write_json(tmp_path / "cache" / "cache.json", info)

    def times(name):
        return {one.name: one.stat().st_mtime_ns for one in (tmp_path / "cache").glob(f"{name}-*")}

    before = times("transfer"), times("heldout")
    join(*arguments)
    after = times("transfer"), times("heldout")
    assert before[0] == after[0] and before[0]
    assert before[1].keys() == after[1].keys()
    assert all(after[1][name] > time for name, time in before[1].items())


def test_a_joined_cache_has_the_precision_of_its_sources(tagged, tmp_path):
    teacher = teaching.load_teacher(tagged.teacher, -1, True)
    spec = teaching.cache_spec(
        tagged.teacher, teacher, {"logits": None}, "bfloat16", tagged.tokenizer.fingerprint
    )
    sets = {"heldout": tagged.records("heldout")}
    made = cache.write_cache(teacher, spec, list(sets.values()), tmp_path / "cache_1", "tagging")
    source, weights = Source(made, sets, True), Weights((1.0,))
    identity = joined_cache.joined_identity(
        {"logits": None}, [source], weights, tagged.tokenizer.fingerprint, tagged.info.labels
    )
    joined = write_joined_cache([source], weights, sets, tmp_path / "cache", identity)
    names = {"logits": None}
    assert joined.readers(names, sets["heldout"])["teacher/logits"].precision == "bfloat16"


def test_a_word_is_read_where_it_is_farthest_from_a_border():
    # One sentence of seven words in three windows; words 2 to 5 stand in two of them.
    words = np.array([[-1, 0, 1, 2, 3, 3, -1], [-1, 2, 3, 4, 5, -1, -1], [-1, 4, 4, 5, 6, -1, -1]])
    before = np.pad(words[:, :-1], [(0, 0), (1, 0)], constant_values=-1)
    begins = (words >= 0) & (words != before)
    found = joined_cache._best_places([0, 1, 2], words, begins)
    assert found == {0: (0, 1), 1: (0, 2), 2: (0, 3), 3: (1, 2), 4: (1, 3), 5: (2, 3), 6: (2, 4)}


def test_a_missing_sentence_is_named(tagged, other, tmp_path):
    made, sets = cached(other, tmp_path / "cache_1")
    mixed = {"transfer": sets["heldout"], "heldout": sets["transfer"]}
    with pytest.raises(ValueError, match="lack train-en:"):
        join(tagged, [Source(made, mixed, False)], tmp_path / "cache", Weights((1.0,)))


def job(task, folder, config, **fields):
    finetune = recipe_files.load_recipe("configs/bert/finetune.yaml", ["max_seq_length=16"])
    return Job(
        recipe=config,
        teacher_recipe=finetune,
        task_dir=str(task.task_dir),
        task="ner",
        model_dir=str(folder),
        records=Options(max_seq_length=16, heldout_rows=30, num_shards=2),
        accept_weak_teacher=True,
        export=False,
        **fields,
    )


def words_recipe(**fields):
    by_word = stage(
        objective=[
            {"loss": "mean_squared_error", "output": "logits", "at": "word"},
            {"loss": "mean_squared_error", "output": "representation", "at": "word"},
        ],
        evaluate={"data": "heldout"},
    )
    labels = stage(name="labels", data="train", objective=[{"loss": "task"}])
    return student_recipe(by_word, labels, max_seq_length=16, **fields)


def test_a_student_has_its_own_tokenizer(tagged, other, tmp_path):
    config = words_recipe()
    one = job(
        tagged, tmp_path / "run", config, teacher=other.teacher,
        tokenizer=str(tagged.root / "tokenizer"),
    )  # fmt: skip
    report = distill(one, options=OPTIONS)
    assert (tmp_path / "run" / "teacher_records" / "1" / "task.json").is_file()
    kept = files.read_json(tmp_path / "run" / "cache" / "cache.json")["made_from"]
    assert kept["by_word"] and kept["tokenizer"] == tagged.tokenizer.fingerprint
    assert report["teacher"]["metrics"] == pytest.approx(
        report["teacher"]["teachers"][0]["metrics"], abs=0.05
    )
    assert report["examples"] == tagged.info.splits["dev"]["labelled"]
    stages = report["stages"]
    again = distill(one, options=OPTIONS)
    assert again["stages"] == stages


def test_two_teachers_teach_one_student(tagged, other, tmp_path):
    two = job(
        tagged, tmp_path / "run", words_recipe(), teacher=tagged.teacher,
        more_teachers=(other.teacher,), teacher_weights="1,1;sw:1,0",
    )  # fmt: skip
    report = distill(two, options=OPTIONS)
    assert len(report["teacher"]["teachers"]) == 2
    sizes = [one["parameters"] for one in report["teacher"]["teachers"]]
    assert report["teacher"]["parameters"] == sum(sizes)


def test_what_other_ids_do_not_allow_is_refused(tagged, other, tmp_path, monkeypatch):
    """Before the first teacher learns."""
    monkeypatch.setattr(several_teachers, "_teacher", None)
    pieces = student_recipe(stage(), max_seq_length=16)
    tokenizer = str(tagged.root / "tokenizer")

    def refused(config, message, **fields):
        fields = {"teacher": other.teacher, "tokenizer": tokenizer} | fields
        with pytest.raises(ValueError, match=message):
            distill(job(tagged, tmp_path / message[:9], config, **fields), options=OPTIONS)

    refused(pieces, "compares all pieces.*Set at: word")
    refused(words_recipe(teacher={"mode": "live"}), "Expected a recipe with teacher.mode: cached")
    hidden = stage(
        objective=[{"loss": "mean_squared_error", "output": "hidden", "layers": [[1, 1]]}]
    )
    refused(student_recipe(hidden, max_seq_length=16), "compares 'hidden'")
    embedded = BILSTM | {"embedding": {"source": "teacher", "dim": 8}}
    refused(words_recipe(model=embedded), "another tokenizer. Expected source: random")
    refused(words_recipe(), "names sv, which the task does not have", teacher_weights="1;sv:2")


@pytest.mark.parametrize(
    ("text", "message"),
    [("1", "Expected 2 numbers"), ("1,x", "such as 1,2;sw:0,1"), ("1,2;sw:0,0", "not all 0")],
)
def test_weights_that_mean_nothing_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_weights(text, 2)
