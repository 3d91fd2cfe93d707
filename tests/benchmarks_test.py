"""The benchmarks import without their other side, and their results obey one schema. No timing."""

import importlib
import json
import pathlib
import subprocess
import sys

import pytest

from benchmarks import harness, result_files

NAMES = ("bilstm", "encoder", "finetune", "latency", "pretraining_data", "pretraining_step")
NAMES += ("soft_labels", "teacher_cache", "wikipedia")
NAMES += (
    "augmentation",
    "ner_features",
    "ner_pipeline",
    "predict_memory",
    "rules",
    "tinybert_stage1",
    "tinybert_stage2",
)
PATHS = [
    harness.RESULTS / f"{name}.json"
    for name in (*NAMES, "latency_of_encoders", "latency_of_taggers")
]
RESULTS = [path for path in PATHS if path.is_file()]


def _content(**changes):
    content = {
        "benchmark": "encoder",
        "comparisons": [result_files.comparison("forward", 30.0, 20.0, "sequences/s", 1.2)],
        "measurements": {"ours": result_files.summary([29.0, 31.0, 30.0])},
        "extra": {},
        "versions": {"python": "3.11"},
        "seed": 0,
        "command": "python -m benchmarks.encoder",
        "wall_seconds": 1.5,
    }
    return content | changes


@pytest.mark.parametrize("name", [*NAMES, "limits"])
def test_benchmark_is_a_module_with_a_main(name):
    module = importlib.import_module(f"benchmarks.{name}")
    assert module.__doc__ and callable(module.main)


def test_benchmarks_import_without_pytorch():
    # In a fresh process: Beam imports it too, where it is installed.
    code = (
        f"import sys; from benchmarks import {', '.join(NAMES)}; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=harness.ROOT).returncode == 0


def test_ratio_above_one_means_ours_is_better():
    assert result_files.comparison("a", 30.0, 20.0, "examples/s")["ratio"] == 1.5
    for unit in result_files.LOWER_IS_BETTER:
        assert result_files.comparison("a", 20.0, 30.0, unit)["ratio"] == 1.5


def test_comparison_takes_the_median_of_repetitions():
    row = result_files.comparison("a", [1.0, 100.0, 3.0], [2.0, 2.0, 2.0], "examples/s", 1.6)
    expected = {"name": "a", "ours": 3.0, "theirs": 2.0, "unit": "examples/s", "ratio": 1.5}
    assert row == expected | {"aim": 1.6}
    assert tuple(row) == result_files.COMPARISON_KEYS


def test_summary_keeps_median_and_extremes():
    assert result_files.summary([3.0, 1.0, 2.0]) == {
        "median": 2.0,
        "min": 1.0,
        "max": 3.0,
        "repeats": 3,
    }


def test_schema_accepts_what_is_written(tmp_path, capsys):
    rows = [result_files.comparison("forward", 30.0, 20.0, "sequences/s", 1.2)]
    path = result_files.write_results(
        tmp_path / "encoder.json", rows, {"batch": 16}, measurements={"ours": [29.0, 31.0]}
    )
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["extra"] == {"threads": harness.THREADS, "batch": 16}
    assert result_files.schema_problems(content) == []
    assert content["comparisons"] == rows
    assert content["measurements"]["ours"]["median"] == 30.0
    assert "tensorflow" in content["versions"] and "processor" in content["versions"]
    assert "forward" in capsys.readouterr().out


def test_command_leaves_out_places(monkeypatch):
    arguments = ["/x/latency.py", "--data_dir=/d", "--repeats=3", "--minilm=/m", "--output=/o"]
    monkeypatch.setattr(sys, "argv", arguments)
    assert result_files.command() == "python -m benchmarks.latency --repeats=3"


def _row(**changes):
    return result_files.comparison("forward", 30.0, 20.0, "sequences/s", 1.2) | changes


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (_content(comparisons=[]), "there are no comparisons"),
        (_content(seed="0"), "seed is missing or of the wrong type"),
        (_content(comparisons=[_row(ratio=2.0)]), "ratio 2.0 does not follow"),
        (_content(comparisons=[_row(ours="30")]), "ours is no positive number"),
        (_content(comparisons=[_row(theirs=0.0)]), "theirs is no positive number"),
        (_content(comparisons=[_row(aim="1.2")]), "aim is neither a number nor null"),
        (_content(comparisons=[_row(unit=None)]), "unit is no text"),
        (_content(comparisons=[{"name": "forward"}]), "expected the keys"),
    ],
)
def test_schema_names_what_is_wrong(content, problem):
    assert problem in "; ".join(result_files.schema_problems(content))
    assert result_files.schema_problems(_content()) == []


def test_write_results_refuses_a_broken_row(tmp_path):
    with pytest.raises(ValueError, match="would not be a benchmark result: comparison 0"):
        result_files.write_results(tmp_path / "encoder.json", [_row(ratio=3.0)])
    assert not list(tmp_path.iterdir())


def test_cases_run_in_turns():
    seen = []

    def case(name):
        return lambda: seen.append(name) or 2

    rates = harness.interleaved({"a": case("a"), "b": case("b")}, repeats=2, warmup=1)
    assert seen == ["a", "b"] * 3
    assert [len(values) for values in rates.values()] == [2, 2]


def some_cases(units):
    """Cases of a worker in another process, for the test below."""
    measured = harness.Measured(units, 0.5, {"note": "own clock"})
    return {
        "plain": lambda: (units, "extra"),
        "measured": lambda: measured,
        "threads": lambda: (1, tensorflow_threads()),
    }


def tensorflow_threads():
    """How many threads TensorFlow computes on: those that it starts for a product of matrices."""
    import tensorflow as tf

    matrix = tf.ones([512, 512])
    tf.matmul(matrix, matrix).numpy()
    names = [path.read_text().strip() for path in pathlib.Path("/proc/self/task").glob("*/comm")]
    return len([name for name in names if name.startswith("tf_Compute")])


def _worker(factory):
    # Found by its path: the tests are no package.
    folder = str(pathlib.Path(__file__).parent)
    return harness.Worker(factory, {"units": 3}, {"PYTHONPATH": f"{harness.ROOT}:{folder}"})


def test_worker_measures_in_its_own_process():
    with _worker("benchmarks_test:some_cases") as worker:
        assert worker.names == ["plain", "measured", "threads"]
        plain, measured = worker.run("plain"), worker.case("measured")()
    assert (plain.units, plain.extra) == (3.0, "extra")
    assert plain.seconds > 0 and plain.peak_mb > 1
    assert (measured.rate, measured.extra) == (6.0, {"note": "own clock"})


def test_every_worker_computes_on_the_same_number_of_threads(monkeypatch):
    monkeypatch.setattr(harness, "THREADS", 3)
    with _worker("benchmarks_test:some_cases") as worker:
        assert worker.run("threads").extra == 3


def test_worker_that_fails_says_so(capfd):
    with pytest.raises(RuntimeError, match="The worker benchmarks_test:nothing ended with code 1"):
        _worker("benchmarks_test:nothing")
    assert "nothing" in capfd.readouterr().err


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_committed_results_obey_the_schema(path):
    content = json.loads(path.read_text(encoding="utf-8"))
    assert result_files.schema_problems(content) == []
    assert content["benchmark"] == path.stem


def test_a_table_is_written_with_its_circumstances(tmp_path, capsys):
    table = {"columns": ["part", "ms"], "rows": [["whole", "3.1"]]}
    path = result_files.write_table(tmp_path / "limits.json", table, {"repeats": 2}, seed=4)
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["table"] == table and content["seed"] == 4
    assert {"command", "versions", "wall_seconds"} <= set(content)
    assert "whole | 3.1" in capsys.readouterr().out


def test_products_of_a_step_are_three_times_those_of_a_forward_pass():
    from benchmarks import encoder, limits

    width, inner = encoder.WIDTH, encoder.FFN
    config = {
        "hidden_size": width,
        "intermediate_size": inner,
        "num_attention_heads": encoder.HEADS,
        "num_hidden_layers": encoder.LAYERS + 1,
    }
    found = limits.flop(limits.encoder_products(4, config))
    # Of one block more, the last, everything but keys and values is computed at position 0 alone.
    last = 4 * limits.LENGTH * 2 * width**2 + 4 * (2 * width**2 + 2 * width * inner)
    last += 4 * 2 * limits.LENGTH * width
    assert found == 3 * (encoder.forward_flop(4, limits.LENGTH) + 2 * last)
