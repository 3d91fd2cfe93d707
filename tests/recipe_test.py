"""Recipes: reading, refusing, overriding, expanding."""

import json
import pathlib

import pydantic
import pytest
import yaml

import xdistil_tf
from xdistil_tf import recipe, recipe_files, recipes

ROOT = pathlib.Path(xdistil_tf.__file__).parent.parent
PARTS = ("head", "projection", "bilstm", "embedding")
STAGE = {
    "name": "logits",
    "data": "transfer",
    "objective": [{"loss": "mean_squared_error", "output": "logits"}],
    "epochs": 2,
    "batch_size": 4,
}
PLAIN = {"model": {"kind": "bilstm"}, "teacher": {}, "stages": [STAGE]}


def make(**stage):
    return recipe_files.parse_config(recipe.Recipe, PLAIN | {"stages": [STAGE | stage]}, "here")


def write(path, content):
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


@pytest.mark.parametrize(
    ("where", "message"),
    [
        (("stages", 0, "epoch"), r"unknown field 'stages.0.epoch'. Did you mean 'epochs'\?"),
        (("stages", 0, "optimiser"), r"'stages.0.optimiser'. Did you mean 'optimizer'\?"),
        (("sed",), r"unknown field 'sed'. Did you mean 'seed'\?"),
        (("model", "lstm_unit"), r"field 'model.lstm_unit'. Did you mean 'lstm_units'\?"),
        (("stages", 0, "objective", 0, "wieght"), r"wieght'. Did you mean 'weight'\?"),
        (("zzz",), r"unknown field 'zzz'\.$"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_name(tmp_path, where, message):
    plain = json.loads(json.dumps(PLAIN))
    node = plain
    for key in where[:-1]:
        node = node[key]
    node[where[-1]] = 1
    path = write(tmp_path / "r.yaml", plain)
    with pytest.raises(ValueError, match=message) as caught:
        recipe_files.load_recipe(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"steps": 3}, "exactly one of 'epochs' and 'steps'"),
        ({"epochs": None}, "exactly one of 'epochs' and 'steps'"),
        ({"train": ["head"], "unfreeze": ["head"]}, "at most one of 'train' and 'unfreeze'"),
        ({"train": []}, "at least one part to train"),
        ({"unfreeze": []}, "at least one part to train"),
        ({"batch_size": 0}, "batch_size.*greater than or equal to 1. Received: 0"),
        ({"objective": []}, "objective.*at least 1 item"),
        ({"name": "../x"}, "name.*pattern"),
        ({"data": "dev"}, "data.*Input should be 'train'"),
        ({"evaluate": {"data": "test"}}, "evaluate.data.*Expected 'heldout', or 'dev'"),
        ({"optimizer": {"name": "sgd"}}, "optimizer.name.*'adam'"),
        ({"optimizer": {"learning_rate": "fast"}}, "learning_rate.*number.*Received: 'fast'"),
        ({"optimizer": {"learning_rate": float("inf")}}, "learning_rate.*finite number"),
        ({"optimizer": {"beta_1": 2}}, "beta_1.*less than 1. Received: 2"),
        ({"optimizer": {"beta_2": 1}}, "beta_2.*less than 1. Received: 1"),
        ({"optimizer": {"epsilon": -1}}, "epsilon.*greater than 0. Received: -1"),
        ({"optimizer": {"rho": 7}}, "rho.*less than 1. Received: 7"),
        ({"epochs": None, "steps": True}, "Expected no truth value for 'steps'"),
        ({"objective": [{"loss": "task", "weight": float("nan")}]}, "weight.*finite number"),
        ({"objective": [{"loss": "task", "at": "sentence"}]}, "at': .*'token' or 'word'"),
    ],
)
def test_what_cannot_be_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        make(**fields)


def test_equal_stage_names_are_refused():
    with pytest.raises(ValueError, match="Expected different stage names"):
        recipe_files.parse_config(recipe.Recipe, PLAIN | {"stages": [STAGE, STAGE]}, "here")


def test_a_number_without_a_point_is_a_number(tmp_path):
    """YAML reads 3e-5 as a string."""
    plain = PLAIN | {"stages": [STAGE | {"optimizer": {"learning_rate": 1}}]}
    text = yaml.safe_dump(plain).replace("learning_rate: 1", "learning_rate: 3e-5")
    config = recipe_files.load_recipe(write(tmp_path / "r.yaml", text))
    assert config.stages[0].optimizer.learning_rate == 3e-5
    config = recipe_files.load_recipe(
        write(tmp_path / "r.yaml", text), ["stages.0.optimizer.learning_rate=7e-4"]
    )
    assert config.stages[0].optimizer.learning_rate == 7e-4


def test_overrides_address_the_recipe_as_written():
    plain = recipe_files.apply_overrides(
        PLAIN,
        ["stages.0.epochs=3", "seed=7", "model.embedding.dim=9", "stages.0.train=[head, bilstm]"],
    )
    config = recipe.Recipe.model_validate(plain)
    assert (config.stages[0].epochs, config.seed, config.model.embedding.dim) == (3, 7, 9)
    assert config.stages[0].train == ("head", "bilstm")
    assert PLAIN["stages"][0]["epochs"] == 2


def test_an_override_changes_one_place_of_an_anchor(tmp_path):
    text = """
model: {kind: bilstm}
teacher: {}
stages:
  - &first
    name: one
    data: transfer
    objective: [{loss: mean_squared_error, output: logits}]
    epochs: 2
    batch_size: 4
    optimizer: {epsilon: 0.5}
  - <<: *first
    name: two
"""
    config = recipe_files.load_recipe(
        write(tmp_path / "r.yaml", text), ["stages.0.optimizer.epsilon=0.25"]
    )
    assert [one.optimizer.epsilon for one in config.stages] == [0.25, 0.5]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed", "Invalid --set. Expected path=value. Received: 'seed'"),
        ("stages.4.epochs=3", "position 0..0 at '4'"),
        ("stages.0.epochs.x=3", "'x' is inside a plain value"),
        ("seed=[1", "Invalid --set. Expected YAML"),
        ("stages.0.epoch=3", "Did you mean 'epochs'"),
    ],
)
def test_a_wrong_override_says_what_was_expected(tmp_path, override, message):
    with pytest.raises(ValueError, match=message) as caught:
        recipe_files.load_recipe(write(tmp_path / "r.yaml", PLAIN), [override])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["- a\n", "a: [", "3", "\x80"])
def test_what_is_no_recipe_is_refused(tmp_path, content):
    path = tmp_path / "r.yaml"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match="not valid YAML|expected a mapping"):
        recipe_files.load_recipe(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no file .*none.yaml"):
        recipe_files.load_recipe(tmp_path / "none.yaml")


def test_a_recipe_is_frozen():
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        make().seed = 3


def test_unfreezing_trains_head_projection_bilstm_embedding_in_this_order():
    stages = recipe.expand(make(unfreeze=list(PARTS), reinitialise=["head"]), PARTS)
    assert [one.name for one in stages] == [
        "logits.1_head",
        "logits.2_projection",
        "logits.3_bilstm",
        "logits.4_embedding",
    ]
    assert [one.train for one in stages] == [PARTS[:1], PARTS[:2], PARTS[:3], PARTS]
    assert [one.reinitialise for one in stages] == [("head",), (), (), ()]
    assert all(one.unfreeze is None and one.epochs == 2 for one in stages)
    assert recipe.expand(make(unfreeze="top_down"), PARTS) == recipe.expand(
        make(unfreeze=list(PARTS)), PARTS
    )


def test_unfreezing_top_down_leaves_out_what_cannot_be_trained():
    stages = recipe.expand(make(unfreeze="top_down"), PARTS, frozen=["embedding"])
    assert [one.train for one in stages] == [PARTS[:1], PARTS[:2], PARTS[:3]]


@pytest.mark.parametrize("field", ["train", "unfreeze"])
def test_a_part_that_cannot_be_trained_is_not_named(field):
    with pytest.raises(ValueError, match="Stage 'logits' trains 'embedding', .*top_down"):
        recipe.expand(make(**{field: ["head", "embedding"]}), PARTS, frozen=["embedding"])


def test_without_unfreezing_stages_stay_as_they_are():
    config = make(train=["bilstm"])
    assert recipe.expand(config, PARTS) == config.stages


@pytest.mark.parametrize("field", ["train", "unfreeze", "reinitialise"])
def test_an_unknown_part_is_refused(field):
    with pytest.raises(ValueError, match="Unknown part in stage 'logits'.*Received: 'hed'"):
        recipe.expand(make(**{field: ["hed"]}), PARTS)


@pytest.mark.parametrize("path", sorted(ROOT.glob("configs/**/*.yaml")), ids=str)
def test_every_recipe_parses_and_survives_yaml(path, tmp_path):
    plain = yaml.safe_load(path.read_text(encoding="utf-8"))
    if "stages" not in plain:
        from xdistil_tf import pretraining_study, study

        kind = pretraining_study.PretrainingStudy if "arms" in plain else study.Study
        recipe_files.load_config(kind, path)
        return
    config = recipe_files.load_recipe(path)
    assert recipe_files.load_recipe(write(tmp_path / "again.yaml", config.to_yaml())) == config
    assert path.read_text(encoding="utf-8").startswith("#")


def test_the_schema_knows_every_field(capsys):
    assert recipe.main(["--schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    stage = schema["$defs"]["Stage"]["properties"]
    assert {"unfreeze", "objective", "evaluate"} <= set(stage)
    assert schema["additionalProperties"] is False
    assert recipe.main([]) == 2


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"objective": [{"loss": "task", "layers": 3}]},
            r"field 'stages.0.objective.0.layers': Expected a name, or pairs \[\[student layer, "
            r"teacher layer\], ...\]. Received: 3.",
        ),
        (
            {"objective": [{"loss": "task", "layers": [[1, 2, 3]]}]},
            r"'stages.0.objective.0.layers': Expected a name, or pairs .* \[\[1, 2, 3\]\]",
        ),
        (
            {"unfreeze": "head"},
            "'stages.0.unfreeze': Expected a list of parts, or top_down. Rec",
        ),
        ({"train": "head"}, "'stages.0.train': Expected a list. Received: 'head'"),
    ],
)
def test_a_field_of_several_types_is_refused_in_one_sentence(fields, message):
    with pytest.raises(ValueError, match=f"^here: (field )?{message}") as refused:
        make(**fields)
    assert ";" not in str(refused.value)


def test_overrides_of_a_study_are_a_list():
    from xdistil_tf import study

    task = {"task": "cola", "task_dir": "d", "set": {"seed": 3}}
    plain = {"name": "s", "recipe": "r", "teacher": "t", "tasks": [task], "seeds": [1]}
    with pytest.raises(ValueError, match="'tasks.0.set': Expected a list of 'path=value'. Rec"):
        recipe_files.parse_config(study.Study, plain, "here")


def test_the_data_that_a_recipe_reads():
    config = recipe.Recipe.model_validate(PLAIN | {"stages": [STAGE | {"evaluate": {}}]})
    assert config.data_names() == {"transfer", "heldout"}
    observed = {"kind": "bilstm", "embedding": {"vocabulary": "observed"}}
    config = recipe.Recipe.model_validate(PLAIN | {"model": observed})
    assert config.data_names() == {"train", "transfer"}


def test_recipes_and_studies_are_listed_apart():
    with pytest.raises(FileNotFoundError, match="no recipe configs/x.yaml") as recipes_listed:
        recipes.find("configs/x.yaml")
    with pytest.raises(FileNotFoundError, match="no study configs/x.yaml") as studies_listed:
        recipes.find("configs/x.yaml", "study")
    for name, here, there in (
        ("configs/evidence/", studies_listed, recipes_listed),
        ("configs/bert/", recipes_listed, studies_listed),
    ):
        assert name in str(here.value) and name not in str(there.value)


def test_recipes_are_found_in_a_checkout_and_when_installed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert recipes.find("configs/xtremedistil/text.yaml").is_file()
    with pytest.raises(FileNotFoundError, match="no recipe configs/x.yaml.*bert/finetune.yaml"):
        recipes.find("configs/x.yaml")


def test_fields_of_a_task_are_set_before_the_overrides(tmp_path):
    by_task = {"cola": {"stages.0.epochs": 50, "max_seq_length": 64}, "rte": {"seed": 3}}
    path = write(tmp_path / "r.yaml", PLAIN | {"by_task": by_task})
    cola = recipe_files.load_recipe(path, task="cola")
    assert (cola.stages[0].epochs, cola.max_seq_length, cola.seed) == (50, 64, 42)
    set_by_hand = recipe_files.load_recipe(path, ["stages.0.epochs=7"], "cola")
    assert (set_by_hand.stages[0].epochs, set_by_hand.max_seq_length) == (7, 64)
    for task in (None, "sst-2"):
        assert recipe_files.load_recipe(path, task=task) == recipe_files.load_recipe(path)


@pytest.mark.parametrize("by_task", [["cola"], {"cola": 3}])
def test_a_map_of_tasks_that_is_none_is_refused(tmp_path, by_task):
    path = write(tmp_path / "r.yaml", PLAIN | {"by_task": by_task})
    with pytest.raises(ValueError, match="r.yaml: expected by_task to map names of tasks"):
        recipe_files.load_recipe(path, task="cola")


@pytest.mark.parametrize("name", ["task", "task_layers"])
def test_tinyberts_recipes_know_every_task_by_its_name(name):
    from xdistil_tf.data.glue import GLUE

    path = ROOT / "configs" / "tinybert" / f"{name}.yaml"
    known = recipe_files.fields_by_task(yaml.safe_load(path.read_text()), str(path))
    assert known.keys() <= GLUE.keys()
    epochs = {task: recipe_files.load_recipe(path, task=task).stages[0].epochs for task in GLUE}
    assert (epochs["cola"], epochs["mnli"], epochs["rte"]) == (50, 10, 20)
    assert recipe_files.load_recipe(path, task="sts-b").stages[1].data == "train"


def test_an_override_of_steps_takes_the_place_of_epochs(tmp_path):
    path = write(tmp_path / "r.yaml", PLAIN)
    steps = recipe_files.load_recipe(path, ["stages.0.steps=20"]).stages[0]
    assert (steps.steps, steps.epochs) == (20, None)
    both = ["stages.0.epochs=null", "stages.0.steps=20", "stages.0.epochs=3"]
    epochs = recipe_files.load_recipe(path, both).stages[0]
    assert (epochs.steps, epochs.epochs) == (None, 3)
