"""What configures an encoder: our keys, their defaults, and Hugging Face's keys for them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence


@dataclasses.dataclass(frozen=True)
class Family:
    """What sets one member of the BERT family apart.

    pooler: What stands between position 0 of the last block and the classifier.
    positions_after_padding: Positions start at `pad_token_id + 1`, not at 0.
    """

    pooler: str
    positions_after_padding: bool = False
    defaults: Mapping = dataclasses.field(default_factory=dict)


_ROBERTA = Family(
    "roberta_dense",
    True,
    {"pad_token_id": 1, "type_vocab_size": 1, "max_position_embeddings": 514, "vocab_size": 50265},
)

FAMILIES: Mapping[str, Family] = {
    "bert": Family("tanh_pooler"),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "distilbert": Family("relu_dense", False, {"type_vocab_size": 0, "classifier_dropout": 0.2}),
    "electra": Family("electra_dense"),
}


def complete_config(config: Mapping) -> dict:
    """Fills in what a config leaves out, and checks it.

    Keys are those of Hugging Face's BERT, whatever the family, and `head`:
    `{"kind": "classification" | "regression" | "tagging" | "pretraining" | None, "num_labels",
    "pooler", "next_sentence", "crf"}`. `pooler` is the family's own (`tanh_pooler`,
    `roberta_dense`, `relu_dense`, `electra_dense`), or `none`: the head reads position 0 itself;
    BERT's may also be `tanh_relu`, TinyBERT's: the head reads `relu(tanh_pooler(position 0))`,
    without dropout.

    Returns:
      A plain dict with every key; unknown keys are left out.

    Raises:
      ValueError: Names the field, what was expected and what came.
    """
    family = config.get("model_type", "bert")
    if family not in FAMILIES:
        raise ValueError(
            f"Unknown model_type. Expected one of {sorted(FAMILIES)}. Received: {family!r}."
        )
    defaults = {**_DEFAULTS, **FAMILIES[family].defaults}
    full = {"model_type": family}
    for key, default in defaults.items():
        value = config.get(key)
        full[key] = default if value is None else value
    full["embedding_size"] = full["embedding_size"] or full["hidden_size"]
    full["head"] = _complete_head(full["head"] or {}, family)
    if full["hidden_size"] % full["num_attention_heads"]:
        raise ValueError(
            "Invalid hidden_size. Expected a multiple of num_attention_heads "
            f"({full['num_attention_heads']}). Received: {full['hidden_size']}."
        )
    return full


def family_of(raw: Mapping) -> str:
    """The family of a parsed `config.json` or `bert_config.json` (which names none: BERT).

    Raises:
      ValueError: If the encoder cannot be of that family.
    """
    family = raw.get("model_type", "bert")
    if family not in FAMILIES:
        raise ValueError(
            f"Unknown model_type. Expected one of {sorted(FAMILIES)}. Received: {family!r}."
        )
    if raw.get("position_embedding_type", "absolute") != "absolute":
        raise ValueError(
            "Unsupported position_embedding_type. Expected 'absolute'. "
            f"Received: {raw['position_embedding_type']!r}."
        )
    return family


def from_huggingface(raw: Mapping, shapes: Mapping[str, tuple[int, ...]]) -> dict:
    """Our keys for a `config.json` or `bert_config.json`, with the head that the checkpoint has.

    Args:
      raw: The parsed JSON. Google's `bert_config.json` names no `model_type`: BERT.
      shapes: Shapes of the checkpoint's tensors, by plain name; may be empty.

    Raises:
      ValueError: If it is not of the BERT family.
    """
    family = family_of(raw)
    config = dict(raw)
    if family == "electra":
        config.setdefault("embedding_size", 128)
    if family == "distilbert":
        config.update(
            {ours: raw[theirs] for ours, theirs in _DISTILBERT_KEYS.items() if theirs in raw}
        )
        config["classifier_dropout"] = raw.get("seq_classif_dropout", 0.2)
    config["model_type"] = family
    config["head"] = _own_head(raw, family, shapes)
    return complete_config(config)


def to_huggingface(config: Mapping, labels: Sequence[str] | None = None) -> dict:
    """The `config.json` of a complete config; what is ours alone stands under `xdistil`."""
    family, head = config["model_type"], config["head"]
    result = {"architectures": [_architecture(family, head)], "model_type": family}
    skip = {"model_type", "head", "classifier_dropout"}
    if family != "electra":
        skip.add("embedding_size")
    renamed = _DISTILBERT_KEYS if family == "distilbert" else {}
    if family == "distilbert":
        skip |= {"type_vocab_size", "layer_norm_eps"}
        result["sinusoidal_pos_embds"] = False
    for key, value in config.items():
        if key not in skip:
            result[renamed.get(key, key)] = value
    if config["classifier_dropout"] is not None:
        key = "seq_classif_dropout" if family == "distilbert" else "classifier_dropout"
        result[key] = config["classifier_dropout"]
    if head["num_labels"]:
        names = labels or [f"LABEL_{i}" for i in range(head["num_labels"])]
        result["id2label"] = {str(i): str(name) for i, name in enumerate(names)}
        result["label2id"] = {str(name): i for i, name in enumerate(names)}
    if head["kind"] in ("classification", "regression"):
        regression = head["kind"] == "regression"
        result["problem_type"] = "regression" if regression else "single_label_classification"
    result["xdistil"] = {"head": dict(head)}
    return result


def _complete_head(head: Mapping, family: str) -> dict:
    unknown = sorted(set(head) - set(_HEAD_DEFAULTS))
    if unknown:
        raise ValueError(f"Unknown keys in head: {unknown}. Expected {sorted(_HEAD_DEFAULTS)}.")
    head = {**_HEAD_DEFAULTS, **head}
    own, kind = FAMILIES[family].pooler, head["kind"]
    if kind not in _KINDS:
        raise ValueError(f"Unknown head kind. Expected one of {_KINDS}. Received: {kind!r}.")
    known = [own, "none", *(["tanh_relu"] if own == "tanh_pooler" else [])]
    if head["pooler"] not in (*known, None):
        raise ValueError(
            f"Invalid head pooler. Expected one of {known} (of {family}). "
            f"Received: {head['pooler']!r}."
        )
    if head["pooler"] == "tanh_relu" and kind not in ("classification", "regression"):
        raise ValueError(
            "Invalid head pooler. Expected 'tanh_relu' of a classification or regression head. "
            f"Received: kind={kind!r}."
        )
    if head["next_sentence"] and (kind != "pretraining" or own != "tanh_pooler"):
        raise ValueError("Invalid head: next_sentence=True needs kind='pretraining' and BERT.")
    if head["crf"] and kind != "tagging":
        raise ValueError(f"Invalid head: crf=True needs kind='tagging'. Received: kind={kind!r}.")
    if kind == "regression":
        head["num_labels"] = head["num_labels"] or 1
    if kind in ("classification", "regression", "tagging"):
        if not isinstance(head["num_labels"], int) or head["num_labels"] < 1:
            raise ValueError(
                f"Invalid num_labels of head {kind!r}. Expected a positive integer. "
                f"Received: {head['num_labels']!r}."
            )
    else:
        head["num_labels"] = None
    if kind in ("classification", "regression"):
        head["pooler"] = head["pooler"] or own
    elif kind == "tagging" or own != "tanh_pooler":
        head["pooler"] = "none"
    elif head["next_sentence"]:
        head["pooler"] = own
    else:
        head["pooler"] = head["pooler"] or "none"
    return head


def _own_head(raw: Mapping, family: str, shapes: Mapping) -> dict:
    """The head that a checkpoint has, by its config or, where that is silent, by its tensors."""
    architecture = (raw.get("architectures") or [""])[0]
    ours = raw.get("xdistil", {}).get("head")
    # Whoever loads our folder elsewhere and saves it with another head keeps our keys.
    if ours and architecture == _architecture(family, ours):
        return {**ours, "num_labels": ours["num_labels"] and _num_labels(raw, shapes)}
    kind = next((kind for end, kind in _ARCHITECTURES if architecture.endswith(end)), None)
    if family == "electra" and architecture.endswith("ForPreTraining"):
        kind = None
    if not architecture and "classifier.weight" in shapes:
        kind = "classification"
    elif not architecture and "cls.predictions.bias" in shapes:
        kind = "pretraining"
    head = {"kind": kind}
    if kind in ("classification", "tagging"):
        head["num_labels"] = _num_labels(raw, shapes)
        if kind == "classification" and (
            raw.get("problem_type") == "regression" or head["num_labels"] == 1
        ):
            head["kind"] = "regression"
    elif family == "bert":
        head["next_sentence"] = kind == "pretraining" and "cls.seq_relationship.weight" in shapes
        head["pooler"] = "tanh_pooler" if "pooler.dense.weight" in shapes else "none"
    return head


def _num_labels(raw: Mapping, shapes: Mapping) -> int:
    for name in ("classifier.out_proj.weight", "classifier.weight"):
        if name in shapes:
            return shapes[name][0]
    return len(raw["id2label"]) if raw.get("id2label") else raw.get("num_labels", 2)


def _architecture(family: str, head: Mapping) -> str:
    stem, kind = _CLASS_STEMS[family], head["kind"]
    if kind in ("classification", "regression") and head["pooler"] in ("none", "tanh_relu"):
        kind = None  # PyTorch users have no class for such a head; the body loads.
    if kind == "pretraining" and head["next_sentence"]:
        return f"{stem}ForPreTraining"
    return stem + _CLASS_ENDS[kind]


# BERT-base (Devlin et al., 2019).
_DEFAULTS = {
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "initializer_range": 0.02,
    "embedding_size": None,
    "pad_token_id": 0,
    "classifier_dropout": None,
    "head": None,
}

_HEAD_DEFAULTS = {
    "kind": None,
    "num_labels": None,
    "pooler": None,
    "next_sentence": False,
    "crf": False,
}
_KINDS = ("classification", "regression", "tagging", "pretraining", None)

_DISTILBERT_KEYS = {
    "hidden_size": "dim",
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
    "intermediate_size": "hidden_dim",
    "hidden_act": "activation",
    "hidden_dropout_prob": "dropout",
    "attention_probs_dropout_prob": "attention_dropout",
}

_ARCHITECTURES = (
    ("ForSequenceClassification", "classification"),
    ("ForTokenClassification", "tagging"),
    ("ForPreTraining", "pretraining"),
    ("ForMaskedLM", "pretraining"),
)

_CLASS_STEMS = {
    "bert": "Bert",
    "roberta": "Roberta",
    "xlm-roberta": "XLMRoberta",
    "camembert": "Camembert",
    "distilbert": "DistilBert",
    "electra": "Electra",
}

_CLASS_ENDS = {
    "classification": "ForSequenceClassification",
    "regression": "ForSequenceClassification",
    "tagging": "ForTokenClassification",
    "pretraining": "ForMaskedLM",
    None: "Model",
}
