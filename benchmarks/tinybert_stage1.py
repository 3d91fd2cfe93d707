"""TinyBERT's intermediate stage on SST-2, 12 x 768 -> 4 x 312, batch 32: examples a second.

    python -m benchmarks.tinybert_stage1

Attention scores and hidden states of four mapped layers and the embeddings. Ours is `Trainer.run`
with records read from disk, its time what the trainer reports: with a live teacher, and with one
whose layers were cached before (the making is in `extra`). The other side is PyTorch with
`transformers`: as published (every batch padded to 128, the teacher with dropout, one projection
for all layers), and with the very batches of ours, padded to their longest. Random weights of the
same sizes everywhere; the optimizer updates every row on both sides. In bfloat16 the frozen teacher
has its weights in it on both sides.
"""

from __future__ import annotations

import functools
import pathlib
import tempfile
import time
from collections.abc import Callable

import numpy as np
from absl import app, flags

from benchmarks import harness, result_files
from benchmarks.result_files import comparison

SENTENCES, HELDOUT = 2000, 200
BATCH, LENGTH, PADDED = 32, 64, 128
RATE, CLIP, DECAY, EPSILON = 5e-5, 1.0, 0.01, 1e-6
STUDENT = {"hidden_size": 312, "num_hidden_layers": 4, "num_attention_heads": 12,
           "intermediate_size": 1200}  # fmt: skip
TEACHER = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
           "intermediate_size": 3072}  # fmt: skip
# The student's layer -> the teacher's.
MAPPED = {1: 3, 2: 6, 3: 9, 4: 12}
PRECISIONS = ("bfloat16", "float32")


class StageData:
    """The batches of a stage, as a run makes them."""

    def __init__(self, records, sidecars, seed: int):
        self.records = records
        self._sidecars = sidecars
        self._seed = seed
        self.steps_per_epoch = -(-len(records) // BATCH)

    def batches(self, num_replicas: int = 1, accumulation: int = 1):
        from xdistil_tf.data.pipeline import Batches

        return Batches(
            self.records, BATCH, seed=(self._seed, 1), num_replicas=num_replicas,
            accumulation=accumulation, sidecars=self._sidecars,
        )  # fmt: skip

    def dataset(self, first_step, last_step, num_replicas, accumulation, worker=(0, 1)):
        return self.batches(num_replicas, accumulation).dataset(first_step, last_step)


def terms(stage: str) -> tuple:
    """Terms of `configs/tinybert/task.yaml`."""
    from xdistil_tf import recipe_files

    config = recipe_files.load_recipe(harness.ROOT / "configs" / "tinybert" / "task.yaml")
    return next(one.objective for one in config.stages if one.name == stage)


def prepared(task_dir: str, vocabulary: str, work: pathlib.Path, seed: int):
    """Records, the teacher's folder, and what the other side reads; returns records and task."""
    from xdistil_tf.data.record_set import RecordSet
    from xdistil_tf.data.records import decode_example
    from xdistil_tf.data.task_records import Options, create_task_records
    from xdistil_tf.data.tokenization import load_tokenizer
    from xdistil_tf.models import folders
    from xdistil_tf.models.encoder import Encoder

    harness.write_sample(task_dir, work / "task", SENTENCES + HELDOUT, seed)
    tokenizer = load_tokenizer(vocabulary)
    options = Options(max_seq_length=LENGTH, heldout_rows=HELDOUT, num_shards=1, seed=seed)
    task = create_task_records(work / "task", "sst-2", tokenizer, work / "records", options=options)
    if not (work / "teacher" / "config.json").is_file():
        head = {"kind": "classification", "num_labels": 2}
        config = TEACHER | {"vocab_size": tokenizer.vocab_size, "head": head}
        teacher = Encoder.from_config_dict(config, seed=seed)
        folders.save_model(teacher, work / "teacher", task.labels)
        tokenizer.save(work / "teacher")
    records = RecordSet(task.pattern("train"))
    batches = StageData(records, {}, seed).batches()
    steps = batches.steps_per_epoch
    rows = [decode_example(records.read(n), str(n))["input_ids"] for n in range(len(records))]
    np.savez(
        work / "batches.npz",
        grouped=np.stack([batches.rows(step)[0] for step in range(steps - 1)]),
        ids=np.concatenate(rows),
        lengths=np.array(list(map(len, rows))),
    )
    return records, task


def student(task, vocab_size: int, precision: str, seed: int):
    """The student with its projections."""
    from xdistil_tf.models.encoder import Encoder
    from xdistil_tf.models.projected import PART, ProjectedEncoder

    head = {"kind": "classification", "num_labels": len(task.labels)}
    config = STUDENT | {"vocab_size": vocab_size, "head": head}
    with _strategy().scope():
        model = ProjectedEncoder(
            Encoder.from_config_dict(config, precision, seed), TEACHER["hidden_size"]
        )
    model.initialise_part(PART, seed)
    return model


@functools.lru_cache(maxsize=1)
def _strategy():
    from xdistil_tf.strategies import make_strategy

    return make_strategy("one_device")


def trained(model, objective, data, teacher, steps: int, precision: str, seed: int):
    """`Trainer.run` for some steps; its result."""
    from xdistil_tf import recipe
    from xdistil_tf.checkpoints import StageFolder
    from xdistil_tf.trainer import Trainer, TrainerOptions

    stage = recipe.Stage(
        name="stage",
        data="train",
        objective=(recipe.Term(loss="task"),),  # The objective is given.
        steps=steps,
        batch_size=BATCH,
        optimizer=recipe.Optimizer(
            name="bert_adam", learning_rate=RATE, clip_norm=CLIP, weight_decay=DECAY
        ),
    )
    options = TrainerOptions(progress=False, steps_per_loop=min(10, steps))
    trainer = Trainer(model, strategy=_strategy(), seed=seed, precision=precision, options=options)
    with tempfile.TemporaryDirectory() as folder:
        place = StageFolder(pathlib.Path(folder) / "stage", {"benchmark": "tinybert"})
        return trainer.run(stage, objective, data, place, teacher=teacher)


def ours(
    task_dir: str, vocabulary: str, work_dir: str, live_steps: int, cached_steps: int, seed: int
) -> dict[str, Callable[[], harness.Measured]]:
    """Our trainer in each precision, with a live teacher and with its cache."""
    from xdistil_tf import cache, teaching
    from xdistil_tf.models import folders
    from xdistil_tf.objective import Objective
    from xdistil_tf.teachers import LiveTeacher

    work = pathlib.Path(work_dir)
    records, task = prepared(task_dir, vocabulary, work, seed)
    vocab_size = int(task.tokenizer["vocab_size"])

    def case(mode: str, precision: str) -> harness.Measured:
        live = LiveTeacher(folders.load_model(work / "teacher", precision, only_run=True))
        model = student(task, vocab_size, precision, seed)
        objective = Objective(
            terms("intermediate"), "classification", model.available, live.available
        )
        extra, sidecars, teacher, steps = {}, {}, live, live_steps
        if mode == "cached":
            kept = _cached(work, live, objective, precision)
            sidecars, teacher = kept.readers(objective.teacher_request, records), kept.teacher()
            extra = {"cache_seconds": kept.info["seconds"], "cache_bytes": kept.info["bytes"]}
            steps = cached_steps
        data = StageData(records, sidecars, seed)
        result = trained(model, objective, data, teacher, steps, precision, seed)
        return harness.Measured(steps * BATCH, result["seconds"], extra, harness.peak_mb())

    def _cached(work, live, objective, precision) -> cache.TeacherCache:
        spec = teaching.cache_spec(
            str(work / "teacher"), live, objective.teacher_request, "float16", ""
        )
        return cache.write_cache(live, spec, [records], work / f"cache_{precision}")

    return {
        f"{mode}_{precision}": lambda mode=mode, precision=precision: case(mode, precision)
        for mode in ("live", "cached")
        for precision in PRECISIONS
    }


def _bert(transformers, vocab_size: int, sizes: dict[str, int], attention: str):
    config = transformers.BertConfig(vocab_size=vocab_size, attn_implementation=attention, **sizes)
    return transformers.BertModel(config)


class PyTorchSide:
    """Teacher and student of `transformers`, whose attention scores are kept as they are made."""

    def __init__(self, work_dir: str, vocab_size: int, seed: int):
        import torch
        import transformers

        torch.manual_seed(seed)
        self.torch, self._bert = torch, functools.partial(_bert, transformers, vocab_size)
        arrays = np.load(pathlib.Path(work_dir) / "batches.npz")
        self.grouped = arrays["grouped"]
        self.ids = np.split(arrays["ids"], np.cumsum(arrays["lengths"])[:-1])
        self.shuffled = np.random.default_rng(seed).permutation(len(self.ids))
        self._scores: list = []
        self.teacher, self.student = map(self._keeping_scores, (TEACHER, STUDENT))
        in_bfloat16 = self._keeping_scores(TEACHER)
        in_bfloat16.load_state_dict(self.teacher.state_dict())
        self.teachers = {"float32": self.teacher, "bfloat16": in_bfloat16.to(torch.bfloat16)}
        self.fit = torch.nn.Linear(STUDENT["hidden_size"], TEACHER["hidden_size"])
        self.head, self.teacher_head = (
            torch.nn.Linear(sizes["hidden_size"], 2) for sizes in (STUDENT, TEACHER)
        )

    def _keeping_scores(self, sizes: dict[str, int]):
        """A model whose attention is what "eager" selects, but its scores are kept."""
        model = self._bert(sizes, "eager")
        for layer in model.encoder.layer:
            attention = layer.attention.self
            attention.forward = functools.partial(self._attention_of(), attention)
        return model

    def _attention_of(self) -> Callable:
        torch, kept = self.torch, self._scores

        def attention(module, hidden_states, attention_mask=None, *_, **__):
            batch, tokens, width = hidden_states.shape
            heads, size = module.num_attention_heads, module.attention_head_size
            query, key, value = (
                dense(hidden_states).view(batch, tokens, heads, size).transpose(1, 2)
                for dense in (module.query, module.key, module.value)
            )
            scores = torch.matmul(query, key.transpose(-1, -2)) / size**0.5
            if attention_mask is not None:
                scores = scores + attention_mask
            kept.append(scores)
            weights = module.dropout(torch.nn.functional.softmax(scores, dim=-1))
            context = torch.matmul(weights, value).transpose(1, 2).reshape(batch, tokens, width)
            return context, weights

        return attention

    def plain(self, sizes: dict[str, int]):
        """A model that gives no scores, with PyTorch's fastest attention."""
        return self._bert(sizes, "sdpa")

    def optimizer(self, student=None):
        """AdamW of all that is trained."""
        student = student or self.student
        trained = [*student.parameters(), *self.fit.parameters(), *self.head.parameters()]
        self.parameters = trained
        return self.torch.optim.AdamW(trained, lr=RATE, eps=EPSILON, weight_decay=DECAY, fused=True)

    def batch(self, numbers, length: int | None):
        """Ids and mask, padded to a length or to the longest."""
        rows = [self.ids[number] for number in numbers]
        width = length or max(map(len, rows))
        ids, mask = np.zeros((len(rows), width), np.int64), np.zeros((len(rows), width), np.int64)
        for place, row in enumerate(rows):
            ids[place, : len(row)], mask[place, : len(row)] = row, 1
        return {
            "input_ids": self.torch.from_numpy(ids),
            "attention_mask": self.torch.from_numpy(mask),
        }

    def layers(self, model, given):
        """Hidden states and raw scores of all layers, and the pooled vector."""
        self._scores.clear()
        answer = model(**given, output_hidden_states=True)
        return answer.hidden_states, list(self._scores), answer.pooler_output

    def step(self, loss, optimizer) -> None:
        loss.backward()
        self.torch.nn.utils.clip_grad_norm_(self.parameters, CLIP)
        optimizer.step()
        optimizer.zero_grad()

    def numbers(self, step: int, grouped: bool):
        if grouped:
            return self.grouped[step % len(self.grouped)]
        start = step * BATCH % (len(self.shuffled) - BATCH)
        return self.shuffled[start : start + BATCH]


def pytorch(
    work_dir: str, vocab_size: int, published_steps: int, dynamic_steps: int, seed: int
) -> dict[str, Callable[[], harness.Measured]]:
    """The published way, and the batches of ours in each precision."""
    side = PyTorchSide(work_dir, vocab_size, seed)
    torch = side.torch

    def loss_of(given, teacher):
        hidden, scores, _ = side.layers(side.student, given)
        with torch.no_grad():
            theirs, their_scores, _ = side.layers(teacher, given)
        loss = 0.0
        for own, other in MAPPED.items():
            a, b = (
                torch.where(one <= -1e2, torch.zeros_like(one), one)
                for one in (scores[own - 1], their_scores[other - 1].detach())
            )
            loss = loss + torch.nn.functional.mse_loss(a, b)
        for own, other in ((0, 0), *MAPPED.items()):
            projected = side.fit(hidden[own])
            loss = loss + torch.nn.functional.mse_loss(projected, theirs[other].detach())
        return loss

    def run(way: str, precision: str, steps: int) -> harness.Measured:
        published = way == "published"
        side.student.train()
        teacher = side.teacher if published else side.teachers[precision]
        teacher.train(published)
        optimizer = side.optimizer()
        began = time.perf_counter()
        for step in range(steps):
            numbers = side.numbers(step, grouped=not published)
            given = side.batch(numbers, PADDED if published else None)
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
                loss = loss_of(given, teacher)
            side.step(loss, optimizer)
        return harness.Measured(steps * BATCH, time.perf_counter() - began)

    cases = {}
    for precision in PRECISIONS:
        run("dynamic", precision, 2)  # Not measured.
        cases[f"published_{precision}"] = lambda precision=precision: run(
            "published", precision, published_steps
        )
        cases[f"dynamic_{precision}"] = lambda precision=precision: run(
            "dynamic", precision, dynamic_steps
        )
    return cases


def main(_) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        vocabulary = harness.data_folder("bert", "vocab", "bert-base-uncased.vocab.txt")
        mine_arguments = {
            "task_dir": harness.data_folder("glue", "SST-2"),
            "vocabulary": vocabulary,
            "work_dir": temporary,
            "live_steps": harness.FLAGS.live_steps,
            "cached_steps": harness.FLAGS.cached_steps,
            "seed": harness.FLAGS.seed,
        }
        their_arguments = {
            "work_dir": temporary,
            "vocab_size": 30522,
            "published_steps": harness.FLAGS.published_steps,
            "dynamic_steps": harness.FLAGS.live_steps,
            "seed": harness.FLAGS.seed,
        }
        measured = harness.against_pytorch(
            "benchmarks.tinybert_stage1", mine_arguments, their_arguments, harness.FLAGS.repeats
        )
    rates = {name: [one.rate for one in values] for name, values in measured.items()}
    medians = {name: float(np.median(values)) for name, values in rates.items()}

    def best(start: str) -> str:
        return max((name for name in medians if name.startswith(start)), key=medians.get)

    def pair(ours: str, theirs: str, aim: float | None) -> dict:
        return comparison(f"{ours} against {theirs}", rates[ours], rates[theirs], "examples/s", aim)

    # The published flags compute in float32; the other precision is a favour.
    published = [
        pair(f"ours_{mode}_{precision}", f"pytorch_published_{precision}", aim)
        for mode, aim in (("live", 15.0), ("cached", 80.0))
        for precision in PRECISIONS
    ]
    dynamic = [
        pair(best("ours_live"), best("pytorch_dynamic"), 2.0),
        pair("ours_live_float32", "pytorch_dynamic_float32", None),
    ]
    result_files.write_results(
        harness.FLAGS.output or "tinybert_stage1",
        [*published, *dynamic],
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
    flags.DEFINE_integer("live_steps", 20, "Updates of a repetition with a live teacher.")
    flags.DEFINE_integer("cached_steps", 60, "Updates with a cache.")
    flags.DEFINE_integer("published_steps", 3, "Updates of the published way.")
    app.run(main)
