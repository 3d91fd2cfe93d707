"""What is refused before a teacher is trained for it."""

import pytest

from xdistil_tf import recipe_files, recipes
from xdistil_tf.recipe_checks import check_recipe

BOUND = ("train", "heldout", "transfer", "augmented")


def load(name):
    return recipe_files.load_recipe(recipes.find(f"configs/{name}.yaml"))


@pytest.mark.parametrize(
    ("name", "task_type", "start"),
    [
        ("xtremedistil/ner", "tagging", None),
        ("xtremedistil/text", "classification", None),
        ("tinybert/task", "classification", "a folder"),
        ("tinybert/task_layers", "classification", None),
    ],
)
def test_recipes_that_come_along_suit_their_tasks(name, task_type, start):
    check_recipe(load(name), task_type, BOUND, start)


def test_a_recipe_of_words_is_refused_for_texts():
    with pytest.raises(ValueError, match="'logits' compares words .* Expected --task=ner"):
        check_recipe(load("xtremedistil/ner"), "classification", BOUND, None)


def test_data_that_nothing_gives_are_named():
    with pytest.raises(ValueError, match="reads transfer, and the task gives heldout, train"):
        check_recipe(load("xtremedistil/text"), "classification", ("train", "heldout"), None)


def test_a_student_without_size_is_refused():
    with pytest.raises(ValueError, match="gives no size for its encoder"):
        check_recipe(load("tinybert/task"), "classification", BOUND, None)


def test_a_misspelt_recipe_is_told_the_nearest():
    with pytest.raises(FileNotFoundError, match="Did you mean configs/tinybert/task.yaml"):
        recipes.find("configs/tinybert/taks.yaml")
