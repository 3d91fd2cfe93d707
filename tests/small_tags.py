"""A tiny tagged task in two languages, and a student trained on it (a pytest plugin).

pytest_plugins = ["tests.small_tags"]    # in a test module
def test_something(tagged, tagger): ... tagged.info ...
"""

import pathlib
import random

import pytest

from tests.small_task import OPTIONS, SmallTask, stage, student_recipe, with_encoders
from xdistil_tf.data import synthetic
from xdistil_tf.data.task_records import Options, create_task_records
from xdistil_tf.data.tokenization import load_tokenizer
from xdistil_tf.run import run

TAGS = ("B-LOC", "B-PER", "I-LOC", "I-PER", "O")
PERSONS = ("anna", "anna kent", "peter", "lucy mary hart", "john", "clara")
PLACES = ("rome", "oslo", "new york", "lima", "east timor", "paris")
SENTENCES = {
    "en": ("P lives in L", "in L P met P", "the room was cold", "P , of L , sleeps"),
    "sw": ("P anaishi L", "L ni mji", "chumba kilikuwa baridi", "P wa L analala"),
}


def sentence(rng: random.Random, language: str) -> tuple[list[str], list[str]]:
    """Words and tags; some sentences are longer than a window of 16 pieces."""
    words, tags = [], []
    for _ in range(rng.choice((1, 1, 2, 4))):
        for word in rng.choice(SENTENCES[language]).split():
            kind = {"P": "PER", "L": "LOC"}.get(word)
            parts = rng.choice({"P": PERSONS, "L": PLACES}.get(word, (word,))).split()
            words += parts
            if kind is None:
                tags += ["O"]
            else:
                tags += [f"B-{kind}"] + [f"I-{kind}"] * (len(parts) - 1)
    return words, tags


def write_tagged(folder: pathlib.Path, sizes: dict[str, int], seed: int = 0) -> pathlib.Path:
    """Writes `<split>-<language>.tsv`, one token a line."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, size in sizes.items():
        for language in SENTENCES:
            rng = random.Random(f"{seed} {split} {language}")
            lines = []
            for _ in range(size):
                lines += [
                    f"{word}\t{tag}" for word, tag in zip(*sentence(rng, language), strict=True)
                ]
                lines.append("")
            (folder / f"{split}-{language}.tsv").write_text("\n".join(lines) + "\n", "utf-8")
    return folder


@pytest.fixture(scope="session")
def tagged(tmp_path_factory) -> SmallTask:
    root = tmp_path_factory.mktemp("tagged")
    task_dir = write_tagged(root / "task", {"train": 80, "dev": 30})
    words = root / "words.txt"
    texts = [*PERSONS, *PLACES, *(one for some in SENTENCES.values() for one in some)]
    words.write_text("\n".join(texts * 3) + "\n", "utf-8")
    synthetic.train_wordpiece([words], 200, root / "tokenizer")
    tokenizer = load_tokenizer(root / "tokenizer")
    options = Options(max_seq_length=16, heldout_rows=30, num_shards=2)
    info = create_task_records(task_dir, "ner", tokenizer, root / "records", None, options)
    return with_encoders(root, tokenizer, task_dir, info)


@pytest.fixture(scope="session")
def tagger(tagged, tmp_path_factory) -> pathlib.Path:
    """The run folder of a student that learnt the labels."""
    folder = tmp_path_factory.mktemp("tagger") / "run"
    labels = stage(
        name="labels",
        data="train",
        objective=[{"loss": "task"}],
        steps=60,
        optimizer={"name": "adam", "learning_rate": 0.02},
        evaluate={"data": "heldout", "keep_best": "macro", "every_steps": 30},
    )
    config = student_recipe(labels, teacher=None, max_seq_length=16)
    run(config, tagged.data(), folder, options=OPTIONS)
    return folder
