"""Studies: cells, what they write, and going on from an earlier result."""

import json

import pytest

from tests.small_task import BILSTM, OPTIONS, stage
from xdistil_tf import files, recipe, study, study_results

pytest_plugins = ["tests.small_task"]


@pytest.fixture(scope="module")
def definition(small, tmp_path_factory):
    """A function that makes a study of the small task; a run takes a few seconds."""
    path = tmp_path_factory.mktemp("recipes") / "student.yaml"
    content = {
        "model": BILSTM,
        "teacher": {"layer": -1},
        "max_seq_length": 32,
        "stages": [
            stage(steps=1),
            stage(name="labels", data="train", objective=[{"loss": "task"}], steps=1),
        ],
    }
    # JSON is YAML.
    path.write_text(json.dumps(content))

    def make(**changes):
        fields = {
            "name": "small",
            "recipe": str(path),
            "teacher": small.teacher,
            "tasks": [{"task": "classification", "task_dir": str(small.task_dir)}],
            "seeds": [1, 2],
            "accept_weak_teacher": True,
            "labels_only": False,
            "export": False,
        }
        return study.Study.model_validate(fields | changes)

    return make


@pytest.fixture(scope="module")
def first_seed(definition, tmp_path_factory):
    """The result file of the study with one seed."""
    folder = tmp_path_factory.mktemp("first")
    study.run_study(definition(seeds=[1]), folder, options=OPTIONS)
    return folder / "small.json"


def test_one_seed_has_no_deviation(first_seed):
    result = files.read_json(first_seed)
    assert result["complete"]
    assert [one["seed"] for one in result["runs"]] == [1]
    (run,) = result["runs"]
    expected = run["student"]["seconds"] + run["cache"]["seconds"]
    assert run["training_seconds"] == pytest.approx(expected, abs=0.1)
    (comparison,) = result["comparisons"]
    assert comparison["standard_error"] is None
    assert not comparison["two_standard_errors"]


def test_finished_runs_are_taken_and_the_others_made(definition, first_seed, tmp_path):
    copy = tmp_path / "copy.json"
    result = study.run_study(
        definition(),
        tmp_path / "again",
        options=OPTIONS,
        finished_runs=first_seed,
        output_json=copy,
    )
    earlier = files.read_json(first_seed)
    assert result["runs"][0] == earlier["runs"][0]
    assert [one["seed"] for one in result["runs"]] == [1, 2]
    assert not (tmp_path / "again" / "classification_all_seed1").exists()
    assert files.read_json(copy) == files.read_json(tmp_path / "again" / "small.json")
    columns, rows = result["table"]["columns"], result["table"]["rows"]
    assert columns[:5] == ["model", "seed 1", "seed 2", "mean", "SD"]
    assert {len(row) for row in rows} == {len(columns)}


def test_a_result_that_was_taken_over_keeps_its_machine(definition, first_seed, tmp_path):
    earlier = files.read_json(first_seed)
    earlier["versions"]["processor"] = "of another machine"
    files.write_json(tmp_path / "earlier.json", earlier)
    taken = {"finished_runs": tmp_path / "earlier.json", "options": OPTIONS}
    one = study.run_study(definition(seeds=[1]), tmp_path / "one", **taken)
    assert one["versions"] == earlier["versions"]
    assert one["runs"] == earlier["runs"]


def test_result_is_written_after_each_run(definition, tmp_path, monkeypatch):
    def second_fails(job, **kwargs):
        if job.recipe.seed == 2:
            raise ValueError("stopped")
        return finished(job, **kwargs)

    finished = study.distill
    monkeypatch.setattr(study, "distill", second_fails)
    with pytest.raises(ValueError, match="stopped"):
        study.run_study(definition(), tmp_path, options=OPTIONS)
    result = files.read_json(tmp_path / "small.json")
    assert not result["complete"]
    assert [one["seed"] for one in result["runs"]] == [1]
    (row,) = [row for row in result["table"]["rows"] if row[0] == "**student**"]
    assert row[2] == "–"


def test_students_are_exported_unless_the_study_says_no(definition, tmp_path, monkeypatch):
    jobs = []

    def stopped(job, **_):
        jobs.append(job)
        raise ValueError("stopped")

    monkeypatch.setattr(study, "distill", stopped)
    for exported in (True, False):
        with pytest.raises(ValueError, match="stopped"):
            study.run_study(definition(export=exported), tmp_path, options=OPTIONS)
    assert [job.export for job in jobs] == [True, False]


def test_finished_runs_of_another_study_are_refused(definition, first_seed, tmp_path):
    other = definition(set=["model.dropout=0.3"])
    with pytest.raises(ValueError, match=r"another study: set is \[\].*Expected \['model"):
        study.run_study(other, tmp_path, finished_runs=first_seed)


def test_finished_runs_of_other_recipes_are_refused(definition, first_seed, tmp_path):
    """The study names the same file, whose content is another one now."""
    result = files.read_json(first_seed)
    result["recipe"]["stages"][0]["steps"] = 7
    files.write_json(tmp_path / "earlier.json", result)
    with pytest.raises(ValueError, match=r"other recipes: recipe\.stages.*was 7 and is now 1"):
        study.run_study(definition(), tmp_path, finished_runs=tmp_path / "earlier.json")


def test_finished_runs_are_known_by_what_they_are(definition, first_seed, tmp_path):
    """Not by their places, which another order of runs would change."""
    config = definition(variants={"full": [], "wider": ["model.lstm_units=12"]}, seeds=[1, 2])
    (report,) = files.read_json(first_seed)["runs"]
    runs = [report | {"variant": "wider", "seed": 2}, report | {"variant": "full"}]
    earlier = files.read_json(first_seed) | {"study": recipe.to_plain(config), "runs": runs}
    files.write_json(tmp_path / "earlier.json", earlier)
    found = study._finished_runs(config, tmp_path / "earlier.json")
    assert {cell: (one["variant"], one["seed"]) for cell, one in found.items()} == {
        "full/classification_all_seed1": ("full", 1),
        "wider/classification_all_seed2": ("wider", 2),
    }


def test_fields_added_since_do_not_make_another_recipe(definition, first_seed, tmp_path):
    result = files.read_json(first_seed)
    del result["recipe"]["model"]["crf"], result["study"]["metric"]
    files.write_json(tmp_path / "earlier.json", result)
    finished = study._finished_runs(definition(), tmp_path / "earlier.json")
    assert list(finished) == ["classification_all_seed1"]


def test_training_seconds_count_all_that_was_trained():
    content = {
        "teacher": {"seconds": 1.0},
        "student": {"seconds": 20.0},
        "cache": {"seconds": 300.0},
        "labels_only": {
            "learning_rates": [
                {"seconds": 4000.0, "shorter_runs": [{"seconds": 50000.0}]},
                {"seconds": 600000.0, "shorter_runs": []},
            ]
        },
    }
    assert study._training_seconds(content) == 654321.0


def test_tasks_with_other_labels_are_not_taken(definition, first_seed):
    task = definition().tasks[0]
    changed = definition(tasks=[task.model_copy(update={"labels_per_class": 5})])
    assert study._finished_runs(changed, first_seed) == {}
    assert list(study._finished_runs(definition(), first_seed)) == ["classification_all_seed1"]


def test_a_task_by_another_name_is_compared_and_taken(definition, first_seed):
    """`NER`, `sst2` and `CoLA` stand in reports by their canonical names."""
    renamed = definition(
        tasks=[{"task": "CLASSIFICATION", "task_dir": definition().tasks[0].task_dir}]
    )
    (cell,) = renamed.model_copy(update={"seeds": (1,)}).cells()
    (report,) = files.read_json(first_seed)["runs"]
    result = study._result(renamed, {cell: report})
    assert [one["task"] for one in result["comparisons"]] == ["classification"]
    earlier = first_seed.with_name("renamed.json")
    files.write_json(earlier, result)
    assert study._finished_runs(renamed, earlier) == {cell: report}


def test_an_earlier_result_without_a_new_field_is_taken(definition, first_seed):
    earlier = files.read_json(first_seed)
    del earlier["study"]["labels_only_learning_rates"]
    files.write_json(first_seed.with_name("older.json"), earlier)
    assert study._finished_runs(definition(), first_seed.with_name("older.json"))
    changed = definition(labels_only_learning_rates=["1e-3"])
    with pytest.raises(ValueError, match=r"labels_only_learning_rates is \[\].*\[0.001\]"):
        study._finished_runs(changed, first_seed)


@pytest.mark.parametrize(
    ("changes", "repeated"),
    [
        ({"seeds": [1, 1]}, "classification_all_seed1"),
        (
            {
                "tasks": [
                    {"task": "classification", "task_dir": "a"},
                    {"task": "classification", "task_dir": "b"},
                ]
            },
            "classification_all_seed1, classification_all_seed2",
        ),
    ],
)
def test_runs_that_would_share_a_folder_are_refused(definition, changes, repeated):
    with pytest.raises(ValueError, match=f"Expected different seeds.*Repeated: {repeated}"):
        definition(**changes)


def test_learning_rates_of_the_baseline_are_passed_on(definition, tmp_path):
    rates = {"labels_only": True, "labels_only_learning_rates": ["3e-4", 1e-3]}
    config = definition(**rates)
    assert study._job(config, None, config.tasks[0], 1, tmp_path).labels_only_learning_rates == (
        3e-4, 1e-3,
    )  # fmt: skip
    with pytest.raises(ValueError, match="greater than 0"):
        definition(labels_only_learning_rates=[0])


def one_run(seed, student, other):
    return {
        "task": "t",
        "labels_per_class": None,
        "metric": "accuracy",
        "seed": seed,
        "student": {"metrics": {"accuracy": student, "standard_error": 0.01}},
        "labels_only": {"metrics": {"accuracy": other}},
    }


def test_difference_is_paired_over_seeds():
    reports = [one_run(1, 0.80, 0.70), one_run(2, 0.90, 0.84), one_run(3, 0.70, 0.62)]
    (found,) = study_results.compare(reports)
    assert found["mean"] == pytest.approx(0.08)
    assert found["standard_error"] == pytest.approx(0.02 / 3**0.5)
    assert found["two_standard_errors"]
    assert not study_results.compare(reports[:1])[0]["two_standard_errors"]
    worse = [one_run(1, 0.70, 0.80), one_run(2, 0.84, 0.90), one_run(3, 0.62, 0.70)]
    assert study_results.compare(worse)[0]["two_standard_errors"]


def test_nothing_is_retained_of_a_model_that_has_zero():
    """As a teacher of CoLA that answers the same to all."""
    (found,) = study_results.compare([one_run(1, 0.3, 0.0), one_run(2, 0.3, 0.1)])
    assert found["retained"] is None and found["mean"] == pytest.approx(0.25)


def test_variants_share_a_teacher_and_are_compared_with_the_first(small, definition, tmp_path):
    variants = {"full": [], "wider": ["model.lstm_units=12"]}
    config = definition(
        variants=variants, seeds=[1], teacher=small.encoder, set_teacher=["stages.0.epochs=0.1"]
    )
    result = study.run_study(config, tmp_path, options=OPTIONS)
    full, wider = result["runs"]
    assert (tmp_path / "full" / "classification_all_seed1" / "teacher" / "run.json").is_file()
    assert not (tmp_path / "wider" / "classification_all_seed1" / "teacher").exists()
    assert full["teacher"]["metrics"] == wider["teacher"]["metrics"]
    assert wider["teacher"]["shared_with"] == "full/classification_all_seed1"
    assert wider["teacher"]["source"] == full["teacher"]["source"] == small.encoder
    assert wider["student"]["parameters"] > full["student"]["parameters"]
    assert full["training_seconds"] > full["teacher"]["seconds"]
    expected = wider["student"]["seconds"] + wider["cache"]["seconds"]
    assert wider["training_seconds"] == pytest.approx(expected, abs=0.1)
    names = [(one["variant"], one["difference"]) for one in result["comparisons"]]
    assert names == [
        ("full", "student - teacher"), ("wider", "student - teacher"), ("wider", "student - full"),
    ]  # fmt: skip
    # Going on makes neither teacher nor student again.
    weights = sorted(tmp_path.glob("**/weights/tensors.safetensors"))
    before = [path.stat().st_mtime_ns for path in weights]
    again = study.run_study(config, tmp_path, options=OPTIONS)
    assert [path.stat().st_mtime_ns for path in weights] == before and len(weights) > 4
    assert again["runs"][1]["student"]["metrics"] == wider["student"]["metrics"]


def test_every_variant_has_a_seed_before_the_next_seed_begins(definition):
    config = definition(variants={"full": [], "wider": ["model.lstm_units=12"]}, seeds=[1, 2])
    variants = [(variant, seed) for variant, _, seed in config.runs()]
    assert variants == [("full", 1), ("wider", 1), ("full", 2), ("wider", 2)]


def test_a_wrong_override_of_a_variant_is_told_before_the_first_run(definition, tmp_path):
    config = definition(variants={"full": [], "wrong": ["model.lstm_unit=1"]})
    with pytest.raises(ValueError, match="model.lstm_unit"):
        study.run_study(config, tmp_path, options=OPTIONS)
    assert not any(tmp_path.iterdir())


def test_a_variant_may_start_from_something_else(definition):
    config = definition(
        init_checkpoint="somewhere",
        variants={"full": [], "none": ["init_checkpoint=null"], "other": ["init_checkpoint=x"]},
    )
    starts = [
        study._job(config, v, config.tasks[0], 1, "d").init_checkpoint for v in config.variants
    ]
    assert starts == ["somewhere", None, "x"]


def test_names_of_tasks_may_be_written_as_users_do(definition):
    task = {"task": "SST2", "task_dir": "d"}
    config = definition(recipe="configs/tinybert/task.yaml", tasks=[task])
    assert study._job(config, None, config.tasks[0], 1, "d").recipe.max_seq_length == 64
