"""Files that are never half-written, and fingerprints."""

import errno
import os
import signal
import subprocess
import sys

import pytest

from xdistil_tf import files


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_takes_its_place_when_the_block_ends(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with files.replaced_file(path, "w") as handle:
        handle.write("ü")
        assert not path.exists()
    assert path.read_text(encoding="utf-8") == "ü" and names(path.parent) == ["a.txt"]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(KeyError), files.replaced_file(path, "w") as handle:
        handle.write("new")
        raise KeyError
    assert path.read_text() == "old" and names(tmp_path) == ["a.txt"]


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "a"
    for number in (1, 2):
        with files.replaced_folder(path) as folder:
            (folder / f"{number}.txt").write_text("x")
    assert names(path) == ["2.txt"] and names(tmp_path) == ["a"]


def test_a_failure_leaves_the_old_folder(tmp_path):
    path = tmp_path / "a"
    with files.replaced_folder(path) as folder:
        (folder / "1.txt").write_text("x")
    with pytest.raises(KeyError), files.replaced_folder(path) as folder:
        (folder / "2.txt").write_text("x")
        raise KeyError
    assert names(path) == ["1.txt"] and names(tmp_path) == ["a"]


_KILLED = """
import os, pathlib, signal, sys
from xdistil_tf import files
path = pathlib.Path(sys.argv[1])
with files.replaced_file(path / "a") as handle:
    handle.write(b"half")
    handle.flush()
    with files.replaced_folder(path / "b") as folder:
        (folder / "c").write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_goes_when_its_place_is_written_again(tmp_path):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", _KILLED, str(tmp_path)], env=environment)
    assert done.returncode == -signal.SIGKILL and len(names(tmp_path)) == 2
    files.write_json(tmp_path / "other", {})
    assert len(names(tmp_path)) == 3
    files.write_json(tmp_path / "a", {})
    with files.replaced_folder(tmp_path / "b") as folder:
        (folder / "c").touch()
    assert names(tmp_path) == ["a", "b", "other"]


def test_what_a_process_at_work_writes_stays(tmp_path):
    theirs = tmp_path / f".a.{os.getppid()}.tmp"
    theirs.touch()
    files.write_json(tmp_path / "a", {})
    assert names(tmp_path) == [theirs.name, "a"]


def test_a_leftover_of_the_same_process_number_is_no_hindrance(tmp_path):
    for end in ("tmp", "old"):
        (tmp_path / f".a.{os.getpid()}.{end}").mkdir()
        (tmp_path / f".a.{os.getpid()}.{end}" / "left").touch()
    for _ in range(2):
        with files.replaced_folder(tmp_path / "a") as folder:
            (folder / "1.txt").touch()
    assert names(tmp_path) == ["a"] and names(tmp_path / "a") == ["1.txt"]


def test_what_stood_before_a_kill_between_two_renames_stays_until_all_is_written(tmp_path):
    old = tmp_path / ".a.99999999.old"
    old.mkdir()
    with pytest.raises(KeyError), files.replaced_folder(tmp_path / "a"):
        raise KeyError
    assert names(tmp_path) == [old.name]
    for _ in range(2):
        with files.replaced_folder(tmp_path / "a"):
            pass
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_has_a_name(tmp_path, monkeypatch, number):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def full(descriptor):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(files.DiskFullError, match="No space left while writing .*a.txt"):
        files.write_json(path, {})
    assert path.read_text() == "old" and names(tmp_path) == ["a.txt"]


def test_other_errors_keep_theirs(tmp_path, monkeypatch):
    def broken(descriptor):
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(files.os, "fsync", broken)
    with pytest.raises(OSError, match="broken") as caught:
        files.write_json(tmp_path / "a", {})
    assert not isinstance(caught.value, files.DiskFullError)


def test_json_round_trip_and_damage(tmp_path):
    path = tmp_path / "a.json"
    data = {"ü": [1, 0.1 + 0.2, None, True]}
    files.write_json(path, data)
    assert files.read_json(path) == data
    path.write_text("{")
    with pytest.raises(ValueError, match="a.json is damaged: expected JSON. Received:"):
        files.read_json(path)
    with pytest.raises(FileNotFoundError):
        files.read_json(tmp_path / "b.json")


def test_fingerprints_follow_content_not_order():
    one = files.fingerprint({"a": 1, "b": [1, 2]})
    assert one == files.fingerprint({"b": [1, 2], "a": 1})
    assert one != files.fingerprint({"a": 1, "b": [2, 1]})


def test_a_file_fingerprint_ignores_name_and_time(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_text("same")
    os.utime(tmp_path / "b", (1, 1))
    assert files.file_fingerprint(tmp_path / "a") == files.file_fingerprint(tmp_path / "b")


def test_a_plan_that_does_not_fit_the_disk_is_refused(tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 100})
    monkeypatch.setattr(files.shutil, "disk_usage", lambda path: usage)
    files.require_disk(tmp_path / "not" / "there", 10, "The cache")
    with pytest.raises(files.DiskFullError, match="The cache needs 1000.00 GB in .*; 0.00 GB are"):
        files.require_disk(tmp_path, 10**12, "The cache")
