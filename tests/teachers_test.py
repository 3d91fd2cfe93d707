"""Teachers: live without dropout and gradients, cached, averaged."""

import numpy as np
import pytest
import tensorflow as tf

from xdistil_tf import outputs
from xdistil_tf.models.bilstm import BiLSTM
from xdistil_tf.models.encoder import Encoder
from xdistil_tf.teachers import AverageTeacher, CachedTeacher, LiveTeacher, top_k_words

SIZES = {
    "vocab_size": 13,
    "hidden_size": 8,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "max_position_embeddings": 16,
    "initializer_range": 0.3,
    "hidden_dropout_prob": 0.5,
    "attention_probs_dropout_prob": 0.5,
    "head": {"kind": "classification", "num_labels": 2},
}
BATCH = {
    "input_ids": tf.constant([[2, 3, 4], [5, 6, 0]]),
    "input_mask": tf.constant([[1, 1, 1], [1, 1, 0]]),
    "segment_ids": tf.zeros([2, 3], tf.int32),
}


@pytest.fixture(scope="module")
def model():
    return Encoder.from_config_dict(SIZES, seed=1)


def test_a_live_teacher_runs_without_dropout(model):
    """Twice the same, and what the model gives outside of training."""
    teacher = LiveTeacher(model)
    request = {"logits": None, "hidden": (0, 3), "attention": (2,)}
    first, second = teacher(BATCH, request), teacher(BATCH, request)
    expected = model(BATCH, training=False, request=request)
    for one in (second, expected):
        tf.nest.map_structure(np.testing.assert_array_equal, first, one)


def test_no_gradient_flows_into_a_live_teacher(model):
    with tf.GradientTape() as tape:
        answer = LiveTeacher(model)(BATCH, {"logits": None, "hidden": (1,)})
        value = tf.reduce_sum(answer["logits"]) + tf.reduce_sum(answer["hidden"][1])
    assert all(one is None for one in tape.gradient(value, model.trainable_variables))


@pytest.mark.parametrize(("layer", "resolved"), [(-1, 3), (2, 2), (0, 0), (-4, 0)])
def test_the_representation_is_position_0_of_the_chosen_layer(model, layer, resolved):
    teacher = LiveTeacher(model, layer)
    assert teacher.layer == resolved and teacher.depth == 3
    answer = teacher(BATCH, {"representation": None})
    hidden = model(BATCH, request={"hidden": (resolved,)})["hidden"][resolved]
    assert set(answer) == {"representation"}
    np.testing.assert_array_equal(answer["representation"], hidden[:, 0])
    tagging = LiveTeacher(model, layer, tagging=True)(BATCH, {"representation": None})
    np.testing.assert_array_equal(tagging["representation"], hidden)


def test_a_teacher_gives_exactly_what_is_asked_for(model):
    answer = LiveTeacher(model, 2)(BATCH, {"representation": None, "hidden": (1,)})
    assert set(answer) == {"representation", "hidden"} and set(answer["hidden"]) == {1}


def test_a_missing_layer_is_refused(model):
    with pytest.raises(ValueError, match=r"Invalid teacher layer. Expected -4..3.*layer=6"):
        LiveTeacher(model, 6)


def test_a_missing_output_is_refused(model):
    with pytest.raises(ValueError, match="teacher does not give the output 'masked_lm_logits'"):
        LiveTeacher(model)(BATCH, {"masked_lm_logits": None})
    with pytest.raises(ValueError, match="teacher cache has no 'hidden' at layers .3."):
        CachedTeacher({"hidden": (1,)})(BATCH, {"hidden": (3,)})


def test_a_recurrent_model_may_teach():
    sizes = {"vocab_size": 13, "embedding_dim": 4, "lstm_units": 3, "projection_dim": 5}
    student = BiLSTM.from_config_dict(sizes | {"num_labels": 2}, seed=1)
    request = {"logits": None, "representation": None}
    answer, expected = LiveTeacher(student)(BATCH, request), student(BATCH, request=request)
    np.testing.assert_array_equal(answer["logits"], expected["logits"])
    # Position 0 of its states has read one direction only.
    assert answer["representation"].shape == (2, 5)
    np.testing.assert_array_equal(answer["representation"], expected["representation"])
    with pytest.raises(ValueError, match="no layers to choose from.*Expected teacher.layer=-1"):
        LiveTeacher(student, 1)


def test_a_cached_teacher_reads_the_batch():
    batch = {
        "teacher/logits": tf.constant([[1, 2]], tf.float16),
        "teacher/hidden/2": tf.constant([[[3.0]]]),
    }
    teacher = CachedTeacher({"logits": None, "hidden": (2,)})
    answer = teacher(batch, {"logits": None, "hidden": (2,)})
    assert answer["logits"].dtype == tf.float32
    np.testing.assert_array_equal(answer["logits"], [[1, 2]])
    np.testing.assert_array_equal(answer["hidden"][2], [[[3]]])


def test_an_average_weighs_its_teachers():
    def constant(value, *layers):
        def teacher(features, request):
            return {"logits": tf.fill([1, 2], value), "hidden": {1: tf.fill([1], value)}}

        teacher.available = {"logits": None, "hidden": layers}
        return teacher

    both = AverageTeacher([constant(1.0, 1, 2), constant(4.0, 1)], [2, 1])
    assert both.available == {"logits": None, "hidden": (1,)}
    answer = both(BATCH, both.available)
    np.testing.assert_allclose(answer["logits"], 2.0)
    np.testing.assert_allclose(answer["hidden"][1], 2.0)
    equal = AverageTeacher([constant(1.0, 1), constant(4.0, 1)])
    np.testing.assert_allclose(equal(BATCH, both.available)["logits"], 2.5)


@pytest.mark.parametrize(("count", "weights"), [(0, None), (2, [1.0]), (2, [1.0, -1.0])])
def test_wrong_weights_of_an_average_are_refused(model, count, weights):
    with pytest.raises(ValueError, match=f"one weight for each of {count} teachers"):
        AverageTeacher([LiveTeacher(model)] * count, weights)


def test_words_are_the_most_probable_ones_and_the_rest_is_the_tail():
    scores = np.random.default_rng(0).normal(size=(2, 3, 7)) * 2
    p = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    words = top_k_words(scores, 3, (2.0,))
    ids = np.argsort(-p, axis=-1)[..., :3]
    np.testing.assert_array_equal(words["ids"], ids)
    kept = np.take_along_axis(p, ids, -1)
    np.testing.assert_allclose(np.exp(words["log_probs"]), kept, rtol=1e-5)
    np.testing.assert_allclose(np.exp(words["log_tail"]), 1 - kept.sum(-1), rtol=1e-4)
    softened = np.exp(scores / 2) / np.exp(scores / 2).sum(-1, keepdims=True)
    again = np.exp(words["log_probs"] / 2 - words["logsumexp/2"][..., None])
    np.testing.assert_allclose(again, np.take_along_axis(softened, ids, -1), rtol=1e-5)


def language_model(**changes):
    head = {"kind": "pretraining", "next_sentence": True}
    return Encoder.from_config_dict(SIZES | {"head": head} | changes, seed=1)


def test_a_live_teacher_gives_words_beside_its_scores():
    batch = BATCH | {"masked_lm_positions": tf.constant([[1, 2], [1, 0]])}
    teacher = LiveTeacher(language_model(), top_k=4, temperatures=(2.0,))
    request = {outputs.TOP_K: None, "masked_lm_logits": None, "next_sentence_logits": None}
    answer = teacher(batch, request)
    assert set(answer) == set(request)
    expected = top_k_words(answer["masked_lm_logits"], 4, (2.0,))
    tf.nest.map_structure(np.testing.assert_array_equal, answer[outputs.TOP_K], expected)
    assert set(teacher(batch, {outputs.TOP_K: None})) == {outputs.TOP_K}
    # What a cache joins to the batch says the same.
    joined = {f"teacher/{outputs.TOP_K}/{name}": value for name, value in expected.items()}
    cached = CachedTeacher({outputs.TOP_K: None})(joined, {outputs.TOP_K: None})[outputs.TOP_K]
    assert cached["ids"].dtype == tf.int32 and set(cached) == set(expected)


def test_words_without_a_head_or_beyond_the_vocabulary(model):
    assert outputs.TOP_K not in LiveTeacher(model, top_k=4).available
    assert LiveTeacher(language_model()).top_k == 10
    assert LiveTeacher(language_model(vocab_size=6)).top_k == 6
    for top_k in (0, 14):
        with pytest.raises(ValueError, match=f"Expected 1 to 13, .*Received: {top_k}"):
            LiveTeacher(language_model(), top_k=top_k)


def test_different_words_have_no_average():
    both = AverageTeacher([LiveTeacher(language_model())] * 2)
    assert outputs.TOP_K not in both.available and "masked_lm_logits" in both.available
