"""Which teacher a run has, and what it refuses to learn from."""

import shutil

import pytest

from tests.small_task import ENCODER, OPTIONS, encoder_folder, make_cache, stage, student_recipe
from xdistil_tf import cache, files, teaching
from xdistil_tf.models import pretrained
from xdistil_tf.objective import Objective
from xdistil_tf.run import run

pytest_plugins = ["tests.small_task"]

AVAILABLE = {"logits": None}


def demands(small, config):
    """The one stage's objective with its data."""
    terms = config.stages[0].objective
    objective = Objective(terms, "classification", AVAILABLE, AVAILABLE, teacher_layers=2)
    return [(objective, [small.records("transfer"), small.records("heldout")])]


def disk(monkeypatch, free):
    usage = type("Usage", (), {"free": free})
    monkeypatch.setattr(files.shutil, "disk_usage", lambda path: usage)


@pytest.mark.parametrize(("before", "after"), [(10**9, 10), (10, 10**9)])
def test_auto_chooses_once_and_stays_with_it(small, tmp_path, monkeypatch, before, after):
    config = student_recipe(teacher={"mode": "auto"})
    identities = []
    for free in (before, after):
        disk(monkeypatch, free)
        taught = teaching.Teaching(
            config, small.teacher, None, small.info, small.info.tokenizer["fingerprint"]
        )
        wanted = demands(small, config)
        taught.settle(wanted, tmp_path / "cache")
        identities.append(taught.identity(wanted[0][0]))
    assert identities[0] == identities[1]
    assert (tmp_path / "cache/cache.json").is_file() == (before > after)


def test_a_cache_with_the_labels_in_another_order_is_refused(small, tmp_path):
    labels = small.info.labels[::-1]
    head = {"kind": "classification", "num_labels": len(labels)}
    folder = encoder_folder(tmp_path / "reversed", small.tokenizer, head, labels)
    live = teaching.load_teacher(folder, -1, False)
    spec = teaching.cache_spec(folder, live, {"logits": None}, "float16", "")
    cache.write_cache(live, spec, [small.records("heldout")], tmp_path / "cache")
    with pytest.raises(ValueError, match="has the classes .* the records have"):
        teaching.Teaching(
            student_recipe(),
            None,
            str(tmp_path / "cache"),
            small.info,
            small.info.tokenizer["fingerprint"],
        )


def test_a_cache_of_a_teacher_with_another_tokenizer_is_refused(small, small_cache, tmp_path):
    folder = tmp_path / "cache"
    shutil.copytree(small_cache.folder, folder)
    info = small_cache.info
    changed = info | {"made_from": info["made_from"] | {"tokenizer": "of another"}}
    files.write_json(folder / "cache.json", changed)
    with pytest.raises(ValueError, match="belongs to another tokenizer than the records"):
        teaching.Teaching(
            student_recipe(), None, str(folder), small.info, small.info.tokenizer["fingerprint"]
        )


def test_damage_in_the_cache_is_found_before_the_first_stage(small, small_cache, tmp_path):
    folder = tmp_path / "cache"
    shutil.copytree(small_cache.folder, folder)
    path = folder / "heldout-00001-of-00002.logits.bin"
    path.write_bytes(bytes(path.stat().st_size))
    config = student_recipe()
    taught = teaching.Teaching(
        config, None, str(folder), small.info, small.info.tokenizer["fingerprint"]
    )
    with pytest.raises(ValueError, match="heldout-00001-of-00002.logits.bin is damaged"):
        taught.settle(demands(small, config), tmp_path / "unused")


def test_the_weights_are_hashed_once_for_all_stages(small, monkeypatch):
    calls, original = [], pretrained.weights_fingerprint
    monkeypatch.setattr(
        pretrained, "weights_fingerprint", lambda folder: calls.append(folder) or original(folder)
    )
    config = student_recipe(teacher={"mode": "live"})
    taught = teaching.Teaching(
        config, small.teacher, None, small.info, small.info.tokenizer["fingerprint"]
    )
    objective = demands(small, config)[0][0]
    assert taught.identity(objective) == taught.identity(objective) and len(calls) == 1


def test_a_cache_without_its_teacher_gives_the_student_its_width(small, small_cache, tmp_path):
    objective = [{"loss": "mean_squared_error", "output": "representation"}]
    config = student_recipe(stage(objective=objective, steps=1))
    run(config, small.data(), tmp_path, teacher_cache=str(small_cache.folder), options=OPTIONS)
    model = files.read_json(tmp_path / "model/config.json")
    assert model["projection_dim"] == ENCODER["hidden_size"]


def test_the_layer_that_a_cache_holds_is_logged(small, tmp_path, caplog):
    folder = make_cache(small, tmp_path / "cache", layer=-2).folder
    config = student_recipe(teacher={"layer": -2})
    with caplog.at_level("INFO", logger="absl"):
        teaching.Teaching(
            config, None, str(folder), small.info, small.info.tokenizer["fingerprint"]
        )
    assert f"Teacher cache {folder}: layer 1 of 2 is compared." in caplog.text


def test_a_teacher_of_masks_that_change_is_live(small, tmp_path, monkeypatch):
    monkeypatch.setattr(teaching.dynamic, "draws_masks", lambda records: True)
    for mode in ("auto", "cached"):
        config = student_recipe(teacher={"mode": mode})
        fingerprint = small.info.tokenizer["fingerprint"]
        taught = teaching.Teaching(config, small.teacher, None, small.info, fingerprint)
        wanted = demands(small, config)
        if mode == "cached":
            with pytest.raises(ValueError, match="teacher.mode: cached, and the masks of .*live"):
                taught.settle(wanted, tmp_path / "cache")
        else:
            taught.settle(wanted, tmp_path / "cache")
            assert not taught.sidecars(*[wanted[0][0], wanted[0][1][0]])
    assert not (tmp_path / "cache").exists()
