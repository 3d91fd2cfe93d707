"""Writes the fixtures of tests/models/encoder_test.py: tiny random models and what PyTorch says.

Run by hand, with PyTorch and transformers: `python tools/make_encoder_fixtures.py`
Each file holds the config (JSON), the weights (`weight/<name>`), the inputs (`input/<name>`) and
the outputs (`output/<name>`) of one Hugging Face class.
"""

from __future__ import annotations

import json
import pathlib

import numpy as np
import torch
import transformers

FOLDER = pathlib.Path(__file__).resolve().parents[1] / "tests" / "models" / "fixtures"

SIZES = {
    "vocab_size": 60,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 20,
}
DISTILBERT = {
    "vocab_size": 60,
    "dim": 16,
    "n_layers": 2,
    "n_heads": 2,
    "hidden_dim": 24,
    "max_position_embeddings": 20,
}

CASES = {
    "bert_pretraining": ("Bert", "ForPreTraining", {}),
    "bert_classification": ("Bert", "ForSequenceClassification", {"num_labels": 3}),
    "bert_tagging": (
        "Bert",
        "ForTokenClassification",
        {"num_labels": 5, "hidden_act": "gelu_new", "layer_norm_eps": 1e-5},
    ),
    "bert_regression": (
        "Bert",
        "ForSequenceClassification",
        {"num_labels": 1, "hidden_act": "relu", "problem_type": "regression"},
    ),
    "roberta_classification": ("Roberta", "ForSequenceClassification", {"num_labels": 3}),
    "roberta_masked_lm": ("Roberta", "ForMaskedLM", {"hidden_act": "silu"}),
    "xlm_roberta_tagging": ("XLMRoberta", "ForTokenClassification", {"num_labels": 4}),
    "distilbert_classification": ("DistilBert", "ForSequenceClassification", {"num_labels": 3}),
    "distilbert_masked_lm": ("DistilBert", "ForMaskedLM", {}),
    "electra_classification": (
        "Electra",
        "ForSequenceClassification",
        {"num_labels": 3, "embedding_size": 8},
    ),
    "electra_discriminator": ("Electra", "ForPreTraining", {"embedding_size": 8}),
    "electra_masked_lm": ("Electra", "ForMaskedLM", {"embedding_size": 16}),
}


def make_model(stem: str, end: str, extra: dict) -> torch.nn.Module:
    """A model whose every weight is far from 0, so that no mistake hides."""
    sizes = dict(DISTILBERT if stem == "DistilBert" else SIZES)
    if "oberta" in stem.lower():
        sizes.update(pad_token_id=1, type_vocab_size=1, layer_norm_eps=1e-5)
    config = getattr(transformers, f"{stem}Config")(**sizes, **extra)
    config._attn_implementation = "eager"
    model = getattr(transformers, f"{stem}{end}")(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape)
            is_norm = "norm" in name.lower() and name.endswith("weight")
            weight.copy_(1 + 0.2 * noise if is_norm else 0.3 * noise)
    return model


def make_inputs(config) -> dict[str, np.ndarray]:
    """Three sequences of 7, 4 and 9 tokens."""
    rng = np.random.default_rng(3)
    mask = (np.arange(9) < np.array([[7], [4], [9]])).astype(np.int32)
    padding = config.pad_token_id
    ids = np.where(mask, rng.integers(5, 60, mask.shape), padding).astype(np.int32)
    inputs = {"input_ids": ids, "input_mask": mask}
    if getattr(config, "type_vocab_size", 0) == 2:
        inputs["segment_ids"] = (mask * (np.arange(9) >= 3)).astype(np.int32)
    return inputs


def make_fixture(stem: str, end: str, extra: dict) -> dict[str, np.ndarray]:
    """Everything that goes into one file."""
    model = make_model(stem, end, extra)
    inputs = make_inputs(model.config)
    arguments = {
        "input_ids": torch.tensor(inputs["input_ids"]).long(),
        "attention_mask": torch.tensor(inputs["input_mask"]).long(),
    }
    if "segment_ids" in inputs:
        arguments["token_type_ids"] = torch.tensor(inputs["segment_ids"]).long()
    with torch.no_grad():
        result = model(**arguments, output_hidden_states=True, output_attentions=True)
    arrays = {f"input/{name}": value for name, value in inputs.items()}
    arrays["config"] = np.array(
        json.dumps({**model.config.to_dict(), "architectures": [stem + end]})
    )
    for name, value in model.state_dict().items():
        arrays[f"weight/{name}"] = value.numpy()
    for index, value in enumerate(result.hidden_states):
        arrays[f"output/hidden/{index}"] = value.numpy()
    for index, value in enumerate(result.attentions):
        arrays[f"output/attention/{index + 1}"] = value.numpy()
    for name in ("logits", "prediction_logits", "seq_relationship_logits"):
        if name in result:
            arrays[f"output/{name}"] = result[name].numpy()
    return arrays


def main() -> None:
    """Writes all fixtures."""
    torch.manual_seed(7)
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, case in CASES.items():
        np.savez_compressed(FOLDER / f"{name}.npz", **make_fixture(*case))


if __name__ == "__main__":
    main()
