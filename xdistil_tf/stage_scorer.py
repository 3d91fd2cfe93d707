"""Held-out metrics of a stage while it trains."""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf

from xdistil_tf import outputs, pretraining_scores, tag_decoding
from xdistil_tf.data.pipeline import Batches
from xdistil_tf.data.task_info import TaskInfo
from xdistil_tf.interruption import Interrupted
from xdistil_tf.objective import Objective
from xdistil_tf.predictions import Predictions, as_arrays, batches_once


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
                arrays = as_arrays(batch)
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
