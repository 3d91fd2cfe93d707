"""Checkpoints of every format load strictly; what is saved loads again."""

import json
import os
import pathlib
import sys

import h5py
import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from safetensors import numpy as safetensors_numpy
from safetensors import safe_open

from xdistil_tf.models import checkpoint_readers, encoder, encoder_config, pretrained, weight_names

FIXTURES = pathlib.Path(__file__).parent / "fixtures"
FAMILIES = ["bert", "roberta", "xlm-roberta", "distilbert", "electra"]


def load_fixture(name):
    arrays = dict(np.load(FIXTURES / f"{name}.npz"))
    weights = {k.removeprefix("weight/"): v for k, v in arrays.items() if k.startswith("weight/")}
    return json.loads(str(arrays["config"])), weights


def write_folder(folder, config, weights):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    safetensors_numpy.save_file(weights, folder / "model.safetensors")
    return folder


def values(model):
    return {name: variable.numpy() for name, variable in model.named_variables().items()}


def assert_same_weights(first, second, atol=0.0):
    first, second = values(first), values(second)
    assert list(first) == list(second)
    for name, value in first.items():
        np.testing.assert_allclose(value, second[name], atol=atol, err_msg=name)


@pytest.fixture(name="bert")
def bert_fixture():
    return load_fixture("bert_classification")


def changed(folder, config, weights, change):
    weights = dict(weights)
    change(weights)
    return write_folder(folder, config, weights)


# --- strictness -----------------------------------------------------------------------------


def test_names_every_missing_extra_and_misshapen_tensor(tmp_path, bert):
    def change(weights):
        del weights["bert.encoder.layer.0.attention.self.key.bias"]
        del weights["bert.encoder.layer.1.output.dense.weight"]
        weights["bert.encoder.layer.7.output.dense.bias"] = np.zeros(3, np.float32)
        weights["bert.embeddings.LayerNorm.bias"] = np.zeros(3, np.float32)

    folder = changed(tmp_path / "m", *bert, change)
    with pytest.raises(ValueError) as error:
        pretrained.load_encoder(folder)
    message = str(error.value)
    assert "missing encoder.layer.0.attention.self.key.bias" in message
    assert "missing encoder.layer.1.output.dense.weight" in message
    assert "unexpected encoder.layer.7.output.dense.bias" in message
    assert "embeddings.LayerNorm.bias has shape (3,), expected (16,)" in message
    assert "allow_missing_head" not in message and "\n" not in message


def test_allow_missing_head_excuses_no_missing_body(tmp_path, bert):
    folder = changed(
        tmp_path / "m", *bert, lambda w: w.pop("bert.embeddings.word_embeddings.weight")
    )
    with pytest.raises(ValueError, match="missing embeddings.word_embeddings.weight"):
        pretrained.load_encoder(folder, allow_missing_head=True)


def test_a_missing_head_is_an_error_unless_allowed(tmp_path, bert):
    def change(weights):
        del weights["classifier.weight"], weights["classifier.bias"]

    folder = changed(tmp_path / "m", *bert, change)
    with pytest.raises(ValueError, match="missing classifier.weight.*allow_missing_head"):
        pretrained.load_encoder(folder)
    model = pretrained.load_encoder(folder, allow_missing_head=True, seed=3)
    assert model.fresh_parts == ("head",)
    kernel = model.named_variables()["head/output/kernel"].numpy()
    again = pretrained.load_encoder(folder, allow_missing_head=True, seed=3)
    assert kernel.any()
    np.testing.assert_array_equal(kernel, again.named_variables()["head/output/kernel"])


def test_a_head_of_another_size_is_fresh_where_allowed(tmp_path, bert):
    folder = write_folder(tmp_path / "m", *bert)
    head = {"kind": "classification", "num_labels": 7}
    with pytest.raises(ValueError, match=r"classifier.weight has shape \(3, 16\), expected \(7, "):
        pretrained.load_encoder(folder, head=head)
    model = pretrained.load_encoder(folder, head=head, allow_missing_head=True)
    assert model.fresh_parts == ("head",)
    assert model.config["head"]["num_labels"] == 7


def test_nothing_is_fresh_in_a_complete_checkpoint(tmp_path, bert):
    model = pretrained.load_encoder(write_folder(tmp_path / "m", *bert), allow_missing_head=True)
    assert model.fresh_parts == ()


@pytest.mark.parametrize("name", ["bert_pretraining", "roberta_masked_lm", "distilbert_masked_lm"])
def test_pretraining_heads_may_be_left_aside(tmp_path, name):
    folder = write_folder(tmp_path / "m", *load_fixture(name))
    model = pretrained.load_encoder(folder, head={"kind": None})
    assert "masked_lm" not in model.parts
    head = {"kind": "tagging", "num_labels": 2}
    model = pretrained.load_encoder(folder, head=head, allow_missing_head=True)
    assert model.fresh_parts == ("head",)


def test_harmless_extras_pass(tmp_path, bert):
    def change(weights):
        weights["bert.embeddings.position_ids"] = np.arange(20)[None]
        weights["cls.predictions.bias"] = np.zeros(60, np.float32)
        weights["fit_denses.0.weight"] = np.zeros((4, 4), np.float32)

    pretrained.load_encoder(changed(tmp_path / "m", *bert, change))


def test_an_untied_decoder_is_refused(tmp_path):
    config, weights = load_fixture("bert_pretraining")
    word = weights["bert.embeddings.word_embeddings.weight"]
    weights["cls.predictions.decoder.weight"] = word.copy()
    pretrained.load_encoder(write_folder(tmp_path / "m", config, weights))
    weights["cls.predictions.decoder.weight"] = word + 1
    with pytest.raises(ValueError, match="cls.predictions.decoder.weight differs"):
        pretrained.load_encoder(write_folder(tmp_path / "m", config, weights))


# --- formats --------------------------------------------------------------------------------


def test_prefix_and_legacy_names_do_not_matter(tmp_path, bert):
    config, weights = bert
    expected = pretrained.load_encoder(write_folder(tmp_path / "a", config, weights))
    legacy = {}
    for name, value in weights.items():
        if "LayerNorm" in name:
            name = name.replace(".weight", ".gamma").replace(".bias", ".beta")
        legacy[name.removeprefix("bert.")] = value
    assert any(name.endswith(".gamma") for name in legacy)
    folder = write_folder(tmp_path / "b", config, legacy)
    assert_same_weights(pretrained.load_encoder(folder), expected)


def test_unknown_config_keys_are_ignored(tmp_path, bert):
    config, weights = bert
    folder = write_folder(tmp_path / "m", {**config, "gradient_checkpointing": False}, weights)
    assert "gradient_checkpointing" not in pretrained.load_encoder(folder).config


def test_sharded_safetensors(tmp_path, bert):
    config, weights = bert
    expected = pretrained.load_encoder(write_folder(tmp_path / "a", config, weights))
    folder, names = tmp_path / "b", sorted(weights)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    files = {name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(names)}
    for file in set(files.values()):
        part = {name: weights[name] for name in names if files[name] == file}
        safetensors_numpy.save_file(part, folder / file)
    index = json.dumps({"weight_map": files})
    (folder / "model.safetensors.index.json").write_text(index)
    assert_same_weights(pretrained.load_encoder(folder), expected)
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="model-00002-of-00002.safetensors"):
        pretrained.load_encoder(folder)


@pytest.mark.parametrize(("dtype", "atol"), [(np.float16, 5e-3), (ml_dtypes.bfloat16, 3e-2)])
def test_half_precision_tensors(tmp_path, bert, dtype, atol):
    config, weights = bert
    expected = pretrained.load_encoder(write_folder(tmp_path / "a", config, weights))
    half = {name: value.astype(dtype) for name, value in weights.items()}
    actual = pretrained.load_encoder(write_folder(tmp_path / "b", config, half))
    assert_same_weights(actual, expected, atol=atol)


def test_damaged_safetensors(tmp_path, bert):
    folder = write_folder(tmp_path / "m", *bert)
    path = folder / "model.safetensors"
    content = path.read_bytes()
    for damaged in (content[:-100], content[:50], b""):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="Damaged safetensors.*model.safetensors"):
            pretrained.load_encoder(folder)


def tensorflow_names(weights):
    """The PyTorch weights of a BERT classifier under google-research/bert's names."""
    result = {}
    for name, value in weights.items():
        path = name.replace("encoder.layer.", "encoder.layer_").replace(".", "/")
        if name.startswith("classifier."):
            result["output_weights" if name.endswith("weight") else "output_bias"] = value
        elif "LayerNorm" in name:
            result[path.replace("/weight", "/gamma").replace("/bias", "/beta")] = value
        elif path.endswith("_embeddings/weight"):
            result[path.removesuffix("/weight")] = value
        elif path.endswith("/weight"):
            result[path.removesuffix("weight") + "kernel"] = value.T
        else:
            result[path] = value
    return result


def write_tf1(folder, config, arrays, prefix="model.ckpt-20"):
    folder.mkdir()
    keys = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads",
            "intermediate_size", "max_position_embeddings", "type_vocab_size")  # fmt: skip
    (folder / "bert_config.json").write_text(json.dumps({key: config[key] for key in keys}))
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        variables = [
            tf.compat.v1.get_variable(name, initializer=tf.constant(value))
            for name, value in arrays.items()
        ]
        session.run(tf.compat.v1.global_variables_initializer())
        saver = tf.compat.v1.train.Saver(variables)
        saver.save(session, str(folder / prefix), write_meta_graph=False)


def test_tf1_checkpoint_with_head_and_optimizer_slots(tmp_path, bert):
    config, weights = bert
    expected = pretrained.load_encoder(write_folder(tmp_path / "a", config, weights))
    arrays = tensorflow_names(weights)
    arrays["bert/pooler/dense/kernel/adam_m"] = np.zeros((16, 16), np.float32)
    arrays["bert/pooler/dense/kernel/adam_v"] = np.zeros((16, 16), np.float32)
    arrays["global_step"] = np.array(20)
    write_tf1(tmp_path / "b", config, arrays)
    model = pretrained.load_encoder(tmp_path / "b")
    assert model.config["head"]["kind"] == "classification"
    assert_same_weights(model, expected)


def test_tf1_checkpoint_without_head(tmp_path):
    config, weights = load_fixture("bert_pretraining")
    weights = {name: value for name, value in weights.items() if "decoder" not in name}
    expected = pretrained.load_encoder(write_folder(tmp_path / "a", config, weights))
    arrays = {}
    for name, value in tensorflow_names(weights).items():
        name = name.replace("predictions/bias", "predictions/output_bias")
        if "seq_relationship" in name:
            last = name.rsplit("/", 1)[1]
            value = value.T if last == "kernel" else value
            name = f"cls/seq_relationship/output_{'weights' if last == 'kernel' else 'bias'}"
        arrays[name] = value
    write_tf1(tmp_path / "b", config, arrays)
    assert_same_weights(pretrained.load_encoder(tmp_path / "b"), expected)
    (tmp_path / "b" / "checkpoint").unlink()
    head = {"kind": "classification", "num_labels": 2}
    with pytest.raises(ValueError, match="missing classifier.weight"):
        pretrained.load_encoder(tmp_path / "b", head=head)
    model = pretrained.load_encoder(tmp_path / "b", head=head, allow_missing_head=True)
    assert model.fresh_parts == ("head",)


def test_tf_model_h5(tmp_path, bert):
    config, weights = bert
    expected = pretrained.load_encoder(write_folder(tmp_path / "a", config, weights))
    folder = tmp_path / "b"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    with h5py.File(folder / "tf_model.h5", "w") as file:
        for name, value in tensorflow_names(weights).items():
            name = name.replace("encoder/layer_", "encoder/layer_._")
            if name.endswith(("position_embeddings", "token_type_embeddings")):
                name = f"{name}/embeddings"
            elif name.endswith("word_embeddings"):
                name = f"{name}/weight"
            elif name.startswith("output_"):
                value = value.T
                name = f"classifier/{'kernel' if name.endswith('weights') else 'bias'}"
            group = name.split("/")[0]
            file[f"{group}/tf_bert_for_sequence_classification/{name}:0"] = value
    assert_same_weights(pretrained.load_encoder(folder), expected)


def test_bin_without_torch_names_the_cure(tmp_path, bert, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "config.json").write_text(json.dumps(bert[0]))
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ImportError, match=r"pip install xdistil_tf\[torch\]"):
        pretrained.load_encoder(tmp_path)
    assert pretrained.read_config(tmp_path)["head"]["num_labels"] == 3


def test_names_of_a_real_google_checkpoint(tmp_path):
    data = os.environ.get("XDISTIL_DATA")
    if not data:
        pytest.skip("XDISTIL_DATA is not set")
    folder = pathlib.Path(data) / "bert"
    index = folder / "tf_index" / "uncased_L-4_H-256_A-4.bert_model.ckpt.index"
    found = checkpoint_readers.read_tf1(str(index).removesuffix(".index"))
    config = json.loads(
        (folder / "config/google_uncased_L-4_H-256_A-4.bert_config.json").read_text()
    )
    head = {"kind": "pretraining", "next_sentence": True}
    model = encoder.Encoder({**config, "head": head})
    plain = {weight_names.plain_name(name, "bert"): tensor for name, tensor in found.items()}
    variables, used = model.named_variables(), set()
    for name, names in weight_names.sources(variables, "bert").items():
        for tensor_name in names:
            shape = weight_names.tensor_shape(name, tuple(variables[name].shape), len(names))
            assert plain[tensor_name].shape == shape, name
            used.add(tensor_name)
    assert used == set(plain)


# --- saving ---------------------------------------------------------------------------------

HEADS = [
    None,
    {"kind": "classification", "num_labels": 3},
    {"kind": "classification", "num_labels": 3, "pooler": "none"},
    {"kind": "regression", "num_labels": 1},
    {"kind": "tagging", "num_labels": 4},
    {"kind": "pretraining"},
]


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_saved_loads_again(family, tmp_path):
    for number, head in enumerate(HEADS):
        sizes = {"vocab_size": 30, "hidden_size": 8, "num_hidden_layers": 2,
                 "num_attention_heads": 2, "intermediate_size": 12, "hidden_act": "gelu_new",
                 "max_position_embeddings": 16, "classifier_dropout": 0.3}  # fmt: skip
        config = {**sizes, "model_type": family, "head": head}
        model = encoder.Encoder.from_config_dict(config, seed=number)
        folder = tmp_path / str(number)
        pretrained.save_encoder(model, folder)
        again = pretrained.load_encoder(folder)
        assert again.config == model.config
        assert pretrained.read_config(folder) == model.config
        assert_same_weights(again, model)


def test_the_saved_folder_is_hugging_faces(tmp_path, bert):
    config, weights = bert
    model = pretrained.load_encoder(write_folder(tmp_path / "a", config, weights))
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "vocab.txt").write_text("[PAD]\n")
    pretrained.save_encoder(model, tmp_path / "b", labels=("no", "maybe", "yes"))
    files = {"vocab.txt", "config.json", "model.safetensors"}
    assert set(os.listdir(tmp_path / "b")) == files
    written = json.loads((tmp_path / "b" / "config.json").read_text())
    assert written["architectures"] == ["BertForSequenceClassification"]
    assert written["id2label"] == {"0": "no", "1": "maybe", "2": "yes"}
    assert written["label2id"] == {"no": 0, "maybe": 1, "yes": 2}
    assert {"xdistil", "model_type"} < set(written) and "head" not in written
    assert pretrained.read_labels(tmp_path / "b") == ("no", "maybe", "yes")
    with safe_open(tmp_path / "b" / "model.safetensors", "np") as file:
        assert file.metadata() == {"format": "pt"}
        assert set(file.keys()) == set(weights)
        for name in weights:
            np.testing.assert_array_equal(file.get_tensor(name), weights[name])
    with pytest.raises(ValueError, match="labels.*Expected 3.*Received 1"):
        pretrained.save_encoder(model, tmp_path / "c", labels=("one",))


@pytest.mark.parametrize(
    ("config", "class_name"),
    [
        ({"head": {"kind": "pretraining", "next_sentence": True}}, "BertForPreTraining"),
        ({"head": {"kind": "pretraining"}}, "BertForMaskedLM"),
        ({"head": None}, "BertModel"),
        ({"model_type": "xlm-roberta", "head": HEADS[4]}, "XLMRobertaForTokenClassification"),
        ({"model_type": "distilbert", "head": HEADS[1]}, "DistilBertForSequenceClassification"),
    ],
)
def test_names_the_class_of_transformers(config, class_name):
    full = encoder_config.to_huggingface(encoder_config.complete_config(config))
    assert full["architectures"] == [class_name]


# --- reading parts of a folder --------------------------------------------------------------


def test_reads_word_embeddings_alone(tmp_path, bert):
    folder = write_folder(tmp_path / "m", *bert)
    table = pretrained.read_word_embeddings(folder)
    np.testing.assert_array_equal(table, bert[1]["bert.embeddings.word_embeddings.weight"])
    table[0] = 0  # ours to change
    folder = changed(
        tmp_path / "n", *bert, lambda w: w.pop("bert.embeddings.word_embeddings.weight")
    )
    with pytest.raises(ValueError, match="No word embeddings"):
        pretrained.read_word_embeddings(folder)


def test_fingerprint_follows_weights_and_config(tmp_path, bert):
    config, weights = bert
    first = pretrained.weights_fingerprint(write_folder(tmp_path / "a", config, weights))
    folder = write_folder(tmp_path / "b", {**config, "note": 1}, weights)
    assert pretrained.weights_fingerprint(folder) == first
    heads = 2 * config["num_attention_heads"]
    folder = write_folder(tmp_path / "b", {**config, "num_attention_heads": heads}, weights)
    assert pretrained.weights_fingerprint(folder) != first
    weights = {**weights, "classifier.bias": weights["classifier.bias"] + 1}
    folder = write_folder(tmp_path / "b", config, weights)
    assert pretrained.weights_fingerprint(folder) != first
    assert len(first) == 64


def test_tensors_that_nothing_reads_are_named_once(tmp_path, bert, monkeypatch):
    def add(weights):
        weights["lm_head.bias"] = weights["classifier.bias"]

    folder, lines = changed(tmp_path / "m", *bert, add), []
    monkeypatch.setattr(
        pretrained.logging, "info", lambda text, *values: lines.append(text % values)
    )
    for _ in range(2):
        pretrained.load_encoder(folder)
    assert len(lines) == 1 and "nothing here reads them" in lines[0] and "lm_head.bias" in lines[0]


def test_a_path_that_begins_here_is_no_hub_name(tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="No such folder: 'runs/tacher'"):
        pretrained.resolve_folder("runs/tacher")


def test_a_recurrent_folder_has_no_word_embeddings_to_take_over(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "xdistil_bilstm"}))
    with pytest.raises(ValueError, match="Expected an encoder.*Set model.embedding.source"):
        pretrained.read_word_embeddings(tmp_path)


def test_overrides_change_the_config(tmp_path, bert):
    folder = write_folder(tmp_path / "m", *bert)
    model = pretrained.load_encoder(folder, overrides={"hidden_dropout_prob": 0.4})
    assert model.config["hidden_dropout_prob"] == 0.4


@pytest.mark.parametrize("name", ["/no/such/folder", "./nowhere", "a/b/c"])
def test_a_path_that_is_not_there(name):
    with pytest.raises(FileNotFoundError, match="No such folder.*Expected a model folder or hub"):
        pretrained.resolve_folder(name)


def test_a_hub_name_without_network(monkeypatch):
    import huggingface_hub

    def offline(*args, **kwargs):
        raise huggingface_hub.errors.LocalEntryNotFoundError("cannot\nreach")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(FileNotFoundError, match="'some/model'.*Give a local model folder") as error:
        pretrained.resolve_folder("some/model")
    assert "\n" not in str(error.value)


def test_a_hub_name_is_downloaded_once(monkeypatch, tmp_path, bert):
    import huggingface_hub

    calls = []
    folder = write_folder(tmp_path / "m", *bert)
    monkeypatch.setattr(
        huggingface_hub,
        "snapshot_download",
        lambda name, **kwargs: calls.append((name, kwargs["allow_patterns"])) or str(folder),
    )
    assert pretrained.resolve_folder("some/model") == str(folder)
    assert [name for name, _ in calls] == ["some/model"]
    assert not any("bin" in pattern for pattern in calls[0][1])


def test_folders_without_config_or_weights_or_of_other_families(tmp_path, bert):
    with pytest.raises(FileNotFoundError, match="No config in"):
        pretrained.load_encoder(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(bert[0]))
    with pytest.raises(FileNotFoundError, match="No weights in"):
        pretrained.load_encoder(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "albert"}')
    with pytest.raises(ValueError, match="model_type.*'albert'"):
        pretrained.load_encoder(tmp_path)
    relative = {**bert[0], "position_embedding_type": "relative_key"}
    (tmp_path / "config.json").write_text(json.dumps(relative))
    with pytest.raises(ValueError, match="position_embedding_type.*'relative_key'"):
        pretrained.load_encoder(tmp_path)


def test_a_head_added_elsewhere_counts_more_than_our_key(tmp_path, bert):
    config, weights = bert
    stale = {"head": {"kind": None, "num_labels": None, "pooler": "tanh_pooler"}}
    folder = write_folder(tmp_path / "m", {**config, "xdistil": stale}, weights)
    assert pretrained.load_encoder(folder).config["head"]["kind"] == "classification"
