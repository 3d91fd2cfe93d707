"""Studies of pretrained students: arms over seeds, going on, comparisons, the table."""

import json

import pytest

from tests.small_task import OPTIONS, encoder_folder
from xdistil_tf import files, pretraining_study, recipe_files, recipes
from xdistil_tf.data import synthetic
from xdistil_tf.data.pretraining import write_pretraining_records
from xdistil_tf.pretraining_study import PretrainingStudy, run_pretraining_study

pytest_plugins = ["tests.small_task"]

SOFT = "configs/transformer_distillation/soft_label_mlm.yaml"
HARD = "stages.0.objective.0={loss: cross_entropy, output: masked_lm_logits, target: masked_lm_ids}"
SMALL = [
    "max_seq_length=32", "stages.0.steps=2", "stages.0.batch_size=8", "stages.0.evaluate=null",
    "model={kind: encoder, hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2, "
    "intermediate_size: 32, max_position_embeddings: 32}",
]  # fmt: skip


@pytest.fixture(scope="module")
def make(small, tmp_path_factory):
    """A function that makes a study of two arms."""
    folder = tmp_path_factory.mktemp("study")
    synthetic.generate_corpus(folder / "corpus.txt", 30)
    write_pretraining_records(
        folder / "corpus.txt", small.tokenizer, folder / "records", 32, 5,
        heldout_fraction=0.2, num_shards=1,
    )  # fmt: skip
    head = {"kind": "pretraining", "next_sentence": True}
    teacher = encoder_folder(folder / "teacher", small.tokenizer, head)

    def made(**changes):
        fields = {
            "name": "words",
            "teacher": teacher,
            "data": {
                n: f"{folder}/records/{s}-*" for n, s in (("corpus", "train"), ("heldout",) * 2)
            },
            "arms": [
                {"name": "no_teacher", "recipe": SOFT, "set": [HARD]},
                {"name": "soft", "recipe": SOFT, "set": ["teacher.mode=live"]},
            ],
            "baseline": "no_teacher",
            "seeds": [1, 2],
            "set": SMALL,
        }
        return PretrainingStudy.model_validate(fields | changes)

    return made


@pytest.fixture(scope="module")
def finished(make, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    run_pretraining_study(make(), folder, options=OPTIONS, output_json=folder / "copy.json")
    return folder


def test_every_arm_is_trained_and_scored_with_every_seed(finished):
    result = files.read_json(finished / "words.json")
    assert result == files.read_json(finished / "copy.json") and result["complete"]
    cells = [(one["arm"], one["seed"]) for one in result["runs"]]
    assert cells == [("no_teacher", 1), ("soft", 1), ("no_teacher", 2), ("soft", 2)]
    for one in result["runs"]:
        assert {"masked_lm_loss", "masked_lm_accuracy"} <= set(one["metrics"])
        assert {"agreement", "kl_divergence"} <= set(one["teacher"])
    assert len({one["metrics"]["masked_lm_loss"] for one in result["runs"]}) == 4


def test_differences_are_paired_by_seed(finished):
    result = files.read_json(finished / "words.json")
    losses = {(o["arm"], o["seed"]): o["metrics"]["masked_lm_loss"] for o in result["runs"]}
    (comparison,) = result["comparisons"]
    assert comparison["difference"] == "soft - no_teacher"
    assert comparison["per_seed"] == [losses["soft", s] - losses["no_teacher", s] for s in (1, 2)]


def test_finished_runs_are_taken_over(make, finished, tmp_path, monkeypatch):
    monkeypatch.setattr(pretraining_study, "_cell", lambda *a, **k: pytest.fail("was run again"))
    result = run_pretraining_study(make(), tmp_path, finished_runs=finished / "words.json")
    assert result["complete"] and result["runs"] == files.read_json(finished / "words.json")["runs"]


def test_runs_of_another_study_or_recipe_are_refused(make, finished, tmp_path):
    with pytest.raises(ValueError, match="is of another study: teacher"):
        run_pretraining_study(
            make(teacher="elsewhere"), tmp_path, finished_runs=finished / "words.json"
        )
    with pytest.raises(ValueError, match="another recipe of no_teacher: stages.0.steps was 2"):
        run_pretraining_study(
            make(set=[*SMALL, "stages.0.steps=3"]), tmp_path,
            finished_runs=finished / "words.json",
        )  # fmt: skip


def test_two_standard_errors_on_either_side_are_a_difference():
    def runs(arm, losses):
        return [
            {
                "arm": arm,
                "seed": seed,
                "steps": 1,
                "seconds": 1.0,
                "metrics": {
                    "masked_lm_loss": loss, "masked_lm_accuracy": 0.5, "standard_error": 0.01,
                },
                "teacher": {
                    "agreement": 0.5, "kl_divergence": 1.0,
                    "metrics": {"masked_lm_loss": 1.0, "masked_lm_accuracy": 0.9},
                },
            }
            for seed, loss in enumerate(losses)
        ]  # fmt: skip

    groups = {
        "base": runs("base", [3.0, 3.1, 3.2]),
        "better": runs("better", [2.0, 2.1, 2.2]),
        "worse": runs("worse", [4.0, 4.1, 4.2]),
        "same": runs("same", [2.9, 3.2, 3.2]),
    }
    found = {c["difference"]: c for c in pretraining_study.compare("words", groups, "base")}
    assert found["better - base"]["two_standard_errors"] is True
    assert found["worse - base"]["two_standard_errors"] is True
    assert found["same - base"]["two_standard_errors"] is False
    assert found["better - base"]["mean"] == pytest.approx(-1.0)
    table = pretraining_study.table(groups, (0, 1, 2))
    assert [row[0] for row in table["rows"]] == ["teacher", "base", "better", "worse", "same"]
    assert all(len(row) == len(table["columns"]) for row in table["rows"])


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"baseline": "nobody"}, "Expected baseline to be one of"),
        ({"seeds": [1, 1]}, "Expected different arms and different seeds"),
        ({"data": {"corpus": "x"}}, "Expected data to name heldout"),
    ],
)
def test_a_study_that_means_nothing_is_refused(make, changes, message):
    with pytest.raises(ValueError, match=message):
        make(**changes)


def test_a_file_tells_which_kind_of_study_it_is(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text(json.dumps({"arms": []}))
    assert recipe_files.has_field(path, "arms")
    assert not recipe_files.has_field(
        recipes.find("configs/evidence/xtremedistil_sst2_low.yaml", "study"), "arms"
    )


def test_scores_are_kept(make, finished, monkeypatch):
    before = files.read_json(finished / "words.json")["runs"]
    monkeypatch.setattr(
        pretraining_study, "evaluate_pretraining", lambda *a: pytest.fail("was scored again")
    )
    assert run_pretraining_study(make(), finished, options=OPTIONS)["runs"] == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"set": [one for one in SMALL if "evaluate" not in one]}, "'no_teacher' selects on"),
        ({"set": [*SMALL, "stages.0.data=heldout"]}, "'no_teacher' trains on 'heldout'"),
    ],
)
def test_what_is_reported_neither_trains_nor_selects(make, tmp_path, changes, message):
    with pytest.raises(ValueError, match=f"{message}.*which the study reports"):
        run_pretraining_study(make(**changes), tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_arm_may_have_fewer_seeds(make, finished, tmp_path):
    arms = [arm.model_dump() for arm in make().arms]
    arms[1]["seeds"] = [1]
    config = make(arms=arms)
    result = run_pretraining_study(
        config, tmp_path, options=OPTIONS, finished_runs=finished / "words.json"
    )
    cells = [(one["arm"], one["seed"]) for one in result["runs"]]
    assert cells == [("no_teacher", 1), ("soft", 1), ("no_teacher", 2)] and result["complete"]
    (comparison,) = result["comparisons"]
    assert len(comparison["per_seed"]) == 1 and not comparison["two_standard_errors"]
    (row,) = [row for row in result["table"]["rows"] if row[0] == "soft"]
    assert row[2] == "–"
    arms[1]["seeds"] = [3]
    with pytest.raises(ValueError, match="seeds of arm 'soft' among .1, 2.. Received: .3."):
        make(arms=arms)
