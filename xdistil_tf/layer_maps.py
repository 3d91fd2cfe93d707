"""Layer maps: which layer of the student learns from which layer of the teacher.

Layer 0 is the embedding output, layer i the output of block i, so one map
serves hidden states and attention; attention has no layer 0 and drops that pair.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence

Pairs = tuple[tuple[int, int], ...]


def uniform(student_layers: int, teacher_layers: int) -> Pairs:
    """Layer i learns from layer `i * teacher_layers / student_layers`, halves rounded up.

    TinyBERT's default (Jiao et al., 2020, section 3.1).

    >>> uniform(4, 12)
    ((0, 0), (1, 3), (2, 6), (3, 9), (4, 12))
    >>> uniform(4, 6)
    ((0, 0), (1, 2), (2, 3), (3, 5), (4, 6))
    """
    _check_depths(student_layers, teacher_layers)
    # Whole numbers, because round() rounds halves to even: 4.5 would become 4.
    return tuple(
        (i, (2 * i * teacher_layers + student_layers) // (2 * student_layers))
        for i in range(student_layers + 1)
    )


def top(student_layers: int, teacher_layers: int) -> Pairs:
    """Embeddings from embeddings, and every block from the teacher's uppermost ones.

    >>> top(4, 12)
    ((0, 0), (1, 9), (2, 10), (3, 11), (4, 12))
    """
    _check_depths(student_layers, teacher_layers, at_most_teacher="top")
    offset = teacher_layers - student_layers
    return ((0, 0), *((i, i + offset) for i in range(1, student_layers + 1)))


def bottom(student_layers: int, teacher_layers: int) -> Pairs:
    """Every layer from the teacher's layer of the same number.

    >>> bottom(4, 12)
    ((0, 0), (1, 1), (2, 2), (3, 3), (4, 4))
    """
    _check_depths(student_layers, teacher_layers, at_most_teacher="bottom")
    return tuple((i, i) for i in range(student_layers + 1))


def skip(student_layers: int, teacher_layers: int) -> Pairs:
    """The uniform map without embeddings and last layer: PKD-Skip (Sun et al., 2019, section 3.2).

    >>> skip(6, 12)
    ((1, 2), (2, 4), (3, 6), (4, 8), (5, 10))
    """
    _check_depths(student_layers, teacher_layers)
    if student_layers < 2:
        raise ValueError(
            "The layer map 'skip' leaves out the last layer. Expected a student of at least 2 "
            f"layers. Received: {student_layers}. Use layers: last."
        )
    return uniform(student_layers, teacher_layers)[1:-1]


def last(student_layers: int, teacher_layers: int) -> Pairs:
    """Only the last layer from the last.

    >>> last(4, 12)
    ((4, 12),)
    """
    _check_depths(student_layers, teacher_layers)
    return ((student_layers, teacher_layers),)


def resolve(
    layers: str | Sequence[Sequence[int]],
    student_layers: int,
    teacher_layers: int,
    output: str,
) -> Pairs:
    """Turns the `layers` of a term into pairs (student layer, teacher layer).

    Args:
      layers: The name of a map, or explicit pairs; negative numbers count from the top.
      student_layers: Number of blocks of the student.
      teacher_layers: Number of blocks of the teacher.
      output: The output key they are for; `attention`, `query`, `key` and `value` have no layer 0,
        and a named map drops that pair.

    Returns:
      Pairs in the order of the student's layers, or as given.

    Raises:
      ValueError: If the map is unknown, a pair names a layer that does not exist, or none remain.
    """
    lowest = 0 if output == "hidden" else 1
    if isinstance(layers, str):
        if layers not in LAYER_MAPS:
            near = difflib.get_close_matches(layers, LAYER_MAPS, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(
                f"Unknown layer map. Expected one of {sorted(LAYER_MAPS)} or a list of pairs "
                f"[student layer, teacher layer]. Received: layers={layers!r}.{hint}"
            )
        pairs = LAYER_MAPS[layers](student_layers, teacher_layers)
        return tuple(pair for pair in pairs if min(pair) >= lowest)
    pairs = tuple(
        (
            _resolve_layer(pair[0], student_layers, lowest, "student", output),
            _resolve_layer(pair[1], teacher_layers, lowest, "teacher", output),
        )
        for pair in layers
    )
    if not pairs or len(set(pairs)) != len(pairs):
        raise ValueError(
            "Invalid layers. Expected at least one pair [student layer, teacher layer], none "
            f"twice. Received: layers={layers!r}."
        )
    return pairs


def _resolve_layer(layer: int, depth: int, lowest: int, who: str, output: str) -> int:
    resolved = depth + 1 + layer if layer < 0 else layer
    if not lowest <= resolved <= depth:
        raise ValueError(
            f"Invalid layer of the {who} for output {output!r}. Expected {lowest}..{depth}, or "
            f"negative numbers from the top. Received: {layer}."
        )
    return resolved


def _check_depths(
    student_layers: int, teacher_layers: int, at_most_teacher: str | None = None
) -> None:
    if student_layers < 1 or teacher_layers < 1:
        raise ValueError(
            "Invalid number of layers. Expected at least 1 in student and teacher. "
            f"Received: student_layers={student_layers}, teacher_layers={teacher_layers}."
        )
    if at_most_teacher and student_layers > teacher_layers:
        raise ValueError(
            f"The layer map {at_most_teacher!r} needs a teacher at least as deep as the student. "
            f"Received: student_layers={student_layers}, teacher_layers={teacher_layers}. "
            "Use layers: uniform."
        )


LAYER_MAPS: dict[str, Callable[[int, int], Pairs]] = {
    "uniform": uniform,
    "top": top,
    "bottom": bottom,
    "skip": skip,
    "last": last,
}
