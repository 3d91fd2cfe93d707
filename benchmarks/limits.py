"""Where the time of a training step goes: the profile behind the comparisons that miss their aim.

    python -m benchmarks.limits
    python -m benchmarks.limits --steps=pretraining     # limits_pretraining.json
    python -m benchmarks.limits --steps=intermediate    # limits_intermediate.json

Steps are taken apart, each part timed alone in one process: fine-tuning MiniLM on 32 sentences of
16 tokens, the representation stage of a BiLSTM (300, 600) on 512 sentences of 16, pretraining 6
layers of 384 on 32 sequences of 128 with 20 masked tokens, and TinyBERT's intermediate stage with
its teacher on 32 sentences of 20. `matrix products` are the very shapes
that forward and backward multiply, one after the other and nothing else, which is what another
implementation on the same kernels would have to do as well. Their rate against that of one large
product (the peak) says what these shapes cost; what remains of forward and backward is ours, up to
the noise of a difference.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf
from absl import app, flags

from benchmarks import harness, result_files, tinybert_stage1
from xdistil_tf import losses, optimizers, recipe
from xdistil_tf.models import layers, pretrained
from xdistil_tf.models.bilstm import BiLSTM
from xdistil_tf.models.encoder import Encoder
from xdistil_tf.models.encoder_presets import PRESETS
from xdistil_tf.models.projected import PART, ProjectedEncoder
from xdistil_tf.objective import Objective
from xdistil_tf.teachers import LiveTeacher

FLAGS = flags.FLAGS

LENGTH, PRETRAINING_LENGTH, INTERMEDIATE_LENGTH, SLOTS = 16, 128, 20, 20
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


def block_products(batch: int, sizes: Mapping[str, int], length: int) -> tuple[list, list]:
    """The products of all blocks at all positions, forward: those with weights, and attention's."""
    rows, width, inner = batch * length, sizes["hidden_size"], sizes["intermediate_size"]
    heads, blocks = sizes["num_attention_heads"], sizes["num_hidden_layers"]
    dense = [(width, 3 * width), (width, width), (width, inner), (inner, width)]
    attention = (2 * blocks * batch * heads, length, width // heads, length)
    return [(blocks, rows, *one) for one in dense], [attention]


def intermediate_products(
    batch: int, sizes: Mapping[str, int], teacher: Mapping[str, int]
) -> list[Shape]:
    """The products of an update that compares layers: blocks and projections."""
    dense, attention = block_products(batch, sizes, INTERMEDIATE_LENGTH)
    rows, width = batch * INTERMEDIATE_LENGTH, sizes["hidden_size"]
    dense.append((sizes["num_hidden_layers"] + 1, rows, width, teacher["hidden_size"]))
    return _with_gradients(dense) + [(3 * attention[0][0], *attention[0][1:])]


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
    update = ("forward and backward", "matrix products")
    return rows_of(title, parts, {"matrix products": shapes}, [update], precision)


def rows_of(
    title: str,
    parts: dict[str, Callable],
    shapes: dict[str, Sequence[Shape]],
    rests: Sequence[tuple[str, str]],
    precision: str,
) -> list[list[str]]:
    """Times each part.

    Args:
      title: Of these rows.
      parts: What is timed; `whole update` among them.
      shapes: Products that are timed besides, by name.
      rests: (part, the products in it): a row says what remains.
      precision: Of the products.
    """
    peak = products([(1, _PEAK, _PEAK, _PEAK)], precision)
    multiplied = {name: products(one, precision) for name, one in shapes.items()}
    taken = timed(parts | multiplied | {"peak": peak}, FLAGS.repeats)
    peak_rate = 2.0 * _PEAK**3 / taken.pop("peak") / 1e6
    products_of = dict(rests)
    rows = [[f"**{title}, {precision}**", "", "", "", ""]]

    def add(name: str, milliseconds: float, rate: float | None = None) -> None:
        share = f"{100 * milliseconds / taken['whole update']:.0f} %"
        figures = ["", ""] if rate is None else [f"{rate:.0f}", f"{100 * rate / peak_rate:.0f} %"]
        rows.append([name, f"{milliseconds:.1f}", share, *figures])

    for name in parts:
        add(name, taken[name])
        if name in products_of:
            inside = products_of[name]
            add(inside, taken[inside], flop(shapes[inside]) / taken[inside] / 1e6)
            add(f"{name}, the rest", taken[name] - taken[inside])
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


def intermediate(precision: str) -> list[list[str]]:
    """TinyBERT's intermediate stage with its teacher in the step, both of random weights."""
    sizes = tinybert_stage1.STUDENT | {"vocab_size": VOCABULARY}
    config = tinybert_stage1.TEACHER | {"vocab_size": VOCABULARY}
    teacher = LiveTeacher(layers.only_run(Encoder.from_config_dict(config, precision)))
    student = ProjectedEncoder(Encoder.from_config_dict(sizes, precision), config["hidden_size"])
    student.initialise_part(PART, 1)
    terms = tinybert_stage1.terms("intermediate")
    objective = Objective(terms, "classification", student.available, teacher.available)
    shape = [ENCODER_BATCH, INTERMEDIATE_LENGTH]
    ids = tf.random.stateless_uniform(shape, [3, 4], 1000, VOCABULARY, tf.int32)
    features = {
        "input_ids": ids,
        "input_mask": tf.ones_like(ids),
        "example_weights": tf.ones([ENCODER_BATCH]),
    }
    variables = [(name, one) for name, one in student.named_variables().items() if one.trainable]
    settings = recipe.Optimizer(name="bert_adam", learning_rate=1e-5, clip_norm=1.0)
    optimizer = optimizers.Optimizer(settings, variables, total_steps=10**6)

    def given():
        return teacher(features, objective.teacher_request)

    def gradients(theirs):
        with tf.GradientTape() as tape:
            ours = student(
                features, training=True, request=objective.student_request, seed=tf.constant([0, 1])
            )
            loss = objective.total(
                objective.numerators(features, ours, theirs), objective.denominators(features)
            )
        found = tape.gradient(loss, [one for _, one in variables])
        return [None if one is None else tf.convert_to_tensor(one) for one in found]

    fixed = tf.function(given)()
    grads = tf.function(gradients)(fixed)
    step = tf.constant(1, tf.int64)
    parts = {
        "whole update": tf.function(lambda: optimizer.apply(gradients(given()), step)),
        "teacher": tf.function(lambda: [tf.reduce_max(one) for one in tf.nest.flatten(given())]),
        "student, forward and backward": tf.function(
            lambda: [tf.reduce_max(one) for one in gradients(fixed) if one is not None]
        ),
        "optimizer": tf.function(lambda: optimizer.apply(grads, step)),
    }
    forward = block_products(ENCODER_BATCH, config, INTERMEDIATE_LENGTH)
    shapes = {
        "products of the teacher": sum(forward, []),
        "products of the student": intermediate_products(ENCODER_BATCH, student.config, config),
    }
    rests = [
        ("teacher", "products of the teacher"),
        ("student, forward and backward", "products of the student"),
    ]
    title = f"12 x 768 -> 4 x 312, {ENCODER_BATCH} x {INTERMEDIATE_LENGTH} tokens, teacher live"
    return rows_of(title, parts, shapes, rests, precision)


USUAL = ["fine_tuning", "recurrent"]
STEPS = {
    "fine_tuning": fine_tuning,
    "recurrent": recurrent,
    "pretraining": pretraining,
    "intermediate": intermediate,
}


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
    result_files.write_table(
        FLAGS.output or "_".join(["limits", *sorted({*FLAGS.steps} - {*USUAL})]),
        {"columns": columns, "rows": rows},
        {"repeats": FLAGS.repeats, "peak": f"a {_PEAK}^3 product in the same precision"},
        seed=FLAGS.seed,
    )


if __name__ == "__main__":
    harness.define_flags(repeats=15)
    flags.DEFINE_list("precisions", ["float32", "bfloat16"], "Of the model.")
    flags.DEFINE_list("steps", USUAL, f"Some of {list(STEPS)}.")
    app.run(main)
