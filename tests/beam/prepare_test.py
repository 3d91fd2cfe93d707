"""The pipeline writes byte for byte the shards of the processes."""

import bz2
import importlib.util
import sys

import pytest

from xdistil_tf.beam import prepare
from xdistil_tf.data.corpus import parts
from xdistil_tf.data.corpus.prepare import Options, prepare_corpus

RUNS = pytest.mark.skipif(not importlib.util.find_spec("apache_beam"), reason="needs apache-beam")


@pytest.fixture
def inputs(tmp_path):
    pages = "".join(
        f"<page><title>T{n}</title><ns>{n % 3 // 2}</ns><revision><text>Town {n} is '''old'''. "
        "It is small.</text></revision></page>"
        for n in range(30)
    )
    dump = tmp_path / "dump.xml.bz2"
    dump.write_bytes(bz2.compress(f"<mediawiki>{pages}</mediawiki>".encode()))
    text = tmp_path / "more.txt"
    text.write_text("One. Two.\n\nThree.\n\n* * *\n")
    lines = tmp_path / "z.jsonl"
    lines.write_text('{"text": "Four."}\nbroken\n')
    return [str(dump), str(text), str(lines)]


def shards(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.glob("text-*"))}


@RUNS
def test_pipeline_and_processes_write_the_same(inputs, tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "_DOCUMENTS", 4)
    options = Options(num_shards=5, max_bad_rows=1)
    ours = prepare_corpus(inputs, tmp_path / "ours", options, 1)
    beam = prepare.prepare_with_beam(inputs, tmp_path / "beam", options)
    assert shards(tmp_path / "ours") == shards(tmp_path / "beam")
    for key in set(ours) - {"seconds"}:
        assert ours[key] == beam[key], key
    names = sorted(path.name for path in (tmp_path / "ours").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "beam").iterdir())
    dropped = [(tmp_path / one / "dropped.tsv").read_text() for one in ("ours", "beam")]
    assert dropped[0] == dropped[1] and "z.jsonl\t2\t" in dropped[0]
    assert prepare.prepare_with_beam(inputs, tmp_path / "ours", options) == ours  # Up to date.


@RUNS
def test_an_empty_shard_is_a_file_too(tmp_path):
    (tmp_path / "in.txt").write_text("\n\n".join(["Same."] * 3))
    options = Options(num_shards=3)
    prepare_corpus(str(tmp_path / "in.txt"), tmp_path / "ours", options, 1)
    prepare.prepare_with_beam(str(tmp_path / "in.txt"), tmp_path / "beam", options)
    assert sorted(map(len, shards(tmp_path / "ours").values())) == [0, 0, 20]
    assert shards(tmp_path / "ours") == shards(tmp_path / "beam")


@RUNS
def test_bad_rows_and_damage_are_told_as_without_beam(inputs, tmp_path, caplog):
    with pytest.raises(ValueError, match="z.jsonl, row 2: expected one JSON object"):
        prepare.prepare_with_beam(inputs, tmp_path / "bad", Options(num_shards=2))
    cut = tmp_path / "cut.xml"
    cut.write_text("<mediawiki><page><title>A")
    with pytest.raises((ValueError, RuntimeError), match="cut.xml, line 1: the XML is cut off"):
        prepare.prepare_with_beam(str(cut), tmp_path / "cut", Options(num_shards=1))
    assert "Traceback" not in caplog.text


@RUNS
def test_unknown_runner_is_named_before_anything_is_written(inputs, tmp_path):
    with pytest.raises(ValueError, match="'NoRunner'.*DirectRunner"):
        prepare.prepare_with_beam(inputs, tmp_path / "out", Options(), "NoRunner")
    assert not (tmp_path / "out").exists()


def test_missing_beam_names_the_extra(inputs, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(ImportError, match=r"xdistil_tf\[beam\]"):
        prepare.prepare_with_beam(inputs, tmp_path / "out")
