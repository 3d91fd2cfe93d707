"""What is refused before a teacher is trained for it."""

import pytest

from xdistil_tf import recipe_files, recipes
from xdistil_tf.distill import distill
from xdistil_tf.job import Job
from xdistil_tf.recipe_checks import check_recipe

BOUND = ("train", "heldout", "transfer", "augmented")


def load(name):
    return recipe_files.load_recipe(recipes.find(f"configs/{name}.yaml"))


@pytest.mark.parametrize(
    ("name", "task_type"),
    [
        ("xtremedistil/ner", "tagging"),
        ("xtremedistil/text", "classification"),
        ("tinybert/task", "classification"),
    ],
)
def test_recipes_that_come_along_suit_their_tasks(name, task_type):
    check_recipe(load(name), task_type, BOUND)


def test_a_recipe_of_words_is_refused_for_texts():
    with pytest.raises(ValueError, match="'logits' compares words .* Expected --task=ner"):
        check_recipe(load("xtremedistil/ner"), "classification", BOUND)


def test_data_that_nothing_gives_are_named():
    with pytest.raises(ValueError, match="reads transfer, and the task gives heldout, train"):
        check_recipe(load("xtremedistil/text"), "classification", ("train", "heldout"))


def test_a_student_without_size_is_refused_before_anything_is_read(tmp_path):
    job = Job(
        recipe=load("tinybert/task"),
        teacher_recipe=load("bert/finetune"),
        task_dir="none",
        task="sst-2",
        teacher=str(tmp_path),
        model_dir=str(tmp_path / "run"),
    )
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match="gives no size for its encoder"):
        distill(job)


def test_a_misspelt_recipe_is_told_the_nearest():
    with pytest.raises(FileNotFoundError, match="Did you mean configs/tinybert/task.yaml"):
        recipes.find("configs/tinybert/taks.yaml")
