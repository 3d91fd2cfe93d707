"""TinyBERT's prediction stage on SST-2, 12 x 768 -> 4 x 312, batch 32: examples a second.

    python -m benchmarks.tinybert_stage2

The student learns the teacher's logits. Ours is `Trainer.run` with records read from disk and
logits that were cached before (the making is in `extra`). The other side is PyTorch with
`transformers`: as published (padded to 128, the teacher asked in every step, hidden states given
and projected for nothing), and, with the very batches of ours, padded to their longest, with and
without the teacher in the step; these compute logits alone, with PyTorch's fastest attention, and
in bfloat16 the frozen teacher has its weights in it.
"""

from __future__ import annotations

import pathlib
import tempfile
import time
from collections.abc import Callable

import numpy as np
from absl import app, flags

from benchmarks import harness, result_files
from benchmarks.result_files import comparison
from benchmarks.tinybert_stage1 import (
    BATCH,
    LENGTH,
    PADDED,
    PRECISIONS,
    SENTENCES,
    STUDENT,
    TEACHER,
    PyTorchSide,
    StageData,
    prepared,
    student,
    terms,
    trained,
)


def ours(
    task_dir: str, vocabulary: str, work_dir: str, steps: int, seed: int
) -> dict[str, Callable[[], harness.Measured]]:
    """Our trainer in each precision, with cached logits."""
    from xdistil_tf import cache, teaching
    from xdistil_tf.models import folders
    from xdistil_tf.objective import Objective
    from xdistil_tf.teachers import LiveTeacher

    work = pathlib.Path(work_dir)
    records, task = prepared(task_dir, vocabulary, work, seed)
    vocab_size = int(task.tokenizer["vocab_size"])
    live = LiveTeacher(folders.load_model(work / "teacher"))
    spec = teaching.cache_spec(str(work / "teacher"), live, {"logits": None}, "float16", "")
    kept = cache.write_cache(live, spec, [records], work / "cache")

    def case(precision: str) -> harness.Measured:
        model = student(task, vocab_size, precision, seed)
        objective = Objective(
            terms("prediction"), "classification", model.available, kept.available
        )
        data = StageData(records, kept.readers(objective.teacher_request, records), seed)
        result = trained(model, objective, data, kept.teacher(), steps, precision, seed)
        extra = {"cache_seconds": kept.info["seconds"], "cache_bytes": kept.info["bytes"]}
        return harness.Measured(steps * BATCH, result["seconds"], extra, harness.peak_mb())

    return {
        f"cached_{precision}": lambda precision=precision: case(precision)
        for precision in PRECISIONS
    }


def pytorch(
    work_dir: str, vocab_size: int, published_steps: int, steps: int, seed: int
) -> dict[str, Callable[[], harness.Measured]]:
    """The published way, and the batches of ours with and without the teacher in the step."""
    side = PyTorchSide(work_dir, vocab_size, seed)
    torch = side.torch

    plain_student, plain_teacher = side.plain(STUDENT), side.plain(TEACHER)
    plain_teachers = {"float32": plain_teacher, "bfloat16": side.plain(TEACHER).to(torch.bfloat16)}

    def published_logits(model, head, given):
        hidden, _, pooled = side.layers(model, given)
        if model is side.student:
            for states in hidden:
                side.fit(states)
        return head(torch.relu(pooled))

    def plain_logits(model, head, given):
        return head(torch.relu(model(**given).pooler_output))

    def run(way: str, precision: str, count: int) -> harness.Measured:
        published = way == "published"
        student, teacher, logits = plain_student, plain_teachers[precision], plain_logits
        if published:
            student, teacher, logits = side.student, side.teacher, published_logits
        student.train()
        teacher.train(published)
        optimizer = side.optimizer(student)
        began = time.perf_counter()
        for step in range(count):
            numbers = side.numbers(step, grouped=not published)
            given = side.batch(numbers, PADDED if published else None)
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
                if way == "without_teacher":
                    theirs = torch.zeros(len(numbers), 2)
                else:
                    with torch.no_grad():
                        theirs = logits(teacher, side.teacher_head, given)
                said = logits(student, side.head, given)
                log_q = torch.nn.functional.log_softmax(said.float(), dim=-1)
                loss = -(torch.softmax(theirs.float(), dim=-1) * log_q).mean()
            side.step(loss, optimizer)
        return harness.Measured(count * BATCH, time.perf_counter() - began)

    cases = {
        f"published_{precision}": lambda precision=precision: run(
            "published", precision, published_steps
        )
        for precision in PRECISIONS
    }
    for way in ("dynamic", "without_teacher"):
        for precision in PRECISIONS:
            run(way, precision, 2)  # Not measured.
            cases[f"{way}_{precision}"] = lambda way=way, precision=precision: run(
                way, precision, steps
            )
    return cases


def main(_) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        mine_arguments = {
            "task_dir": harness.data_folder("glue", "SST-2"),
            "vocabulary": harness.data_folder("bert", "vocab", "bert-base-uncased.vocab.txt"),
            "work_dir": temporary,
            "steps": harness.FLAGS.steps,
            "seed": harness.FLAGS.seed,
        }
        their_arguments = {
            "work_dir": temporary,
            "vocab_size": 30522,
            "published_steps": harness.FLAGS.published_steps,
            "steps": harness.FLAGS.steps,
            "seed": harness.FLAGS.seed,
        }
        measured = harness.against_pytorch(
            "benchmarks.tinybert_stage2", mine_arguments, their_arguments, harness.FLAGS.repeats
        )
    rates = {name: [one.rate for one in values] for name, values in measured.items()}
    medians = {name: float(np.median(values)) for name, values in rates.items()}

    def best(start: str) -> str:
        return max((name for name in medians if name.startswith(start)), key=medians.get)

    cached = best("ours_cached")
    published = best("pytorch_published")
    others = [best("pytorch_dynamic"), best("pytorch_without_teacher")]
    result_files.write_results(
        harness.FLAGS.output or "tinybert_stage2",
        [
            comparison(f"{cached} against {published}", rates[cached], rates[published],
                       "examples/s", 40.0),
            *(comparison(f"{cached} against {one}", rates[cached], rates[one], "examples/s")
              for one in others),
        ],
        {
            "batch": BATCH,
            "max_length": LENGTH,
            "published_length": PADDED,
            "sentences": SENTENCES,
            "after_the_last_step": {
                name: values[-1].extra for name, values in measured.items() if values[-1].extra
            },
        },
        measurements={f"{name} (examples/s)": values for name, values in rates.items()},
        seed=harness.FLAGS.seed,
    )  # fmt: skip


if __name__ == "__main__":
    harness.define_flags(repeats=3)
    flags.DEFINE_integer("steps", 60, "Updates of a repetition.")
    flags.DEFINE_integer("published_steps", 3, "Updates of the published way.")
    app.run(main)
