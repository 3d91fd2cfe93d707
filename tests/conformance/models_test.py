"""Every promise about models, for every row of the table."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from tests import tiny
from tests.conformance import models_table
from tests.conformance.models_table import LENGTHS, ROWS, features
from xdistil_tf import outputs
from xdistil_tf.models import folders

all_rows = pytest.mark.parametrize("row", ROWS, ids=[row.id for row in ROWS])
SEED = tf.constant([5, 7])


@functools.cache
def model_of(row):
    return row.make()


def everything(model):
    return dict(model.available)


def pad_id(model):
    return model.config["pad_token_id"]


def run(model, batch=None, request=None, **options):
    batch = batch or features(pad_id=pad_id(model))
    given = model(batch, request=request or everything(model), **options)
    return tf.nest.map_structure(lambda t: tf.cast(t, tf.float32).numpy(), given)


def assert_same(left, right, tolerance=0.0):
    tf.nest.map_structure(
        lambda a, b: np.testing.assert_allclose(a, b, atol=tolerance, rtol=tolerance), left, right
    )


def weights(model):
    return {name: variable.numpy() for name, variable in model.named_variables().items()}


@all_rows
def test_survives_saving_and_loading(row, tmp_path):
    model = model_of(row)
    folders.save_model(model, tmp_path)
    again = folders.load_model(tmp_path)
    assert again.config == model.config
    before, after = weights(model), weights(again)
    assert list(before) == list(after)
    assert_same(before, after)
    assert_same(run(model), run(again))


@all_rows
def test_weights_follow_from_the_seed_alone(row):
    tf.random.set_seed(1)
    one = weights(row.make(seed=11))
    tf.random.set_seed(2)
    assert_same(one, weights(row.make(seed=11)))
    other = weights(row.make(seed=12))
    assert any(not np.array_equal(one[name], other[name]) for name in one)


@all_rows
def test_two_replicas_hold_the_same_variables(row):
    single = weights(model_of(row))
    with tiny.two_replicas().scope():
        model = row.make()
    for name, variable in model.named_variables().items():
        copies = variable.values if hasattr(variable, "values") else [variable]
        assert len(copies) == 2
        for copy in copies:
            np.testing.assert_array_equal(copy.numpy(), single[name], err_msg=name)


@all_rows
def test_a_compiled_call_gives_the_same(row):
    model = model_of(row)
    compiled = tf.function(lambda batch: model(batch, request=everything(model)))
    given = compiled(features(pad_id=pad_id(model)))
    assert_same(tf.nest.map_structure(lambda t: t.numpy(), given), run(model), 1e-5)


@all_rows
def test_padding_changes_nothing(row):
    """In a longer batch, and alone: real positions give the same."""
    model = model_of(row)
    short = run(model)
    long = run(model, features(length=9, pad_id=pad_id(model)))
    for number, length in enumerate(LENGTHS):
        alone = features(length=int(length), rows=slice(number, number + 1), pad_id=pad_id(model))
        if model.available.get("masked_lm_logits", 0) is None:
            alone["masked_lm_positions"] = tf.minimum(alone["masked_lm_positions"], int(length) - 1)
        sliced = run(model, alone)
        for given in (long, short):
            for key, value in sliced.items():
                if key == "masked_lm_logits" and length < 5:
                    continue  # Some of its slots lie in the padding.
                pieces = value if isinstance(value, dict) else {None: value}
                for layer, piece in pieces.items():
                    whole = given[key] if layer is None else given[key][layer]
                    axes = outputs.OUTPUTS[key].token_axes if row.tokens else None
                    axes = axes or outputs.OUTPUTS[key].axes
                    place = tuple(
                        slice(int(length)) if axis == "T" else slice(None) for axis in axes[1:]
                    )
                    np.testing.assert_allclose(
                        whole[number][place], piece[0], atol=1e-5, err_msg=f"{key} {layer}"
                    )


@all_rows
def test_dropout_acts_only_in_training_and_follows_the_seed(row):
    model = row.make(dropout=0.5)
    still = run(model_of(row))
    assert_same(run(model), still)
    first = run(model, training=True, seed=SEED)
    assert_same(first, run(model, training=True, seed=SEED))
    key = row.target
    left = tf.nest.flatten(first[key])[-1]
    assert not np.allclose(left, tf.nest.flatten(still[key])[-1])
    other = run(model, training=True, seed=SEED + 1)
    assert not np.allclose(left, tf.nest.flatten(other[key])[-1])
    assert_same(run(model_of(row), training=True), still, 1e-5)


@all_rows
def test_parts_partition_the_variables(row):
    model = model_of(row)
    owned = [
        id(variable)
        for layers in model.parts.values()
        for layer in layers
        for variable in layer.trainable_variables
    ]
    assert len(owned) == len(set(owned))
    assert set(owned) == {id(variable) for variable in model.trainable_variables}
    named = model.named_variables()
    assert len({id(variable) for variable in named.values()}) == len(named)
    assert {id(variable) for variable in model.variables} == {id(v) for v in named.values()}
    assert all(variable.dtype in (tf.float32, tf.int32) for variable in named.values())
    assert list(model.parts)[-1] == "embedding"


@all_rows
def test_drawing_a_part_anew_changes_only_that_part(row):
    model = row.make()
    for part, layers in model.parts.items():
        before = weights(model)
        model.initialise_part(part, 99)
        changed = {n for n, value in weights(model).items() if not np.array_equal(value, before[n])}
        own = {id(variable) for layer in layers for variable in layer.variables}
        names = {name for name, v in model.named_variables().items() if id(v) in own}
        assert changed and changed <= names
    with pytest.raises(ValueError, match="Unknown part. Expected one of .*Received: 'tail'"):
        model.initialise_part("tail", 0)


@all_rows
def test_a_request_gives_exactly_what_was_asked_for(row):
    model = model_of(row)
    whole = run(model)
    for key, layers in model.available.items():
        if layers is None:
            given = run(model, request={key: None})
            assert set(given) == {key}
            np.testing.assert_allclose(given[key], whole[key], atol=1e-6)
            continue
        given = run(model, request={key: (layers[-1],)})
        assert set(given) == {key} and set(given[key]) == {layers[-1]}
        np.testing.assert_allclose(given[key][layers[-1]], whole[key][layers[-1]], atol=1e-6)
        with pytest.raises(ValueError, match=rf"no '{key}' at layers \[9\]"):
            run(model, request={key: (9,)})
    with pytest.raises(ValueError, match="does not give the output 'scores'"):
        run(model, request={"scores": None})


@all_rows
def test_outputs_have_their_axes(row):
    model = model_of(row)
    config = model.config
    sizes = {"B": models_table.BATCH, "T": models_table.LENGTH, "P": models_table.SLOTS}
    for key, value in run(model).items():
        spec = outputs.OUTPUTS[key]
        axes = spec.token_axes if row.tokens and spec.token_axes else spec.axes
        for one in value.values() if isinstance(value, dict) else [value]:
            assert one.ndim == len(axes)
            for axis, size in zip(axes, one.shape, strict=True):
                assert size == sizes.get(axis, size) and size > 0
            if key == "masked_lm_logits":
                assert one.shape[-1] == config["vocab_size"]


@all_rows
def test_bfloat16_is_close_to_float32(row):
    exact, rough = run(model_of(row)), run(row.make("bfloat16"))
    for left, right in zip(tf.nest.flatten(exact), tf.nest.flatten(rough), strict=True):
        assert np.isfinite(right).all()
        assert np.abs(left - right).max() <= 0.05 * max(1.0, np.abs(left).max())


@all_rows
def test_the_config_builds_the_same_model(row):
    model = model_of(row)
    again = row.kind.from_config_dict(model.config)
    assert again.config == model.config
    shapes = {name: tuple(v.shape) for name, v in model.named_variables().items()}
    assert {name: tuple(v.shape) for name, v in again.named_variables().items()} == shapes


@all_rows
def test_one_step_of_training_lowers_the_loss(row):
    model = row.make()
    batch = features(pad_id=pad_id(model))
    request = {row.target: model.available[row.target]}

    def loss():
        given = model(batch, training=True, request=request, seed=SEED)
        top = tf.cast(tf.nest.flatten(given)[-1], tf.float32)
        return tf.reduce_mean(tf.square(top - 1.0))

    with tf.GradientTape() as tape:
        before = loss()
    variables = model.trainable_variables
    gradients = tape.gradient(before, variables)
    assert any(gradient is not None for gradient in gradients)
    for variable, gradient in zip(variables, gradients, strict=True):
        if gradient is not None:
            variable.assign_sub(1e-3 * tf.convert_to_tensor(gradient))
    assert loss() < before
