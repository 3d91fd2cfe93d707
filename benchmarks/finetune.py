"""Fine-tuning MiniLM on SST-2, batch 32, length <= 64: our trainer against PyTorch.

    python -m benchmarks.finetune

Both sides start from the same weights (head included) and take the same 200 batches: ours, the
length-grouped ones of `data/pipeline`; PyTorch these very ones ("grouped"), or random ones padded
to their longest ("longest"). AdamW updates every row of every matrix on both sides, gradients are
clipped to norm 1, the rate falls linearly. Ours is `Trainer.run` itself with records read from
disk; its time is what the trainer reports (tracing and the last checkpoint are given apart).
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

BATCH, LENGTH, RATE, CLIP, DECAY, EPSILON = 32, 64, 5e-5, 1.0, 0.01, 1e-8
# The last steps whose mean loss is compared: one call of the trainer's compiled loop.
_LAST = 20


class _StageData:
    """The batches of a stage, as a run makes them."""

    def __init__(self, records, seed: int):
        self._records = records
        self._seed = seed
        self.steps_per_epoch = -(-len(records) // BATCH)

    def batches(self, num_replicas: int = 1, accumulation: int = 1):
        from xdistil_tf.data.pipeline import Batches

        return Batches(
            self._records,
            BATCH,
            seed=(self._seed, 1),
            num_replicas=num_replicas,
            accumulation=accumulation,
        )

    def dataset(self, first_step, last_step, num_replicas, accumulation, worker=(0, 1)):
        return self.batches(num_replicas, accumulation).dataset(first_step, last_step)


def ours(
    task_dir: str, minilm: str, work_dir: str, steps: int, seed: int
) -> dict[str, Callable[[], harness.Measured]]:
    """Our trainer in each precision; writes what the other side needs into `work_dir`."""
    from xdistil_tf.data.record_set import RecordSet
    from xdistil_tf.data.task_records import Options, create_task_records
    from xdistil_tf.data.tokenization import load_tokenizer
    from xdistil_tf.models import folders, pretrained

    work = pathlib.Path(work_dir)
    tokenizer = load_tokenizer(minilm)
    options = Options(max_seq_length=LENGTH, seed=seed)
    task = create_task_records(task_dir, "sst-2", tokenizer, work / "records", options=options)
    start = pretrained.load_encoder(
        minilm,
        head={"kind": "classification", "num_labels": 2},
        allow_missing_head=True,
        seed=seed,
    )
    folders.save_model(start, work / "start", task.labels)
    data = _StageData(RecordSet(task.pattern("train")), seed)
    dev = RecordSet(task.pattern("dev"))
    _write_arrays(work / "batches.npz", data, dev, steps, seed)
    return {
        precision: lambda precision=precision: _our_run(
            work, precision, data, dev, task, steps, seed
        )
        for precision in ("bfloat16", "float32")
    }


def _our_run(work, precision, data, dev, task, steps, seed) -> harness.Measured:
    from xdistil_tf import recipe
    from xdistil_tf.checkpoints import StageFolder
    from xdistil_tf.models import folders
    from xdistil_tf.objective import Objective
    from xdistil_tf.predictions import logits_function, predict_records
    from xdistil_tf.strategies import make_strategy
    from xdistil_tf.trainer import Trainer, TrainerOptions

    began = time.perf_counter()
    stage = recipe.Stage(
        name="finetune",
        data="train",
        objective=(recipe.Term(loss="task"),),
        steps=steps,
        batch_size=BATCH,
        optimizer=recipe.Optimizer(
            name="adamw",
            learning_rate=RATE,
            schedule="linear",
            weight_decay=DECAY,
            epsilon=EPSILON,
            clip_norm=CLIP,
        ),
    )
    strategy = make_strategy("one_device")
    with strategy.scope():
        model = folders.load_model(work / "start", precision)
    options = TrainerOptions(progress=False, steps_per_loop=_LAST)
    trainer = Trainer(model, strategy=strategy, seed=seed, precision=precision, options=options)
    with tempfile.TemporaryDirectory() as folder:
        result = trainer.run(
            stage,
            Objective(stage.objective, task.task_type, model.available),
            data,
            StageFolder(pathlib.Path(folder) / "stage", {"benchmark": "finetune"}),
        )
    wall = time.perf_counter() - began
    predictions = predict_records(logits_function(model), dev, task)
    scores, gold = np.stack(predictions.scores), np.asarray(predictions.gold)
    extra = {"loss": result["loss"], "wall_seconds": round(wall, 2)} | _dev_scores(scores, gold)
    return harness.Measured(steps * BATCH, result["seconds"], extra)


def _write_arrays(path: pathlib.Path, data: _StageData, dev, steps: int, seed: int) -> None:
    """Token ids and labels of the batches that PyTorch takes, and of dev."""
    from xdistil_tf.data.records import decode_example

    batches = data.batches()
    records = batches.records
    grouped = np.stack([batches.rows(step)[0] for step in range(steps)])
    shuffled = np.random.default_rng(seed).permutation(len(records))[: steps * BATCH]
    arrays = {"grouped": grouped, "longest": shuffled.reshape(steps, BATCH)}
    wanted = np.unique(np.concatenate([grouped.ravel(), shuffled]))
    for name, record_set, numbers in (
        ("train", records, wanted),
        ("dev", dev, np.arange(len(dev))),
    ):
        examples = [decode_example(record_set.read(int(n)), str(n)) for n in numbers]
        arrays[f"{name}_numbers"] = numbers
        arrays[f"{name}_ids"] = np.concatenate([one["input_ids"] for one in examples])
        arrays[f"{name}_lengths"] = np.array([len(one["input_ids"]) for one in examples])
        arrays[f"{name}_labels"] = np.array([one["label_ids"][0] for one in examples])
    np.savez(path, **arrays)


def _dev_scores(logits: np.ndarray, gold: np.ndarray) -> dict[str, float]:
    logits = logits.astype(np.float64)
    shifted = logits - logits.max(-1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return {
        "dev_loss": float(-log_probabilities[np.arange(len(gold)), gold].mean()),
        "dev_accuracy": float((logits.argmax(-1) == gold).mean()),
    }


class _Examples:
    """Tokenized examples by record number, padded to the longest of a batch when asked for."""

    def __init__(self, arrays, name: str):
        ids, lengths = arrays[f"{name}_ids"], arrays[f"{name}_lengths"]
        rows = np.split(ids, np.cumsum(lengths)[:-1])
        numbers = arrays[f"{name}_numbers"].tolist()
        self.rows = dict(zip(numbers, rows, strict=True))
        self.labels = dict(zip(numbers, arrays[f"{name}_labels"].tolist(), strict=True))

    def batch(self, numbers):
        """Tensors as the model of transformers takes them."""
        import torch

        rows = [self.rows[number] for number in numbers.tolist()]
        shape = (len(rows), max(len(row) for row in rows))
        ids, mask = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        for place, row in enumerate(rows):
            ids[place, : len(row)], mask[place, : len(row)] = row, 1
        labels = torch.tensor([self.labels[number] for number in numbers.tolist()])
        given = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
        return given, labels


def pytorch(work_dir: str, steps: int, seed: int) -> dict[str, Callable]:
    """PyTorch in each order and precision, after a short run of each that is not measured."""
    arrays = dict(np.load(pathlib.Path(work_dir) / "batches.npz"))
    cases = {}
    for order in ("grouped", "longest"):
        for precision in ("bfloat16", "float32"):
            options = (work_dir, arrays, order, precision)
            _pytorch_run(*options, steps=min(5, steps), seed=seed, score=False)
            cases[f"{order}_{precision}"] = lambda options=options: _pytorch_run(
                *options, steps=steps, seed=seed
            )
    return cases


def _pytorch_run(work_dir, arrays, order, precision, *, steps, seed, score=True):
    import torch
    import transformers

    torch.manual_seed(seed)
    folder = str(pathlib.Path(work_dir) / "start")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    model.train()
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": DECAY}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=RATE, eps=EPSILON, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    train, losses = _Examples(arrays, "train"), []
    began = time.perf_counter()
    for numbers in arrays[order][:steps]:
        given, labels = train.batch(numbers)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            loss = model(**given, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    seconds = time.perf_counter() - began
    extra = {"loss": float(np.mean(losses[-_LAST:]))}
    if score:
        extra |= _pytorch_dev(model.eval(), arrays)
    return harness.Measured(steps * BATCH, seconds, extra)


def _pytorch_dev(model, arrays) -> dict[str, float]:
    import torch

    dev = _Examples(arrays, "dev")
    logits, gold = [], []
    with torch.inference_mode():
        for numbers in np.array_split(arrays["dev_numbers"], 14):
            given, labels = dev.batch(numbers)
            logits.append(model(**given).logits.float().numpy())
            gold.append(labels.numpy())
    return _dev_scores(np.concatenate(logits), np.concatenate(gold))


def main(_) -> None:
    steps, seed = harness.FLAGS.steps, harness.FLAGS.seed
    with tempfile.TemporaryDirectory() as temporary:
        work = harness.FLAGS.work_dir or temporary
        arguments = {"work_dir": str(pathlib.Path(work).absolute()), "steps": steps, "seed": seed}
        task = {"task_dir": harness.data_folder("glue", "SST-2"), "minilm": harness.minilm_folder()}
        with (
            harness.Worker("benchmarks.finetune:ours", task | arguments) as mine,
            harness.Worker("benchmarks.finetune:pytorch", arguments, harness.TORCH_ONLY) as theirs,
        ):
            cases = {f"ours_{name}": mine.case(name) for name in mine.names}
            cases |= {f"pytorch_{name}": theirs.case(name) for name in theirs.names}
            measured = harness.rounds(cases, harness.FLAGS.repeats, warmup=0)
    rates = {name: [one.rate for one in values] for name, values in measured.items()}
    medians = {name: float(np.median(values)) for name, values in rates.items()}
    best = {
        side: max((n for n in medians if n.startswith(side)), key=medians.get)
        for side in ("ours", "pytorch")
    }
    comparisons = [
        comparison(
            f"{best['ours']} against the best of PyTorch, {best['pytorch']}",
            rates[best["ours"]],
            rates[best["pytorch"]],
            "examples/s",
            1.6,
        )
    ]
    comparisons += [
        comparison(f"ours_{precision} against {name}", rates[f"ours_{precision}"], rates[name],
                   "examples/s")
        for precision in ("bfloat16", "float32")
        for name in rates
        if name.startswith("pytorch") and name.endswith(precision)
    ]  # fmt: skip
    last = {name: values[-1].extra for name, values in measured.items()}
    result_files.write_results(
        harness.FLAGS.output or "finetune",
        comparisons,
        {
            "model": "all-MiniLM-L6-v2 with a fresh head",
            "batch": BATCH,
            "max_length": LENGTH,
            "steps": steps,
            "optimizer": f"AdamW {RATE}, linear, decay {DECAY} of matrices, clipped to {CLIP}",
            "loss": f"mean of the last {_LAST} steps; dev afterwards, in float32 for PyTorch",
            "after_the_last_step": last,
            "loss_difference": last[best["ours"]]["loss"] - last[best["pytorch"]]["loss"],
        },
        measurements={f"{name} (examples/s)": values for name, values in rates.items()},
        seed=seed,
    )


if __name__ == "__main__":
    harness.define_flags(repeats=3)
    flags.DEFINE_integer("steps", 200, "Updates of one repetition.", lower_bound=20)
    flags.DEFINE_string("work_dir", None, "Keeps records and starting weights; default: none.")
    app.run(main)
