"""Every promise about losses, for every row of the table."""

import numpy as np
import pytest
import tensorflow as tf

from tests.conformance import losses_table
from tests.conformance.losses_table import ROWS
from xdistil_tf import losses
from xdistil_tf.objective import Objective
from xdistil_tf.recipe import Term

all_rows = pytest.mark.parametrize("row", ROWS, ids=[row.id for row in ROWS])
with_tokens = [row for row in ROWS if any("T" in axes for axes in row.outputs.values())]
rows_with_tokens = pytest.mark.parametrize("row", with_tokens, ids=[row.id for row in with_tokens])
padded_rows = [row for row in ROWS if any(set("TP") & set(one) for one in row.outputs.values())]
rows_with_padding = pytest.mark.parametrize("row", padded_rows, ids=[row.id for row in padded_rows])


def make_objective(row, *terms):
    return Objective(
        terms or [row.make_term()],
        row.task_type,
        _available(row),
        losses_table.TEACHER_AVAILABLE,
    )


def _available(row):
    """A student gives potentials only where its tags are those of a CRF."""
    potentials = {"potentials": None} if "student/potentials" in row.outputs else {}
    return losses_table.STUDENT_AVAILABLE | potentials


def nest(batch):
    """Flat names to features, student outputs and teacher outputs."""
    features, nested = {}, {"student": {}, "teacher": {}}
    for name, value in batch.items():
        who, _, rest = name.partition("/")
        if who not in nested:
            features[name] = tf.convert_to_tensor(value)
            continue
        key, _, layer = rest.partition("/")
        if layer:
            layer = int(layer) if layer.isdigit() else layer  # Or one of several tensors.
            nested[who].setdefault(key, {})[layer] = tf.convert_to_tensor(value)
        else:
            nested[who][key] = tf.convert_to_tensor(value)
    return features, nested["student"], nested["teacher"]


def run(objective, batch, denominators=None):
    """The loss, and its gradient by every output of the student."""
    features, student, teacher = nest(batch)
    with tf.GradientTape() as tape:
        tape.watch(student)
        numerators = objective.numerators(features, student, teacher)
        loss = objective.total(numerators, denominators or objective.denominators(features))
    gradients = dict(
        zip(
            [name for name in batch if name.startswith("student/")],
            tf.nest.flatten(tape.gradient(loss, student)),
            strict=True,
        )
    )
    return loss, {name: gradient.numpy() for name, gradient in gradients.items()}


def take(batch, rows):
    return {name: value[rows] for name, value in batch.items()}


def pad(row, batch, extra):
    """Appends columns of padding that are full of garbage."""
    random = np.random.default_rng(9)
    padded = {}
    for name, value in batch.items():
        widths = [(0, extra if axis in "TP" else 0) for axis in row.axes(name)]
        padded[name] = np.pad(value, widths)
        garbage = np.ones(value.shape, bool)
        garbage = ~np.pad(garbage, widths)
        if name == "word_index":
            padded[name][garbage] = -1
        elif name == "label_ids":
            padded[name][garbage] = 999
        elif name not in ("input_mask", "label_weights", "masked_lm_weights"):
            padded[name][garbage] = random.normal(size=garbage.sum()) * 50
    return padded


def shares(objective, batch, pieces):
    """What replicas or micro-batches do: global denominators first, then a sum of shares."""
    slices = [take(batch, rows) for rows in pieces]
    local = [objective.denominators(nest(piece)[0]) for piece in slices]
    denominators = {name: tf.add_n([d[name] for d in local]) for name in objective.term_names}
    results = [run(objective, piece, denominators) for piece in slices]
    loss = sum(result[0] for result in results)
    names = results[0][1]
    return loss, {name: np.concatenate([r[1][name] for r in results]) for name in names}


def assert_same(result, expected, rtol=2e-5):
    np.testing.assert_allclose(result[0], expected[0], rtol=rtol, atol=1e-6)
    for name, gradient in expected[1].items():
        np.testing.assert_allclose(result[1][name], gradient, rtol=rtol, atol=1e-6, err_msg=name)


def test_the_table_has_every_loss():
    tried = {row.term["loss"] for row in ROWS} - {"task", "soft_task"}
    assert tried | {"cross_entropy"} == set(losses.LOSSES)
    published = {
        (row.term["loss"], row.term["output"] == "attention")
        for row in ROWS
        if row.term.get("reduction") == "as_published"
    }
    for name, spec in losses.LOSSES.items():
        assert (spec.as_published is not None) == ((name, False) in published)
        assert (spec.as_published_attention is not None) == ((name, True) in published)


@all_rows
def test_equals_the_reference_in_float64(row):
    batch = losses_table.make_batch(row)
    loss, _ = run(make_objective(row), batch)
    np.testing.assert_allclose(loss, row.reference(batch), rtol=1e-5)


@all_rows
def test_two_replicas_equal_one(row):
    batch = losses_table.make_batch(row)
    objective = make_objective(row)
    whole = run(objective, batch)
    # Of different size, and with different shares of padding and fillers.
    assert_same(shares(objective, batch, [slice(0, 2), slice(2, 5)]), whole)


@all_rows
def test_micro_batches_equal_one(row):
    batch = losses_table.make_batch(row)
    objective = make_objective(row)
    # The second holds nothing but a filler.
    pieces = [slice(0, 2), slice(2, 3), slice(3, 5)]
    assert_same(shares(objective, batch, pieces), run(objective, batch))


@rows_with_padding
def test_padded_equals_unpadded(row):
    batch = losses_table.make_batch(row)
    objective = make_objective(row)
    expected = run(objective, batch)
    loss, gradients = run(objective, pad(row, batch, extra=3))
    if row.counts_padding:
        assert abs(loss - expected[0]) > 1e-3
        return
    for name in gradients:
        tokens = [
            slice(0, losses_table.SIZES[axis]) if axis in "TP" else slice(None)
            for axis in row.axes(name)
        ]
        inside = gradients[name][tuple(tokens)]
        assert np.count_nonzero(gradients[name]) == np.count_nonzero(inside), name
        gradients[name] = inside
    assert_same((loss, gradients), expected)


@rows_with_tokens
def test_masked_equals_sliced(row):
    if row.counts_padding:
        pytest.skip("averages over padding, as was published")
    batch = losses_table.make_batch(row)
    objective = make_objective(row)
    (name,) = objective.term_names
    features, student, teacher = nest(batch)
    expected = objective.numerators(features, student, teacher)[name]
    total = 0.0
    for b, length in enumerate(batch["input_mask"].sum(axis=1)):
        sliced = {}
        for key, value in take(batch, slice(b, b + 1)).items():
            index = tuple(slice(length) if x == "T" else slice(None) for x in row.axes(key))
            sliced[key] = value[index]
        features, student, teacher = nest(sliced)
        total += objective.numerators(features, student, teacher)[name]
    np.testing.assert_allclose(total, expected, rtol=1e-5)


@all_rows
def test_no_weight_gives_exactly_zero(row):
    batch = losses_table.make_batch(row)
    batch["example_weights"] = np.zeros_like(batch["example_weights"])
    loss, gradients = run(make_objective(row), batch)
    assert loss == 0.0
    for name, gradient in gradients.items():
        np.testing.assert_array_equal(gradient, np.zeros_like(gradient), err_msg=name)


@all_rows
def test_filler_rows_change_nothing(row):
    batch = losses_table.make_batch(row)
    objective = make_objective(row)
    filled = {}
    for name, value in batch.items():
        filler = value[:2]
        if name == "example_weights":
            filler = np.zeros_like(filler)
        elif name == "label_ids":
            filler = np.full_like(filler, 999)
        elif "/" in name:
            filler = filler * 7
        filled[name] = np.concatenate([value, filler])
    loss, gradients = run(objective, filled)
    for name, gradient in gradients.items():
        assert not gradient[losses_table.EXAMPLES :].any()
        gradients[name] = gradient[: losses_table.EXAMPLES]
    assert_same((loss, gradients), run(objective, batch))


@all_rows
def test_gradient_matches_finite_differences(row):
    batch = losses_table.make_batch(row)
    objective = make_objective(row)
    _, gradients = run(objective, batch)
    random = np.random.default_rng(4)
    for name, gradient in gradients.items():
        assert np.isfinite(gradient).all() and gradient.any()
        direction = random.normal(size=gradient.shape)
        direction = (direction / np.linalg.norm(direction)).astype(np.float32)
        ends = [
            row.reference({**batch, name: np.float64(batch[name]) + step * direction})
            for step in (-1e-5, 1e-5)
        ]
        expected = (ends[1] - ends[0]) / 2e-5
        np.testing.assert_allclose((gradient * direction).sum(), expected, rtol=1e-3, atol=1e-5)


@all_rows
def test_half_precision_inputs_are_computed_in_float32(row):
    batch = losses_table.make_batch(row)
    objective = make_objective(row)
    rounded, halves = dict(batch), dict(batch)
    for name in row.outputs:
        halves[name] = tf.cast(batch[name], tf.bfloat16)
        rounded[name] = tf.cast(halves[name], tf.float32)
    loss, gradients = run(objective, halves)
    assert loss.dtype == tf.float32
    expected_loss, expected_gradients = run(objective, rounded)
    assert loss == expected_loss
    for name, gradient in expected_gradients.items():
        np.testing.assert_array_equal(gradients[name], tf.cast(gradient, tf.bfloat16))


@all_rows
def test_a_graph_gives_the_same_value(row):
    batch = losses_table.make_batch(row)
    objective = make_objective(row)

    def loss(features, student, teacher):
        numerators = objective.numerators(features, student, teacher)
        return objective.total(numerators, objective.denominators(features))

    arguments = nest(batch)

    def unknown_sizes(tensor):
        return tf.TensorSpec([None] * tensor.shape.rank, tensor.dtype)

    graph = tf.function(loss, input_signature=tf.nest.map_structure(unknown_sizes, arguments))
    np.testing.assert_allclose(graph(*arguments), loss(*arguments), rtol=1e-6)


@all_rows
def test_order_is_free_and_weight_is_linear(row):
    batch = losses_table.make_batch(row)
    term = row.make_term(name="first")
    once, _ = run(make_objective(row), batch)
    for weights in ((2.0, 0.5), (0.5, 2.0), (2.5, 0.0)):
        first, second = (
            term.model_copy(update={"weight": weight, "name": name})
            for weight, name in zip(weights, ("first", "second"), strict=True)
        )
        loss, _ = run(make_objective(row, first, second), batch)
        np.testing.assert_allclose(loss, 2.5 * once, rtol=1e-5)
        reverse, _ = run(make_objective(row, second, first), batch)
        np.testing.assert_allclose(reverse, loss, rtol=1e-6)


@all_rows
def test_no_gradient_reaches_the_teacher(row):
    features, student, teacher = nest(losses_table.make_batch(row))
    if not teacher:
        pytest.skip("has no teacher")
    objective = make_objective(row)
    with tf.GradientTape() as tape:
        tape.watch(teacher)
        loss = objective.total(
            objective.numerators(features, student, teacher), objective.denominators(features)
        )
    assert all(g is None for g in tf.nest.flatten(tape.gradient(loss, teacher)))


def test_terms_have_their_own_denominators():
    row = next(row for row in ROWS if row.id == "task-classification")
    batch = losses_table.make_batch(row)
    batch["teacher/logits"] = batch["student/logits"] * 0.5 + 1
    terms = [Term(loss="task"), Term(loss="mean_squared_error", output="logits", weight=3.0)]
    loss, _ = run(make_objective(row, *terms), batch)
    distance = losses_table.over_examples(losses_table.squared)
    np.testing.assert_allclose(loss, row.reference(batch) + 3 * distance(batch), rtol=1e-5)
