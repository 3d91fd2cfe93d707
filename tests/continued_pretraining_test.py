"""Step 1 as part of the main job."""

import json

import pytest

from tests.small_task import BILSTM, OPTIONS, RECORDS, stage
from xdistil_tf import recipe, recipe_files
from xdistil_tf.continued_pretraining import continue_pretraining
from xdistil_tf.data import synthetic
from xdistil_tf.data.examples import Example
from xdistil_tf.data.readers import read_task
from xdistil_tf.distill import distill
from xdistil_tf.job import Job
from xdistil_tf.models import folders, pretrained

pytest_plugins = ["tests.small_task"]

SHORT = ["max_seq_length=32", "stages.0.epochs=null", "stages.0.steps=2", "stages.0.batch_size=8"]


@pytest.fixture(scope="module")
def pretraining_recipe():
    return recipe_files.load_recipe("configs/bert/continue_pretraining.yaml", SHORT)


@pytest.fixture(scope="module")
def corpus(small, tmp_path_factory):
    """A corpus in which three dev texts stand."""
    path = tmp_path_factory.mktemp("corpus") / "corpus.txt"
    synthetic.generate_corpus(path, 30)
    dev = read_task(small.task_dir, "classification").splits["dev"]
    with open(path, "a", encoding="utf-8") as handle:
        handle.write("\n" + "".join(f"{one.text}\n" for one in dev[:3]))
    return path


def test_the_main_job_pretrains_its_teacher_first(small, corpus, pretraining_recipe, tmp_path):
    job = Job(
        recipe=recipe.Recipe.model_validate(
            {
                "model": BILSTM,
                "teacher": {"layer": -1},
                "max_seq_length": 32,
                "stages": [
                    stage(steps=1),
                    stage(name="labels", data="train", objective=[{"loss": "task"}], steps=1),
                ],
            }
        ),
        teacher_recipe=recipe_files.load_recipe(
            "configs/bert/finetune.yaml",
            ["max_seq_length=32", "stages.0.epochs=null", "stages.0.steps=2"],
        ),
        task_dir=str(small.task_dir),
        task="classification",
        teacher=small.encoder,
        model_dir=str(tmp_path),
        records=RECORDS,
        accept_weak_teacher=True,
        labels_only=False,
        export=False,
        continue_pretraining=(str(corpus),),
        pretraining_recipe=pretraining_recipe,
    )
    content = distill(job, options=OPTIONS)
    assert content["teacher"]["source_training"]["steps"] > 0
    further = folders.find(str(tmp_path / "pretraining" / "run"))
    started = json.loads((tmp_path / "teacher" / "00_start" / "definition.json").read_text())
    assert started["init_checkpoint"] == pretrained.weights_fingerprint(further)
    assert started["init_checkpoint"] != pretrained.weights_fingerprint(small.encoder)
    dropped = json.loads((tmp_path / "pretraining" / "text" / "unseen.json").read_text())
    assert dropped["dropped"] == 3
    trained = tmp_path / "pretraining" / "run" / "01_pretrain" / "stage.json"
    before = trained.stat().st_mtime_ns
    distill(job, options=OPTIONS)
    assert trained.stat().st_mtime_ns == before


def test_records_have_pairs_only_where_the_recipe_asks(small, corpus, tmp_path):
    config = recipe_files.load_recipe(
        "configs/bert/continue_pretraining.yaml",
        [
            *SHORT,
            "stages.0.objective=[{loss: cross_entropy, output: masked_lm_logits, "
            "target: masked_lm_ids}]",
        ],
    )
    continue_pretraining(
        config, small.encoder, [str(corpus)], [Example("dev:1", "no")], tmp_path, options=OPTIONS
    )
    manifest = json.loads((tmp_path / "records" / "pretraining.json").read_text())
    assert manifest["settings"]["next_sentence"] is False and manifest["masking"] == "dynamic"
    assert manifest["settings"]["max_predictions_per_seq"] == 5  # 15 % of 32, rounded up.


def test_an_encoder_with_a_head_for_a_task_is_refused(small, corpus, pretraining_recipe, tmp_path):
    with pytest.raises(ValueError, match="continued pretraining would lose"):
        continue_pretraining(pretraining_recipe, small.teacher, [str(corpus)], [], tmp_path)


def test_a_job_needs_a_recipe_for_it(small):
    config = recipe_files.load_recipe("configs/xtremedistil/text.yaml")
    with pytest.raises(ValueError, match="needs a pretraining_recipe"):
        Job(config, config, "task", "sst-2", "teacher", "runs", continue_pretraining=("text",))
