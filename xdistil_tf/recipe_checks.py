"""What a recipe asks of a task, checked before a teacher is trained for it."""

from __future__ import annotations

from collections.abc import Collection

from xdistil_tf import recipe

_SENTENCES = "configs/xtremedistil/text.yaml"


def check_recipe(config: recipe.Recipe, task_type: str, bound: Collection[str]) -> None:
    """Refuses what could be known to fail only after hours, when the student is made.

    Args:
      config: Of the student.
      task_type: Of its task.
      bound: Names of the data that the task gives.

    Raises:
      ValueError: If a stage reads data that is not there, or compares words of a task that has
        none.
    """
    for stage in config.stages:
        if task_type != "tagging" and any(term.at == "word" for term in stage.objective):
            raise ValueError(
                f"Stage {stage.name!r} compares words (at: word), and a task of type {task_type!r} "
                f"has labels of texts. Expected --task=ner, or a recipe such as {_SENTENCES}."
            )
    if missing := sorted(config.data_names() - set(bound)):
        raise ValueError(
            f"The recipe reads {', '.join(missing)}, and the task gives {', '.join(sorted(bound))}"
            ". Expected texts for it: those of --transfer_file must not all stand in train or dev."
        )
