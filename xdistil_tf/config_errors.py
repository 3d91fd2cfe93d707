"""What pydantic finds wrong with a configuration, in one line that a user can act on."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import pydantic

_OVERRIDES = ("set", "set_teacher")


def in_words(kind: type[pydantic.BaseModel], error: pydantic.ValidationError, data: Any) -> str:
    """Each complaint once: the field, what was expected, what came, and the nearest valid name.

    Args:
      kind: The configuration.
      error: What its validation raised.
      data: What was validated.
    """
    lines = [_explain(kind, item, data) for item in _innermost(error.errors())]
    return "; ".join(dict.fromkeys(lines))


def _innermost(errors: list) -> list:
    """Leaves out complaints about a container that only follow from those about its contents."""
    places = [error["loc"] for error in errors]
    return [
        error
        for error in errors
        if not any(
            len(place) > len(error["loc"]) and place[: len(error["loc"])] == error["loc"]
            for place in places
        )
    ]


def _explain(kind: type[pydantic.BaseModel], error: Any, data: Any) -> str:
    location = _location(error["loc"], data)
    if error["type"] == "extra_forbidden":
        name = str(error["loc"][-1])
        near = difflib.get_close_matches(name, sorted(_field_names(kind)), n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        return f"unknown field {location!r}.{hint}"
    received = repr(error.get("input"))
    received = received if len(received) <= 80 else received[:77] + "..."
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "tuple_type":
        overrides = error["loc"][-1] in _OVERRIDES
        message = "Expected a list" + (" of 'path=value'" if overrides else "")
    return f"field {location or 'recipe'!r}: {message}. Received: {received}."


def _location(place: Sequence[str | int], data: Any) -> str:
    """The path of a field as the file has it, without the tags of unions that pydantic puts in.

    >>> _location(("model", "bilstm", "lstm_unit"), {"model": {"kind": "bilstm", "lstm_unit": 3}})
    'model.lstm_unit'
    """
    path = []
    for part in place:
        inside = isinstance(part, int) or (isinstance(data, dict) and part in data)
        if inside:
            data = data[part]
        if inside or part == place[-1]:
            path.append(str(part))
    return ".".join(path)


def _field_names(kind: type[pydantic.BaseModel]) -> set[str]:
    """All field names of a configuration and of what it contains, for near-miss hints."""
    schema = kind.model_json_schema()
    blocks = [schema, *schema.get("$defs", {}).values()]
    return {name for block in blocks for name in block.get("properties", {})}
