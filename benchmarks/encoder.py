"""BERT-base forward, 16 x 128: ours against PyTorch, TFBertModel and the machine's matmul peak.

    python -m benchmarks.encoder

Random weights, no padding, all 12 hidden layers' last output. The peak is that of one 4096^3
product in TensorFlow; the share counts the multiplications of the encoder's matrix products only,
so everything else that it does (softmax, normalisation, GELU, embedding) counts as loss.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

import numpy as np
from absl import app

from benchmarks import harness, result_files
from benchmarks.result_files import comparison

WIDTH, LAYERS, HEADS, FFN, VOCABULARY = 768, 12, 12, 3072, 30522
_PEAK = 4096


def forward_flop(batch: int, length: int) -> float:
    """Floating-point operations of the matrix products of one forward pass."""
    tokens = batch * length
    dense = 2 * tokens * (4 * WIDTH * WIDTH + 2 * WIDTH * FFN)
    attention = 2 * 2 * batch * length * length * WIDTH
    return float(LAYERS * (dense + attention))


def _features(batch: int, length: int, seed: int) -> dict[str, np.ndarray]:
    ids = np.random.default_rng(seed).integers(1000, VOCABULARY, (batch, length))
    return {"input_ids": ids.astype(np.int32), "input_mask": np.ones((batch, length), np.int32)}


def _repeated(step: Callable[[], object], calls: int, units: float) -> Callable[[], float]:
    """A case that makes several calls, after two that are not measured."""

    def case() -> float:
        for _ in range(calls):
            step()
        return calls * units

    for _ in range(2):
        step()
    return case


def ours(batch: int, length: int, calls: int, seed: int) -> dict[str, Callable[[], float]]:
    """Our encoder, and products of matrices alone (units: sequences; FLOP)."""
    import tensorflow as tf

    from xdistil_tf.models import layers
    from xdistil_tf.models.encoder import Encoder

    features = {k: tf.constant(v) for k, v in _features(batch, length, seed).items()}
    cases = {}
    for precision in ("float32", "bfloat16"):
        model = layers.only_run(Encoder.from_config_dict({}, precision=precision, seed=seed))
        step = tf.function(
            lambda given, model=model: model(given, request={"hidden": (LAYERS,)}),
            reduce_retracing=True,
        )
        cases[precision] = _repeated(lambda step=step: step(features), calls, batch)
    product = tf.function(tf.matmul)
    tokens = batch * length
    for precision in ("float32", "bfloat16"):
        for name, (rows, inner, columns), times in (
            ("peak", (_PEAK, _PEAK, _PEAK), 1),
            ("ffn", (tokens, WIDTH, FFN), 12 * calls),
        ):
            left = tf.cast(tf.random.stateless_normal([rows, inner], [seed, 1]), precision)
            right = tf.cast(tf.random.stateless_normal([inner, columns], [seed, 2]), precision)
            cases[f"{name}_{precision}"] = _repeated(
                lambda left=left, right=right: product(left, right),
                times,
                2.0 * rows * inner * columns,
            )
    return cases


def huggingface_tf(batch: int, length: int, calls: int, seed: int) -> dict[str, Callable]:
    """`TFBertModel` of transformers, compiled by `tf.function`."""
    import tensorflow as tf
    import tf_keras
    import transformers

    given = _features(batch, length, seed)
    inputs = {
        "input_ids": tf.constant(given["input_ids"]),
        "attention_mask": tf.constant(given["input_mask"]),
    }
    cases = {}
    for precision, policy in (("float32", "float32"), ("bfloat16", "mixed_bfloat16")):
        # These classes read the global policy when they are made.
        tf_keras.mixed_precision.set_global_policy(policy)
        model = transformers.TFBertModel(transformers.BertConfig(), add_pooling_layer=False)
        step = tf.function(
            lambda inputs, model=model: model(inputs, training=False).last_hidden_state
        )
        cases[precision] = _repeated(lambda step=step: step(inputs), calls, batch)
    return cases


def pytorch(batch: int, length: int, calls: int, seed: int) -> dict[str, Callable]:
    """`BertModel` of transformers in PyTorch, with both of its attentions."""
    import torch
    import transformers

    torch.manual_seed(seed)
    given = _features(batch, length, seed)
    inputs = {
        "input_ids": torch.from_numpy(given["input_ids"]).long(),
        "attention_mask": torch.from_numpy(given["input_mask"]).long(),
    }
    cases = {}
    for attention in ("eager", "sdpa"):
        for precision in ("float32", "bfloat16"):
            config = transformers.BertConfig(attn_implementation=attention)
            model = transformers.BertModel(config, add_pooling_layer=False).eval()
            model = model.to(getattr(torch, precision))

            def step(model=model):
                with torch.inference_mode():
                    return model(**inputs).last_hidden_state

            cases[f"{attention}_{precision}"] = _repeated(step, calls, batch)
    return cases


def main(_) -> None:
    arguments = {"batch": 16, "length": 128, "calls": 3, "seed": harness.FLAGS.seed}
    sides = {
        "ours": ("ours", {}),
        "pytorch": ("pytorch", harness.TORCH_ONLY),
        "tfbert": ("huggingface_tf", harness.TENSORFLOW_ONLY),
    }
    cases, workers = {}, []
    try:
        for side, (factory, environment) in sides.items():
            worker = harness.Worker(f"benchmarks.encoder:{factory}", arguments, environment)
            workers.append(worker)
            cases |= {f"{side}_{name}": worker.case(name) for name in worker.names}
        rates = harness.interleaved(cases, harness.FLAGS.repeats)
    finally:
        for worker in workers:
            worker.close()
    per_sequence = forward_flop(16, 128) / 16
    comparisons = []
    # Which precision is faster depends on the processor: bfloat16 where it multiplies tiles (AMX).
    for precisions, aim in (
        (("bfloat16", "float32"), 1.0),
        (("bfloat16",), 1.0),
        (("float32",), None),
    ):
        title = "best precision of each" if len(precisions) > 1 else precisions[0]
        for name, other in (
            ("PyTorch, eager attention", "pytorch_eager"),
            ("PyTorch, SDPA", "pytorch_sdpa"),
            ("TFBertModel", "tfbert"),
        ):
            mine, theirs = (
                max((rates[f"{side}_{one}"] for one in precisions), key=statistics.median)
                for side in ("ours", other)
            )
            comparisons.append(
                comparison(f"forward, {title}, against {name}", mine, theirs, "sequences/s", aim)
            )
    for precision, aim in (("bfloat16", 0.8), ("float32", None)):
        reached = statistics.median(rates[f"ours_{precision}"]) * per_sequence / 1e9
        for name, key, goal in (
            ("a 4096^3 product (the peak)", "peak", aim),
            ("a product of its own, [2048, 768] x [768, 3072]", "ffn", None),
        ):
            limit = statistics.median(rates[f"ours_{key}_{precision}"]) / 1e9
            title = f"forward, {precision}, share of {name}"
            comparisons.append(comparison(title, reached, limit, "GFLOP/s", goal))
    result_files.write_results(
        harness.FLAGS.output or "encoder",
        comparisons,
        {
            "model": "BERT-base, random weights, last hidden state",
            "batch": 16,
            "length": 128,
            "flop_per_sequence": per_sequence,
        },
        measurements={
            f"{name} ({'FLOP' if '_peak_' in name or '_ffn_' in name else 'sequences'}/s)": values
            for name, values in rates.items()
        },
        seed=harness.FLAGS.seed,
    )


if __name__ == "__main__":
    harness.define_flags(repeats=7)
    app.run(main)
