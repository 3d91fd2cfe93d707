"""`predict` of a tagging model on 10 MB and on 100 MB of raw text: peak memory and MB/s.

    python -m benchmarks.predict_memory

A (50, 100) BiLSTM with random weights, which finds an entity at most words: more output than a
trained model has. The text is that of PAN-X in three languages, repeated; no other side.
"""

from __future__ import annotations

import itertools
import pathlib
import tempfile
from collections.abc import Callable

from absl import app, flags

from benchmarks import harness, result_files
from benchmarks.latency_of_taggers import MAX_LENGTH, TAGS, read_texts
from benchmarks.result_files import comparison

SENTENCES_A_LINE = 4
STUDENT = {"embedding_dim": 50, "lstm_units": 100, "projection_dim": 384}

FLAGS = flags.FLAGS


def model_folder(folder: str, vocabulary: str, seed: int) -> dict[str, Callable[[], int]]:
    """Writes the student."""

    def make() -> int:
        from xdistil_tf import files
        from xdistil_tf.data.tokenization import load_tokenizer
        from xdistil_tf.models import bilstm, folders

        tokenizer = load_tokenizer(vocabulary)
        config = STUDENT | {
            "task_type": "tagging",
            "vocab_size": tokenizer.vocab_size,
            "num_labels": len(TAGS),
        }
        model = bilstm.BiLSTM.from_config_dict(config, "float32", seed)
        folders.save_model(model, folder, TAGS)
        tokenizer.save(folder)
        folders.write_labels(
            folder, folders.Labels("tagging", TAGS, metric="span_f1", pair=False, task="ner")
        )
        files.write_json(pathlib.Path(folder) / "xdistil.json", {"max_seq_length": MAX_LENGTH})
        return 1

    return {"make": make}


def prediction(folder: str, text: str) -> dict[str, Callable[[], harness.Measured]]:
    """`predict_file`; units are MB of text."""
    from xdistil_tf import predict

    predictor = predict.Predictor(folder)

    def run() -> tuple[float, dict]:
        answers = pathlib.Path(text).with_suffix(".jsonl")
        lines = predict.predict_file(predictor, text, str(answers))
        size = answers.stat().st_size
        answers.unlink()
        return pathlib.Path(text).stat().st_size / 1e6, {"lines": lines, "output_bytes": size}

    return {"predict": run}


def write_text(path: pathlib.Path, sentences: list[str], megabytes: int) -> None:
    """Lines of some sentences each, over and over, until the file is as large as asked for."""
    size, source = 0, itertools.cycle(sentences)
    with path.open("w", encoding="utf-8") as handle:
        while size < megabytes * 1_000_000:
            line = " ".join(itertools.islice(source, SENTENCES_A_LINE)) + "\n"
            size += len(line.encode("utf-8"))
            handle.write(line)


def main(_) -> None:
    vocabulary = harness.data_folder("bert", "vocab", "bert-base-multilingual-cased.vocab.txt")
    sentences = read_texts(harness.data_folder("ner", "panx"))
    small, large = (int(size) for size in FLAGS.megabytes)
    measured: dict[int, list[harness.Measured]] = {small: [], large: []}
    with tempfile.TemporaryDirectory() as temporary:
        folder = str(pathlib.Path(temporary) / "model")
        pathlib.Path(folder).mkdir()
        arguments = {"folder": folder, "vocabulary": vocabulary, "seed": FLAGS.seed}
        with harness.Worker("benchmarks.predict_memory:model_folder", arguments) as worker:
            worker.run("make")
        text = pathlib.Path(temporary) / "raw.txt"
        for _, size in itertools.product(range(FLAGS.repeats), (small, large)):
            write_text(text, sentences, size)
            # A process of its own each time: the peak is that of its whole life.
            arguments = {"folder": folder, "text": str(text)}
            with harness.Worker("benchmarks.predict_memory:prediction", arguments) as worker:
                measured[size].append(worker.run("predict"))
    peaks = {size: [one.peak_mb for one in values] for size, values in measured.items()}
    name = f"peak memory with {large} MB of text against {small} MB"
    result_files.write_results(
        FLAGS.output or "predict_memory",
        [comparison(name, peaks[large], peaks[small], "MB", 0.95)],
        {
            "student": STUDENT,
            "megabytes_a_second": {
                str(size): round(values[-1].rate, 4) for size, values in measured.items()
            },
            "answers": {str(size): values[-1].extra for size, values in measured.items()},
        },
        measurements={f"{size} MB of text (MB)": values for size, values in peaks.items()}
        | {
            f"{size} MB of text (s)": [one.seconds for one in values]
            for size, values in measured.items()
        },
        seed=FLAGS.seed,
    )


if __name__ == "__main__":
    harness.define_flags(repeats=1)
    flags.DEFINE_list("megabytes", ["10", "100"], "Sizes of the two files.")
    app.run(main)
