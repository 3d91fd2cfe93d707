"""Where the time of a training step goes: the profile behind the comparisons that miss their aim.

    python -m benchmarks.limits
    python -m benchmarks.limits --steps=pretraining     # limits_pretraining.json

Steps are taken apart, each part timed alone in one process: fine-tuning MiniLM on 32 sentences of
16 tokens, the representation stage of a BiLSTM (300, 600) on 512 sentences of 16, and pretraining 6
layers of 384 on 32 sequences of 128 with 20 masked tokens. `matrix products` are the very shapes
that forward and backward multiply, one after the other and nothing else, which is what another
implementation on the same kernels would have to do as well. Their rate against that of one large
product (the peak) says what these shapes cost; what remains of forward and backward is ours, up to
the noise of a difference.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
from absl import app, flags

from benchmarks import harness
from xdistil_tf import losses, optimizers, recipe
from xdistil_tf.models import pretrained
from xdistil_tf.models.bilstm import BiLSTM
from xdistil_tf.models.encoder import Encoder
from xdistil_tf.models.encoder_presets import PRESETS

FLAGS = flags.FLAGS

LENGTH, PRETRAINING_LENGTH, SLOTS = 16, 128, 20
ENCODER_BATCH, BILSTM_BATCH = 32, 512
EMBEDDING, UNITS, WIDTH, VOCABULARY = 300, 600, 384, 30522
_PEAK = 4096

Shape = tuple[int, int, int, int]  # How often, rows, inner size, columns.


def encoder_products(
    batch: int, config: dict[str, Any], length: int = LENGTH, read: int = 1
) -> list[Shape]:
    """The products of an update of an encoder with a classifier: forward, and two backward.

    Of the last block only the positions that the head reads are computed (a classifier: one),
    beside the keys and values of all.
    """
    rows, width, inner = batch * length, config["hidden_size"], config["intermediate_size"]
    heads, blocks = config["num_attention_heads"], config["num_hidden_layers"] - 1
    ends = [(width, width), (width, inner), (inner, width)]
    dense = [(blocks, rows, *one) for one in [(width, 3 * width), *ends]]
    dense += [(1, rows, width, 2 * width)]
    dense += [(1, batch * read, *one) for one in [(width, width), *ends]]
    shapes = _with_gradients(dense)
    # Scores and contexts: six products of a head's [T, D / H] with [T, T] or its like.
    shapes.append((6 * blocks * batch * heads, length, width // heads, length))
    shapes.append((6 * batch * heads, read, width // heads, length))
    return shapes


def pretraining_products(batch: int, config: dict[str, Any]) -> list[Shape]:
    """The products of an update of a masked language model: its words at masked places alone."""
    width, slots = config["hidden_size"], batch * SLOTS
    head = _with_gradients([(1, slots, width, width), (1, slots, width, VOCABULARY)])
    return encoder_products(batch, config, PRETRAINING_LENGTH, SLOTS) + head


def _with_gradients(dense: Sequence[Shape]) -> list[Shape]:
    """Each product forward, and the two that its gradients are."""
    shapes: list[Shape] = []
    for times, some, inputs, outputs in dense:
        shapes.append((times, some, inputs, outputs))
        shapes.append((times, some, outputs, inputs))
        shapes.append((times, inputs, some, outputs))
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


def step_parts(
    model, request: dict, precision: str, batch: int, length: int
) -> dict[str, Callable]:
    """A whole update, and its parts."""
    variables = [
        (name, one)
        for name, one in model.named_variables().items()
        if one.trainable and not (request.get("representation", 0) is None and "head" in name)
    ]
    config = recipe.Optimizer(name="adamw", learning_rate=1e-5, clip_norm=1.0)
    optimizer = optimizers.Optimizer(config, variables, total_steps=10**6)
    ids = tf.random.stateless_uniform([batch, length], [3, 4], 1000, VOCABULARY, tf.int32)
    features = {"input_ids": ids, "input_mask": tf.ones_like(ids)}
    (output,) = request
    words = tf.zeros([batch, SLOTS], tf.int32)
    if output == "masked_lm_logits":
        features["masked_lm_positions"] = tf.tile(tf.range(1, SLOTS + 1)[tf.newaxis], [batch, 1])
    only = [one for _, one in variables]

    def gradients():
        with tf.GradientTape() as tape:
            given = model(features, training=True, request=request, seed=tf.constant([0, 1]))
            if output == "masked_lm_logits":
                loss = tf.reduce_mean(losses.cross_entropy(words, given[output]))
            else:
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
    title: str,
    model,
    request: dict,
    shapes: Sequence[Shape],
    batch: int,
    precision: str,
    length: int = LENGTH,
) -> list[list[str]]:
    """Rows of the table for one kind of step."""
    parts = step_parts(model, request, precision, batch, length)
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


def fine_tuning(precision: str) -> list[list[str]]:
    """MiniLM with a classifier."""
    head = {"kind": "classification", "num_labels": 2}
    encoder = pretrained.load_encoder(
        harness.minilm_folder(), head=head, precision=precision, allow_missing_head=True
    )
    return taken_apart(
        f"MiniLM, {ENCODER_BATCH} x {LENGTH} tokens",
        encoder,
        {"logits": None},
        encoder_products(ENCODER_BATCH, encoder.config),
        ENCODER_BATCH,
        precision,
    )


def recurrent(precision: str) -> list[list[str]]:
    """The BiLSTM."""
    config = {
        "vocab_size": VOCABULARY,
        "embedding_dim": EMBEDDING,
        "lstm_units": UNITS,
        "projection_dim": WIDTH,
        "dropout": 0.2,
        "num_labels": 2,
    }
    return taken_apart(
        f"BiLSTM {EMBEDDING}, {UNITS}, {BILSTM_BATCH} x {LENGTH} tokens",
        BiLSTM.from_config_dict(config, precision),
        {"representation": None},
        bilstm_products(BILSTM_BATCH),
        BILSTM_BATCH,
        precision,
    )


def pretraining(precision: str) -> list[list[str]]:
    """A masked language model of random weights."""
    config = PRESETS["6x384"] | {"vocab_size": VOCABULARY, "head": {"kind": "pretraining"}}
    model = Encoder.from_config_dict(config, precision)
    return taken_apart(
        f"6 x 384, {ENCODER_BATCH} x {PRETRAINING_LENGTH} tokens, {SLOTS} masked",
        model,
        {"masked_lm_logits": None},
        pretraining_products(ENCODER_BATCH, model.config),
        ENCODER_BATCH,
        precision,
        PRETRAINING_LENGTH,
    )


STEPS = {"fine_tuning": fine_tuning, "recurrent": recurrent, "pretraining": pretraining}


def main(_) -> None:
    tf.config.threading.set_intra_op_parallelism_threads(harness.THREADS)
    tf.config.threading.set_inter_op_parallelism_threads(harness.THREADS)
    rows = [
        row
        for precision in FLAGS.precisions
        for step in FLAGS.steps
        for row in STEPS[step](precision)
    ]
    columns = ["part of a step", "ms", "of the update", "GFLOP/s", "of the peak"]
    harness.write_table(
        FLAGS.output or ("limits_pretraining" if FLAGS.steps == ["pretraining"] else "limits"),
        {"columns": columns, "rows": rows},
        {"repeats": FLAGS.repeats, "peak": f"a {_PEAK}^3 product in the same precision"},
        seed=FLAGS.seed,
    )


if __name__ == "__main__":
    harness.define_flags(repeats=15)
    flags.DEFINE_list("precisions", ["float32", "bfloat16"], "Of the model.")
    flags.DEFINE_list("steps", ["fine_tuning", "recurrent"], f"Some of {list(STEPS)}.")
    app.run(main)
