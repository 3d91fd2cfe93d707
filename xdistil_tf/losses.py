"""Losses: pure functions of a target and an output that do not average over examples.

Each returns one value per position; the objective multiplies by the mask and
divides, in one place, by the weight of the whole global batch. Everything is
computed in float32 whatever the precision of the inputs. The registry `LOSSES`
at the end says what an objective has to know about each.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from xdistil_tf import crf, outputs, top_k_loss

# Added in place of masked scores: exp(-1e9) is 0 in float32, while -inf would make NaN gradients.
_MASKED_SCORE = -1e9
# The smallest sum of squares that a vector is divided by; keeps the gradient finite at zero.
_SMALLEST_SQUARED_NORM = 1e-12


def mean_squared_error(target, output, *, axis: int = -1, heads: str = "each") -> tf.Tensor:
    """Squared difference, averaged over one axis.

    No factor 1/2. The shapes must be equal: nothing is broadcast.

    Args:
      target: Any values, `[..., D]`.
      output: Of the same shape.
      axis: The axis to average over; 1 for attention scores `[B, H, T, T]`, whose heads are
        averaged per query and key.
      heads: Of attention scores: `each` compares head with head; `mean` the means over all heads,
        so that numbers of heads may differ.

    Returns:
      `[...]`, the shape without `axis`; not averaged over examples, not masked.

    Raises:
      ValueError: If the shapes differ.
    """
    if heads == "mean":
        target, output = (
            tf.reduce_mean(tf.cast(scores, tf.float32), axis=axis, keepdims=True)
            for scores in (target, output)
        )
    target, output = _same_shape(target, output)
    return tf.reduce_mean(tf.math.squared_difference(target, output), axis=axis)


def zeroed_mean_squared_error(target, output, *, mask, axis: int = 1) -> tf.Tensor:
    """TinyBERT's published attention loss: masked keys and scores of at most -100 become 0.

    Zeroed entries still count when it is averaged, which dilutes the loss by the share of padding:
    use `mean_squared_error` with the default mask for anything but matching published values
    (Jiao et al., 2020, and its released code).

    Args:
      target: Attention scores before softmax, `[B, H, T, T]`.
      output: Of the same shape.
      mask: 1 for real keys, broadcastable to `[B, H, T, T]`.
      axis: The axis to average over; 1 are the heads.

    Returns:
      `[B, T, T]`, to be averaged over all queries and keys, padding included.

    Raises:
      ValueError: If the shapes differ.
    """
    target, output = _same_shape(target, output)
    keys = tf.cast(mask, tf.bool)
    target, output = (
        tf.where(keys & (scores > -100.0), scores, 0.0) for scores in (target, output)
    )
    return tf.reduce_mean(tf.math.squared_difference(target, output), axis=axis)


def kl_divergence(
    target_logits, logits, *, temperature: float = 1.0, mask=None, axis: int = -1
) -> tf.Tensor:
    """Kullback-Leibler divergence of the target's softmax from the output's.

    The gradient shrinks as 1/temperature**2; multiply the term's weight by temperature**2 to
    compare temperatures (Hinton et al., 2015, section 2).

    Args:
      target_logits: Unnormalised scores, `[..., C]`.
      logits: Of the same shape.
      temperature: Positive divisor of both. 1 leaves them unchanged.
      mask: Which scores take part in the softmax (1) or not (0), broadcastable to `[..., C]`;
        for attention scores the mask of the keys. Where nothing takes part the value is 0.
      axis: The axis of the classes or keys.

    Returns:
      Nats per position, `[...]`; at least 0 but for rounding.

    Raises:
      ValueError: If the shapes differ or `temperature` is not positive.
    """
    target_logits, logits = _soften(*_same_shape(target_logits, logits), temperature)
    if mask is not None:
        mask = tf.cast(mask, tf.bool)
        target_logits = tf.where(mask, target_logits, _MASKED_SCORE)
        logits = tf.where(mask, logits, _MASKED_SCORE)
    log_target = tf.nn.log_softmax(target_logits, axis=axis)
    divergence = tf.exp(log_target) * (log_target - tf.nn.log_softmax(logits, axis=axis))
    if mask is not None:
        divergence = tf.where(mask, divergence, 0.0)
    return tf.reduce_sum(divergence, axis=axis)


def relation_kl_divergence(target, output, *, heads: int = 12, mask=None) -> tf.Tensor:
    """How differently two models relate tokens to each other, whatever their widths and heads.

    Vectors are cut into `heads` parts anew; a part's relations are the softmax over all tokens of
    its scaled dot products (Wang et al., "MiniLMv2", 2021, section 3.1; of values alone and with
    the model's own heads: "MiniLM", 2020, section 3.2).

    Args:
      target: Queries, keys or values of a layer, `[B, T, D]`.
      output: The same of another model, `[B, T, E]`.
      heads: Parts; D and E must be multiples of it.
      mask: 1 for real tokens, broadcastable to `[B, heads, T, T]`; others are related to by none.

    Returns:
      Nats per token, the mean over parts, `[B, T]`.

    Raises:
      ValueError: If a width is no multiple of `heads`.
    """
    target, output = (_relation_scores(vectors, heads) for vectors in (target, output))
    return tf.reduce_mean(kl_divergence(target, output, mask=mask), axis=1)


def _relation_scores(vectors, heads: int) -> tf.Tensor:
    """Scaled dot products of all tokens, `[B, T, D]` -> `[B, heads, T, T]`."""
    vectors = tf.cast(vectors, tf.float32)
    width = vectors.shape[-1]
    if width is not None and width % heads:
        raise ValueError(
            f"expected widths that are multiples of heads={heads}. Received: a width of {width}. "
            "Set options: {heads: ...} to a number that divides both."
        )
    batch, tokens, traced = tf.unstack(tf.shape(vectors))
    size = (traced if width is None else width) // heads
    parts = tf.transpose(tf.reshape(vectors, [batch, tokens, heads, size]), [0, 2, 1, 3])
    return tf.matmul(parts, parts, transpose_b=True) / tf.sqrt(tf.cast(size, tf.float32))


def keras_clipped_kl(target, output) -> tf.Tensor:
    """Keras' `kl_divergence` of raw activations, as the first XtremeDistil code applied it.

    Both are clipped to [1e-7, 1] and not normalised, so that components outside have no gradient
    and the value may be negative. Only for matching published values: `kl_divergence` compares
    distributions (Mukherjee and Hassan Awadallah, 2020, equation 6, and its released code).

    Args:
      target: Activations, `[..., D]`.
      output: Of the same shape.

    Returns:
      The sum over D, `[...]`.

    Raises:
      ValueError: If the shapes differ.
    """
    target, output = (tf.clip_by_value(x, 1e-7, 1.0) for x in _same_shape(target, output))
    return tf.reduce_sum(target * tf.math.log(target / output), axis=-1)


def soft_cross_entropy(teacher_logits, logits, *, temperature: float = 1.0) -> tf.Tensor:
    """Cross-entropy of the student against the teacher's softened distribution.

    The same gradient as `kl_divergence`; the value is larger by the teacher's entropy. The
    gradient shrinks as 1/temperature**2; multiply the term's weight by temperature**2 to compare
    temperatures (Hinton et al., 2015, section 2).

    Args:
      teacher_logits: Unnormalised scores, `[..., C]`.
      logits: The student's scores, of the same shape.
      temperature: Positive divisor of both. 1 leaves them unchanged.

    Returns:
      Nats per position, `[...]`; not averaged, not masked.

    Raises:
      ValueError: If the shapes differ or `temperature` is not positive.
    """
    teacher_logits, logits = _soften(*_same_shape(teacher_logits, logits), temperature)
    probabilities = tf.nn.softmax(teacher_logits, axis=-1)
    return -tf.reduce_sum(probabilities * tf.nn.log_softmax(logits, axis=-1), axis=-1)


def class_averaged_soft_cross_entropy(
    teacher_logits, logits, *, temperature: float = 1.0
) -> tf.Tensor:
    """TinyBERT's published prediction loss: `soft_cross_entropy` divided by the class count.

    Only for matching published values: the loss shrinks as classes are added (Jiao et al., 2020,
    equation 10, and its released code).

    Args:
      teacher_logits: Unnormalised scores, `[..., C]`.
      logits: The student's scores, of the same shape.
      temperature: Positive divisor of both.

    Returns:
      Nats per position and class, `[...]`.

    Raises:
      ValueError: If the shapes differ or `temperature` is not positive.
    """
    num_classes = tf.cast(tf.shape(logits)[-1], tf.float32)
    return soft_cross_entropy(teacher_logits, logits, temperature=temperature) / num_classes


def cross_entropy(label_ids, logits) -> tf.Tensor:
    """Cross-entropy against the index of the right class.

    Args:
      label_ids: Integers in [0, C), `[...]`; positions that a mask leaves out need legal ones too.
      logits: Unnormalised scores, `[..., C]`.

    Returns:
      Nats per position, `[...]`; not averaged, not masked.

    Raises:
      ValueError: If `label_ids` are not whole numbers, or not of the shape of `logits` without its
        last axis.
    """
    label_ids = tf.convert_to_tensor(label_ids)
    logits = tf.cast(logits, tf.float32)
    if not label_ids.dtype.is_integer:
        raise ValueError(
            f"Invalid label_ids. Expected an integer type. Received: {label_ids.dtype.name}."
        )
    if logits.shape.rank == 0 or not label_ids.shape.is_compatible_with(logits.shape[:-1]):
        raise ValueError(
            "Shape mismatch. Expected label_ids of the shape of logits without its last axis. "
            f"Received: label_ids {label_ids.shape} and logits {logits.shape}."
        )
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=label_ids, logits=logits)


def cosine_distance(target, output) -> tf.Tensor:
    """One minus the cosine of the angle between two vectors, as in DistilBERT.

    Blind to length: add `mean_squared_error` where the scale matters (Sanh et al., 2019,
    section 3). A vector of zeros has distance 1 to everything.

    Args:
      target: Vectors, `[..., D]`.
      output: Of the same shape.

    Returns:
      Values in [0, 2], `[...]`; not averaged, not masked.

    Raises:
      ValueError: If the shapes differ.
    """
    target, output = (
        tf.math.l2_normalize(x, axis=-1, epsilon=_SMALLEST_SQUARED_NORM)
        for x in _same_shape(target, output)
    )
    return 1.0 - tf.reduce_sum(target * output, axis=-1)


def _same_shape(target, output) -> tuple[tf.Tensor, tf.Tensor]:
    """Both as float32, after making sure that no operation would broadcast one to the other."""
    target, output = tf.cast(target, tf.float32), tf.cast(output, tf.float32)
    if not target.shape.is_compatible_with(output.shape):
        raise ValueError(
            "Shape mismatch. Expected target and output of equal shapes. "
            f"Received: target {target.shape} and output {output.shape}."
        )
    return target, output


def _soften(target_logits, logits, temperature: float) -> tuple[tf.Tensor, tf.Tensor]:
    if not temperature > 0:
        raise ValueError(
            f"Invalid temperature. Expected a positive number. Received: {temperature!r}."
        )
    return target_logits / temperature, logits / temperature


_VECTORS = ("logits", "representation", "hidden", "query", "key", "value")
_SCORES = ("logits", "masked_lm_logits", "next_sentence_logits", "marginals")


@dataclasses.dataclass(frozen=True)
class LossSpec:
    """What an objective has to know about a loss.

    Attributes:
      function: The loss; called with the target, then the output.
      outputs: Output keys that it can compare.
      labels: Whether the target is an integer per position instead of values like the output's.
      softmax: Whether it compares distributions, so that a single score says nothing.
      attention_axis: The axis it consumes of attention scores: 1 are the heads, which leaves one
        value per query and key; -1 are the keys, which leaves one per head and query. `None`: it
        cannot compare them. Of all other outputs it consumes the last axis.
      as_published: The variant for `reduction: as_published`, if there is one.
      as_published_attention: The same for attention.
      target_output: The one output of the teacher that it compares with, where that is not the
        same output; several tensors, see `outputs.TOP_K`.
      check_options: Takes a term's `options`, keyword arguments of the function, and its output,
        and raises `ValueError` at what does not fit. `None`: there are no options.
      relates_tokens: Whether it compares what tokens are to each other, so that widths may differ.
      chain: Whether the values of a sentence depend on each other: the function is given `weights`.

    A function with a parameter `mask` reads the feature `input_mask` when it compares attention or
    relates tokens: it is given the mask of the keys, `[B, 1, 1, T]`.
    """

    function: Callable[..., tf.Tensor]
    outputs: tuple[str, ...]
    labels: bool = False
    softmax: bool = False
    attention_axis: int | None = None
    as_published: Callable[..., tf.Tensor] | None = None
    as_published_attention: Callable[..., tf.Tensor] | None = None
    target_output: str | None = None
    check_options: Callable[[Mapping[str, Any], str], None] | None = None
    relates_tokens: bool = False
    chain: bool = False


def _check_heads(options: Mapping[str, Any], output: str) -> None:
    """Options of `mean_squared_error`."""
    if options and (output != "attention" or dict(options) != {"heads": "mean"}):
        raise ValueError(
            "'mean_squared_error' has one option, {heads: mean}, of attention. "
            f"Received: options={dict(options)!r} of {output!r}."
        )


def _check_relation_heads(options: Mapping[str, Any], output: str) -> None:
    """Options of `relation_kl_divergence`."""
    del output
    heads = options.get("heads", 12)
    if set(options) - {"heads"} or type(heads) is not int or heads < 1:
        raise ValueError(
            "'relation_kl_divergence' has one option, heads, a whole number of at least 1. "
            f"Received: options={dict(options)!r}."
        )


LOSSES: dict[str, LossSpec] = {
    "mean_squared_error": LossSpec(
        function=mean_squared_error,
        outputs=(*_VECTORS, "attention", "masked_lm_logits", "next_sentence_logits"),
        attention_axis=1,
        as_published=mean_squared_error,
        as_published_attention=zeroed_mean_squared_error,
        check_options=_check_heads,
    ),
    "kl_divergence": LossSpec(
        function=kl_divergence,
        outputs=(*_VECTORS, "attention", "masked_lm_logits", "next_sentence_logits"),
        softmax=True,
        attention_axis=-1,
        as_published=keras_clipped_kl,
    ),
    "relation_kl_divergence": LossSpec(
        function=relation_kl_divergence,
        outputs=("query", "key", "value"),
        check_options=_check_relation_heads,
        relates_tokens=True,
    ),
    "soft_cross_entropy": LossSpec(
        function=soft_cross_entropy,
        outputs=_SCORES,
        softmax=True,
        as_published=class_averaged_soft_cross_entropy,
    ),
    "cross_entropy": LossSpec(function=cross_entropy, outputs=_SCORES, labels=True, softmax=True),
    "top_k_cross_entropy": LossSpec(
        function=top_k_loss.top_k_cross_entropy,
        outputs=("masked_lm_logits",),
        softmax=True,
        target_output=outputs.TOP_K,
        check_options=top_k_loss.check_options,
    ),
    "crf_negative_log_likelihood": LossSpec(
        function=crf.negative_log_likelihood,
        outputs=("potentials",),
        labels=True,
        softmax=True,
        chain=True,
    ),
    "cosine_distance": LossSpec(function=cosine_distance, outputs=_VECTORS),
}
