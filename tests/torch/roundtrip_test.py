"""What we write, PyTorch users load unchanged; `pytorch_model.bin` loads when PyTorch is there."""

import json

import numpy as np
import pytest
import tensorflow as tf

torch = pytest.importorskip("torch")

import transformers  # noqa: E402

from tests.small_task import OPTIONS, stage  # noqa: E402
from xdistil_tf import recipe  # noqa: E402
from xdistil_tf.models import encoder, folders, pretrained  # noqa: E402
from xdistil_tf.run import run  # noqa: E402

pytest_plugins = ["tests.small_task"]
pytestmark = pytest.mark.torch

SIZES = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 20,
    "initializer_range": 0.4,
}
HEADS = {
    "base": None,
    "classification": {"kind": "classification", "num_labels": 3},
    "regression": {"kind": "regression"},
    "tagging": {"kind": "tagging", "num_labels": 4},
    "masked_lm": {"kind": "pretraining"},
}
IDS = np.array([[5, 6, 7, 8, 9], [11, 12, 13, 14, 15]], np.int32)


def make_encoder(family, head, **changes):
    config = {**SIZES, "model_type": family, "head": head, **changes}
    return encoder.Encoder.from_config_dict(config, seed=4)


def torch_outputs(folder):
    """Loads the class that config.json names, and refuses any tensor it lacks or does not know."""
    name = json.loads((folder / "config.json").read_text())["architectures"][0]
    model, report = getattr(transformers, name).from_pretrained(folder, output_loading_info=True)
    unused = {key for key in report["missing_keys"] if "pooler" not in key}
    assert not unused and not report["unexpected_keys"] and not report["mismatched_keys"]
    with torch.no_grad():
        ids = torch.tensor(IDS).long()
        return model.eval()(ids, attention_mask=torch.ones_like(ids), output_hidden_states=True)


def our_outputs(model):
    features = {
        "input_ids": tf.constant(IDS),
        "input_mask": tf.ones_like(IDS),
        "masked_lm_positions": tf.tile(tf.range(5)[None], [2, 1]),
    }
    return model(features, request=model.available)


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("family", ["bert", "roberta", "xlm-roberta", "distilbert", "electra"])
def test_pytorch_loads_what_we_write(family, kind, tmp_path):
    model = make_encoder(family, HEADS[kind])
    pretrained.save_encoder(model, tmp_path)
    ours, theirs = our_outputs(model), torch_outputs(tmp_path)
    for layer in range(3):
        wanted = theirs.hidden_states[layer].numpy()
        np.testing.assert_allclose(ours["hidden"][layer], wanted, atol=1e-5)
    key = {"base": None, "masked_lm": "masked_lm_logits"}.get(kind, "logits")
    if key:
        np.testing.assert_allclose(ours[key], theirs.logits.numpy(), atol=2e-5)


def test_pytorch_loads_both_pretraining_heads(tmp_path):
    model = make_encoder("bert", {"kind": "pretraining", "next_sentence": True})
    pretrained.save_encoder(model, tmp_path)
    ours, theirs = our_outputs(model), torch_outputs(tmp_path)
    np.testing.assert_allclose(ours["masked_lm_logits"], theirs.prediction_logits, atol=2e-5)
    np.testing.assert_allclose(
        ours["next_sentence_logits"], theirs.seq_relationship_logits, atol=1e-5
    )


def test_labels_reach_pytorch(tmp_path):
    pretrained.save_encoder(make_encoder("bert", HEADS["classification"]), tmp_path, "abc")
    config = transformers.AutoConfig.from_pretrained(tmp_path)
    assert config.id2label == {0: "a", 1: "b", 2: "c"} and config.num_labels == 3


@pytest.mark.parametrize("sharded", [False, True])
def test_reads_pytorch_model_bin(sharded, tmp_path):
    model = make_encoder("bert", HEADS["classification"])
    pretrained.save_encoder(model, tmp_path / "a")
    loaded = transformers.BertForSequenceClassification.from_pretrained(tmp_path / "a")
    size = "5KB" if sharded else "5GB"
    loaded.save_pretrained(tmp_path / "b", safe_serialization=False, max_shard_size=size)
    assert (tmp_path / "b" / "pytorch_model.bin").exists() != sharded
    again = pretrained.load_encoder(tmp_path / "b")
    for name, value in model.named_variables().items():
        np.testing.assert_array_equal(value, again.named_variables()[name], err_msg=name)


def test_a_bin_with_code_in_it_is_refused(tmp_path):
    class Code:
        def __reduce__(self):
            return (print, ("run",))

    pretrained.save_encoder(make_encoder("bert", None), tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save({"a": Code()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match="pytorch_model.bin"):
        pretrained.load_encoder(tmp_path)


def test_pytorch_loads_a_student_that_was_trained_here(small, tmp_path):
    """Task distillation with projections: they stay beside the weights, which load alone."""
    model = {
        "kind": "encoder", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 4,
        "intermediate_size": 24, "max_position_embeddings": 64,
        "width_projection": {"sharing": "per_layer"},
    }  # fmt: skip
    layers = [
        {"loss": "mean_squared_error", "output": output, "layers": "uniform"}
        for output in ("attention", "hidden")
    ]
    config = recipe.Recipe.model_validate(
        {
            "model": model,
            "teacher": {"mode": "live"},
            "max_seq_length": 32,
            "stages": [
                stage(name="intermediate", objective=layers),
                stage(name="prediction", objective=[{"loss": "soft_task"}]),
            ],
        }
    )
    run(config, small.data(), tmp_path, teacher=small.teacher, options=OPTIONS)
    assert (tmp_path / "model" / "projections.safetensors").is_file()
    student = folders.load_model(tmp_path / "model")
    features = {"input_ids": tf.constant(IDS), "input_mask": tf.ones_like(IDS)}
    ours = student(features, request={"logits": None})["logits"]
    loaded = transformers.BertForSequenceClassification.from_pretrained(tmp_path / "model").eval()
    with torch.no_grad():
        theirs = loaded(torch.tensor(IDS).long()).logits
    np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-4)
    assert list(loaded.config.id2label.values()) == list(small.info.labels)
