"""The pipeline writes byte for byte the shards of the processes."""

import bz2
import importlib.util

import pytest

from xdistil_tf import files
from xdistil_tf.beam import prepare
from xdistil_tf.beam.runners import Runner
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


def made(inputs, folder, options):
    return prepare.prepare_with_beam(inputs, folder, options, Runner("DirectRunner"))


def shards(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.glob("text-*"))}


@RUNS
def test_pipeline_and_processes_write_the_same(inputs, tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "_DOCUMENTS", 4)
    options = Options(num_shards=5, max_bad_rows=1)
    ours = prepare_corpus(inputs, tmp_path / "ours", options, 1)
    beam = made(inputs, tmp_path / "beam", options)
    assert shards(tmp_path / "ours") == shards(tmp_path / "beam")
    for key in set(ours) - {"seconds"}:
        assert ours[key] == beam[key], key
    names = sorted(path.name for path in (tmp_path / "ours").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "beam").iterdir())
    dropped = [(tmp_path / one / "dropped.tsv").read_text() for one in ("ours", "beam")]
    assert dropped[0] == dropped[1] and "z.jsonl\t2\t" in dropped[0]
    assert made(inputs, tmp_path / "ours", options) == ours  # Up to date.


@RUNS
def test_an_empty_shard_is_a_file_too(tmp_path):
    (tmp_path / "in.txt").write_text("\n\n".join(["Same."] * 3))
    options = Options(num_shards=3)
    prepare_corpus(str(tmp_path / "in.txt"), tmp_path / "ours", options, 1)
    made(str(tmp_path / "in.txt"), tmp_path / "beam", options)
    assert sorted(map(len, shards(tmp_path / "ours").values())) == [0, 0, 20]
    assert shards(tmp_path / "ours") == shards(tmp_path / "beam")


@RUNS
def test_bad_rows_and_damage_are_told_as_without_beam(inputs, tmp_path, caplog):
    with pytest.raises(ValueError, match="z.jsonl, row 2: expected one JSON object"):
        made(inputs, tmp_path / "bad", Options(num_shards=2))
    cut = tmp_path / "cut.xml"
    cut.write_text("<mediawiki><page><title>A")
    with pytest.raises((ValueError, RuntimeError), match="cut.xml, line 1: the XML is cut off"):
        made(str(cut), tmp_path / "cut", Options(num_shards=1))
    assert "Traceback" not in caplog.text


@RUNS
def test_a_pipeline_that_was_killed_as_it_finished_begins_anew(inputs, tmp_path, monkeypatch):
    options, out = Options(num_shards=5, max_bad_rows=1), tmp_path / "out"
    for killed_in in ("write_json", "replaced_file"):  # corpus.json, dropped.tsv

        def killed(path, *arguments, instead=getattr(files, killed_in)):
            if path.name in ("corpus.json", "dropped.tsv"):
                raise KeyboardInterrupt
            return instead(path, *arguments)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(files, killed_in, killed)
            made(inputs, out, options)
        assert len(shards(out)) == 5
    with pytest.raises(ValueError, match="is no folder of its own: it holds (text-|dropped)"):
        made(inputs, out, Options(num_shards=4, max_bad_rows=1))
    made(inputs, out, options)
    prepare_corpus(inputs, tmp_path / "ours", options, 1)
    assert shards(out) == shards(tmp_path / "ours")
