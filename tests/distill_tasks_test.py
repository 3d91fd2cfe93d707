"""Several tasks by one call: names in paths, what would be shared, the table."""

import re

import pytest

from tests.small_task import encoder_folder, write_lines
from xdistil_tf import distill_tasks, files

pytest_plugins = ["tests.calls", "tests.small_task"]

METRIC = {"metric": "accuracy", "reported_split": "dev", "examples": 3, "retained": 0.5}
SCORES = {"metrics": {"accuracy": 0.25, "standard_error": 0.1}}


def test_the_name_of_a_task_stands_for_itself():
    assert distill_tasks.for_task("runs/{task}", "rte", "model_dir", several=True) == "runs/rte"
    assert distill_tasks.for_task("runs/x", "rte", "model_dir", several=False) == "runs/x"
    assert distill_tasks.for_task(None, "rte", "teacher", several=True) is None
    with pytest.raises(ValueError, match="--model_dir=runs/x would serve several tasks.*{task}"):
        distill_tasks.for_task("runs/x", "rte", "model_dir", several=True)


def test_the_table_is_written_after_each_task(tmp_path, monkeypatch):
    def distil(job, **training):
        if job.model_dir == "b":
            raise ValueError("stopped")
        return METRIC | {"teacher": SCORES, "student": SCORES}

    class Job:
        def __init__(self, model_dir):
            self.model_dir = model_dir

    monkeypatch.setattr(distill_tasks, "distill", distil)
    with pytest.raises(ValueError, match="stopped"):
        distill_tasks.distill_tasks({"rte": Job("a"), "cola": Job("b")}, tmp_path / "tasks.json")
    known = files.read_json(tmp_path / "tasks.json")
    assert not known["complete"] and [row["task"] for row in known["tasks"]] == ["rte"]
    assert known["tasks"][0]["student"] == 0.25 and "labels_only" not in known["tasks"][0]
    assert "0.2500" in distill_tasks.as_text(known["tasks"])


def glue_folder(small, folder):
    """RTE and CoLA of made-up texts."""
    words = [token for token in small.tokenizer.tokens if token.isalpha() and len(token) > 2]
    texts = [f"{words[n % len(words)]} {words[7 * n % len(words)]} {n}" for n in range(60)]
    rte = [f"{n}\t{t}\t{t} too\t{('entailment', 'not_entailment')[n % 2]}"
           for n, t in enumerate(texts)]  # fmt: skip
    header = "index\tsentence1\tsentence2\tlabel"
    cola = [f"gj\t{n % 2}\t\t{text}" for n, text in enumerate(texts)]
    for name, rows in (("train", slice(0, 40)), ("dev", slice(40, 60))):
        write_lines(folder / "RTE" / f"{name}.tsv", [header, *rte[rows]])
        write_lines(folder / "CoLA" / f"{name}.tsv", cola[rows])
    return folder


def test_two_tasks_are_distilled_and_stand_in_one_table(call, small, tmp_path):
    glue = glue_folder(small, tmp_path / "glue")
    student = encoder_folder(tmp_path / "student", small.tokenizer, hidden_size=16)
    steps = [f"--set=stages.{n}.{one}" for n in (0, 1) for one in ("epochs=null", "steps=1")]
    arguments = [
        "--tasks=RTE,cola", f"--glue_dir={glue}", f"--teacher={small.encoder}",
        f"--init_checkpoint={student}", f"--model_dir={tmp_path}/runs/{{task}}",
        "--recipe=configs/tinybert/task.yaml", "--set=max_seq_length=32", *steps,
        "--set_teacher=stages.0.epochs=1", "--accept_weak_teacher", "--nolabels_only", "--noexport",
        "--heldout_rows=10",
    ]  # fmt: skip
    assert call("distill", *arguments) == (0, "")
    table = files.read_json(tmp_path / "runs" / "tasks.json")
    assert table["complete"]
    assert [(row["task"], row["metric"]) for row in table["tasks"]] == [
        ("rte", "accuracy"), ("cola", "matthews"),
    ]  # fmt: skip
    assert (tmp_path / "runs" / "cola" / "report.json").is_file()
    projections = tmp_path / "runs" / "rte" / "student" / "model" / "projections.safetensors"
    assert projections.is_file()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--task_dir=x", "--task=rte", "--tasks=rte", "--glue_dir=g"], "Expected --task_dir and"),
        ([], "Expected --task_dir and --task, or --tasks and --glue_dir"),
        (["--tasks=rte,rte", "--glue_dir=g"], "Received twice: .'rte'."),
        (["--tasks=rte,none", "--glue_dir=g"], "Unknown task.*Received: .'none'."),
        (["--tasks=rte,cola", "--glue_dir=g"], "--model_dir=.* would serve several tasks"),
    ],
)
def test_what_names_no_tasks_or_would_share_a_folder_is_refused(call, tmp_path, flags, message):
    code, line = call("distill", *flags, "--teacher=t", f"--model_dir={tmp_path}/m")
    assert code == 1 and re.search(message, line), line
