"""Words to records: ours against growing prefixes, as the second XtremeDistil code makes pieces.

    python -m benchmarks.ner_features

Sentences of PAN-X, multilingual WordPiece vocabulary. Theirs tokenizes every prefix of a sentence
anew, takes what a word adds as its pieces, and pads to 128 in memory: with the tokenizer written in
Python, as published, and with the one in Rust that the successor has. Ours reads the same files and
ends with records on disk, index and checksums, some of it held out; all of it is tokenized again as
the transfer set, as theirs tokenizes a file of its own for that. Records a second are compared.
"""

from __future__ import annotations

import functools
import pathlib
import tempfile
from collections.abc import Callable

import numpy as np
from absl import app, flags

from benchmarks import harness, result_files
from benchmarks.result_files import comparison

LENGTH = 128
LANGUAGES = ("en", "de", "tr")

FLAGS = flags.FLAGS


def ours(task_dir: str, vocabulary: str, count: int) -> dict[str, Callable[[], float]]:
    """Task folder -> records."""
    from xdistil_tf.data.task_records import Options, create_task_records
    from xdistil_tf.data.tokenization import load_tokenizer

    tokenizer = load_tokenizer(vocabulary, do_lower_case=False)

    def create() -> float:
        with tempfile.TemporaryDirectory() as folder:
            info = create_task_records(
                task_dir, "ner", tokenizer, folder, None, Options(max_seq_length=LENGTH)
            )
            # Each text is made twice: to learn from or to select by, and to transfer.
            return sum(one["records"] for one in info.splits.values())

    return {"records": create}


def prefixes(task_dir: str, vocabulary: str, count: int) -> dict[str, Callable[[], float]]:
    """Growing prefixes, to padded arrays."""
    import transformers

    def create(tokenizer) -> float:
        ids, tags, total = [], [], 0
        for words, labels in _sentences(task_dir):
            pieces, owners = [], []
            for number in range(1, len(words) + 1):
                whole = tokenizer.tokenize(" ".join(words[:number]))
                owners += [labels[number - 1]] + ["X"] * (len(whole) - len(pieces) - 1)
                pieces = whole
            kept = pieces[: LENGTH - 2]
            row = tokenizer.convert_tokens_to_ids(["[CLS]", *kept, "[SEP]"])
            ids.append(row + [0] * (LENGTH - len(row)))
            tags.append(owners[: LENGTH - 2])
            total += 1
        np.array(ids, np.int32)
        return total

    return {
        name: functools.partial(create, kind(vocabulary, do_lower_case=False))
        for name, kind in (
            ("published", transformers.BertTokenizer),
            ("successor", transformers.BertTokenizerFast),
        )
    }


def _sentences(task_dir: str):
    for path in sorted(pathlib.Path(task_dir).glob("train-*.tsv")):
        words, labels = [], []
        for line in path.read_text(encoding="utf-8").split("\n"):
            if line.strip():
                word, _, label = line.partition("\t")
                words.append(word)
                labels.append(label)
            elif words:
                yield words, labels
                words, labels = [], []


def write_task(source: str, folder: str, count: int) -> None:
    """The first sentences of some languages."""
    for language in LANGUAGES:
        text = pathlib.Path(source, f"train-{language}.tsv").read_text(encoding="utf-8")
        chosen = text.strip().split("\n\n")[:count]
        path = pathlib.Path(folder, f"train-{language}.tsv")
        path.write_text("\n\n".join(chosen) + "\n\n", encoding="utf-8")


def main(_) -> None:
    panx = harness.data_folder("ner", "panx")
    vocabulary = harness.data_folder("bert", "vocab", FLAGS.vocabulary)
    with tempfile.TemporaryDirectory() as folder:
        write_task(panx, folder, FLAGS.sentences)
        arguments = {"task_dir": folder, "vocabulary": vocabulary, "count": FLAGS.sentences}
        with (
            harness.Worker("benchmarks.ner_features:ours", arguments) as mine,
            harness.Worker("benchmarks.ner_features:prefixes", arguments) as others,
        ):
            cases = {"ours": mine.case("records")}
            cases |= {name: others.case(name) for name in others.names}
            rates = harness.interleaved(cases, FLAGS.repeats)
    rows = [
        comparison(
            f"words to features, against the {name} code", rates["ours"], rates[name],
            "sentences/s", aim,
        )
        for name, aim in (("published", 20.0), ("successor", None))
    ]  # fmt: skip
    about = {"languages": list(LANGUAGES), "sentences": FLAGS.sentences * len(LANGUAGES)}
    result_files.write_results(
        FLAGS.output or "ner_features", rows, about, measurements=rates, seed=FLAGS.seed
    )


if __name__ == "__main__":
    harness.define_flags(repeats=5)
    flags.DEFINE_integer("sentences", 5000, "Of each language.", lower_bound=1)
    flags.DEFINE_string(
        "vocabulary", "bert-base-multilingual-cased.vocab.txt", "Below bert/vocab of --data_dir."
    )
    app.run(main)
