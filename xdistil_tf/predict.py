"""Labels for a file of texts, in its order, in constant memory."""

from __future__ import annotations

import contextlib
import itertools
import pathlib
import sys
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from xdistil_tf import files
from xdistil_tf.data.tokenization import Encoding, Tokenizer, load_tokenizer
from xdistil_tf.evaluate import logits_function
from xdistil_tf.models import folders

# So many lines are tokenized, sorted by length and run together before they are written.
_CHUNK = 4096


class Predictor:
    """A trained model with its tokenizer and labels.

    Args:
      model_dir: A model, run or distill folder.
      precision: `float32`, `bfloat16` or `mixed_float16`.

    Raises:
      FileNotFoundError: If there is no model.
      ValueError: If the folder has no labels, or the task is tagging.
    """

    def __init__(self, model_dir: str, precision: str = "float32"):
        folder = folders.find(model_dir)
        self.labels = folders.read_labels(folder)
        if self.labels is None:
            raise ValueError(
                f"{folder} has no labels.json. Expected a model that was trained here on a task."
            )
        if self.labels.task_type == "tagging":
            raise ValueError("predict takes models for sentences and pairs. Received: tagging.")
        self._tokenizer: Tokenizer = load_tokenizer(folder)
        self._max_length = files.read_json(pathlib.Path(folder) / "xdistil.json")["max_seq_length"]
        self._logits = logits_function(folders.load_model(folder, precision))

    @property
    def header(self) -> list[str]:
        """The columns of a predictions file."""
        if self.labels.task_type == "regression":
            return ["score"]
        return ["label", *(f"score_{label}" for label in self.labels.labels)]

    def scores(
        self, texts: Sequence[str], texts_b: Sequence[str] | None = None, batch_size: int = 64
    ) -> np.ndarray:
        """Probabilities `[N, C]`, for regression values `[N, 1]`, in the order of the texts."""
        encodings = self._tokenizer.encode_batch(list(texts), texts_b, self._max_length)
        # Similar lengths share a batch, so little is padded.
        order = np.argsort([len(one.input_ids) for one in encodings], kind="stable")
        logits = None
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            batch = _padded([encodings[i] for i in chosen], self._tokenizer.pad_id or 0)
            values = self._logits(batch).numpy()
            if logits is None:
                logits = np.zeros((len(order), values.shape[-1]), np.float32)
            logits[chosen] = values
        if self.labels.task_type == "regression":
            return logits
        exponentials = np.exp(logits - logits.max(-1, keepdims=True))
        return exponentials / exponentials.sum(-1, keepdims=True)

    def rows(self, lines: Iterable[str], batch_size: int = 64) -> Iterator[list[str]]:
        """One row of a predictions file for each line, read and predicted chunk by chunk.

        Raises:
          ValueError: If a line of a pair task has no second column; names the line.
        """
        numbered = enumerate(lines, start=1)
        while chunk := list(itertools.islice(numbered, _CHUNK)):
            texts, texts_b = self._columns(chunk)
            for row in self.scores(texts, texts_b, batch_size):
                yield self._row(row)

    def _columns(self, chunk: list[tuple[int, str]]) -> tuple[list[str], list[str] | None]:
        if not self.labels.pair:
            return [line.split("\t")[0] for _, line in chunk], None
        cells = [(number, line.split("\t")) for number, line in chunk]
        for number, cell in cells:
            if len(cell) < 2:
                raise ValueError(
                    f"Line {number} of the input has one column. Expected two texts separated by "
                    "a tab: the model was trained on pairs."
                )
        return [cell[0] for _, cell in cells], [cell[1] for _, cell in cells]

    def _row(self, scores: np.ndarray) -> list[str]:
        values = [f"{value:.6f}" for value in scores]
        if self.labels.task_type == "regression":
            return values
        return [self.labels.labels[int(np.argmax(scores))], *values]


def predict_file(
    predictor: Predictor, input_file: str, output_file: str, batch_size: int = 64
) -> int:
    """Predicts a file (`-`: standard input) into a TSV file (`-`: standard output).

    Returns:
      The number of lines.

    Raises:
      FileNotFoundError: If there is no input file.
      ValueError: If a line is not UTF-8 or lacks a column.
    """
    with contextlib.ExitStack() as stack:
        lines = _lines(stack, input_file)
        output = sys.stdout
        if output_file != "-":
            output = stack.enter_context(files.replaced_file(output_file, "w"))
        output.write("\t".join(predictor.header) + "\n")
        count = 0
        for count, row in enumerate(predictor.rows(lines, batch_size), start=1):  # noqa: B007
            output.write("\t".join(row) + "\n")
    return count


def _lines(stack: contextlib.ExitStack, path: str) -> Iterator[str]:
    if path == "-":
        handle = sys.stdin.buffer
    elif pathlib.Path(path).is_file():
        handle = stack.enter_context(open(path, "rb"))
    else:
        raise FileNotFoundError(f"There is no input file {path}. Expected one text a line.")
    for number, line in enumerate(handle, start=1):
        try:
            yield line.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{path}, line {number}: expected UTF-8. Received: {error.reason} at byte "
                f"{error.start} of the line. Convert the file to UTF-8."
            ) from error


def _padded(encodings: Sequence[Encoding], pad_id: int) -> dict[str, tf.Tensor]:
    length = max(len(one.input_ids) for one in encodings)
    shape = (len(encodings), length)
    ids, mask = np.full(shape, pad_id, np.int32), np.zeros(shape, np.int32)
    segments = np.zeros(shape, np.int32)
    for row, one in enumerate(encodings):
        size = len(one.input_ids)
        ids[row, :size], mask[row, :size] = one.input_ids, 1
        segments[row, :size] = one.segment_ids
    arrays = {"input_ids": ids, "input_mask": mask, "segment_ids": segments}
    return {name: tf.constant(array) for name, array in arrays.items()}
