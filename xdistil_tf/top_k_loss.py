"""The loss of soft labels: a teacher's most probable words, and what becomes of all the others."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from xdistil_tf import outputs

TAILS = ("bucket", "renormalise", "as_published")
# Stands for the score of a word that is left out: exp of it is 0 in float32, and no NaN arises.
_LEFT_OUT = -1e9


def top_k_cross_entropy(
    target: Mapping[str, tf.Tensor],
    logits,
    *,
    temperature: float = 1.0,
    tail: str = "bucket",
    k: int | None = None,
) -> tf.Tensor:
    """Cross-entropy of the student against the K most probable words of a teacher.

    Only `bucket` has its minimum where the student says what the teacher does: the others forget
    the mass of the words that are not kept, and `as_published` moves the student's to the kept
    ones. The gradient shrinks as 1/temperature**2; multiply the term's weight by temperature**2 to
    compare temperatures (Hinton et al., 2015, section 2).

    Args:
      target: `ids` int `[..., K]` by falling probability, different from each other; `log_probs`
        `[..., K]`; `log_tail` `[...]`, the log of the probability that is left; and
        `logsumexp/<temperature>` `[...]` where the temperature is not 1.
      logits: The student's scores, `[..., V]`.
      temperature: Positive divisor of both sides' scores, those of the tail too.
      tail: With p the kept probabilities, q the student's and P = sum(p). `bucket`: all other
        words are one more word, -sum(p log q) - (1 - P) log(1 - sum(q)). `renormalise`: -sum(p/P
        log q), so that slots count alike. `as_published`: -sum(p log q), as the code of
        Transformer_Distillation has it.
      k: How many of the words are compared, the first ones; `None`: all. Those that are left out
        belong to the tail.

    Returns:
      Nats per position, `[...]`; not averaged, not masked. With K = V it is the whole
      cross-entropy in each case.

    Raises:
      ValueError: If `tail`, `k` or `temperature` is impossible, or the target was not kept for
        this temperature.
    """
    check_options({"tail": tail, **({} if k is None else {"k": k})})
    ids, kept, rest = _softened(target, temperature, k)
    logits = tf.cast(logits, tf.float32) / temperature
    vocabulary = tf.shape(logits)[-1]
    shape = tf.shape(kept)  # [..., k]
    scores, words = tf.reshape(logits, [-1, vocabulary]), tf.reshape(ids, [-1, shape[-1]])
    total = tf.reduce_logsumexp(scores, axis=-1, keepdims=True)  # [slots, 1]
    log_q = tf.reshape(tf.gather(scores, words, batch_dims=1) - total, shape)
    if tail == "renormalise":
        kept = tf.math.divide_no_nan(kept, tf.reduce_sum(kept, axis=-1, keepdims=True))
    value = -tf.reduce_sum(kept * log_q, axis=-1)
    if tail != "bucket":
        return value
    # With all words kept nothing is left, but for rounding.
    rest = tf.where(shape[-1] < vocabulary, rest, 0.0)
    return value - rest * tf.reshape(_log_rest(scores, words) - total[:, 0], shape[:-1])


def check_options(options: Mapping[str, Any], output: str = "masked_lm_logits") -> None:
    """Checks a term's `options`.

    Raises:
      ValueError: If there is one that the loss does not have, or of an impossible value.
    """
    known = ("tail", "k")
    for name in options:
        if name not in known:
            raise ValueError(
                f"unknown option. Expected one of {list(known)}. Received: {name!r}."
                f"{_hint(name, known)}"
            )
    tail = options.get("tail", TAILS[0])
    if tail not in TAILS:
        raise ValueError(
            f"unknown tail. Expected one of {list(TAILS)}. Received: options.tail={tail!r}."
            f"{_hint(tail, TAILS)}"
        )
    k = options.get("k", 1)
    if not isinstance(k, int) or isinstance(k, bool) or k < 1:
        raise ValueError(f"expected a whole number of at least 1. Received: options.k={k!r}.")


def _hint(given: Any, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(str(given), known, n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def _softened(
    target: Mapping[str, tf.Tensor], temperature: float, k: int | None
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The first k ids with their probabilities `[..., k]`, and the probability left `[...]`."""
    if not temperature > 0:
        raise ValueError(
            f"Invalid temperature. Expected a positive number. Received: {temperature!r}."
        )
    ids, log_probs = target["ids"], tf.cast(target["log_probs"], tf.float32)
    kept = ids.shape[-1]
    if k is not None and kept is not None and k > kept:
        raise ValueError(f"expected k of at most the {kept} words kept. Received: k={k}.")
    if temperature == 1.0:
        probabilities = tf.exp(log_probs)
        rest = tf.exp(tf.cast(target["log_tail"], tf.float32))
        if k is not None:
            rest += tf.reduce_sum(probabilities[..., k:], axis=-1)
        return ids[..., :k], probabilities[..., :k], rest
    field = outputs.logsumexp_field(temperature)
    if field not in target:
        raise ValueError(
            f"the teacher's words were not kept for temperature {temperature:g}. Expected "
            f"{field!r} among {sorted(target)}."
        )
    total = tf.cast(target[field], tf.float32)[..., None]
    probabilities = tf.exp(log_probs[..., :k] / temperature - total)
    # Rounding may have made the kept ones more than everything.
    rest = tf.maximum(1.0 - tf.reduce_sum(probabilities, axis=-1), 0.0)
    return ids[..., :k], probabilities, rest


def _log_rest(scores: tf.Tensor, words: tf.Tensor) -> tf.Tensor:
    """Log-sum-exp of the scores of all other words, `[slots]`.

    Not log(1 - sum(q)): where the student is sure of the kept words that is rounded away, and its
    gradient with it, just where the tail has to grow.
    """
    shape = tf.shape(words)  # [slots, k]
    slots = tf.repeat(tf.range(shape[0]), shape[1])
    places = tf.stack([slots, tf.cast(tf.reshape(words, [-1]), tf.int32)], axis=-1)
    others = tf.tensor_scatter_nd_update(scores, places, tf.fill([shape[0] * shape[1]], _LEFT_OUT))
    return tf.reduce_logsumexp(others, axis=-1)
