"""Labels for files of texts: order, streams, refusals."""

import contextlib
import dataclasses
import io
import os
import sys
import threading

import numpy as np
import pytest

from tests.small_task import write_lines
from xdistil_tf import predict, predict_tags
from xdistil_tf.predict import Predictor, predict_file

pytest_plugins = ["tests.small_task"]

TEXTS = [
    "the soup was great",
    "",
    "duck " * 60,
    "awful",
    "Ünïcode ☕ text",
    "the waiter , the room",
]


@pytest.fixture(scope="module")
def predictor(trained):
    return Predictor(str(trained))


def read(path):
    header, *rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]
    return header, rows


def test_rows_stand_in_the_order_of_the_lines(predictor, small, tmp_path):
    output = tmp_path / "out.tsv"
    count = predict_file(predictor, str(write_lines(tmp_path / "in.txt", TEXTS)), str(output), 2)
    header, rows = read(output)
    labels = small.info.labels
    assert count == len(TEXTS) == len(rows)
    assert header == ["label", *(f"score_{label}" for label in labels)]
    for text, row in zip(TEXTS, rows, strict=True):
        alone = predictor.scores([text])[0]
        np.testing.assert_allclose([float(cell) for cell in row[1:]], alone, atol=2e-6)
        assert row[0] == labels[int(np.argmax(alone))]
        assert sum(float(cell) for cell in row[1:]) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_the_batch_size_changes_nothing(predictor, batch_size):
    scores = predictor.scores(TEXTS, batch_size=batch_size)
    np.testing.assert_allclose(scores, predictor.scores(TEXTS, batch_size=3), atol=1e-6)


def test_only_line_ends_and_a_byte_order_mark_are_no_text(tmp_path):
    path = tmp_path / "in.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\ntwo \r\r\n\xef\xbb\xbfthree")
    with contextlib.ExitStack() as stack:
        assert list(predict._lines(stack, str(path))) == ["one", "two \r", "\ufeffthree"]


def test_lines_are_read_chunk_by_chunk(predictor, monkeypatch):
    """A file larger than memory: no line is read before the rows ahead of its chunk are out."""
    monkeypatch.setattr(predict_tags, "CHUNK", 3)
    read_lines = []

    def lines():
        for number in range(10):
            read_lines.append(number)
            yield f"text {number}"

    rows = predictor.rows(lines())
    next(rows)
    assert len(read_lines) == 3
    assert len(list(rows)) == 9


def test_standard_input_and_output(predictor, monkeypatch, capsys):
    data = b"the soup\r\nawful\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert predict_file(predictor, "-", "-") == 2
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and lines[0].startswith("label\tscore_")


def test_an_empty_file_gives_a_header(predictor, tmp_path):
    output = tmp_path / "out.tsv"
    assert predict_file(predictor, str(write_lines(tmp_path / "in.txt", [])), str(output)) == 0
    assert len(output.read_text().splitlines()) == 1


def test_bad_bytes_are_named_and_nothing_is_written(predictor, tmp_path):
    (tmp_path / "in.txt").write_bytes(b"good\n\xff bad\n")
    output = tmp_path / "out.tsv"
    with pytest.raises(ValueError, match="in.txt, line 2: expected UTF-8"):
        predict_file(predictor, str(tmp_path / "in.txt"), str(output))
    assert not output.exists()


@pytest.mark.parametrize(
    ("pair", "line", "columns"), [(False, "a\t1", "2 columns"), (True, "a", "one column")]
)
def test_a_line_with_other_columns_than_texts_is_named(
    predictor, tmp_path, monkeypatch, pair, line, columns
):
    """Nothing of a text is dropped silently, and no label is taken for text."""
    monkeypatch.setattr(predictor, "labels", dataclasses.replace(predictor.labels, pair=pair))
    good = "a\tb" if pair else "a"
    path = write_lines(tmp_path / "in.txt", [good, good, line])
    texts = "pairs" if pair else "single texts"
    message = f"Line 3 of the input has {columns} .*Expected .* trained on {texts}.*cut -f"
    with pytest.raises(ValueError, match=message):
        predict_file(predictor, str(path), str(tmp_path / "out.tsv"))
    assert not (tmp_path / "out.tsv").exists()


def test_a_terminal_sees_progress_and_a_log_file_does_not(predictor, tmp_path, monkeypatch, capsys):
    path = write_lines(tmp_path / "in.txt", TEXTS)
    predict_file(predictor, str(path), str(tmp_path / "out.tsv"))
    assert "predict" not in capsys.readouterr().err
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    predict_file(predictor, str(path), str(tmp_path / "out.tsv"))
    assert f"{len(TEXTS)}/{len(TEXTS)}" in capsys.readouterr().err


def test_a_pipe_is_read_once(predictor, tmp_path, monkeypatch):
    """Counting its lines for the progress bar would leave nothing to predict."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    writer = threading.Thread(target=pipe.write_text, args=("".join(f"{t}\n" for t in TEXTS),))
    writer.start()
    assert predict_file(predictor, str(pipe), str(tmp_path / "out.tsv")) == len(TEXTS)
    writer.join()


def test_a_missing_file_and_a_missing_model_are_named(predictor, tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no input file .*none.txt"):
        predict_file(predictor, str(tmp_path / "none.txt"), "-")
    with pytest.raises(FileNotFoundError, match="No model in"):
        Predictor(str(tmp_path))
    with pytest.raises(FileNotFoundError, match="No such folder nope. Expected a model, run or"):
        Predictor("nope")  # And not a name to ask the hub for.


def test_a_model_without_labels_is_refused(small):
    with pytest.raises(ValueError, match="has no labels.json"):
        Predictor(small.encoder)
