"""Recipes: one frozen, typed value that says how one model is trained.

A recipe is a list of stages; a stage trains named parts of a model to minimise
a sum of terms; a term compares one output of the model with the teacher's, or
with a feature of the batch. `recipe_files.py` reads them from YAML, `expand`
turns gradual unfreezing into plain stages.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Collection, Sequence
from typing import Any, Literal

import pydantic
import yaml

Precision = Literal["float32", "bfloat16", "mixed_float16"]


class Config(pydantic.BaseModel):
    """Base of all configuration: immutable, and unknown keys are refused."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @pydantic.model_validator(mode="before")
    @classmethod
    def _no_truth_value_for_a_number(cls, data: Any) -> Any:
        """`steps: true`, or `on` in YAML, would count as 1."""
        given = data if isinstance(data, dict) else {}
        for name, field in cls.model_fields.items():
            if isinstance(given.get(name), bool) and field.annotation is not bool:
                raise ValueError(f"Expected no truth value for {name!r}")
        return data


class Term(Config):
    """One summand of an objective: `weight * mean(loss(target, output))`."""

    loss: str = pydantic.Field(description="A name of losses.py, or 'task'.")
    output: str | None = pydantic.Field(None, description="The model's output; 'task': logits.")
    target: str = pydantic.Field("teacher", description="'teacher' or a feature of the batch.")
    target_output: str | None = pydantic.Field(None, description="Default: the same as `output`.")
    layers: str | tuple[tuple[int, int], ...] | None = pydantic.Field(
        None, description="Layer map: a name, or pairs (student layer, teacher layer)."
    )
    at: Literal["token", "word"] = "token"
    mask: Literal["default", "none"] = "default"
    weight: float = 1.0
    temperature: float = pydantic.Field(1.0, gt=0)
    reduction: Literal["mean", "as_published"] = "mean"
    options: dict[str, Any] = pydantic.Field(default_factory=dict)
    name: str | None = None

    @pydantic.field_validator("layers", mode="wrap")
    @classmethod
    def _a_name_or_pairs(cls, layers: Any, parse: Callable[[Any], Any]) -> Any:
        return _one_of(parse, layers, "a name, or pairs [[student layer, teacher layer], ...]")


class Optimizer(Config):
    """An optimizer with its schedule; every stage starts a fresh one."""

    name: Literal["adam", "adamw", "bert_adam", "adadelta"] = "adam"
    learning_rate: float = pydantic.Field(1e-3, gt=0)
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup_proportion: float = pydantic.Field(0.0, ge=0, lt=1)
    warmup_steps: int | None = pydantic.Field(None, ge=0)
    final_learning_rate: float = pydantic.Field(0.0, ge=0)
    weight_decay: float | None = pydantic.Field(None, ge=0)
    beta_1: float = pydantic.Field(0.9, ge=0, lt=1)
    beta_2: float = pydantic.Field(0.999, ge=0, lt=1)
    epsilon: float | None = pydantic.Field(None, gt=0)
    rho: float = pydantic.Field(0.95, ge=0, lt=1)
    clip_norm: float | None = pydantic.Field(None, gt=0)


class Evaluate(Config):
    """How a stage chooses its best weights, always on data it does not train on."""

    data: str = "heldout"
    keep_best: str = pydantic.Field(
        "objective", description="'objective', 'task', 'macro' (over languages) or a metric's name."
    )
    patience: int | None = pydantic.Field(None, ge=1, description="Evaluations without progress.")
    every_steps: int | None = pydantic.Field(None, ge=1, description="Instead of every_epochs.")
    every_epochs: float | None = pydantic.Field(
        None, gt=0, description="May be a fraction. Default: 1."
    )

    @pydantic.model_validator(mode="after")
    def _one_interval(self) -> Evaluate:
        if self.every_steps is not None and self.every_epochs is not None:
            raise ValueError("Expected every_steps or every_epochs, not both")
        return self

    @pydantic.field_validator("data")
    @classmethod
    def _never_the_reported_split(cls, data: str) -> str:
        if data not in ("heldout", "dev"):
            raise ValueError("Expected 'heldout', or 'dev' where a labelled test split reports")
        return data


class Stage(Config):
    """Trains some parts of a model on some data towards some objective.

    `train` names the parts (default: all that the objective reaches). `unfreeze` names them top
    down and stands for as many stages, each of which trains one part more (ULMFiT's gradual
    unfreezing as used by XtremeDistil, section 3.4 of the paper).
    """

    name: str = pydantic.Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    data: Literal["train", "transfer", "heldout", "augmented", "corpus"]
    objective: tuple[Term, ...] = pydantic.Field(min_length=1)
    train: tuple[str, ...] | None = None
    unfreeze: tuple[str, ...] | Literal["top_down"] | None = None
    reinitialise: tuple[str, ...] = ()
    epochs: float | None = pydantic.Field(None, gt=0)
    steps: int | None = pydantic.Field(None, ge=1)
    batch_size: int = pydantic.Field(ge=1)
    language_temperature: float | None = pydantic.Field(
        None, gt=0, description="Draws languages by n^(1/T); none: as the data have them."
    )
    optimizer: Optimizer = Optimizer()
    evaluate: Evaluate | None = None

    @pydantic.field_validator("unfreeze", mode="wrap")
    @classmethod
    def _parts_or_top_down(cls, unfreeze: Any, parse: Callable[[Any], Any]) -> Any:
        return _one_of(parse, unfreeze, "a list of parts, or top_down")

    @pydantic.model_validator(mode="after")
    def _check(self) -> Stage:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("Expected exactly one of 'epochs' and 'steps'")
        if self.train is not None and self.unfreeze is not None:
            raise ValueError("Expected at most one of 'train' and 'unfreeze'")
        if self.train == () or self.unfreeze == ():
            raise ValueError("Expected at least one part to train, or leave the field out")
        return self


class Embedding(Config):
    """Where the word embeddings of a BiLSTM start."""

    source: Literal["teacher", "random", "file"] = "teacher"
    dim: int = pydantic.Field(300, ge=1)
    path: str | None = None
    trainable: bool = True
    multichannel: bool = pydantic.Field(
        False, description="A second table beside it keeps the vectors it starts from."
    )
    init_range: float = pydantic.Field(
        0.1, gt=0, description="Rows without a vector are drawn between -this and this."
    )
    vocabulary: Literal["full", "observed"] = "full"

    @pydantic.model_validator(mode="after")
    def _check(self) -> Embedding:
        if (self.source == "file") != (self.path is not None):
            raise ValueError("'path' goes with source: file, and source: file needs a 'path'")
        if self.multichannel and not self.trainable:
            raise ValueError("Expected trainable: true of a multichannel embedding")
        return self


class Words(Config):
    """The vocabulary of a student that reads whole words: those of train and transfer texts."""

    min_count: int = pydantic.Field(1, ge=1, description="Rarer words are unknown.")
    max_words: int | None = pydantic.Field(None, ge=1, description="The most frequent ones.")
    lower_case: bool = True


class BiLSTMModel(Config):
    """XtremeDistil's student (section 3.1 of the paper), and d-BERT's."""

    kind: Literal["bilstm"]
    words: Words | None = pydantic.Field(
        None, description="Reads words instead of the teacher's pieces; distill makes them."
    )
    embedding: Embedding = Embedding()
    lstm_units: int = pydantic.Field(600, ge=1, description="Per direction.")
    lstm_layers: int = pydantic.Field(1, ge=1, description="Stacked.")
    projection_dim: int | None = pydantic.Field(None, description="Default: the teacher's width.")
    activation: str = "gelu"
    dropout: float = pydantic.Field(0.2, ge=0, lt=1)
    dropout_at: tuple[Literal["embedding", "bilstm", "projection"], ...] = pydantic.Field(
        ("embedding", "bilstm", "projection"), description="Behind which parts."
    )
    pairs: Literal["joined", "siamese"] = pydantic.Field(
        "joined", description="A pair is read as one text, or as two whose states are compared."
    )
    crf: bool = pydantic.Field(False, description="Tagging: a CRF on the logits.")


class WidthProjection(Config):
    """What gives a student's hidden states the teacher's width (TinyBERT, equations 8 and 9)."""

    sharing: Literal["per_layer", "shared"] = "per_layer"
    bias: bool = True
    when: Literal["needed", "always"] = pydantic.Field(
        "needed", description="needed: none where the widths are equal."
    )


class EncoderModel(Config):
    """A BERT-family encoder; fields left out come from `--init_checkpoint`, or the preset."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    kind: Literal["encoder"]
    preset: Literal["2x128", "4x256", "4x312", "6x384", "6x768"] | None = pydantic.Field(
        None, description="Layers x width; other fields override its sizes."
    )
    layers_from: str | tuple[int, ...] | None = pydantic.Field(
        None, description="Layers of the teacher that are copied: a layer map's name, or numbers."
    )
    model_type: str | None = None
    vocab_size: int | None = None
    embedding_size: int | None = None
    hidden_size: int | None = None
    num_hidden_layers: int | None = None
    num_attention_heads: int | None = None
    intermediate_size: int | None = None
    hidden_act: str | None = None
    hidden_dropout_prob: float | None = None
    attention_probs_dropout_prob: float | None = None
    max_position_embeddings: int | None = None
    type_vocab_size: int | None = None
    layer_norm_eps: float | None = None
    initializer_range: float | None = None
    pooler: str | None = None
    pooler_from: Literal["teacher"] | None = pydantic.Field(
        None, description="Whose pooler it starts as."
    )
    width_projection: WidthProjection | None = None
    crf: bool = pydantic.Field(False, description="Tagging: a CRF on the logits.")

    @pydantic.field_validator("layers_from", mode="wrap")
    @classmethod
    def _a_name_or_layers(cls, layers: Any, parse: Callable[[Any], Any]) -> Any:
        return _one_of(parse, layers, "uniform, top, bottom, or a list of the teacher's layers")


class Teacher(Config):
    """Which layer of the teacher is compared, and whether its outputs are kept on disk."""

    layer: int = pydantic.Field(-1, description="0: embeddings; negative: from the top.")
    mode: Literal["cached", "live", "auto"] = "cached"
    precision: Literal["float16", "bfloat16", "uint8"] = "float16"
    top_k: int | None = pydantic.Field(
        None, ge=1, description="Words of masked_lm_top_k per slot. Default: 10."
    )


class Recipe(Config):
    """One trained model."""

    model: BiLSTMModel | EncoderModel = pydantic.Field(discriminator="kind")
    teacher: Teacher | None = None
    stages: tuple[Stage, ...] = pydantic.Field(min_length=1)
    seed: int = 42
    precision: Precision = "float32"
    max_seq_length: int = pydantic.Field(128, ge=3)

    @pydantic.model_validator(mode="after")
    def _stage_names_differ(self) -> Recipe:
        names = [stage.name for stage in self.stages]
        if len(set(names)) != len(names):
            raise ValueError(f"Expected different stage names. Received: {names}")
        return self

    def data_names(self) -> set[str]:
        """Names of the data that the stages read, and an embedding of observed pieces."""
        names = {stage.data for stage in self.stages}
        names |= {stage.evaluate.data for stage in self.stages if stage.evaluate}
        if self.model.kind == "bilstm" and self.model.embedding.vocabulary == "observed":
            names |= {"train", "transfer"}
        return names

    def to_yaml(self) -> str:
        """The recipe with every field that is set, as YAML that `load_recipe` reads back."""
        return yaml.safe_dump(to_plain(self), sort_keys=False)


def to_plain(config: Config) -> dict[str, Any]:
    """A configuration as JSON-able data, without the fields that are `None`."""
    return config.model_dump(mode="json", exclude_none=True)


def _one_of(parse: Callable[[Any], Any], value: Any, expected: str) -> Any:
    """Parses a field of several types, about which pydantic would complain once for each."""
    try:
        return parse(value)
    except pydantic.ValidationError:
        raise ValueError(f"Expected {expected}") from None


def expand(recipe: Recipe, parts: Sequence[str], frozen: Collection[str] = ()) -> tuple[Stage, ...]:
    """Turns `unfreeze` into plain stages.

    `unfreeze: [head, projection]` of a stage `logits` becomes `logits.1_head`, which trains the
    head, and `logits.2_projection`, which trains both.

    Args:
      recipe: The recipe.
      parts: The model's parts, head first.
      frozen: Those of them that have nothing to train; `top_down` leaves them out.

    Returns:
      Stages without `unfreeze`; `train` stays `None` where all parts are meant.

    Raises:
      ValueError: If a stage names a part that the model does not have, or trains a frozen one.
    """
    expanded = []
    for stage in recipe.stages:
        named = stage.unfreeze if isinstance(stage.unfreeze, tuple) else ()
        for part in (*named, *(stage.train or ()), *stage.reinitialise):
            if part not in parts:
                raise ValueError(
                    f"Unknown part in stage {stage.name!r}. Expected one of {list(parts)}. "
                    f"Received: {part!r}."
                )
        for part in (*named, *(stage.train or ())):
            if part in frozen:
                raise ValueError(
                    f"Stage {stage.name!r} trains {part!r}, which the model keeps as it starts. "
                    "Leave it out; unfreeze: top_down takes only parts that can be trained."
                )
        if stage.unfreeze is None:
            expanded.append(stage)
            continue
        # Width projections serve terms of hidden states alone, and no head is above them.
        left_out = (*frozen, "width_projection")
        order = named or tuple(part for part in parts if part not in left_out)
        for count, part in enumerate(order, start=1):
            expanded.append(
                stage.model_copy(
                    update={
                        "name": f"{stage.name}.{count}_{part}",
                        "train": order[:count],
                        "unfreeze": None,
                        "reinitialise": stage.reinitialise if count == 1 else (),
                    }
                )
            )
    return tuple(expanded)


def main(arguments: Sequence[str]) -> int:
    """`python -m xdistil_tf.recipe --schema` prints the JSON schema for editors."""
    if list(arguments) != ["--schema"]:
        sys.stderr.write("Usage: python -m xdistil_tf.recipe --schema\n")
        return 2
    sys.stdout.write(json.dumps(Recipe.model_json_schema(), indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
