"""The table a person reads; what is in `report.json` is proven in distill_test.py."""

from xdistil_tf import report


def model(value, **more):
    return {
        "metrics": {"accuracy": value, "standard_error": 0.01},
        "parameters": 1234567,
        "parameters_without_embeddings": 234567,
        "bytes": 4_938_268,
        "latency_ms": {"batch_1": 1.25, "batch_32": 9.5},
    } | more


def rate(value):
    """What the report says of the baseline at a learning rate."""
    return {
        "learning_rate": value,
        "key": "accuracy",
        "best": 0.79,
        "steps": 4000,
        "seconds": 70.0,
        "shorter_runs": [],
    }


def baseline(*rates):
    return model(0.8, steps=4000, seconds=70.0, learning_rates=list(rates))


STAGE = {
    "name": "logits.1_head",
    "data": "transfer",
    "steps": 40,
    "key": "objective",
    "best": 0.1234,
    "seconds": 12.3,
    "trained_parameters": 6,
    "reported": None,
}
CONTENT = {
    "task": "sst-2",
    "metric": "accuracy",
    "reported_split": "dev",
    "examples": 872,
    "teacher": model(0.9),
    "student": model(0.88, steps=3000, seconds=61.4),
    "retained": 0.88 / 0.9,
    "stages": [STAGE, STAGE | {"name": "labels", "best": None, "reported": 0.87}],
    "weak_teacher": False,
    "selects_on_reported_split": False,
}


def test_the_table_names_models_stages_and_what_is_kept():
    lines = report.as_text(CONTENT).splitlines()
    assert lines[0] == "sst-2: accuracy on dev (872 examples)"
    by_name = {line.split()[0]: line for line in lines if line}
    assert "0.8800 ± 0.0100" in by_name["student"] and "1,234,567" in by_name["student"]
    assert "4.9" in by_name["teacher"] and "1.25" in by_name["teacher"]
    assert by_name["student"].split()[-2:] == ["3,000", "61"]
    assert by_name["teacher"].endswith("9.50")
    assert "labels_only" not in by_name
    assert "objective 0.1234" in by_name["logits.1_head"]
    assert by_name["labels"].endswith("0.8700")
    assert lines[-1] == "The student keeps 97.8 % of its teacher."


def test_a_baseline_stands_beside_the_student():
    text = report.as_text(CONTENT | {"labels_only": baseline(rate(3e-4))})
    (line,) = [line for line in text.splitlines() if line.startswith("labels_only")]
    assert "0.8000" in line and line.split()[-2:] == ["4,000", "70"]


def test_every_learning_rate_of_the_baseline_is_listed():
    text = report.as_text(CONTENT | {"labels_only": baseline(rate(3e-4), rate(1e-3))})
    assert "labels_only at 0.0003: accuracy 0.7900 held out, 4,000 steps, 70 s." in text
    assert "labels_only at 0.001: accuracy 0.7900 held out" in text


def test_a_baseline_with_less_time_is_said_aloud():
    short = baseline(rate(3e-4)) | {"seconds": 50.0}
    text = report.as_text(CONTENT | {"labels_only": short})
    assert "labels_only had less time than the student: 50 s against 61 s." in text


def test_doubts_are_said_aloud():
    doubtful = {"weak_teacher": True, "selects_on_reported_split": True, "retained": None}
    text = report.as_text(CONTENT | doubtful)
    assert "no better than a constant answer (--accept_weak_teacher)" in text
    assert "the figures are too good" in text
    assert "keeps" not in text
