"""Soft labels end to end: text -> records -> a teacher's words -> cache -> a student; resumed."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import tensorflow as tf

from tests.conformance.recipes_test import Crash, shrunk
from tests.small_task import OPTIONS, encoder_folder
from tests.tiny import two_replicas
from xdistil_tf import cache, cache_checks, files, recipe, recipes, teaching, trainer
from xdistil_tf.data import synthetic
from xdistil_tf.data.pipeline import Batches
from xdistil_tf.data.pretraining import write_pretraining_records
from xdistil_tf.data.record_set import RecordSet
from xdistil_tf.data.slot_sidecars import (
    SlotSidecarReader,
    SlotSidecarWriter,
    read_slot_index,
)
from xdistil_tf.run import run

pytest_plugins = ["tests.calls", "tests.small_task"]

WORDS = "masked_lm_top_k"
BOTH = {WORDS: None, "next_sentence_logits": None}
ERRORS = {"float16": 1e-3, "bfloat16": 6e-3, "uint8": 0.03}
TERM = {"loss": "top_k_cross_entropy", "output": "masked_lm_logits"}


@dataclasses.dataclass(frozen=True)
class Text:
    folder: str  # Of the records.
    teacher: str
    tokenizer: object

    @property
    def data(self):
        return {"corpus": f"{self.folder}/train-*", "heldout": f"{self.folder}/heldout-*"}

    @property
    def sets(self):
        return [RecordSet(pattern) for pattern in self.data.values()]


@pytest.fixture(scope="module")
def text(small, tmp_path_factory):
    root = tmp_path_factory.mktemp("text")
    synthetic.generate_corpus(root / "corpus.txt", 40)
    write_pretraining_records(
        root / "corpus.txt", small.tokenizer, root / "records", 32, 6,
        heldout_fraction=0.2, num_shards=2,
    )  # fmt: skip
    head = {"kind": "pretraining", "next_sentence": True}
    teacher = encoder_folder(root / "lm", small.tokenizer, head, initializer_range=0.5)
    return Text(str(root / "records"), teacher, small.tokenizer)


def keep(text, folder, precision="float16", request=None, top_k=6, temperatures=(2.0,), **options):
    live = teaching.load_teacher(text.teacher, -1, False, "float32", top_k, temperatures)
    request = request or BOTH
    spec = teaching.cache_spec(text.teacher, live, request, precision, text.tokenizer.fingerprint)
    return live, cache.write_cache(live, spec, text.sets, folder, None, **options)


@pytest.fixture(scope="module")
def kept(text, tmp_path_factory):
    return keep(text, tmp_path_factory.mktemp("kept") / "cache")


def student(text, *terms, **fields):
    """The recipe that comes along, of two steps and a tiny model."""
    config = shrunk(recipes.find("transformer_distillation/soft_label_mlm.yaml"))
    plain = recipe.to_plain(config) | fields
    if terms:
        plain["stages"][0]["objective"] = list(terms)
    return recipe.Recipe.model_validate(plain)


# The cache


@pytest.mark.parametrize("precision", ERRORS)
def test_cached_words_are_the_live_ones_within_the_precision(text, tmp_path, precision):
    live, made = keep(text, tmp_path, precision)
    records = text.sets[0]
    for batch in Batches(records, 16, seed=3, sidecars=made.readers(BOTH, records)).dataset(0, 3):
        kept, given = made.teacher()(batch, BOTH), live(batch, BOTH)
        np.testing.assert_allclose(
            kept["next_sentence_logits"], given["next_sentence_logits"], rtol=1e-2, atol=2e-3
        )
        real = batch["masked_lm_weights"].numpy() > 0
        assert real.any() and not real.all()
        for name, value in given[WORDS].items():
            mine, theirs = kept[WORDS][name].numpy()[real], value.numpy()[real]
            if name == "ids":
                assert (mine == theirs).mean() > 0.99
            elif name.startswith("log_"):
                np.testing.assert_allclose(np.exp(mine), np.exp(theirs), atol=ERRORS[precision])
            else:
                np.testing.assert_allclose(mine, theirs, rtol=1e-2, atol=1e-3)
    written = [read_slot_index(path) for path in made.folder.glob(f"*.{WORDS}.bin")]
    assert made.info["largest_error"] == max(one.largest_error for one in written)
    assert 1e-5 < made.info["largest_error"] < ERRORS[precision]
    beside = made.readers(BOTH, records)["teacher/next_sentence_logits"].precision
    assert beside == ("bfloat16" if precision == "bfloat16" else "float16")
    assert cache_checks.verify(made, live, records, 1000) < ERRORS[precision] * 2


def test_planned_bytes_equal_real_bytes(text, kept):
    info = kept[1].info
    weights = [
        batch["masked_lm_weights"].numpy()
        for records in text.sets
        for batch in Batches(records, 8, shuffle=False).dataset(0, -(-len(records) // 8))
    ]
    slots = int(sum(one.sum() for one in weights))
    assert (info["slots"], info["bytes_per_slot"]) == (slots, 6 * 4 + 4)
    assert info["planned_bytes"] == info["bytes"]
    assert info["bytes"] == slots * 28 + 4 * sum(len(records) for records in text.sets)
    made_from = info["made_from"]
    assert (made_from["top_k"], made_from["temperatures"]) == (6, [2.0])


def test_a_killed_pass_goes_on_by_shard_to_the_same_bytes(text, kept, tmp_path, monkeypatch):
    original, rows = SlotSidecarWriter.write, []

    def write(self, ids, values, lengths):
        rows.extend(ids)
        if len(rows) == whole + 3:
            raise Crash
        original(self, ids, values, lengths)

    first = RecordSet(f"{text.folder}/train-00000-of-00002.tfrecord")
    whole = len(first)
    monkeypatch.setattr(SlotSidecarWriter, "write", write)
    with pytest.raises(Crash):
        keep(text, tmp_path)
    assert {path.name for path in tmp_path.glob("*.masked_lm_top_k.*")} == {
        f"train-00000-of-00002.{WORDS}.{end}" for end in ("bin", "index")
    }
    rows.clear()
    whole = -9
    again = keep(text, tmp_path)[1]
    assert len(rows) == sum(len(records) for records in text.sets) - len(first)
    for path in [*kept[1].folder.glob("*.bin"), *kept[1].folder.glob("*.index")]:
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name
    assert again.info["largest_error"] == kept[1].info["largest_error"]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"top_k": 5}, "top_k was 6 and is now 5"),
        ({"temperatures": ()}, "temperatures"),
        ({"precision": "uint8"}, "precision was float16 and is now uint8"),
    ],
)
def test_a_cache_of_other_words_is_refused(text, kept, changes, field):
    with pytest.raises(ValueError, match=f"made from something else: .*{field}"):
        keep(text, kept[1].folder, **changes)


def test_verify_finds_a_wrong_word(text, kept, tmp_path):
    live, made = kept
    shutil.copytree(made.folder, tmp_path / "cache")
    path = tmp_path / "cache" / f"train-00000-of-00002.{WORDS}.bin"
    reader = SlotSidecarReader([path])
    records = RecordSet(f"{text.folder}/train-00000-of-00002.tfrecord")
    rows = reader.rows(records.ids)
    rows[3]["ids"][0, 0] = next(i for i in range(100) if i not in rows[3]["ids"][0])
    with cache._writer(path, reader.row, "float16") as writer:
        writer.write(records.ids, rows, records.lengths)
    wrong = cache.TeacherCache(tmp_path / "cache")
    assert cache_checks.verify(made, live, records, 1000) < 2e-3
    assert cache_checks.verify(wrong, live, records, 1000) > 0.02


def test_whole_vocabularies_are_not_kept(text, tmp_path):
    with pytest.raises(ValueError, match="not kept on disk. Keep masked_lm_top_k"):
        keep(text, tmp_path, request={"masked_lm_logits": None})
    with pytest.raises(ValueError, match="uint8 is for masked_lm_top_k alone"):
        keep(text, tmp_path, "uint8", {"next_sentence_logits": None})


# Training


def test_the_recipe_trains_and_resumes_to_the_same_bytes(text, kept, tmp_path, monkeypatch):
    cached = {"teacher_cache": str(kept[1].folder), "options": OPTIONS}
    whole = run(student(text), text.data, tmp_path / "whole", **cached)
    assert whole["stages"][0]["steps"] == 2 and np.isfinite(whole["stages"][0]["loss"])
    original = trainer._StageRun._save

    def save(self):
        original(self)
        raise Crash

    monkeypatch.setattr(trainer._StageRun, "_save", save)
    with pytest.raises(Crash):
        run(student(text), text.data, tmp_path / "again", **cached)
    monkeypatch.setattr(trainer._StageRun, "_save", original)
    run(student(text), text.data, tmp_path / "again", **cached)
    models = [tmp_path / name / "model/model.safetensors" for name in ("whole", "again")]
    assert models[0].read_bytes() == models[1].read_bytes()


def losses_of(text, folder, config, **named):
    result = run(config, text.data, folder, options=OPTIONS, **named)
    return result["stages"][0]["loss"]


def test_a_live_teacher_a_cache_of_its_own_and_a_given_one_train_alike(text, kept, tmp_path):
    term = TERM | {"temperature": 2.0, "options": {"k": 4}}
    losses = {}
    for mode in ("live", "cached"):
        config = student(text, term, teacher={"mode": mode, "top_k": 6})
        losses[mode] = losses_of(text, tmp_path / mode, config, teacher=text.teacher)
    made = cache.TeacherCache(tmp_path / "cached" / "cache").info
    assert (made["made_from"]["top_k"], made["made_from"]["temperatures"]) == (6, [2.0])
    assert not (tmp_path / "live" / "cache" / "cache.json").exists()
    given = {"teacher_cache": str(kept[1].folder)}
    losses["given"] = losses_of(text, tmp_path / "given", student(text, term), **given)
    assert losses["given"] == losses["cached"]
    assert losses["live"] == pytest.approx(losses["cached"], rel=1e-3)


def test_two_replicas_and_micro_batches_equal_one(text, kept, tmp_path):
    cached = {"teacher_cache": str(kept[1].folder)}
    model = recipe.to_plain(student(text))["model"]
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config = student(text, model=model | dropout)  # Which differs from slice to slice.
    one = run(config, text.data, tmp_path / "one", options=OPTIONS, **cached)
    halves = dataclasses.replace(OPTIONS, gradient_accumulation=2)
    two = run(config, text.data, tmp_path / "two", options=halves, **cached)
    replicas = run(
        config, text.data, tmp_path / "replicas", options=OPTIONS, strategy=two_replicas(), **cached
    )
    for other in (two, replicas):
        assert other["stages"][0]["loss"] == pytest.approx(one["stages"][0]["loss"], rel=1e-5)


def test_soft_next_sentences_train_beside_gold_words(text, kept, tmp_path):
    terms = (
        TERM,
        {"loss": "soft_cross_entropy", "output": "next_sentence_logits"},
        {"loss": "cross_entropy", "output": "masked_lm_logits", "target": "masked_lm_ids"},
    )
    config = student(text, *terms)
    assert np.isfinite(losses_of(text, tmp_path, config, teacher_cache=str(kept[1].folder)))


def test_all_words_of_a_live_teacher_train_as_its_whole_scores(text, tmp_path):
    size = len(text.tokenizer.tokens)
    losses = {}
    for name, term in (
        ("scores", {"loss": "soft_cross_entropy", "output": "masked_lm_logits"}),
        ("words", TERM | {"options": {"k": size}}),
    ):
        config = student(text, term, teacher={"mode": "live", "top_k": size})
        losses[name] = losses_of(text, tmp_path / name, config, teacher=text.teacher)
    assert losses["words"] == pytest.approx(losses["scores"], rel=1e-5)


@pytest.mark.parametrize(
    ("term", "fields", "message"),
    [
        ({"options": {"k": 7}}, {}, "compares 7 words .options.k., .* has 6 .*--top_k=7"),
        ({"temperature": 3.0}, {}, "temperature 3, .*Make it again with --temperatures=2,3"),
        ({}, {"teacher": {"top_k": 7}}, "says teacher.top_k=7, .* has 6 words"),
    ],
)
def test_what_a_cache_does_not_hold_is_refused_before_the_first_step(
    text, kept, tmp_path, term, fields, message
):
    config = student(text, TERM | term, **fields)
    with pytest.raises(ValueError, match=message):
        run(config, text.data, tmp_path, teacher_cache=str(kept[1].folder), options=OPTIONS)
    assert not list(tmp_path.glob("01_*"))


def test_more_words_than_a_live_teacher_is_asked_for(text, tmp_path):
    config = student(text, TERM | {"options": {"k": 20}}, teacher={"mode": "live"})
    with pytest.raises(ValueError, match="compares 20 words .*10 a slot. Set teacher.top_k=20"):
        run(config, text.data, tmp_path, teacher=text.teacher, options=OPTIONS)
    config = student(text, TERM, teacher={"mode": "live", "top_k": 10**6})
    with pytest.raises(ValueError, match="Invalid top_k. Expected 1 to .*vocabulary"):
        run(config, text.data, tmp_path, teacher=text.teacher, options=OPTIONS)


def test_a_teacher_that_may_name_words_the_student_lacks_is_refused(text, tmp_path):
    size = len(text.tokenizer.tokens)
    head = {"kind": "pretraining", "next_sentence": True}
    padded = encoder_folder(tmp_path / "lm", text.tokenizer, head, vocab_size=size + 8)
    live = {"teacher": {"mode": "live"}}
    config = student(text, TERM, **live)
    message = f"names words of {size + 8}, the student knows {size}.*model.vocab_size={size + 8}"
    with pytest.raises(ValueError, match=message):
        run(config, text.data, tmp_path / "run", teacher=padded, options=OPTIONS)
    model = recipe.to_plain(config)["model"] | {"vocab_size": size + 8}
    config = student(text, TERM, model=model, **live)
    run(config, text.data, tmp_path / "larger", teacher=padded, options=OPTIONS)


def test_words_of_another_tokenizer_are_refused(text, kept, tmp_path):
    folder = tmp_path / "cache"
    shutil.copytree(kept[1].folder, folder)
    info = json.loads((folder / "cache.json").read_text())
    info["made_from"]["tokenizer"] = "another"
    (folder / "cache.json").write_text(json.dumps(info))
    with pytest.raises(ValueError, match="belongs to another tokenizer than the records"):
        run(student(text), text.data, tmp_path / "run", teacher_cache=str(folder), options=OPTIONS)


# The binary


def words_flags(text, folder, *more):
    return [
        f"--teacher={text.teacher}",
        f"--records={text.folder}/*",
        f"--outputs={WORDS},next_sentence_logits",
        f"--output_dir={folder}",
        *more,
    ]


def test_the_binary_keeps_words_of_pretraining_records(call, text, kept, tmp_path):  # noqa: F811
    more = ["--top_k=6", "--temperatures=1,2", "--verify=5"]
    assert call("cache_teacher", *words_flags(text, tmp_path / "soft", *more)) == (0, "")
    for path in kept[1].folder.glob("*.bin"):
        assert (tmp_path / "soft" / path.name).read_bytes() == path.read_bytes(), path.name
    more = ["--cache_precision=uint8"]
    assert call("cache_teacher", *words_flags(text, tmp_path / "coarse", *more)) == (0, "")
    info = cache.TeacherCache(tmp_path / "coarse").info
    assert info["bytes_per_slot"] == pytest.approx(32 + 4 * 52 / info["slots"], abs=1.0)
    assert info["made_from"]["top_k"] == 10


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--top_k=0", "Invalid top_k. Expected 1 to"),
        ("--top_k=1000000", "Invalid top_k. Expected 1 to"),
        ("--temperatures=warm", "Invalid --temperatures. Expected positive numbers"),
        ("--temperatures=-1", "Invalid --temperatures"),
        ("--outputs=masked_lm_logits", "not kept on disk"),
    ],
)
def test_wrong_flags_are_one_line(call, text, tmp_path, flag, message):  # noqa: F811
    code, line = call("cache_teacher", *words_flags(text, tmp_path / "soft", flag))
    assert code == 1 and message in line, line


def test_flags_about_words_without_words(call, text, tmp_path):  # noqa: F811
    for more in (["--top_k=3"], ["--temperatures=2"]):
        more = ["--outputs=next_sentence_logits", *more]
        code, line = call("cache_teacher", *words_flags(text, tmp_path / "soft", *more))
        assert code == 1 and "Expected it among --outputs" in line, line


def test_a_teacher_without_a_masked_lm_head(call, small, text, tmp_path):  # noqa: F811
    teacher = f"--teacher={small.encoder}"
    code, line = call("cache_teacher", *words_flags(text, tmp_path, teacher, f"--outputs={WORDS}"))
    assert code == 1 and "has no masked-LM head" in line, line


@pytest.mark.parametrize(
    ("masking", "message"),
    [("dynamic", "have other masks each time"), ("none", "have no masks"), ("odd", "'odd'")],
)
def test_records_whose_masks_do_not_stay(call, text, tmp_path, masking, message):  # noqa: F811
    shutil.copytree(text.folder, tmp_path / "records")
    path = tmp_path / "records" / "pretraining.json"
    files.write_json(path, files.read_json(path) | {"format": 2, "masking": masking})
    records = f"--records={tmp_path}/records/train-*"
    code, line = call("cache_teacher", *words_flags(text, tmp_path / "soft", records))
    assert code == 1 and message in line and "cannot be kept" in line, line
    assert not (tmp_path / "soft").exists()


def test_records_of_a_task_or_of_another_tokenizer(call, small, text, tmp_path):  # noqa: F811
    task = f"--records={small.info.pattern('heldout')}"
    code, line = call("cache_teacher", *words_flags(text, tmp_path / "soft", task))
    assert code == 1 and "belong to a task and have no masked slots" in line, line
    shutil.copytree(text.folder, tmp_path / "records")
    path = tmp_path / "records" / "pretraining.json"
    info = files.read_json(path)
    files.write_json(path, info | {"tokenizer": info["tokenizer"] | {"fingerprint": "other"}})
    records = f"--records={tmp_path}/records/train-*"
    code, line = call("cache_teacher", *words_flags(text, tmp_path / "soft", records))
    assert code == 1 and "is not the tokenizer that" in line, line
    files.write_json(path, {"format": 2})
    code, line = call("cache_teacher", *words_flags(text, tmp_path / "soft", records))
    assert code == 1 and "pretraining.json is damaged: it lacks 'tokenizer'" in line, line


def test_an_unused_slot_before_a_used_one_is_named(text):
    from xdistil_tf.cache_rows import real_slots

    weights = np.array([[1, 1, 0], [0, 1, 0]], np.float32)
    with pytest.raises(ValueError, match="record b has an unused masked slot before a used one"):
        real_slots(weights, np.array([b"a", b"b"]))
    assert real_slots(tf.constant(weights[:1]).numpy(), np.array([b"a"])).tolist() == [2]
