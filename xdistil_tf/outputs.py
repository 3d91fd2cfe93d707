"""The agreed outputs: what a model may say about a batch, and how to ask for it.

A *request* maps an output key to `None`, or, for outputs that exist once per
layer, to a tuple of layer numbers: `{"logits": None, "hidden": (0, 4)}`. A
model computes and returns exactly what is requested.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

Request = Mapping[str, "tuple[int, ...] | None"]


@dataclasses.dataclass(frozen=True)
class Output:
    """One agreed output: its axes, the mask a loss uses by default, its meaning.

    Axes: B examples, T tokens, D width, H heads, C classes, V vocabulary, P masked slots, K kept
    words. `potentials` have C + 1 rows: the last one is that of first tags. `axes` is that of
    sentence tasks; `token_axes` that of tagging, where they differ.
    """

    axes: str
    meaning: str
    mask: str | None = None
    token_axes: str | None = None
    per_layer: bool = False


OUTPUTS: Mapping[str, Output] = {
    "logits": Output("BC", "task scores before softmax", token_axes="BTC"),
    "representation": Output(
        "BD", "the vectors that the head reads; a teacher's: of its chosen layer", token_axes="BTD"
    ),
    "hidden": Output("BTD", "0: embeddings, i: block i", mask="input_mask", per_layer=True),
    "attention": Output(
        "BHTT", "scores before softmax and mask", mask="queries and keys", per_layer=True
    ),
    "query": Output("BTD", "queries of all heads", mask="input_mask", per_layer=True),
    "key": Output("BTD", "keys of all heads", mask="input_mask", per_layer=True),
    "value": Output("BTD", "values of all heads", mask="input_mask", per_layer=True),
    "masked_lm_logits": Output("BPV", "only at masked slots", mask="masked_lm_weights"),
    "masked_lm_top_k": Output(
        "BPK", "a teacher's most probable words at masked slots", mask="masked_lm_weights"
    ),
    "potentials": Output("BTCC", "a CRF's scores of neighbouring tags", mask="input_mask"),
    "marginals": Output(
        "BTC",
        "a CRF's log-probabilities of each word's tags, given the sentence",
        mask="input_mask",
    ),
    "next_sentence_logits": Output("B2", "1 means a random next segment"),
}

# The one output that is several tensors, in a dict:
#   ids              int32 [B, P, K], sorted by falling probability
#   log_probs        float32 [B, P, K], their log-probabilities
#   log_tail         float32 [B, P], the log of the probability that is left, at least NO_TAIL
#   logsumexp/<T>    float32 [B, P], log of the sum of all exp(log-probability / T)
TOP_K = "masked_lm_top_k"
TOP_K_WORDS = 10
# exp(-100) is 0 beside any probability, and -100 fits into all precisions of a cache.
NO_TAIL = -100.0


def validate_request(request: Request, available: Request, who: str = "model") -> None:
    """Checks that `who` can give everything in `request`.

    Raises:
      ValueError: Names the output or layer that is missing and what can be given.
    """
    for key, layers in request.items():
        if key not in available:
            raise ValueError(
                f"The {who} does not give the output {key!r}. It can give {sorted(available)}."
            )
        if layers is None:
            continue
        offered = available[key] or ()
        missing = [layer for layer in layers if layer not in offered]
        if missing:
            raise ValueError(
                f"The {who} has no {key!r} at layers {missing}. "
                f"Expected layers among {sorted(offered)}."
            )


def merge_requests(*requests: Request) -> dict[str, tuple[int, ...] | None]:
    """The union: `{"hidden": (1,)}` and `{"hidden": (4,)}` give `{"hidden": (1, 4)}`."""
    merged: dict[str, tuple[int, ...] | None] = {}
    for request in requests:
        for key, layers in request.items():
            if layers is None:
                merged[key] = None
            else:
                merged[key] = tuple(sorted(set(merged.get(key) or ()) | set(layers)))
    return merged


def feature_names(request: Request) -> tuple[str, ...]:
    """Names under which cached teacher outputs join a batch.

    >>> feature_names({"logits": None, "hidden": (0, 4)})
    ('teacher/logits', 'teacher/hidden/0', 'teacher/hidden/4')
    """
    names = []
    for key, layers in request.items():
        names += [f"teacher/{key}"] if layers is None else [f"teacher/{key}/{i}" for i in layers]
    return tuple(names)


def logsumexp_field(temperature: float) -> str:
    """Where `masked_lm_top_k` holds what its words are softened with.

    >>> logsumexp_field(2.0)
    'logsumexp/2'
    """
    return f"logsumexp/{temperature:g}"


def resolve_layer(layer: int, num_layers: int) -> int:
    """Turns a negative layer number, counted from the top, into a positive one.

    >>> resolve_layer(-1, 12), resolve_layer(-7, 12), resolve_layer(6, 12)
    (12, 6, 6)

    Raises:
      ValueError: If there is no such layer.
    """
    resolved = num_layers + 1 + layer if layer < 0 else layer
    if not 0 <= resolved <= num_layers:
        raise ValueError(
            f"Invalid teacher layer. Expected {-num_layers - 1}..{num_layers} "
            f"(0 is the embedding output, {num_layers} the last block). Received: layer={layer}."
        )
    return resolved
