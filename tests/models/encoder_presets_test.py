"""Presets of sizes, and students that start as some layers of their teacher."""

import typing

import numpy as np
import pytest

from tests.small_task import ENCODER
from xdistil_tf import recipe
from xdistil_tf.models.encoder import Encoder
from xdistil_tf.models.encoder_presets import PRESETS, copied_layers, student_from_layers
from xdistil_tf.models.projected import ProjectedEncoder

TEACHER = ENCODER | {"num_hidden_layers": 4, "vocab_size": 50}
HEAD = {"kind": "pretraining", "next_sentence": True}


def teacher(**changes):
    return Encoder.from_config_dict(TEACHER | {"head": HEAD} | changes, seed=3)


def values(model):
    return {name: variable.numpy() for name, variable in model.named_variables().items()}


def test_recipes_take_the_presets_that_there_are():
    annotation = recipe.EncoderModel.model_fields["preset"].annotation
    literal = next(one for one in typing.get_args(annotation) if one is not type(None))
    assert set(typing.get_args(literal)) == set(PRESETS)


def parameters_of(model):
    return sum(int(np.prod(one.shape)) for one in model.named_variables().values())


BASE = PRESETS["6x768"] | {"num_hidden_layers": 12}
CHINESE = {"vocab_size": 21_128}


@pytest.mark.parametrize(
    "config, encoder, with_head, shared, per_layer",
    [
        (BASE, 109_482_240, 109_483_778, None, None),
        (PRESETS["4x312"], 14_350_248, 14_350_874, 240_384, 1_201_920),
        (PRESETS["6x768"], 66_955_008, 66_956_546, 590_592, 4_134_144),
        (PRESETS["6x384"] | {"num_hidden_layers": 4}, 19_164_288, 19_165_058, 295_680, 1_478_400),
        (PRESETS["4x312"] | CHINESE, 11_419_320, 11_419_946, 240_384, 1_201_920),
        (PRESETS["6x768"] | CHINESE, 59_740_416, 59_741_954, 590_592, 4_134_144),
    ],
)
def test_models_of_tinybert_have_the_number_of_parameters_of_its_table(
    config, encoder, with_head, shared, per_layer
):
    model = Encoder(config | {"head": {"kind": None, "pooler": "tanh_pooler"}})
    assert parameters_of(model) == encoder
    head = {"kind": "classification", "num_labels": 2}
    assert parameters_of(Encoder(config | {"head": head})) == with_head
    for sharing, expected in (("shared", shared), ("per_layer", per_layer)):
        if expected:
            assert parameters_of(ProjectedEncoder(model, 768, sharing)) - encoder == expected


@pytest.mark.parametrize(
    "layers_from, expected",
    [("uniform", (2, 4)), ("top", (3, 4)), ("bottom", (1, 2)), ((4, 1), (4, 1)), ((-1, 2), (4, 2))],
)
def test_blocks_are_copies_of_the_chosen_ones_and_all_else_of_the_teachers(layers_from, expected):
    source = teacher()
    student = student_from_layers(source, {"num_hidden_layers": 2}, layers_from)
    assert copied_layers(layers_from, 2, 4) == expected
    before, after = values(source), values(student)
    for name, value in after.items():
        part, _, rest = name.partition("/")
        if part.startswith("layer_"):
            name = f"layer_{expected[int(part[6:]) - 1]}/{rest}"
        np.testing.assert_array_equal(value, before[name], err_msg=name)
    assert {"masked_lm", "next_sentence", "pooler"} <= {name.split("/")[0] for name in after}


def test_dropout_may_differ_from_the_teachers():
    fields = {"num_hidden_layers": 1, "hidden_dropout_prob": 0.0}
    assert student_from_layers(teacher(), fields, "top").config["hidden_dropout_prob"] == 0.0


@pytest.mark.parametrize(
    "fields, layers_from, message",
    [
        ({"num_hidden_layers": 2, "hidden_size": 64}, "top", "hidden_size=32, the student has 64"),
        ({"num_hidden_layers": 2}, "middle", "Unknown layer map"),
        ({"num_hidden_layers": 2}, (1,), "Expected 2 layers of the teacher"),
        ({"num_hidden_layers": 2}, (1, 9), "Expected 1..4"),
        ({"num_hidden_layers": 5}, "top", "at least as deep"),
        ({}, "top", "needs the student's depth"),
    ],
)
def test_what_cannot_be_copied_is_named(fields, layers_from, message):
    with pytest.raises(ValueError, match=message):
        student_from_layers(teacher(), fields, layers_from)


@pytest.mark.parametrize(("layers_from", "student"), [("uniform", 6), ("skip", 2), ("last", 2)])
def test_a_map_that_leaves_layers_without_one_is_refused(layers_from, student):
    with pytest.raises(ValueError, match=f"of the student's {student} layers"):
        copied_layers(layers_from, student, 3 if layers_from != "uniform" else 2)
