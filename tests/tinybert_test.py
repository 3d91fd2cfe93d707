"""TinyBERT from end to end on a small task, and the oracles of its description.

Mapping, parameter counts, score zeroing, the optimizer, truncation, masking, label maps and metrics
have theirs where those are tested.
"""

import numpy as np
import pytest
import tensorflow as tf

from tests.small_task import ENCODER, OPTIONS, encoder_folder, stage
from xdistil_tf import checkpoints, files, recipe, stages
from xdistil_tf.data import synthetic
from xdistil_tf.data.pretraining import write_pretraining_records
from xdistil_tf.models import folders, pretrained, projected
from xdistil_tf.models.encoder import Encoder
from xdistil_tf.models.projected import ProjectedEncoder
from xdistil_tf.objective import Objective
from xdistil_tf.run import run

pytest_plugins = ["tests.small_task"]

LAYERS = [
    {"loss": "mean_squared_error", "output": output, "layers": "uniform"}
    for output in ("attention", "hidden")
]
SMALLER = {
    "kind": "encoder",
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "max_position_embeddings": 64,
    "width_projection": {"sharing": "per_layer"},
}


def recipe_of(*stages, model=SMALLER, **fields):
    content = {
        "model": model,
        "teacher": {"mode": "live"},
        "max_seq_length": 32,
        "stages": list(stages),
    }
    return recipe.Recipe.model_validate(content | fields)


INTERMEDIATE = stage(name="intermediate", data="transfer", objective=LAYERS)
PREDICTION = stage(name="prediction", data="transfer", objective=[{"loss": "soft_task"}])


@pytest.fixture(scope="module")
def general(small, tmp_path_factory):
    """A run of general distillation on a small corpus; its folder."""
    folder = tmp_path_factory.mktemp("general")
    synthetic.generate_corpus(folder / "corpus.txt", 30)
    write_pretraining_records(
        folder / "corpus.txt", small.tokenizer, folder / "records", 32, 5,
        masked_lm_prob=0, heldout_fraction=0, num_shards=1,
    )  # fmt: skip
    config = recipe_of(stage(name="general", data="corpus", objective=LAYERS))
    data = {"corpus": f"{folder}/records/train-*"}
    run(config, data, folder / "run", teacher=small.encoder, options=OPTIONS)
    return folder / "run"


def weights_of(folder):
    return checkpoints.read_weights(folder)


def test_general_distillation_leaves_projections_to_task_distillation(small, general, tmp_path):
    kept = projected.read_projections(general / "model")
    assert set(kept) == {
        f"width_projection/{layer}/{kind}" for layer in (0, 1) for kind in ("kernel", "bias")
    }
    config = recipe_of(INTERMEDIATE, PREDICTION)
    made = run(
        config, small.data(), tmp_path, teacher=small.teacher, init_checkpoint=str(general),
        options=OPTIONS,
    )  # fmt: skip
    start = weights_of(tmp_path / "00_start")
    for name, value in kept.items():
        np.testing.assert_array_equal(start[name], value)
    encoder = pretrained.load_encoder(folders.find(str(general))).named_variables()
    np.testing.assert_array_equal(start["embedding/word"], encoder["embedding/word"])
    assert [one["name"] for one in made["stages"]] == ["intermediate", "prediction"]
    assert "width_projection" not in folders.load_model(tmp_path / "model").parts


def test_each_stage_leaves_alone_what_its_terms_do_not_reach(small, tmp_path):
    run(
        recipe_of(INTERMEDIATE, PREDICTION), small.data(), tmp_path, teacher=small.teacher,
        options=OPTIONS,
    )  # fmt: skip
    folders_of = ("00_start", "01_intermediate", "02_prediction")
    start, first, second = (weights_of(tmp_path / name) for name in folders_of)
    heads = [name for name in start if name.startswith(("head/", "pooler/"))]
    projections = [name for name in start if name.startswith("width_projection/")]
    assert len(heads) == 4 and len(projections) == 4
    for name in heads:  # The intermediate stage reads neither pooler nor head.
        np.testing.assert_array_equal(start[name], first[name])
        assert (first[name] != second[name]).any()
    for name in projections:  # The prediction stage reads no hidden states.
        assert (start[name] != first[name]).any()
        np.testing.assert_array_equal(first[name], second[name])


def test_a_copy_of_the_teacher_has_nothing_to_learn():
    config = ENCODER | {"vocab_size": 30, "head": {"kind": "classification", "num_labels": 3}}
    teacher = Encoder.from_config_dict(config, seed=1)
    student = ProjectedEncoder(Encoder.from_config_dict(config, seed=1), 32)
    for name, variable in student.named_variables().items():
        if name.startswith("width_projection/") and name.endswith("kernel"):
            variable.assign(np.eye(32))
    terms = [recipe.Term(**one) for one in (*LAYERS, {"loss": "soft_task"})]
    objective = Objective(terms, "classification", student.available, teacher.available)
    features = {
        "input_ids": tf.constant([[1, 5, 9, 2], [1, 7, 2, 0]]),
        "input_mask": tf.constant([[1, 1, 1, 1], [1, 1, 1, 0]]),
        "example_weights": tf.ones([2]),
    }
    given = student(features, request=objective.student_request)
    answer = teacher(features, request=objective.teacher_request)
    values = objective.values(
        objective.numerators(features, given, answer), objective.denominators(features)
    )
    attention, hidden, soft = (float(values[name]) for name in objective.term_names)
    assert attention == 0 and hidden == pytest.approx(0, abs=1e-12)
    p = tf.nn.softmax(answer["logits"]).numpy()
    assert soft == pytest.approx(float(-(p * np.log(p)).sum(-1).mean()), rel=1e-5)


def test_one_projection_may_serve_all_layers_and_equal_widths_need_none(small, tmp_path):
    shared = recipe_of(
        INTERMEDIATE, model=SMALLER | {"width_projection": {"sharing": "shared", "bias": False}}
    )
    run(shared, small.data(), tmp_path / "shared", teacher=small.teacher, options=OPTIONS)
    assert set(projected.read_projections(tmp_path / "shared" / "model")) == {
        "width_projection/shared/kernel"
    }
    same = SMALLER | {"hidden_size": 32}
    run(
        recipe_of(INTERMEDIATE, model=same), small.data(), tmp_path / "none",
        teacher=small.teacher, options=OPTIONS,
    )  # fmt: skip
    assert not (tmp_path / "none" / "model" / projected.FILE).exists()
    always = same | {"width_projection": {"when": "always"}}
    run(
        recipe_of(INTERMEDIATE, model=always), small.data(), tmp_path / "always",
        teacher=small.teacher, options=OPTIONS,
    )  # fmt: skip
    assert (tmp_path / "always" / "model" / projected.FILE).exists()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"width_projection": None}, "'mean_squared_error_hidden'.*Set model.width_projection"),
        ({"num_attention_heads": 2}, "'mean_squared_error_attention'.*heads: mean"),
        ({"pooler_from": "teacher"}, "needs equal widths. Received: a teacher of 32 and a student"),
    ],
)
def test_what_does_not_fit_is_told_with_the_cure(small, tmp_path, model, message):
    config = recipe_of(INTERMEDIATE, model=SMALLER | model)
    with pytest.raises(ValueError, match=message):
        run(config, small.data(), tmp_path, teacher=small.teacher, options=OPTIONS)


def test_the_pooler_may_start_as_the_teachers(small, tmp_path):
    model = SMALLER | {"hidden_size": 32, "pooler_from": "teacher", "pooler": "tanh_relu"}
    config = recipe_of(INTERMEDIATE, model=model)
    run(config, small.data(), tmp_path, teacher=small.teacher, options=OPTIONS)
    teacher = pretrained.load_encoder(small.teacher).named_variables()
    final = weights_of(tmp_path / "01_intermediate")
    np.testing.assert_array_equal(final["pooler/kernel"], teacher["pooler/kernel"])
    head = files.read_json(tmp_path / "model" / "config.json")["xdistil"]["head"]
    assert head["pooler"] == "tanh_relu"
    loaded = folders.load_model(tmp_path / "model")
    assert loaded.config["head"]["pooler"] == "tanh_relu"


def test_a_relu_stands_between_pooler_and_head():
    head = {"kind": "classification", "num_labels": 3, "pooler": "tanh_relu"}
    config = ENCODER | {"vocab_size": 30, "head": head, "classifier_dropout": 0.5}
    model = Encoder.from_config_dict(config, seed=1)
    features = {"input_ids": tf.constant([[1, 5, 2]]), "input_mask": tf.ones([1, 3], tf.int32)}
    given = model(features, request={"logits": None, "representation": None})
    values = {name: v.numpy() for name, v in model.named_variables().items()}
    pooled = np.maximum(given["representation"].numpy(), 0)
    expected = pooled @ values["head/output/kernel"] + values["head/output/bias"]
    np.testing.assert_allclose(given["logits"], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("start", ["layers_from", "init_checkpoint"])
def test_weights_that_were_trained_with_a_relu_keep_it(small, tmp_path, start):
    head = {"kind": "classification", "num_labels": len(small.info.labels), "pooler": "tanh_relu"}
    relu = encoder_folder(tmp_path / "relu", small.tokenizer, head, small.info.labels)
    model, named = {"kind": "encoder"}, {"init_checkpoint": relu}
    if start == "layers_from":
        model, named = model | {"layers_from": "uniform", "num_hidden_layers": 1}, {}
    labels = stage(name="labels", data="train", objective=[{"loss": "soft_task"}], steps=1)
    run(
        recipe_of(labels, model=model), small.data(), tmp_path / "run", teacher=relu,
        options=OPTIONS, **named,
    )  # fmt: skip
    assert folders.load_model(tmp_path / "run" / "model").config["head"]["pooler"] == "tanh_relu"


def test_a_general_student_may_have_a_pooler_that_nothing_trains(small, tmp_path):
    synthetic.generate_corpus(tmp_path / "corpus.txt", 20)
    write_pretraining_records(
        tmp_path / "corpus.txt", small.tokenizer, tmp_path / "records", 32, 5,
        masked_lm_prob=0, heldout_fraction=0, num_shards=1,
    )  # fmt: skip
    model = SMALLER | {"pooler": "tanh_pooler"}
    config = recipe_of(stage(name="general", data="corpus", objective=LAYERS), model=model)
    data = {"corpus": f"{tmp_path}/records/train-*"}
    run(config, data, tmp_path / "run", teacher=small.encoder, options=OPTIONS)
    start, final = (weights_of(tmp_path / "run" / name) for name in ("00_start", "01_general"))
    np.testing.assert_array_equal(start["pooler/kernel"], final["pooler/kernel"])
    assert (start["embedding/word"] != final["embedding/word"]).any()
    loaded = pretrained.load_encoder(str(tmp_path / "run" / "model"))
    assert loaded.config["head"]["pooler"] == "tanh_pooler"


def test_the_layer_maps_are_logged(small, tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr(stages.logging, "info", lambda text, *values: lines.append(text % values))
    run(recipe_of(INTERMEDIATE), small.data(), tmp_path, teacher=small.teacher, options=OPTIONS)
    assert any("hidden, layers of student <- teacher: 0 <- 0, 1 <- 2." in one for one in lines)
    assert any("attention, layers of student <- teacher: 1 <- 2." in one for one in lines)


def test_the_published_attention_loss_is_diluted_by_padding():
    """As many key columns count as there are, real or not; the mean does not change with them."""
    random = np.random.default_rng(0)
    ours, theirs = random.normal(size=(2, 1, 4, 3, 3)).astype(np.float32)
    values = {}
    for length in (3, 12):
        scores = [np.zeros((1, 4, length, length), np.float32) for _ in range(2)]
        for padded, real in zip(scores, (ours, theirs), strict=True):
            padded[..., :3, :3] = real
            padded[..., 3:] = -1e4
        features = {
            "input_ids": tf.ones([1, length], tf.int32),
            "input_mask": tf.constant([[1] * 3 + [0] * (length - 3)]),
            "example_weights": tf.ones([1]),
        }
        for reduction in ("mean", "as_published"):
            term = recipe.Term(
                loss="mean_squared_error", output="attention", layers=((1, 1),), reduction=reduction
            )
            shapes = {"attention": (1,)}
            objective = Objective([term], "classification", shapes, shapes)
            given, answer = ({"attention": {1: tf.constant(one)}} for one in scores)
            found = objective.values(
                objective.numerators(features, given, answer), objective.denominators(features)
            )
            values[reduction, length] = float(next(iter(found.values())))
    assert values["mean", 3] == pytest.approx(values["mean", 12], rel=1e-5)
    # Rows of padding hold zeros here, columns are zeroed: only the real ones are left to divide.
    assert values["as_published", 12] == pytest.approx(values["as_published", 3] / 16, rel=1e-5)


def test_relations_need_no_equal_heads(small, tmp_path):
    terms = [
        {"loss": "relation_kl_divergence", "output": o, "layers": "last", "options": {"heads": 8}}
        for o in ("query", "key", "value")
    ]
    model = SMALLER | {"num_attention_heads": 2, "width_projection": None}
    config = recipe_of(stage(name="relations", data="transfer", objective=terms), model=model)
    made = run(config, small.data(), tmp_path, teacher=small.teacher, options=OPTIONS)
    assert np.isfinite(made["stages"][0]["loss"])


def test_auto_caches_logits_where_layers_do_not_fit(small, tmp_path, monkeypatch):
    from xdistil_tf import teaching

    # Room for logits, not for scores of all tokens.
    monkeypatch.setattr(
        teaching.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 100_000})
    )
    config = recipe_of(INTERMEDIATE, PREDICTION, teacher={"mode": "auto"})
    run(config, small.data(), tmp_path, teacher=small.teacher, options=OPTIONS)
    kept = files.read_json(tmp_path / "cache" / "mode.json")
    assert kept == {"mode": "partly", "outputs": ["logits"]}
    assert list(files.read_json(tmp_path / "cache" / "cache.json")["outputs"]) == ["teacher/logits"]
    live = run(
        recipe_of(INTERMEDIATE, PREDICTION), small.data(), tmp_path / "live",
        teacher=small.teacher, options=OPTIONS,
    )  # fmt: skip
    assert live["stages"][0]["loss"] == pytest.approx(
        files.read_json(tmp_path / "run.json")["stages"][0]["loss"], rel=1e-5
    )


def test_a_student_in_the_published_layout_starts_here(small, tmp_path):
    """As huawei-noah/TinyBERT_General_4L_312D: extra keys, `fit_dense`, a pooler, no head."""
    config = {name: SMALLER[name] for name in SMALLER if name not in ("kind", "width_projection")}
    folder = encoder_folder(
        tmp_path / "general", small.tokenizer, {"kind": None, "pooler": "tanh_pooler"}, **config
    )
    from safetensors import numpy as safetensors_numpy

    path = tmp_path / "general" / "model.safetensors"
    tensors = safetensors_numpy.load_file(path)
    kernel = np.random.default_rng(0).normal(size=(32, 16)).astype(np.float32)
    tensors |= {"fit_dense.weight": kernel, "fit_dense.bias": np.ones(32, np.float32)}
    safetensors_numpy.save_file(tensors, path)
    raw = files.read_json(tmp_path / "general" / "config.json")
    raw |= {"cell": {}, "emb_size": 16, "structure": [], "pre_trained": "", "training": ""}
    files.write_json(tmp_path / "general" / "config.json", raw)
    model = {"kind": "encoder", "width_projection": {"sharing": "shared"}}
    run(
        recipe_of(INTERMEDIATE, model=model), small.data(), tmp_path / "run",
        teacher=small.teacher, init_checkpoint=folder, options=OPTIONS,
    )  # fmt: skip
    start = weights_of(tmp_path / "run" / "00_start")
    np.testing.assert_array_equal(start["width_projection/shared/kernel"], kernel.T)
    np.testing.assert_array_equal(start["pooler/kernel"], tensors["pooler.dense.weight"].T)
