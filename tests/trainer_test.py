import numpy as np
import pytest
import tensorflow as tf

from tests import tiny
from xdistil_tf import optimizers, recipe, strategies, summaries, trainer
from xdistil_tf.checkpoints import StageFolder
from xdistil_tf.interruption import Interrupted, Interruption
from xdistil_tf.objective import Objective
from xdistil_tf.teachers import CachedTeacher
from xdistil_tf.trainer import Evaluator, Trainer, TrainerOptions

TERMS = [
    {"loss": "mean_squared_error", "output": "logits", "weight": 0.5},
    {"loss": "task"},
]


def stage(**fields):
    fields = {
        "name": "logits",
        "data": "transfer",
        "objective": TERMS,
        "epochs": 3,
        "batch_size": 8,
        "optimizer": {"learning_rate": 0.1, "schedule": "linear"},
    } | fields
    return recipe.Stage.model_validate(fields)


def train(folder, *, strategy=None, dropout=0.0, options=None, evaluator=None, **fields):
    settings = fields.pop("trainer", {})
    strategy = strategy or tf.distribute.get_strategy()
    with strategy.scope():
        model = tiny.TinyModel(dropout)
    teacher = CachedTeacher({"logits": None, "representation": None})
    one = stage(**fields)
    objective = Objective(one.objective, "classification", model.available, teacher.available)
    trainer = Trainer(
        model, strategy=strategy, options=options or TrainerOptions(steps_per_loop=2), **settings
    )
    evaluator = evaluator(model) if evaluator else None
    result = trainer.run(
        one,
        objective,
        tiny.ArrayData(),
        StageFolder(folder, {"stage": recipe.to_plain(one)}),
        teacher=teacher,
        evaluator=evaluator,
    )
    return result, trainer.weights()


def assert_close(left, right, tolerance=1e-5):
    for name in left:
        np.testing.assert_allclose(left[name], right[name], atol=tolerance, err_msg=name)


def assert_identical(left, right):
    for name in left:
        np.testing.assert_array_equal(left[name], right[name], err_msg=name)


def best_of(values):
    """An evaluator that gives these values one after the other."""
    remaining = iter(values)
    return lambda model: Evaluator(
        "heldout", lambda stop: ({"accuracy": next(remaining)}, None), "accuracy", True
    )


def test_two_replicas_equal_one(tmp_path):
    _, one = train(tmp_path / "one")
    _, two = train(tmp_path / "two", strategy=tiny.two_replicas())
    assert_close(one, two)


@pytest.mark.parametrize("pieces", [2, 3])
def test_micro_batches_equal_one(tmp_path, pieces):
    _, one = train(tmp_path / "one")
    options = TrainerOptions(steps_per_loop=3, gradient_accumulation=pieces)
    _, many = train(tmp_path / "many", options=options)
    assert_close(one, many)


def test_training_lowers_the_loss(tmp_path):
    short, _ = train(tmp_path / "short", epochs=1)
    long, _ = train(tmp_path / "long", epochs=20)
    assert long["loss"] < short["loss"]


@pytest.mark.parametrize(
    ("replicas", "name"), [(1, "adam"), (1, "bert_adam"), (1, "adadelta"), (2, "adamw")]
)
def test_an_interrupted_run_resumes_bit_for_bit(tmp_path, replicas, name):
    strategy = tiny.two_replicas() if replicas == 2 else None
    optimizer = {"name": name, "learning_rate": 0.1, "warmup_steps": 2}
    common = {"strategy": strategy, "dropout": 0.3, "optimizer": optimizer}
    _, undisturbed = train(tmp_path / "undisturbed", **common)
    interruption = Interruption()
    interruption.requested = True
    for _ in range(2):
        with pytest.raises(Interrupted):
            train(tmp_path / "resumed", trainer={"interruption": interruption}, **common)
    _, resumed = train(tmp_path / "resumed", **common)
    assert_identical(undisturbed, resumed)


def test_a_finished_stage_is_restored_and_not_trained_again(tmp_path):
    first, weights = train(tmp_path / "run")
    again, restored = train(tmp_path / "run")
    assert first == again
    assert_identical(weights, restored)


def test_best_weights_are_kept_and_the_start_is_a_candidate(tmp_path, caplog):
    evaluate = {"keep_best": "accuracy"}
    result, weights = train(
        tmp_path / "start", evaluator=best_of([0.9, 0.1, 0.2, 0.3]), evaluate=evaluate
    )
    assert result["best_step"] == 0
    assert "keeps the weights that it began with: by accuracy on" in caplog.text
    assert_close(weights, {n: v.numpy() for n, v in tiny.TinyModel().named_variables().items()}, 0)
    result, weights = train(
        tmp_path / "middle", evaluator=best_of([0.1, 0.8, 0.9, 0.3]), evaluate=evaluate
    )
    assert result["best_step"] == 6 and result["best"] == 0.9
    _, two_epochs = train(tmp_path / "two", optimizer={"learning_rate": 0.1}, epochs=2)
    _, middle = train(
        tmp_path / "constant",
        evaluator=best_of([0.1, 0.8, 0.9, 0.3]),
        evaluate=evaluate,
        optimizer={"learning_rate": 0.1},
    )
    assert_identical(two_epochs, middle)


def test_patience_ends_a_stage_early(tmp_path):
    result, _ = train(
        tmp_path,
        evaluator=best_of([0.5, 0.4, 0.3, 0.9]),
        evaluate={"keep_best": "accuracy", "patience": 2},
    )
    assert result["steps"] == 6 < result["planned_steps"]


def test_only_named_parts_change(tmp_path):
    before = {n: v.numpy() for n, v in tiny.TinyModel().named_variables().items()}
    _, after = train(tmp_path, train=["head"])
    np.testing.assert_array_equal(before["embedding"], after["embedding"])
    assert not np.array_equal(before["kernel"], after["kernel"])


def test_parts_without_gradient_are_left_alone_and_not_decayed(tmp_path):
    before = {n: v.numpy() for n, v in tiny.TinyModel().named_variables().items()}
    _, after = train(
        tmp_path,
        objective=[{"loss": "mean_squared_error", "output": "representation"}],
        optimizer={"name": "adamw", "learning_rate": 0.1},
    )
    np.testing.assert_array_equal(before["kernel"], after["kernel"])


def test_a_named_part_without_gradient_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="does not reach .'head'."):
        train(
            tmp_path,
            train=["head", "embedding"],
            objective=[{"loss": "mean_squared_error", "output": "representation"}],
        )


def test_a_loss_that_is_not_a_number_stops_and_names_the_stage(tmp_path):
    with pytest.raises(FloatingPointError, match="stage logits, steps .* Lower the learning rate"):
        train(tmp_path, optimizer={"learning_rate": 1e30}, epochs=20)


@pytest.mark.parametrize("interval", [1, 500])
def test_a_checkpoint_is_promised_only_where_there_is_one(tmp_path, interval):
    options = TrainerOptions(steps_per_loop=1, checkpoint_interval=interval)
    with pytest.raises(FloatingPointError) as stopped:
        train(tmp_path, optimizer={"learning_rate": 1e30}, epochs=20, options=options)
    assert ("Checkpoint" in str(stopped.value)) == (interval == 1)


def test_only_what_gets_a_gradient_counts_as_trained(tmp_path):
    objective = [{"loss": "mean_squared_error", "output": "representation"}]
    sizes = {n: v.shape.num_elements() for n, v in tiny.TinyModel().named_variables().items()}
    assert train(tmp_path / "all")[0]["trained_parameters"] == sum(sizes.values())
    result, _ = train(tmp_path / "part", objective=objective)
    assert result["trained_parameters"] == sizes["embedding"]
    stop = {"interruption": Interruption()}
    stop["interruption"].requested = True
    for _ in range(3):  # The last ends the stage without having trained in it.
        with pytest.raises(Interrupted):
            options = TrainerOptions(steps_per_loop=3)
            train(tmp_path / "resumed", objective=objective, trainer=stop, options=options)
    again, _ = train(tmp_path / "resumed", objective=objective)
    assert again["trained_parameters"] == sizes["embedding"]


def test_the_end_of_a_stage_says_time_and_speed(tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr(trainer.logging, "info", lambda text, *values: lines.append(text % values))
    train(tmp_path)
    assert lines[-1].startswith("Stage logits ended after 9 steps in ")
    assert "examples/s" in lines[-1] and " 0 examples/s" not in lines[-1]


def test_an_evaluation_is_logged_by_a_few_metrics(tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr(
        summaries.logging, "info", lambda text, *values: lines.append(text % values)
    )
    metrics = {"objective": 2.0, "accuracy": 0.5, "macro_f1": 0.25, "standard_error": 0.125}
    writer = summaries.StageSummaries(tmp_path, "logits", 9)
    with writer:
        writer.evaluation(3, "heldout", metrics, None, ("accuracy", "objective", "standard_error"))
    assert lines == [
        "logits step 3: heldout objective 2, accuracy 0.5, standard_error 0.125"
    ]  # fmt: skip


def test_loss_scaling_gives_the_same_updates(tmp_path):
    _, plain = train(tmp_path / "plain")
    _, scaled = train(tmp_path / "scaled", trainer={"precision": "mixed_float16"})
    assert_close(plain, scaled, 1e-4)


def test_options_must_be_positive():
    with pytest.raises(ValueError, match="Invalid steps_per_loop.*Received: 0"):
        TrainerOptions(steps_per_loop=0)


@pytest.mark.parametrize("name", ["adam", "adamw", "bert_adam"])
def test_large_variables_get_the_same_updates(tmp_path, monkeypatch, name):
    # The compiled square root rounds differently, and Adam magnifies that by the rate.
    optimizer = {"name": name, "learning_rate": 0.01, "clip_norm": 0.5}
    _, small = train(tmp_path / "small", optimizer=optimizer)
    monkeypatch.setattr(optimizers, "_LARGE", 1)
    _, large = train(tmp_path / "large", optimizer=optimizer)
    assert_close(small, large)
    _, replicated = train(tmp_path / "two", optimizer=optimizer, strategy=tiny.two_replicas())
    assert_close(small, replicated)


def test_a_stage_that_goes_on_with_other_slices_says_so_once(tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr(trainer.logging, "info", lambda text, *values: lines.append(text % values))
    stop = {"interruption": Interruption()}
    stop["interruption"].requested = True
    for pieces in (1, 2, 2, 2):
        options = TrainerOptions(steps_per_loop=2, gradient_accumulation=pieces)
        with pytest.raises(Interrupted):
            train(tmp_path, options=options, trainer=stop)
    said = [line for line in lines if "slices" in line]
    assert len(said) == 1 and "into 1 slices" in said[0] and "now into 2" in said[0]


def test_xla_is_refused_with_several_replicas(tmp_path):
    with pytest.raises(ValueError, match="XLA .* Expected xla=False.* Received: .*2 replicas"):
        train(tmp_path, strategy=tiny.two_replicas(), options=TrainerOptions(xla=True))


def test_one_device_is_refused_several_replicas():
    with pytest.raises(ValueError, match="num_replicas=2. Add --distribution_strategy=mirrored"):
        strategies.make_strategy("one_device", 2)


def test_xla_gives_the_same_updates(tmp_path):
    _, plain = train(tmp_path / "plain")
    _, compiled = train(tmp_path / "xla", options=TrainerOptions(steps_per_loop=2, xla=True))
    assert_close(plain, compiled, 1e-4)


def test_without_a_bar_a_line_a_minute_says_how_far_it_is(tmp_path, monkeypatch):
    lines, now = [], [100.0]
    monkeypatch.setattr(
        summaries.logging, "info", lambda text, *values: lines.append(text % values)
    )
    monkeypatch.setattr(summaries.time, "monotonic", lambda: now[0])
    with summaries.StageSummaries(tmp_path, "logits", 100, first_step=10) as writer:
        for step in (20, 30, 40):
            now[0] += 40.0
            writer.training(step, 10, {"loss": 0.5, "examples_per_second": 7.0})
    assert lines == ["logits step 30 of 100: loss 0.5, 7 examples/s, 0:04:40 left."]


def test_the_end_of_a_stage_says_which_weights_are_kept(tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr(trainer.logging, "info", lambda text, *values: lines.append(text % values))
    stage = {"evaluate": {"data": "heldout", "keep_best": "accuracy", "every_steps": 3}}
    train(tmp_path, evaluator=best_of([0.25, 0.75, 0.5, 0.5]), **stage)
    assert lines[-1].endswith(" Kept: step 3, accuracy 0.75.")


@pytest.mark.parametrize(
    "fraction, expected", [(0.67, [0, 2, 3]), (1.0, [0, 3]), (0.001, [0, 1, 2, 3])]
)
def test_a_stage_is_scored_each_fraction_of_an_epoch(tmp_path, monkeypatch, fraction, expected):
    steps, original = [], trainer._StageRun._evaluate
    assert tiny.ArrayData().steps_per_epoch == 3

    def spied(self):
        steps.append(self._step)
        original(self)

    monkeypatch.setattr(trainer._StageRun, "_evaluate", spied)
    stage = {"evaluate": {"data": "heldout", "keep_best": "accuracy", "every_epochs": fraction}}
    train(tmp_path, evaluator=best_of([0.5] * 9), epochs=1, **stage)
    assert steps == expected


def test_one_interval_of_evaluations_is_given():
    with pytest.raises(ValueError, match="every_steps or every_epochs, not both"):
        recipe.Evaluate(every_steps=3, every_epochs=0.5)
