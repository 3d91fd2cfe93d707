"""What soft labels cost: bytes on disk, the labelling pass, and a step with a cache against live.

    python -m benchmarks.soft_labels

Records of random ids, 128 tokens with 19 masked slots of 20, as full sequences of BERT have them.
The teacher has BERT-base's size and random weights, the student 4 layers of width 256; ten words a
slot. Bytes are those of all files of the words, ids and offsets included, by real slots. A step is
an update of the student on a batch: soft labels and next sentences. The time of a pass includes
its tracing; of a step it does not.
"""

from __future__ import annotations

import itertools
import pathlib
import shutil
import tempfile
import time
from collections.abc import Callable

import numpy as np
from absl import app, flags

from benchmarks import harness, result_files
from benchmarks.result_files import comparison

SLOTS, REAL, TOP_K = 20, 19, 10
# Bytes of a slot.
AIMS = {"float16": 56, "uint8": 40}
STUDENT = {
    "hidden_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 1024,
}
TEACHERS = {
    "base": {"vocab_size": 30_522},
    "tiny": {"vocab_size": 500, **STUDENT, "hidden_size": 64, "num_hidden_layers": 2},
}


def _write_records(folder: pathlib.Path, sequences: int, length: int, vocabulary: int, seed: int):
    from xdistil_tf.data import records
    from xdistil_tf.data.record_set import RecordSet

    random = np.random.default_rng(seed)
    unused = [0] * (SLOTS - REAL)
    made = (
        {
            "id": f"train:{number}".encode(),
            "input_ids": random.integers(1, vocabulary, length).tolist(),
            "input_mask": [1] * length,
            "segment_ids": [0] * (length // 2) + [1] * (length - length // 2),
            "masked_lm_positions": [*sorted(random.permutation(length)[:REAL].tolist()), *unused],
            "masked_lm_ids": [*random.integers(1, vocabulary, REAL).tolist(), *unused],
            "masked_lm_weights": [1.0] * REAL + [0.0] * (SLOTS - REAL),
            "next_sentence_labels": [number % 2],
        }
        for number in range(sequences)
    )
    folder.mkdir(parents=True, exist_ok=True)
    records.write_records(folder, "train", made, sequences, 1)
    return RecordSet(str(folder / "train-*"))


def _encoder(sizes: dict, precision: str, seed: int):
    from xdistil_tf.models.encoder import Encoder

    head = {"kind": "pretraining", "next_sentence": True}
    return Encoder.from_config_dict({**sizes, "head": head}, precision=precision, seed=seed)


def _label(teacher, records, folder: pathlib.Path, precision: str, batch_size: int):
    from xdistil_tf import cache, outputs

    spec = cache.CacheSpec(
        request={outputs.TOP_K: None},
        layer=None,
        depth=teacher.depth,
        precision=precision,
        teacher="random weights",
        tokenizer="none",
        compute=teacher.precision,
        top_k=teacher.top_k,
    )
    return cache.write_cache(teacher, spec, [records], folder, None, batch_size)


def cases(
    work_dir: str, teacher: str, precision: str, sequences: int, length: int, batch_size: int,
    steps: int, seed: int,
) -> dict[str, Callable[[], harness.Measured]]:  # fmt: skip
    """The passes, one a precision of what is kept, and updates with a cache and a live teacher."""
    from xdistil_tf.teachers import LiveTeacher

    work = pathlib.Path(work_dir)
    sizes = TEACHERS[teacher]
    records = _write_records(work / "records", sequences, length, sizes["vocab_size"], seed)
    live = LiveTeacher(_encoder(sizes, precision, seed), top_k=TOP_K)

    def label(kept: str) -> harness.Measured:
        folder = work / "pass"
        shutil.rmtree(folder, ignore_errors=True)
        began = time.perf_counter()
        info = _label(live, records, folder, kept, batch_size).info
        seconds = time.perf_counter() - began
        size = sum(path.stat().st_size for path in folder.glob("*.masked_lm_top_k.*"))
        extra = {"bytes_per_slot": size / info["slots"], "largest_error": info["largest_error"]}
        return harness.Measured(len(records), seconds, extra, harness.peak_mb())

    made = {f"label {kept}": lambda kept=kept: label(kept) for kept in AIMS}
    cached = _label(live, records, work / "cache", "float16", batch_size)
    for name, one in (("cached", cached), ("live", live)):
        student = _encoder(STUDENT | {"vocab_size": sizes["vocab_size"]}, precision, seed + 1)
        made[f"step {name}"] = _updates(student, one, records, batch_size, steps)
    return made


def _updates(student, teacher, records, batch_size: int, steps: int) -> Callable[[], float]:
    """So many updates of a student by a live teacher or a cache; gives the sequences seen."""
    import tensorflow as tf

    from xdistil_tf import cache, optimizers, outputs, recipe
    from xdistil_tf.data.pipeline import Batches
    from xdistil_tf.objective import Objective
    from xdistil_tf.updates import Updates

    sidecars = None
    if isinstance(teacher, cache.TeacherCache):
        sidecars = teacher.readers({outputs.TOP_K: None}, records)
        teacher = teacher.teacher()
    words = recipe.Term(loss="top_k_cross_entropy", output="masked_lm_logits")
    sentences = recipe.Term(
        loss="cross_entropy", output="next_sentence_logits", target="next_sentence_labels"
    )
    objective = Objective([words, sentences], None, student.available, teacher.available)
    variables = {name: v for name, v in student.named_variables().items() if v.trainable}
    adam = recipe.Optimizer(name="bert_adam", learning_rate=5e-5, clip_norm=1.0)
    updates = Updates(
        student,
        objective,
        optimizers.Optimizer(adam, list(variables.items()), total_steps=10**6),
        variables,
        strategy=tf.distribute.get_strategy(),
        teacher=teacher,
        seed=(0, 1),
    )
    iterator = iter(Batches(records, batch_size, sidecars=sidecars).dataset())
    updates.trace(iterator)
    first = itertools.count(step=steps)

    def run() -> float:
        updates(iterator, next(first), steps)
        return steps * batch_size

    return run


def _comparisons(measured: dict[str, list[harness.Measured]]) -> list[dict]:
    rows = []
    for kept, aim in AIMS.items():
        size = measured[f"label {kept}"][-1].extra["bytes_per_slot"]
        name = f"bytes of a masked slot, {TOP_K} words, {kept}, against the aim of {aim}"
        rows.append(comparison(name, size, aim, "bytes", 1.0))
    cached, live = ([one.rate for one in measured[f"step {name}"]] for name in ("cached", "live"))
    rows.append(
        comparison("training step, cached against live teacher", cached, live, "sequences/s", 4.0)
    )
    return rows


def main(_) -> None:
    with tempfile.TemporaryDirectory() as folder:
        arguments = {
            "work_dir": folder,
            "teacher": harness.FLAGS.teacher,
            "precision": harness.FLAGS.precision,
            "sequences": harness.FLAGS.sequences,
            "length": harness.FLAGS.length,
            "batch_size": harness.FLAGS.batch_size,
            "steps": harness.FLAGS.steps,
            "seed": harness.FLAGS.seed,
        }
        with harness.Worker("benchmarks.soft_labels:cases", arguments) as worker:
            named = {name: worker.case(name) for name in worker.names}
            measured = harness.rounds(named, harness.FLAGS.repeats)
    errors = {kept: measured[f"label {kept}"][-1].extra["largest_error"] for kept in AIMS}
    result_files.write_results(
        harness.FLAGS.output or "soft_labels",
        _comparisons(measured),
        {
            **{
                name: value for name, value in arguments.items() if name not in ("work_dir", "seed")
            },
            "student": STUDENT,
            "top_k": TOP_K,
            "slots": REAL,
            "largest_error_of_a_probability": errors,
        },
        measurements={
            f"{name} (sequences/s)": [one.rate for one in values]
            for name, values in measured.items()
        },
        seed=harness.FLAGS.seed,
    )


if __name__ == "__main__":
    harness.define_flags(repeats=3)
    flags.DEFINE_enum("teacher", "base", list(TEACHERS), "BERT-base, or tiny to try the script.")
    flags.DEFINE_enum("precision", "float32", ["float32", "bfloat16"], "Arithmetic of both models.")
    flags.DEFINE_integer("sequences", 512, "Records.", lower_bound=1)
    flags.DEFINE_integer("length", 128, "Tokens of each; at least 20.", lower_bound=SLOTS)
    flags.DEFINE_integer("batch_size", 32, "Of the pass and of a step.", lower_bound=1)
    flags.DEFINE_integer("steps", 4, "Updates of a measurement.", lower_bound=1)
    app.run(main)
