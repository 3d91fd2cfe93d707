"""A step of masked-LM pretraining, 6 x 384, batch 32 x 128: our trainer against PyTorch.

    python -m benchmarks.pretraining_step

Random weights, the same on both sides; the same full batches of made-up tokens (19 of 128 masked,
pairs), AdamW on every row, gradients clipped to norm 1. Both sides project to the vocabulary at
masked positions alone: PyTorch's model is that of `transformers`, its head called on the gathered
rows. Ours is `Trainer.run` with records read from disk; its time is what the trainer reports.
The share of the peak counts the products of forward and backward against one 4096^3 product.
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

BATCH, LENGTH, SLOTS, MASKED = 32, 128, 20, 19
VOCABULARY, MASK, CLS, SEP = 30522, 103, 101, 102
LAYERS, WIDTH, INNER = 6, 384, 1536
RATE, CLIP, DECAY, EPSILON = 1e-4, 1.0, 0.01, 1e-6
_PEAK = 4096
_LAST = 10


def flop_per_step() -> float:
    """Products of forward and backward: three times those of forward."""
    tokens, slots = BATCH * LENGTH, BATCH * SLOTS
    block = tokens * (4 * WIDTH * WIDTH + 2 * WIDTH * INNER) + 2 * tokens * LENGTH * WIDTH
    head = slots * (WIDTH * WIDTH + WIDTH * VOCABULARY) + BATCH * (WIDTH * WIDTH + 2 * WIDTH)
    return 3.0 * 2.0 * (LAYERS * block + head)


def examples(steps: int, seed: int) -> dict[str, np.ndarray]:
    """Token ids, segments, masked places and labels of `steps` batches."""
    rng = np.random.default_rng(seed)
    rows = steps * BATCH
    gold = rng.integers(1000, VOCABULARY, (rows, LENGTH))
    gold[:, 0], gold[:, LENGTH // 2], gold[:, -1] = CLS, SEP, SEP
    free = np.setdiff1d(np.arange(1, LENGTH - 1), [LENGTH // 2])
    places = np.sort(rng.permuted(np.tile(free, (rows, 1)), axis=1)[:, :MASKED], axis=1)
    ids = gold.copy()
    np.put_along_axis(ids, places, MASK, axis=1)
    segments = np.broadcast_to(np.arange(LENGTH) > LENGTH // 2, ids.shape).astype(np.int64)
    return {
        "input_ids": ids,
        "segment_ids": segments,
        "masked_lm_positions": places,
        "masked_lm_ids": np.take_along_axis(gold, places, axis=1),
        "next_sentence_labels": rng.integers(0, 2, rows),
    }


def ours(work_dir: str, steps: int, seed: int) -> dict[str, Callable[[], harness.Measured]]:
    """Our trainer in each precision, and the peak; writes the starting weights and records."""
    import tensorflow as tf

    from xdistil_tf.data import records
    from xdistil_tf.data.record_set import RecordSet
    from xdistil_tf.models.encoder import Encoder
    from xdistil_tf.models.encoder_presets import PRESETS
    from xdistil_tf.models.pretrained import save_encoder

    work = pathlib.Path(work_dir)
    config = PRESETS["6x384"] | {"vocab_size": VOCABULARY}
    config |= {"head": {"kind": "pretraining", "next_sentence": True}}
    save_encoder(Encoder.from_config_dict(config, seed=seed), str(work / "start"))
    arrays = examples(steps, seed)
    (work / "records").mkdir(exist_ok=True)
    rows = (_features(arrays, number) for number in range(steps * BATCH))
    records.write_records(work / "records", "train", rows, steps * BATCH, 1)
    data = RecordSet(f"{work / 'records'}/train-*")

    def peak(dtype) -> float:
        one = tf.random.normal([_PEAK, _PEAK], dtype=dtype)
        for _ in range(3):
            product = tf.linalg.matmul(one, one)
        product.numpy()
        return 3 * 2.0 * _PEAK**3

    cases = {
        precision: lambda precision=precision: _our_run(work, precision, data, steps, seed)
        for precision in ("bfloat16", "float32")
    }
    for dtype in (tf.bfloat16, tf.float32):
        cases[f"peak_{dtype.name}"] = lambda dtype=dtype: peak(dtype)
    return cases


def _features(arrays: dict[str, np.ndarray], number: int) -> dict:
    one = {name: values[number] for name, values in arrays.items()}
    empty = SLOTS - MASKED
    return {
        "id": f"train:{number}".encode(),
        "input_ids": one["input_ids"].tolist(),
        "input_mask": [1] * LENGTH,
        "segment_ids": one["segment_ids"].tolist(),
        "masked_lm_positions": one["masked_lm_positions"].tolist() + [0] * empty,
        "masked_lm_ids": one["masked_lm_ids"].tolist() + [0] * empty,
        "masked_lm_weights": [1.0] * MASKED + [0.0] * empty,
        "next_sentence_labels": [int(one["next_sentence_labels"])],
    }


def _our_run(work: pathlib.Path, precision: str, records, steps: int, seed: int):
    from xdistil_tf import recipe
    from xdistil_tf.checkpoints import StageFolder
    from xdistil_tf.data.pipeline import Batches
    from xdistil_tf.models import folders
    from xdistil_tf.objective import Objective
    from xdistil_tf.strategies import make_strategy
    from xdistil_tf.trainer import Trainer, TrainerOptions

    class Data:
        """Records in their order: the batches that the other side takes."""

        steps_per_epoch = steps

        def dataset(self, first_step, last_step, num_replicas, accumulation, worker=(0, 1)):
            return Batches(records, BATCH, shuffle=False).dataset(first_step, last_step)

    stage = recipe.Stage(
        name="pretrain",
        data="corpus",
        objective=(
            recipe.Term(loss="cross_entropy", output="masked_lm_logits", target="masked_lm_ids"),
            recipe.Term(
                loss="cross_entropy", output="next_sentence_logits", target="next_sentence_labels"
            ),
        ),
        steps=steps,
        batch_size=BATCH,
        optimizer=recipe.Optimizer(
            name="adamw", learning_rate=RATE, weight_decay=DECAY, epsilon=EPSILON, clip_norm=CLIP
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
            Objective(stage.objective, None, model.available),
            Data(),
            StageFolder(pathlib.Path(folder) / "stage", {"benchmark": "pretraining_step"}),
        )
    return harness.Measured(steps * BATCH * LENGTH, result["seconds"], {"loss": result["loss"]})


def pytorch(work_dir: str, steps: int, seed: int) -> dict[str, Callable[[], harness.Measured]]:
    """PyTorch in each precision, after a short run of each that is not measured."""
    arrays = examples(steps, seed)
    cases = {}
    for precision in ("bfloat16", "float32"):
        _pytorch_run(work_dir, arrays, precision, min(3, steps), seed)
        cases[precision] = lambda precision=precision: _pytorch_run(
            work_dir, arrays, precision, steps, seed
        )
    return cases


def _pytorch_run(work_dir: str, arrays, precision: str, steps: int, seed: int):
    import torch
    import transformers

    torch.manual_seed(seed)
    model = transformers.BertForPreTraining.from_pretrained(str(pathlib.Path(work_dir) / "start"))
    model.train()
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": DECAY}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=RATE, eps=EPSILON, fused=True)
    tensors = {name: torch.from_numpy(np.ascontiguousarray(v)) for name, v in arrays.items()}
    cross_entropy = torch.nn.functional.cross_entropy
    losses = []
    began = time.perf_counter()
    for step in range(steps):
        batch = {name: v[step * BATCH : (step + 1) * BATCH] for name, v in tensors.items()}
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            given = model.bert(
                input_ids=batch["input_ids"],
                attention_mask=torch.ones_like(batch["input_ids"]),
                token_type_ids=batch["segment_ids"],
            )
            places = batch["masked_lm_positions"][:, :, None].expand(-1, -1, WIDTH)
            rows = torch.gather(given.last_hidden_state, 1, places)
            words = model.cls.predictions(rows)
            pairs = model.cls.seq_relationship(given.pooler_output)
        loss = cross_entropy(words.float().flatten(0, 1), batch["masked_lm_ids"].flatten())
        loss = loss + cross_entropy(pairs.float(), batch["next_sentence_labels"])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    seconds = time.perf_counter() - began
    tokens = steps * BATCH * LENGTH
    return harness.Measured(tokens, seconds, {"loss": float(np.mean(losses[-_LAST:]))})


def main(_) -> None:
    steps, seed = harness.FLAGS.steps, harness.FLAGS.seed
    with tempfile.TemporaryDirectory() as work:
        arguments = {"work_dir": work, "steps": steps, "seed": seed}
        measured = harness.against_pytorch(
            "benchmarks.pretraining_step", arguments, arguments, harness.FLAGS.repeats, warmup=0
        )
    rates = {name: [one.rate for one in values] for name, values in measured.items()}
    write(rates, measured, steps, seed)


def write(rates: dict, measured: dict, steps: int, seed: int) -> None:
    """The comparisons, best precision of each side first."""
    trained = {n: float(np.median(v)) for n, v in rates.items() if "peak" not in n}
    best = {
        side: max((name for name in trained if name.startswith(side)), key=trained.get)
        for side in ("ours", "pytorch")
    }
    rows = [
        comparison(
            f"{best['ours']} against the best of PyTorch, {best['pytorch']}",
            rates[best["ours"]], rates[best["pytorch"]], "tokens/s", 1.3,
        )
    ]  # fmt: skip
    for precision in ("float32", "bfloat16"):
        ours_rate, other = rates[f"ours_{precision}"], rates[f"pytorch_{precision}"]
        rows.append(comparison(f"{precision}, both", ours_rate, other, "tokens/s"))
        work = flop_per_step() / (BATCH * LENGTH) / 1e9
        peak = [one / 1e9 for one in rates[f"ours_peak_{precision}"]]
        rows.append(
            comparison(
                f"{precision}, share of a 4096^3 product (the peak)",
                [rate * work for rate in ours_rate], peak, "GFLOP/s",
            )
        )  # fmt: skip
    result_files.write_results(
        harness.FLAGS.output or "pretraining_step",
        rows,
        {
            "model": "6 x 384, random weights",
            "batch": [BATCH, LENGTH],
            "steps": steps,
            "gflop_per_step": round(flop_per_step() / 1e9, 1),
            "loss": {n: v[-1].extra["loss"] for n, v in measured.items() if v[-1].extra},
        },
        measurements={f"{name} (a second)": values for name, values in rates.items()},
        seed=seed,
    )


if __name__ == "__main__":
    harness.define_flags(repeats=3)
    flags.DEFINE_integer("steps", 30, "Updates of one repetition.", lower_bound=_LAST)
    app.run(main)
