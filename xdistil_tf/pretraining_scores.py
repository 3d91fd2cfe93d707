"""What a masked language model is measured by, alone or beside its teacher: sums, then metrics.

batch, outputs -> sums(...)         in the graph, added up over batches
totals         -> metrics(totals)   {"masked_lm_loss": 2.1, "perplexity": 8.2, ...}
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import tensorflow as tf

from xdistil_tf import outputs

Tensors = Mapping[str, tf.Tensor]


def request(available: outputs.Request, features) -> dict[str, None]:
    """The outputs that are scored: those that a model has and the records have gold for."""
    gold = {"masked_lm_logits": "masked_lm_ids", "next_sentence_logits": "next_sentence_labels"}
    return {key: None for key, name in gold.items() if key in available and name in features}


def sums(batch: Tensors, given: Tensors) -> dict[str, tf.Tensor]:
    """Sums over the masked tokens and the pairs of a batch, float32 scalars.

    Args:
      batch: Features of pretraining records.
      given: `masked_lm_logits` [B, P, V] and `next_sentence_logits` [B, 2], or one of them.
    """
    result = {}
    if "masked_lm_logits" in given:
        weights, ids = _slots(batch), batch["masked_lm_ids"]
        logits = tf.cast(given["masked_lm_logits"], tf.float32)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=ids, logits=logits)
        result["masked_tokens"] = tf.reduce_sum(weights)
        result["loss"] = tf.reduce_sum(losses * weights)
        result["squared_loss"] = tf.reduce_sum(losses**2 * weights)
        result["correct"] = _count(tf.equal(_words(logits), ids), weights)
    if "next_sentence_logits" in given:
        weights = tf.cast(batch["example_weights"], tf.float32)
        said = tf.argmax(given["next_sentence_logits"], -1, tf.int32)
        result["pairs"] = tf.reduce_sum(weights)
        result["pairs_correct"] = _count(tf.equal(said, batch["next_sentence_labels"]), weights)
    return result


def comparison_sums(batch: Tensors, teacher: Tensors, given: Tensors) -> dict[str, tf.Tensor]:
    """Sums over the masked tokens of how far a model is from its teacher; logits [B, P, V]."""
    weights = _slots(batch)
    theirs, ours = (tf.cast(one["masked_lm_logits"], tf.float32) for one in (teacher, given))
    log_p, log_q = tf.nn.log_softmax(theirs), tf.nn.log_softmax(ours)
    divergences = tf.reduce_sum(tf.exp(log_p) * (log_p - log_q), -1)
    return {
        "agreement": _count(tf.equal(_words(theirs), _words(ours)), weights),
        "kl_divergence": tf.reduce_sum(divergences * weights),
    }


def metrics(totals: Mapping[str, float]) -> dict[str, float]:
    """Metrics of added-up `sums`; empty where nothing was masked and nothing paired.

    `standard_error` is that of the loss, as if masked tokens were independent of each other.
    """
    result = {}
    if tokens := totals.get("masked_tokens"):
        loss = totals["loss"] / tokens
        variance = max(totals["squared_loss"] / tokens - loss**2, 0.0)
        result["masked_lm_loss"] = loss
        result["perplexity"] = math.exp(min(loss, 700.0))  # Beyond it floats end.
        result["masked_lm_accuracy"] = totals["correct"] / tokens
        result["standard_error"] = math.sqrt(variance / tokens)
    if pairs := totals.get("pairs"):
        result["next_sentence_accuracy"] = totals["pairs_correct"] / pairs
    return result


def comparison(totals: Mapping[str, float]) -> dict[str, float]:
    """Means of added-up `comparison_sums`, whose `masked_tokens` are among the totals."""
    tokens = totals["masked_tokens"]
    return {name: totals[name] / tokens for name in ("agreement", "kl_divergence")}


def _slots(batch: Tensors) -> tf.Tensor:
    examples = tf.cast(batch["example_weights"], tf.float32)[:, tf.newaxis]
    return tf.cast(batch["masked_lm_weights"], tf.float32) * examples  # [B, P]


def _words(logits: tf.Tensor) -> tf.Tensor:
    return tf.argmax(logits, -1, tf.int32)


def _count(truths: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.cast(truths, tf.float32) * weights)
