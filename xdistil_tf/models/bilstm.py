"""Recurrent students: XtremeDistil's, and d-BERT's for sentences and pairs.

Word embedding -> bidirectional LSTMs -> projection -> head, with dropout between them and none
inside an LSTM. XtremeDistil (Mukherjee & Hassan Awadallah, ACL 2020, section 3.1) projects to the
teacher's width. d-BERT (Tang et al., 2019, section 3.1) has two channels of word vectors, a ReLU
and dropout before the head alone; of a pair it reads both texts by one LSTM and compares states.
"""

from __future__ import annotations

import difflib
import functools
import json
import pathlib
from collections.abc import Mapping

import numpy as np
import safetensors.numpy
import tensorflow as tf

from xdistil_tf import files
from xdistil_tf import outputs as outputs_lib
from xdistil_tf.models import crf_layer, layers, lstm, pair_sides, word_channels
from xdistil_tf.models.parted_model import PartedModel

MODEL_TYPE = "xdistil_bilstm"
TASK_TYPES = ("classification", "regression", "tagging")
PAIRS = ("joined", "siamese")  # How a pair is read: as one text, or as two.
DROPOUTS = ("embedding", "bilstm", "projection")  # Behind which part, in this order.


def complete_config(config: Mapping) -> dict:
    """A config with every field; the sizes that are left out are the paper's.

    `embedding_rows` is `vocab_size` unless `remap` says that the vocabulary is pruned.

    Raises:
      ValueError: If a field is unknown, missing or out of range.
    """
    unknown = [key for key in config if key not in _DEFAULTS]
    if unknown:
        near = difflib.get_close_matches(unknown[0], _DEFAULTS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"Unknown field of a BiLSTM's config: {unknown[0]!r}.{hint}")
    full = _DEFAULTS | dict(config)
    if full["embedding_rows"] is None:
        full["embedding_rows"] = full["vocab_size"]
    for key in _SIZES:
        if not isinstance(full[key], int) or full[key] < 1:
            raise ValueError(f"Invalid {key}. Expected an integer >= 1. Received: {full[key]!r}.")
    if full["model_type"] != MODEL_TYPE:
        raise ValueError(
            f"Invalid model_type. Expected {MODEL_TYPE!r}. Received: {full['model_type']!r}."
        )
    if full["task_type"] not in TASK_TYPES:
        raise ValueError(
            f"Invalid task_type. Expected one of {TASK_TYPES}. Received: {full['task_type']!r}."
        )
    if full["crf"] and full["task_type"] != "tagging":
        raise ValueError(
            f"Invalid crf. A CRF reads tags. Expected crf=False of task_type={full['task_type']!r}."
        )
    if full["pairs"] not in PAIRS:
        raise ValueError(f"Invalid pairs. Expected one of {PAIRS}. Received: {full['pairs']!r}.")
    if full["pairs"] == "siamese":
        if full["task_type"] == "tagging":
            raise ValueError("Invalid pairs. Tags belong to one text. Expected pairs='joined'.")
        if full["separator_id"] is None:
            raise ValueError("Missing separator_id. Expected the token between texts of a pair.")
    unknown = set(full["dropout_at"]) - set(DROPOUTS)
    if unknown:
        raise ValueError(
            f"Invalid dropout_at. Expected some of {DROPOUTS}. Received: {sorted(unknown)}."
        )
    if not full["remap"] and full["embedding_rows"] != full["vocab_size"]:
        raise ValueError(
            f"Invalid embedding_rows. Expected vocab_size={full['vocab_size']} without a remap. "
            f"Received: {full['embedding_rows']}. Set remap for a pruned vocabulary."
        )
    return full


class BiLSTM(PartedModel):
    """The student.

    ```
    config = {"vocab_size": 30522, "lstm_units": 600, "projection_dim": 384, "num_labels": 2}
    model = BiLSTM.from_config_dict(config, precision="bfloat16", seed=42)
    outputs = model(features, request={"logits": None, "representation": None})
    ```

    Args:
      config: See `complete_config`. `gelu` is the paper's form, with tanh.
      precision: `float32`, `bfloat16` or `mixed_float16`; variables are float32 in all of them.

    Weights are zeros until `build_weights` or a loader fills them.
    """

    def __init__(self, config: Mapping, precision: str = "float32"):
        policy = layers.policy(precision)
        super().__init__(dtype=policy, autocast=False, name="bilstm_student")
        config = complete_config(config)
        # A string, since Keras would wrap a dict into a tracked object.
        self._config_json = json.dumps(config)
        self.precision = precision
        self.tagging = config["task_type"] == "tagging"
        self.siamese = config["pairs"] == "siamese"
        self._separator = config["separator_id"]
        self._special = frozenset((*config["special_ids"], self._separator))
        units, width = config["lstm_units"], config["projection_dim"]
        self.embedding = word_channels.WordChannels(config, policy)
        self.recurrent = [
            lstm.BidirectionalLSTM(width, units, name, dtype=policy)
            for name, width in _recurrent_layers(config)
        ]
        states = (8 if self.siamese else 2) * units
        self.projection = layers.Dense(states, width, name="projection", dtype=policy)
        self.activation = _activation(config["activation"])
        # In float32: the head is tiny, and logits stay exact.
        self.head = layers.Dense(width, config["num_labels"], name="head")
        self.crf = crf_layer.Crf(config["num_labels"]) if config["crf"] else None
        rates = {name: config["dropout"] * (name in config["dropout_at"]) for name in DROPOUTS}
        self.embedding_dropout, self.bilstm_dropout, self.projection_dropout = (
            layers.StatelessDropout(rates[name], salt=salt)
            for salt, name in enumerate(DROPOUTS, start=1)
        )
        self.between_dropouts = [
            layers.StatelessDropout(rates["bilstm"], salt=10 + number)
            for number in range(1, len(self.recurrent))
        ]
        self.built = True

    @classmethod
    def from_config_dict(cls, config: Mapping, precision: str = "float32", seed: int = 0):
        """A student with fresh weights, deterministic in `seed`."""
        model = cls(config, precision)
        model.build_weights(seed)
        return model

    @property
    def config(self) -> dict:
        """A copy of the complete config, JSON-able."""
        return json.loads(self._config_json)

    @property
    def parts(self) -> dict[str, list]:
        """Named parts, top-down; every trainable variable belongs to exactly one."""
        return {
            "head": [self.head, *([self.crf] if self.crf else [])],
            "projection": [self.projection],
            **{layer.name: [layer] for layer in reversed(self.recurrent)},
            "embedding": [self.embedding],
        }

    @property
    def available(self) -> dict[str, tuple[int, ...] | None]:
        """What can be requested; hidden 0 is the embedding's output, i the states of LSTM i.

        Of pairs read as two texts there are no hidden states: they have no place in the sequence.
        """
        available = {"logits": None, "representation": None}
        if not self.siamese:
            available["hidden"] = tuple(range(len(self.recurrent) + 1))
        if self.crf is not None:
            available |= {"potentials": None, "marginals": None}
        return available

    def _initialise_layer(self, layer, seed: int) -> None:
        if isinstance(layer, layers.Dense):
            layer.kernel.assign(lstm.glorot(layer.kernel, seed))
            layer.bias.assign(tf.zeros_like(layer.bias))
        elif isinstance(layer, crf_layer.Crf):
            layer.initialise()
        else:
            layer.initialise(seed)

    def set_embedding(self, table: np.ndarray | None, remap: np.ndarray | None) -> None:
        """Sets the word vectors and, of a pruned vocabulary, the row of every id.

        Args:
          table: `[embedding_rows, embedding_dim]`; `None` leaves the vectors as they are.
          remap: int `[vocab_size]`, or `None` exactly where the config has no `remap`.

        Raises:
          ValueError: If a shape differs from the config's, or a row does not exist.
        """
        self.embedding.set(table, remap)

    def call(self, features, training=False, request=None, seed=None):
        """Computes what `request` names.

        Args:
          features: Dict with int32 `input_ids` and `input_mask` `[B, T]`, right-padded.
          training: Python boolean; switches dropout on.
          request: See `outputs.py`; None asks for the logits.
          seed: int32 `[2]`, needed when training with dropout.

        Returns:
          Outputs by name: `logits` and `representation`, float32, `[B, width]`, or
          `[B, T, width]` for tagging (without training 0 at padding);
          `hidden` `{0: [B, T, E], 1: [B, T, 2H], …}`; with a CRF `potentials` and `marginals`.

        Raises:
          ValueError: If the request names something this model does not have.
        """
        request = {"logits": None} if request is None else request
        outputs_lib.validate_request(request, self.available, "BiLSTM")
        hidden = request.get("hidden") or ()
        input_ids, lengths = self._texts(features)
        embedded = self.embedding(input_ids)
        outputs = {"hidden": {}} if "hidden" in request else {}
        if 0 in hidden:
            outputs["hidden"][0] = embedded
        wanted = {"logits", "representation", "potentials", "marginals"}
        wants_top = not wanted.isdisjoint(request)
        depth = len(self.recurrent) if wants_top else max(hidden, default=0)
        states, final = self.embedding_dropout(embedded, training, seed), None
        for number, layer in enumerate(self.recurrent[:depth], start=1):
            if number > 1:
                states = self.between_dropouts[number - 2](states, training, seed)
            states, final = layer(
                states,
                lengths,
                # Of the last one sentence tasks read the final state alone.
                return_states=self.tagging or number < depth or number in hidden,
                training=training,
            )
            if number in hidden:
                outputs["hidden"][number] = states
        if self.siamese and wants_top:
            final = pair_sides.compared(final)
        if wants_top:
            compact = self.tagging and not training
            top = (
                self._top_of_real(states, features)
                if compact
                else self._top(states if self.tagging else final, training, seed)
            )
            outputs.update({key: top[key]() for key in top if key in request})
            if "potentials" in request or "marginals" in request:
                logits = outputs["logits"] if "logits" in outputs else top["logits"]()
                outputs |= crf_layer.crf_outputs(self.crf, logits, features, request)
        return outputs

    def _texts(self, features) -> tuple[tf.Tensor, tf.Tensor]:
        """Ids and lengths of what the LSTM reads: a sequence of each row, or two texts."""
        input_ids, mask = features["input_ids"], features["input_mask"]
        if self.siamese:
            return pair_sides.split_pairs(input_ids, mask, self._separator, sorted(self._special))
        return input_ids, tf.reduce_sum(mask, 1)

    def _top(self, states: tf.Tensor, training: bool, seed):
        """Makers of `representation` and `logits` from states `[..., 2H]`."""
        states = self.bilstm_dropout(states, training, seed)
        shape = tf.shape(states)
        projected = self.projection(tf.reshape(states, [-1, states.shape[-1]]))
        projected = self.activation(tf.cast(projected, tf.float32))

        def logits():
            scores = self.head(self.projection_dropout(projected, training, seed))
            return _unflatten(scores, shape)

        return {"representation": lambda: _unflatten(projected, shape), "logits": logits}

    def _top_of_real(self, states: tf.Tensor, features):
        """`_top` without training, of tokens alone; 0 at padding: batches may be mostly that."""
        mask = features["input_mask"] > 0
        where, shape = tf.where(mask), tf.shape(states, tf.int64)
        top = self._top(tf.boolean_mask(states, mask), training=False, seed=None)

        def spread(make):
            rows = make()
            full = tf.scatter_nd(where, rows, tf.concat([shape[:2], [rows.shape[-1]]], 0))
            return tf.ensure_shape(full, [None, None, rows.shape[-1]])

        return {name: functools.partial(spread, make) for name, make in top.items()}


def _recurrent_layers(config: Mapping) -> list[tuple[str, int]]:
    """Name and input width of each LSTM; a single one has no number."""
    count, width = config["lstm_layers"], config["embedding_dim"] * (1 + config["multichannel"])
    if count == 1:
        return [("bilstm", width)]
    above = 2 * config["lstm_units"]
    return [(f"bilstm_{number}", width if number == 1 else above) for number in range(1, count + 1)]


def save_bilstm(model: BiLSTM, folder: files.Path) -> None:
    """Writes `config.json` and `model.safetensors`, each aside first, then synced and renamed."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: variable.numpy() for name, variable in model.named_variables().items()}
    with files.replaced_file(folder / "model.safetensors") as handle:
        handle.write(safetensors.numpy.save(tensors, metadata={"format": "np"}))
    files.write_json(folder / "config.json", model.config)


def load_bilstm(folder: files.Path, precision: str = "float32") -> BiLSTM:
    """Reads what `save_bilstm` wrote.

    Raises:
      FileNotFoundError: If a file is missing.
      ValueError: If a weight is missing, superfluous or has another shape or type; names each.
    """
    folder = pathlib.Path(folder)
    model = BiLSTM(files.read_json(folder / "config.json"), precision)
    path = folder / "model.safetensors"
    if not path.is_file():
        raise FileNotFoundError(f"No weights in {folder}. Expected model.safetensors.")
    try:
        tensors = safetensors.numpy.load_file(path)
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is damaged: expected safetensors. Received: {error}.") from error
    variables = model.named_variables()
    problems = [f"{name} is missing" for name in variables if name not in tensors]
    problems += [f"{name} is unknown" for name in tensors if name not in variables]
    for name in variables.keys() & tensors.keys():
        want = (variables[name].dtype.name, tuple(variables[name].shape))
        have = (tensors[name].dtype.name, tensors[name].shape)
        if want != have:
            problems.append(f"{name} is {have[0]} {have[1]} instead of {want[0]} {want[1]}")
    if problems:
        raise ValueError(f"{path} does not fit its config.json: {'; '.join(sorted(problems))}.")
    for name, variable in variables.items():
        variable.assign(tensors[name])
    return model


def _unflatten(matrix: tf.Tensor, shape: tf.Tensor) -> tf.Tensor:
    """`[rows, width]` -> `[..., width]`, with the leading axes of `shape`."""
    return tf.reshape(matrix, tf.concat([shape[:-1], [matrix.shape[-1]]], 0))


def _activation(name: str):
    if name == "gelu":
        return layers.activation("gelu_new")
    return tf.identity if name == "linear" else layers.activation(name)


_SIZES = (
    "vocab_size",
    "embedding_rows",
    "embedding_dim",
    "lstm_units",
    "lstm_layers",
    "projection_dim",
    "num_labels",
)
_DEFAULTS = {
    "model_type": MODEL_TYPE,
    "vocab_size": None,
    "embedding_rows": None,
    "embedding_dim": 300,
    "lstm_units": 600,
    "lstm_layers": 1,
    "projection_dim": 768,
    "activation": "gelu",
    "dropout": 0.2,
    "num_labels": None,
    "crf": False,
    "task_type": "classification",
    "trainable_embedding": True,
    "multichannel": False,
    "embedding_range": 0.1,
    "remap": False,
    "pairs": "joined",
    "separator_id": None,
    "special_ids": [],
    "dropout_at": list(DROPOUTS),
    "pad_token_id": 0,
}
