"""Binaries on bad input: one line (what, where, cure), an exit code, no traceback."""

import errno
import logging
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys

import pytest
import yaml

from tests.small_task import encoder_folder, stage, student_recipe, unlabelled, write_lines
from xdistil_tf import command_line, files, recipe
from xdistil_tf.interruption import Interrupted, Interruption

pytest_plugins = ["tests.calls", "tests.small_task"]

ROOT = pathlib.Path(__file__).resolve().parent.parent
LABELLED = {"name": "labels", "data": "train", "objective": [{"loss": "task"}], "steps": 2}


@pytest.fixture
def task(small, tmp_path):
    """A copy of the small task that a test may damage."""
    return shutil.copytree(small.task_dir, tmp_path / "task")


@pytest.fixture
def records(small, tmp_path):
    return shutil.copytree(small.info.folder, tmp_path / "records")


@pytest.fixture
def recipe_file(tmp_path):
    def write(*stages, **fields):
        config = student_recipe(
            *(stages or [LABELLED | {"batch_size": 16}]), teacher=None, **fields
        )
        path = tmp_path / "recipe.yaml"
        path.write_text(config.to_yaml(), encoding="utf-8")
        return path

    return write


def train_flags(path, records, folder, *more):
    return [
        f"--recipe={path}",
        f"--data=train={records}/train-*",
        f"--model_dir={folder}",
        "--checkpoint_interval=1",
        *more,
    ]


# create_task_data


def records_flags(small, task, tmp_path):
    return [
        f"--task_dir={task}",
        f"--tokenizer={small.encoder}",
        f"--output_dir={tmp_path}/out",
    ]


def test_a_task_becomes_records(call, small, task, tmp_path):
    arguments = [
        f"--task_dir={task}",
        f"--tokenizer={small.encoder}",
        f"--output_dir={tmp_path}/out",
    ]
    assert call("create_task_data", *arguments) == (0, "")
    assert (tmp_path / "out" / "task.json").is_file()


def append(path, text):
    with open(path, "ab") as handle:
        handle.write(text)


@pytest.mark.parametrize(
    ("file", "row", "message"),
    [
        ("train.tsv", b"a text\tmixed\n", "train.tsv.*201.*mixed"),
        ("train.tsv", b"a text\tpositive\tmore\n", "train.tsv.*201"),
        ("dev.tsv", b"a text\n", "dev.tsv.*49"),
        ("dev.tsv", b"a \xff text\tpositive\n", "dev.tsv.*49.*UTF-8"),
        ("dev.tsv", b"\tpositive\n", "dev.tsv.*49"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(call, small, task, tmp_path, file, row, message):
    append(task / file, row)
    arguments = [
        f"--task_dir={task}",
        f"--tokenizer={small.encoder}",
        f"--output_dir={tmp_path}/out",
    ]
    code, line = call("create_task_data", *arguments)
    assert code == 1 and re.search(message, line), line
    assert call("create_task_data", *arguments, "--max_bad_rows=1")[0] == 0
    assert file in (tmp_path / "out" / "dropped.tsv").read_text()


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--task_dir=/no/such/folder", "/no/such/folder"),
        ("--task=sst-3", "sst-3"),
        ("--transfer_file=/no/such/file.txt", "/no/such/file.txt"),
        ("--labels_per_class=1000", "labels_per_class|1000"),
        ("--tokenizer=/no/such/vocab.txt", "/no/such/vocab.txt"),
    ],
)
def test_wrong_inputs_of_create_task_data(call, small, task, tmp_path, flag, message):
    arguments = [
        f"--task_dir={task}",
        f"--tokenizer={small.encoder}",
        f"--output_dir={tmp_path}/out",
    ]
    code, line = call("create_task_data", *arguments, flag)
    assert code == 1 and re.search(message, line), line


def test_a_transfer_file_of_test_texts_is_refused(call, small, task, tmp_path):
    lines = (task / "test.tsv").read_text().splitlines()
    path = write_lines(tmp_path / "transfer.txt", (line.split("\t")[0] for line in lines))
    code, line = call(
        "create_task_data",
        f"--task_dir={task}",
        f"--tokenizer={small.encoder}",
        f"--output_dir={tmp_path}/out",
        f"--transfer_file={path}",
    )
    assert code == 1 and "--allow_transductive" in line


# train


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--recipe=/no/recipe.yaml", "There is no recipe /no/recipe.yaml"),
        ("--set=stages.0.epoch=3", "unknown field 'stages.0.epoch'. Did you mean 'epochs'"),
        ("--set=stages.3.steps=3", "position 0..0"),
        ("--set=seed", "Expected path=value"),
        ("--set=stages.0.train=[hed]", "Unknown part in stage 'labels'.*'hed'"),
        ("--set=stages.0.objective.0.loss=mse", "mse"),
        ("--set=stages.0.evaluate={data: test}", "Expected 'heldout', or 'dev'"),
        ("--set=stages.0.evaluate={data: heldout}", "'heldout', to which nothing is bound"),
        ("--set=stages.0.optimizer.warmup_steps=9", "warm-up shorter than the stage"),
        ("--data=train", "Invalid --data. Expected name=glob"),
        ("--data=train=/no/train-*", "Invalid --data. Expected each name once"),
        ("--data=heldout=/no/train-*", "No record file matches '/no/train-"),
        ("--num_replicas=2", "num_replicas=2. Add --distribution_strategy=mirrored"),
        ("--set=max_seq_length=16", "max_seq_length=16, .* --set max_seq_length=32"),
        ("--init_checkpoint=ENCODER", "--init_checkpoint is for encoders"),
        ("--teacher=ENCODER", "A teacher was given, but the recipe has none"),
        ("--teacher_cache=/no/cache", "the recipe has none"),
    ],
)
def test_wrong_inputs_of_train(call, small, recipe_file, tmp_path, flag, message):
    flag = flag.replace("ENCODER", small.encoder)
    arguments = train_flags(recipe_file(), small.info.folder, tmp_path / "run", flag)
    code, line = call("train", *arguments)
    assert code == 1 and re.search(message, line), line


def test_an_unknown_key_of_a_recipe_file(call, small, recipe_file, tmp_path):
    path = recipe_file()
    content = yaml.safe_load(path.read_text())
    content["stages"][0]["batchsize"] = 3
    path.write_text(yaml.safe_dump(content))
    code, line = call("train", *train_flags(path, small.info.folder, tmp_path / "run"))
    assert code == 1 and "Did you mean 'batch_size'" in line and str(path) in line


def shard(records, number=0):
    return records / f"train-{number:05d}-of-00002.tfrecord"


def damage(records, kind):
    path = shard(records)
    content = path.read_bytes()
    if kind == "flipped":
        path.write_bytes(content[:40] + bytes([content[40] ^ 1]) + content[41:])
    elif kind == "truncated":
        path.write_bytes(content[:-7])
    elif kind == "missing":
        path.unlink()
    elif kind == "index":
        path.with_suffix(".index").write_bytes(b"PK nonsense")
    else:
        (records / "task.json").write_text("{")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("flipped", "train-00000-of-00002.tfrecord.*(damaged|CRC|checksum)"),
        ("truncated", "train-00000-of-00002.tfrecord is truncated"),
        ("missing", "train-00000-of-00002.tfrecord is missing"),
        ("index", "train-00000-of-00002.index"),
        ("task", "task.json is damaged"),
    ],
)
def test_damaged_records(call, records, recipe_file, tmp_path, kind, message):
    damage(records, kind)
    path = recipe_file(LABELLED | {"steps": 20, "batch_size": 16})
    code, line = call("train", *train_flags(path, records, tmp_path / "run"))
    assert code == 1 and re.search(message, line), line


def test_a_loss_that_is_not_a_number_exits_with_4(call, small, recipe_file, tmp_path):
    optimizer = {"learning_rate": 1e30}
    path = recipe_file(LABELLED | {"steps": 30, "batch_size": 16, "optimizer": optimizer})
    code, line = call("train", *train_flags(path, small.info.folder, tmp_path / "run"))
    assert code == 4
    assert re.search("not a number in stage labels, steps .*Lower the learning rate", line), line


def test_a_full_disk_exits_with_3(call, small, recipe_file, tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", full)
    code, line = call("train", *train_flags(recipe_file(), small.info.folder, tmp_path / "run"))
    assert code == 3 and "No space left while writing" in line


def test_a_cache_that_does_not_fit_the_disk_exits_with_3(call, small, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr(files.shutil, "disk_usage", lambda path: usage)
    code, line = call("cache_teacher", *cache_flags(small, tmp_path))
    assert code == 3 and "The teacher cache needs" in line


# The others


def cache_flags(small, tmp_path, *more):
    return [
        f"--teacher={small.teacher}",
        f"--records={small.info.pattern('heldout')}",
        f"--output_dir={tmp_path}/cache",
        *more,
    ]


def test_a_cache_is_made_verified_and_written_as_text(call, small, tmp_path):
    flags_given = ["--outputs=logits,hidden", "--layers=0,2", "--verify=5", "--format=tsv"]
    assert call("cache_teacher", *cache_flags(small, tmp_path, *flags_given)) == (0, "")
    rows = (tmp_path / "cache" / "logits.tsv").read_text().splitlines()
    assert len(rows) == 1 + len(small.records("heldout"))


def test_a_cache_without_logits_is_no_text_and_the_teacher_is_not_asked(call, small, tmp_path):
    flags_given = ["--outputs=representation", "--format=tsv"]
    code, line = call("cache_teacher", *cache_flags(small, tmp_path, *flags_given))
    assert code == 1 and re.search("Expected --outputs with logits.*Received: .*repres", line), line
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--outputs=logit", "Unknown output.*'logit'"),
        ("--outputs=hidden", "'hidden' needs --layers"),
        ("--teacher_layer=7", "Invalid teacher layer. Expected -3..2"),
        ("--records=/no/*", "No record file matches"),
    ],
)
def test_wrong_inputs_of_cache_teacher(call, small, tmp_path, flag, message):
    code, line = call("cache_teacher", *cache_flags(small, tmp_path, flag))
    assert code == 1 and re.search(message, line), line


def test_a_teacher_with_another_tokenizer(call, small, tmp_path):
    from xdistil_tf.data.tokenization import load_tokenizer

    tokens = [*small.tokenizer.tokens[:-1], "zzzz"]
    other = load_tokenizer(write_lines(tmp_path / "vocab.txt", tokens), do_lower_case=True)
    folder = encoder_folder(tmp_path / "other", other)
    code, line = call("cache_teacher", *cache_flags(small, tmp_path, f"--teacher={folder}"))
    assert code == 1 and "reads other ids than the records have" in line


def test_wrong_inputs_of_evaluate(call, small, trained, tmp_path):
    model = f"--model_dir={trained}"
    for arguments, message in (
        ([model], "Expected --task_dir or --records. Only a distill folder has records"),
        ([f"--model_dir={tmp_path}", f"--task_dir={small.task_dir}"], "No model in"),
        (["--model_dir=nope", f"--task_dir={small.task_dir}"], "No such folder nope"),
        ([model, f"--task_dir={small.task_dir}", "--split=no"], "no"),
        ([model, f"--records={unlabelled(small, tmp_path)}"], "'transfer' of .* has no labels"),
    ):
        code, line = call("evaluate", *arguments)
        assert code == 1 and re.search(message, line), line


def test_evaluate_writes_its_figures(call, small, trained, tmp_path):
    path = tmp_path / "new" / "metrics.json"
    arguments = [f"--model_dir={trained}", f"--task_dir={small.task_dir}", f"--output_json={path}"]
    assert call("evaluate", *arguments) == (0, "")
    assert files.read_json(path)["examples"] == 48


def test_wrong_inputs_of_predict_and_export(call, trained, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("x")
    (tmp_path / "bad.txt").write_bytes(b"\xff\n")
    output = f"--output_file={tmp_path}/out.tsv"
    model = f"--model_dir={trained}"
    for verb, arguments, message in (
        ("predict", [model, "--input_file=/no.txt", output], "There is no input file /no.txt"),
        ("predict", [model, f"--input_file={tmp_path}/bad.txt", output], "line 1: expected UTF-8"),
        ("predict", [f"--model_dir={tmp_path}", "--input_file=-", output], "No model in"),
        ("export", [f"--model_dir={tmp_path}", f"--output_dir={tmp_path}/e"], "No model in"),
        ("export", ["--model_dir=nope", f"--output_dir={tmp_path}/e"], "No such folder nope"),
        ("export", [model, f"--output_dir={tmp_path}/full"], "full"),
        ("export", [model, f"--output_dir={tmp_path}/e", "--parity_file="], "--parity_file"),
        (
            "export",
            [model, f"--output_dir={tmp_path}/e", f"--parity_file={tmp_path}/bad.txt"],
            "--parity_file: .*bad.txt line 1: expected UTF-8",
        ),
    ):
        code, line = call(verb, *arguments)
        assert code == 1 and re.search(message, line), line
    assert not (tmp_path / "out.tsv").exists()


def predict_to_standard_output(trained, tmp_path, reader):
    """`predict` as a process of its own, more than a pipe holds goes into a shell command."""
    path = write_lines(tmp_path / "in.txt", ["a text"] * 10000)
    command = [sys.executable, "bin/predict.py", f"--model_dir={trained}", f"--input_file={path}"]
    shell = f"{shlex.join([*command, '--output_file=-'])} | {reader}; exit ${{PIPESTATUS[0]}}"
    return subprocess.run(["bash", "-c", shell], cwd=ROOT, capture_output=True, text=True)


def test_a_reader_that_has_enough_ends_predict_quietly(trained, tmp_path):
    done = predict_to_standard_output(trained, tmp_path, "head -1")
    assert done.returncode == 0
    assert "pipe" not in done.stderr.lower()
    assert done.stdout.startswith("label\tscore_")


def test_predictions_on_standard_output_are_said_to_be_there(trained, tmp_path):
    done = predict_to_standard_output(trained, tmp_path, "tail -1")
    assert done.returncode == 0
    assert "10000 predictions are on standard output." in done.stderr


def test_a_damaged_model_is_named(call, trained, tmp_path):
    folder = shutil.copytree(trained / "model", tmp_path / "model")
    path = folder / "model.safetensors"
    write_lines(tmp_path / "in.txt", ["a"])
    arguments = [
        f"--model_dir={folder}", f"--input_file={tmp_path}/in.txt", f"--output_file={tmp_path}/o",
    ]  # fmt: skip
    content = path.read_bytes()
    for damaged in (content[:100], content[: len(content) // 2], b""):
        path.write_bytes(damaged)
        code, line = call("predict", *arguments)
        assert code == 1 and "model.safetensors" in line, line


def test_a_damaged_encoder_is_named(call, small, tmp_path):
    folder = shutil.copytree(small.teacher, tmp_path / "teacher")
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    code, line = call("cache_teacher", *cache_flags(small, tmp_path, f"--teacher={folder}"))
    assert code == 1 and "safetensors" in line, line


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--task=unknown", "unknown"),
        ("--recipe=/no.yaml", "There is no recipe"),
        ("--set_teacher=stages.0.x=1", "unknown field 'stages.0.x'"),
        ("--teacher_labels=positive,negative", "no head"),
        ("--set_pretraining=stages.0.steps=1", "Add --continue_pretraining"),
        ("--pretraining_recipe=configs/bert/pretrain_tiny.yaml", "Add --continue_pretraining"),
        ("--max_seq_length=65", "at most 64 tokens. Received: max_seq_length=65"),
    ],
)
def test_wrong_inputs_of_distill(call, small, tmp_path, flag, message):
    code, line = call(
        "distill",
        f"--task_dir={small.task_dir}",
        f"--teacher={small.encoder}",
        f"--model_dir={tmp_path}/run",
        "--max_seq_length=32",
        flag,
    )
    assert code == 1 and re.search(message, line), line


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--no_such_flag=1", "no_such_flag"),
        ("--precision=float64", "precision.*float64"),
        ("--steps_per_loop=0", "steps_per_loop"),
        ("--num_replicas=two", "num_replicas"),
    ],
)
def test_flags_that_cannot_be_read_exit_with_2(call, flag, message):
    code, line = call("train", "--recipe=x", "--model_dir=y", flag)
    assert code == 2 and re.search(message, line), line


def test_a_missing_flag_exits_with_2(call):
    code, line = call("train", "--model_dir=y")
    assert code == 2 and "recipe" in line


def test_arguments_that_are_no_flags_are_refused(call):
    code, line = call("train", "--recipe=x", "--model_dir=y", "more")
    assert code in (1, 2) and "['more']" in line


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValueError("two\nlines"), 1),
        (FileNotFoundError("none"), 1),
        (ImportError("torch"), 1),
        (RuntimeError("The process ended with 1."), 1),
        (files.DiskFullError("full"), 3),
        (FloatingPointError("nan"), 4),
        (Interrupted("Stopped."), 42),
    ],
)
def test_each_error_has_its_exit_code(monkeypatch, capsys, error, code):
    def main(_):
        raise error

    monkeypatch.setattr(sys, "argv", ["x"])
    with pytest.raises(SystemExit) as left:
        command_line.run(main)
    assert left.value.code == code
    lines = [one for one in capsys.readouterr().err.splitlines() if one.startswith("error: ")]
    assert len(lines) == 1 and str(error).split()[0] in lines[0]


def test_a_file_that_cannot_be_used_is_named(call, small, recipe_file, tmp_path):
    (tmp_path / "file").write_text("in the way")
    for place, reason in (("/proc/nope", "No such file"), (tmp_path / "file", "Not a directory")):
        code, line = call("train", *train_flags(recipe_file(), small.info.folder, f"{place}/run"))
        assert code == 1 and "Errno" not in line
        assert re.search(f"Cannot read or write {place}.*: {reason}", line), line


def test_data_that_no_stage_reads_are_named(call, small, recipe_file, tmp_path, monkeypatch):
    from xdistil_tf.bin import train

    lines = []
    monkeypatch.setattr(train.logging, "warning", lambda text, *more: lines.append(text % more))
    unread = f"--data=foo={small.info.folder}/heldout-*"
    arguments = train_flags(recipe_file(), small.info.folder, tmp_path / "run", unread)
    assert call("train", *arguments) == (0, "")
    assert lines == ["No stage of the recipe reads the data 'foo', which --data binds."]


@pytest.mark.parametrize(
    ("verb", "expected"),
    [
        ("distill", "task_dir task set labels_per_class transfer_file seed num_replicas recipe"),
        ("evaluate", "task_dir precision split"),
        ("predict", "precision input_file"),
        ("train", "set precision data recipe"),
    ],
)
def test_help_shows_the_flags_of_a_binary_and_no_others(call, verb, expected):
    assert call(verb, "--help") == (0, "")
    shown = set(re.findall(r"--(?:\[no\])?(\w+):", call.output))
    assert set(expected.split()) <= shown
    assert not {"verbosity", "logtostderr", "pdb", "test_random_seed", "run_with_pdb"} & shown
    assert call(verb, "--helpfull") == (0, "")


def record(path, level=logging.INFO):
    return logging.LogRecord("", level, str(path), 1, "", (), None)


def test_only_what_we_say_and_errors_are_logged(tmp_path):
    """Also where the libraries lie in an environment inside our own checkout."""
    code = compile("def main(_): ...", str(tmp_path / "xdistil_tf" / "bin" / "train.py"), "exec")
    names = {}
    exec(code, names)
    shown = command_line._ours_or_serious(names["main"])
    package = os.path.dirname(command_line.__file__)
    assert shown(record(f"{package}/trainer.py")) and shown(record(f"{package}/data/readers.py"))
    assert shown(record(tmp_path / "xdistil_tf" / "bin" / "train.py"))
    library = tmp_path / "xdistil_tf" / ".venv" / "lib" / "keras" / "bin" / "x.py"
    assert not shown(record(library)) and not shown(record(library, logging.WARNING))
    assert shown(record(library, logging.ERROR))


def test_a_signal_is_acknowledged_at_once(capfd):
    with Interruption().listening() as interruption:
        signal.raise_signal(signal.SIGTERM)
        assert interruption.requested
        assert capfd.readouterr().err.startswith("Stopping after the running loop; a second")
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)


# Real processes


def environment():
    """As a user has it: without what conftest.py sets, and with output that is buffered."""
    ours = ("TF_CPP_MIN_LOG_LEVEL", "PYTHONUNBUFFERED")
    inherited = {k: v for k, v in os.environ.items() if k not in ours}
    return inherited | {"PYTHONPATH": os.pathsep.join(sys.path)}


def process(verb, *arguments):
    return subprocess.run(
        [sys.executable, "-c", f"from xdistil_tf.bin import {verb}; {verb}.run()", *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        env=environment(),
        check=False,
    )


def other_lines(text):
    """Lines that are no log lines of ours."""
    return [line for line in text.splitlines() if not re.match(r"[IW]\d{4} \d\d:", line)]


def test_a_process_ends_with_one_line(records, recipe_file, tmp_path):
    damage(records, "flipped")
    path = recipe_file(LABELLED | {"steps": 20, "batch_size": 16})
    done = process("train", *train_flags(path, records, tmp_path / "run"))
    assert done.returncode == 1 and done.stdout == ""
    assert len(other_lines(done.stderr)) == 1, done.stderr
    (line,) = other_lines(done.stderr)
    assert line.startswith("error: ") and "train-00000-of-00002.tfrecord" in line


def test_a_wrong_flag_of_a_process(tmp_path):
    done = process("predict", "--model_dir=/no/such", "--input=x")
    assert done.returncode == 2
    assert len(other_lines(done.stderr)) == 1, done.stderr
    (line,) = other_lines(done.stderr)
    assert line.startswith("error: ") and "input" in line


def test_a_reader_that_has_enough_ends_a_process_quietly():
    """As `| head` does, whether the pipe is full or only flushed at the end."""
    for count in (1, 10**6):
        reading, writing = os.pipe()
        os.close(reading)
        main = f"lambda _: sys.stdout.write('x' * {count})"
        code = f"import sys; from xdistil_tf.command_line import run; run({main})"
        done = subprocess.run(
            [sys.executable, "-c", code],
            stdout=writing,
            stderr=subprocess.PIPE,
            timeout=300,
            env=environment(),
            check=False,
        )
        os.close(writing)
        assert (done.returncode, done.stderr) == (0, b"")


def test_recipes_of_the_small_task_are_valid():
    assert recipe.to_plain(student_recipe(stage()))["stages"][0]["name"] == "logits"


def test_examples_are_augmented_and_train(call, small, task, tmp_path):
    masked_lm = encoder_folder(tmp_path / "lm", small.tokenizer, {"kind": "pretraining"})
    path = tmp_path / "aug.tsv"
    arguments = [
        f"--task_dir={task}", "--task=classification", f"--masked_lm={masked_lm}",
        f"--output_file={path}", "--rounds=1", "--candidates=3", "--as_published",
    ]  # fmt: skip
    assert call("augment", *arguments) == (0, "")
    assert path.is_file() and files.read_json(f"{path}.json")["settings"]["as_published"]
    records = [
        f"--task_dir={task}", f"--tokenizer={small.encoder}", f"--output_dir={tmp_path}/records",
        f"--augmented={path}", "--max_seq_length=32",
    ]  # fmt: skip
    assert call("create_task_data", *records) == (0, "")
    assert files.read_json(tmp_path / "records" / "task.json")["splits"]["augmented"]["records"]


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--masked_lm={small.teacher}", "no masked-LM head"),
        ("--masked_lm=/no", "/no"),
        ("--word_vectors=/no.txt", "No file /no.txt. Set --word_vectors"),
        ("--rounds=0", "rounds=0"),
        ("--task=tagging", "Tags belong to words"),
    ],
)
def test_wrong_inputs_of_augment(call, small, tmp_path, flag, message):
    masked_lm = encoder_folder(tmp_path / "lm", small.tokenizer, {"kind": "pretraining"})
    code, line = call(
        "augment",
        f"--task_dir={small.task_dir}",
        "--task=classification",
        f"--masked_lm={masked_lm}",
        f"--output_file={tmp_path}/aug.tsv",
        flag.format(small=small),
    )
    assert code == 1 and re.search(message, line), line
    assert not list(tmp_path.glob("aug*"))


def test_examples_are_varied_by_rules_and_serve_as_transfer_texts(call, small, task, tmp_path):
    path = tmp_path / "rules.tsv"
    arguments = [
        "--method=rules", f"--task_dir={task}", "--task=classification", f"--output_file={path}",
        "--n_iter=2", "--ngram_lengths=1,2", "--num_processes=1",
    ]  # fmt: skip
    assert call("augment", *arguments) == (0, "")
    assert files.read_json(f"{path}.json")["settings"]["ngram_lengths"] == [1, 2]
    records = [
        f"--task_dir={task}", f"--tokenizer={small.encoder}", f"--output_dir={tmp_path}/records",
        f"--transfer_file={path}", "--max_seq_length=32",
    ]  # fmt: skip
    assert call("create_task_data", *records) == (0, "")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--p_mask=1.5"], "Expected p_mask in .0, 1.. Received: 1.5"),
        (["--p_mask=0.7", "--p_pos=0.7"], "at most 1 together"),
        (["--p_mask=0", "--p_pos=0", "--p_ngram=0"], "else nothing changes"),
        (["--n_iter=0"], "Expected n_iter of at least 1. Received: 0"),
        (["--ngram_lengths=1,two"], "Expected --ngram_lengths as whole numbers"),
        (["--pos_tagger=penn"], "Unknown pos_tagger. Expected one of"),
        (["--masked_lm=lm"], "--masked_lm is for --method=tinybert"),
        (["--task=ner"], "Tags belong to words"),
        (["--method=tinybert"], "--method=tinybert needs --masked_lm"),
        (["--method=tinybert", "--n_iter=3"], "--n_iter is for --method=rules"),
    ],
)
def test_wrong_inputs_of_augment_by_rules(call, small, tmp_path, flags, message):
    code, line = call(
        "augment",
        "--method=rules",
        f"--task_dir={small.task_dir}",
        "--task=classification",
        f"--output_file={tmp_path}/aug.tsv",
        *flags,
    )
    assert code == 1 and re.search(message, line), line
    assert not list(tmp_path.glob("aug*"))


def test_predict_takes_a_file_or_a_task_of_glue(call, trained, tmp_path):
    model = f"--model_dir={trained}"
    for arguments in (
        [],
        ["--input_file=x"],
        ["--input_file=x", "--output_file=y", "--task=rte"],
        ["--task=rte", "--task_dir=x"],
    ):
        code, line = call("predict", model, *arguments)
        assert code == 1 and "or --task_dir, --task and --glue_submission_dir" in line, line
    glue = ["--task=rte", "--task_dir=x", f"--glue_submission_dir={tmp_path}"]
    code, line = call("predict", model, *glue)
    assert code == 1 and "Expected one of rte" in line, line
