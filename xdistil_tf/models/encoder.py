"""One encoder for the BERT family: hidden states, raw attention scores and task heads.

BERT, MiniLM, RoBERTa, XLM-R, DistilBERT and ELECTRA differ in their embeddings and heads only;
`encoder_config.py` holds the differences. `pretrained.py` reads and writes the weights.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping

import tensorflow as tf

from xdistil_tf import outputs as outputs_lib
from xdistil_tf.models import crf_layer, encoder_config, encoder_layers, layers
from xdistil_tf.models.parted_model import PartedModel

_PER_LAYER = ("attention", "query", "key", "value")
_HEAD_ACTIVATIONS = {"roberta_dense": "tanh", "relu_dense": "relu", "electra_dense": "gelu"}


class Encoder(PartedModel):
    """A BERT-family encoder with an optional head.

    ```
    model = Encoder.from_config_dict({"hidden_size": 128, "num_attention_heads": 2, ...})
    outputs = model(features, request={"logits": None, "hidden": (0, 4), "attention": (4,)})
    ```

    Args:
      config: See `encoder_config.complete_config`.
      precision: `float32`, `bfloat16` or `mixed_float16`; variables are float32 in all of them.

    Weights are zeros until `build_weights` or a loader fills them.
    `fresh_parts` names the parts that a loader initialised because the checkpoint lacked them.
    """

    fresh_parts: tuple[str, ...] = ()

    def __init__(self, config: Mapping, precision: str = "float32"):
        policy = layers.policy(precision)
        super().__init__(dtype=policy, autocast=False, name="encoder")
        config = encoder_config.complete_config(config)
        # A string, since Keras would wrap a dict into a tracked object.
        self._config_json = json.dumps(config)
        self.precision = precision
        self.embedding = _embedding(config, policy)
        self.blocks = [_block(config, i + 1, policy) for i in range(config["num_hidden_layers"])]
        self._build_head(config, policy)
        self.built = True

    def _build_head(self, config: dict, policy) -> None:
        head, width = config["head"], config["hidden_size"]
        own_pooler = head["pooler"] in ("tanh_pooler", "tanh_relu")
        # Poolers and heads are tiny: float32 costs nothing and keeps logits exact.
        self.pooler = layers.Dense(width, width, "tanh", name="pooler") if own_pooler else None
        self.head_dense = self.head_output = self.masked_lm = self.next_sentence = None
        self.crf = crf_layer.Crf(head["num_labels"]) if head["crf"] else None
        if head["pooler"] in _HEAD_ACTIVATIONS:
            act = _HEAD_ACTIVATIONS[head["pooler"]]
            self.head_dense = layers.Dense(width, width, act, name="head/dense")
        if head["num_labels"]:
            self.head_output = layers.Dense(width, head["num_labels"], name="head/output")
        if head["kind"] == "pretraining":
            self.masked_lm = encoder_layers.MaskedLmHead(
                hidden_size=width,
                embedding_size=config["embedding_size"],
                vocab_size=config["vocab_size"],
                act=_masked_lm_activation(config),
                epsilon=config["layer_norm_eps"],
                dtype=policy,
            )
        if head["next_sentence"]:
            self.next_sentence = layers.Dense(width, 2, name="next_sentence")
        rate = config["classifier_dropout"]
        if rate is None or (config["model_type"] == "distilbert" and head["kind"] == "tagging"):
            rate = config["hidden_dropout_prob"]
        self.head_dropout = layers.StatelessDropout(rate, salt=5)
        self.head_inner_dropout = layers.StatelessDropout(rate, salt=6)

    @classmethod
    def from_config_dict(cls, config: Mapping, precision: str = "float32", seed: int = 0):
        """An encoder with fresh weights, deterministic in `seed`."""
        model = cls(config, precision)
        model.build_weights(seed)
        return model

    @property
    def config(self) -> dict:
        """A copy of the complete config, JSON-able."""
        return json.loads(self._config_json)

    @property
    def parts(self) -> dict[str, list]:
        """Named parts, top-down; every variable belongs to exactly one."""
        blocks = {f"layer_{block.index}": [block] for block in reversed(self.blocks)}
        parts = {
            "head": [self.head_dense, self.head_output, self.crf],
            "next_sentence": [self.next_sentence],
            "masked_lm": [self.masked_lm],
            "pooler": [self.pooler],
            **blocks,
            "embedding": [self.embedding],
        }
        present = {
            name: [part for part in part if part is not None] for name, part in parts.items()
        }
        return {name: part for name, part in present.items() if part}

    @property
    def available(self) -> dict[str, tuple[int, ...] | None]:
        """What can be requested: output names and, for per-layer outputs, the layers."""
        numbers = tuple(range(1, len(self.blocks) + 1))
        available = {"representation": None, "hidden": (0, *numbers)}
        available.update({key: numbers for key in _PER_LAYER})
        if self.head_output is not None:
            available["logits"] = None
        if self.crf is not None:
            available |= {"potentials": None, "marginals": None}
        if self.masked_lm is not None:
            available["masked_lm_logits"] = None
        if self.next_sentence is not None:
            available["next_sentence_logits"] = None
        return available

    def summary(self, states: tf.Tensor, features) -> tf.Tensor:
        """The vector of a sentence among those of its tokens: position 0, `[B, D]`."""
        del features
        return states[:, 0]

    def _initialise_layer(self, layer, seed: int) -> None:
        deviation = self.config["initializer_range"]
        for variable in layer.variables:
            variable.assign(_initial_value(variable, deviation, seed))

    def call(self, features, training=False, request=None, seed=None):
        """Computes what `request` names, no block above the highest one needed.

        Args:
          features: Dict with int32 `input_ids` and `input_mask` `[B, T]`, optional `segment_ids`,
            and `masked_lm_positions` `[B, P]` where `masked_lm_logits` is requested.
          training: Python boolean; switches dropout on.
          request: See `outputs.py`; None asks for the logits.
          seed: int32 `[2]`, needed when training with dropout.

        Returns:
          Outputs by name. Those with one tensor per layer are dicts keyed by layer.

        Raises:
          ValueError: If the request names something this model does not have.
        """
        request = {"logits": None} if request is None else request
        outputs_lib.validate_request(request, self.available, "encoder")
        outputs = {key: {} for key, numbers in request.items() if numbers is not None}
        last = self._run_blocks(features, training, request, seed, outputs)
        if any(numbers is None for numbers in request.values()):
            outputs.update(self._run_heads(last, features, training, request, seed))
        return outputs

    def _run_blocks(self, features, training, request, seed, outputs):
        """Fills the per-layer `outputs`; returns the last state computed.

        That is `[B, T, D]`, or `[B, 1, D]` where the heads read position 0 alone.
        """
        input_ids = features["input_ids"]
        hidden = self.embedding(input_ids, features.get("segment_ids"), training, seed)
        batch, tokens, width = *tf.unstack(tf.shape(input_ids)), hidden.shape[-1]
        adder = _mask_adder(features["input_mask"], hidden.dtype)
        if 0 in request.get("hidden", ()):
            outputs["hidden"][0] = hidden
        matrix, first_only = tf.reshape(hidden, [-1, width]), False
        for block in self.blocks[: self._depth(request)]:
            first_only = block is self.blocks[-1] and self._reads_first_only(request)
            matrix, extras = block(
                matrix, adder, (batch, tokens), training=training, seed=seed, first_only=first_only
            )
            extras["hidden"] = matrix
            for key in outputs:
                if block.index in request[key]:
                    value = extras[key]
                    if key != "attention":
                        value = tf.reshape(value, [batch, tokens, width])
                    outputs[key][block.index] = value
        return tf.reshape(matrix, [batch, 1 if first_only else tokens, width])

    def _depth(self, request) -> int:
        if any(numbers is None for numbers in request.values()):
            return len(self.blocks)
        return max((number for numbers in request.values() for number in numbers), default=0)

    def _reads_first_only(self, request) -> bool:
        """Whether no request needs the last block at any position but the first."""
        last = len(self.blocks)
        whole = self.config["head"]["kind"] == "tagging" or "masked_lm_logits" in request
        return not whole and all(last not in (numbers or ()) for numbers in request.values())

    def _run_heads(self, last, features, training, request, seed) -> dict:
        kind = self.config["head"]["kind"]
        outputs = {}
        if "masked_lm_logits" in request:
            outputs["masked_lm_logits"] = self._masked_lm(last, features)
        vectors = last if kind == "tagging" else last[:, 0]
        vectors = tf.cast(vectors, tf.float32)
        if self.pooler is not None and (kind in ("classification", "regression", "pretraining")):
            pooled = self.pooler(vectors)
            vectors = vectors if kind == "pretraining" else pooled
        if "representation" in request:
            outputs["representation"] = vectors
        if "next_sentence_logits" in request:
            outputs["next_sentence_logits"] = self.next_sentence(pooled)
        if not {"logits", "potentials", "marginals"}.isdisjoint(request):
            logits = self._logits(vectors, training, seed)
            if self.crf is not None:
                outputs |= crf_layer.crf_outputs(self.crf, logits, features, request)
            if "logits" in request:
                outputs["logits"] = logits
        return outputs

    def _logits(self, vectors, training, seed):
        pooler = self.config["head"]["pooler"]
        if pooler == "tanh_relu":
            vectors = tf.nn.relu(vectors)
        elif pooler != "relu_dense":
            vectors = self.head_dropout(vectors, training, seed)
        if self.head_dense is not None:
            vectors = self.head_inner_dropout(self.head_dense(vectors), training, seed)
        if vectors.shape.rank == 2:
            return self.head_output(vectors)
        shape = tf.shape(vectors)
        logits = self.head_output(tf.reshape(vectors, [-1, vectors.shape[-1]]))
        return tf.reshape(logits, [shape[0], shape[1], logits.shape[-1]])

    def _masked_lm(self, last, features):
        if "masked_lm_positions" not in features:
            raise ValueError("Missing feature 'masked_lm_positions', needed by masked_lm_logits.")
        positions = features["masked_lm_positions"]
        shape = tf.shape(last)
        rows = positions + tf.cast(tf.range(shape[0]) * shape[1], positions.dtype)[:, None]
        slots = tf.gather(tf.reshape(last, [-1, last.shape[-1]]), tf.reshape(rows, [-1]))
        scores = self.masked_lm(slots, self.embedding.word)
        return tf.reshape(scores, [shape[0], tf.shape(positions)[1], scores.shape[-1]])


def _embedding(config: dict, policy) -> encoder_layers.EncoderEmbedding:
    after_padding = encoder_config.FAMILIES[config["model_type"]].positions_after_padding
    return encoder_layers.EncoderEmbedding(
        vocab_size=config["vocab_size"],
        max_positions=config["max_position_embeddings"],
        type_vocab_size=config["type_vocab_size"],
        embedding_size=config["embedding_size"],
        hidden_size=config["hidden_size"],
        position_offset=config["pad_token_id"] + 1 if after_padding else 0,
        epsilon=config["layer_norm_eps"],
        dropout=config["hidden_dropout_prob"],
        dtype=policy,
    )


def _block(config: dict, index: int, policy) -> encoder_layers.EncoderLayer:
    # DistilBERT drops nothing between attention and its residual sum.
    after_attention = 0.0 if config["model_type"] == "distilbert" else config["hidden_dropout_prob"]
    return encoder_layers.EncoderLayer(
        index=index,
        hidden_size=config["hidden_size"],
        num_heads=config["num_attention_heads"],
        intermediate_size=config["intermediate_size"],
        act=config["hidden_act"],
        epsilon=config["layer_norm_eps"],
        attention_dropout=config["attention_probs_dropout_prob"],
        attention_output_dropout=after_attention,
        hidden_dropout=config["hidden_dropout_prob"],
        dtype=policy,
    )


def _masked_lm_activation(config: dict) -> str:
    # RoBERTa's and ELECTRA's heads use the exact GELU whatever the blocks use.
    return config["hidden_act"] if config["model_type"] in ("bert", "distilbert") else "gelu"


def _mask_adder(input_mask: tf.Tensor, dtype) -> tf.Tensor:
    lowest = -3e4 if dtype == tf.float16 else -1e9
    adder = (1 - tf.cast(input_mask, tf.float32)) * lowest
    return tf.cast(adder, dtype)[:, None, None, :]  # [batch, 1, 1, to]


def _initial_value(variable: tf.Variable, deviation: float, seed: int) -> tf.Tensor:
    """BERT's initialisation: truncated normal; ones for gamma; zeros for bias and beta."""
    name = variable.name.split(":")[0]
    kind = name.rsplit("/", 1)[-1]
    if kind in ("bias", "beta"):
        return tf.zeros(variable.shape)
    if kind == "gamma":
        return tf.ones(variable.shape)
    salt = zlib.crc32(name.encode()) & 0x7FFFFFFF
    return tf.random.stateless_truncated_normal(
        variable.shape, seed=[seed & 0x7FFFFFFF, salt], stddev=deviation
    )
