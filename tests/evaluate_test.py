"""Scores on task folders and records, predictions, latency, parameter counts."""

import math

import numpy as np
import pytest

from tests.small_task import RECORDS, encoder_folder, unlabelled, write_lines
from xdistil_tf import evaluate
from xdistil_tf.data.pipeline import Batches
from xdistil_tf.data.task_records import create_task_records
from xdistil_tf.data.tokenization import load_tokenizer
from xdistil_tf.evaluate import EvaluatedModel
from xdistil_tf.models import folders
from xdistil_tf.objective import Objective
from xdistil_tf.predictions import Predictions, logits_function, predict_records
from xdistil_tf.recipe import Term
from xdistil_tf.stage_scorer import StageScorer

pytest_plugins = ["tests.small_task"]


@pytest.fixture(scope="module")
def model(trained):
    return folders.load_model(folders.find(str(trained)))


def test_a_task_folder_and_its_records_give_the_same(trained, small):
    evaluated = EvaluatedModel(str(trained), batch_size=7)
    from_records = evaluated.on_records(small.info.pattern("dev"))
    from_task = evaluated.on_task(str(small.task_dir), "classification", "dev")
    assert from_records == from_task
    assert set(from_task) == {
        "model", "split", "examples", "metric", "metrics", "by_language",
    }  # fmt: skip
    assert from_task["examples"] == 48 and from_task["split"] == "dev"
    assert set(from_task["metrics"]) >= {"accuracy", "standard_error"}


def test_accuracy_equals_numpy(trained, small, model):
    records = small.records("dev")
    predictions = predict_records(logits_function(model), records, small.info, batch_size=5)
    assert predictions.ids == records.ids.tolist()
    accuracy = np.mean(np.argmax(predictions.scores, -1) == np.array(predictions.gold))
    result = EvaluatedModel(str(trained)).on_records(small.info.pattern("dev"))
    assert result["metrics"]["accuracy"] == pytest.approx(accuracy)
    assert result["metrics"]["standard_error"] == pytest.approx(
        math.sqrt(accuracy * (1 - accuracy) / 48), rel=0.05
    )


def test_filler_rows_and_unknown_gold_do_not_count():
    predictions = Predictions()
    batch = {
        "id": np.array([b"a", b"b", b"c"]),
        "language": np.array([b"de"] * 3),
        "label_ids": np.array([1, 0, 1]),
        "label_weights": np.array([1.0, 0.0, 1.0]),
        "example_weights": np.array([1.0, 1.0, 0.0]),
    }
    predictions.add(batch, np.zeros((3, 2)), "classification")
    assert predictions.ids == [b"a"] and predictions.languages == ["de"]


def test_languages_are_scored_apart(small):
    scores = [np.array(one) for one in ([1.0, 0], [1.0, 0], [0, 1.0])]
    predictions = Predictions([b"a", b"b", b"c"], ["de", "de", "fr"], scores, [0, 1, 1])
    by_language = predictions.by_language(small.info)["languages"]
    assert by_language["de"]["accuracy"] == 0.5 and by_language["fr"]["accuracy"] == 1.0
    predictions.languages = ["de"] * 3
    assert predictions.by_language(small.info) == {}


def test_records_without_labels_are_refused(trained, small, tmp_path):
    with pytest.raises(ValueError, match="The split 'transfer' of classification has no labels"):
        EvaluatedModel(str(trained)).on_records(unlabelled(small, tmp_path))


def test_a_missing_split_is_refused(trained, small, tmp_path):
    with pytest.raises((ValueError, FileNotFoundError), match="dev_mismatched"):
        EvaluatedModel(str(trained)).on_task(str(small.task_dir), split="dev_mismatched")


def test_an_unknown_label_is_refused_with_its_line(trained, tmp_path):
    write_lines(tmp_path / "dev.tsv", ["the soup\tpositive", "the duck\tmixed"])
    with pytest.raises(ValueError, match="dev.tsv.*2.*mixed"):
        EvaluatedModel(str(trained)).on_task(str(tmp_path), split="dev")


def test_records_of_another_tokenizer_are_refused(trained, small, tmp_path):
    tokens = list(small.tokenizer.tokens)
    tokens[-1] = "zzzz"
    write_lines(tmp_path / "vocab.txt", tokens)
    other = create_task_records(
        small.task_dir,
        "classification",
        load_tokenizer(tmp_path / "vocab.txt", do_lower_case=True),
        tmp_path / "records",
        None,
        RECORDS,
    )
    with pytest.raises(ValueError, match="has other ids than the model"):
        EvaluatedModel(str(trained)).on_records(other.pattern("dev"))


def test_a_model_from_elsewhere_is_refused(small):
    with pytest.raises(ValueError, match="has no labels.json"):
        EvaluatedModel(small.encoder)


def test_a_stages_objective_is_the_mean_over_examples(model, small):
    """In batches of any size, with a short last one."""
    objective = Objective([Term(loss="task", weight=0.5)], "classification", model.available)
    values = []
    for size in (5, 48):
        batches = Batches(small.records("dev"), size, shuffle=False)
        scorer = StageScorer(model, batches, objective, None, small.info)
        metrics, samples = scorer.measure()
        values.append(metrics)
        assert samples is None
    assert values[0] == pytest.approx(values[1], abs=1e-5)
    predictions = predict_records(logits_function(model), small.records("dev"), small.info)
    scores, gold = np.stack(predictions.scores).astype(np.float64), np.array(predictions.gold)
    logs = scores - np.log(np.exp(scores).sum(-1, keepdims=True))
    expected = -0.5 * np.mean(logs[np.arange(48), gold])
    assert values[0]["objective"] == pytest.approx(expected, rel=1e-4)


def test_latency_is_positive(model):
    assert evaluate.latency_ms(model, 2, 8, repeats=3) > 0


def test_parameters_are_counted_with_and_without_tables(model, small, tmp_path):
    rows = small.tokenizer.vocab_size * 8
    counts = evaluate.parameter_counts(model)
    total = sum(int(np.prod(v.shape)) for v in model.named_variables().values())
    assert counts == {"parameters": total, "parameters_without_embeddings": total - rows}
    encoder = folders.load_model(encoder_folder(tmp_path, small.tokenizer))
    counts = evaluate.parameter_counts(encoder)
    tables = (small.tokenizer.vocab_size + 64 + 2) * 32
    assert counts["parameters"] - counts["parameters_without_embeddings"] == tables
