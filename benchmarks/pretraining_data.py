"""Text to masked-LM records: ours against the method of google-research/bert, one process each.

    python -m benchmarks.pretraining_data --megabytes=20
    python -m benchmarks.pretraining_data --bert_script=bert/create_pretraining_data.py \
        --bert_python=tf1/bin/python

Without a path to the script itself its method is measured, written anew: a tokenizer in Python,
the whole corpus in memory, one `tf.train.Example` at a time. Records of length 128, 15 % masked.
"""

from __future__ import annotations

import collections
import os
import pathlib
import random
import re
import resource
import shutil
import subprocess
import tempfile
import time
import unicodedata
from collections.abc import Callable, Iterator

from absl import app, flags

from benchmarks import harness, result_files
from benchmarks.result_files import comparison

LENGTH, SLOTS, SHARE, SHORT = 128, 20, 0.15, 0.1
_END = re.compile(r"(?<=[.!?]) +")


def prepare_text(folder: str, target: pathlib.Path, megabytes: float) -> None:
    """One sentence a line, of a folder of text in WikiExtractor's manner; not more than asked."""
    left = int(megabytes * 1e6)
    with open(target, "w", encoding="utf-8") as handle:
        for path in sorted(one for one in pathlib.Path(folder).rglob("*") if one.is_file()):
            for line in path.read_text(encoding="utf-8").splitlines():
                if line.startswith("<doc"):
                    continue
                sentences = [] if line.startswith("</doc>") else _END.split(line.strip())
                text = "".join(one + "\n" for one in sentences if one)
                text = "\n" if line.startswith("</doc>") else text
                left -= len(text.encode("utf-8"))
                if left < 0:
                    return
                handle.write(text)
    if left > 0:
        raise ValueError(f"{folder} has {left / 1e6:.1f} MB too little text. Lower --megabytes.")


def ours(text: str, vocabulary: str, output_dir: str) -> dict[str, Callable[[], harness.Measured]]:
    """Cases `<dupe_factor> <processes>`."""
    from xdistil_tf.data.pretraining import processes, write_pretraining_records
    from xdistil_tf.data.tokenization import load_tokenizer

    tokenizer = load_tokenizer(vocabulary, do_lower_case=True)

    def case(dupe_factor: int, count: int) -> harness.Measured:
        shutil.rmtree(output_dir, ignore_errors=True)
        began = time.perf_counter()
        manifest = write_pretraining_records(
            text,
            tokenizer,
            output_dir,
            LENGTH,
            SLOTS,
            SHARE,
            dupe_factor,
            heldout_fraction=0.0,
            short_seq_prob=SHORT,
            execute=processes.execution(count),
        )
        seconds = time.perf_counter() - began
        extra = {"records": manifest["splits"]["train"]["records"]}
        return harness.Measured(_megabytes(text), seconds, extra, _peak_mb())

    return {
        f"{dupe} {count}": lambda dupe=dupe, count=count: case(dupe, count)
        for dupe in (1, 5)
        for count in (1, 2)
    }


def theirs(
    text: str, vocabulary: str, output_dir: str
) -> dict[str, Callable[[], harness.Measured]]:
    """Cases `<dupe_factor>` of the method written anew."""
    import tensorflow as tf  # Not while time is taken.

    def case(dupe_factor: int) -> harness.Measured:
        began = time.perf_counter()
        records = _create(text, vocabulary, pathlib.Path(output_dir), dupe_factor, tf)
        seconds = time.perf_counter() - began
        return harness.Measured(_megabytes(text), seconds, {"records": records}, _peak_mb())

    return {str(dupe): lambda dupe=dupe: case(dupe) for dupe in (1, 5)}


def script(
    text: str, vocabulary: str, output_dir: str, bert_script: str, bert_python: str
) -> dict[str, Callable[[], harness.Measured]]:
    """Cases `<dupe_factor>` of the script itself, a process each; its start counts."""

    def case(dupe_factor: int) -> harness.Measured:
        pathlib.Path(output_dir).mkdir(exist_ok=True)
        command = [bert_python, bert_script, f"--input_file={text}", f"--vocab_file={vocabulary}"]
        command += [f"--output_file={output_dir}/records", "--do_lower_case=True"]
        command += [f"--max_seq_length={LENGTH}", f"--max_predictions_per_seq={SLOTS}"]
        command += [f"--dupe_factor={dupe_factor}"]
        began = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        seconds = time.perf_counter() - began
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        return harness.Measured(_megabytes(text), seconds, {}, peak)

    return {str(dupe): lambda dupe=dupe: case(dupe) for dupe in (1, 5)}


def _megabytes(path: str) -> float:
    return pathlib.Path(path).stat().st_size / 1e6


def _peak_mb() -> float:
    """Of the largest of this process and those that it started and that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return max(harness.peak_mb(), children)


# The other side: everything below works on one token, sentence and example after another.


class PythonTokenizer:
    """Words by spaces and punctuation, lower-cased without accents; then the longest pieces."""

    def __init__(self, path: str):
        lines = pathlib.Path(path).read_text(encoding="utf-8").splitlines()
        self.ids = {line: number for number, line in enumerate(lines)}
        self.tokens = list(self.ids)

    def tokenize(self, line: str) -> list[str]:
        cleaned = "".join(self._cleaned(character) for character in line)
        pieces: list[str] = []
        for word in cleaned.split():
            folded = unicodedata.normalize("NFD", word.lower())
            folded = "".join(one for one in folded if unicodedata.category(one) != "Mn")
            for part in self._parts(folded):
                pieces += self._pieces(part)
        return pieces

    def _cleaned(self, character: str) -> str:
        code = ord(character)
        if character in " \t\n\r" or unicodedata.category(character) == "Zs":
            return " "
        if code in (0, 0xFFFD) or unicodedata.category(character).startswith("C"):
            return ""
        if 0x4E00 <= code <= 0x9FFF or 0x3400 <= code <= 0x4DBF or 0x20000 <= code <= 0x2CEAF:
            return f" {character} "
        return character

    def _parts(self, word: str) -> Iterator[str]:
        part = ""
        for character in word:
            code = ord(character)
            symbol = 33 <= code <= 47 or 58 <= code <= 64 or 91 <= code <= 96 or 123 <= code <= 126
            if symbol or unicodedata.category(character).startswith("P"):
                if part:
                    yield part
                yield character
                part = ""
            else:
                part += character
        if part:
            yield part

    def _pieces(self, word: str) -> list[str]:
        if len(word) > 200:
            return ["[UNK]"]
        pieces, start = [], 0
        while start < len(word):
            for end in range(len(word), start, -1):
                piece = ("##" if start else "") + word[start:end]
                if piece in self.ids:
                    pieces.append(piece)
                    start = end
                    break
            else:
                return ["[UNK]"]
        return pieces


Example = collections.namedtuple("Example", "tokens segments positions labels random_next")


def _create(text: str, vocabulary: str, folder: pathlib.Path, dupe_factor: int, tf) -> int:
    """The whole job; returns the number of records."""
    rng, tokenizer = random.Random(12345), PythonTokenizer(vocabulary)
    documents: list[list[list[str]]] = [[]]
    with open(text, encoding="utf-8") as handle:
        for line in handle:
            if not line.strip():
                documents.append([])
            elif pieces := tokenizer.tokenize(line.strip()):
                documents[-1].append(pieces)
    documents = [one for one in documents if one]
    rng.shuffle(documents)
    examples = [
        example
        for _ in range(dupe_factor)
        for number in range(len(documents))
        for example in _examples(documents, number, rng, tokenizer.tokens)
    ]
    rng.shuffle(examples)
    folder.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(folder / "records")) as writer:
        for example in examples:
            writer.write(_serialised(example, tokenizer.ids, tf))
    return len(examples)


def _examples(documents, number: int, rng: random.Random, words: list[str]) -> Iterator[Example]:
    document, room = documents[number], LENGTH - 3
    target = rng.randint(2, room) if rng.random() < SHORT else room
    chunk: list[list[str]] = []
    length = place = 0
    while place < len(document):
        chunk.append(document[place])
        length += len(document[place])
        if place == len(document) - 1 or length >= target:
            middle = rng.randint(1, len(chunk) - 1) if len(chunk) > 1 else 1
            first = [token for sentence in chunk[:middle] for token in sentence]
            second: list[str] = []
            random_next = len(chunk) == 1 or rng.random() < 0.5
            if random_next:
                for _ in range(10):
                    other = rng.randint(0, len(documents) - 1)
                    if other != number:
                        break
                start = rng.randint(0, len(documents[other]) - 1)
                for sentence in documents[other][start:]:
                    second.extend(sentence)
                    if len(second) >= target - len(first):
                        break
                place -= len(chunk) - middle
            else:
                second = [token for sentence in chunk[middle:] for token in sentence]
            while len(first) + len(second) > room:
                longer = first if len(first) > len(second) else second
                if rng.random() < 0.5:
                    del longer[0]
                else:
                    longer.pop()
            yield _masked(first, second, random_next, rng, words)
            chunk, length = [], 0
        place += 1


def _masked(first, second, random_next: bool, rng: random.Random, words: list[str]) -> Example:
    tokens = ["[CLS]", *first, "[SEP]", *second, "[SEP]"]
    segments = [0] * (len(first) + 2) + [1] * (len(second) + 1)
    candidates = [i for i, token in enumerate(tokens) if token not in ("[CLS]", "[SEP]")]
    rng.shuffle(candidates)
    chosen = sorted(candidates[: min(SLOTS, max(1, round(len(tokens) * SHARE)))])
    labels = [tokens[position] for position in chosen]
    for position in chosen:
        if rng.random() < 0.8:
            tokens[position] = "[MASK]"
        elif rng.random() >= 0.5:
            tokens[position] = words[rng.randint(0, len(words) - 1)]
    return Example(tokens, segments, chosen, labels, random_next)


def _serialised(example: Example, ids: dict[str, int], tf) -> bytes:
    def integers(values, size):
        filled = list(values) + [0] * (size - len(values))
        return tf.train.Feature(int64_list=tf.train.Int64List(value=filled))

    weights = [1.0] * len(example.labels) + [0.0] * (SLOTS - len(example.labels))
    features = {
        "input_ids": integers([ids[token] for token in example.tokens], LENGTH),
        "input_mask": integers([1] * len(example.tokens), LENGTH),
        "segment_ids": integers(example.segments, LENGTH),
        "masked_lm_positions": integers(example.positions, SLOTS),
        "masked_lm_ids": integers([ids[token] for token in example.labels], SLOTS),
        "masked_lm_weights": tf.train.Feature(float_list=tf.train.FloatList(value=weights)),
        "next_sentence_labels": integers([int(example.random_next)], 1),
    }
    message = tf.train.Example(features=tf.train.Features(feature=features))
    return message.SerializeToString()


def _measure(text: str, vocabulary: str, work: pathlib.Path) -> dict[str, list[harness.Measured]]:
    """Side and case -> repetitions; a process of its own each time, as its peak is measured."""
    arguments = {"text": text, "vocabulary": vocabulary}
    factory, more = "theirs", {}
    if harness.FLAGS.bert_script:
        factory = "script"
        more = {"bert_script": os.path.abspath(harness.FLAGS.bert_script)}
        more["bert_python"] = harness.FLAGS.bert_python
    sides = {f"ours {dupe} {count}": ("ours", {}) for dupe in (1, 5) for count in (1, 2)}
    sides |= {f"theirs {dupe}": (factory, more) for dupe in (1, 5)}

    def case(key: str) -> harness.Measured:
        side, extra = sides[key]
        given = arguments | extra | {"output_dir": str(work / side)}
        # The library's threads too: one process is one core.
        one_core = {"TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1"}
        with harness.Worker(f"benchmarks.pretraining_data:{side}", given, one_core) as worker:
            return worker.run(key.split(" ", 1)[1])

    cases = {key: lambda key=key: case(key) for key in sides}
    return harness.rounds(cases, harness.FLAGS.repeats, warmup=0)


def _comparisons(measured: dict[str, list[harness.Measured]]) -> list[dict]:
    rates = {key: [one.rate for one in values] for key, values in measured.items()}
    rows = []
    for dupe, aim in ((1, 4.0), (5, 10.0)):
        other = rates[f"theirs {dupe}"]
        name = f"text a second, dupe_factor {dupe}"
        rows.append(comparison(f"{name}, 1 process", rates[f"ours {dupe} 1"], other, "MB/s", aim))
        rows.append(comparison(f"{name}, 2 processes", rates[f"ours {dupe} 2"], other, "MB/s"))
        peaks = (
            [one.peak_mb for one in measured[key]] for key in (f"ours {dupe} 1", f"theirs {dupe}")
        )
        rows.append(comparison(f"peak memory, dupe_factor {dupe}", *peaks, "MB"))
    return rows


def main(_) -> None:
    vocabulary = harness.data_folder("bert", "vocab", "bert-base-uncased.vocab.txt")
    folder = harness.FLAGS.text_dir or harness.data_folder("text", "en_wikipedia")
    with tempfile.TemporaryDirectory() as temporary:
        work = pathlib.Path(temporary)
        prepare_text(folder, work / "text.txt", harness.FLAGS.megabytes)
        measured = _measure(str(work / "text.txt"), vocabulary, work)
    result_files.write_results(
        harness.FLAGS.output or "pretraining_data",
        _comparisons(measured),
        {
            "megabytes": harness.FLAGS.megabytes,
            "max_seq_length": LENGTH,
            "other_side": "the script" if harness.FLAGS.bert_script else "its method, anew",
            "memory": "of the largest process",
            "records": {
                key: (values[-1].extra or {}).get("records") for key, values in measured.items()
            },
        },
        measurements={f"{k} (MB/s)": [one.rate for one in v] for k, v in measured.items()}
        | {f"{k} (MB)": [one.peak_mb for one in v] for k, v in measured.items()},
        seed=harness.FLAGS.seed,
    )


if __name__ == "__main__":
    harness.define_flags(repeats=3)
    flags.DEFINE_string("text_dir", None, "Folder of text; default: text/en_wikipedia.")
    flags.DEFINE_float("megabytes", 20.0, "Of text.", lower_bound=0.01)
    flags.DEFINE_string("bert_script", None, "create_pretraining_data.py of google-research/bert.")
    flags.DEFINE_string("bert_python", "python", "The Python that runs it; it needs TensorFlow 1.")
    app.run(main)
