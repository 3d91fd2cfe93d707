"""The BiLSTM student: shapes, parameters, dropout, pruned vocabulary, files."""

import json

import numpy as np
import pytest
import safetensors.numpy
import tensorflow as tf

from xdistil_tf.models import embeddings, pair_sides
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


# Tang et al. (2019): channels of 300, LSTM units, projection, classes, whether pairs; parameters
# besides the word vectors, with one bias a gate.
PUBLISHED_OF_DBERT = [
    (2, 150, 200, 2, False, 961_802),
    (2, 300, 400, 2, False, 2_403_602),
    (1, 150, 200, 2, False, 601_802),
    (1, 300, 400, 2, False, 1_683_602),
    (2, 150, 200, 3, True, 1_142_003),
    (2, 300, 200, 2, True, 2_643_002),
]
PAIRS = CONFIG | {"pairs": "siamese", "separator_id": 2, "special_ids": [1, 2], "dropout": 0.0}


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


@pytest.mark.parametrize("channels,units,width,classes,pair,count", PUBLISHED_OF_DBERT)
def test_has_the_parameters_of_dberts_students(channels, units, width, classes, pair, count):
    config = {
        "vocab_size": 40,
        "embedding_dim": 300,
        "multichannel": channels == 2,
        "lstm_units": units,
        "projection_dim": width,
        "num_labels": classes,
        "activation": "relu",
        **({"pairs": "siamese", "separator_id": 2} if pair else {}),
    }
    with tf.Graph().as_default():
        named = BiLSTM(config).named_variables()
    sizes = {name: int(np.prod(one.shape)) for name, one in named.items()}
    tables = {name: sizes.pop(name) for name in list(sizes) if name.startswith("embedding/")}
    assert sum(sizes.values()) == count
    assert tables == dict.fromkeys(["embedding/table", "embedding/frozen"][:channels], 40 * 300)


def test_a_frozen_channel_keeps_what_the_other_starts_from(features):
    model = BiLSTM.from_config_dict(CONFIG | {"multichannel": True}, seed=3)
    table = np.random.default_rng(0).normal(size=(13, 5)).astype(np.float32)
    model.set_embedding(table, None)
    embedded = model(features, request={"hidden": (0,)})["hidden"][0].numpy()
    np.testing.assert_array_equal(embedded[..., :5], embedded[..., 5:])
    np.testing.assert_array_equal(embedded[..., :5], table[features["input_ids"].numpy()])
    trained = {one.name for one in model.trainable_variables}
    assert any("embedding/table" in name for name in trained)
    assert not any("embedding/frozen" in name for name in trained)


def pair_features(*pairs, extra=0, length=9):
    """`[CLS] a [SEP] b [SEP]` as 1 a 2 b 2; `extra` more separators between the texts."""
    rows = [[1, *a, *[2] * (1 + extra), *b, 2] for a, b in pairs]
    mask = [[1] * len(row) + [0] * (length - len(row)) for row in rows]
    ids = [row + [0] * (length - len(row)) for row in rows]
    return {"input_ids": tf.constant(ids), "input_mask": tf.constant(mask)}


def test_texts_of_a_pair_are_taken_apart():
    for extra in (0, 1):  # RoBERTa has two separators between them.
        made = pair_features(([5, 6, 7], [8]), ([9], [10, 11]), extra=extra)
        ids, lengths = pair_sides.split_pairs(made["input_ids"], made["input_mask"], 2, [1, 2])
        assert lengths.numpy().tolist() == [3, 1, 1, 2]
        texts = [row[:n].tolist() for row, n in zip(ids.numpy(), lengths.numpy(), strict=True)]
        assert texts == [[5, 6, 7], [9], [8], [10, 11]]
    made = pair_features(([], [5]), ([], []))
    ids, lengths = pair_sides.split_pairs(made["input_ids"], made["input_mask"], 2, [1, 2])
    assert lengths.numpy().tolist() == [0, 0, 1, 0] and ids.shape == (4, 1)


def test_of_a_pair_states_distance_and_product_are_compared():
    model = BiLSTM.from_config_dict(PAIRS | {"activation": "relu"}, seed=3)
    single = BiLSTM.from_config_dict(CONFIG | {"dropout": 0.0}, seed=3)
    named, others = model.named_variables(), single.named_variables()
    for name, variable in others.items():
        if not name.startswith("projection"):
            variable.assign(named[name])
    made = pair_features(([5, 6, 7], [8, 9]))

    def final(tokens):
        inputs = {
            "input_ids": tf.constant([tokens]),
            "input_mask": tf.ones([1, len(tokens)], tf.int32),
        }
        states = single(inputs, request={"hidden": (1,)})["hidden"][1].numpy()[0]
        return np.concatenate([states[-1, :4], states[0, 4:]])

    a, b = final([5, 6, 7]), final([8, 9])
    joined = np.concatenate([a, b, np.abs(a - b), a * b])
    x = joined @ named["projection/kernel"].numpy() + named["projection/bias"].numpy()
    outputs = model(made, request={"logits": None, "representation": None})
    np.testing.assert_allclose(outputs["representation"][0], np.maximum(x, 0), atol=1e-6)


def test_equal_texts_of_a_pair_have_no_distance():
    made = pair_features(([5, 6], [5, 6]), ([7], [8]))
    ids, lengths = pair_sides.split_pairs(made["input_ids"], made["input_mask"], 2, [1, 2])
    states = tf.one_hot(ids[:, 0], 12)
    both = pair_sides.compared(states).numpy()
    np.testing.assert_array_equal(both[0, 24:36], 0)
    np.testing.assert_array_equal(both[0, 36:], states[0] ** 2)
    assert both[1, 24:36].any() and not both[1, 36:].any()


def test_padding_does_not_change_a_pair_and_the_other_pairs_neither():
    model = BiLSTM.from_config_dict(PAIRS, seed=3)
    both = model(pair_features(([5, 6, 7], [8]), ([9], [10, 11])))["logits"]
    alone = model(pair_features(([9], [10, 11]), length=20))["logits"]
    np.testing.assert_allclose(both[1:], alone, atol=1e-6)


@pytest.mark.parametrize(
    "change,message",
    [
        ({"pairs": "both"}, "Invalid pairs. Expected one of"),
        ({"pairs": "siamese"}, "Missing separator_id"),
        ({"pairs": "siamese", "separator_id": 2, "task_type": "tagging"}, "Tags belong to one"),
        ({"dropout_at": ["head"]}, "Invalid dropout_at"),
    ],
)
def test_impossible_pairs_and_dropouts_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        BiLSTM(CONFIG | change)


def test_dropout_stands_where_it_is_wanted(features):
    quiet = BiLSTM.from_config_dict(CONFIG | {"dropout_at": []}, seed=3)
    trained = quiet(features, training=True, seed=SEED)["logits"]
    np.testing.assert_allclose(trained, quiet(features)["logits"], atol=1e-6)
    last = BiLSTM.from_config_dict(CONFIG | {"dropout_at": ["projection"]}, seed=3)
    asked = {"logits": None, "representation": None}
    trained, run = (
        last(features, training=True, request=asked, seed=SEED),
        last(features, request=asked),
    )
    np.testing.assert_allclose(trained["representation"], run["representation"], atol=1e-6)
    assert np.abs(trained["logits"] - run["logits"]).max() > 1e-3
