"""Terms made definite: what `task`, a layer map or a default mask means for one task and model.

Everything that can be wrong with an objective is found here, before the first step.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Literal

from xdistil_tf import layer_maps, losses, outputs, recipe

# Loss and target of `loss: task` for each type of task.
TASK_LOSSES = {
    "classification": ("cross_entropy", "label_ids"),
    "tagging": ("cross_entropy", "label_ids"),
    "regression": ("mean_squared_error", "label_values"),
}
# The same of `loss: soft_task`, which compares with what the teacher answers.
SOFT_TASK_LOSSES = {
    "classification": ("soft_cross_entropy", "teacher"),
    "tagging": ("soft_cross_entropy", "teacher"),
    "regression": ("mean_squared_error", "teacher"),
}
_BY_TASK = {"task": TASK_LOSSES, "soft_task": SOFT_TASK_LOSSES}


@dataclasses.dataclass(frozen=True)
class ResolvedTerm:
    """A term with everything known that follows from the task and the models.

    Attributes:
      name: Unique within the objective.
      function: The loss, its temperature and options bound; called with target, then output.
      output: The model's output.
      target: `teacher` or a feature.
      target_output: The teacher's output.
      pairs: Pairs (student layer, teacher layer); `None` for outputs without layers.
      positions: What has a weight: `examples` [B], `tokens` [B, T], `pairs` of query and key
        [B, T, T], `slots` of the masked LM [B, P], or `labels`, like `label_weights`.
      padding: Whether padding is averaged in (`mask: none`, `reduction: as_published`).
      first_pieces: Whether only the first piece of each word counts (`at: word`).
      axis: The axis of an output that the loss consumes.
      key_mask: Whether the loss is given the mask of the keys.
      free_axis: The axis in which student and teacher may differ in size, if there is one.
      labels: Whether the target is an integer per position instead of values like the output's.
      chain: Whether the loss is given the weights, since its positions depend on each other.
      weight: Factor of the term.
      temperature: That both sides are softened with.
      top_k: Of `masked_lm_top_k`, how many words are compared; `None`: all that there are.
    """

    name: str
    function: Callable
    output: str
    target: str
    target_output: str
    pairs: layer_maps.Pairs | None
    positions: Literal["examples", "tokens", "pairs", "slots", "labels"]
    padding: bool
    first_pieces: bool
    axis: int
    key_mask: bool
    free_axis: int | None
    labels: bool
    chain: bool
    weight: float
    temperature: float = 1.0
    top_k: int | None = None

    @property
    def student_request(self) -> dict[str, tuple[int, ...] | None]:
        """What the term needs of the model."""
        return {self.output: _layers(self.pairs, 0)}

    @property
    def teacher_request(self) -> dict[str, tuple[int, ...] | None]:
        """What the term needs of the teacher; empty for a target in the batch."""
        if self.target != "teacher":
            return {}
        return {self.target_output: _layers(self.pairs, 1)}

    @property
    def required_features(self) -> set[str]:
        """The features of the batch that weights and target are read from."""
        features = {"example_weights"}
        if self.target != "teacher":
            features.add(self.target)
        if self.positions in ("tokens", "pairs") or self.key_mask:
            features.add("input_mask")
        if self.positions == "labels":
            features.add("label_weights")
        if self.positions == "slots":
            features.add("masked_lm_weights")
        if self.first_pieces:
            features.add("word_index")
        return features


def resolve_terms(
    terms: Sequence[recipe.Term],
    task_type: str | None,
    student_available: outputs.Request,
    teacher_available: outputs.Request | None,
    student_layers: int | None = None,
    teacher_layers: int | None = None,
) -> tuple[ResolvedTerm, ...]:
    """Makes the terms of a stage definite; see `objective.Objective` for the arguments.

    Raises:
      ValueError: If a term means nothing, or student or teacher cannot give what it needs; names
        the term, what was expected and what came.
    """
    if task_type is not None and task_type not in TASK_LOSSES:
        raise ValueError(
            f"Unknown task_type. Expected one of {sorted(TASK_LOSSES)} or None. "
            f"Received: task_type={task_type!r}."
        )
    if not terms:
        raise ValueError("Expected an objective of at least one term. Received: none.")
    terms = [_resolve_task(term, task_type, student_available) for term in terms]
    depths = (
        student_layers or _depth(student_available),
        teacher_layers or _depth(teacher_available or {}),
    )
    resolved = []
    for term, name in zip(terms, _unique_names(terms), strict=True):
        try:
            resolved.append(
                _resolve(term, name, task_type, student_available, teacher_available, depths)
            )
        except ValueError as error:
            raise ValueError(f"Term {name!r}: {error}") from error
    return tuple(resolved)


def _resolve_task(
    term: recipe.Term, task_type: str | None, student_available: outputs.Request
) -> recipe.Term:
    if term.loss not in _BY_TASK:
        return term
    if task_type is None:
        raise ValueError(
            f"Term {term.loss!r}: expected data with a task, one of {sorted(TASK_LOSSES)}. "
            "Received: task_type=None. Name a loss and its target instead."
        )
    loss, target = _BY_TASK[term.loss][task_type]
    if term.output not in (None, "logits") or term.target not in ("teacher", target):
        raise ValueError(
            f"Term {term.loss!r}: it compares 'logits' with {target!r}. Expected neither output "
            f"nor target. Received: output={term.output!r}, target={term.target!r}."
        )
    update = {"loss": loss, "output": "logits", "target": target}
    if term.loss == "task" and "potentials" in student_available:
        # Further pieces may have labels of their own; the chain is that of words, as in decoding.
        update |= {
            "loss": "crf_negative_log_likelihood", "output": "potentials", "at": "word",
        }  # fmt: skip
    return term.model_copy(update=update)


def _unique_names(terms: Sequence[recipe.Term]) -> list[str]:
    """Names as given; all others from loss and output, numbered from the second on."""
    given = [term.name for term in terms if term.name]
    if len(set(given)) != len(given):
        raise ValueError(f"Expected terms with different names. Received: {given}.")
    names = []
    for term in terms:
        name = base = term.name or f"{term.loss}_{term.output}"
        count = 1
        while name in names or (name in given and not term.name):
            count += 1
            name = f"{base}_{count}"
        names.append(name)
    return names


def _resolve(
    term: recipe.Term,
    name: str,
    task_type: str | None,
    student_available: outputs.Request,
    teacher_available: outputs.Request | None,
    depths: tuple[int, int],
) -> ResolvedTerm:
    _check_names(term)
    spec = losses.LOSSES[term.loss]
    _check_meaning(term, spec, task_type)
    target_output = term.target_output or spec.target_output or term.output
    # Before the layers, which are counted by what student and teacher can give.
    _check_available(
        term, {term.output: None}, {target_output: None}, student_available, teacher_available
    )
    function = _function(term, spec)
    parameters = inspect.signature(function).parameters
    attention = term.output == "attention"
    resolved = ResolvedTerm(
        name=name,
        function=function,
        output=term.output,
        target=term.target,
        target_output=target_output,
        pairs=_pairs(term, target_output, depths),
        positions=_positions(term, spec, task_type),
        padding=term.mask == "none" or term.reduction == "as_published",
        first_pieces=term.at == "word",
        axis=spec.attention_axis if attention else -1,
        key_mask=(attention or spec.relates_tokens) and "mask" in parameters,
        free_axis=_free_axis(term, spec),
        labels=spec.labels,
        chain=spec.chain,
        weight=float(term.weight),
        temperature=term.temperature,
        top_k=term.options.get("k"),
    )
    _check_place(term, resolved.positions, task_type)
    _check_available(
        term,
        resolved.student_request,
        resolved.teacher_request,
        student_available,
        teacher_available,
    )
    return resolved


def _check_names(term: recipe.Term) -> None:
    for field, value, known in (
        ("loss", term.loss, [*losses.LOSSES, *_BY_TASK]),
        ("output", term.output, list(outputs.OUTPUTS)),
        ("target_output", term.target_output or term.output, list(outputs.OUTPUTS)),
    ):
        if value not in known:
            near = difflib.get_close_matches(str(value), known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(
                f"unknown {field}. Expected one of {sorted(known)}. "
                f"Received: {field}={value!r}.{hint}"
            )


def _check_meaning(term: recipe.Term, spec: losses.LossSpec, task_type: str | None) -> None:
    if term.output not in spec.outputs:
        raise ValueError(
            f"{term.loss!r} cannot compare this output. Expected one of {list(spec.outputs)}. "
            f"Received: output={term.output!r}."
        )
    if spec.labels and term.target == "teacher":
        raise ValueError(
            f"{term.loss!r} compares with labels. Expected target to be a feature such as "
            "'label_ids'. Received: target='teacher'. Use 'soft_cross_entropy' for a teacher's "
            "logits."
        )
    if spec.softmax and task_type == "regression" and term.output == "logits":
        raise ValueError(
            f"{term.loss!r} is constant for the single score of a regression. Expected "
            "'mean_squared_error'."
        )
    _check_target_output(term, spec)
    if spec.check_options is not None:
        spec.check_options(term.options, term.output)
    elif term.options:
        raise ValueError(f"{term.loss!r} has no options. Received: options={term.options!r}.")
    if term.target != "teacher" and term.target_output is not None:
        raise ValueError(
            "target_output belongs to target 'teacher'. "
            f"Received: target={term.target!r}, target_output={term.target_output!r}."
        )


def _check_target_output(term: recipe.Term, spec: losses.LossSpec) -> None:
    """A loss of its own target and a target of its own loss belong together."""
    if spec.target_output is None:
        if term.target_output == outputs.TOP_K:
            raise ValueError(
                f"{term.loss!r} cannot compare {outputs.TOP_K!r}, which holds some words only. "
                f"Expected loss='top_k_cross_entropy'. Received: loss={term.loss!r}."
            )
    elif term.target != "teacher" or term.target_output not in (None, spec.target_output):
        raise ValueError(
            f"{term.loss!r} compares with a teacher's {spec.target_output!r} alone. Expected "
            f"target='teacher' and target_output={spec.target_output!r}. Received: "
            f"target={term.target!r}, target_output={term.target_output!r}."
        )


def _check_available(
    term: recipe.Term,
    student_request: outputs.Request,
    teacher_request: outputs.Request,
    student_available: outputs.Request,
    teacher_available: outputs.Request | None,
) -> None:
    outputs.validate_request(student_request, student_available, "student")
    if term.target != "teacher":
        return
    if teacher_available is None:
        raise ValueError(
            f"it needs {sorted(teacher_request)} of a teacher, and there is none. Give a teacher, "
            "or a feature such as target: label_ids."
        )
    outputs.validate_request(teacher_request, teacher_available, "teacher")


def _function(term: recipe.Term, spec: losses.LossSpec) -> Callable:
    function = spec.function
    if term.reduction == "as_published":
        attention = term.output == "attention"
        function = spec.as_published_attention if attention else spec.as_published
        if function is None:
            raise ValueError(
                f"{term.loss!r} of {term.output!r} has no published variant. "
                "Expected reduction='mean'. Received: reduction='as_published'."
            )
    parameters, options = inspect.signature(function).parameters, dict(term.options)
    if without := [name for name in options if name not in parameters]:
        raise ValueError(
            f"{function.__name__!r} has no option {without[0]!r}. Expected reduction='mean' with "
            f"it. Received: reduction={term.reduction!r}."
        )
    if "temperature" in parameters:
        options["temperature"] = term.temperature
    elif term.temperature != 1.0:
        raise ValueError(
            f"{function.__name__!r} has no temperature. Expected temperature=1. "
            f"Received: temperature={term.temperature!r}."
        )
    return functools.partial(function, **options) if options else function


def _free_axis(term: recipe.Term, spec: losses.LossSpec) -> int | None:
    if spec.relates_tokens:
        return -1
    return 1 if term.output == "attention" and term.options.get("heads") == "mean" else None


def _pairs(
    term: recipe.Term, target_output: str, depths: tuple[int, int]
) -> layer_maps.Pairs | None:
    per_layer = outputs.OUTPUTS[term.output].per_layer
    if per_layer != outputs.OUTPUTS[target_output].per_layer:
        raise ValueError(
            "expected output and target_output both with layers or both without. "
            f"Received: output={term.output!r}, target_output={target_output!r}."
        )
    if not per_layer:
        if term.layers is not None:
            raise ValueError(
                f"{term.output!r} has no layers. Expected no layers. "
                f"Received: layers={term.layers!r}."
            )
        return None
    if term.layers is None or term.target != "teacher":
        raise ValueError(
            f"{term.output!r} has one tensor per layer. Expected target='teacher' and layers as "
            f"one of {sorted(layer_maps.LAYER_MAPS)} or as pairs. "
            f"Received: target={term.target!r}, layers={term.layers!r}."
        )
    return layer_maps.resolve(term.layers, *depths, term.output)


def _positions(term: recipe.Term, spec: losses.LossSpec, task_type: str | None) -> str:
    if term.target in ("label_ids", "label_values"):
        return "labels"
    if term.output == "attention":
        return "pairs" if spec.attention_axis == 1 else "tokens"
    if term.output == "masked_lm_logits":
        return "slots"
    return "tokens" if "T" in _axes(term.output, task_type) else "examples"


def _check_place(term: recipe.Term, positions: str, task_type: str | None) -> None:
    if "marginals" in (term.output, term.target_output) and term.at != "word":
        raise ValueError(
            "'marginals' are those of words. Expected at='word'. Received: at='token'."
        )
    by_token = positions in ("tokens", "labels") and "T" in _axes(term.output, task_type)
    if term.at == "word" and (not by_token or term.output == "attention"):
        raise ValueError(
            f"{term.output!r} of task_type {task_type!r} has no vector per word. "
            "Expected at='token', or a task of words (--task=ner). Received: at='word'."
        )


def _axes(output: str, task_type: str | None) -> str:
    entry = outputs.OUTPUTS[output]
    return (task_type == "tagging" and entry.token_axes) or entry.axes


def _layers(pairs: layer_maps.Pairs | None, side: int) -> tuple[int, ...] | None:
    return None if pairs is None else tuple(sorted({pair[side] for pair in pairs}))


def _depth(available: outputs.Request) -> int:
    return max((layer for layers in available.values() for layer in layers or ()), default=0)
