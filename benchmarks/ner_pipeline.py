"""XtremeDistil's nine stages for named entities: our run against the second code's loop, wall time.

    python -m benchmarks.ner_pipeline

4,000 sentences of PAN-X, three epochs a stage, a BiLSTM of E 300 and H 200, batches of 512 and, on
labels, 256; a teacher of MiniLM's size with random weights (speed does not depend on them), float32
on both sides. Theirs in its own terms, written anew from what is known of its code: all sentences
padded to 32 pieces, the teacher asked for logits and for hidden states in each of the five stages
that read it, special tokens and padding as classes and in every loss, a tenth of the sentences held
out, Keras' LSTM with recurrent dropout. Ours is `run` of `configs/xtremedistil/ner.yaml`: one pass
of the teacher, real lengths, held-out texts scored after each epoch, checkpoints. Both start from
tokenized data.
"""

from __future__ import annotations

import itertools
import pathlib
import tempfile
import time
from collections.abc import Callable

import numpy as np
from absl import app, flags

from benchmarks import harness, result_files
from benchmarks.ner_features import write_task
from benchmarks.result_files import comparison

LENGTH, EPOCHS, BATCH, LABEL_BATCH, TEACHER_BATCH = 32, 3, 512, 256, 256
DIM, UNITS, WIDTH = 300, 200, 384
TEACHER = {"hidden_size": WIDTH, "num_hidden_layers": 6, "num_attention_heads": 12,
           "intermediate_size": 1536}  # fmt: skip
# Classes that the other side adds: padding, further pieces, and two special tokens.
SPECIAL_CLASSES = 4

FLAGS = flags.FLAGS


def ours(task_dir: str, vocabulary: str, work_dir: str, seed: int) -> dict[str, Callable]:
    """`run`, and what the other side reads."""
    from xdistil_tf import recipe_files
    from xdistil_tf.data.record_set import RecordSet
    from xdistil_tf.data.records import decode_example
    from xdistil_tf.data.task_records import Options, create_task_records
    from xdistil_tf.data.tokenization import load_tokenizer
    from xdistil_tf.models import folders
    from xdistil_tf.models.encoder import Encoder
    from xdistil_tf.run import run
    from xdistil_tf.trainer import TrainerOptions

    work = pathlib.Path(work_dir)
    tokenizer = load_tokenizer(vocabulary, do_lower_case=False)
    options = Options(max_seq_length=128, num_shards=1, heldout_fraction=0.1)
    task = create_task_records(task_dir, "ner", tokenizer, work / "records", options=options)
    head = {"kind": "tagging", "num_labels": len(task.labels)}
    teacher = Encoder.from_config_dict(
        TEACHER | {"vocab_size": tokenizer.vocab_size, "head": head}, seed=seed
    )
    folders.save_model(teacher, work / "teacher", task.labels)
    tokenizer.save(work / "teacher")
    rows = [
        decode_example(records.read(number), str(number))
        for records in (RecordSet(task.pattern("train")), RecordSet(task.pattern("heldout")))
        for number in range(len(records))
    ]
    np.savez(
        work / "sentences.npz",
        ids=np.concatenate([row["input_ids"] for row in rows]),
        labels=np.concatenate([row["label_ids"] for row in rows]),
        weights=np.concatenate([row["label_weights"] for row in rows]),
        lengths=np.array([len(row["input_ids"]) for row in rows]),
        classes=len(task.labels),
        vocabulary=tokenizer.vocab_size,
    )
    sets = [f"stages.{number}.epochs={EPOCHS}" for number in range(3)]
    sets += [f"stages.{number}.evaluate.patience=null" for number in range(3)]
    sets += [f"model.embedding.dim={DIM}", f"model.lstm_units={UNITS}"]
    sets += [
        f"stages.2.batch_size={LABEL_BATCH}",
        "stages.2.evaluate.keep_best=task",
        f"seed={seed}",
    ]
    config = recipe_files.load_recipe(harness.ROOT / "configs/xtremedistil/ner.yaml", sets)
    data = {name: task.pattern(name) for name in ("train", "transfer", "heldout")}

    def distil() -> harness.Measured:
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            result = run(
                config, data, pathlib.Path(folder) / "run", teacher=str(work / "teacher"),
                options=TrainerOptions(progress=False),
            )  # fmt: skip
            seconds = time.perf_counter() - began
        steps = {stage["name"]: stage["steps"] for stage in result["stages"]}
        return harness.Measured(1, seconds, {"updates": sum(steps.values())}, harness.peak_mb())

    return {"float32": distil}


def published(work_dir: str, seed: int) -> dict[str, Callable]:
    """The loop of the second code."""
    import tf_keras

    tf_keras.utils.set_random_seed(seed)
    arrays = np.load(pathlib.Path(work_dir) / "sentences.npz")
    ids, labels = _padded(arrays)
    classes = int(arrays["classes"]) + SPECIAL_CLASSES
    ask = _teacher(int(arrays["vocabulary"]), classes)
    used, rows = np.unique(ids, return_inverse=True)
    student_ids = rows.reshape(ids.shape)  # Pieces that occur are numbered anew.

    def fit(model, target, loss, batch: int) -> None:
        model.compile(tf_keras.optimizers.Adam(), loss)
        model.fit(
            student_ids, target, batch_size=batch, epochs=EPOCHS, validation_split=0.1, verbose=0
        )

    def distil() -> harness.Measured:
        began = time.perf_counter()
        body, shared = _body(len(used))
        fit(body, ask(ids)["states"], "mse", BATCH)
        logits = tf_keras.layers.Dense(classes)(tf_keras.layers.Dropout(0.2)(body.output))
        model = tf_keras.Model(body.input, logits)
        entropy = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        for loss, batch in (("mse", BATCH), (entropy, LABEL_BATCH)):
            for layer in shared:
                layer.trainable = False
            for layer in (None, *shared):  # The head alone, then one layer more at a time.
                if layer is not None:
                    layer.trainable = True
                fit(model, ask(ids)["logits"] if loss == "mse" else labels, loss, batch)
        return harness.Measured(1, time.perf_counter() - began, None, harness.peak_mb())

    return {"float32": distil}


def _teacher(vocabulary: int, classes: int) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """Logits and hidden states of all texts, each from a pass of its own, as there."""
    import tensorflow as tf
    import tf_keras
    import transformers

    config = transformers.BertConfig(vocab_size=vocabulary, **TEACHER)
    model, head = transformers.TFBertModel(config), tf_keras.layers.Dense(classes)

    @tf.function(reduce_retracing=True)
    def answers(batch):
        top = model(batch, training=False).last_hidden_state
        every = model(batch, training=False, output_hidden_states=True).hidden_states
        return {"logits": head(top), "states": every[6]}

    def ask(ids: np.ndarray) -> dict[str, np.ndarray]:
        parts = [
            answers(tf.constant(ids[start : start + TEACHER_BATCH]))
            for start in range(0, len(ids), TEACHER_BATCH)
        ]
        return {name: np.concatenate([part[name].numpy() for part in parts]) for name in parts[0]}

    return ask


def _body(size: int):
    """Embedding, BiLSTM and projection, and these layers from the top down."""
    import tf_keras

    layers = tf_keras.layers
    tokens = layers.Input([LENGTH], dtype="int32")
    embedding = layers.Embedding(size, DIM)
    lstm = layers.LSTM(UNITS, dropout=0.2, recurrent_dropout=0.2, return_sequences=True)
    bilstm = layers.Bidirectional(lstm)
    dense = layers.Dense(WIDTH, activation=lambda x: tf_keras.activations.gelu(x, approximate=True))
    states = layers.Dropout(0.2)(bilstm(layers.Dropout(0.2)(embedding(tokens))))
    return tf_keras.Model(tokens, dense(states)), (dense, bilstm, embedding)


def _padded(arrays) -> tuple[np.ndarray, np.ndarray]:
    """Ids and classes `[N, 32]`; all positions have a class."""
    first = int(arrays["classes"])
    padding, piece, special = first, first + 1, first + 2
    stops = np.cumsum(arrays["lengths"])
    ids = np.zeros((len(stops), LENGTH), np.int32)
    labels = np.full((len(stops), LENGTH), padding, np.int32)
    for row, (start, stop) in enumerate(itertools.pairwise([0, *stops])):
        size = min(stop - start, LENGTH)
        ids[row, :size] = arrays["ids"][start : start + size]
        known = arrays["weights"][start : start + size] > 0
        labels[row, :size] = np.where(known, arrays["labels"][start : start + size], piece)
        labels[row, 0] = special
    return ids, labels


def main(_) -> None:
    panx = harness.data_folder("ner", "panx")
    vocabulary = harness.data_folder("bert", "vocab", "bert-base-multilingual-cased.vocab.txt")
    with tempfile.TemporaryDirectory() as temporary:
        write_task(panx, temporary, FLAGS.sentences // 3)
        work = pathlib.Path(temporary) / "work"
        work.mkdir()
        arguments = {"work_dir": str(work), "seed": FLAGS.seed}
        of_ours = arguments | {"task_dir": temporary, "vocabulary": vocabulary}
        with (
            harness.Worker("benchmarks.ner_pipeline:ours", of_ours) as mine,
            harness.Worker(
                "benchmarks.ner_pipeline:published", arguments, harness.TENSORFLOW_ONLY
            ) as others,
        ):
            cases = {"ours": mine.case("float32"), "published": others.case("float32")}
            measured = harness.rounds(cases, FLAGS.repeats, warmup=0)
    seconds = {name: [one.seconds for one in values] for name, values in measured.items()}
    rows = [comparison("nine stages", seconds["ours"], seconds["published"], "s", 3.0)]
    about = {
        "sentences": FLAGS.sentences,
        "epochs": EPOCHS,
        "student": {"embedding": DIM, "units": UNITS},
        "updates": measured["ours"][0].extra["updates"],
    }
    named = {f"{name} (s)": values for name, values in seconds.items()}
    result_files.write_results(
        FLAGS.output or "ner_pipeline", rows, about, measurements=named, seed=FLAGS.seed
    )


if __name__ == "__main__":
    harness.define_flags(repeats=1)
    flags.DEFINE_integer("sentences", 4000, "Of three languages together.", lower_bound=30)
    app.run(main)
