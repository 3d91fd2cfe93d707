"""Training throughput of the BiLSTM student's representation stage, against a PyTorch LSTM.

    python -m benchmarks.bilstm

One stage of XtremeDistil: embedding 300, 2 x 600 units, projection to 384, mean squared error,
Adam, batches of 512 sentences of SST-2. Every side trains on the same sentences: PyTorch (a) padded
to 32, the published setting, and (b) sorted by length; ours sorted by length. Each side takes its
best precision.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from absl import app, flags

from benchmarks import harness, result_files

FLAGS = flags.FLAGS

EMBEDDING, UNITS, WIDTH, VOCABULARY, LENGTH = 300, 600, 384, 30522, 32
DROPOUT, LEARNING_RATE = 0.2, 1e-3
PRECISIONS = ("float32", "bfloat16")
AIMS = {"padded": 2.5, "sorted": 1.3}
_NAMES = {"padded": "padded to 32", "sorted": "length-sorted"}


def read_batches(
    kind: str, vocabulary: str, train: str, count: int, batch_size: int, seed: int
) -> list[np.ndarray]:
    """Batches of ids `[B, T]`, 0 at padding; `kind` is `padded` (to 32) or `sorted` (by length)."""
    from tokenizers import BertWordPieceTokenizer

    with open(train, encoding="utf-8") as handle:
        lines = handle.read().split("\n")[1:-1]
    chosen = np.random.default_rng(seed).permutation(len(lines))[: count * batch_size]
    texts = [lines[index].split("\t")[0] for index in chosen]
    tokenizer = BertWordPieceTokenizer(vocabulary, lowercase=True)
    rows = [encoding.ids[:LENGTH] for encoding in tokenizer.encode_batch(texts)]
    if kind == "sorted":
        rows.sort(key=len)
    batches = []
    for start in range(0, len(rows), batch_size):
        group = rows[start : start + batch_size]
        length = LENGTH if kind == "padded" else max(map(len, group))
        batches.append(np.array([row + [0] * (length - len(row)) for row in group], np.int64))
    return batches


def ours(data: dict, precision: str) -> dict[str, Callable[[], float]]:
    """Our student, in the library's own optimizer (units: sentences)."""
    import tensorflow as tf

    from xdistil_tf import optimizers, recipe
    from xdistil_tf.models.bilstm import BiLSTM

    config = {
        "vocab_size": VOCABULARY,
        "embedding_dim": EMBEDDING,
        "lstm_units": UNITS,
        "projection_dim": WIDTH,
        "dropout": DROPOUT,
        "num_labels": 2,
    }
    model = BiLSTM.from_config_dict(config, precision)
    variables = [(name, v) for name, v in model.named_variables().items() if "head" not in name]
    adam = recipe.Optimizer(name="adam", learning_rate=LEARNING_RATE)
    optimizer = optimizers.Optimizer(adam, variables, total_steps=10**6)
    target = tf.random.stateless_normal([data["batch_size"], WIDTH], [1, 2])
    step = tf.Variable(0, dtype=tf.int64)

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int32)])
    def train(ids):
        features = {"input_ids": ids, "input_mask": tf.cast(ids > 0, tf.int32)}
        seed = tf.stack([0, tf.cast(step, tf.int32)])
        with tf.GradientTape() as tape:
            outputs = model(features, training=True, request={"representation": None}, seed=seed)
            loss = tf.reduce_mean(tf.square(outputs["representation"] - target))
        gradients = tape.gradient(loss, [variable for _, variable in variables])
        optimizer.apply([tf.convert_to_tensor(gradient) for gradient in gradients], step)
        step.assign_add(1)
        return loss

    return _cases(lambda ids: float(train(tf.constant(ids, tf.int32))), data, ["sorted"])


def theirs(data: dict, precision: str) -> dict[str, Callable[[], float]]:
    """The same in plain PyTorch, with its fused Adam and bfloat16 by autocast."""
    import torch

    class Student(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = torch.nn.Embedding(VOCABULARY, EMBEDDING)
            self.lstm = torch.nn.LSTM(EMBEDDING, UNITS, batch_first=True, bidirectional=True)
            self.projection = torch.nn.Linear(2 * UNITS, WIDTH)
            self.dropout = torch.nn.Dropout(DROPOUT)

        def forward(self, ids):
            _, (final, _) = self.lstm(self.dropout(self.embedding(ids)))
            projected = self.projection(self.dropout(torch.cat([final[0], final[1]], 1)))
            return torch.nn.functional.gelu(projected, approximate="tanh")

    model = Student()
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE, fused=True)
    target = torch.randn(data["batch_size"], WIDTH)

    def train(ids):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            outputs = model(torch.from_numpy(ids))
        loss = torch.nn.functional.mse_loss(outputs.float(), target)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return _cases(train, data, ["padded", "sorted"])


def _cases(step: Callable, data: dict, kinds: Sequence[str]) -> dict[str, Callable[[], float]]:
    """A case for each kind of batches that trains on all of them, after one of every length."""

    def case(batches: list[np.ndarray]) -> Callable[[], float]:
        for ids in {ids.shape[1]: ids for ids in batches}.values():
            step(ids)

        def run() -> float:
            for ids in batches:
                step(ids)
            return sum(len(ids) for ids in batches)

        return run

    return {kind: case(read_batches(kind, **data)) for kind in kinds}


def measure(data: Mapping, repeats: int) -> dict[str, list[float]]:
    """`side precision kind` -> sentences a second, round after round."""
    cases, workers = {}, []
    sides = {"ours": harness.TENSORFLOW_ONLY, "theirs": harness.TORCH_ONLY}
    try:
        for precision in PRECISIONS:
            for side, environment in sides.items():
                arguments = {"data": dict(data), "precision": precision}
                worker = harness.Worker(f"benchmarks.bilstm:{side}", arguments, environment)
                workers.append(worker)
                for kind in worker.names:
                    cases[f"{side} {precision} {kind}"] = worker.case(kind)
        return harness.interleaved(cases, repeats)
    finally:
        for worker in workers:
            worker.close()


def compare(rates: Mapping[str, Sequence[float]]) -> list[dict]:
    """Our best precision against theirs, for each kind of batches."""

    def best(side: str, kind: str) -> str:
        return max(
            (f"{side} {precision} {kind}" for precision in PRECISIONS),
            key=lambda name: statistics.median(rates[name]),
        )

    mine = best("ours", "sorted")
    rows = []
    for kind, aim in AIMS.items():
        other = best("theirs", kind)
        name = (
            f"representation stage, {mine.split()[1]}, length-sorted; "
            f"PyTorch {other.split()[1]}, {_NAMES[kind]}"
        )
        rows.append(result_files.comparison(name, rates[mine], rates[other], "sentences/s", aim))
    return rows


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}.")
    data = {
        "vocabulary": harness.data_folder("bert", "vocab", "bert-base-uncased.vocab.txt"),
        "train": harness.data_folder("glue", "SST-2", "train.tsv"),
        "count": FLAGS.batches,
        "batch_size": FLAGS.batch_size,
        "seed": FLAGS.seed,
    }
    rates = measure(data, FLAGS.repeats)
    result_files.write_results(
        FLAGS.output or "bilstm",
        compare(rates),
        {
            "batches": FLAGS.batches,
            "batch_size": FLAGS.batch_size,
            "sizes": [EMBEDDING, UNITS, WIDTH],
        },
        measurements=rates,
        seed=FLAGS.seed,
    )


if __name__ == "__main__":
    harness.define_flags(repeats=5)
    flags.DEFINE_integer("batches", 12, "Batches a measurement.", lower_bound=1)
    flags.DEFINE_integer("batch_size", 512, "Sentences a batch.", lower_bound=1)
    app.run(main)
