"""Teachers of other architectures: what `transformers` has in TensorFlow, with a head of ours.

```
features -> model of transformers -> hidden states -> representation, logits
```

ALBERT, XLNet, XLM, GPT-2, DeBERTa, MPNet, Funnel and others. Weights come from safetensors,
`tf_model.h5` or `pytorch_model.bin` by our own readers. Attention scores before softmax, which
`transformers` does not give, are not available, and inside the model nothing is dropped out: its
dropout would not resume bit for bit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from xdistil_tf import outputs as outputs_lib
from xdistil_tf.models import crf_layer, layers, lstm
from xdistil_tf.models.foreign_bodies import KEY, body_weights, depth, new_body, segments, sizes
from xdistil_tf.models.parted_model import PartedModel

# What reads its text from left to right has seen it all at the last token only; XLNet's summary
# token stands at the end.
_READS_LAST = ("gpt2", "openai-gpt", "ctrl", "gptj", "xlnet", "transfo-xl", "opt")
_HEADS = ("classification", "regression", "tagging")
_INITIAL_DEVIATION = 0.02


class ForeignEncoder(PartedModel):
    """A model of `transformers` with an optional head of ours.

    Args:
      raw: The parsed `config.json` of a folder in Hugging Face's layout.
      head: `{"kind": "classification" | "regression" | "tagging" | None, "num_labels", "crf"}`.

    Weights of the body are those that `transformers` draws until a loader fills them; the head is
    zeros until `build_weights` or a loader does.

    Raises:
      ValueError: If `transformers` has no such architecture in TensorFlow.
    """

    fresh_parts: tuple[str, ...] = ()
    layered = True  # A teacher's representation may be that of any layer.

    def __init__(self, raw: Mapping[str, Any], head: Mapping[str, Any] | None = None):
        super().__init__(dtype=layers.policy("float32"), autocast=False, name="foreign_encoder")
        self.precision = "float32"
        head = {"kind": None, "num_labels": None, "crf": False, **(head or {})}
        _check_head(head)
        raw = {key: value for key, value in raw.items() if key != KEY}
        # A string, since Keras would wrap a dict into a tracked object.
        self._config_json = json.dumps({"huggingface": raw, "head": head})
        self.body = new_body(raw)
        self._takes_segments = segments(self.body.config) > 1
        self._last = raw["model_type"] in _READS_LAST
        self._depth = depth(self.body.config)
        width = self.config["hidden_size"]
        self.head_output = self.crf = None
        if head["num_labels"]:
            self.head_output = layers.Dense(width, head["num_labels"], name="head/output")
        if head["crf"]:
            self.crf = crf_layer.Crf(head["num_labels"])
        rate = getattr(self.body.config, "hidden_dropout_prob", None)
        self.head_dropout = layers.StatelessDropout(0.1 if rate is None else rate, salt=5)
        self.built = True

    @classmethod
    def from_config_dict(
        cls, config: Mapping[str, Any], precision: str = "float32"
    ) -> ForeignEncoder:
        """One without weights from the `config` of another one.

        Raises:
          ValueError: If another precision is wanted than float32.
        """
        if precision != "float32":
            raise ValueError(f"Foreign encoders compute in float32. Received: {precision!r}.")
        return cls(config["huggingface"], config["head"])

    @property
    def config(self) -> dict:
        """What the rest of the library asks of a model, JSON-able; `huggingface` is the raw one."""
        return sizes(self.body.config) | json.loads(self._config_json)

    @property
    def parts(self) -> dict[str, list]:
        """`head` and `encoder`, the whole of the body."""
        head = [layer for layer in (self.head_output, self.crf) if layer is not None]
        return {**({"head": head} if head else {}), "encoder": [self.body]}

    @property
    def available(self) -> dict[str, tuple[int, ...] | None]:
        """What can be requested; hidden 0 are the embeddings, i the output of block i."""
        numbers = tuple(range(self.config["num_hidden_layers"] + 1))
        available: dict[str, tuple[int, ...] | None] = {"representation": None, "hidden": numbers}
        if self.head_output is not None:
            available["logits"] = None
        if self.crf is not None:
            available |= {"potentials": None, "marginals": None}
        return available

    @property
    def tagging(self) -> bool:
        """Whether the head reads every token."""
        return self.config["head"]["kind"] == "tagging"

    def named_variables(self) -> dict[str, tf.Variable]:
        """Stable names: those of the head, and PyTorch's of the body."""
        named = {
            variable.name.split(":")[0]: variable
            for layer in self.parts.get("head", ())
            for variable in layer.variables
        }
        return named | {f"encoder/{n}": v for n, (v, _) in body_weights(self.body).items()}

    def _initialise_layer(self, layer, seed: int) -> None:
        if isinstance(layer, crf_layer.Crf):
            layer.initialise()
            return
        if layer is self.body:
            raise ValueError("The body of a foreign encoder is read from a folder, never drawn.")
        key = lstm.stateless_seed(layer.kernel.name, seed)
        layer.kernel.assign(
            tf.random.stateless_truncated_normal(layer.kernel.shape, key, stddev=_INITIAL_DEVIATION)
        )
        layer.bias.assign(tf.zeros_like(layer.bias))

    def summary(self, states: tf.Tensor, features: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """The vector of a sentence among those of its tokens, `[B, T, D]` -> `[B, D]`."""
        if not self._last:
            return states[:, 0]
        last = tf.maximum(tf.reduce_sum(features["input_mask"], 1) - 1, 0)
        return tf.gather(states, last, batch_dims=1)

    def call(self, features, training=False, request=None, seed=None):
        """Computes what `request` names.

        Args:
          features: Dict with int32 `input_ids` and `input_mask` `[B, T]`, right-padded, and
            optional `segment_ids`; `word_index` where marginals are requested.
          training: Python boolean; switches the dropout before the head on.
          request: See `outputs.py`; None asks for the logits.
          seed: int32 `[2]`, needed when training.

        Returns:
          Outputs by name, float32; `hidden` by layer.

        Raises:
          ValueError: If the request names something this model does not have.
        """
        request = {"logits": None} if request is None else request
        outputs_lib.validate_request(request, self.available, "foreign encoder")
        states = self._states(features)
        outputs: dict[str, Any] = {}
        if "hidden" in request:
            outputs["hidden"] = {number: states[number] for number in request["hidden"]}
        top = states[-1] if self.tagging else self.summary(states[-1], features)
        if "representation" in request:
            outputs["representation"] = top
        if not {"logits", "potentials", "marginals"}.isdisjoint(request):
            logits = self._logits(self.head_dropout(top, training, seed))
            if self.crf is not None:
                outputs |= crf_layer.crf_outputs(self.crf, logits, features, request)
            if "logits" in request:
                outputs["logits"] = logits
        return outputs

    def _states(self, features) -> Sequence[tf.Tensor]:
        inputs = {
            "input_ids": features["input_ids"],
            "attention_mask": features["input_mask"],
        }
        if self._takes_segments and "segment_ids" in features:
            inputs["token_type_ids"] = features["segment_ids"]
        given = self.body(inputs, training=False, output_hidden_states=True, return_dict=True)
        # Some end with a normalisation that stands in no hidden state.
        states = [*given.hidden_states[: self._depth], given.last_hidden_state]
        return [tf.cast(one, tf.float32) for one in states]

    def _logits(self, vectors: tf.Tensor) -> tf.Tensor:
        shape = tf.shape(vectors)
        flat = self.head_output(tf.reshape(vectors, [-1, vectors.shape[-1]]))
        return tf.reshape(flat, tf.concat([shape[:-1], [flat.shape[-1]]], 0))


def _check_head(head: Mapping[str, Any]) -> None:
    unknown = sorted(set(head) - {"kind", "num_labels", "crf", "pooler", "next_sentence"})
    kind = head["kind"]
    if unknown or kind not in (*_HEADS, None):
        raise ValueError(
            f"Invalid head of a foreign encoder. Expected kind as one of {[*_HEADS, None]}. "
            f"Received: {dict(head)}."
        )
    if (kind is None) != (not head["num_labels"]):
        raise ValueError(f"Invalid head. Expected num_labels with a kind. Received: {dict(head)}.")
    if head["crf"] and kind != "tagging":
        raise ValueError(f"Invalid head: crf=True needs kind='tagging'. Received: kind={kind!r}.")
