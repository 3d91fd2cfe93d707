"""From raw text to labels: students, MiniLM and a BERT-base-sized teacher, all on one path.

    python -m benchmarks.latency                           # BiLSTM students
    python -m benchmarks.latency --students=transformer    # see `latency_of_encoders`
    python -m benchmarks.latency --students=tagging        # see `latency_of_taggers`

Sentences of SST-2 dev, in the order of the file, through the path of `predict`: Rust tokenizer,
padding, compiled model, label names. Speed does not depend on the weights, so all but MiniLM's
encoder are random. Printed beside: the paper's table (Mukherjee & Hassan Awadallah, ACL 2020;
batch 32 on a P100, batch 1 on a Xeon, length 32, against multilingual BERT, which has the layers
of BERT-base).
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Mapping

from absl import app, flags

from benchmarks import harness, latency_of_encoders, latency_of_taggers, result_files
from benchmarks.result_files import comparison
from benchmarks.text_to_labels import (
    BATCHES,
    MAX_LENGTH,
    TextToLabels,
    milliseconds_of_calls,
    percentiles_of,
    read_sentences,
    summaries_of,
    timed_calls,
)

STUDENTS = {(300, 600): (14, 8), (300, 200): (40, 15), (50, 200): (51, 16), (50, 100): (77, 16)}
PRECISIONS = ("float32", "bfloat16")
# The paper's protocol, and what `predict` does: as long as the longest of the batch.
PADDINGS = {"padded_32": 32, "dynamic": None}


def _models(minilm: str, precision: str, vocabulary: int, seed: int) -> dict:
    from xdistil_tf.models import bilstm, encoder, layers, pretrained

    head = {"kind": "classification", "num_labels": 2}
    models = {
        "bert_base": encoder.Encoder.from_config_dict({"head": head}, precision, seed),
        "minilm": pretrained.load_encoder(
            minilm, head=head, precision=precision, allow_missing_head=True, seed=seed
        ),
    }
    for dim, units in STUDENTS:
        config = {
            "vocab_size": vocabulary,
            "embedding_dim": dim,
            "lstm_units": units,
            "projection_dim": 768,
            "num_labels": 2,
        }
        models[f"student_{dim}_{units}"] = bilstm.BiLSTM.from_config_dict(config, precision, seed)
    return {name: layers.only_run(model) for name, model in models.items()}


def paths(
    sentences: str, vocabulary: str, minilm: str, calls: Mapping[str, int], seed: int
) -> dict[str, Callable[[], harness.Measured]]:
    """A case for each model, precision, padding and batch size; its `extra` is ms of each call.

    Every case goes through the same batches, `calls` of them each time it is run.
    """
    from xdistil_tf.data.tokenization import load_tokenizer

    tokenizer = load_tokenizer(vocabulary)
    texts = read_sentences(sentences)
    cases = {}
    for precision in PRECISIONS:
        for name, model in _models(minilm, precision, tokenizer.vocab_size, seed).items():
            path = TextToLabels(model, tokenizer)
            for (padding, pad_to), batch in itertools.product(PADDINGS.items(), BATCHES):
                cases[f"{name}/{precision}/{padding}/{batch}"] = timed_calls(
                    path, texts, batch, pad_to, calls[str(batch)]
                )
    for batch in BATCHES:
        cases[f"tokenizer alone/-/-/{batch}"] = timed_calls(
            lambda some, _: tokenizer.encode_batch(some, max_length=MAX_LENGTH),
            texts,
            batch,
            None,
            calls[str(batch)],
        )
    return cases


def _table(percentiles: Mapping[str, tuple[float, float]]) -> str:
    """p50 / p95 in ms, and how many times as fast as BERT-base, with the paper's ratio beside."""
    columns = [(padding, batch) for batch in BATCHES for padding in PADDINGS]
    header = " | ".join(f"batch {batch} {padding}" for padding, batch in columns)
    lines = ["", f"model | precision | {header} | the paper's: batch 32, batch 1"]
    for name in ["bert_base", "minilm", *(f"student_{d}_{u}" for d, u in STUDENTS)]:
        for precision in PRECISIONS:
            cells = []
            for padding, batch in columns:
                p50, p95 = percentiles[f"{name}/{precision}/{padding}/{batch}"]
                base = _best(percentiles, "bert_base", padding, batch)[1]
                cells.append(f"{p50:.2f} / {p95:.2f} ({base / p50:.1f}x)")
            sizes = tuple(int(one) for one in name.split("_")[1:] if one.isdigit())
            paper = "{}x, {}x".format(*STUDENTS[sizes]) if sizes else ""
            lines.append(" | ".join([name, precision, *cells, paper]))
    return "\n".join(lines) + "\n"


def _best(percentiles, name: str, padding: str, batch: int) -> tuple[str, float]:
    """The precision with the smaller p50, and that p50."""
    medians = {p: percentiles[f"{name}/{p}/{padding}/{batch}"][0] for p in PRECISIONS}
    precision = min(medians, key=medians.get)
    return precision, medians[precision]


def _comparisons(percentiles) -> list[dict]:
    rows = []
    for padding, batch in itertools.product(PADDINGS, reversed(BATCHES)):
        for dim, units in STUDENTS:
            mine = _best(percentiles, f"student_{dim}_{units}", padding, batch)
            for other, goal in (("bert_base", 50.0), ("minilm", 6.0)):
                theirs = _best(percentiles, other, padding, batch)
                aim = goal if (dim, units) == (50, 200) and batch == 32 else None
                name = (
                    f"student ({dim}, {units}) {mine[0]} against {other} {theirs[0]}, "
                    f"batch {batch}, {padding}, p50"
                )
                rows.append(comparison(name, mine[1], theirs[1], "ms", aim))
    # First those with an aim.
    return sorted(rows, key=lambda row: row["aim"] is None)


def main(_) -> None:
    arguments = {
        "sentences": harness.data_folder("glue", "SST-2") + "/dev.tsv",
        "vocabulary": harness.data_folder("bert", "vocab", "bert-base-uncased.vocab.txt"),
        "calls": {"1": harness.FLAGS.calls_1, "32": harness.FLAGS.calls_32},
        "seed": harness.FLAGS.seed,
    }
    if harness.FLAGS.students == "transformer":
        latency_of_encoders.measure(arguments)
        return
    arguments["minilm"] = harness.minilm_folder()
    if harness.FLAGS.students == "tagging":
        del arguments["sentences"]
        latency_of_taggers.measure(arguments)
    else:
        _measure_bilstms(arguments)


def _measure_bilstms(arguments: dict) -> None:
    with harness.Worker("benchmarks.latency:paths", arguments) as worker:
        cases = {name: worker.case(name) for name in worker.names}
        measured = harness.rounds(cases, harness.FLAGS.repeats)
    calls = milliseconds_of_calls(measured)
    percentiles = percentiles_of(calls)
    sys.stdout.write(_table(percentiles))
    result_files.write_results(
        harness.FLAGS.output or "latency",
        _comparisons(percentiles),
        {
            "data": "SST-2 dev, in the order of the file",
            "milliseconds": summaries_of(calls),
            "paper": {
                f"{dim}, {units}": {"speed_up_batch_32": many, "speed_up_batch_1": one}
                for (dim, units), (many, one) in STUDENTS.items()
            },
        },
        measurements={f"{name} (ms)": ms for name, ms in calls.items()},
        seed=harness.FLAGS.seed,
    )


if __name__ == "__main__":
    harness.define_flags(repeats=5)
    flags.DEFINE_enum("students", "bilstm", ["bilstm", "transformer", "tagging"], "Which table.")
    flags.DEFINE_integer("calls_1", 40, "Calls of a round at batch 1.", lower_bound=1)
    flags.DEFINE_integer("calls_32", 10, "Calls of a round at batch 32.", lower_bound=1)
    app.run(main)
