"""The objective of a stage: a weighted sum of terms, and the one place that divides.

A term's value is `sum(values * weights) / sum(weights)` over the whole global
batch. Both sums are returned apart, because they are added up over replicas and
micro-batches at different times:

    denominators = objective.denominators(features)    # features only; summed over the global batch
    for each replica and micro-batch:
        numerators = objective.numerators(features, model_outputs, teacher_outputs)
        loss = objective.total(numerators, denominators)    # a share: gradients are summed

so that the result does not depend on replicas, accumulation, padding or a short last batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import tensorflow as tf

from xdistil_tf import crf, outputs, recipe, terms

# What helps where student and teacher differ in shape.
_CURES = {
    "hidden": "Set model.width_projection, or give the model the teacher's width.",
    "attention": "Set options: {heads: mean}, or compare relations (relation_kl_divergence of "
    "query, key or value).",
    "query": "Compare relations: loss: relation_kl_divergence.",
    "key": "Compare relations: loss: relation_kl_divergence.",
    "value": "Compare relations: loss: relation_kl_divergence.",
}
Tensors = Mapping[str, tf.Tensor]
Outputs = Mapping[str, "tf.Tensor | Mapping[int, tf.Tensor]"]


class Objective:
    """A weighted sum of terms. Knows losses and masks, but no model and no strategy.

    Args:
      objective_terms: The terms of a stage.
      task_type: `classification`, `regression` or `tagging`; `None` where there is no task, as in
        pretraining. Resolves `loss: task`, and tells whether logits and representation are those
        of tokens (tagging) or of examples (all others).
      student_available: What the model can give, as a request.
      teacher_available: What the teacher can give; `None` without a teacher.
      student_layers: Number of blocks of the model. Default: the highest layer it can give.
      teacher_layers: Number of blocks of the teacher. Default: the highest layer it can give; give
        it for a cache that kept only lower layers.

    Attributes:
      terms: The resolved terms, in order.

    Raises:
      ValueError: If a term means nothing, or student or teacher cannot give what it needs; names
        the term.
    """

    def __init__(
        self,
        objective_terms: Sequence[recipe.Term],
        task_type: str | None,
        student_available: outputs.Request,
        teacher_available: outputs.Request | None = None,
        *,
        student_layers: int | None = None,
        teacher_layers: int | None = None,
    ):
        self.terms = terms.resolve_terms(
            objective_terms,
            task_type,
            student_available,
            teacher_available,
            student_layers,
            teacher_layers,
        )

    @property
    def term_names(self) -> tuple[str, ...]:
        """Unique names, in order."""
        return tuple(term.name for term in self.terms)

    @property
    def weights(self) -> tuple[float, ...]:
        """The factor of each term, in order."""
        return tuple(term.weight for term in self.terms)

    @property
    def student_request(self) -> dict[str, tuple[int, ...] | None]:
        """Everything the terms need of the model."""
        return outputs.merge_requests(*(term.student_request for term in self.terms))

    @property
    def teacher_request(self) -> dict[str, tuple[int, ...] | None]:
        """Everything the terms need of the teacher; empty if nothing."""
        return outputs.merge_requests(*(term.teacher_request for term in self.terms))

    @property
    def required_features(self) -> set[str]:
        """Every feature of the batch that weights and targets are read from."""
        return set().union(*(term.required_features for term in self.terms))

    def denominators(self, features: Tensors) -> dict[str, tf.Tensor]:
        """The sum of each term's weights, float32 scalars; a function of the features alone.

        Raises:
          ValueError: If a feature is missing; names the term.
        """
        return {term.name: tf.reduce_sum(_weights(term, features)) for term in self.terms}

    def numerators(
        self, features: Tensors, model_outputs: Outputs, teacher_outputs: Outputs | None = None
    ) -> dict[str, tf.Tensor]:
        """The sum of each term's values times weights, float32 scalars.

        Of outputs with layers the sums of all pairs are added: the term is the sum over the pairs
        of each pair's mean. No gradient flows into a target.

        Args:
          features: The batch, or a replica's or micro-batch's share of it.
          model_outputs: What the model returned for `student_request`.
          teacher_outputs: What the teacher returned for `teacher_request`; `None` if that is empty.

        Raises:
          ValueError: If a feature or output is missing or of a wrong shape; names the term.
        """
        sums = {}
        for term in self.terms:
            weights = _weights(term, features)
            try:
                parts = [
                    tf.reduce_sum(_weighted_values(term, features, weights, target, output))
                    for target, output in _compared(
                        term, features, weights, model_outputs, teacher_outputs
                    )
                ]
            except ValueError as error:
                raise ValueError(f"Term {term.name!r}: {error}") from error
            sums[term.name] = tf.add_n(parts)
        return sums

    def values(self, numerators: Tensors, denominators: Tensors) -> dict[str, tf.Tensor]:
        """Each term's mean, not multiplied by its weight; 0 where the weights sum to 0."""
        return {
            name: tf.math.divide_no_nan(numerators[name], denominators[name])
            for name in self.term_names
        }

    def total(self, numerators: Tensors, denominators: Tensors) -> tf.Tensor:
        """The weighted sum of the terms' means, a float32 scalar.

        With `numerators` of one replica and micro-batch and `denominators` of the whole global
        batch it is a share of the loss: add the shares, and their gradients, never average them.
        """
        values = self.values(numerators, denominators)
        return tf.add_n([term.weight * values[term.name] for term in self.terms])


def _weights(term: terms.ResolvedTerm, features: Tensors) -> tf.Tensor:
    """How much each position counts, float32; a function of the features alone."""
    missing = sorted(term.required_features - set(features))
    if missing:
        raise ValueError(
            f"Term {term.name!r}: the batch lacks the features {missing}. "
            f"It has {sorted(features)}."
        )
    examples = tf.cast(features["example_weights"], tf.float32)  # [batch]
    if term.positions == "examples":
        return examples
    if term.positions == "labels":
        weights = _label_weights(tf.cast(features["label_weights"], tf.float32), term.padding)
    else:
        name = "masked_lm_weights" if term.positions == "slots" else "input_mask"
        weights = tf.cast(features[name], tf.float32)  # [batch, tokens or slots]
        if term.padding:
            weights = tf.ones_like(weights)
    if term.first_pieces:
        weights *= tf.cast(crf.first_pieces(features["word_index"]), tf.float32)
    if weights.shape.rank == 1:
        return weights * examples
    if term.positions == "pairs":
        # [batch, queries, keys]
        return weights[:, :, None] * weights[:, None, :] * examples[:, None, None]
    return weights * examples[:, None]


def _label_weights(weights: tf.Tensor, padding: bool) -> tf.Tensor:
    """With `padding`, all tokens count, but still only of examples whose gold is known."""
    if not padding or weights.shape.rank == 1:
        return weights
    known = tf.reduce_max(weights, axis=1, keepdims=True)
    return tf.ones_like(weights) * known


def _compared(
    term: terms.ResolvedTerm,
    features: Tensors,
    weights: tf.Tensor,
    model_outputs: Outputs,
    teacher_outputs: Outputs | None,
) -> Iterator[tuple[tf.Tensor, tf.Tensor]]:
    """Every (target, output) of a term: one, or one per pair of layers."""
    output = _get(model_outputs, term.output, "model")
    if term.target != "teacher":
        yield _feature_target(term, features[term.target], weights, output), output
        return
    target = _get(teacher_outputs or {}, term.target_output, "teacher")
    if isinstance(target, Mapping) and term.pairs is None:
        yield _target_of_words(term, target, weights, output), output
        return
    if term.pairs is None:
        yield _teacher_target(term, target, output), output
        return
    for student_layer, teacher_layer in term.pairs:
        one = _get(output, student_layer, f"model's {term.output!r}")
        other = _get(target, teacher_layer, f"teacher's {term.target_output!r}")
        yield _teacher_target(term, other, one), one


def _teacher_target(term: terms.ResolvedTerm, target: tf.Tensor, output: tf.Tensor) -> tf.Tensor:
    expected = target.shape
    if term.free_axis is not None and expected.rank is not None:
        sizes = expected.as_list()
        sizes[term.free_axis] = None
        expected = tf.TensorShape(sizes)
    if not output.shape.is_compatible_with(expected):
        raise ValueError(
            f"expected the model's {term.output!r} in the shape of the teacher's "
            f"{term.target_output!r}, {target.shape}. Received: {output.shape}. "
            f"{_CURES.get(term.output, 'Give the model the width of the teacher.')}"
        )
    return tf.stop_gradient(target)


def _target_of_words(
    term: terms.ResolvedTerm, target: Tensors, weights: tf.Tensor, output: tf.Tensor
) -> dict[str, tf.Tensor]:
    """Several tensors a slot; 0 where a slot does not count, since any word may stand there."""
    slots, known = output.shape[:-1], target["ids"].shape[:-1]
    if not known.is_compatible_with(slots):
        raise ValueError(
            f"expected the model's {term.output!r} at the slots of the teacher's "
            f"{term.target_output!r}, {known}. Received: {slots}."
        )
    counts = weights > 0  # [batch, slots]
    return {
        name: tf.stop_gradient(
            tf.where(counts[..., None] if value.shape.rank == 3 else counts, value, 0)
        )
        for name, value in target.items()
    }


def _feature_target(
    term: terms.ResolvedTerm, target: tf.Tensor, weights: tf.Tensor, output: tf.Tensor
) -> tf.Tensor:
    if term.positions in ("labels", "slots") and target.shape.rank == weights.shape.rank:
        # Where gold is unknown anything may stand, also an index that no class has, or NaN, which
        # a weight of 0 would keep out of the value but not out of the gradient.
        target = tf.where(weights > 0, target, tf.zeros_like(target))
    if not term.labels and target.shape.rank == output.shape.rank - 1:
        target = target[..., None]
    return target


def _weighted_values(
    term: terms.ResolvedTerm,
    features: Tensors,
    weights: tf.Tensor,
    target: tf.Tensor,
    output: tf.Tensor,
) -> tf.Tensor:
    options = {}
    if term.output == "attention":
        options["axis"] = term.axis
    if term.key_mask:
        options["mask"] = features["input_mask"][:, None, None, :]
    if term.chain:
        options["weights"] = weights
    values = term.function(target, output, **options)
    if term.output == "attention" and term.axis == -1:
        values = tf.reduce_mean(values, axis=1)  # [batch, heads, queries] -> [batch, queries]
    if not values.shape.is_compatible_with(weights.shape):
        raise ValueError(
            f"expected {term.output!r} to give one value for each of its weights, of shape "
            f"{weights.shape}. Received: values of shape {values.shape}."
        )
    # Not a plain product: a value that does not count may be infinite or not a number.
    return tf.math.multiply_no_nan(values, weights)


def _get(container: Mapping, key, who: str):
    if key not in container:
        raise ValueError(
            f"expected {key!r} among the {who} outputs. Received: {sorted(container, key=str)}."
        )
    return container[key]
