"""The encoder says what Hugging Face's says, and computes no more than asked."""

import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from safetensors import numpy as safetensors_numpy

from xdistil_tf.models import encoder, pretrained

FIXTURES = sorted((pathlib.Path(__file__).parent / "fixtures").glob("*.npz"))
TINY = {
    "vocab_size": 40,
    "hidden_size": 8,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 12,
    "initializer_range": 0.5,
}
CLASSIFICATION = {"kind": "classification", "num_labels": 3}
SEED = tf.constant([5, 6])


def tiny(head=CLASSIFICATION, precision="float32", **changes):
    return encoder.Encoder.from_config_dict({**TINY, "head": head, **changes}, precision, seed=1)


def batch(lengths=(4, 6), width=None):
    width = width or max(lengths)
    mask = (np.arange(width) < np.array(lengths)[:, None]).astype(np.int32)
    ids = np.random.default_rng(0).integers(1, 40, (len(lengths), 12))[:, :width]
    return {
        "input_ids": tf.constant(ids * mask, tf.int32),
        "input_mask": tf.constant(mask),
        "segment_ids": tf.constant(mask * (np.arange(width) >= 2), tf.int32),
    }


def everything(model):
    return {key: layers for key, layers in model.available.items()}


def load_fixture(path, folder):
    arrays = dict(np.load(path))
    (folder / "config.json").write_text(str(arrays["config"]))
    weights = {k.removeprefix("weight/"): v for k, v in arrays.items() if k.startswith("weight/")}
    safetensors_numpy.save_file(weights, folder / "model.safetensors")
    inputs = {k.removeprefix("input/"): v for k, v in arrays.items() if k.startswith("input/")}
    expected = {k.removeprefix("output/"): v for k, v in arrays.items() if k.startswith("output/")}
    return json.loads(str(arrays["config"])), inputs, expected


@pytest.mark.parametrize("path", FIXTURES, ids=[path.stem for path in FIXTURES])
def test_equals_hugging_face(path, tmp_path):
    _, inputs, expected = load_fixture(path, tmp_path)
    model = pretrained.load_encoder(tmp_path)
    mask = inputs["input_mask"]
    if "masked_lm_logits" in model.available:
        inputs["masked_lm_positions"] = np.tile(np.arange(9, dtype=np.int32), (3, 1))
    outputs = model(inputs, request=everything(model))
    real = mask.astype(bool)

    def same(actual, wanted, where=real):
        np.testing.assert_allclose(np.asarray(actual)[where], wanted[where], atol=1e-5, rtol=1e-5)

    for layer in (0, 1, 2):
        same(outputs["hidden"][layer], expected[f"hidden/{layer}"])
    for layer in (1, 2):
        scores = outputs["attention"][layer].numpy() + (1 - mask[:, None, None, :]) * -1e9
        probabilities = tf.nn.softmax(scores).numpy().transpose(0, 2, 1, 3)
        same(probabilities, expected[f"attention/{layer}"].transpose(0, 2, 1, 3))
    if "logits" in outputs:
        everywhere = Ellipsis if outputs["logits"].shape.rank == 2 else real
        same(outputs["logits"], expected["logits"], everywhere)
    if "masked_lm_logits" in outputs:
        same(outputs["masked_lm_logits"], expected.get("prediction_logits", expected.get("logits")))
    if "next_sentence_logits" in outputs:
        same(outputs["next_sentence_logits"], expected["seq_relationship_logits"], Ellipsis)


def test_fixtures_cover_every_family():
    assert len(FIXTURES) == 12


def test_attention_is_scaled_product_of_query_and_key():
    model = tiny()
    outputs = model(batch(), request={"attention": (2,), "query": (2,), "key": (2,), "value": (2,)})
    query, key = (outputs[name][2].numpy().reshape(2, 6, 2, 4) for name in ("query", "key"))
    wanted = np.einsum("bfhd,bthd->bhft", query, key) / 2
    np.testing.assert_allclose(outputs["attention"][2], wanted, atol=1e-5)


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "electra"])
def test_padding_does_not_change_the_outputs(family):
    model = tiny(model_type=family)
    request = everything(model)
    short, long = model(batch((4, 4)), request=request), model(batch((4, 4), 9), request=request)
    np.testing.assert_allclose(short["logits"], long["logits"], atol=1e-5)
    for layer in (0, 3):
        np.testing.assert_allclose(short["hidden"][layer], long["hidden"][layer][:, :4], atol=1e-5)
    np.testing.assert_allclose(short["attention"][1], long["attention"][1][:, :, :4, :4], atol=1e-5)


@pytest.mark.parametrize("kind", ["classification", "regression", "tagging"])
def test_logits_alone_equal_logits_among_everything(kind):
    model = tiny({"kind": kind, "num_labels": 2})
    alone = model(batch())
    together = model(batch(), request=everything(model))
    assert list(alone) == ["logits"]
    np.testing.assert_allclose(alone["logits"], together["logits"], atol=1e-5)
    shape = (2, 6, 2) if kind == "tagging" else (2, 2)
    assert alone["logits"].shape == shape


def test_computes_only_the_layers_requested():
    model = tiny()
    called = []
    for block in model.blocks:
        block.call = lambda *args, call=block.call, n=block.index, **kw: (
            called.append(n) or call(*args, **kw)
        )
    outputs = model(batch(), request={"hidden": (0, 2), "query": (1,)})
    assert called == [1, 2]
    assert {key: list(value) for key, value in outputs.items()} == {"hidden": [0, 2], "query": [1]}
    called.clear()
    assert model(batch(), request={"hidden": (0,)})["hidden"][0].shape == (2, 6, 8)
    assert called == []


def test_representation_is_what_the_head_reads():
    for family in ("bert", "roberta", "distilbert"):
        model = tiny(model_type=family)
        outputs = model(batch(), request={"representation": None, "hidden": (3,)})
        first = outputs["hidden"][3][:, 0]
        wanted = model.pooler(first) if family == "bert" else first
        np.testing.assert_allclose(outputs["representation"], wanted, atol=1e-5)
    tagging = tiny({"kind": "tagging", "num_labels": 2})
    outputs = tagging(batch(), request={"representation": None, "hidden": (3,)})
    np.testing.assert_array_equal(outputs["representation"], outputs["hidden"][3])


def test_a_head_without_pooler_reads_position_0():
    model = tiny({**CLASSIFICATION, "pooler": "none"})
    assert "pooler" not in model.parts
    outputs = model(batch(), request={"logits": None, "hidden": (3,)})
    wanted = model.head_output(outputs["hidden"][3][:, 0])
    np.testing.assert_allclose(outputs["logits"], wanted, atol=1e-6)


def test_masked_lm_logits_at_masked_slots_only():
    model = tiny({"kind": "pretraining", "next_sentence": True})
    features = {**batch(), "masked_lm_positions": tf.constant([[1, 3, 0], [5, 0, 0]])}
    request = {"masked_lm_logits": None, "next_sentence_logits": None}
    outputs = model(features, request=request)
    assert outputs["masked_lm_logits"].shape == (2, 3, 40)
    assert outputs["next_sentence_logits"].shape == (2, 2)
    every = {**features, "masked_lm_positions": tf.tile(tf.range(6)[None], [2, 1])}
    full = model(every, request=request)["masked_lm_logits"].numpy()
    np.testing.assert_allclose(outputs["masked_lm_logits"][1, 0], full[1, 5], atol=1e-5)
    with pytest.raises(ValueError, match="masked_lm_positions"):
        model(batch(), request=request)


def test_no_dropout_outside_training():
    model = tiny()
    first, second = model(batch()), model(batch(), seed=SEED)
    np.testing.assert_array_equal(first["logits"], second["logits"])


def test_dropout_is_deterministic_in_seed():
    model = tiny()
    first, second, other = (
        model(batch(), training=True, seed=seed)["logits"].numpy()
        for seed in (SEED, SEED, tf.constant([5, 7]))
    )
    np.testing.assert_array_equal(first, second)
    assert np.abs(first - other).max() > 1e-3
    with pytest.raises(ValueError, match="seed"):
        model(batch(), training=True)


def test_dropouts_have_distinct_salts():
    model = tiny()
    blocks = [
        layer.salt
        for block in model.blocks
        for layer in (block.attention_dropout, block.attention_output_dropout, block.hidden_dropout)
    ]
    salts = [*blocks, model.embedding.dropout.salt]
    salts += [model.head_dropout.salt, model.head_inner_dropout.salt]
    assert len(set(salts)) == len(salts)


def test_weights_follow_from_the_seed_alone():
    tf.random.set_seed(1)
    first = tiny().named_variables()
    tf.random.set_seed(2)
    second = tiny().named_variables()
    other = encoder.Encoder.from_config_dict({**TINY, "head": CLASSIFICATION}, seed=2)
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name])
    word = "embedding/word"
    assert np.abs(first[word] - other.named_variables()[word]).max() > 0.1
    assert 0.3 < first[word].numpy().std() < 0.6  # of the truncated normal: 0.88 of 0.5


def test_initialise_part_draws_that_part_alone():
    model = tiny()
    before = {name: value.numpy() for name, value in model.named_variables().items()}
    model.initialise_part("layer_2", seed=9)
    changed = {k for k, v in model.named_variables().items() if (v.numpy() != before[k]).any()}
    assert changed and all(name.startswith("layer_2/") for name in changed)
    with pytest.raises(ValueError, match="Unknown part.*layer_9"):
        model.initialise_part("layer_9", seed=1)


@pytest.mark.parametrize(
    ("family", "head", "parts"),
    [
        ("bert", CLASSIFICATION, ["head", "pooler"]),
        ("roberta", CLASSIFICATION, ["head"]),
        ("bert", {"kind": "pretraining", "next_sentence": True},
         ["next_sentence", "masked_lm", "pooler"]),
        ("bert", None, []),
    ],
)  # fmt: skip
def test_every_variable_is_in_one_part(family, head, parts):
    model = tiny(head, model_type=family)
    assert list(model.parts) == [*parts, "layer_3", "layer_2", "layer_1", "embedding"]
    inside = [v.ref() for part in model.parts.values() for layer in part for v in layer.variables]
    assert len(set(inside)) == len(inside) == len(model.named_variables())
    assert set(inside) == {v.ref() for v in model.trainable_variables}


@pytest.mark.parametrize("precision", ["bfloat16", "mixed_float16"])
def test_reduced_precision_stays_close(precision):
    exact, reduced = tiny(initializer_range=0.2), tiny(precision=precision, initializer_range=0.2)
    request = everything(exact)
    wanted, actual = exact(batch(), request=request), reduced(batch(), request=request)
    assert actual["logits"].dtype == tf.float32
    assert all(variable.dtype == tf.float32 for variable in reduced.trainable_variables)
    np.testing.assert_allclose(actual["logits"], wanted["logits"], atol=0.05)
    assert np.isfinite(tf.cast(actual["attention"][3], tf.float32)).all()
    empty = {**batch(), "input_mask": tf.zeros((2, 6), tf.int32)}
    assert np.isfinite(reduced(empty)["logits"]).all()


def test_every_variable_gets_a_gradient_of_the_right_value():
    model = tiny(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    names, variables = zip(*model.named_variables().items(), strict=True)

    def loss(training):
        return tf.reduce_sum(tf.sin(model(batch(), training=training, seed=SEED)["logits"]))

    with tf.GradientTape() as tape:
        value = loss(True)
    gradients = dict(zip(names, tape.gradient(value, variables), strict=True))
    assert None not in gradients.values()
    for name in ("layer_1/ffn/intermediate/kernel", "layer_2/ffn/layer_norm/gamma",
                 "layer_1/attention/layer_norm/beta", "layer_2/attention/qkv/bias"):  # fmt: skip
        variable, index = model.named_variables()[name], (0,) * gradients[name].shape.rank
        at, step = variable.numpy(), 1e-2
        change = np.zeros_like(at)
        change[index] = step
        variable.assign(at + change)
        above = loss(True)
        variable.assign(at - change)
        slope = (above - loss(True)) / (2 * step)
        variable.assign(at)
        np.testing.assert_allclose(gradients[name][index], slope, rtol=0.03, atol=2e-3)


@pytest.mark.parametrize(
    ("config", "head", "millions"),
    [
        ({}, {"kind": None, "pooler": "tanh_pooler"}, 109.48224),  # bert-base-uncased
        ({"hidden_size": 384, "num_hidden_layers": 6, "intermediate_size": 1536},
         {"kind": None, "pooler": "tanh_pooler"}, 22.713216),  # MiniLM-L6-H384
        ({"model_type": "distilbert", "num_hidden_layers": 6}, None, 66.362880),
        ({"model_type": "roberta"}, None, 124.055040),  # without the pooler that no head reads
        ({"model_type": "electra", "embedding_size": 128, "hidden_size": 256,
          "num_attention_heads": 4, "intermediate_size": 1024}, None, 13.483008),
    ],
)  # fmt: skip
def test_parameter_counts_of_known_models(config, head, millions):
    model = encoder.Encoder({**config, "head": head})
    assert model.count_params() == round(millions * 1e6)


def test_rebuilds_from_its_config():
    model = tiny(model_type="roberta")
    again = encoder.Encoder.from_config_dict(json.loads(json.dumps(model.config)), seed=1)
    assert again.config == model.config
    np.testing.assert_array_equal(again(batch())["logits"], model(batch())["logits"])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "t5"}, "model_type.*'t5'"),
        ({"hidden_size": 10, "num_attention_heads": 4}, "multiple of num_attention_heads"),
        ({"hidden_act": "mish"}, "activation.*'mish'"),
        ({"head": {"kind": "ranking"}}, "head kind.*'ranking'"),
        ({"head": {"kind": "classification"}}, "num_labels"),
        ({"head": {"classes": 3}}, "classes"),
        ({"head": {**CLASSIFICATION, "pooler": "relu_dense"}}, "pooler.*'relu_dense'"),
    ],
)
def test_refuses_a_wrong_config(config, message):
    with pytest.raises(ValueError, match=message):
        encoder.Encoder({**TINY, **config})


def test_refuses_what_it_cannot_give():
    model = tiny(None)
    with pytest.raises(ValueError, match="logits"):
        model(batch())
    with pytest.raises(ValueError, match="hidden"):
        model(batch(), request={"hidden": (4,)})
    with pytest.raises(ValueError, match="at most 12 tokens.*20"):
        model({"input_ids": tf.ones((1, 20), tf.int32), "input_mask": tf.ones((1, 20), tf.int32)},
              request={"hidden": (0,)})  # fmt: skip
    with pytest.raises(ValueError, match="precision.*'int8'"):
        tiny(precision="int8")
