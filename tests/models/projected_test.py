"""Width projections: what they change, where they are kept, and TinyBERT's checkpoints."""

import json

import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from tests.models.encoder_test import SEED, batch, tiny
from xdistil_tf.models import folders, projected
from xdistil_tf.models.projected import ProjectedEncoder

EVERYTHING = {"logits": None, "hidden": (0, 1, 3), "attention": (2,), "value": (3,)}


def made(sharing="per_layer", bias=True, width=12, seed=4):
    model = ProjectedEncoder(tiny(), width, sharing, bias)
    model.initialise_part(projected.PART, seed)
    return model


def projections(model):
    return {
        name: variable.numpy()
        for name, variable in model.named_variables().items()
        if name.startswith("width_projection/")
    }


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("sharing", ["per_layer", "shared"])
def test_hidden_states_alone_are_projected(sharing, bias):
    model = made(sharing, bias)
    if bias:
        for name, variable in model.named_variables().items():
            if name.startswith("width_projection/") and name.endswith("bias"):
                variable.assign(np.arange(12.0))
    plain = model.encoder(batch(), request=EVERYTHING)
    given = model(batch(), request=EVERYTHING)
    values = projections(model)
    for layer in (0, 1, 3):
        place = "shared" if sharing == "shared" else layer
        expected = plain["hidden"][layer].numpy() @ values[f"width_projection/{place}/kernel"]
        expected += values[f"width_projection/{place}/bias"] if bias else 0
        np.testing.assert_allclose(given["hidden"][layer], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(given["logits"], plain["logits"])
    np.testing.assert_array_equal(given["attention"][2], plain["attention"][2])
    np.testing.assert_array_equal(given["value"][3], plain["value"][3])
    assert len(values) == (1 if sharing == "shared" else 4) * (2 if bias else 1)


def test_the_projection_is_the_last_part_and_drawn_from_a_seed():
    model, other = made(seed=4), made(seed=5)
    assert list(model.parts) == [*model.encoder.parts, "width_projection"]
    first, second = projections(model), projections(other)
    assert np.std(first["width_projection/0/kernel"]) > 0.1  # The encoder's initializer_range.
    assert (first["width_projection/0/kernel"] != first["width_projection/1/kernel"]).any()
    assert (first["width_projection/0/kernel"] != second["width_projection/0/kernel"]).any()
    assert not first["width_projection/0/bias"].any()


def test_half_precision_projects_in_its_own_type():
    model = ProjectedEncoder(tiny(precision="bfloat16"), 12)
    given = model(batch(), training=True, seed=SEED, request={"hidden": (1,)})
    assert given["hidden"][1].dtype.name == "bfloat16"


def test_a_model_folder_keeps_them_in_a_file_of_their_own(tmp_path):
    model = made()
    folders.save_model(model, tmp_path)
    assert "width" not in (tmp_path / "model.safetensors").read_bytes().decode("latin1")
    loaded = folders.load_model(tmp_path)
    assert list(loaded.parts) == list(model.encoder.parts)
    other = made(seed=9)
    assert projected.load_projections(other, tmp_path, seed=9)
    for name, value in projections(model).items():
        np.testing.assert_array_equal(projections(other)[name], value)


def test_a_shared_one_starts_each_of_several_and_others_start_afresh(tmp_path):
    shared = made("shared")
    folders.save_model(shared, tmp_path)
    several = made(seed=9)
    assert projected.load_projections(several, tmp_path, seed=9)
    kernel = projections(shared)["width_projection/shared/kernel"]
    for layer in range(4):
        np.testing.assert_array_equal(
            projections(several)[f"width_projection/{layer}/kernel"], kernel
        )
    wider = made(width=14, seed=7)
    before = projections(wider)
    assert not projected.load_projections(wider, tmp_path, seed=7)
    for name, value in before.items():
        np.testing.assert_array_equal(projections(wider)[name], value)


@pytest.mark.parametrize("names", [["fit_dense"], [f"fit_denses.{i}" for i in range(4)]])
def test_those_of_published_checkpoints_are_read(names, tmp_path):
    model = tiny()
    folders.save_model(model, tmp_path)
    tensors = safetensors_numpy.load_file(tmp_path / "model.safetensors")
    random = np.random.default_rng(1)
    for name in names:
        tensors[f"{name}.weight"] = random.normal(size=(12, 8)).astype(np.float32)
        tensors[f"{name}.bias"] = random.normal(size=12).astype(np.float32)
    safetensors_numpy.save_file(tensors, tmp_path / "model.safetensors")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(
        json.dumps(config | {"cell": {}, "emb_size": 8, "structure": [], "pre_trained": ""})
    )
    wrapped = ProjectedEncoder(folders.load_model(tmp_path), 12)
    assert projected.load_projections(wrapped, tmp_path, seed=0)
    for layer in range(4):
        name = names[layer] if len(names) > 1 else names[0]
        found = projections(wrapped)
        np.testing.assert_array_equal(
            found[f"width_projection/{layer}/kernel"], tensors[f"{name}.weight"].T
        )
        np.testing.assert_array_equal(
            found[f"width_projection/{layer}/bias"], tensors[f"{name}.bias"]
        )
