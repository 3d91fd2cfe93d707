"""What a student that is an encoder starts as: a checkpoint, layers of its teacher, or chance.

```
checkpoint, layers of the teacher or random weights -> the teacher's pooler -> width projections
```
"""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

from absl import logging

from xdistil_tf import files, recipe
from xdistil_tf.data.task_info import TaskInfo
from xdistil_tf.data.tokenizer import Tokenizer
from xdistil_tf.models import encoder_presets, folders, foreign_folders, pretrained, projected
from xdistil_tf.models.encoder import Encoder
from xdistil_tf.models.projected import ProjectedEncoder

_SIZES = (
    "vocab_size", "embedding_size", "hidden_size", "num_hidden_layers", "num_attention_heads",
    "intermediate_size", "model_type",
)  # fmt: skip
_NOT_OF_THE_ENCODER = ("kind", "preset", "layers_from", "pooler_from", "width_projection")
_RELU_POOLER = "tanh_relu"


def check_size(model: recipe.EncoderModel, init_checkpoint: str | None) -> None:
    """Refuses an encoder of which nothing tells the size.

    Raises:
      ValueError: If neither the recipe nor a checkpoint does.
    """
    if not (model.hidden_size or model.preset or model.layers_from or init_checkpoint):
        raise ValueError(
            "The recipe gives no size for its encoder. Expected --init_checkpoint, or "
            "model.preset, or model.hidden_size and its like in the recipe."
        )


@dataclasses.dataclass(frozen=True)
class EncoderStart:
    """Builds the encoder of a recipe.

    Args:
      config: The recipe.
      tokenizer: Of the records.
      task: For the head; `None` for pretraining.
      teacher_folder: Gives layers or the pooler.
      teacher_width: That a width projection has; `None` if unknown.
      init_checkpoint: What the encoder starts from; `None`: layers of the teacher, or chance.

    Raises:
      ValueError: If the recipe asks for what was not given, or for two things at once.
    """

    config: recipe.Recipe
    tokenizer: Tokenizer | None
    task: TaskInfo | None
    teacher_folder: str | None
    teacher_width: int | None
    init_checkpoint: str | None

    def __post_init__(self):
        model, teacher, start = self._model, self.teacher_folder, self.init_checkpoint
        if model.layers_from is not None and (teacher is None or start is not None):
            given = "no --teacher" if teacher is None else "--init_checkpoint"
            raise ValueError(
                "model.layers_from copies layers of --teacher, and nothing else. Expected "
                f"--teacher and no --init_checkpoint. Received: {given}."
            )
        if model.pooler_from is not None and (teacher is None or model.layers_from is not None):
            raise ValueError(
                "model.pooler_from copies the pooler of --teacher. Expected --teacher, and no "
                "model.layers_from, which copies it anyway."
            )
        check_size(model, start)

    @property
    def _model(self) -> recipe.EncoderModel:
        return self.config.model

    def definition(self) -> dict[str, Any]:
        """What decides the starting weights, beside the recipe's model and its checkpoint."""
        definition: dict[str, Any] = {}
        if self.task is None:  # Else the task tells the head.
            definition["head"] = self._head()
        if self._model.layers_from is not None or self._model.pooler_from is not None:
            definition["teacher"] = pretrained.weights_fingerprint(self.teacher_folder)
        if self._model.width_projection is not None:
            definition["width"] = self.teacher_width
            definition["projections"] = self._kept_projections()
        return definition

    def made(self) -> Encoder | ProjectedEncoder:
        """The encoder with its starting weights.

        Raises:
          ValueError: If sizes of the recipe and of the checkpoint differ, or a pooler or width
            that is asked for is not there.
        """
        model = self._made_encoder()
        if self._model.pooler_from is not None:
            self._copy_pooler(model)
        return self._with_projections(model)

    def _made_encoder(self) -> Encoder:
        config, precision, seed = self._model, self.config.precision, self.config.seed
        fields = recipe.to_plain(config)
        for name in (*_NOT_OF_THE_ENCODER, "pooler", "crf"):
            fields.pop(name, None)
        fields = dict(encoder_presets.PRESETS.get(config.preset, {})) | fields
        head = self._head()
        if config.layers_from is not None:
            teacher = pretrained.load_encoder(
                self.teacher_folder, head=head, allow_missing_head=True, seed=seed
            )
            return encoder_presets.student_from_layers(
                teacher, fields, config.layers_from, precision
            )
        if self.init_checkpoint is not None and folders.is_foreign(self.init_checkpoint):
            return _made_foreign(self.init_checkpoint, fields, head, seed)
        if self.init_checkpoint is not None:
            _check_sizes(fields, pretrained.read_config(self.init_checkpoint))
            return pretrained.load_encoder(
                self.init_checkpoint,
                head=head,
                precision=precision,
                allow_missing_head=True,
                overrides=fields,
                seed=seed,
            )
        fields.setdefault("vocab_size", self.tokenizer.vocab_size)
        fields.setdefault("pad_token_id", self.tokenizer.pad_id or 0)
        return Encoder.from_config_dict(fields | {"head": head}, precision=precision, seed=seed)

    def _head(self) -> dict[str, Any]:
        pooler = self._model.pooler
        if self.task is not None:
            head = {"kind": self.task.task_type, "num_labels": num_labels(self.task)}
            head |= {"crf": self._model.crf}
            pooler = pooler or self._pooler_of_the_source()
        else:
            terms = [term for stage in self.config.stages for term in stage.objective]
            reached = {term.output for term in terms if term.output}
            pretraining = bool(reached & {"masked_lm_logits", "next_sentence_logits"})
            head = {
                "kind": "pretraining" if pretraining else None,
                "next_sentence": "next_sentence_logits" in reached,
            }
        return head | ({"pooler": pooler} if pooler else {})

    def _pooler_of_the_source(self) -> str | None:
        """Weights that were trained with a ReLU behind their pooler keep it."""
        copies = self._model.layers_from is not None
        source = self.teacher_folder if copies else self.init_checkpoint
        if source is None or self.task.task_type not in ("classification", "regression"):
            return None
        known = folders.read_config(source)["head"].get("pooler")
        return known if known == _RELU_POOLER else None

    def _copy_pooler(self, model: Encoder) -> None:
        teacher = pretrained.load_encoder(self.teacher_folder)
        if teacher.pooler is None or model.pooler is None:
            who = "the student" if model.pooler is None else "the teacher"
            raise ValueError(
                f"model.pooler_from: teacher needs a pooler on both sides, and {who} has none. "
                "Leave it out."
            )
        if teacher.config["hidden_size"] != model.config["hidden_size"]:
            raise ValueError(
                "model.pooler_from: teacher needs equal widths. Received: a teacher of "
                f"{teacher.config['hidden_size']} and a student of {model.config['hidden_size']}. "
                "Leave it out."
            )
        for ours, theirs in zip(model.pooler.variables, teacher.pooler.variables, strict=True):
            ours.assign(theirs)

    def _with_projections(self, model: Encoder) -> Encoder | ProjectedEncoder:
        wanted, width = self._model.width_projection, self.teacher_width
        if wanted is None:
            return model
        if not isinstance(model, Encoder):
            raise ValueError(
                "model.width_projection needs an encoder of the BERT family. Received: "
                f"{self.init_checkpoint}. Leave it out, or start from another folder."
            )
        if width is None:
            raise ValueError(
                "model.width_projection needs the teacher's width. Expected --teacher, or a "
                "--teacher_cache of hidden states."
            )
        if wanted.when == "needed" and width == model.config["hidden_size"]:
            logging.info("Student and teacher are equally wide: there is no width projection.")
            return model
        wrapped = ProjectedEncoder(model, width, wanted.sharing, wanted.bias)
        if self.init_checkpoint is not None:
            projected.load_projections(wrapped, self.init_checkpoint, self.config.seed)
        else:
            wrapped.initialise_part(projected.PART, self.config.seed)
        return wrapped

    def _kept_projections(self) -> str | None:
        """Fingerprint of what stands beside the weights of the checkpoint."""
        path = pathlib.Path(self.init_checkpoint or "") / projected.FILE
        return files.file_fingerprint(path) if self.init_checkpoint and path.is_file() else None


def _made_foreign(folder: str, fields: dict[str, Any], head: dict[str, Any], seed: int):
    """An encoder of another architecture, which is fine-tuned as its folder has it."""
    if fields:
        raise ValueError(
            f"{folder} is no encoder of the BERT family: its sizes and rates are those of its "
            f"config.json. Received: {', '.join(f'model.{name}' for name in sorted(fields))}. "
            "Leave them out."
        )
    return foreign_folders.load_foreign(folder, head, allow_missing_head=True, seed=seed)


def num_labels(task: TaskInfo) -> int:
    """Width of a task's head."""
    return 1 if task.task_type == "regression" else len(task.labels)


def _check_sizes(fields: dict[str, Any], checkpoint: dict[str, Any]) -> None:
    for name in _SIZES:
        if name in fields and fields[name] != checkpoint[name]:
            raise ValueError(
                f"The recipe says model.{name}={fields[name]}, --init_checkpoint has "
                f"{checkpoint[name]}. Leave the field out, or start from another checkpoint."
            )
