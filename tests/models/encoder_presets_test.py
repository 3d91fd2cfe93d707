"""Presets of sizes, and students that start as some layers of their teacher."""

import typing

import numpy as np
import pytest

from tests.small_task import ENCODER
from xdistil_tf import recipe
from xdistil_tf.models.encoder import Encoder
from xdistil_tf.models.encoder_presets import PRESETS, copied_layers, student_from_layers

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


@pytest.mark.parametrize("preset, parameters", [("4x312", 14_350_248), ("6x768", 66_955_008)])
def test_presets_of_tinybert_have_the_published_number_of_parameters(preset, parameters):
    model = Encoder(PRESETS[preset] | {"head": {"kind": None, "pooler": "tanh_pooler"}})
    assert sum(int(np.prod(v.shape)) for v in model.named_variables().values()) == parameters


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
