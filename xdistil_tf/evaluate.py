"""Scores a model: predictions on records, task metrics, a stage's objective, latency."""

from __future__ import annotations

import collections
import dataclasses
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from xdistil_tf import files, metrics, outputs, pretraining_scores, tag_decoding
from xdistil_tf.data import windows
from xdistil_tf.data.layouts import Columns
from xdistil_tf.data.pipeline import Batches, data_error
from xdistil_tf.data.readers import Example, read_task
from xdistil_tf.data.record_set import RecordSet
from xdistil_tf.data.split import Splits
from xdistil_tf.data.task_records import TaskInfo, load_task_info, write_task_records
from xdistil_tf.data.tokenization import check_same_vocabulary, load_tokenizer
from xdistil_tf.interruption import Interrupted
from xdistil_tf.models import folders
from xdistil_tf.objective import Objective

Features = Mapping[str, tf.Tensor]
_MODEL_FEATURES = ("input_ids", "input_mask", "segment_ids")


@dataclasses.dataclass
class Predictions:
    """What a model said about each record, beside what is true.

    Attributes:
      ids: bytes, one a record.
      languages: One a record.
      scores: Logits `[C]` of each record, or `[W, C]` of its words in tagging.
      gold: Label id, value, or label ids of its words.
      decode: How the scores of sentences become tags.
    """

    ids: list[bytes] = dataclasses.field(default_factory=list)
    languages: list[str] = dataclasses.field(default_factory=list)
    scores: list[np.ndarray] = dataclasses.field(default_factory=list)
    gold: list = dataclasses.field(default_factory=list)
    decode: tag_decoding.Decoder = tag_decoding.most_probable

    def add(self, batch: Mapping[str, np.ndarray], logits: np.ndarray, task_type: str) -> None:
        """Adds the records of a batch whose gold is known, without filler rows."""
        gold = batch["label_values" if task_type == "regression" else "label_ids"]
        for row in np.flatnonzero(batch["example_weights"] > 0):
            known = batch["label_weights"][row] > 0
            if task_type == "tagging":
                known &= windows.first_pieces(batch["word_index"][row])
            if not np.any(known):
                continue
            self.ids.append(batch["id"][row])
            self.languages.append(batch["language"][row].decode("utf-8"))
            tagging = task_type == "tagging"
            self.scores.append(logits[row][known] if tagging else logits[row])
            self.gold.append(gold[row][known] if tagging else gold[row])

    def of_sentences(self) -> Predictions:
        """The same with the windows of each sentence put together, in the order they first came."""
        parts: dict[str, dict[int, int]] = {}
        for index, name in enumerate(self.ids):
            sentence, number = windows.sentence_of(name.decode("utf-8"))
            parts.setdefault(sentence, {})[number] = index
        joined = Predictions(decode=self.decode)
        for sentence, numbered in parts.items():
            chosen = [index for _, index in sorted(numbered.items())]
            joined.ids.append(sentence.encode("utf-8"))
            joined.languages.append(self.languages[chosen[0]])
            joined.scores.append(np.concatenate([self.scores[i] for i in chosen]))
            joined.gold.append(np.concatenate([self.gold[i] for i in chosen]))
        return joined

    def sorted_by_id(self, ids: Sequence[bytes]) -> Predictions:
        """The same in the order of `ids`."""
        place = {name: index for index, name in enumerate(ids)}
        order = sorted(range(len(self.ids)), key=lambda index: place[self.ids[index]])
        rows = ([rows[i] for i in order] for rows in (self.ids, self.languages, self.scores))
        return Predictions(*rows, [self.gold[i] for i in order], self.decode)

    def of_languages(self, languages: Sequence[str]) -> Predictions:
        """Those of some languages.

        Raises:
          ValueError: If there are none.
        """
        chosen = [i for i, one in enumerate(self.languages) if one in languages]
        if not chosen:
            raise ValueError(
                f"No example is of {', '.join(languages)}. Expected some of "
                f"{', '.join(sorted(set(self.languages)))}."
            )
        columns = (self.ids, self.languages, self.scores, self.gold)
        return Predictions(*([rows[i] for i in chosen] for rows in columns), self.decode)

    def metrics(self, task: TaskInfo) -> dict[str, float]:
        """The task's metrics, the primary one under its name with `standard_error`."""
        gold, predicted = self.comparable(task)
        return metrics.compute(task.metric, gold, predicted)

    def by_language(self, task: TaskInfo) -> dict:
        """Metrics of each language, empty where there is only one."""
        if len(set(self.languages)) < 2:
            return {}
        gold, predicted = self.comparable(task)
        return metrics.compute_by_language(task.metric, gold, predicted, self.languages)

    def macro(self, task: TaskInfo) -> dict[str, float]:
        """`macro`, and `<metric>/<language>` of each; empty where there is only one."""
        found = self.by_language(task)
        if not found:
            return {}
        apart = {f"{task.metric}/{n}": one[task.metric] for n, one in found["languages"].items()}
        return {metrics.MACRO: found["macro_mean"], **apart}

    def comparable(self, task: TaskInfo) -> tuple[Sequence, Sequence]:
        """Gold and predictions as `metrics.compute` takes them: tags of words in tagging."""
        if task.task_type != "tagging":
            scores = np.stack(self.scores)
            return np.asarray(self.gold), scores[:, 0] if task.task_type == "regression" else scores
        names = task.labels
        gold = [[names[i] for i in row] for row in self.gold]
        return gold, [[names[i] for i in found] for found, _ in self.decode(self.scores)]


class LogitsFunction:
    """A model's logits of a batch, compiled once for any number and length of examples.

    Attributes:
      decode: How the logits of sentences become tags.
    """

    def __init__(self, model):
        ids = tf.TensorSpec([None, None], tf.int32)

        @tf.function(input_signature=[dict.fromkeys(_MODEL_FEATURES, ids)])
        def logits(features):
            return model(features, training=False, request={"logits": None})["logits"]

        self._logits = logits
        self.decode = tag_decoding.decoder_of(model)

    def __call__(self, batch: Features) -> tf.Tensor:
        return self._logits({name: batch[name] for name in _MODEL_FEATURES})


def logits_function(model) -> LogitsFunction:
    """See `LogitsFunction`."""
    return LogitsFunction(model)


def predict_records(
    logits_of: Callable[[Features], tf.Tensor],
    records: RecordSet,
    task: TaskInfo,
    batch_size: int = 128,
    sidecars: Mapping[str, Any] | None = None,
) -> Predictions:
    """Runs a model over all records, in their order.

    Args:
      logits_of: As `logits_function` gives it.
      records: The data.
      task: What they mean.
      batch_size: Examples of a forward pass.
      sidecars: Of a teacher, joined to the batches.

    Raises:
      ValueError: If no record has a known label, or a record is damaged.
    """
    batches = Batches(records, batch_size, shuffle=False, sidecars=sidecars)
    predictions = Predictions(decode=getattr(logits_of, "decode", tag_decoding.most_probable))
    for batch in batches_once(batches):
        logits = logits_of(batch).numpy()
        predictions.add(_arrays(batch), logits, task.task_type)
    if not predictions.ids:
        split = records.paths[0].stem.rsplit("-", 3)[0]
        raise ValueError(
            f"The split {split!r} of {task.task} has no labels to compare with. Choose another one "
            "with --split or --records."
        )
    predictions = predictions.sorted_by_id(records.ids.tolist())
    return predictions.of_sentences() if task.task_type == "tagging" else predictions


# (predictions, what they mean, the texts where they are known) -> more figures.
Judge = Callable[[Predictions, TaskInfo, Sequence[Example]], dict[str, Any]]


class StageScorer:
    """Measures a stage's objective and its metrics on data that it does not train on.

    Metrics are the task's, or without a task those of a masked language model, if it is one.

    Args:
      model: The model in training.
      batches: The data, unshuffled.
      objective: The stage's.
      teacher: `(features, request) -> outputs`, where a term needs one.
      task: For metrics; `None` where there is no labelled task.
      samples: Rows of features and logits -> Markdown, or `None`.
    """

    def __init__(
        self,
        model,
        batches: Batches,
        objective: Objective,
        teacher: Callable | None,
        task: TaskInfo | None,
        samples: Callable[[Mapping[str, np.ndarray], np.ndarray], str] | None = None,
    ):
        self._batches = batches
        self._objective = objective
        self._task = task if task is not None and "logits" in model.available else None
        self._samples = samples
        self._decode = tag_decoding.decoder_of(model)
        spec = batches.dataset().element_spec
        scored = {"logits": None} if self._task is not None else {}
        if task is None:
            scored = pretraining_scores.request(model.available, spec)
        request = outputs.merge_requests(objective.student_request, scored)

        # Traced for any batch and length at once.
        @tf.function(input_signature=[spec])
        def step(batch):
            given = model(batch, training=False, request=request)
            wanted = teacher(batch, objective.teacher_request) if teacher is not None else {}
            sums = objective.numerators(batch, given, wanted), objective.denominators(batch)
            words = pretraining_scores.sums(batch, {key: given[key] for key in scored})
            return *sums, words, given.get("logits", tf.zeros([0]))

        self._step = step

    def measure(
        self, stop: Callable[[], bool] = lambda: False
    ) -> tuple[dict[str, float], str | None]:
        """Metrics by name (`objective` among them) and sample predictions.

        Args:
          stop: Asked before each batch.

        Raises:
          Interrupted: If it says so.
        """
        numerators = dict.fromkeys(self._objective.term_names, 0.0)
        denominators, words = dict(numerators), collections.defaultdict(float)
        predictions, samples = Predictions(decode=self._decode), None
        for batch in batches_once(self._batches):
            if stop():
                raise Interrupted("Stopped in an evaluation.")
            *sums, logits = self._step(batch)
            for total, part in zip((numerators, denominators, words), sums, strict=True):
                for name, value in part.items():
                    total[name] += float(value)
            if self._task is not None:
                arrays = _arrays(batch)
                predictions.add(arrays, logits.numpy(), self._task.task_type)
                if samples is None and self._samples is not None:
                    samples = self._samples(arrays, logits.numpy())
        result = {"objective": self._total(numerators, denominators)}
        result |= pretraining_scores.metrics(words)
        if predictions.ids:
            if self._task.task_type == "tagging":
                predictions = predictions.of_sentences()
            result |= predictions.metrics(self._task) | predictions.macro(self._task)
        return result, samples

    def _total(self, numerators: dict[str, float], denominators: dict[str, float]) -> float:
        return sum(
            term.weight * numerators[term.name] / denominators[term.name]
            for term in self._objective.terms
            if denominators[term.name]
        )


class EvaluatedModel:
    """A model folder that is scored on data with labels.

    Args:
      model_dir: A model, run or distill folder.
      precision: `float32`, `bfloat16` or `mixed_float16`.
      batch_size: Examples of a forward pass.

    Raises:
      FileNotFoundError: If there is no model.
      ValueError: If it was not trained on a task.
    """

    def __init__(self, model_dir: str, precision: str = "float32", batch_size: int = 128):
        self._folder = pathlib.Path(folders.find(model_dir))
        self._labels = folders.read_labels(self._folder)
        if self._labels is None:
            raise ValueError(
                f"{self._folder} has no labels.json. Expected a model that was trained here."
            )
        self._precision = precision
        self._batch_size = batch_size

    def on_task(
        self,
        task_dir: str,
        task: str | None = None,
        split: str = "dev",
        columns: Columns = Columns(),
        max_bad_rows: int = 0,
        languages: Sequence[str] = (),
        judge: Judge | None = None,
    ) -> dict[str, Any]:
        """Scores a split of a task folder.

        Args:
          task_dir: The folder.
          task: `None`: the one it was trained on.
          split: The split.
          columns, max_bad_rows, languages: As `read_task` takes them.
          judge: Is given predictions, task and examples; what it returns is added to the result.

        Returns:
          The content of `metrics.json`.
        """
        data = read_task(
            task_dir,
            task or self._labels.task or self._labels.task_type,
            columns,
            max_bad_rows,
            languages,
            self._labels.labels,
            (split,),
        )
        if not data.splits.get(split):
            raise ValueError(f"{task_dir} has no split {split!r}, or it is empty.")
        trained = files.read_json(self._folder / "xdistil.json")
        with tempfile.TemporaryDirectory() as folder:
            splits = Splits([], [], [], {split: data.splits[split]}, [], {})
            info = write_task_records(
                splits,
                dataclasses.replace(data, labels=self._labels.labels),
                load_tokenizer(self._folder),
                folder,
                trained["max_seq_length"],
                num_shards=1,
            )
            records = RecordSet(info.pattern(split))
            return self._scored(records, info, split, judge, data.splits[split])

    def on_records(
        self, pattern: str, judge: Judge | None = None, languages: Sequence[str] = ()
    ) -> dict[str, Any]:
        """Scores records, which must be of the same tokenizer and labels; all else as above."""
        records = RecordSet(pattern)
        info = load_task_info(records.paths[0].parent)
        differences = check_same_vocabulary(
            load_tokenizer(self._folder), load_tokenizer(info.tokenizer_folder)
        )
        if differences:
            raise ValueError(
                f"{info.folder} has other ids than the model: {'; '.join(differences)}."
            )
        if info.labels != self._labels.labels:
            raise ValueError(
                f"{info.folder} has the labels {info.labels}. Expected {self._labels.labels}."
            )
        split = records.paths[0].stem.rsplit("-", 3)[0]
        return self._scored(records, info, split, judge, languages=languages)

    def _scored(
        self,
        records: RecordSet,
        task: TaskInfo,
        split: str,
        judge: Judge | None,
        examples: Sequence[Example] = (),
        languages: Sequence[str] = (),
    ) -> dict[str, Any]:
        model = folders.load_model(self._folder, self._precision, only_run=True)
        predictions = predict_records(logits_function(model), records, task, self._batch_size)
        if languages:
            predictions = predictions.of_languages(languages)
        judged = judge(predictions, task, examples) if judge else {}
        return {
            "model": str(self._folder),
            "split": split,
            "examples": len(predictions.ids),
            "metric": task.metric,
            "metrics": predictions.metrics(task),
            "by_language": predictions.by_language(task),
            **judged,
        }


def own_records(model_dir: str, split: str) -> str:
    """The records of a split that a distill folder holds beside its models.

    Raises:
      ValueError: If it holds none.
    """
    folder = pathlib.Path(model_dir) / "records"
    if not (folder / "task.json").is_file():
        raise ValueError(
            f"Expected --task_dir or --records. Only a distill folder has records of its own, and "
            f"{model_dir} is none."
        )
    return load_task_info(folder).pattern(split)


def latency_ms(model, batch_size: int, length: int, repeats: int = 20) -> float:
    """Median milliseconds of one call on ids of this shape, after a warm-up."""
    batch = {
        "input_ids": tf.ones([batch_size, length], tf.int32),
        "input_mask": tf.ones([batch_size, length], tf.int32),
        "segment_ids": tf.zeros([batch_size, length], tf.int32),
    }
    step = logits_function(model)
    for _ in range(3):
        step(batch).numpy()
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        step(batch).numpy()
        seconds.append(time.perf_counter() - began)
    return 1000 * statistics.median(seconds)


def parameter_counts(model) -> dict[str, int]:
    """`parameters` and `parameters_without_embeddings`, trainable or not, without tables of ids."""
    floating = {
        name: int(np.prod(v.shape))
        for name, v in model.named_variables().items()
        if v.dtype.is_floating
    }
    embedding = {
        id(v) for layer in model.parts.get("embedding", ()) for v in layer.trainable_variables
    }
    # The word table itself; positions and normalisation are counted with the rest.
    tables = [
        int(np.prod(v.shape))
        for v in model.named_variables().values()
        if id(v) in embedding and v.shape.rank == 2
    ]
    total = sum(floating.values())
    return {"parameters": total, "parameters_without_embeddings": total - sum(tables)}


def batches_once(batches: Batches) -> Iterator[Features]:
    """All batches of an epoch.

    Raises:
      ValueError: If a record is damaged.
    """
    try:
        yield from batches.dataset(0, batches.steps_per_epoch)
    except tf.errors.OpError as error:
        raise data_error(error) or error from error


def _arrays(batch: Features) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in batch.items()}
