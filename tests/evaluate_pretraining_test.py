"""Masked language models scored on held-out records, in training and by `evaluate`."""

import json
import math

import numpy as np
import pytest
import tensorflow as tf

from tests.small_task import OPTIONS, encoder_folder
from xdistil_tf import pretraining_scores, recipe, recipe_files
from xdistil_tf.data import synthetic
from xdistil_tf.data.pretraining import write_pretraining_records
from xdistil_tf.data.record_set import RecordSet
from xdistil_tf.evaluate_pretraining import evaluate_pretraining, is_pretraining
from xdistil_tf.models import folders
from xdistil_tf.run import run

pytest_plugins = ["tests.small_task"]

HEAD = {"kind": "pretraining", "next_sentence": True}


@pytest.fixture(scope="module")
def corpus(small, tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    synthetic.generate_corpus(folder / "corpus.txt", 30)
    write_pretraining_records(
        folder / "corpus.txt", small.tokenizer, folder / "records", 32, 5,
        heldout_fraction=0.2, num_shards=1,
    )  # fmt: skip
    return f"{folder}/records"


@pytest.fixture(scope="module")
def language_model(small, tmp_path_factory):
    return encoder_folder(tmp_path_factory.mktemp("lm"), small.tokenizer, HEAD)


def numpy_scores(folder, pattern):
    """Loss, accuracy and next-sentence accuracy, record after record."""
    model, records = folders.load_model(folder), RecordSet(pattern)
    losses, right, pairs = [], [], []
    for number in range(len(records)):
        features = tf.train.Example.FromString(records.read(number)).features.feature
        one = {
            name: np.array([features[name].int64_list.value], np.int32)
            for name in ("input_ids", "input_mask", "segment_ids", "masked_lm_positions")
        }
        given = model(one, request={"masked_lm_logits": None, "next_sentence_logits": None})
        count = int(sum(features["masked_lm_weights"].float_list.value))
        gold = features["masked_lm_ids"].int64_list.value[:count]
        scores = given["masked_lm_logits"].numpy()[0, :count].astype(np.float64)
        normalised = scores - np.log(np.exp(scores).sum(-1, keepdims=True))
        losses += [-normalised[i, word] for i, word in enumerate(gold)]
        right += [int(np.argmax(scores[i]) == word) for i, word in enumerate(gold)]
        said = int(np.argmax(given["next_sentence_logits"].numpy()[0]))
        pairs.append(said == features["next_sentence_labels"].int64_list.value[0])
    return losses, right, pairs


def test_scores_equal_those_of_one_record_at_a_time(language_model, corpus):
    pattern = f"{corpus}/heldout-*"
    result = evaluate_pretraining(language_model, pattern, batch_size=3)
    losses, right, pairs = numpy_scores(language_model, pattern)
    assert result["masked_tokens"] == len(losses) and result["examples"] == len(pairs)
    assert result["metrics"] == pytest.approx(
        {
            "masked_lm_loss": np.mean(losses),
            "perplexity": math.exp(np.mean(losses)),
            "masked_lm_accuracy": np.mean(right),
            "standard_error": np.std(losses) / math.sqrt(len(losses)),
            "next_sentence_accuracy": np.mean(pairs),
        },
        rel=1e-4,
    )
    assert result["split"] == "heldout" and result["metric"] == "masked_lm_loss"


def test_a_model_agrees_with_itself_and_differs_from_another(
    small, language_model, corpus, tmp_path
):
    pattern = f"{corpus}/heldout-*"
    same = evaluate_pretraining(language_model, pattern, teacher=language_model)
    assert same["teacher"]["agreement"] == 1.0
    assert same["teacher"]["kl_divergence"] == pytest.approx(0.0, abs=1e-6)
    assert same["teacher"]["metrics"] == same["metrics"]
    wider = encoder_folder(
        tmp_path, small.tokenizer, HEAD, num_hidden_layers=1, initializer_range=0.5
    )
    other = evaluate_pretraining(wider, pattern, teacher=language_model)
    assert other["teacher"]["agreement"] < 1.0 and other["teacher"]["kl_divergence"] > 0.01
    assert other["teacher"]["metrics"] == same["metrics"]


def test_the_divergence_is_that_of_the_teacher_from_the_model():
    teacher, model = np.log([[[0.7, 0.2, 0.1]]]), np.log([[[0.1, 0.3, 0.6]]])
    batch = {"masked_lm_weights": np.ones([1, 1]), "example_weights": np.ones([1])}
    found = pretraining_scores.comparison_sums(
        batch, {"masked_lm_logits": teacher}, {"masked_lm_logits": model}
    )
    expected = float(np.sum(np.exp(teacher) * (teacher - model)))
    assert float(found["kl_divergence"]) == pytest.approx(expected)
    assert float(found["agreement"]) == 0.0


def test_fillers_and_unused_slots_do_not_count():
    logits = np.log([[[0.9, 0.1], [0.1, 0.9]], [[0.9, 0.1], [0.9, 0.1]]])
    batch = {
        "masked_lm_ids": np.zeros([2, 2], np.int32),
        "masked_lm_weights": np.array([[1.0, 0.0], [1.0, 1.0]]),
        "example_weights": np.array([1.0, 0.0]),
    }
    found = pretraining_scores.sums(batch, {"masked_lm_logits": logits})
    totals = {name: float(value) for name, value in found.items()}
    assert totals["masked_tokens"] == 1.0
    scores = pretraining_scores.metrics(totals)
    assert scores["masked_lm_accuracy"] == 1.0
    assert scores["masked_lm_loss"] == pytest.approx(-math.log(0.9), rel=1e-5)
    assert pretraining_scores.metrics({"masked_tokens": 0.0}) == {}


def test_pretraining_selects_and_reports_by_what_is_held_out(language_model, corpus, tmp_path):
    config = recipe_files.load_recipe(
        "configs/bert/continue_pretraining.yaml",
        ["max_seq_length=32", "stages.0.epochs=null", "stages.0.steps=4", "stages.0.batch_size=8"],
    )
    data = {"corpus": f"{corpus}/train-*", "heldout": f"{corpus}/heldout-*"}
    run(config, data, tmp_path, init_checkpoint=language_model, options=OPTIONS)
    stage = json.loads((tmp_path / "01_pretrain" / "stage.json").read_text())
    assert stage["key"] == "masked_lm_loss" and stage["best"] == stage["metrics"]["masked_lm_loss"]
    assert stage["best"] <= stage["initial_metrics"]["masked_lm_loss"]
    # The trained folder scores what the stage said of its best weights.
    scored = evaluate_pretraining(str(tmp_path), data["heldout"])["metrics"]
    for name, value in scored.items():
        assert stage["metrics"][name] == pytest.approx(value, rel=1e-4), name


def test_a_head_that_the_checkpoint_lacks_starts_afresh_and_is_trained(small, corpus, tmp_path):
    config = recipe_files.load_recipe(
        "configs/bert/continue_pretraining.yaml",
        ["max_seq_length=32", "stages.0.epochs=null", "stages.0.steps=2", "stages.0.batch_size=8"],
    )
    data = {"corpus": f"{corpus}/train-*", "heldout": f"{corpus}/heldout-*"}
    run(config, data, tmp_path, init_checkpoint=small.encoder, options=OPTIONS)
    model = folders.load_model(folders.find(str(tmp_path)))
    assert {"masked_lm_logits", "next_sentence_logits"} <= set(model.available)


def test_a_student_starts_as_layers_of_its_teacher(language_model, corpus, tmp_path):
    stage = {
        "name": "pretrain",
        "data": "corpus",
        "objective": [
            {"loss": "cross_entropy", "output": "masked_lm_logits", "target": "masked_lm_ids"}
        ],
        "steps": 2,
        "batch_size": 8,
    }
    model = {"kind": "encoder", "layers_from": "top", "num_hidden_layers": 1}
    config = recipe.Recipe.model_validate(
        {"model": model, "teacher": {}, "stages": [stage], "max_seq_length": 32}
    )
    run(config, {"corpus": f"{corpus}/train-*"}, tmp_path, teacher=language_model, options=OPTIONS)
    started = folders.load_model(language_model).named_variables()
    import safetensors.numpy

    start = safetensors.numpy.load_file(tmp_path / "00_start" / "weights" / "tensors.safetensors")
    for name, value in start.items():
        source = name.replace("layer_1/", "layer_2/")
        np.testing.assert_array_equal(value, started[source].numpy(), err_msg=name)


def test_layers_without_a_teacher_are_refused(corpus, tmp_path):
    config = recipe_files.load_recipe(
        "configs/bert/continue_pretraining.yaml",
        ["max_seq_length=32", "model.layers_from=uniform", "model.num_hidden_layers=1"],
    )
    data = {"corpus": f"{corpus}/train-*", "heldout": f"{corpus}/heldout-*"}
    with pytest.raises(ValueError, match="Expected --teacher and no --init_checkpoint"):
        run(config, data, tmp_path, options=OPTIONS)


def test_what_cannot_be_scored_is_named(small, language_model, corpus, tmp_path):
    with pytest.raises(ValueError, match="has no masked-LM head to score"):
        evaluate_pretraining(small.encoder, f"{corpus}/heldout-*")
    with pytest.raises(ValueError, match="has no masks on disk"):
        evaluate_pretraining(language_model, small.info.pattern("train"))
    assert is_pretraining(f"{corpus}/heldout-*") and not is_pretraining(small.info.pattern("dev"))


def test_a_metric_without_its_head_cannot_select(small, corpus, tmp_path):
    config = recipe_files.load_recipe(
        "configs/bert/continue_pretraining.yaml",
        [
            "max_seq_length=32",
            "stages.0.evaluate.keep_best=next_sentence_accuracy",
            "stages.0.objective=[{loss: cross_entropy, output: masked_lm_logits, "
            "target: masked_lm_ids}]",
        ],
    )
    data = {"corpus": f"{corpus}/train-*", "heldout": f"{corpus}/heldout-*"}
    with pytest.raises(ValueError, match="cannot select by 'next_sentence_accuracy'"):
        run(config, data, tmp_path, init_checkpoint=small.encoder, options=OPTIONS)
