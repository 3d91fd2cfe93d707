"""Which variables of a model a stage trains, and which of its parts its objective reaches."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import tensorflow as tf

from xdistil_tf import recipe


def stage_variables(
    model, stage: recipe.Stage, reached: Collection[str] | None = None
) -> dict[str, tf.Variable]:
    """Names and variables of the parts that a stage trains, in the model's order.

    With `reached`, only those that its objective reaches.
    """
    parts = (
        model.parts if stage.train is None else {name: model.parts[name] for name in stage.train}
    )
    chosen = {
        id(variable)
        for layers in parts.values()
        for layer in layers
        for variable in layer.trainable_variables
    }
    return {
        name: variable
        for name, variable in model.named_variables().items()
        if id(variable) in chosen and (reached is None or name in reached)
    }


def count_parameters(variables: Mapping[str, tf.Variable]) -> int:
    """Numbers in all variables together."""
    return sum(int(np.prod(variable.shape)) for variable in variables.values())


def unreached_parts(model, stage: recipe.Stage, reached: Collection[str]) -> list[str]:
    """The parts of a stage of which no variable gets a gradient.

    Args:
      model: Gives `parts` and `named_variables()`.
      stage: Without `unfreeze`.
      reached: Names of the variables that the stage's objective reaches.

    Raises:
      ValueError: If the stage names one of them, or nothing is reached at all.
    """
    names = {id(variable): name for name, variable in model.named_variables().items()}
    parts = stage.train or tuple(model.parts)
    unreached = [
        part
        for part in parts
        if not any(
            names[id(variable)] in reached
            for layer in model.parts[part]
            for variable in layer.trainable_variables
        )
    ]
    if unreached and (stage.train is not None or len(unreached) == len(parts)):
        raise ValueError(
            f"Stage {stage.name!r} trains {list(parts)}, but its objective does not reach "
            f"{unreached}. Remove them from 'train', or add a term."
        )
    return unreached
