"""What an objective asks for and refuses, its masks, and its work under a strategy."""

import numpy as np
import pytest
import tensorflow as tf

from tests import tiny
from xdistil_tf.objective import Objective
from xdistil_tf.recipe import Term

STUDENT = {"logits": None, "representation": None, "hidden": (0, 1, 2), "attention": (1, 2)}
TEACHER = {"logits": None, "representation": None, "hidden": tuple(range(7)), "attention": (3, 6)}


def make(*terms, task_type="classification", student=STUDENT, teacher=TEACHER, **options):
    return Objective([Term(**term) for term in terms], task_type, student, teacher, **options)


def mse(output="logits", **fields):
    return {"loss": "mean_squared_error", "output": output, **fields}


def test_asks_for_what_its_terms_compare():
    objective = make(
        {"loss": "task"},
        mse(),
        mse("hidden", layers="uniform"),
        mse("hidden", layers=((2, 5),)),
        mse("attention", layers="uniform"),
    )
    assert objective.student_request == {"logits": None, "hidden": (0, 1, 2), "attention": (1, 2)}
    assert objective.teacher_request == {
        "logits": None,
        "hidden": (0, 3, 5, 6),
        "attention": (3, 6),
    }
    assert objective.required_features == {
        "label_ids",
        "label_weights",
        "example_weights",
        "input_mask",
    }


def test_labels_alone_need_no_teacher():
    objective = make({"loss": "task"}, teacher=None)
    assert objective.teacher_request == {}
    assert objective.student_request == {"logits": None}


@pytest.mark.parametrize(
    ("task_type", "name", "target"),
    [
        ("classification", "cross_entropy_logits", "label_ids"),
        ("tagging", "cross_entropy_logits", "label_ids"),
        ("regression", "mean_squared_error_logits", "label_values"),
    ],
)
def test_task_resolves_from_the_data(task_type, name, target):
    objective = make({"loss": "task"}, task_type=task_type)
    assert objective.term_names == (name,)
    assert objective.terms[0].target == target


def test_names_are_unique_and_given_ones_stay():
    objective = make(
        mse(), mse(), mse(name="mean_squared_error_logits_2"), mse(name="mine", weight=2.0)
    )
    assert objective.term_names == (
        "mean_squared_error_logits",
        "mean_squared_error_logits_3",
        "mean_squared_error_logits_2",
        "mine",
    )
    assert objective.weights == (1.0, 1.0, 1.0, 2.0)


def test_the_depth_of_a_partly_cached_teacher_can_be_given():
    teacher = {"hidden": (0, 2, 4)}
    shallow = make(mse("hidden", layers="uniform"), teacher=teacher)
    assert shallow.teacher_request == {"hidden": (0, 2, 4)}
    with pytest.raises(ValueError, match=r"no 'hidden' at layers \[5, 10\].*\[0, 2, 4\]"):
        make(mse("hidden", layers="uniform"), teacher=teacher, teacher_layers=10)


@pytest.mark.parametrize(
    ("term", "message"),
    [
        (mse("masked_lm_logits"), "student does not give the output 'masked_lm_logits'"),
        (mse("query", layers="last"), "student does not give the output 'query'"),
        (mse(target_output="next_sentence_logits"), "teacher does not give the output 'next_sent"),
        (mse("attention", layers=((1, 2),)), r"teacher has no 'attention' at layers \[2\]"),
        (mse("logit"), "unknown output.*Did you mean 'logits'"),
        (mse(loss="mean_square_error"), "unknown loss.*Did you mean 'mean_squared_error'"),
        (mse(options={"beta": 1}), "'mean_squared_error' has one option, {heads: mean}"),
        (mse(options={"heads": "mean"}), "one option, {heads: mean}, of attention.*'logits'"),
        (
            mse("attention", layers="last", options={"heads": "mean"}, reduction="as_published"),
            "'zeroed_mean_squared_error' has no option 'heads'",
        ),
        (
            mse("hidden", layers="last", loss="relation_kl_divergence"),
            "cannot compare this output. Expected one of .*'query'",
        ),
        ({"loss": "soft_task", "output": "hidden"}, "compares 'logits' with 'teacher'"),
        (mse(layers="uniform"), "'logits' has no layers"),
        (mse("hidden"), "one tensor per layer. Expected .*'uniform'"),
        (mse("hidden", layers="uniform", target="x"), "Expected target='teacher'"),
        (
            mse("hidden", layers=((9, 1),)),
            "layer of the student for output 'hidden'. Expected 0..2",
        ),
        (mse("hidden", layers="last", target_output="logits"), "both with layers or both without"),
        (mse(target="label_values", target_output="logits"), "target_output belongs to target"),
        (mse(temperature=2.0), "'mean_squared_error' has no temperature"),
        (mse(at="word"), "has no vector per word"),
        (mse(loss="cross_entropy"), "Expected target to be a feature such as 'label_ids'"),
        (
            mse("attention", loss="cosine_distance", layers="last"),
            "'cosine_distance' cannot compare this output. Expected one of .*'attention'",
        ),
        (
            mse("hidden", loss="cosine_distance", layers="last", reduction="as_published"),
            "no published variant",
        ),
        (
            mse("representation", loss="kl_divergence", reduction="as_published", temperature=2.0),
            "'keras_clipped_kl' has no temperature",
        ),
        ({"loss": "task", "output": "representation"}, "compares 'logits' with 'label_ids'"),
    ],
)
def test_refuses_before_the_first_step_and_names_the_term(term, message):
    with pytest.raises(ValueError, match=f"^Term '.*{message}") as error:
        make(term)
    assert "\n" not in str(error.value)


def test_refuses_without_a_teacher_a_task_or_terms():
    with pytest.raises(
        ValueError, match=r"Term 'mean_squared_error_logits'.*\['logits'\] of a teach"
    ):
        make(mse(), teacher=None)
    with pytest.raises(ValueError, match="Term 'task': expected data with a task"):
        make({"loss": "task"}, task_type=None)
    with pytest.raises(ValueError, match="Term 'soft_task': expected data with a task"):
        make({"loss": "soft_task"}, task_type=None)
    with pytest.raises(ValueError, match="Unknown task_type.*'ranking'"):
        make({"loss": "task"}, task_type="ranking")
    with pytest.raises(ValueError, match="at least one term"):
        make()
    with pytest.raises(ValueError, match="different names"):
        make(mse(name="a"), mse(name="a"))
    with pytest.raises(ValueError, match="constant for the single score of a regression"):
        make({"loss": "soft_cross_entropy", "output": "logits"}, task_type="regression")


def test_a_missing_feature_or_output_is_named():
    objective = make(mse("hidden", layers="last"))
    with pytest.raises(
        ValueError, match=r"'mean_squared_error_hidden': the batch lacks .*input_mask"
    ):
        objective.denominators({"example_weights": tf.ones([2])})
    features = {"example_weights": tf.ones([2]), "input_mask": tf.ones([2, 3])}
    with pytest.raises(ValueError, match="expected 'hidden' among the model outputs"):
        objective.numerators(features, {}, {})
    with pytest.raises(ValueError, match="expected 6 among the teacher's 'hidden' outputs"):
        objective.numerators(features, {"hidden": {2: tf.zeros([2, 3, 4])}}, {"hidden": {}})


def test_wrong_shapes_name_the_term():
    objective = make(mse())
    features = {"example_weights": tf.ones([2])}
    with pytest.raises(
        ValueError, match=r"Term 'mean_squared_error_logits': expected.*\(2, 4\).*\(2, 3\)"
    ):
        objective.numerators(features, {"logits": tf.zeros([2, 3])}, {"logits": tf.zeros([2, 4])})
    tokens = {"logits": tf.zeros([2, 5, 3])}
    with pytest.raises(ValueError, match=r"weights, of shape \(2,\).*values of shape \(2, 5\)"):
        objective.numerators(features, tokens, tokens)


@pytest.mark.parametrize(
    ("output", "shapes", "cure"),
    [
        ("hidden", ([2, 3, 4], [2, 3, 5]), "Set model.width_projection"),
        ("attention", ([2, 2, 3, 3], [2, 4, 3, 3]), "heads: mean"),
    ],
)
def test_layers_of_other_shapes_are_told_with_the_cure(output, shapes, cure):
    objective = make(mse(output, layers="last"))
    features = {"example_weights": tf.ones([2]), "input_mask": tf.ones([2, 3])}
    student, teacher = (
        {output: {layer: tf.zeros(shape)}} for layer, shape in zip((2, 6), shapes, strict=True)
    )
    with pytest.raises(ValueError, match=f"in the shape of the teacher's.*{cure}"):
        objective.numerators(features, student, teacher)


def test_denominators_follow_from_features_alone():
    features = {
        "example_weights": tf.constant([1.0, 1.0, 0.0]),
        "input_mask": tf.constant([[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1]]),
        "label_ids": tf.zeros([3, 4], tf.int32),
        "label_weights": tf.constant([[0, 1, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]]),
        "word_index": tf.constant([[-1, 0, 0, -1], [0, 1, -1, -1], [0, 1, 2, 3]]),
    }
    terms = {
        "labels": ({"loss": "task"}, 2),
        "labels_with_padding": ({"loss": "task", "mask": "none"}, 4),
        "tokens": (mse(), 5),
        "tokens_with_padding": (mse(mask="none"), 8),
        "words": (mse(at="word"), 3),
        "pairs": (mse("attention", layers="last"), 9 + 4),
        "queries": (mse("attention", loss="kl_divergence", layers="last"), 5),
    }
    objective = make(*({**t, "name": n} for n, (t, _) in terms.items()), task_type="tagging")
    sums = {name: float(value) for name, value in objective.denominators(features).items()}
    assert sums == {name: count for name, (_, count) in terms.items()}


def test_unknown_gold_may_be_anything():
    features = {
        "example_weights": tf.ones([3]),
        "label_values": tf.constant([1.0, np.nan, np.inf]),
        "label_weights": tf.constant([1.0, 0.0, 0.0]),
    }
    objective = make({"loss": "task"}, task_type="regression")
    logits = tf.constant([[3.0], [1.0], [1.0]])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        numerators = objective.numerators(features, {"logits": logits})
        loss = objective.total(numerators, objective.denominators(features))
    assert loss == 4.0
    np.testing.assert_array_equal(tape.gradient(loss, logits), [[4.0], [0.0], [0.0]])


def test_values_that_do_not_count_may_be_infinite():
    objective = make(mse())
    features = {"example_weights": tf.constant([1.0, 0.0])}
    logits = {"logits": tf.constant([[1.0], [np.inf]])}
    numerators = objective.numerators(features, logits, {"logits": tf.zeros([2, 1])})
    assert objective.total(numerators, objective.denominators(features)) == 1.0


def test_values_are_means_without_the_weight_of_the_term():
    objective = make(mse(weight=10.0))
    numerators = {"mean_squared_error_logits": tf.constant(6.0)}
    denominators = {"mean_squared_error_logits": tf.constant(4.0)}
    assert objective.values(numerators, denominators)["mean_squared_error_logits"] == 1.5
    assert objective.total(numerators, denominators) == 15.0


@pytest.mark.skipif(len(tf.config.list_logical_devices("CPU")) < 2, reason="needs two devices")
def test_two_replicas_of_a_strategy_equal_one():
    objective = make(mse("representation"), {"loss": "task"}, task_type="tagging")
    random = np.random.default_rng(5)
    mask = (np.arange(4) < np.array([4, 1, 2, 1])[:, None]).astype(np.int32)
    features = {
        "input_mask": mask,
        "label_ids": random.integers(0, 3, (4, 4)).astype(np.int32),
        "label_weights": mask.astype(np.float32),
        "example_weights": np.array([1, 1, 1, 0], np.float32),
        "inputs": random.normal(size=(4, 4, 3)).astype(np.float32),
        "target": random.normal(size=(4, 4, 3)).astype(np.float32),
    }

    def share(batch, kernel, denominators):
        logits = batch["inputs"] @ kernel
        numerators = objective.numerators(
            batch, {"logits": logits, "representation": logits}, {"representation": batch["target"]}
        )
        return objective.total(numerators, denominators)

    def gradients(batch, kernel, denominators):
        with tf.GradientTape() as tape:
            loss = share(batch, kernel, denominators)
        return loss, tape.gradient(loss, kernel)

    kernel = tf.Variable(random.normal(size=(3, 3)).astype(np.float32))
    whole = tf.nest.map_structure(tf.convert_to_tensor, features)
    expected = gradients(whole, kernel, objective.denominators(whole))
    strategy = tiny.two_replicas()
    with strategy.scope():
        mirrored = tf.Variable(kernel)

    def on_replica(batch):
        context = tf.distribute.get_replica_context()
        denominators = context.all_reduce("sum", objective.denominators(batch))
        return context.all_reduce("sum", list(gradients(batch, mirrored, denominators)))

    def slice_of(context):
        rows = slice(2 * context.replica_id_in_sync_group, 2 * context.replica_id_in_sync_group + 2)
        return {name: tensor[rows] for name, tensor in whole.items()}

    batches = strategy.experimental_distribute_values_from_function(slice_of)
    loss, gradient = tf.function(lambda b: strategy.run(on_replica, args=(b,)))(batches)
    for result in strategy.experimental_local_results(loss):
        np.testing.assert_allclose(result, expected[0], rtol=1e-5)
    for result in strategy.experimental_local_results(gradient):
        np.testing.assert_allclose(result, expected[1], rtol=1e-5, atol=1e-6)
