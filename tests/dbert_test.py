"""d-BERT's students end to end: words, transfer texts by rules, pairs; what is refused."""

import dataclasses
import itertools
import pathlib
import random

import numpy as np
import pytest
import tensorflow as tf

import xdistil_tf
from tests.small_task import OPTIONS, encoder_folder, write_lines
from xdistil_tf import distill, files, predict, recipe, recipe_files, run
from xdistil_tf.augment_rules import augment_by_rules
from xdistil_tf.data import word_vocabulary
from xdistil_tf.data.augmentation.settings import RuleSettings
from xdistil_tf.data.record_set import RecordSet
from xdistil_tf.data.records import decode_example
from xdistil_tf.data.task_info import load_task_info
from xdistil_tf.data.task_records import Options
from xdistil_tf.data.tokenization import load_tokenizer
from xdistil_tf.job import Job
from xdistil_tf.models import folders

pytest_plugins = ["tests.small_task"]

CONFIGS = pathlib.Path(xdistil_tf.__file__).parent.parent / "configs"
RECORDS = Options(max_seq_length=32, heldout_rows=20, num_shards=1)
SMALL = ["model.embedding.dim=8", "model.lstm_units=6", "model.projection_dim=8"]
SMALL += ["max_seq_length=32", "stages.0.epochs=null", "stages.0.steps=6"]
WORDS = "the waiter room was and we duck soup in but they had".split()


def small_recipe(name, *more):
    return recipe_files.load_recipe(CONFIGS / "dbert" / name, [*SMALL, *more])


def write_task(folder, pair):
    """Texts whose label one word decides; of pairs the label says whether they share it."""
    draw = random.Random(1)
    header = "\t".join(["text", *["text_b"] * pair, "label"])
    lines = []
    for number in range(160):
        texts = []
        for side in range(1 + pair):
            decides = ("awful", "great")[(number + side * (number // 2)) % 2]
            texts.append(" ".join([*draw.sample(WORDS, 4), decides, f"n{number}"]))
        lines.append("\t".join([*texts, str(number % 2)]))
    write_lines(folder / "train.tsv", [header, *itertools.islice(lines, 120)])
    write_lines(folder / "dev.tsv", [header, *lines[120:]])


@pytest.fixture(scope="module", params=["text.yaml", "pair.yaml"])
def made(request, small, tmp_path_factory):
    """The folder of a finished job, and the job."""
    root, pair = tmp_path_factory.mktemp("dbert"), request.param == "pair.yaml"
    write_task(root / "task", pair)
    settings = RuleSettings(n_iter=3, p_mask=0.3)
    augment_by_rules(root / "task", "classification", root / "rules.tsv", settings, num_processes=1)
    head = {"kind": "classification", "num_labels": 2}
    teacher = encoder_folder(root / "teacher", small.tokenizer, head, initializer_range=0.3)
    job = Job(
        small_recipe(request.param),
        small_recipe(request.param),
        str(root / "task"),
        "classification",
        teacher,
        str(root / "run"),
        transfer_file=(str(root / "rules.tsv"),),
        records=RECORDS,
        teacher_labels=("0", "1"),
        accept_weak_teacher=True,
        labels_only=False,
    )
    return job, distill.distill(job, options=OPTIONS)


def train_again(job, folder, *changes):
    """The student of a finished job once more, from its records and cache, otherwise."""
    name = "pair.yaml" if job.recipe.model.pairs == "siamese" else "text.yaml"
    done = pathlib.Path(job.model_dir)
    info = load_task_info(done / "records")
    bound = {split: info.pattern(split) for split in ("train", "transfer", "heldout")}
    cached = str(done / "cache")
    config = small_recipe(name, *changes)
    return run.run(config, bound, folder, teacher_cache=cached, options=OPTIONS)


def transfer_of(job):
    info = load_task_info(pathlib.Path(job.model_dir) / "records")
    records = RecordSet(info.pattern("transfer"))
    return [decode_example(records.read(n), "transfer") for n in range(len(records))]


def test_the_student_reads_the_words_of_its_texts(made):
    job, _ = made
    folder = pathlib.Path(job.model_dir)
    tokenizer = load_tokenizer(folder / "records" / "tokenizer")
    assert word_vocabulary.holds_whole_words(tokenizer)
    assert {"soup", "great", "n1"} <= set(tokenizer.tokens)
    model = folders.load_model(folder / "student" / "model")
    assert model.config["vocab_size"] == len(tokenizer.tokens)
    assert model.config["pairs"] == ("siamese" if job.recipe.model.pairs == "siamese" else "joined")
    masked = [one for one in transfer_of(job) if tokenizer.mask_id in one["input_ids"]]
    assert len(masked) > 50


def test_words_of_dev_alone_are_unknown(made):
    job, _ = made
    tokenizer = load_tokenizer(pathlib.Path(job.model_dir) / "records" / "tokenizer")
    assert "n100" in tokenizer.tokens and "n150" not in tokenizer.tokens
    (encoding,) = tokenizer.encode_batch(["soup n150 soupy"])
    assert encoding.input_ids[2:4] == [tokenizer.unk_id] * 2


def test_gold_is_known_of_examples_and_of_no_variant(made):
    job, _ = made
    rows = (pathlib.Path(job.task_dir).parent / "rules.tsv").read_text().splitlines()[1:]
    by_id = {f"rules:{n}".encode(): row.split("\t") for n, row in enumerate(rows, start=1)}
    known = {0.0: 0, 1.0: 0}
    for one in transfer_of(job):
        row = by_id[one["id"][0]]
        assert (one["label_weights"] == [1.0]) == (row[5] == "")
        if row[5] == "":
            assert one["label_ids"] == [int(row[3])]
        known[one["label_weights"][0]] += 1
    assert min(known.values()) > 50


def test_the_job_is_done_once(made):
    job, report = made
    before = (pathlib.Path(job.model_dir) / "words" / "vocab.txt").stat().st_mtime_ns
    assert distill.distill(job, options=OPTIONS) == report
    assert (pathlib.Path(job.model_dir) / "words" / "vocab.txt").stat().st_mtime_ns == before


def test_what_is_served_says_what_the_model_says(made):
    job, report = made
    assert report["export"]["parity"]["passed"]
    pair = job.recipe.model.pairs == "siamese"
    texts = ["the soup was great n1", "we had awful duck zzz"]
    others = ["they had great soup", "but the room was"]
    loaded = tf.saved_model.load(str(pathlib.Path(job.model_dir) / "export" / "1"))
    given = {"text": tf.constant(texts)} | ({"text_pair": tf.constant(others)} if pair else {})
    scores = loaded.signatures["serving_default"](**given)["scores"].numpy()
    predictor = predict.Predictor(str(pathlib.Path(job.model_dir) / "student"))
    expected = predictor.scores(texts, others if pair else None)
    np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_gold_and_logits_train_together(made, tmp_path):
    gold = "{loss: task, weight: 0.5}"
    logits = "{loss: mean_squared_error, output: logits, weight: 0.5}"
    both = train_again(made[0], tmp_path / "both", f"stages.0.objective=[{gold}, {logits}]")
    assert both["stages"][0]["steps"] == 6 and np.isfinite(both["stages"][0]["loss"])


def test_vectors_of_a_file_are_two_channels(made, tmp_path):
    write_lines(tmp_path / "vectors.txt", ["soup 1 2 3 4 5 6 7 8", "Great 8 7 6 5 4 3 2 1"])
    source = f"{{source: file, path: {tmp_path}/vectors.txt, dim: 8, multichannel: true}}"
    changes = (f"model.embedding={source}", "stages.0.evaluate=null")  # The last weights.
    train_again(made[0], tmp_path / "run", *changes)
    model = folders.load_model(tmp_path / "run" / "model")
    tokens = load_tokenizer(tmp_path / "run" / "model").tokens
    frozen, table = model.embedding.frozen.numpy(), model.embedding.table.numpy()
    assert frozen[tokens.index("soup")].tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    assert frozen[tokens.index("great")].tolist() == [8, 7, 6, 5, 4, 3, 2, 1]
    assert not np.array_equal(frozen, table)


def test_words_need_records_of_words(small, tmp_path):
    config = small_recipe("text.yaml")
    with pytest.raises(
        ValueError, match="reads words .model.words., and these records have pieces"
    ):
        run.run(config, small.data(), tmp_path / "run", teacher=small.teacher, options=OPTIONS)


def test_two_texts_need_pairs(small, tmp_path):
    config = small_recipe("pair.yaml", "model.words=null")
    with pytest.raises(ValueError, match="compares two texts, and the task has single texts"):
        run.run(config, small.data(), tmp_path / "run", teacher=small.teacher, options=OPTIONS)


def test_a_tokenizer_beside_words_is_refused(made):
    job, _ = made
    with pytest.raises(ValueError, match="Expected no --tokenizer"):
        distill.distill(dataclasses.replace(job, tokenizer=job.teacher), options=OPTIONS)


def test_rare_words_and_those_beyond_a_number_are_unknown(tmp_path):
    write_lines(tmp_path / "task" / "train.tsv", ["text\tlabel", "b a b\tx", "c b A\ty", "d\tx"])
    arguments = (tmp_path / "task", "classification", tmp_path / "words", Options())
    made = word_vocabulary.make_task_vocabulary(*arguments)
    assert made.tokens == [*word_vocabulary.SPECIAL, "b", "a", "c", "d"]
    assert files.read_json(tmp_path / "words" / "vocabulary.json")["covered"] == 1
    made = word_vocabulary.make_task_vocabulary(*arguments, min_count=2)
    assert made.tokens[5:] == ["b", "a"]
    made = word_vocabulary.make_task_vocabulary(*arguments, max_words=3, lower_case=False)
    assert made.tokens[5:] == ["b", "A", "a"]
    with pytest.raises(ValueError, match="occurs 9 times"):
        word_vocabulary.make_task_vocabulary(*arguments, min_count=9)


def test_a_multichannel_embedding_that_does_not_train_is_refused():
    with pytest.raises(ValueError, match="trainable: true of a multichannel"):
        recipe.Embedding(source="random", multichannel=True, trainable=False)
