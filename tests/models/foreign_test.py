"""Encoders that `transformers` has in TensorFlow and we have not, on tiny random weights."""

import json

import numpy as np
import pytest
import tensorflow as tf
import transformers
from safetensors import numpy as safetensors_numpy
from transformers import modeling_tf_pytorch_utils as converters

from tests.small_task import OPTIONS, stage, student_recipe
from xdistil_tf import files
from xdistil_tf.export import parity
from xdistil_tf.export.model_folder import export_model_folder
from xdistil_tf.models import folders, foreign, foreign_folders
from xdistil_tf.predict import Predictor
from xdistil_tf.run import run
from xdistil_tf.teachers import LiveTeacher

pytest_plugins = ["tests.small_task"]

VOCABULARY = 40
_SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 20,
}
ARCHITECTURES = {
    "albert": _SIZES | {"embedding_size": 8},
    "convbert": _SIZES | {"embedding_size": 16, "conv_kernel_size": 3, "num_attention_heads": 4},
    "ctrl": {"n_embd": 16, "dff": 24, "n_layer": 2, "n_head": 2, "n_positions": 20},
    "deberta": _SIZES,
    "deberta-v2": _SIZES,
    "flaubert": {"emb_dim": 16, "n_layers": 2, "n_heads": 2, "max_position_embeddings": 20},
    "funnel": {"block_sizes": [1, 1], "d_model": 16, "n_head": 2, "d_head": 8, "d_inner": 24},
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 20},
    "layoutlm": _SIZES,
    "longformer": _SIZES | {"attention_window": 4},
    "mobilebert": _SIZES
    | {"embedding_size": 8, "true_hidden_size": 16, "intra_bottleneck_size": 16}
    | {"hidden_size": 16, "num_feedforward_networks": 1},
    "mpnet": _SIZES,
    "openai-gpt": {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 20},
    "rembert": _SIZES | {"input_embedding_size": 8, "output_embedding_size": 8},
    "roformer": _SIZES | {"embedding_size": 16},
    "xlm": {"emb_dim": 16, "n_layers": 2, "n_heads": 2, "max_position_embeddings": 20},
    "xlnet": {"d_model": 16, "n_layer": 2, "n_head": 2, "d_inner": 24},
}
BATCH = {
    "input_ids": tf.constant([[3, 7, 9, 5], [3, 8, 0, 0]]),
    "input_mask": tf.constant([[1, 1, 1, 1], [1, 1, 0, 0]]),
}
each = pytest.mark.parametrize("kind", ARCHITECTURES)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Kind -> a folder with `tf_model.h5`, made once, and the model that was saved there."""
    made = {}

    def folder_of(kind):
        if kind not in made:
            config = transformers.CONFIG_MAPPING[kind](vocab_size=VOCABULARY, **ARCHITECTURES[kind])
            known = transformers.TF_MODEL_MAPPING[type(config)]
            model = (known[0] if isinstance(known, tuple) else known)(config)
            model({"input_ids": BATCH["input_ids"], "attention_mask": BATCH["input_mask"]})
            rng = np.random.default_rng(0)
            for variable in model.weights:
                if variable.dtype.is_floating:
                    variable.assign(variable + 0.1 * rng.normal(size=variable.shape))
            folder = tmp_path_factory.mktemp(kind)
            model.save_pretrained(folder)
            made[kind] = folder, model
        return made[kind]

    return folder_of


def theirs(model):
    inputs = {"input_ids": BATCH["input_ids"], "attention_mask": BATCH["input_mask"]}
    given = model(inputs, output_hidden_states=True, training=False)
    return given.last_hidden_state.numpy(), [state.numpy() for state in given.hidden_states]


def ours(model):
    given = model(BATCH, request={"hidden": model.available["hidden"]})["hidden"]
    return given[max(given)].numpy(), [given[number].numpy() for number in sorted(given)]


def real(states):
    return states[BATCH["input_mask"].numpy() > 0]


def write_as(folder, target, model, layout):
    """The same weights as a safetensors file of another layout."""
    target.mkdir()
    (target / "config.json").write_text((folder / "config.json").read_text())
    if layout == "tf":
        model.save_pretrained(target, safe_serialization=True)
        return
    tensors = {}
    for variable in model.weights:
        name, transpose = converters.convert_tf_weight_name_to_pt_weight_name(
            variable.name, tf_weight_shape=variable.shape
        )
        value = converters.apply_transpose(transpose, variable.numpy(), None, pt_to_tf=False)
        plain = name.removeprefix(f"{model.base_model_prefix}.")
        tensors[name if layout == "pt with prefix" else plain] = np.ascontiguousarray(value)
    data = safetensors_numpy.save(tensors, metadata={"format": "pt"})
    (target / "model.safetensors").write_bytes(data)


@each
def test_it_computes_what_transformers_does(saved, kind):
    folder, model = saved(kind)
    loaded = folders.load_model(folder)
    assert isinstance(loaded, foreign.ForeignEncoder)
    (last, states), (our_last, our_states) = theirs(model), ours(loaded)
    np.testing.assert_allclose(real(our_last), real(last), atol=1e-4)
    if kind == "funnel":  # Its blocks have texts of other lengths.
        states = [states[0], last]
    assert len(our_states) == len(states) == loaded.config["num_hidden_layers"] + 1
    for one, other in zip(our_states[:-1], states[:-1], strict=True):
        np.testing.assert_allclose(real(one), real(other), atol=1e-4)
    config = folders.read_config(folder)
    assert config == loaded.config and config["hidden_size"] == last.shape[-1]


@pytest.mark.parametrize("layout", ["tf", "pt", "pt with prefix"])
@each
def test_every_layout_of_safetensors_is_read(saved, kind, layout, tmp_path):
    folder, model = saved(kind)
    write_as(folder, tmp_path / "other", model, layout)
    loaded = folders.load_model(tmp_path / "other")
    np.testing.assert_allclose(real(ours(loaded)[0]), real(theirs(model)[0]), atol=1e-4)


@each
def test_a_head_of_ours_is_kept_with_it(saved, kind, tmp_path):
    folder, _ = saved(kind)
    head = {"kind": "tagging", "num_labels": 3, "crf": kind == "albert"}
    model = foreign_folders.load_foreign(folder, head, allow_missing_head=True, seed=3)
    assert model.fresh_parts == ("head",)
    folders.save_model(model, tmp_path, ["O", "B-X", "I-X"])
    again = folders.load_model(tmp_path)
    assert again.config["head"] == model.config["head"]
    assert folders.class_names(tmp_path) == ("O", "B-X", "I-X")
    np.testing.assert_array_equal(again(BATCH)["logits"], model(BATCH)["logits"])
    assert again(BATCH)["logits"].shape == (2, 4, 3)
    same = foreign_folders.load_foreign(folder, head, allow_missing_head=True, seed=3)
    np.testing.assert_array_equal(same(BATCH)["logits"], model(BATCH)["logits"])


@pytest.mark.parametrize(("kind", "last"), [("albert", False), ("gpt2", True), ("xlnet", True)])
def test_a_sentence_is_read_where_all_of_it_has_been_seen(saved, kind, last):
    folder, _ = saved(kind)
    head = {"kind": "classification", "num_labels": 2}
    model = foreign_folders.load_foreign(folder, head, allow_missing_head=True)
    states, given = ours(model)[0], model(BATCH, request={"representation": None})
    place = [3, 1] if last else [0, 0]
    np.testing.assert_allclose(given["representation"], states[[0, 1], place], atol=1e-6)
    teacher = LiveTeacher(model, layer=1)
    answer = teacher(BATCH, {"representation": None})["representation"]
    np.testing.assert_allclose(answer, ours(model)[1][1][[0, 1], place], atol=1e-6)


def test_attention_is_missed_before_the_first_step(saved, small, tmp_path):
    folder, _ = saved("albert")
    teacher = LiveTeacher(folders.load_model(folder))
    with pytest.raises(ValueError, match="teacher does not give the output 'attention'"):
        teacher(BATCH, {"attention": (1,)})


def in_this_process(folder):
    report = parity.check(folder)
    files.write_json(folder / parity.REPORT_FILE, report)
    return report


def test_it_is_fine_tuned_and_teaches_and_resumes(small, tmp_path, monkeypatch):
    config = transformers.AlbertConfig(
        vocab_size=small.tokenizer.vocab_size,
        **(ARCHITECTURES["albert"] | {"max_position_embeddings": 64}),
    )
    model = transformers.TFAlbertModel(config)
    model({"input_ids": BATCH["input_ids"], "attention_mask": BATCH["input_mask"]})
    model.save_pretrained(tmp_path / "albert")
    small.tokenizer.save(tmp_path / "albert")
    labels = stage(name="finetune", data="train", objective=[{"loss": "task"}])
    recipe = student_recipe(labels, model={"kind": "encoder"}, teacher=None)
    for name in ("teacher", "again"):
        run(
            recipe, small.data(), tmp_path / name, init_checkpoint=str(tmp_path / "albert"),
            options=OPTIONS,
        )  # fmt: skip
    weights = [tmp_path / name / "model" / "model.safetensors" for name in ("teacher", "again")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    teacher = folders.find(str(tmp_path / "teacher"))
    monkeypatch.setattr(parity, "check_in_fresh_process", in_this_process)
    export_model_folder(teacher, tmp_path / "export" / "1", ["the soup was great"])
    answer = parity.load_exported(tmp_path / "export" / "1").from_text(["the soup was great"])
    expected = Predictor(teacher).scores(["the soup was great"])
    np.testing.assert_allclose(answer["scores"], expected, atol=1e-5)
    both = stage(
        objective=[
            {"loss": "mean_squared_error", "output": "logits"},
            {"loss": "mean_squared_error", "output": "representation"},
        ]
    )
    embedding = {"source": "teacher", "dim": 6}
    taught = student_recipe(both, model={"kind": "bilstm", "embedding": embedding, "lstm_units": 4})
    result = run(taught, small.data(), tmp_path / "student", teacher=teacher, options=OPTIONS)
    assert result["stages"][0]["steps"] == 4
    sized = student_recipe(labels, model={"kind": "encoder", "num_hidden_layers": 1}, teacher=None)
    with pytest.raises(ValueError, match="sizes and rates are those of its config.json"):
        run(sized, small.data(), tmp_path / "x", init_checkpoint=str(tmp_path / "albert"))


def test_a_token_classifier_of_transformers_is_taken_as_it_is(tmp_path):
    config = transformers.AlbertConfig(
        vocab_size=VOCABULARY, num_labels=3, id2label={0: "O", 1: "B-X", 2: "I-X"},
        label2id={"O": 0, "B-X": 1, "I-X": 2}, **ARCHITECTURES["albert"],
    )  # fmt: skip
    model = transformers.TFAlbertForTokenClassification(config)
    inputs = {"input_ids": BATCH["input_ids"], "attention_mask": BATCH["input_mask"]}
    expected = model(inputs).logits
    model.save_pretrained(tmp_path)
    loaded = folders.load_model(tmp_path)
    assert folders.head_kind(tmp_path) == "tagging"
    assert folders.class_names(tmp_path) == ("O", "B-X", "I-X")
    found = loaded(BATCH)["logits"].numpy()
    np.testing.assert_allclose(real(found), real(expected.numpy()), atol=1e-4)


def test_what_cannot_be_read_is_told(saved, tmp_path):
    folder, model = saved("albert")
    write_as(folder, tmp_path / "other", model, "pt")
    tensors = safetensors_numpy.load_file(tmp_path / "other" / "model.safetensors")
    tensors.pop("embeddings.word_embeddings.weight")
    (tmp_path / "other" / "model.safetensors").write_bytes(
        safetensors_numpy.save(tensors, metadata={"format": "pt"})
    )
    with pytest.raises(ValueError, match="missing embeddings.word_embeddings.weight"):
        folders.load_model(tmp_path / "other")
    raw = json.loads((folder / "config.json").read_text())
    for kind, message in (("bloom", "no TensorFlow model for"), ("unheard", "does not know")):
        changed = tmp_path / kind
        changed.mkdir()
        (changed / "config.json").write_text(json.dumps(raw | {"model_type": kind}))
        with pytest.raises(ValueError, match=message):
            folders.load_model(changed)
