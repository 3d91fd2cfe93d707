"""The weights a run starts from, made once and kept, so that a resumed run starts from the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from xdistil_tf import files, recipe, strategies
from xdistil_tf.checkpoints import StageFolder
from xdistil_tf.data import word_vocabulary
from xdistil_tf.data.record_set import RecordSet
from xdistil_tf.data.records import decode_example
from xdistil_tf.data.task_info import TaskInfo
from xdistil_tf.data.tokenizer import Tokenizer
from xdistil_tf.models import embeddings, folders, pretrained
from xdistil_tf.models.bilstm import BiLSTM
from xdistil_tf.models.encoder import Encoder
from xdistil_tf.models.foreign import ForeignEncoder
from xdistil_tf.models.projected import ProjectedEncoder
from xdistil_tf.start_encoder import EncoderStart, num_labels
from xdistil_tf.trainer import assign

# Projection of a BiLSTM where neither recipe nor teacher gives a width: BERT-base's.
_PROJECTION = 768


class Start:
    """Builds the model of a recipe.

    Args:
      config: The recipe.
      tokenizer: Of the records.
      task: For the head; `None` for pretraining.
      teacher_folder: Gives a BiLSTM its embeddings.
      teacher_width: That a BiLSTM's projection and an encoder's width projections have; `None` if
        unknown.
      init_checkpoint: What an encoder starts from.
      observed: Records whose pieces make up an `observed` vocabulary.
    """

    def __init__(
        self,
        config: recipe.Recipe,
        tokenizer: Tokenizer | None,
        task: TaskInfo | None,
        teacher_folder: str | None,
        teacher_width: int | None,
        init_checkpoint: str | None,
        observed: Sequence[RecordSet],
    ):
        self._config = config
        self._model = config.model
        self._tokenizer = tokenizer
        self._task = task
        self._teacher_folder = teacher_folder
        self._teacher_width = teacher_width
        self._init_checkpoint = init_checkpoint
        self._observed = observed
        self._encoder = None
        if self._model.kind == "encoder":
            self._encoder = EncoderStart(
                config, tokenizer, task, teacher_folder, teacher_width, init_checkpoint
            )
        else:
            _check_bilstm(self._model, teacher_folder, init_checkpoint, task, tokenizer)

    def model(self, path: files.Path, strategy: tf.distribute.Strategy) -> tuple[Any, str]:
        """The model with its starting weights, and their fingerprint.

        Args:
          path: Folder of the starting weights; made once, then read.
          strategy: Its scope owns the variables.

        Raises:
          ValueError: If the folder was made from something else; names the field.
        """
        worker = strategies.worker_of(strategy)
        folder = StageFolder(path, self._definition(), writes=worker.writes)
        made = not folder.finished
        # Creating variables takes all workers at once, so nobody waits for the folder before.
        with strategy.scope():
            model = self._made() if made else self._empty(folder.result())
        if made and worker.writes:
            weights = {name: v.numpy() for name, v in model.named_variables().items()}
            described = {"config": model.config}
            if isinstance(model, ProjectedEncoder):
                described["projection"] = model.projection
            folder.finish(described, weights)
        strategies.any_of(strategy, False)  # All go on when worker 0 has written.
        if not (made and worker.writes):
            assign(model.named_variables(), folder.weights())
        return model, folder.fingerprint

    def _definition(self) -> dict[str, Any]:
        embedding = self._model.embedding if self._model.kind == "bilstm" else None
        role, weights_of = "init_checkpoint", self._init_checkpoint
        embedding_file, uses_records = None, False
        if embedding is not None:
            role = "teacher"
            weights_of = self._teacher_folder if embedding.source == "teacher" else None
            uses_records = embedding.vocabulary == "observed"
            if embedding.source == "file":
                embedding_file = files.file_fingerprint(embedding.path)
        definition = {
            "model": recipe.to_plain(self._model),
            "seed": self._config.seed,
            "task_type": self._task.task_type if self._task else None,
            "labels": list(self._task.labels) if self._task else None,
            "tokenizer": self._tokenizer.fingerprint if self._tokenizer else None,
            role: pretrained.weights_fingerprint(weights_of) if weights_of else None,
            "width": self._width() if self._model.kind == "bilstm" else None,
            "embedding_file": embedding_file,
            "observed": [one.fingerprint for one in self._observed] if uses_records else None,
        }
        return definition | (self._encoder.definition() if self._encoder else {})

    def _empty(self, result: dict[str, Any]):
        config, precision = result["config"], self._config.precision
        if "huggingface" in config:
            return ForeignEncoder.from_config_dict(config)
        kind = BiLSTM if self._model.kind == "bilstm" else Encoder
        model = kind.from_config_dict(config, precision=precision)
        wrapped = result.get("projection")
        return ProjectedEncoder(model, **wrapped) if wrapped else model

    def _made(self):
        return self._encoder.made() if self._encoder else self._made_bilstm()

    def _made_bilstm(self) -> BiLSTM:
        config, seed = self._model, self._config.seed
        table, remap = self._embedding_table(), None
        if config.embedding.vocabulary == "observed":
            counts = _piece_counts(self._observed, self._tokenizer.vocab_size)
            remap, kept = embeddings.observed_vocabulary(
                counts, _special_ids(self._tokenizer), self._tokenizer.unk_id
            )
            table = table[kept] if table is not None else None
        rows = len(kept) if remap is not None else self._tokenizer.vocab_size
        model = BiLSTM(
            {
                "vocab_size": self._tokenizer.vocab_size,
                "embedding_rows": rows,
                "embedding_dim": config.embedding.dim,
                "lstm_units": config.lstm_units,
                "lstm_layers": config.lstm_layers,
                "projection_dim": self._width(),
                "activation": config.activation,
                "dropout": config.dropout,
                "num_labels": num_labels(self._task),
                "crf": config.crf,
                "task_type": self._task.task_type,
                "trainable_embedding": config.embedding.trainable,
                "multichannel": config.embedding.multichannel,
                "embedding_range": config.embedding.init_range,
                "remap": remap is not None,
                "dropout_at": list(config.dropout_at),
                "pad_token_id": self._tokenizer.pad_id or 0,
                **self._pairs(),
            },
            precision=self._config.precision,
        )
        model.build_weights(seed)
        model.set_embedding(table, remap)
        return model

    def _pairs(self) -> dict[str, Any]:
        """How a BiLSTM reads pairs."""
        if self._model.pairs == "joined":
            return {}
        tokenizer = self._tokenizer
        around = (tokenizer.cls_id, tokenizer.sep_id, tokenizer.pad_id)
        return {
            "pairs": "siamese",
            "separator_id": tokenizer.sep_id,
            "special_ids": [one for one in around if one is not None],
        }

    def _embedding_table(self) -> np.ndarray | None:
        """float32 [V, E], or `None` for random."""
        config, size = self._model.embedding, self._tokenizer.vocab_size
        if config.source == "random":
            return None
        if config.source == "teacher":
            words = folders.read_word_embeddings(self._teacher_folder)[:size]
            return embeddings.reduce_by_svd(words, config.dim)
        table, _ = embeddings.read_embeddings(
            config.path, self._tokenizer.tokens, self._config.seed, config.init_range
        )
        if table.shape[1] != config.dim:
            raise ValueError(
                f"{config.path} has vectors of width {table.shape[1]}. Expected "
                f"embedding.dim={config.dim}."
            )
        return table

    def _width(self) -> int:
        if self._model.projection_dim is not None:
            return self._model.projection_dim
        return self._teacher_width or _PROJECTION


def _check_bilstm(model, teacher_folder, init_checkpoint, task, tokenizer) -> None:
    if task is None or tokenizer is None:
        raise ValueError(
            "A bilstm needs the records of a task. Expected a folder made by create_task_data."
        )
    if model.embedding.source == "teacher" and teacher_folder is None:
        raise ValueError(
            "The recipe takes the student's embeddings from the teacher (model.embedding."
            "source: teacher). Expected --teacher, or --set model.embedding.source=random."
        )
    if model.words is not None and not word_vocabulary.holds_whole_words(tokenizer):
        raise ValueError(
            "The recipe's student reads words (model.words), and these records have pieces. "
            "Expected records that distill made by it, or a recipe without model.words."
        )
    if model.pairs == "siamese" and (not task.pair or tokenizer.sep_id is None):
        lacking = "has single texts" if not task.pair else "has a tokenizer without a separator"
        raise ValueError(
            f"model.pairs: siamese compares two texts, and the task {lacking}. Expected a task of "
            "pairs, or model.pairs: joined."
        )
    if init_checkpoint is not None:
        raise ValueError(
            "--init_checkpoint is for encoders. A bilstm starts from the teacher's embeddings, "
            "a file of vectors, or at random (model.embedding.source)."
        )


def _piece_counts(record_sets: Sequence[RecordSet], vocab_size: int) -> np.ndarray:
    counts = np.zeros(vocab_size, np.int64)
    for records in record_sets:
        for number in range(len(records)):
            ids = decode_example(records.read(number), str(number))["input_ids"]
            counts += np.bincount(ids, minlength=vocab_size)
    return counts


def _special_ids(tokenizer: Tokenizer) -> list[int]:
    ids = (
        tokenizer.pad_id,
        tokenizer.unk_id,
        tokenizer.cls_id,
        tokenizer.sep_id,
        tokenizer.mask_id,
    )
    return [one for one in ids if one is not None]
