"""The job: shards that depend on nothing but the input, in parallel, killed and resumed."""

import hashlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from xdistil_tf.data.corpus import convert, parts, prepare, workers
from xdistil_tf.data.corpus.prepare import Job, Options, prepare_corpus
from xdistil_tf.interruption import Interrupted, Interruption

ROOT = pathlib.Path(__file__).resolve().parents[3]


@pytest.fixture
def text(tmp_path):
    """A folder of two files with 40 documents."""
    folder = tmp_path / "in"
    folder.mkdir()
    documents = [f"Document {n} begins. It has a number.\nIt ends.\n" for n in range(40)]
    (folder / "b.txt").write_text("\n".join(documents[20:]), encoding="utf-8")
    (folder / "a.txt").write_text("\n".join(documents[:20]), encoding="utf-8")
    return folder


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(parts, "_DOCUMENTS", 3)


def content(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.glob("text-*"))}


def documents_of(folder):
    return {
        name: data.decode().removesuffix("\n").split("\n\n") if data else []
        for name, data in content(folder).items()
    }


def test_one_sentence_a_line_and_an_empty_line_between_documents(text, tmp_path):
    info = prepare_corpus(str(text), tmp_path / "out", Options(num_shards=1), 1)
    lines = (tmp_path / "out" / "text-00000-of-00001.txt").read_text().split("\n")
    assert lines[:5] == ["Document 0 begins.", "It has a number.", "It ends.", "", lines[4]]
    assert lines[4] == "Document 1 begins." and lines[-2:] == ["It ends.", ""]
    assert (info["documents"], info["sentences"]) == (40, 120)
    assert info["characters"] == sum(map(len, lines))


def test_documents_are_whole_in_the_shard_of_their_hash_and_in_order(text, tmp_path, small_parts):
    prepare_corpus(str(text), tmp_path / "out", Options(num_shards=4), 1)
    found = documents_of(tmp_path / "out")
    assert sum(map(len, found.values())) == 40
    for number, documents in enumerate(found.values()):
        assert all(convert.shard_of(f"{one}\n", 4) == number for one in documents)
        numbers = [int(one.split()[1]) for one in documents]
        assert numbers == sorted(numbers) and len(numbers) > 1


def test_neither_processes_nor_parts_change_a_byte(text, tmp_path, monkeypatch):
    prepare_corpus(str(text), tmp_path / "one", Options(num_shards=4), 1)
    monkeypatch.setattr(parts, "_DOCUMENTS", 3)
    prepare_corpus(str(text), tmp_path / "three", Options(num_shards=4), 3)
    assert content(tmp_path / "one") == content(tmp_path / "three")


def test_corpus_json_says_what_stands_there(text, tmp_path):
    out = tmp_path / "out"
    info = prepare_corpus(str(text), out, Options(num_shards=3), 1)
    assert info == json.loads((out / "corpus.json").read_text())
    assert list(info) == [
        "format", "settings", "inputs", "documents", "sentences", "characters", "dropped", "shards",
        "fingerprint", "seconds", "versions",
    ]  # fmt: skip
    assert list(info["inputs"]) == [str(text / "a.txt"), str(text / "b.txt")]
    assert info["dropped"] == dict.fromkeys(
        ("redirect", "disambiguation", "empty", "other_namespace", "bad"), 0
    )
    found = documents_of(out)
    for shard in info["shards"]:
        digest = hashlib.sha256((out / shard["file"]).read_bytes()).hexdigest()
        assert shard["sha256"] == digest
        assert shard["documents"] == len(found[shard["file"]])
        assert shard["sentences"] == 3 * shard["documents"]
    assert sorted(path.name for path in out.iterdir()) == [
        "corpus.json", "dropped.tsv", *sorted(found)
    ]  # fmt: skip


def test_a_finished_folder_is_left_as_it_is(text, tmp_path):
    out = tmp_path / "out"
    first = prepare_corpus(str(text), out, Options(num_shards=3), 1)
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    (out / "work").mkdir()  # Killed while it was removed.
    text.rename(tmp_path / "moved")
    assert prepare_corpus(str(tmp_path / "moved"), out, Options(num_shards=3), 2) == first
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before


def test_a_folder_of_other_settings_or_inputs_is_refused(text, tmp_path):
    out = tmp_path / "out"
    prepare_corpus(str(text), out, Options(num_shards=3), 1)
    with pytest.raises(ValueError, match="out holds a corpus of other inputs.*--output_dir"):
        prepare_corpus(str(text), out, Options(num_shards=4), 1)
    with (text / "a.txt").open("a") as handle:
        handle.write("More.\n")
    with pytest.raises(ValueError, match="other inputs or settings"):
        prepare_corpus(str(text), out, Options(num_shards=3), 1)
    (out / "corpus.json").unlink()
    with pytest.raises(ValueError, match="no folder of its own"):
        prepare_corpus(str(text), out, Options(num_shards=3), 1)


def test_a_missing_shard_is_told(text, tmp_path):
    prepare_corpus(str(text), tmp_path / "out", Options(num_shards=3), 1)
    (tmp_path / "out" / "text-00001-of-00003.txt").unlink()
    with pytest.raises(ValueError, match="text-00001-of-00003.txt is missing"):
        prepare_corpus(str(text), tmp_path / "out", Options(num_shards=3), 1)


class _Killed(BaseException):
    pass


# 14 parts, 4 shards, the table of what was dropped, corpus.json.
@pytest.mark.parametrize("at", [0, 7, 13, 14, 17, 18, 19])
def test_a_killed_job_goes_on_and_ends_with_the_same_bytes(
    text, tmp_path, monkeypatch, small_parts, at
):
    prepare_corpus(str(text), tmp_path / "whole", Options(num_shards=4), 1)
    whole, made, original = tmp_path / "whole", [], convert.convert
    replaced, written = parts.files.replaced_file, []

    def dying(path, *mode, **how):
        written.append(path)
        if len(written) == at + 2:  # The first is the state of the job.
            raise _Killed
        return replaced(path, *mode, **how)

    monkeypatch.setattr(parts.files, "replaced_file", dying)
    out = tmp_path / "out"
    with pytest.raises(_Killed):
        prepare_corpus(str(text), out, Options(num_shards=4), 1)
    monkeypatch.setattr(parts.files, "replaced_file", replaced)
    monkeypatch.setattr(convert, "convert", lambda one: made.append(one) or original(one))
    prepare_corpus(str(text), out, Options(num_shards=4), 1)
    assert content(out) == content(whole)
    assert len(made) == max(0, 40 - 3 * at)


def test_an_unfinished_job_of_other_settings_is_refused(text, tmp_path):
    begun = Job(str(text), tmp_path / "out", Options(num_shards=4))
    begun.begin()
    (begun.work / "part-000000").write_bytes(b"")
    with pytest.raises(ValueError, match="was begun with other inputs, settings or"):
        prepare_corpus(str(text), tmp_path / "out", Options(num_shards=3), 1)


def test_an_unfinished_job_is_not_finished_by_another_parser(text, tmp_path, monkeypatch):
    begun = Job(str(text), tmp_path / "out", Options(num_shards=4))
    begun.begin()
    (begun.work / "part-000000").write_bytes(b"")
    monkeypatch.setattr(prepare, "_parser_version", lambda: {"mwparserfromhell": "9.9"})
    with pytest.raises(ValueError, match="or another mwparserfromhell"):
        prepare_corpus(str(text), tmp_path / "out", Options(num_shards=4), 1)


def test_a_corpus_that_is_finished_stays_so_with_another_parser(text, tmp_path, monkeypatch):
    made = prepare_corpus(str(text), tmp_path / "out", Options(num_shards=4), 1)
    monkeypatch.setattr(prepare, "_parser_version", lambda: {"mwparserfromhell": "9.9"})
    assert prepare_corpus(str(text), tmp_path / "out", Options(num_shards=4), 1) == made


def test_a_stop_that_was_asked_for_keeps_the_parts(text, tmp_path, small_parts, monkeypatch):
    options, stop = Options(num_shards=4), Interruption()
    stop.requested = True
    with pytest.raises(Interrupted, match="parts that were complete are kept"):
        prepare_corpus(str(text), tmp_path / "out", options, 1, stop)
    assert len(list((tmp_path / "out" / "work").glob("part-*"))) == 1
    prepare_corpus(str(text), tmp_path / "out", options, 1, Interruption())
    prepare_corpus(str(text), tmp_path / "whole", options, 1)
    assert content(tmp_path / "out") == content(tmp_path / "whole")


@pytest.mark.parametrize("damage", ["emptied", "zeroed", "cut"])
def test_a_part_that_a_power_cut_damaged_is_made_again(text, tmp_path, small_parts, damage):
    options, stop = Options(num_shards=4), Interruption()
    stop.requested = True
    with pytest.raises(Interrupted):
        prepare_corpus(str(text), tmp_path / "out", options, 1, stop)
    (part,) = (tmp_path / "out" / "work").glob("part-*")
    assert parts.is_whole(part)
    written = part.read_bytes()
    head = written.index(b"\n") + 1
    zeroed = written[:head] + bytes(len(written) - head)
    part.write_bytes({"emptied": b"", "zeroed": zeroed, "cut": written[:-1]}[damage])
    prepare_corpus(str(text), tmp_path / "out", options, 1)
    prepare_corpus(str(text), tmp_path / "whole", options, 1)
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_a_job_that_got_nowhere_gives_way(text, tmp_path):
    Job(str(text), tmp_path / "out", Options(num_shards=4)).begin()
    assert len(prepare_corpus(str(text), tmp_path / "out", Options(num_shards=3), 1)["shards"]) == 3


def test_parts_that_nobody_vouches_for_are_not_used(text, tmp_path):
    work = tmp_path / "out" / "work"
    work.mkdir(parents=True)
    (work / "part-000000").write_bytes(b"of another job")
    assert prepare_corpus(str(text), tmp_path / "out", Options(num_shards=2), 1)["documents"] == 40


def test_more_shards_than_documents_is_an_error_whose_cure_works(text, tmp_path):
    with pytest.raises(ValueError, match="--num_shards=41, but documents: 40"):
        prepare_corpus(str(text), tmp_path / "out", Options(num_shards=41), 1)
    assert prepare_corpus(str(text), tmp_path / "out", Options(num_shards=40), 1)


def test_no_document_at_all_is_an_error(tmp_path):
    (tmp_path / "in.txt").write_text("* * *\n")
    with pytest.raises(ValueError, match="No document with a sentence.*'empty': 1"):
        prepare_corpus(str(tmp_path / "in.txt"), tmp_path / "out", Options(num_shards=1), 1)


def test_bad_rows_are_listed_and_one_more_is_an_error(text, tmp_path):
    with (text / "c.jsonl").open("wb") as handle:
        handle.write(b'{"text": "Good."}\nnot json\n{"text": "\xff"}\n')
    out = tmp_path / "out"
    with pytest.raises(ValueError, match=r"c.jsonl, row 3: expected UTF-8.*--max_bad_rows \(now 1"):
        prepare_corpus(str(text), out, Options(num_shards=2, max_bad_rows=1), 2)
    info = prepare_corpus(str(text), out, Options(num_shards=2, max_bad_rows=2), 2)
    assert (info["documents"], info["dropped"]["bad"]) == (41, 2)
    rows = [line.split("\t") for line in (out / "dropped.tsv").read_text().splitlines()]
    assert rows[0] == ["file", "row", "reason"]
    assert [row[:2] for row in rows[1:]] == [[str(text / "c.jsonl"), row] for row in "23"]


def test_output_within_the_input_is_refused(text):
    (text / "out").mkdir()
    (text / "out" / "x.txt").write_text("A.")
    with pytest.raises(ValueError, match="lies in --output_dir"):
        prepare_corpus(str(text), text / "out", Options(num_shards=1), 1)


@pytest.mark.parametrize(
    "options", [{"input_format": "xml"}, {"num_shards": 0}, {"max_bad_rows": -1}]
)
def test_options_say_what_they_expect(options):
    with pytest.raises(ValueError, match="Expected.*Received"):
        Options(**options)


def ordered(function, tasks, count):
    with workers.started(function, count) as run:
        yield from run(tasks)


def test_memory_holds_few_parts_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "_DOCUMENTS", 10)
    read, converted = [], []
    tasks = (read.append(n) or n for n in range(100))
    for one in ordered(abs, tasks, 2):
        converted.append(one)
        assert len(read) - len(converted) < 2 * workers._AHEAD + 1
    assert converted == list(range(100))


def test_results_keep_the_order_of_the_tasks():
    assert list(ordered(time.sleep, [0.3, 0, 0.1, 0], 3)) == [None] * 4
    assert list(ordered(str, range(20), 3)) == [str(n) for n in range(20)]


def test_what_a_task_raises_reaches_the_caller_and_ends_the_workers():
    results = ordered(int, ["1", "x", "3"], 2)
    assert next(results) == 1
    with pytest.raises(ValueError, match="'x'"):
        list(results)


def test_a_worker_that_dies_is_told():
    with pytest.raises(RuntimeError, match="ended with code 3.*--num_processes"):
        list(ordered(os._exit, [3, 3], 2))


def test_workers_import_no_tensorflow(tmp_path):
    script = (
        "import sys; from xdistil_tf.data.corpus import prepare, workers, wikitext\n"
        "tasks = ['sorted(__import__(\"sys\").modules)'] * 2\n"
        "with workers.started(eval, 2) as run: names = list(run(tasks))\n"
        "sys.exit('tensorflow' in sys.modules or any('tensorflow' in one for one in names))"
    )
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT).returncode == 0


def test_workers_end_when_their_caller_is_killed(tmp_path):
    script = (
        "import os, time; from xdistil_tf.data.corpus import workers\n"
        "def tasks():\n"
        "    yield 'os.getpid()'\n"
        "    yield 'os.getpid()'\n"
        "    while True: time.sleep(1); yield '0'\n"
        "with workers.started(eval, 2) as run:\n"
        '    for pid in run(f\'__import__("os").getpid() if {t!r} != "0" else 0\' '
        "for t in tasks()): print(pid, flush=True)\n"
    )
    caller = subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    worker = int(caller.stdout.readline())
    caller.send_signal(signal.SIGKILL)
    caller.wait()
    caller.stdout.close()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and _runs(worker):
        time.sleep(0.05)
    assert not _runs(worker)


def _runs(process):
    try:
        state = pathlib.Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.mark.skipif("XDISTIL_DATA" not in os.environ, reason="needs XDISTIL_DATA")
def test_real_dumps_give_prose(tmp_path):
    folder = pathlib.Path(os.environ["XDISTIL_DATA"], "text", "xml")
    paths = sorted(folder.glob("enwiki-export*")) + sorted(folder.glob("bgwiki*"))
    info = prepare_corpus([str(path) for path in paths], tmp_path / "o", Options(num_shards=1), 1)
    assert info["documents"] > 80 and info["dropped"]["other_namespace"] > 0
    text = (tmp_path / "o" / "text-00000-of-00001.txt").read_text(encoding="utf-8")
    for residue in ("{{", "}}", "[[", "]]", "( ", "()", " ,", "<ref", "&nbsp;", "__"):
        assert residue not in text, residue
    assert 10 < len(text) / text.count("\n") < 300
