"""On the real data named by XDISTIL_DATA: sizes, known overlaps, and no row refused."""

import os
import pathlib

import pytest

from xdistil_tf.data.readers import read_task
from xdistil_tf.data.split import split_task
from xdistil_tf.data.tokenization import load_tokenizer

DATA = os.environ.get("XDISTIL_DATA")
pytestmark = pytest.mark.skipif(not DATA, reason="XDISTIL_DATA is not set")
ROOT = pathlib.Path(DATA or ".")


@pytest.mark.parametrize(
    ("task", "folder", "sizes"),
    [
        ("sst-2", "SST-2", (67349, 872, 1821)),
        ("cola", "CoLA", (8551, 1043, 1063)),
        ("rte", "RTE", (2490, 277, 3000)),
        ("wnli", "WNLI", (635, 71, 146)),
    ],
)
def test_reads_every_row_of_glue(task, folder, sizes):
    data = read_task(ROOT / "glue" / folder, task)
    assert tuple(len(data.splits[name]) for name in ("train", "dev", "test")) == sizes
    assert not data.bad_rows
    assert all(one.label is None for one in data.splits["test"])


def test_finds_the_overlap_of_cola():
    data = read_task(ROOT / "glue" / "CoLA", "cola")
    splits = split_task(data)
    dev, test = (
        sum(f"stands in {name}" in reason for _, _, reason in splits.dropped)
        for name in ("dev", "test")
    )
    assert dev >= 16 and test >= 19
    assert len(splits.heldout) >= 0.05 * len(splits.train)


def test_reads_panx_by_language():
    data = read_task(ROOT / "ner" / "panx", "ner", languages=["sw", "yo"])
    assert len(data.splits["train"]) == 1100
    assert data.labels == ("B-LOC", "B-ORG", "B-PER", "I-LOC", "I-ORG", "I-PER", "O")
    assert data.languages == ("sw", "yo")
    assert not data.bad_rows


@pytest.mark.parametrize(
    ("name", "lower"),
    [("base-uncased", True), ("base-cased", False), ("base-multilingual-cased", False)],
)
def test_infers_the_case_of_the_published_vocabularies(name, lower):
    tokenizer = load_tokenizer(ROOT / "bert" / "vocab" / f"bert-{name}.vocab.txt")
    assert tokenizer.do_lower_case is lower
    assert tokenizer.tokens[tokenizer.mask_id] == "[MASK]"
