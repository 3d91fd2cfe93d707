"""Where the time of a training step goes: the profile behind the comparisons that miss their aim.

    python -m benchmarks.limits

Two steps are taken apart, each part timed alone in one process: fine-tuning MiniLM on 32 sentences
of 16 tokens, and the representation stage of a BiLSTM (300, 600) on 512 sentences of 16. `matrix
products` are the very shapes that forward and backward multiply, one after the other and nothing
else, which is what another implementation on the same kernels would have to do as well. Their rate
against that of one large product (the peak) says what these shapes cost; what remains of forward
and backward is ours, up to the noise of a difference.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
from absl import app, flags

from benchmarks import harness
from xdistil_tf import optimizers, recipe
from xdistil_tf.models import pretrained
from xdistil_tf.models.bilstm import BiLSTM

FLAGS = flags.FLAGS

LENGTH = 16
ENCODER_BATCH, BILSTM_BATCH = 32, 512
EMBEDDING, UNITS, WIDTH, VOCABULARY = 300, 600, 384, 30522
_PEAK = 4096

Shape = tuple[int, int, int, int]  # How often, rows, inner size, columns.


def encoder_products(batch: int, config: dict[str, Any]) -> list[Shape]:
    """The products of an update of an encoder with a classifier: forward, and two backward.

    Of the last block only position 0 is computed, beside the keys and values of all.
    """
    rows, width, inner = batch * LENGTH, config["hidden_size"], config["intermediate_size"]
    heads, blocks = config["num_attention_heads"], config["num_hidden_layers"] - 1
    ends = [(width, width), (width, inner), (inner, width)]
    dense = [(blocks, rows, *one) for one in [(width, 3 * width), *ends]]
    dense += [(1, rows, width, 2 * width)]
    dense += [(1, batch, *one) for one in [(width, width), *ends]]
    shapes = []
    for times, some, inputs, outputs in dense:
        shapes.append((times, some, inputs, outputs))
        shapes.append((times, some, outputs, inputs))
        shapes.append((times, inputs, some, outputs))
    # Scores and contexts: six products of a head's [T, D / H] with [T, T] or its like.
    shapes.append((6 * blocks * batch * heads, LENGTH, width // heads, LENGTH))
    shapes.append((6 * batch * heads, 1, width // heads, LENGTH))
    return shapes


def bilstm_products(batch: int) -> list[Shape]:
    """The products of an update of a BiLSTM: inputs at once, recurrence step by step."""
    rows, gates = batch * LENGTH, 4 * UNITS
    return [
        (2, rows, EMBEDDING, gates),
        (2, rows, gates, EMBEDDING),
        (2, EMBEDDING, rows, gates),
        (2 * LENGTH, batch, UNITS, gates),
        (2 * LENGTH, batch, gates, UNITS),
        (2, UNITS, rows, gates),
        (1, batch, 2 * UNITS, WIDTH),
        (1, batch, WIDTH, 2 * UNITS),
        (1, 2 * UNITS, batch, WIDTH),
    ]


def flop(shapes: Sequence[Shape]) -> float:
    """Floating-point operations of products."""
    return float(sum(2 * times * rows * inner * cols for times, rows, inner, cols in shapes))


def products(shapes: Sequence[Shape], precision: str) -> Callable[[], tf.Tensor]:
    """Multiplies all shapes; the many small ones of attention as one batched product each."""
    dtype = "bfloat16" if precision == "bfloat16" else "float32"
    pairs = []
    for times, rows, inner, columns in shapes:
        batched = times > 1000
        lead = [times] if batched else []
        left = tf.cast(tf.random.stateless_normal([*lead, rows, inner], [1, rows]), dtype)
        right = tf.cast(tf.random.stateless_normal([*lead, inner, columns], [2, inner]), dtype)
        pairs.append((1 if batched else times, left, right))

    def multiply() -> tf.Tensor:
        # Not compiled: a graph would compute what it has seen before only once.
        for times, left, right in pairs:
            for _ in range(times):
                product = tf.matmul(left, right)
        return product

    return multiply


def step_parts(model, request: dict, precision: str, batch: int) -> dict[str, Callable]:
    """A whole update, and its parts."""
    variables = [
        (name, one)
        for name, one in model.named_variables().items()
        if one.trainable and not (request.get("representation", 0) is None and "head" in name)
    ]
    config = recipe.Optimizer(name="adamw", learning_rate=1e-5, clip_norm=1.0)
    optimizer = optimizers.Optimizer(config, variables, total_steps=10**6)
    ids = tf.random.stateless_uniform([batch, LENGTH], [3, 4], 1000, VOCABULARY, tf.int32)
    features = {"input_ids": ids, "input_mask": tf.ones_like(ids)}
    (output,) = request
    only = [one for _, one in variables]

    def gradients():
        with tf.GradientTape() as tape:
            given = model(features, training=True, request=request, seed=tf.constant([0, 1]))
            loss = tf.reduce_mean(tf.square(given[output]))
        return [tf.convert_to_tensor(one) for one in tape.gradient(loss, only)]

    fixed = tf.function(gradients)()
    return {
        "whole update": tf.function(lambda: optimizer.apply(gradients(), tf.constant(1, tf.int64))),
        "forward and backward": tf.function(lambda: [tf.reduce_max(one) for one in gradients()]),
        "optimizer": tf.function(lambda: optimizer.apply(fixed, tf.constant(1, tf.int64))),
    }


def timed(parts: dict[str, Callable], repeats: int) -> dict[str, float]:
    """Milliseconds of each part: the median of `repeats`, taken in turn after two warm-ups."""
    seconds: dict[str, list[float]] = {name: [] for name in parts}
    for number in range(repeats + 2):
        for name, part in parts.items():
            began = time.perf_counter()
            part()  # On a CPU it returns when it is done.
            if number >= 2:
                seconds[name].append(time.perf_counter() - began)
    return {name: 1000 * statistics.median(values) for name, values in seconds.items()}


def taken_apart(
    title: str, model, request: dict, shapes: Sequence[Shape], batch: int, precision: str
) -> list[list[str]]:
    """Rows of the table for one kind of step."""
    parts = step_parts(model, request, precision, batch)
    parts["matrix products"] = products(shapes, precision)
    parts["peak"] = products([(1, _PEAK, _PEAK, _PEAK)], precision)
    taken = timed(parts, FLAGS.repeats)
    peak = 2.0 * _PEAK**3 / taken.pop("peak") / 1e6
    rate = flop(shapes) / taken["matrix products"] / 1e6
    rest = taken["forward and backward"] - taken["matrix products"]
    rows = [[f"**{title}, {precision}**", "", "", "", ""]]
    for name in ("whole update", "forward and backward", "matrix products", "optimizer"):
        products_only = name == "matrix products"
        rows.append(
            [
                name,
                f"{taken[name]:.1f}",
                f"{100 * taken[name] / taken['whole update']:.0f} %",
                f"{rate:.0f}" if products_only else "",
                f"{100 * rate / peak:.0f} %" if products_only else "",
            ]
        )
    share = f"{100 * rest / taken['whole update']:.0f} %"
    rows.insert(4, ["forward and backward, the rest", f"{rest:.1f}", share, "", ""])
    return rows


def main(_) -> None:
    tf.config.threading.set_intra_op_parallelism_threads(harness.THREADS)
    tf.config.threading.set_inter_op_parallelism_threads(harness.THREADS)
    minilm = harness.minilm_folder()
    rows = []
    for precision in FLAGS.precisions:
        head = {"kind": "classification", "num_labels": 2}
        encoder = pretrained.load_encoder(
            minilm, head=head, precision=precision, allow_missing_head=True
        )
        rows += taken_apart(
            f"MiniLM, {ENCODER_BATCH} x {LENGTH} tokens",
            encoder,
            {"logits": None},
            encoder_products(ENCODER_BATCH, encoder.config),
            ENCODER_BATCH,
            precision,
        )
        config = {
            "vocab_size": VOCABULARY,
            "embedding_dim": EMBEDDING,
            "lstm_units": UNITS,
            "projection_dim": WIDTH,
            "dropout": 0.2,
            "num_labels": 2,
        }
        rows += taken_apart(
            f"BiLSTM {EMBEDDING}, {UNITS}, {BILSTM_BATCH} x {LENGTH} tokens",
            BiLSTM.from_config_dict(config, precision),
            {"representation": None},
            bilstm_products(BILSTM_BATCH),
            BILSTM_BATCH,
            precision,
        )
    columns = ["part of a step", "ms", "of the update", "GFLOP/s", "of the peak"]
    harness.write_table(
        FLAGS.output or "limits",
        {"columns": columns, "rows": rows},
        {"repeats": FLAGS.repeats, "peak": f"a {_PEAK}^3 product in the same precision"},
        seed=FLAGS.seed,
    )


if __name__ == "__main__":
    harness.define_flags(repeats=15)
    flags.DEFINE_list("precisions", ["float32", "bfloat16"], "Of the model.")
    app.run(main)
