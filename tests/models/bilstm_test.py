"""The BiLSTM student: shapes, parameters, dropout, pruned vocabulary, files."""

import json

import numpy as np
import pytest
import safetensors.numpy
import tensorflow as tf

from xdistil_tf.models import embeddings
from xdistil_tf.models.bilstm import BiLSTM, complete_config, load_bilstm, save_bilstm

CONFIG = {
    "vocab_size": 13,
    "embedding_dim": 5,
    "lstm_units": 4,
    "projection_dim": 6,
    "num_labels": 3,
    "dropout": 0.5,
}
ALL = {"logits": None, "representation": None, "hidden": (0, 1)}
SEED = tf.constant([1, 2])

# Embedding width, LSTM units, millions of parameters: table 3 of Mukherjee & Hassan Awadallah
# (2020), with 88.5 thousand pieces, a teacher 768 wide and 11 tags.
PUBLISHED = [
    (300, 600, 31.8), (200, 600, 22.5), (300, 400, 29.4), (200, 400, 20.2),
    (100, 600, 13.1), (100, 400, 11.1), (50, 600, 8.5), (300, 200, 27.7),
    (200, 200, 18.7), (50, 400, 6.5), (100, 200, 9.6), (50, 200, 5.1),
    (300, 100, 27.0), (200, 100, 18.1), (100, 100, 9.2), (50, 100, 4.7),
]  # fmt: skip


@pytest.fixture(scope="module")
def features():
    random = np.random.default_rng(0)
    lengths = np.array([6, 2, 4, 1])
    mask = (np.arange(6) < lengths[:, None]).astype(np.int32)
    ids = random.integers(1, 13, size=(4, 6)).astype(np.int32) * mask
    return {"input_ids": tf.constant(ids), "input_mask": tf.constant(mask)}


@pytest.fixture(scope="module")
def model():
    return BiLSTM.from_config_dict(CONFIG, seed=3)


def weights(model):
    return {name: variable.numpy() for name, variable in model.named_variables().items()}


def same(one, other):
    return [np.array_equal(one[name], other[name]) for name in one]


@pytest.mark.parametrize("dim,units,millions", PUBLISHED)
def test_has_the_published_number_of_parameters(dim, units, millions):
    vocabulary, width, classes = 88_500, 768, 11
    config = {
        "vocab_size": vocabulary,
        "embedding_dim": dim,
        "lstm_units": units,
        "projection_dim": width,
        "num_labels": classes,
        "task_type": "tagging",
    }
    with tf.Graph().as_default():  # nothing is allocated
        variables = BiLSTM(config).named_variables().values()
        count = sum(int(np.prod(variable.shape)) for variable in variables)
    formula = vocabulary * dim + 8 * (dim * units + units**2 + units)
    formula += 2 * units * width + width + width * classes + classes
    assert count == formula
    assert abs(count / 1e6 - millions) <= 0.1


def test_gives_sentence_outputs(model, features):
    outputs = model(features, request=ALL)
    assert outputs["logits"].shape == (4, 3)
    assert outputs["representation"].shape == (4, 6)
    assert outputs["hidden"][0].shape == (4, 6, 5)
    assert outputs["hidden"][1].shape == (4, 6, 8)
    assert list(model(features)) == ["logits"]
    assert list(model(features, request={"hidden": (0,)})["hidden"]) == [0]
    alone = model(features, request={"representation": None})
    np.testing.assert_allclose(alone["representation"], outputs["representation"], atol=1e-6)


def test_gives_outputs_for_every_token_of_a_tagging_task(features):
    model = BiLSTM.from_config_dict(CONFIG | {"task_type": "tagging"}, "bfloat16")
    outputs = model(features, request=ALL)
    assert outputs["logits"].shape == (4, 6, 3)
    assert outputs["representation"].shape == (4, 6, 6)
    assert outputs["logits"].dtype == outputs["representation"].dtype == tf.float32
    assert outputs["hidden"][1].dtype == tf.bfloat16


def test_projection_is_the_papers_gelu_of_the_final_state(model, features):
    outputs = model(features, request=ALL)
    states = outputs["hidden"][1].numpy()
    last = features["input_mask"].numpy().sum(1) - 1
    final = np.concatenate([states[np.arange(4), last, :4], states[:, 0, 4:]], 1)
    named = weights(model)
    x = final @ named["projection/kernel"] + named["projection/bias"]
    gelu = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    np.testing.assert_allclose(outputs["representation"], gelu, atol=1e-6)
    logits = gelu @ named["head/kernel"] + named["head/bias"]
    np.testing.assert_allclose(outputs["logits"], logits, atol=1e-6)


def test_more_padding_changes_nothing(model, features):
    padded = {
        "input_ids": tf.pad(features["input_ids"], [[0, 0], [0, 3]], constant_values=7),
        "input_mask": tf.pad(features["input_mask"], [[0, 0], [0, 3]]),
    }
    np.testing.assert_allclose(model(features)["logits"], model(padded)["logits"], atol=1e-6)


def test_refuses_an_output_it_does_not_have(model, features):
    with pytest.raises(ValueError, match="BiLSTM does not give the output 'attention'"):
        model(features, request={"attention": (1,)})
    with pytest.raises(ValueError, match=r"no 'hidden' at layers \[2\]"):
        model(features, request={"hidden": (2,)})


def test_dropout_follows_from_the_seed(model, features):
    def logits(seed):
        return model(features, training=True, seed=tf.constant(seed))["logits"].numpy()

    np.testing.assert_array_equal(logits([1, 2]), logits([1, 2]))
    assert not np.allclose(logits([1, 2]), logits([1, 3]))
    assert not np.allclose(logits([1, 2]), model(features)["logits"])
    with pytest.raises(ValueError, match="Missing argument `seed`"):
        model(features, training=True)


def test_parts_are_top_down_and_hold_every_trainable_variable_once(model):
    assert list(model.parts) == ["head", "projection", "bilstm", "embedding"]
    named = list(model.named_variables().values())
    parts = [v for part in model.parts.values() for layer in part for v in layer.variables]
    assert [v.ref() for v in named] == [v.ref() for v in parts]
    assert len({v.ref() for v in parts}) == len(parts) == len(model.variables)


def test_every_trainable_variable_gets_a_gradient(model, features):
    with tf.GradientTape() as tape:
        logits = model(features, training=True, seed=SEED)["logits"]
        loss = tf.reduce_sum(tf.square(logits))
    gradients = tape.gradient(loss, model.trainable_variables)
    assert all(np.any(tf.convert_to_tensor(gradient)) for gradient in gradients)


def test_weights_follow_from_the_seed_alone():
    tf.random.set_seed(1)
    one = weights(BiLSTM.from_config_dict(CONFIG, seed=3))
    tf.random.set_seed(2)
    again = weights(BiLSTM.from_config_dict(CONFIG, seed=3))
    other = weights(BiLSTM.from_config_dict(CONFIG, seed=4))
    assert all(same(one, again))
    assert not any(np.array_equal(one[name], other[name]) for name in one if "bias" not in name)


@pytest.mark.parametrize("part", ["head", "projection", "bilstm", "embedding"])
def test_initialise_part_changes_that_part_only(part):
    model = BiLSTM.from_config_dict(CONFIG, seed=3)
    before = weights(model)
    model.initialise_part(part, 9)
    after = weights(model)
    for name in before:
        changed = not np.array_equal(before[name], after[name])
        assert changed == (name.startswith(part) and "bias" not in name)
    model.initialise_part(part, 9)
    assert all(same(after, weights(model)))
    with pytest.raises(ValueError, match="Unknown part.*'bilstm'.*Received: 'lstm'"):
        model.initialise_part("lstm", 1)


def test_a_pruned_vocabulary_gives_the_same_outputs(model, features):
    counts = np.bincount(features["input_ids"].numpy().ravel(), minlength=13)
    counts[[4, 6]] = 0
    remap, kept = embeddings.observed_vocabulary(counts, special_ids=[0, 1])
    config = CONFIG | {"remap": True, "embedding_rows": len(kept)}
    pruned = BiLSTM.from_config_dict(config)
    pruned.set_embedding(model.embedding.table.numpy()[kept], remap)
    for name, variable in pruned.named_variables().items():
        if not name.startswith("embedding"):
            variable.assign(model.named_variables()[name])
    unknown = tf.constant([4, 6])
    ids = features["input_ids"]
    is_unknown = tf.reduce_any(ids[..., tf.newaxis] == unknown, -1)
    replaced = features | {"input_ids": tf.where(is_unknown, 1, ids)}
    np.testing.assert_allclose(model(replaced)["logits"], pruned(features)["logits"], atol=1e-6)
    assert len(pruned.trainable_variables) == len(model.trainable_variables)


def test_set_embedding_checks_shapes(model):
    with pytest.raises(ValueError, match=r"Expected shape \(13, 5\). Received: \(12, 5\)"):
        model.set_embedding(np.zeros((12, 5)), None)
    with pytest.raises(ValueError, match="Expected None.*remap=False"):
        model.set_embedding(None, np.zeros(13))
    pruned = BiLSTM(CONFIG | {"remap": True, "embedding_rows": 4})
    with pytest.raises(ValueError, match="rows in 0..3. Received: .*0..4"):
        pruned.set_embedding(None, np.arange(13) % 5)


def test_fixed_embeddings_are_not_trainable():
    model = BiLSTM(CONFIG | {"trainable_embedding": False})
    assert "embedding/table" not in [v.name.split(":")[0] for v in model.trainable_variables]
    assert "embedding/table" in model.named_variables()


@pytest.mark.parametrize(
    "change,message",
    [
        ({"lstm_unit": 4}, "Unknown field.*'lstm_unit'. Did you mean 'lstm_units'"),
        ({"lstm_units": 0}, "Invalid lstm_units. Expected an integer >= 1. Received: 0"),
        ({"num_labels": None}, "Invalid num_labels"),
        ({"task_type": "ner"}, "Invalid task_type.*Received: 'ner'"),
        ({"embedding_rows": 4}, "Invalid embedding_rows. Expected vocab_size=13"),
        ({"activation": "gleu"}, "Unknown activation.*'gleu'"),
        ({"dropout": 1.0}, "Invalid dropout rate"),
        ({"model_type": "bert"}, "Invalid model_type"),
    ],
)
def test_refuses_a_bad_config(change, message):
    with pytest.raises(ValueError, match=message):
        BiLSTM(CONFIG | change)


def test_config_is_complete_and_rebuilds_the_model(model):
    assert complete_config(model.config) == model.config
    assert json.loads(json.dumps(model.config)) == model.config
    assert model.config["model_type"] == "xdistil_bilstm"
    assert all(same(weights(BiLSTM.from_config_dict(model.config, seed=3)), weights(model)))


def test_save_and_load_give_the_same_model(tmp_path, features):
    model = BiLSTM.from_config_dict(CONFIG | {"remap": True, "embedding_rows": 4}, seed=5)
    model.set_embedding(None, np.arange(13) % 4)
    save_bilstm(model, tmp_path / "model")
    loaded = load_bilstm(tmp_path / "model")
    assert loaded.config == model.config
    assert all(same(weights(model), weights(loaded)))
    np.testing.assert_array_equal(model(features)["logits"], loaded(features)["logits"])
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == [
        "config.json",
        "model.safetensors",
    ]


def test_loading_is_strict(tmp_path, model):
    save_bilstm(model, tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = safetensors.numpy.load_file(path)
    kernel = tensors.pop("head/kernel")
    tensors |= {"extra": kernel, "head/bias": np.zeros(7, np.float32)}
    safetensors.numpy.save_file(tensors, path)
    with pytest.raises(ValueError) as error:
        load_bilstm(tmp_path)
    for problem in (
        "model.safetensors does not fit its config.json",
        "extra is unknown",
        "head/kernel is missing",
        "head/bias is float32 (7,) instead of float32 (3,)",
    ):
        assert problem in str(error.value)
    path.write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="is damaged: expected safetensors"):
        load_bilstm(tmp_path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="Expected model.safetensors"):
        load_bilstm(tmp_path)


def test_exports_with_any_batch_and_length(tmp_path, model, features):
    spec = tf.TensorSpec([None, None], tf.int32)

    @tf.function(input_signature=[spec, spec])
    def serve(input_ids, input_mask):
        return model({"input_ids": input_ids, "input_mask": input_mask})["logits"]

    module = tf.Module()
    module.weights, module.serve = model.variables, serve
    # A gradient cannot be exported: it holds tensors of the forward pass.
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    tf.saved_model.save(module, str(tmp_path), options=options)
    loaded = tf.saved_model.load(str(tmp_path))
    expected = model(features)["logits"]
    np.testing.assert_allclose(loaded.serve(**features), expected, atol=1e-6)
    one = {name: value[1:2, :2] for name, value in features.items()}
    np.testing.assert_allclose(loaded.serve(**one), expected[1:2], atol=1e-6)
