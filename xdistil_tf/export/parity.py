"""The gate behind every export: a fresh process reloads the folder and compares.

    python -m xdistil_tf.export.parity served/sst2/1

Texts, ids, scores and labels of the Keras model lie in the export itself, so that whoever
receives it can run the same check. Also `load_exported`, with which `predict` serves it.
"""

from __future__ import annotations

import importlib.metadata
import os
import pathlib
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

import xdistil_tf
from xdistil_tf import files
from xdistil_tf.data.padding import pad_batch

INFO_FILE = "assets.extra/xdistil.json"
INPUTS_FILE = "assets.extra/parity_inputs.json"
REPORT_FILE = "parity.json"
TOLERANCE = 1e-4
BATCH_SIZE = 32
# Other sizes than the Keras model's, so that the result must not depend on batch or padding.
_CHECKED_BATCH_SIZE = 7
_SINGLE = 4
_PACKAGES = ("tensorflow", "tensorflow-text", "tf_keras", "tokenizers", "numpy")


class ExportedModel:
    """A reloaded export.

    ```
    model = load_exported("served/sst2/1")
    model.from_text(["a fine film"])["label"]
    ```

    Attributes:
      info: What `assets.extra/xdistil.json` says.
      labels: In the order of the score columns; empty for regression.
    """

    def __init__(self, path: str | pathlib.Path):
        if not (pathlib.Path(path) / INFO_FILE).is_file():
            raise FileNotFoundError(
                f"No export in {path}. Expected a folder that `export` wrote, with {INFO_FILE}."
            )
        self.info = files.read_json(pathlib.Path(path) / INFO_FILE)
        if self.info["text_signature"]:
            import tensorflow_text  # noqa: F401  Registers the ops of the tokenizer.
        self._loaded = tf.saved_model.load(str(path))
        self.labels: list[str] = self.info["labels"]

    def from_text(
        self, texts: Sequence[str], texts_b: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        """Scores `[B, C]` float32 and, unless it is a regression, labels `[B]` of str.

        Raises:
          ValueError: If the export has no string signature or tags words, or texts_b is missing or
            too much.
        """
        self._require_text(texts_b)
        if self._tags:
            raise ValueError("A tagging model gives words, not labels of texts. Call `tag`.")
        return _arrays(self._loaded.signatures["serving_default"](**_named(texts, texts_b)))

    def from_ids(self, features: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Scores and labels of int32 `[B, T]` ids, in tagging of each piece.

        Features that the model does not read are left.
        """
        tensors = {key: tf.constant(features[key], tf.int32) for key in id_features(self.info)}
        return _arrays(self._loaded.signatures["ids"](**tensors))

    def tag(self, texts: Sequence[str]) -> list[dict[str, Any]]:
        """Of a tagging model the objects that `predict` writes, one a text.

        Raises:
          ValueError: If the export has no string signature, or tags nothing.
        """
        self._require_text(None)
        if not self._tags:
            raise ValueError(f"Expected a tagging model. Received: {self.info['task_type']}.")
        outputs = self._loaded.signatures["serving_default"](**_named(texts, None))
        arrays = {key: value.numpy() for key, value in outputs.items()}
        return [_tagged(text, arrays, row) for row, text in enumerate(texts)]

    @property
    def _tags(self) -> bool:
        return self.info["task_type"] == "tagging"

    def tokenize(
        self, texts: Sequence[str], texts_b: Sequence[str] | None = None
    ) -> list[list[int]]:
        """The ids that the graph makes of each text, without padding."""
        self._require_text(texts_b)
        features = self._loaded.tokenize(*_named(texts, texts_b).values())
        ids, mask = features["input_ids"].numpy(), features["input_mask"].numpy()
        return [row[: count.sum()].tolist() for row, count in zip(ids, mask, strict=True)]

    def _require_text(self, texts_b) -> None:
        if not self.info["text_signature"]:
            raise ValueError(f"The export takes ids only: {self.info['ids_only']}.")
        if (texts_b is not None) != self.info["pair"]:
            expected = "pairs of texts" if self.info["pair"] else "single texts"
            raise ValueError(f"Invalid `texts_b`. Expected {expected}, as in training.")


def id_features(info: Mapping[str, Any]) -> list[str]:
    """The inputs of the ids signature, in order."""
    keys = ["input_ids", "input_mask"]
    keys += ["segment_ids"] * info["segments"]
    return keys + ["word_index"] * info["words"]


def load_exported(path: str | pathlib.Path) -> ExportedModel:
    """Loads an export; imports `tensorflow_text` only when it has a string signature.

    Raises:
      FileNotFoundError: If the folder is no export of ours.
    """
    return ExportedModel(path)


def check_in_fresh_process(folder: str | pathlib.Path) -> dict[str, Any]:
    """Runs `check` in a new Python process, which knows nothing but the folder.

    Returns:
      The report, also in the folder as `parity.json`.

    Raises:
      ValueError: If the exported model differs from the Keras model.
      RuntimeError: If the process ended without a report; quotes its last line.
    """
    package = pathlib.Path(xdistil_tf.__file__).parent.parent
    paths = [str(package), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        # The GPU may be full, and compares in reduced precision.
        "CUDA_VISIBLE_DEVICES": "-1",
    }
    command = [sys.executable, "-m", "xdistil_tf.export.parity", str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    place = pathlib.Path(folder) / REPORT_FILE
    if not place.is_file():
        last = (done.stderr.strip() or "no output").splitlines()[-1].removeprefix("error: ")
        raise RuntimeError(
            f"The exported model could not be checked, nothing was exported. "
            f"The process ended with {done.returncode}: {last}"
        )
    report = files.read_json(place)
    if not report["passed"]:
        raise ValueError(f"{failure(report)} Nothing was exported.")
    return report


def check(folder: str | pathlib.Path) -> dict[str, Any]:
    """Compares an export with the answers of the Keras model that lie in it.

    Returns:
      The report that becomes `parity.json`; `passed` tells the result.
    """
    model, inputs = load_exported(folder), files.read_json(pathlib.Path(folder) / INPUTS_FILE)
    count = len(inputs["texts"])
    batches = [range(i, min(i + _CHECKED_BATCH_SIZE, count)) for i in range(0, count, 7)]
    batches += [range(i, i + 1) for i in range(min(_SINGLE, count))] + [range(0)]
    difference, agreeing, compared, equal_ids = 0.0, 0, 0, 0
    for batch in batches:
        for outputs in _all_signatures(model, inputs, batch):
            for row, index in enumerate(batch):
                gap, same, labels = _compare(model, outputs, row, inputs, index)
                # `fmax` would hide NaN.
                difference = gap if np.isnan(gap) else max(difference, gap)
                agreeing, compared = agreeing + same, compared + labels
    tokenizes = model.info["text_signature"] and model.info["task_type"] != "tagging"
    if "rows" in inputs:
        for batch in batches:
            gap, same, words = _compare_rows(model, [inputs["rows"][index] for index in batch])
            difference = gap if np.isnan(gap) else max(difference, gap)
            agreeing, compared = agreeing + same, compared + words
    if tokenizes:
        pairs = inputs["texts_b"]
        found = model.tokenize(inputs["texts"], pairs) if count else []
        equal_ids = sum(map(list.__eq__, found, inputs["input_ids"]))
    passed = bool(difference <= TOLERANCE and agreeing == compared)
    return {
        "passed": passed,
        "examples": count,
        "signatures": ["serving_default", "ids"] if model.info["text_signature"] else ["ids"],
        "max_abs_difference": float(difference),
        "tolerance": TOLERANCE,
        "label_agreement": agreeing / compared if compared else None,
        "differing_labels": compared - agreeing,
        "tokenizer": {"examples": count, "equal_ids": equal_ids} if tokenizes else None,
        "versions": versions(),
    }


def stored_batch(inputs: Mapping[str, Any], rows: range) -> dict[str, np.ndarray]:
    """Rows of the stored ids as a batch, int32 `[B, T]`, T the longest of them."""
    batch = pad_batch(*([inputs[key][row] for row in rows] for key in ("input_ids", "segment_ids")))
    if "word_index" in inputs:
        batch["word_index"] = np.full(batch["input_ids"].shape, -1, np.int32)
        for place, row in enumerate(rows):
            words = inputs["word_index"][row]
            batch["word_index"][place, : len(words)] = words
    return batch


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide what an export computes."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        found[package] = importlib.metadata.version(package)
    return found


def main(arguments: Sequence[str]) -> int:
    """Checks the export in `arguments[0]` and says the result in one line.

    The first check, that of the export itself, becomes `parity.json`; later ones leave it alone.

    Returns:
      0 if it passed; 1 if not, or if there is no export; 2 without a folder.
    """
    if len(arguments) != 1:
        sys.stderr.write("Usage: python -m xdistil_tf.export.parity EXPORTED_FOLDER\n")
        return 2
    try:
        report = check(arguments[0])
    except (OSError, ValueError, tf.errors.OpError) as error:
        sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
        return 1
    place = pathlib.Path(arguments[0]) / REPORT_FILE
    if not place.is_file():
        files.write_json(place, report)
    if not report["passed"]:
        sys.stderr.write(f"error: {failure(report)}\n")
        return 1
    sys.stdout.write(
        f"{arguments[0]} equals the Keras model on {report['examples']} examples; "
        f"largest difference {report['max_abs_difference']:.1e}.\n"
    )
    return 0


def _all_signatures(model: ExportedModel, inputs: Mapping[str, Any], batch: range):
    yield model.from_ids(stored_batch(inputs, batch))
    if model.info["text_signature"] and "rows" not in inputs:
        pairs = inputs["texts_b"]
        seconds = None if pairs is None else [pairs[index] for index in batch]
        yield model.from_text([inputs["texts"][index] for index in batch], seconds)


def _compare(model, outputs, row, inputs, index) -> tuple[float, int, int]:
    """(largest difference of the scores, equal labels, labels) of one example."""
    expected = np.array(inputs["scores"][index], np.float32)
    scores = outputs["scores"][row]
    if model.info["task_type"] == "tagging":
        scores = scores[: len(expected)]
    gap = np.abs(scores - expected).max()
    if inputs["labels"] is None:
        return gap, 0, 0
    labels = np.atleast_1d(np.array(inputs["labels"][index], object))
    found = np.atleast_1d(outputs["label"][row])[: len(labels)]
    return gap, int(np.sum(labels == found)), len(labels)


def _compare_rows(model: ExportedModel, expected: Sequence[dict]) -> tuple[float, int, int]:
    """(largest difference of scores, words and entities that are equal, how many there are)."""
    gap, same, count = 0.0, 0, 0
    for found, row in zip(model.tag([one["text"] for one in expected]), expected, strict=True):
        for kind in ("words", "entities"):
            ours, theirs = found[kind], row[kind]
            count += max(len(ours), len(theirs))
            for one, other in zip(ours, theirs, strict=False):
                gap = max(gap, abs(one["score"] - other["score"]))
                same += one | {"score": 0} == other | {"score": 0}
    return gap, same, count


def _tagged(text: str, arrays: Mapping[str, np.ndarray], row: int) -> dict[str, Any]:
    """The outputs of one text as `predict` writes them."""

    def part(place: int, kind: str, name: str, value: str) -> dict[str, Any]:
        start, end = (int(arrays[f"{kind}_{edge}s"][row, place]) for edge in ("start", "end"))
        own = {"text": text[start:end], "start": start, "end": end}
        own[name] = value.decode("utf-8")
        return own | {"score": round(float(arrays[f"{kind}_scores"][row, place]), 6)}

    words = range(arrays["num_words"][row])
    entities = range(arrays["num_entities"][row])
    return {
        "text": text,
        "words": [part(i, "word", "tag", arrays["tags"][row, i]) for i in words],
        "entities": [part(i, "entity", "type", arrays["entity_types"][row, i]) for i in entities],
    }


def _named(texts, texts_b) -> dict[str, tf.Tensor]:
    named = {"text": tf.constant(list(texts), tf.string)}
    if texts_b is not None:
        named["text_pair"] = tf.constant(list(texts_b), tf.string)
    return named


def _arrays(outputs: Mapping[str, tf.Tensor]) -> dict[str, np.ndarray]:
    arrays = {key: value.numpy() for key, value in outputs.items()}
    if "label" in arrays:
        decoded = [label.decode("utf-8") for label in arrays["label"].ravel()]
        arrays["label"] = np.array(decoded, object).reshape(arrays["label"].shape)
    return arrays


def failure(report: Mapping[str, Any]) -> str:
    """What a report that did not pass says, in one sentence."""
    text = (
        "The exported model differs from the Keras model: largest difference "
        f"{report['max_abs_difference']:.2e} (allowed {report['tolerance']:.0e}), "
        f"{report['differing_labels']} differing labels in {report['examples']} examples"
    )
    tokenizer = report["tokenizer"]
    if tokenizer and tokenizer["equal_ids"] < tokenizer["examples"]:
        different = tokenizer["examples"] - tokenizer["equal_ids"]
        text += f", {different} of them tokenized differently; export with --signatures=ids"
    return text + "."


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
