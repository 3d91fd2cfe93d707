"""All models, one row each; `models_test.py` holds every promise against every row."""

import dataclasses

import numpy as np
import tensorflow as tf

from xdistil_tf.models.bilstm import BiLSTM
from xdistil_tf.models.encoder import Encoder

VOCABULARY = 23
BATCH, LENGTH, SLOTS = 4, 6, 2
LENGTHS = np.array([6, 3, 1, 5])


@dataclasses.dataclass(frozen=True, eq=False)
class Row:
    """A model and what it can be trained on.

    Attributes:
      id: Name of the test case.
      kind: The model's class.
      config: Of the smallest member.
      tokens: Whether logits are those of tokens.
      target: Loss on `logits` or `masked_lm_logits`; `hidden` where there is no head.
    """

    id: str
    kind: type
    config: dict
    tokens: bool = False
    target: str = "logits"

    def make(self, precision="float32", dropout=0.0, seed=3):
        names = ("dropout",)
        if self.kind is Encoder:
            names = ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout")
        config = self.config | dict.fromkeys(names, dropout)
        model = self.kind.from_config_dict(config, precision=precision, seed=seed)
        if config.get("remap"):
            rows = config["embedding_rows"]
            model.set_embedding(None, np.arange(VOCABULARY) % rows)
        return model


_BILSTM = {
    "vocab_size": VOCABULARY,
    "embedding_dim": 5,
    "lstm_units": 4,
    "projection_dim": 6,
    "num_labels": 3,
}
_ENCODER = {
    "vocab_size": VOCABULARY,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "max_position_embeddings": 16,
    "initializer_range": 0.2,
}


def _head(kind, labels=3, **more):
    return _ENCODER | {"head": {"kind": kind, "num_labels": labels}} | more


ROWS = [
    Row("bilstm", BiLSTM, _BILSTM),
    Row("bilstm-regression", BiLSTM, _BILSTM | {"task_type": "regression", "num_labels": 1}),
    Row("bilstm-tagging", BiLSTM, _BILSTM | {"task_type": "tagging"}, tokens=True),
    Row("bilstm-crf", BiLSTM, _BILSTM | {"task_type": "tagging", "crf": True}, tokens=True),
    Row("bilstm-stacked", BiLSTM, _BILSTM | {"lstm_layers": 2}),
    Row("bilstm-pruned", BiLSTM, _BILSTM | {"remap": True, "embedding_rows": 9}),
    Row("bilstm-multichannel", BiLSTM, _BILSTM | {"multichannel": True}),
    Row(
        "bilstm-siamese",
        BiLSTM,
        _BILSTM | {"pairs": "siamese", "separator_id": 2, "special_ids": [1, 2]},
    ),
    Row("bilstm-frozen", BiLSTM, _BILSTM | {"trainable_embedding": False}),
    Row("bert", Encoder, _head("classification")),
    Row("bert-tagging", Encoder, _head("tagging"), tokens=True),
    Row(
        "bert-crf",
        Encoder,
        _ENCODER | {"head": {"kind": "tagging", "num_labels": 3, "crf": True}},
        tokens=True,
    ),
    Row("bert-regression", Encoder, _head("regression", 1)),
    Row(
        "bert-pretraining",
        Encoder,
        _ENCODER | {"head": {"kind": "pretraining", "next_sentence": True}},
        target="masked_lm_logits",
    ),
    Row("bert-headless", Encoder, _ENCODER, target="hidden"),
    Row(
        "bert-tanh_relu",
        Encoder,
        _ENCODER | {"head": {"kind": "classification", "num_labels": 3, "pooler": "tanh_relu"}},
    ),
    Row("roberta", Encoder, _head("classification", model_type="roberta")),
    Row("distilbert", Encoder, _head("classification", model_type="distilbert")),
    Row("electra", Encoder, _head("classification", model_type="electra", embedding_size=4)),
]


def features(length=LENGTH, rows=slice(None), pad_id=0):
    """A batch of rows of different lengths, padded to `length`."""
    random = np.random.default_rng(0)
    ids = random.integers(2, VOCABULARY, size=(BATCH, LENGTH))
    mask = (np.arange(length) < LENGTHS[:, None]).astype(np.int32)
    wide = np.zeros((BATCH, length), np.int32)
    wide[:, : min(length, LENGTH)] = ids[:, : min(length, LENGTH)]
    wide = np.where(mask > 0, wide, pad_id).astype(np.int32)
    segments = mask * (np.arange(length) > 1)
    positions = np.array([[1, 3], [0, 2], [0, 0], [4, 2]], np.int32)
    batch = {
        "input_ids": wide,
        "input_mask": mask,
        "segment_ids": segments.astype(np.int32),
        "masked_lm_positions": positions,
        # A special token, then words of one and two pieces.
        "word_index": np.where(mask > 0, (np.arange(length) + 1) * 2 // 3 - 1, -1).astype(np.int32),
    }
    return {name: tf.constant(value[rows]) for name, value in batch.items()}
