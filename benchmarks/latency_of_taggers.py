"""From raw text to entities: BiLSTM students, MiniLM, a BERT-base-sized teacher, all on one path.

    python -m benchmarks.latency --students=tagging

Sentences of PAN-X dev in three languages through the path of `predict`: words of the raw text, Rust
tokenizer, windows, compiled model, tags, entities with offsets. Beside it, for the students, their
SavedModel in float32, strings in and entities out. Speed does not depend on the weights, so all but
MiniLM's encoder are random; a random tagger finds an entity at most words, so entities are no
saving. Printed beside: the paper's table (Mukherjee & Hassan Awadallah, ACL 2020).
"""

from __future__ import annotations

import itertools
import pathlib
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence

from benchmarks import harness, result_files
from benchmarks.result_files import comparison
from benchmarks.text_to_labels import (
    BATCHES,
    milliseconds_of_calls,
    percentiles_of,
    summaries_of,
    timed_calls,
)

# Width of the embeddings and units of the LSTM; the paper's speed-ups at batch 32 and batch 1.
STUDENTS = {(300, 600): (14, 8), (300, 200): (40, 15), (50, 200): (51, 16), (50, 100): (77, 16)}
TEACHERS = ("bert_base", "minilm")
SIDES = ("predict float32", "predict bfloat16")
SAVED = "saved_model float32"
TAGS = ("B-LOC", "B-ORG", "B-PER", "I-LOC", "I-ORG", "I-PER", "O")
LANGUAGES = ("en", "de", "tr")
MAX_LENGTH = 128
_SENTENCES = 640  # Of each language.

Cases = dict[str, Callable[[], harness.Measured]]


def _models(minilm: str, precision: str, vocabulary: int, seed: int) -> dict:
    from xdistil_tf.models import bilstm, encoder, layers, pretrained

    head = {"kind": "tagging", "num_labels": len(TAGS)}
    models = {
        "bert_base": encoder.Encoder.from_config_dict({"head": head}, precision, seed),
        "minilm": pretrained.load_encoder(
            minilm, head=head, precision=precision, allow_missing_head=True, seed=seed
        ),
    }
    for dim, units in STUDENTS:
        config = {
            "task_type": "tagging",
            "vocab_size": vocabulary,
            "embedding_dim": dim,
            "lstm_units": units,
            "projection_dim": 768,
            "num_labels": len(TAGS),
        }
        models[_name(dim, units)] = bilstm.BiLSTM.from_config_dict(config, precision, seed)
    return {name: layers.only_run(model) for name, model in models.items()}


def _name(dim: int, units: int) -> str:
    return f"student_{dim}_{units}"


def paths(folder: str, vocabulary: str, minilm: str, calls: Mapping[str, int], seed: int) -> Cases:
    """A case for each model, side and batch size; its `extra` is ms of each call."""
    from xdistil_tf.data.tokenization import load_tokenizer
    from xdistil_tf.predict_tags import Tagger
    from xdistil_tf.predictions import logits_function
    from xdistil_tf.tag_decoding import decoder_of

    tokenizer, texts = load_tokenizer(vocabulary), read_texts(folder)
    cases: Cases = {}
    for side in SIDES:
        precision = side.split()[1]
        for name, model in _models(minilm, precision, tokenizer.vocab_size, seed).items():
            tagger = Tagger(logits_function(model), decoder_of(model), tokenizer, TAGS, MAX_LENGTH)

            def path(some, _, tagger=tagger) -> list:
                return list(tagger.rows(some, len(some)))

            cases |= _cases(path, f"{name}/{side}", texts, calls)
            if precision == "float32" and name not in TEACHERS:
                cases |= _cases(_saved(model, tokenizer), f"{name}/{SAVED}", texts, calls)
    return cases


def _cases(path: Callable, name: str, texts: Sequence[str], calls: Mapping[str, int]) -> Cases:
    return {
        f"{name}/{batch}": timed_calls(path, list(texts), batch, None, calls[str(batch)])
        for batch in BATCHES
    }


def _saved(model, tokenizer) -> Callable:
    """The exported SavedModel of a student, loaded again."""
    import tensorflow as tf

    from xdistil_tf.export.saved_model import ServedTask, export_saved_model

    with tempfile.TemporaryDirectory() as folder:
        export_saved_model(
            model,
            tokenizer,
            ServedTask("tagging", TAGS),
            pathlib.Path(folder) / "saved",
            max_seq_length=MAX_LENGTH,
        )
        loaded = tf.saved_model.load(str(pathlib.Path(folder) / "saved"))

    def serve(some, _) -> list:
        answer = loaded.signatures["serving_default"](text=tf.constant(some))
        return [value.numpy() for value in answer.values()]

    return serve


def read_texts(folder: str) -> list[str]:
    """Sentences of the languages in turn, their words joined by spaces."""
    found = []
    for language in LANGUAGES:
        path = pathlib.Path(folder, f"dev-{language}.tsv")
        blocks = path.read_text(encoding="utf-8").strip().split("\n\n")[:_SENTENCES]
        found.append(
            [" ".join(line.split("\t")[0] for line in block.split("\n")) for block in blocks]
        )
    return list(itertools.chain.from_iterable(zip(*found, strict=True)))


def _best(percentiles, name: str, batch: int) -> tuple[str, float]:
    """The side of `predict` with the smaller p50, and that p50."""
    medians = {side: percentiles[f"{name}/{side}/{batch}"][0] for side in SIDES}
    side = min(medians, key=medians.get)
    return side, medians[side]


def _comparisons(percentiles) -> list[dict]:
    rows = []
    for batch, (dim, units), teacher in itertools.product(reversed(BATCHES), STUDENTS, TEACHERS):
        mine = _best(percentiles, _name(dim, units), batch)
        theirs = _best(percentiles, teacher, batch)
        main = (dim, units, batch, teacher) == (50, 200, 32, "bert_base")
        name = f"({dim}, {units}), {mine[0]}, against {teacher}, {theirs[0]}, batch {batch}, p50"
        rows.append(comparison(name, mine[1], theirs[1], "ms", 50.0 if main else None))
    return sorted(rows, key=lambda row: row["aim"] is None)


def _table(percentiles) -> str:
    """p50 / p95 in ms, and how many times as fast as BERT-base, with the paper's ratio beside."""
    header = " | ".join(f"batch {batch}" for batch in BATCHES)
    lines = ["", f"model | side | {header} | the paper's: batch 32, batch 1"]
    paper = {_name(*sizes): "{}x, {}x".format(*ratios) for sizes, ratios in STUDENTS.items()}
    for name in (*TEACHERS, *paper):
        for side in (*SIDES, SAVED):
            if f"{name}/{side}/{BATCHES[0]}" not in percentiles:
                continue
            cells = []
            for batch in BATCHES:
                p50, p95 = percentiles[f"{name}/{side}/{batch}"]
                base = _best(percentiles, "bert_base", batch)[1]
                cells.append(f"{p50:.2f} / {p95:.2f} ({base / p50:.1f}x)")
            lines.append(" | ".join([name, side, *cells, paper.get(name, "")]))
    return "\n".join(lines) + "\n"


def measure(arguments: dict) -> None:
    """Measures all models in turn and writes the result."""
    folder = harness.data_folder("ner", "panx")
    with harness.Worker(
        "benchmarks.latency_of_taggers:paths", arguments | {"folder": folder}
    ) as worker:
        cases = {name: worker.case(name) for name in worker.names}
        measured = harness.rounds(cases, harness.FLAGS.repeats)
    calls = milliseconds_of_calls(measured)
    percentiles = percentiles_of(calls)
    sys.stdout.write(_table(percentiles))
    result_files.write_results(
        harness.FLAGS.output or "latency_of_taggers",
        _comparisons(percentiles),
        {
            "data": f"PAN-X dev, {', '.join(LANGUAGES)} in turn, words joined by spaces",
            "milliseconds": summaries_of(calls),
            "paper": {
                f"{dim}, {units}": {"speed_up_batch_32": many, "speed_up_batch_1": one}
                for (dim, units), (many, one) in STUDENTS.items()
            },
        },
        measurements={f"{name} (ms)": ms for name, ms in calls.items()},
        seed=harness.FLAGS.seed,
    )
