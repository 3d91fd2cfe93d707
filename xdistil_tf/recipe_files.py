"""Recipes and other configurations in YAML files, with `path=value` overrides."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import pydantic
import yaml

from xdistil_tf import config_errors
from xdistil_tf.recipe import Config, Recipe, to_plain


def load_recipe(
    path: str | pathlib.Path, overrides: Sequence[str] = (), task: str | None = None
) -> Recipe:
    """Reads a recipe from YAML and applies `path=value` overrides.

    `by_task` of the file maps names of tasks to fields, `{cola: {stages.0.epochs: 50}}`: those of
    the task are set first, so that overrides win.

    Args:
      path: The YAML file.
      overrides: For example `("stages.0.epochs=3", "seed=7")`; values are read as YAML.
      task: Whose `by_task` counts, by the name that `readers.task_name` gives; `None`: nobody's.

    Raises:
      FileNotFoundError: If there is no such file.
      ValueError: One line naming file, field, what was expected and what came.
    """
    path = pathlib.Path(path)
    data = _read_yaml(path, Recipe.__name__)
    fields = fields_by_task(data, str(path)).get(task, {})
    data.pop("by_task", None)
    own = [f"{field}={json.dumps(value)}" for field, value in fields.items()]
    return parse_config(Recipe, apply_overrides(data, [*own, *overrides]), str(path))


def fields_by_task(data: dict, where: str) -> dict[str, dict[str, Any]]:
    """Task -> the fields that it overrides, from the plain data of a recipe.

    Raises:
      ValueError: If `by_task` is no such map; `where` is named.
    """
    by_task = data.get("by_task") or {}
    if not isinstance(by_task, dict) or not all(isinstance(one, dict) for one in by_task.values()):
        raise ValueError(
            f"{where}: expected by_task to map names of tasks to fields, such as "
            "{cola: {max_seq_length: 64}}."
        )
    return by_task


def load_config(kind: type[Config], path: str | pathlib.Path, overrides: Sequence[str] = ()):
    """Reads any `Config` from YAML; see `load_recipe`."""
    data = _read_yaml(pathlib.Path(path), kind.__name__)
    return parse_config(kind, apply_overrides(data, overrides), str(path))


def has_field(path: str | pathlib.Path, field: str) -> bool:
    """Whether a YAML file has a field, which tells what kind of `Config` it is for."""
    return field in _read_yaml(pathlib.Path(path), "Study")


def _read_yaml(path: pathlib.Path, meant_for: str) -> dict:
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}. Expected a YAML file for {meant_for}.")
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict):
        raise ValueError(f"{path}: expected a mapping of fields. Received: {type(data).__name__}.")
    return data


def parse_config(kind: type[Config], data: Any, where: str):
    """Validates plain data; every complaint is one line with the nearest valid name."""
    try:
        return kind.model_validate(data)
    except pydantic.ValidationError as error:
        raise ValueError(f"{where}: {config_errors.in_words(kind, error, data)}") from None


def completed(plain: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe that an earlier version wrote down, with the defaults of fields added since.

    What is no recipe any more is left as it is.
    """
    try:
        return to_plain(Recipe.model_validate(plain))
    except pydantic.ValidationError:
        return dict(plain)


def apply_overrides(data: dict, overrides: Sequence[str]) -> dict:
    """Returns a copy of `data` with each `a.b.0.c=value` set; `steps` takes the place of `epochs`.

    Raises:
      ValueError: If an override has no `=`, or a list has no such position.
    """
    # Not a deep copy: YAML anchors share a value, an override is meant for one place.
    data = json.loads(json.dumps(data, default=str))
    for override in overrides:
        path, separator, value = override.partition("=")
        if not separator or not path:
            raise ValueError(f"Invalid --set. Expected path=value. Received: {override!r}.")
        try:
            parsed = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ValueError(f"Invalid --set. Expected YAML. Received: {override!r}.") from error
        _set(data, path.split("."), parsed, override)
    return data


# Of a stage has one or the other.
_INSTEAD = {"steps": "epochs", "epochs": "steps"}


def _set(node: Any, keys: list[str], value: Any, override: str) -> None:
    for position, key in enumerate(keys):
        last = position == len(keys) - 1
        if isinstance(node, list):
            if not key.isdigit() or int(key) >= len(node):
                raise ValueError(
                    f"Invalid --set. Expected a position 0..{len(node) - 1} at {key!r}. "
                    f"Received: {override!r}."
                )
            key = int(key)
        elif not isinstance(node, dict):
            raise ValueError(
                f"Invalid --set. {key!r} is inside a plain value. Received: {override!r}."
            )
        elif not last and node.get(key) is None:
            node[key] = {}
        if last:
            node[key] = value
            if value is not None and isinstance(node, dict):
                node.pop(_INSTEAD.get(key), None)
        else:
            node = node[key]
