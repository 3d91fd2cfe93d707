"""Model folders of any kind: their configs, limits and labels."""

import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from tests.small_task import encoder_folder
from xdistil_tf.models import folders, layers

pytest_plugins = ["tests.small_task"]


def rewrite_config(folder, change):
    path = pathlib.Path(folder) / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


@pytest.mark.parametrize("kind", ["classification", "tagging"])
def test_a_head_of_two_unnamed_classes_has_their_default_names(small, tmp_path, kind):
    """`transformers` writes no `id2label` for two classes of default names."""
    head = {"kind": kind, "num_labels": 2}
    folder = encoder_folder(tmp_path / "teacher", small.tokenizer, head)
    for key in ("id2label", "label2id", "xdistil"):
        rewrite_config(folder, lambda config, key=key: config.pop(key, None))
    assert folders.head_kind(folder) == kind
    assert folders.class_names(folder) == ("LABEL_0", "LABEL_1")


def test_an_encoder_without_head_has_no_classes(small, tmp_path):
    folder = encoder_folder(tmp_path / "encoder", small.tokenizer)
    rewrite_config(folder, lambda config: config.update(id2label={"0": "a", "1": "b"}))
    assert folders.head_kind(folder) is None and folders.class_names(folder) is None


def test_classes_are_in_another_order_only_if_they_are_the_same():
    assert folders.in_another_order(["b", "a"], ("a", "b"))
    for names in (None, ("a", "b"), ("a", "c"), ("a",)):
        assert not folders.in_another_order(names, ("a", "b"))


def test_the_longest_input_follows_the_family(small, trained):
    assert folders.longest_input(folders.read_config(small.encoder)) == 64
    bert = {"model_type": "bert", "max_position_embeddings": 512, "pad_token_id": 0}
    roberta = {"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1}
    assert folders.longest_input(bert) == folders.longest_input(roberta) == 512
    assert folders.longest_input(folders.read_config(folders.find(str(trained)))) is None


@pytest.mark.parametrize("precision", ["bfloat16", "mixed_float16", "float32"])
@pytest.mark.parametrize("kind", ["encoder", "bilstm"])
def test_a_model_that_is_only_run_answers_the_same_without_casts(small, trained, kind, precision):
    folder = folders.find(str(trained)) if kind == "bilstm" else small.teacher
    features = {
        "input_ids": tf.constant([[2, 7, 9, 3], [2, 8, 3, 0]]),
        "input_mask": tf.constant([[1, 1, 1, 1], [1, 1, 1, 0]]),
    }
    plain, kept = (folders.load_model(folder, precision, only_run=one) for one in (False, True))
    one, other = (model(features, request={"logits": None})["logits"] for model in (plain, kept))
    np.testing.assert_array_equal(one, other)
    dense = [one for one in kept.submodules if isinstance(one, layers.Dense)]
    assert all(one.kernel.dtype.name == one.compute_dtype for one in dense)
    assert precision.removeprefix("mixed_") in {one.kernel.dtype.name for one in dense}
