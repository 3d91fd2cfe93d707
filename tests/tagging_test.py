"""Tagging from files to entities: windows, scores, listings, predictions."""

import io
import itertools
import json
import sys

import numpy as np
import pytest
import tensorflow as tf

from tests.small_tags import SENTENCES, TAGS, write_tagged
from tests.small_task import BILSTM, OPTIONS, stage, student_recipe
from xdistil_tf import (
    checkpoints,
    evaluate,
    evaluate_tags,
    files,
    predict_tags,
    report,
    tag_decoding,
)
from xdistil_tf.data import language_draw, readers
from xdistil_tf.data.task_records import Options, create_task_records
from xdistil_tf.evaluate import EvaluatedModel
from xdistil_tf.metrics import spans
from xdistil_tf.models import folders
from xdistil_tf.predict import Predictor, predict_file
from xdistil_tf.predictions import predict_records
from xdistil_tf.run import run

pytest_plugins = ["tests.small_task", "tests.small_tags", "tests.calls"]


@pytest.fixture(scope="module")
def predictor(tagger):
    return Predictor(str(tagger))


def dev_sentences(tagged):
    data = readers.read_task(tagged.task_dir, "ner", labels=TAGS, splits=["dev"])
    return data.splits["dev"]


def test_long_sentences_are_several_records_and_one_example(tagged, tagger):
    records, sentences = tagged.records("dev"), dev_sentences(tagged)
    assert len(records) > len(sentences)
    assert tagged.info.splits["dev"]["labelled"] == len(sentences)
    assert tagged.info.splits["dev"]["truncated"] == 0
    result = EvaluatedModel(str(tagger)).on_records(tagged.info.pattern("dev"))
    assert result["examples"] == len(sentences)


def test_a_student_learns_and_is_selected_by_the_mean_over_languages(tagger):
    (stage,) = files.read_json(tagger / "run.json")["stages"]
    assert stage["key"] == "macro"
    found = stage["metrics"]
    assert found["macro"] == pytest.approx((found["span_f1/en"] + found["span_f1/sw"]) / 2)
    assert found["macro"] > 0.8


def test_every_gold_word_is_scored_once_in_its_order(tagged, tagger):
    predictions = predict_records(
        lambda batch: np_logits(batch), tagged.records("dev"), tagged.info, batch_size=7
    )
    gold, _ = predictions.comparable(tagged.info)
    expected = {one.id: list(one.label) for one in dev_sentences(tagged)}
    assert {
        name.decode(): tags for name, tags in zip(predictions.ids, gold, strict=True)
    } == expected


def np_logits(batch):
    return tf.zeros([*batch["input_ids"].shape, len(TAGS)])


@pytest.mark.parametrize("batch_size", [1, 50])
def test_predictions_are_those_of_evaluation(tagged, tagger, predictor, batch_size):
    sentences = dev_sentences(tagged)
    tagged_words = predictor.tagger.tag([one.text for one in sentences], batch_size)
    predicted = [one.tags for one in tagged_words]
    metrics = EvaluatedModel(str(tagger)).on_task(str(tagged.task_dir), split="dev")["metrics"]
    # Tags are written in IOB2: strict scores are then what lenient ones were before.
    ours = spans.compute([one.label for one in sentences], predicted)
    assert ours["span_f1"] == pytest.approx(metrics["lenient_span_f1"])


def test_entities_say_where_they_stand(predictor, tmp_path):
    text = "  Lucy Mary Hart, of New York, sleeps ☕"
    (row,) = predictor.tagger.rows([text])
    assert row["text"] == text
    assert [word["text"] for word in row["words"]] == [
        "Lucy", "Mary", "Hart", ",", "of", "New", "York", ",", "sleeps", "☕",
    ]  # fmt: skip
    for part in [*row["words"], *row["entities"]]:
        assert text[part["start"] : part["end"]] == part["text"]
    assert [(one["type"], one["text"]) for one in row["entities"]] == [
        ("PER", "Lucy Mary Hart"),
        ("LOC", "New York"),
    ]
    scores = [word["score"] for word in row["words"][:3]]
    assert row["entities"][0]["score"] == min(scores)


def test_a_file_is_predicted_line_by_line(predictor, tmp_path, monkeypatch):
    monkeypatch.setattr(predict_tags, "CHUNK", 2)
    lines = ["anna lives in rome.", "", "x" * 300, "peter " * 40, "\u200b \u0007"]
    (tmp_path / "in.txt").write_text("".join(f"{one}\n" for one in lines), "utf-8")
    count = predict_file(predictor, str(tmp_path / "in.txt"), str(tmp_path / "out.jsonl"), 4)
    rows = [json.loads(one) for one in (tmp_path / "out.jsonl").read_text("utf-8").splitlines()]
    assert count == len(lines) and [row["text"] for row in rows] == lines
    assert rows[1] == {"text": "", "words": [], "entities": []}
    assert len(rows[3]["words"]) == 40
    with open(tmp_path / "in.txt", "rb") as handle:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(handle))
        predict_file(predictor, "-", str(tmp_path / "again.jsonl"), 64)
    assert (tmp_path / "again.jsonl").read_text("utf-8") == (tmp_path / "out.jsonl").read_text(
        "utf-8"
    )


def test_given_words_are_not_split(predictor):
    (row,) = predictor.tagger.rows(["u.s. rome."], pretokenized=True)
    assert [word["text"] for word in row["words"]] == ["u.s.", "rome."]


def test_what_goes_wrong_is_told_by_type_word_and_span(tagged, tagger, call, tmp_path):
    outputs = {name: tmp_path / name for name in ("m.json", "errors.tsv", "f1.svg")}
    assert call(
        "evaluate",
        f"--model_dir={tagger}",
        f"--task_dir={tagged.task_dir}",
        f"--teacher={tagger}",
        "--by_language",
        f"--output_json={outputs['m.json']}",
        f"--errors_file={outputs['errors.tsv']}",
        f"--plot_file={outputs['f1.svg']}",
    ) == (0, "")
    metrics = files.read_json(outputs["m.json"])
    assert set(metrics["by_type"]) == {"LOC", "PER"}
    assert metrics["teacher"]["metrics"] == metrics["metrics"]
    words = sum(len(one.text) for one in dev_sentences(tagged))
    assert np.sum(metrics["confusion"]["counts"]) == words
    header, *rows = outputs["errors.tsv"].read_text("utf-8").splitlines()
    assert header.split("\t") == list(evaluate_tags.HEADER)
    missed = sum(one["support"] * (1 - one["recall"]) for one in metrics["by_type"].values())
    assert len(rows) >= round(missed)
    assert outputs["f1.svg"].read_text("utf-8").startswith("<?xml")
    alone = {name: value for name, value in metrics.items() if name != "teacher"}
    assert "teacher" not in evaluate_tags.language_table(alone)
    table = evaluate_tags.language_table(metrics)
    assert [line.split()[0] for line in table.splitlines()] == ["language", "en", "sw", "mean"]


def test_flags_of_evaluate_that_do_not_fit_are_told_before_anything_is_scored(
    tagged, tagger, call, tmp_path, monkeypatch
):
    monkeypatch.setattr(evaluate.EvaluatedModel, "_scored", None)
    records = (f"--model_dir={tagger}", f"--records={tagged.info.pattern('dev')}")
    code, line = call("evaluate", *records, f"--errors_file={tmp_path / 'e.tsv'}")
    assert code == 1 and "Expected --task_dir instead of --records" in line
    code, line = call("evaluate", *records, f"--plot_file={tmp_path / 'f1.bmp'}")
    assert code == 1 and "to end in .png, .svg or .pdf" in line


def test_records_are_scored_in_some_languages(tagged, tagger):
    model, pattern = EvaluatedModel(str(tagger)), tagged.info.pattern("dev")
    every, some = model.on_records(pattern), model.on_records(pattern, languages=["sw"])
    assert some["metrics"]["span_f1"] == every["by_language"]["languages"]["sw"]["span_f1"]
    assert some["examples"] < every["examples"]
    with pytest.raises(ValueError, match="No example is of fr. Expected some of en, sw"):
        model.on_records(pattern, languages=["fr"])


def test_few_labels_are_drawn_of_each_language(tagged, tmp_path):
    options = Options(max_seq_length=16, heldout_rows=4, num_shards=1, labels_per_language=10)
    info = create_task_records(
        tagged.task_dir, "ner", tagged.tokenizer, tmp_path / "few", None, options
    )
    labelled = info.splits["train"]["labelled"] + info.splits["heldout"]["labelled"]
    assert labelled == 10 * len(SENTENCES)
    assert info.splits["transfer"]["records"] > 100


def test_what_does_not_fit_tagging_is_refused(tagged, trained, call, tmp_path):
    (tmp_path / "in.txt").write_text("a\n", "utf-8")
    flags = (f"--input_file={tmp_path / 'in.txt'}", f"--output_file={tmp_path / 'out'}")
    code, line = call("predict", f"--model_dir={trained}", *flags, "--pretokenized")
    assert code == 1 and "--pretokenized is about words" in line
    shared = (
        "--task=ner",
        f"--tokenizer={tagged.root / 'tokenizer'}",
        f"--output_dir={tmp_path / 'records'}",
    )
    code, line = call(
        "create_task_data", f"--task_dir={tagged.task_dir}", *shared, "--languages=en,fr"
    )
    assert code == 1 and "has no examples of 'fr'" in line
    few = write_tagged(tmp_path / "few", {"train": 3})
    code, line = call("create_task_data", f"--task_dir={few}", *shared, "--labels_per_language=100")
    assert code == 1 and "labels_per_language=100 examples of the language 'en'" in line


def labels_stage(**fields):
    return (
        stage(
            name="labels",
            data="train",
            objective=[{"loss": "task"}],
            steps=40,
            optimizer={"name": "adam", "learning_rate": 0.02},
        )
        | fields
    )


@pytest.fixture(scope="module")
def crf_run(tagged, tmp_path_factory):
    """A student of two LSTMs with a CRF: logits of a teacher first, then labels."""
    folder = tmp_path_factory.mktemp("crf") / "run"
    model = BILSTM | {"crf": True, "lstm_layers": 2}
    logits = stage(
        objective=[{"loss": "mean_squared_error", "output": "logits", "at": "word"}],
        evaluate={"data": "heldout", "keep_best": "macro"},
    )
    config = student_recipe(logits, labels_stage(), model=model, max_seq_length=16)
    run(config, tagged.data(), folder, teacher=tagged.teacher, options=OPTIONS)
    return folder


def test_a_crf_is_trained_by_labels_and_left_alone_by_logits(crf_run):
    first, second = (
        checkpoints.read_weights(crf_run / name) for name in ("01_logits", "02_labels")
    )
    assert not np.any(first["head/crf/transitions"]) and not np.any(first["head/crf/start"])
    assert np.any(second["head/crf/transitions"]) and np.any(second["head/crf/start"])
    stages = files.read_json(crf_run / "run.json")["stages"]
    assert stages[1]["outputs"] == ["potentials"]


def test_a_crf_decodes_whole_sentences(tagged, crf_run):
    predictor = Predictor(str(crf_run))
    sentences = dev_sentences(tagged)
    answers = predictor.tagger.tag([one.text for one in sentences])
    metrics = EvaluatedModel(str(crf_run)).on_task(str(tagged.task_dir), split="dev")["metrics"]
    found = spans.compute([one.label for one in sentences], [one.tags for one in answers])
    assert found["span_f1"] == pytest.approx(metrics["lenient_span_f1"])
    assert found["span_f1"] > 0.6
    model = folders.load_model(folders.find(str(crf_run)))
    emissions = np.random.default_rng(0).normal(size=(3, len(TAGS))).astype(np.float32)
    transitions, start = model.crf.transitions.numpy(), model.crf.start.numpy()

    def score(tags):
        steps = sum(transitions[a, b] for a, b in itertools.pairwise(tags))
        return start[tags[0]] + steps + sum(emissions[i, tag] for i, tag in enumerate(tags))

    every = {tags: score(tags) for tags in itertools.product(range(len(TAGS)), repeat=3)}
    ((tags, probabilities),) = tag_decoding.decoder_of(model)([emissions])
    best = max(every, key=every.get)
    assert tuple(tags) == best
    total = sum(np.exp(value) for value in every.values())
    for place, tag in enumerate(best):
        own = sum(np.exp(value) for one, value in every.items() if one[place] == tag)
        assert probabilities[place] == pytest.approx(own / total, rel=1e-4)


@pytest.mark.parametrize("mode", ["live", "cached"])
def test_a_crf_may_learn_the_marginals_of_a_teacher_with_one(tagged, crf_run, tmp_path, mode):
    terms = [{"loss": "soft_cross_entropy", "output": "marginals", "at": "word"}]
    config = student_recipe(
        stage(objective=terms), model=BILSTM | {"crf": True}, max_seq_length=16,
        teacher={"layer": -1, "mode": mode},
    )  # fmt: skip
    teacher = folders.find(str(crf_run))
    made = run(config, tagged.data(), tmp_path / "run", teacher=teacher, options=OPTIONS)
    (first,) = made["stages"]
    assert np.isfinite(first["loss"]) and first["outputs"] == ["marginals"]


def test_the_chain_of_a_crf_is_that_of_words_whatever_pieces_have_labels(tagged):
    from xdistil_tf import recipe
    from xdistil_tf.objective import Objective

    available = {"logits": None, "potentials": None, "marginals": None}
    objective = Objective([recipe.Term(loss="task")], "tagging", available)
    features = {
        "example_weights": tf.ones([1]),
        "label_weights": tf.constant([[0.0, 1, 1, 1, 0]]),
        "label_ids": tf.constant([[0, 1, 2, 0, 0]]),
        "word_index": tf.constant([[-1, 0, 0, 1, -1]]),
    }
    assert [float(one) for one in objective.denominators(features).values()] == [2.0]


def test_one_joined_teacher_is_scored_with_its_crf(tagged, crf_run):
    teacher = folders.find(str(crf_run))
    alone, two = (
        report._Said(report.Joined(None, [(teacher, tagged.info)] * count)) for count in (1, 2)
    )
    emissions = [np.zeros((3, len(TAGS)), np.float32)]
    expected = tag_decoding.decoder_of(folders.load_model(teacher))(emissions)[0]
    np.testing.assert_allclose(alone.decode(emissions)[0][1], expected[1])
    assert alone.decode is not two.decode is tag_decoding.most_probable


def test_permuted_tags_keep_their_transitions(tagged, crf_run, tmp_path):
    order = [4, 2, 0, 1, 3]
    source = folders.find(str(crf_run))
    made = folders.reorder_classes(source, order, [TAGS[i] for i in order], tmp_path / "other")
    words = [one.text for one in dev_sentences(tagged)]
    before, after = Predictor(str(crf_run)).tagger.tag(words), Predictor(made).tagger.tag(words)
    assert [one.tags for one in before] == [one.tags for one in after]


def test_a_stage_may_draw_small_languages_more_often(tagged, tmp_path, monkeypatch):
    epochs = []
    original = language_draw.LanguageDraw.__call__

    def spied(self, epoch):
        epochs.append(epoch)
        return original(self, epoch)

    monkeypatch.setattr(language_draw.LanguageDraw, "__call__", spied)
    config = student_recipe(
        labels_stage(steps=30, language_temperature=5.0), teacher=None, max_seq_length=16
    )
    run(config, tagged.data(), tmp_path / "run", options=OPTIONS)
    records = tagged.records("train")
    assert set(language_draw.read_languages(records)) == {b"en", b"sw"}
    assert set(epochs) == set(range(-(-30 * 16 // len(records))))


def test_a_crf_is_refused_where_there_are_no_tags(small, tmp_path):
    config = student_recipe(stage(), model=BILSTM | {"crf": True})
    with pytest.raises(ValueError, match="A CRF reads tags"):
        run(config, small.data(), tmp_path / "run", teacher=small.teacher, options=OPTIONS)
