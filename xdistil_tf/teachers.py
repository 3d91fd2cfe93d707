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
      top_k: Words of `masked_lm_top_k` at each masked slot; `None`: 10, or the whole vocabulary
        where it is smaller.
      temperatures: Other than 1; those that its words can be softened with.

    Raises:
      ValueError: If there is no such layer, or nothing to choose from; or if `top_k` exceeds the
        vocabulary.
    """

    def __init__(
        self,
        model,
        layer: int = -1,
        tagging: bool = False,
        top_k: int | None = None,
        temperatures: Sequence[float] = (),
    ):
        self._model = model
        self._tagging = tagging
        self.top_k, self.temperatures = None, ()
        self.precision = model.precision
        self.available = dict(model.available)
        layers = self.available.get("hidden")
        self.layer = None
        self.depth = max(layers) if layers else None
        if getattr(model, "layered", "attention" in self.available):
            self.layer = outputs.resolve_layer(layer, self.depth)
            self.available["representation"] = None
        elif layer != -1:
            raise ValueError(
                "This teacher has no layers to choose from: its representation is what its head "
                f"reads. Expected teacher.layer=-1 (--teacher_layer). Received: {layer}."
            )
        if "masked_lm_logits" in self.available:
            self.available[outputs.TOP_K] = None
            self.top_k = _words(top_k, self.vocab_size)
            self.temperatures = tuple(temperatures)

    @property
    def vocab_size(self) -> int:
        """Words that it chooses from at a masked slot."""
        return self._model.config["vocab_size"]

    def __call__(self, features: Mapping[str, tf.Tensor], request: outputs.Request) -> dict:
        """Returns the requested outputs of a batch."""
        outputs.validate_request(request, self.available, "teacher")
        wanted = dict(request)
        from_hidden = "representation" in wanted and self.layer is not None
        if from_hidden:
            wanted.pop("representation")
            wanted = outputs.merge_requests(wanted, {"hidden": (self.layer,)})
        if outputs.TOP_K in wanted:
            wanted.pop(outputs.TOP_K)
            wanted["masked_lm_logits"] = None
        given = self._model(features, training=False, request=wanted)
        answer = {key: given[key] for key in request if key in given}
        if from_hidden:
            hidden = given["hidden"][self.layer]
            # That of one position of the layer, before any pooler.
            answer["representation"] = (
                hidden if self._tagging else self._model.summary(hidden, features)
            )
        if "hidden" in request:
            answer["hidden"] = {i: given["hidden"][i] for i in request["hidden"]}
        if outputs.TOP_K in request:
            answer[outputs.TOP_K] = top_k_words(
                given["masked_lm_logits"], self.top_k, self.temperatures
            )
        return tf.nest.map_structure(tf.stop_gradient, answer)


def top_k_words(
    logits: tf.Tensor, top_k: int, temperatures: Sequence[float] = ()
) -> dict[str, tf.Tensor]:
    """The most probable words: `[B, P, V]` scores to the tensors of `outputs.TOP_K`.

    Of equally probable words the one with the smaller id comes first.
    """
    log_p = tf.nn.log_softmax(tf.cast(logits, tf.float32), axis=-1)
    log_probs, ids = tf.math.top_k(log_p, top_k, sorted=True)
    left = 1.0 - tf.reduce_sum(tf.exp(log_probs), axis=-1)
    some = (left > 0.0) & (top_k < tf.shape(logits)[-1])
    words = {
        "ids": ids,
        "log_probs": log_probs,
        "log_tail": tf.where(some, tf.math.log(tf.where(some, left, 1.0)), outputs.NO_TAIL),
    }
    for one in temperatures:
        words[outputs.logsumexp_field(one)] = tf.reduce_logsumexp(log_p / one, axis=-1)
    return words


class CachedTeacher:
    """Reads outputs that were computed once and joined to the batch by record id.

    Args:
      available: What the cache holds, as a request.
    """

    def __init__(self, available: outputs.Request):
        self.available = dict(available)

    def __call__(self, features: Mapping[str, tf.Tensor], request: outputs.Request) -> dict:
        """Returns the requested outputs of a batch, as float32; ids of words as int32."""
        outputs.validate_request(request, self.available, "teacher cache")
        answer: dict = {}
        for key, layers in request.items():
            if key == outputs.TOP_K:
                answer[key] = _cached_words(features, f"teacher/{key}/")
            elif layers is None:
                answer[key] = tf.cast(features[f"teacher/{key}"], tf.float32)
            else:
                answer[key] = {
                    i: tf.cast(features[f"teacher/{key}/{i}"], tf.float32) for i in layers
                }
        return answer


class AverageTeacher:
    """The weighted mean of several teachers' outputs; not of words, which differ.

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


def _words(top_k: int | None, vocab_size: int) -> int:
    if top_k is not None and not 1 <= top_k <= vocab_size:
        raise ValueError(
            f"Invalid top_k. Expected 1 to {vocab_size}, the teacher's vocabulary (--top_k, "
            f"teacher.top_k). Received: {top_k}."
        )
    return top_k or min(outputs.TOP_K_WORDS, vocab_size)


def _cached_words(features: Mapping[str, tf.Tensor], prefix: str) -> dict[str, tf.Tensor]:
    return {
        name.removeprefix(prefix): tf.cast(value, tf.int32 if name.endswith("/ids") else tf.float32)
        for name, value in features.items()
        if name.startswith(prefix)
    }


def _common(requests: Sequence[outputs.Request]) -> dict:
    """What all of the teachers can give."""
    common = {key: layers for key, layers in requests[0].items() if key != outputs.TOP_K}
    for request in requests[1:]:
        for key in list(common):
            if key not in request:
                del common[key]
            elif common[key] is not None:
                common[key] = tuple(i for i in common[key] if i in (request[key] or ()))
    return common
