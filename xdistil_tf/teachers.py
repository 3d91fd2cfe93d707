"""Teachers: functions from a batch to outputs, computed on the spot or read from a cache.

A teacher says which outputs it can give (`available`) and gives what is requested. A student
never sees the difference between a live and a cached one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import tensorflow as tf

from xdistil_tf import outputs


class LiveTeacher:
    """Runs a model on the batch, without dropout and without gradients.

    Args:
      model: A model that gives the agreed outputs.
      layer: The hidden layer that is its `representation`; negative numbers count from the top. A
        model without attention gives what its head reads instead: position 0 of its states has
        read one direction only.
      tagging: Whether a representation has one vector a token, or that of position 0 only.

    Raises:
      ValueError: If there is no such layer, or nothing to choose from.
    """

    def __init__(self, model, layer: int = -1, tagging: bool = False):
        self._model = model
        self._tagging = tagging
        self.precision = model.precision
        self.available = dict(model.available)
        layers = self.available.get("hidden")
        self.layer = None
        self.depth = max(layers) if layers else None
        if "attention" in self.available:
            self.layer = outputs.resolve_layer(layer, self.depth)
            self.available["representation"] = None
        elif layer != -1:
            raise ValueError(
                "This teacher has no layers to choose from: its representation is what its head "
                f"reads. Expected teacher.layer=-1 (--teacher_layer). Received: {layer}."
            )

    def __call__(self, features: Mapping[str, tf.Tensor], request: outputs.Request) -> dict:
        """Returns the requested outputs of a batch."""
        outputs.validate_request(request, self.available, "teacher")
        wanted = dict(request)
        from_hidden = "representation" in wanted and self.layer is not None
        if from_hidden:
            wanted.pop("representation")
            wanted = outputs.merge_requests(wanted, {"hidden": (self.layer,)})
        given = self._model(features, training=False, request=wanted)
        answer = {key: given[key] for key in request if key in given}
        if from_hidden:
            hidden = given["hidden"][self.layer]
            # Position 0 of the layer, before any pooler.
            answer["representation"] = hidden if self._tagging else hidden[:, 0]
        if "hidden" in request:
            answer["hidden"] = {i: given["hidden"][i] for i in request["hidden"]}
        return tf.nest.map_structure(tf.stop_gradient, answer)


class CachedTeacher:
    """Reads outputs that were computed once and joined to the batch by record id.

    Args:
      available: What the cache holds, as a request.
    """

    def __init__(self, available: outputs.Request):
        self.available = dict(available)

    def __call__(self, features: Mapping[str, tf.Tensor], request: outputs.Request) -> dict:
        """Returns the requested outputs of a batch, as float32."""
        outputs.validate_request(request, self.available, "teacher cache")
        answer: dict = {}
        for key, layers in request.items():
            if layers is None:
                answer[key] = tf.cast(features[f"teacher/{key}"], tf.float32)
            else:
                answer[key] = {
                    i: tf.cast(features[f"teacher/{key}/{i}"], tf.float32) for i in layers
                }
        return answer


class AverageTeacher:
    """The weighted mean of several teachers' outputs.

    Args:
      teachers: At least one.
      weights: One a teacher, of positive sum; equal by default.

    Raises:
      ValueError: If the numbers differ or the weights do not sum to something positive.
    """

    def __init__(self, teachers: Sequence, weights: Sequence[float] | None = None):
        weights = list(weights or [1.0] * len(teachers))
        if not teachers or len(weights) != len(teachers) or sum(weights) <= 0:
            raise ValueError(
                f"Expected one weight for each of {len(teachers)} teachers, of positive sum. "
                f"Received: {weights}."
            )
        self._teachers = list(teachers)
        self._weights = [weight / sum(weights) for weight in weights]
        self.available = _common([teacher.available for teacher in teachers])

    def __call__(self, features: Mapping[str, tf.Tensor], request: outputs.Request) -> dict:
        """Returns the mean of the requested outputs."""
        answers = [teacher(features, request) for teacher in self._teachers]
        return tf.nest.map_structure(
            lambda *values: tf.add_n([w * v for w, v in zip(self._weights, values, strict=True)]),
            *answers,
        )


def _common(requests: Sequence[outputs.Request]) -> dict:
    """What all of the teachers can give."""
    common = dict(requests[0])
    for request in requests[1:]:
        for key in list(common):
            if key not in request:
                del common[key]
            elif common[key] is not None:
                common[key] = tuple(i for i in common[key] if i in (request[key] or ()))
    return common
