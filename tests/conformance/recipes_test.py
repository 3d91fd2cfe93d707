"""Every recipe of configs/ trains two updates a stage on a tiny task, resumes, and exports."""

import pathlib

import numpy as np
import pytest
import tensorflow as tf
import yaml

import xdistil_tf
from tests.small_task import ENCODER, OPTIONS, encoder_folder
from xdistil_tf import files, outputs, recipe, recipe_files, trainer
from xdistil_tf.data.pretraining import write_pretraining_records
from xdistil_tf.export import parity
from xdistil_tf.export.model_folder import export_model_folder
from xdistil_tf.run import run

pytest_plugins = ["tests.small_task", "tests.small_tags"]

CONFIGS = pathlib.Path(xdistil_tf.__file__).parent.parent / "configs"
PATHS = sorted(
    path
    for path in CONFIGS.glob("**/*.yaml")
    if "stages" in yaml.safe_load(path.read_text(encoding="utf-8"))
)


# In place of a preset: as many heads as the small teacher, another width.
SMALLER = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "max_position_embeddings": 64,
}


class Crash(Exception):
    """Stands for SIGKILL."""


def shrunk(path):
    """The recipe with two updates a stage of a tiny model."""
    plain = recipe.to_plain(recipe_files.load_recipe(path))
    model = plain["model"]
    if model["kind"] == "bilstm":
        model |= {"lstm_units": 8, "embedding": model["embedding"] | {"dim": 8}}
        # Of pairs and of words other records are needed: dbert_test.py.
        model |= {"pairs": "joined", "words": None}
    else:
        smaller = SMALLER if model.pop("preset", None) else {}
        model |= {key: ENCODER[key] for key in ENCODER if key in model} | smaller
    for one in plain["stages"]:
        one.pop("epochs", None)
        one |= {"steps": 2, "batch_size": 8}
        one["optimizer"].pop("warmup_steps", None)
        if "evaluate" in one:
            one["evaluate"].pop("every_steps", None)
        for term in one["objective"]:
            if "heads" in term["options"] and term["options"]["heads"] != "mean":
                term["options"]["heads"] = 4
    if plain.get("teacher"):
        plain["teacher"] |= {"layer": -1}
    return recipe.Recipe.model_validate(plain | {"max_seq_length": 32})


@pytest.fixture(scope="session")
def corpus(small, tmp_path_factory):
    """Masked-LM records of a few documents."""
    from xdistil_tf.data import synthetic

    folder = tmp_path_factory.mktemp("corpus")
    synthetic.generate_corpus(folder / "corpus.txt", 40)
    write_pretraining_records(
        folder / "corpus.txt", small.tokenizer, folder / "records", 32, 5,
        heldout_fraction=0.2, num_shards=2,
    )  # fmt: skip
    records = folder / "records"
    return {"corpus": f"{records}/train-*", "heldout": f"{records}/heldout-*"}


@pytest.fixture(scope="session")
def language_model(small, tmp_path_factory):
    """A teacher of words and next sentences, of random weights."""
    head = {"kind": "pretraining", "next_sentence": True}
    return encoder_folder(tmp_path_factory.mktemp("lm"), small.tokenizer, head)


@pytest.fixture(scope="session")
def narrow(small, tmp_path_factory):
    """What a student of another width than its teacher starts from."""
    folder = tmp_path_factory.mktemp("narrow")
    return encoder_folder(folder, small.tokenizer, {"kind": None}, **SMALLER)


@pytest.fixture(scope="session")
def narrow_tagger(tagged, tmp_path_factory):
    """The same for tags."""
    folder = tmp_path_factory.mktemp("narrow_tagger")
    return encoder_folder(folder, tagged.tokenizer, {"kind": None}, **SMALLER)


def of_tags(path):
    return path.stem.startswith("ner")


def arguments(config, small, small_cache, corpus, language_model, narrow):
    """What a run of this recipe needs."""
    named = {"options": OPTIONS}
    terms = [term for one in config.stages for term in one.objective]
    if any(term.target_output == outputs.TOP_K for term in terms):
        named["teacher"] = language_model
    elif any(term.layers is not None for term in terms):
        named["teacher"] = small.teacher
        if config.model.hidden_size is None and config.model.layers_from is None:
            named["init_checkpoint"] = narrow
    elif config.teacher is not None:
        named |= {"teacher": small.teacher}
        named |= {"teacher_cache": str(small_cache.folder)} if small_cache else {}
    elif config.model.kind == "encoder" and config.model.hidden_size is None:
        named["init_checkpoint"] = small.encoder
    data = corpus if any(one.data == "corpus" for one in config.stages) else small.data()
    if any(one.data == "augmented" for one in config.stages):
        data = data | {"augmented": data["transfer"]}
    return data, named


@pytest.mark.parametrize("path", PATHS, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_a_recipe_trains_resumes_and_exports(
    path, small, small_cache, corpus, language_model, narrow, tagged, narrow_tagger, tmp_path,
    monkeypatch,
):  # fmt: skip
    config = shrunk(path)
    if of_tags(path):
        config = config.model_copy(update={"max_seq_length": 16})
        small, small_cache, narrow = tagged, None, narrow_tagger
    data, named = arguments(config, small, small_cache, corpus, language_model, narrow)
    whole = run(config, data, tmp_path / "whole", **named)
    assert all(one["steps"] == 2 and np.isfinite(one["loss"]) for one in whole["stages"])

    original, crashed = trainer._StageRun._save, set()

    def save(self):
        original(self)
        if self._stage.name not in crashed:
            crashed.add(self._stage.name)
            raise Crash

    monkeypatch.setattr(trainer._StageRun, "_save", save)
    for _ in whole["stages"]:
        with pytest.raises(Crash):
            run(config, data, tmp_path / "again", **named)
    monkeypatch.setattr(trainer._StageRun, "_save", original)
    run(config, data, tmp_path / "again", **named)
    models = [tmp_path / name / "model" / "model.safetensors" for name in ("whole", "again")]
    assert models[0].read_bytes() == models[1].read_bytes()
    if not (tmp_path / "whole" / "model" / "labels.json").is_file():
        return  # Pretrained encoders are not served.

    def check(folder):
        report = parity.check(folder)
        files.write_json(folder / parity.REPORT_FILE, report)
        assert report["passed"]
        return report

    # Processes of their own are proven in saved_model_test.py.
    monkeypatch.setattr(parity, "check_in_fresh_process", check)
    export_model_folder(str(tmp_path / "whole"), tmp_path / "export" / "1", ["the soup was great"])
    if of_tags(path):
        return  # tagging_test.py serves them.
    served = tf.saved_model.load(str(tmp_path / "export" / "1")).signatures["serving_default"]
    answer = served(text=tf.constant(["the soup", ""]))
    assert answer["scores"].shape == (2, len(small.info.labels))
    np.testing.assert_allclose(tf.reduce_sum(answer["scores"], -1), 1.0, rtol=1e-5)
