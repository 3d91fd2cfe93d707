"""From raw text to labels: transformer students as SavedModels, and in PyTorch and ONNX Runtime.

    python -m benchmarks.latency --students=transformer

Each student and the teachers (BERT-base's size, MiniLM's size) have one set of random weights on
all sides; speed does not depend on them. Ours is the exported SavedModel, strings in, tokenized in
its graph; in bfloat16 it is the same folder, rewritten by TensorFlow's own pass as it is loaded,
and beside it the path of `predict`. The other sides get the Rust tokenizer and the same padding to
the longest text of a batch. ONNX files are exported from PyTorch and fused by ONNX Runtime's own
optimizer for BERT; its CPU kernels have no bfloat16.
"""

from __future__ import annotations

import functools
import pathlib
import sys
import tempfile
from collections.abc import Callable, Mapping

import numpy as np

from benchmarks import harness, result_files, text_to_labels
from benchmarks.result_files import comparison

# Layers, width, heads, inner width.
MODELS = {
    "bert_base": (12, 768, 12, 3072),
    "minilm_6x384": (6, 384, 12, 1536),
    "6x768": (6, 768, 12, 3072),
    "4x312": (4, 312, 12, 1200),
    "3x384": (3, 384, 12, 1536),
}
STUDENTS = ("6x768", "4x312", "3x384")
TEACHERS = ("bert_base", "minilm_6x384")
SAVED = ("saved_model float32", "saved_model bfloat16")
OURS = (*SAVED, "predict bfloat16")
PYTORCH = ("pytorch float32", "pytorch bfloat16")
ONNX = ("onnxruntime float32",)
# Jiao et al., 2020, table 1: 9.4 times as fast as BERT-base; section 4.2.
PAPER = 9.4
_FIELDS = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size")
_CHECKED = 64  # Sentences whose labels are compared.
_INPUTS = ("input_ids", "attention_mask", "token_type_ids")

Cases = dict[str, Callable[[], harness.Measured]]


def prepare(work_dir: str, vocabulary: str, seed: int) -> Cases:
    """Writes a Hugging Face folder and a SavedModel of each model."""

    def make() -> float:
        from xdistil_tf.data.tokenization import load_tokenizer
        from xdistil_tf.export.saved_model import ServedTask, export_saved_model
        from xdistil_tf.models import encoder, pretrained

        tokenizer = load_tokenizer(vocabulary)
        task = ServedTask("classification", text_to_labels.LABELS)
        for name, sizes in MODELS.items():
            config = dict(zip(_FIELDS, sizes, strict=True)) | {
                "vocab_size": tokenizer.vocab_size,
                "head": {"kind": "classification", "num_labels": len(text_to_labels.LABELS)},
            }
            model = encoder.Encoder.from_config_dict(config, "float32", seed)
            folder = _folder(work_dir, name)
            pretrained.save_encoder(model, str(folder), text_to_labels.LABELS)
            tokenizer.save(folder)
            export_saved_model(model, tokenizer, task, folder / "saved")
        return len(MODELS)

    return {"make": make}


def prepare_onnx(work_dir: str) -> Cases:
    """Writes an ONNX file of each model, its attention and layer norms fused."""

    def make() -> float:
        import torch
        import transformers
        from onnxruntime.transformers import optimizer

        for name, (_, width, heads, _) in MODELS.items():
            folder = _folder(work_dir, name)
            model = transformers.BertForSequenceClassification.from_pretrained(
                str(folder), attn_implementation="eager"
            ).eval()
            example = torch.ones((2, 8), dtype=torch.long)
            torch.onnx.export(
                model,
                (example,) * len(_INPUTS),
                str(folder / "plain.onnx"),
                input_names=list(_INPUTS),
                output_names=["logits"],
                dynamic_axes=dict.fromkeys(_INPUTS, {0: "batch", 1: "length"})
                | {"logits": {0: "batch"}},
                opset_version=17,
                dynamo=False,
            )
            fused = optimizer.optimize_model(
                str(folder / "plain.onnx"), "bert", num_heads=heads, hidden_size=width
            )
            if not fused.get_fused_operator_statistics().get("Attention"):
                raise RuntimeError(f"ONNX Runtime's optimizer fused no attention of {name}.")
            fused.save_model_to_file(str(folder / "fused.onnx"))
        return len(MODELS)

    return {"make": make}


def saved_models(
    work_dir: str, sentences: str, vocabulary: str, calls: Mapping[str, int], seed: int,
    precision: str,
) -> Cases:  # fmt: skip
    """The SavedModels, strings in."""
    import tensorflow as tf
    import tensorflow_text  # noqa: F401 - the ops of the tokenizer in the graph

    del vocabulary, seed  # Both are in the folders.
    if precision == "bfloat16":
        tf.config.optimizer.set_experimental_options({"auto_mixed_precision_onednn_bfloat16": True})
    paths = {}
    for name in MODELS:
        loaded = tf.saved_model.load(str(_folder(work_dir, name) / "saved"))
        paths[name] = functools.partial(_serve, loaded)
    return _cases(paths, f"saved_model {precision}", sentences, calls)


def _serve(loaded, texts: list[str], _) -> list[str]:
    import tensorflow as tf

    answer = loaded.signatures["serving_default"](text=tf.constant(texts))
    return [one.decode() for one in answer["label"].numpy()]


def predictors(
    work_dir: str, sentences: str, vocabulary: str, calls: Mapping[str, int], seed: int
) -> Cases:
    """The path of `predict` in bfloat16."""
    from xdistil_tf.data.tokenization import load_tokenizer
    from xdistil_tf.models import folders

    del seed
    tokenizer = load_tokenizer(vocabulary)
    paths = {
        name: text_to_labels.TextToLabels(
            folders.load_model(_folder(work_dir, name), "bfloat16", only_run=True), tokenizer
        )
        for name in MODELS
    }
    return _cases(paths, "predict bfloat16", sentences, calls)


def pytorch(
    work_dir: str, sentences: str, vocabulary: str, calls: Mapping[str, int], seed: int
) -> Cases:
    """`BertForSequenceClassification` of transformers, with its fused attention."""
    import torch
    import transformers

    from xdistil_tf.data.tokenization import load_tokenizer

    del seed
    torch.set_num_threads(harness.THREADS)
    tokenizer = load_tokenizer(vocabulary)

    def path(model, texts, _) -> list[str]:
        given = _renamed(
            text_to_labels.features(tokenizer, texts), lambda one: torch.from_numpy(one)
        )
        with torch.inference_mode():
            return text_to_labels.label_names(model(**given).logits.float().numpy())

    cases: Cases = {}
    for side in PYTORCH:
        precision, paths = side.split()[1], {}
        for name in MODELS:
            model = transformers.BertForSequenceClassification.from_pretrained(
                str(_folder(work_dir, name)), attn_implementation="sdpa"
            )
            model = model.eval().to(getattr(torch, precision))
            paths[name] = functools.partial(path, model)
        cases |= _cases(paths, side, sentences, calls)
    return cases


def onnxruntime(
    work_dir: str, sentences: str, vocabulary: str, calls: Mapping[str, int], seed: int
) -> Cases:
    """Sessions of ONNX Runtime over the fused files."""
    import onnxruntime as runtime

    from xdistil_tf.data.tokenization import load_tokenizer

    del seed
    tokenizer, options = load_tokenizer(vocabulary), runtime.SessionOptions()
    options.intra_op_num_threads = harness.THREADS

    def path(session, texts, _) -> list[str]:
        given = _renamed(text_to_labels.features(tokenizer, texts), lambda one: one)
        return text_to_labels.label_names(session.run(["logits"], given)[0])

    paths = {}
    for name in MODELS:
        file = str(_folder(work_dir, name) / "fused.onnx")
        session = runtime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        paths[name] = functools.partial(path, session)
    return _cases(paths, ONNX[0], sentences, calls)


def _folder(work_dir: str, name: str) -> pathlib.Path:
    return pathlib.Path(work_dir, name)


def _renamed(arrays: Mapping[str, np.ndarray], convert: Callable) -> dict:
    """Our features under the names of transformers, as int64."""
    values = (arrays[name] for name in ("input_ids", "input_mask", "segment_ids"))
    return {
        name: convert(value.astype(np.int64)) for name, value in zip(_INPUTS, values, strict=True)
    }


def _cases(paths: Mapping[str, Callable], side: str, sentences: str, calls) -> Cases:
    """Timed calls of each model and batch size, and the labels of some sentences."""
    texts = text_to_labels.read_sentences(sentences)
    cases: Cases = {}
    for name, path in paths.items():
        for batch in text_to_labels.BATCHES:
            cases[f"{name}/{side}/{batch}"] = text_to_labels.timed_calls(
                path, texts, batch, None, calls[str(batch)]
            )
        cases[f"{name}/{side}/labels"] = lambda path=path: (
            _CHECKED,
            list(path(texts[:_CHECKED], None)),
        )
    return cases


def measure(arguments: dict) -> None:
    """Makes the models, measures all sides in turn and writes the result."""
    with tempfile.TemporaryDirectory() as work_dir:
        arguments = arguments | {"work_dir": work_dir}
        _make("prepare", {k: arguments[k] for k in ("work_dir", "vocabulary", "seed")}, {})
        _make("prepare_onnx", {"work_dir": work_dir}, harness.TORCH_ONLY)
        measured = _measure_sides(arguments)
    agreement = _agreement({k: v[-1].extra for k, v in measured.items() if k.endswith("/labels")})
    timed = {name: values for name, values in measured.items() if not name.endswith("/labels")}
    calls = text_to_labels.milliseconds_of_calls(timed)
    percentiles = text_to_labels.percentiles_of(calls)
    sys.stdout.write(_table(percentiles))
    result_files.write_results(
        harness.FLAGS.output or "latency_of_encoders",
        _comparisons(percentiles),
        {
            "data": "SST-2 dev, in the order of the file; padded to the longest of a batch",
            "milliseconds": text_to_labels.summaries_of(calls),
            "labels_equal_to_saved_model_float32": agreement,
            "paper": {"4x312": PAPER},
            "onnxruntime": result_files.package_version("onnxruntime"),
        },
        measurements={f"{name} (ms)": ms for name, ms in calls.items()},
        seed=harness.FLAGS.seed,
    )


def _make(factory: str, arguments: dict, environment: Mapping[str, str]) -> None:
    place = f"benchmarks.latency_of_encoders:{factory}"
    with harness.Worker(place, arguments, environment) as worker:
        worker.run("make")


def _measure_sides(arguments: dict) -> dict[str, list[harness.Measured]]:
    sides = {
        "saved_models float32": ({"precision": "float32"}, {}),
        "saved_models bfloat16": ({"precision": "bfloat16"}, {}),
        "predictors": ({}, {}),
        "pytorch": ({}, harness.TORCH_ONLY),
        "onnxruntime": ({}, harness.TORCH_ONLY),
    }
    cases: dict[str, Callable] = {}
    workers = []
    try:
        for side, (more, environment) in sides.items():
            place = f"benchmarks.latency_of_encoders:{side.split()[0]}"
            workers.append(harness.Worker(place, arguments | more, environment))
            cases |= {name: workers[-1].case(name) for name in workers[-1].names}
        # One model on all sides, then the next: what slows the machine slows all sides of a row.
        ordered = sorted(cases, key=lambda name: (name.split("/")[0], name.split("/")[2]))
        return harness.rounds({name: cases[name] for name in ordered}, harness.FLAGS.repeats)
    finally:
        for worker in workers:
            worker.close()


def _agreement(labels: Mapping[str, list[str]]) -> dict[str, float]:
    """Share of equal labels of each model and side."""
    shares = {}
    for key, found in labels.items():
        name, side, _ = key.split("/")
        wanted = labels[f"{name}/{SAVED[0]}/labels"]
        equal = sum(one == other for one, other in zip(found, wanted, strict=True))
        shares[f"{name}/{side}"] = round(equal / len(wanted), 4)
    return shares


def _best(percentiles, name: str, sides: tuple[str, ...], batch: int) -> tuple[str, float]:
    """The fastest of some sides, and its p50."""
    medians = {side: percentiles[f"{name}/{side}/{batch}"][0] for side in sides}
    side = min(medians, key=medians.get)
    return side, medians[side]


def _comparisons(percentiles) -> list[dict]:
    rows = []
    for batch in reversed(text_to_labels.BATCHES):
        for student in STUDENTS:
            mine = _best(percentiles, student, SAVED, batch)
            main = student == "4x312" and batch == 32
            for teacher in TEACHERS:
                theirs = _best(percentiles, teacher, SAVED, batch)
                aim = 12.0 if main and teacher == "bert_base" else None
                rows.append(_row(student, mine, teacher, theirs, batch, aim))
            for sides, aim in ((ONNX, 0.95 if main else None), (PYTORCH, None)):
                rows.append(
                    _row(
                        student,
                        mine,
                        student,
                        _best(percentiles, student, sides, batch),
                        batch,
                        aim,
                    )
                )
                same = SAVED[0], percentiles[f"{student}/{SAVED[0]}/{batch}"][0]
                first = sides[0], percentiles[f"{student}/{sides[0]}/{batch}"][0]
                if (mine[0], sides[0]) != (same[0], first[0]):
                    rows.append(_row(student, same, student, first, batch, None))
    return sorted(rows, key=lambda row: row["aim"] is None)


def _row(student, mine, other: str, theirs, batch: int, aim: float | None) -> dict:
    name = f"{student}, {mine[0]}, against {other}, {theirs[0]}, batch {batch}, p50"
    return comparison(name, mine[1], theirs[1], "ms", aim)


def _table(percentiles) -> str:
    """p50 / p95 in ms, and how many times as fast as BERT-base as a SavedModel."""
    header = " | ".join(f"batch {batch}" for batch in text_to_labels.BATCHES)
    lines = ["", f"model | side | {header}"]
    for name in MODELS:
        for side in (*OURS, *PYTORCH, *ONNX):
            cells = []
            for batch in text_to_labels.BATCHES:
                p50, p95 = percentiles[f"{name}/{side}/{batch}"]
                base = _best(percentiles, "bert_base", SAVED, batch)[1]
                cells.append(f"{p50:.2f} / {p95:.2f} ({base / p50:.1f}x)")
            lines.append(" | ".join([name, side, *cells]))
    return "\n".join(lines) + "\n"
