"""Sizes of small encoders by name, and students that start as some layers of their teacher."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from xdistil_tf import layer_maps
from xdistil_tf.models.encoder import Encoder

_FIELDS = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size")
# Name: layers x width. 2x128, 4x256: Turc et al., 2019, table 1; 4x312, 6x768: Jiao et al., 2020,
# section 4.1; 6x384: Wang et al. (MiniLM), 2020, section 4.1.
PRESETS: Mapping[str, Mapping[str, int]] = {
    name: dict(zip(_FIELDS, sizes, strict=True))
    for name, sizes in {
        "2x128": (2, 128, 2, 512),
        "4x256": (4, 256, 4, 1024),
        "4x312": (4, 312, 12, 1200),
        "6x384": (6, 384, 12, 1536),
        "6x768": (6, 768, 12, 3072),
    }.items()
}


def copied_layers(
    layers_from: str | Sequence[int], student_layers: int, teacher_layers: int
) -> tuple[int, ...]:
    """The teacher's layer that each layer of a student starts as.

    >>> copied_layers("uniform", 4, 12), copied_layers([1, 2, -1], 3, 12)
    ((3, 6, 9, 12), (1, 2, 12))

    Raises:
      ValueError: If the map is unknown, a layer is not there, or there is not one for each.
    """
    if not isinstance(layers_from, str):
        if len(layers_from) != student_layers:
            raise ValueError(
                f"Invalid model.layers_from. Expected {student_layers} layers of the teacher, one "
                f"for each of the student. Received: {list(layers_from)}."
            )
        layers_from = [(i, layer) for i, layer in enumerate(layers_from, start=1)]
    # Attention has no layer 0, as blocks have none.
    pairs = layer_maps.resolve(layers_from, student_layers, teacher_layers, "attention")
    if len(pairs) != student_layers:
        raise ValueError(
            f"model.layers_from gives {len(pairs)} of the student's {student_layers} layers a "
            f"layer of the teacher's {teacher_layers}. Expected fewer layers than the teacher, or "
            "a list with one for each."
        )
    return tuple(teacher for _, teacher in pairs)


def student_from_layers(
    teacher: Encoder, fields: Mapping, layers_from: str | Sequence[int], precision: str = "float32"
) -> Encoder:
    """An encoder whose embeddings, blocks and heads are copies of its teacher's.

    Args:
      teacher: With the head that the student is to have.
      fields: Config fields of the student, `num_hidden_layers` among them; those left out are
        the teacher's.
      layers_from: See `copied_layers`.
      precision: Of the student.

    Raises:
      ValueError: If depth is not given, or a part differs in shape; names what to change.
    """
    config = teacher.config
    if fields.get("num_hidden_layers") is None:
        raise ValueError(
            "model.layers_from needs the student's depth. Expected model.preset or "
            "model.num_hidden_layers."
        )
    for name, value in fields.items():
        if name != "num_hidden_layers" and name in config and _shapes(name, value, config):
            raise ValueError(
                f"model.layers_from copies layers of a teacher with {name}={config[name]}, the "
                f"student has {value}. Expected equal sizes: leave model.{name} (and model.preset) "
                "out and set model.num_hidden_layers, or leave model.layers_from out."
            )
    student = Encoder(config | dict(fields), precision)
    chosen = copied_layers(layers_from, len(student.blocks), len(teacher.blocks))
    sources = teacher.named_variables()
    for name, variable in student.named_variables().items():
        variable.assign(sources[_teacher_name(name, chosen)])
    return student


def _shapes(name: str, value, config: Mapping) -> bool:
    """Whether another value of a field would be another shape, or another meaning of weights."""
    free = ("hidden_dropout_prob", "attention_probs_dropout_prob", "initializer_range", "head")
    return name not in free and value != config[name]


def _teacher_name(name: str, chosen: Sequence[int]) -> str:
    """`layer_2/...` of the student -> `layer_6/...` of the teacher."""
    found = re.match(r"layer_(\d+)/", name)
    return f"layer_{chosen[int(found[1]) - 1]}/{name[found.end() :]}" if found else name
