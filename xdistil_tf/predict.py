"""Labels, or tags and entities, for a file of texts, in its order, in constant memory."""

from __future__ import annotations

import contextlib
import functools
import itertools
import pathlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from xdistil_tf import files, predict_tags
from xdistil_tf.data import tags
from xdistil_tf.data.padding import pad_batch
from xdistil_tf.data.tokenization import load_tokenizer
from xdistil_tf.data.tokenizer import Tokenizer
from xdistil_tf.models import folders
from xdistil_tf.predictions import logits_function


class Predictor:
    """A trained model with its tokenizer and labels.

    Args:
      model_dir: A model, run or distill folder.
      precision: `float32`, `bfloat16` or `mixed_float16`.

    Raises:
      FileNotFoundError: If there is no model.
      ValueError: If the folder has no labels.
    """

    def __init__(self, model_dir: str, precision: str = "float32"):
        files.require_folder(model_dir, "a model, run or distill folder")
        folder = folders.find(model_dir)
        self.labels = folders.read_labels(folder)
        if self.labels is None:
            raise ValueError(
                f"{folder} has no labels.json. Expected a model that was trained here on a task."
            )
        self._tokenizer: Tokenizer = load_tokenizer(folder)
        self._max_length = files.read_json(pathlib.Path(folder) / "xdistil.json")["max_seq_length"]
        self._logits = logits_function(folders.load_model(folder, precision, only_run=True))

    @functools.cached_property
    def tagger(self) -> predict_tags.Tagger:
        """The model as one that tags words.

        Raises:
          ValueError: If it labels texts.
        """
        if self.labels.task_type != "tagging":
            raise ValueError(f"Expected a tagging model. Received: {self.labels.task_type}.")
        return predict_tags.Tagger(
            self._logits,
            self._logits.decode,
            self._tokenizer,
            self.labels.labels,
            self._max_length,
            spans=self.labels.metric != tags.NO_SPANS,
        )

    @property
    def header(self) -> list[str]:
        """The columns of a predictions file."""
        if self.labels.task_type == "regression":
            return ["score"]
        return ["label", *(f"score_{label}" for label in self.labels.labels)]

    def scores(
        self,
        texts: Sequence[str],
        texts_b: Sequence[str] | None = None,
        batch_size: int = 64,
        done: Callable[[int], object] = lambda count: None,
    ) -> np.ndarray:
        """Probabilities `[N, C]`, for regression values `[N, 1]`, in the order of the texts.

        `done` is told the number of texts after each forward pass.
        """
        encodings = self._tokenizer.encode_batch(list(texts), texts_b, self._max_length)
        # Similar lengths share a batch, so little is padded.
        order = np.argsort([len(one.input_ids) for one in encodings], kind="stable")
        logits = None
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            batch = pad_batch(
                [encodings[i].input_ids for i in chosen],
                [encodings[i].segment_ids for i in chosen],
            )
            tensors = {name: tf.constant(array) for name, array in batch.items()}
            values = self._logits(tensors).numpy()
            if logits is None:
                logits = np.zeros((len(order), values.shape[-1]), np.float32)
            logits[chosen] = values
            done(len(chosen))
        if self.labels.task_type == "regression":
            return logits
        exponentials = np.exp(logits - logits.max(-1, keepdims=True))
        return exponentials / exponentials.sum(-1, keepdims=True)

    def rows(
        self,
        lines: Iterable[str],
        batch_size: int = 64,
        done: Callable[[int], object] = lambda count: None,
    ) -> Iterator[list[str]]:
        """One row of a predictions file for each line, read and predicted chunk by chunk.

        Raises:
          ValueError: If a line has more or fewer columns than the task has texts; names the line.
        """
        numbered = enumerate(lines, start=1)
        while chunk := list(itertools.islice(numbered, predict_tags.CHUNK)):
            texts, texts_b = self._texts(chunk)
            for row in self.scores(texts, texts_b, batch_size, done):
                yield self._row(row)

    def _texts(self, chunk: list[tuple[int, str]]) -> tuple[list[str], list[str] | None]:
        expected = 2 if self.labels.pair else 1
        cells = [line.split("\t") for _, line in chunk]
        for (number, _), row in zip(chunk, cells, strict=True):
            if len(row) != expected:
                raise ValueError(
                    f"Line {number} of the input has {_columns(len(row))} (a tab begins one). "
                    f"Expected {_columns(expected)}: the model was trained on "
                    f"{'pairs' if self.labels.pair else 'single texts'}. Leave out what is no text "
                    "(cut -f), and write tabs inside a text as spaces."
                )
        return [row[0] for row in cells], [row[1] for row in cells] if self.labels.pair else None

    def _row(self, scores: np.ndarray) -> list[str]:
        values = [f"{value:.6f}" for value in scores]
        if self.labels.task_type == "regression":
            return values
        return [self.labels.labels[int(np.argmax(scores))], *values]


def predict_file(
    predictor: Predictor,
    input_file: str,
    output_file: str,
    batch_size: int = 64,
    pretokenized: bool = False,
) -> int:
    """Predicts a file (`-`: standard input) into TSV, of tags into lines of JSON.

    Args:
      predictor: The model.
      input_file: One text a line; `-`: standard input.
      output_file: Where to; `-`: standard output.
      batch_size: Texts of a forward pass.
      pretokenized: Of tags: words are what white space separates.

    Returns:
      The number of lines.

    Raises:
      FileNotFoundError: If there is no input file.
      BrokenPipeError: If nobody reads standard output any more.
      ValueError: If a line is not UTF-8 or has another number of columns than the task has texts.
    """
    with contextlib.ExitStack() as stack:
        lines = _lines(stack, input_file)
        bar = stack.enter_context(progress_bar(_lines_of(input_file)))
        output = sys.stdout
        if output_file != "-":
            output = stack.enter_context(files.replaced_file(output_file, "w"))
        count = 0
        written = _written(predictor, lines, batch_size, bar.update, pretokenized)
        for count, line in enumerate(written):  # noqa: B007
            output.write(line)
        output.flush()
    return count


def _written(
    predictor: Predictor,
    lines: Iterable[str],
    batch_size: int,
    done: Callable[[int], object],
    pretokenized: bool,
) -> Iterator[str]:
    """The header, empty for JSON, then a line for each text."""
    if predictor.labels.task_type == "tagging":
        yield ""
        rows = predictor.tagger.rows(lines, batch_size, done, pretokenized)
        yield from map(predict_tags.as_line, rows)
        return
    if pretokenized:
        raise ValueError("--pretokenized is about words and their tags. Leave it out.")
    yield "\t".join(predictor.header) + "\n"
    for row in predictor.rows(lines, batch_size, done):
        yield "\t".join(row) + "\n"


def _lines(stack: contextlib.ExitStack, path: str) -> Iterator[str]:
    if path == "-":
        handle = sys.stdin.buffer
    elif pathlib.Path(path).exists():  # A named pipe serves, too.
        handle = stack.enter_context(open(path, "rb"))
    else:
        raise FileNotFoundError(f"There is no input file {path}. Expected one text a line.")
    for number, line in enumerate(handle, start=1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            yield text.removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{path}, line {number}: expected UTF-8. Received: {error.reason} at byte "
                f"{error.start} of the line. Convert the file to UTF-8."
            ) from error


def _columns(count: int) -> str:
    return "one column" if count == 1 else f"{count} columns"


def progress_bar(texts: int | None) -> tqdm:
    """A progress bar, with the time left of so many texts, unless standard error is no terminal."""
    shown = sys.stderr.isatty()
    return tqdm(total=texts, desc="predict", unit="text", disable=not shown)


def _lines_of(path: str) -> int | None:
    """How many a file has; unknown of a pipe, which counting would empty."""
    if not (sys.stderr.isatty() and pathlib.Path(path).is_file()):
        return None
    with open(path, "rb") as handle:
        return sum(1 for _ in handle)
