"""`report.json` of a distill folder, and the table a person reads."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from xdistil_tf import checkpoints, files, tag_decoding, versions
from xdistil_tf.baseline import BaselineRun
from xdistil_tf.cache_folder import TeacherCache
from xdistil_tf.data.record_set import RecordSet
from xdistil_tf.data.task_info import TaskInfo
from xdistil_tf.evaluate import latency_ms, parameter_counts
from xdistil_tf.metrics import MACRO
from xdistil_tf.models import folders, pretrained
from xdistil_tf.predictions import Predictions, logits_function, predict_records
from xdistil_tf.preflight import Check
from xdistil_tf.trainer import assign

# The shapes at which a model's latency is stated: one text, and a batch, of 32 tokens.
_LATENCY = {"batch_1": (1, 32), "batch_32": (32, 32)}


@dataclasses.dataclass(frozen=True)
class Joined:
    """What several teachers said together, or one with another tokenizer.

    Attributes:
      cache: Over the student's records, those reported on among them.
      teachers: Model folder and own records of each.
    """

    cache: TeacherCache
    teachers: Sequence[tuple[str, TaskInfo]]


@dataclasses.dataclass(frozen=True)
class Results:
    """What a distillation has made, to be scored.

    Attributes:
      folder: The distill folder.
      task: The records.
      teacher: The teacher's model folder; of several the first one's.
      teacher_source: Where it came from.
      student: The student's `run.json`.
      baselines: The labels-only runs, the best first; none if it was not asked for.
      checks: Of the preflight.
      seed: Of the run.
      joined: Of several teachers; `None`: there is one.
    """

    folder: pathlib.Path
    task: TaskInfo
    teacher: str
    teacher_source: str
    student: dict[str, Any]
    baselines: Sequence[BaselineRun]
    checks: Sequence[Check]
    seed: int
    joined: Joined | None = None

    def made_from(self) -> dict[str, Any]:
        """Fingerprints of all that a report depends on."""
        runs = [self.student, *(one.result for one in self.baselines)]
        return {
            "records": self.task.fingerprint,
            "teacher": self.joined.cache.info["made_from"]["teacher"]
            if self.joined
            else pretrained.weights_fingerprint(self.teacher),
            # Equal stages that were trained again have other seconds.
            "runs": [[one["fingerprint"], one["seconds"]] for one in runs],
        }


def read(folder: files.Path) -> dict[str, Any]:
    """The report of a finished distill folder; without one, of nothing."""
    path = pathlib.Path(folder) / "report.json"
    return {"made_from": {}} | (files.read_json(path) if path.is_file() else {})


def make_report(results: Results, exported: pathlib.Path | None) -> dict[str, Any]:
    """Scores all models on the reported split and gathers what the run knows.

    Args:
      results: The models, and how they came about.
      exported: The SavedModel, or `None`.
    """
    task, folder, student = results.task, results.folder, results.student
    records = RecordSet(task.pattern(task.report))
    if results.joined:
        teacher = _joined_report(results.joined, records, task)
    else:
        teacher = _model_report(results.teacher, records, task)
    teacher["source"] = results.teacher_source
    scored = {"teacher": teacher, "student": _model_report(folder / "student", records, task)}
    scored["student"] |= _training(student)
    teacher |= _training_of(results.teacher)
    if earlier := _training_of(results.teacher_source):  # Continued pretraining, for example.
        teacher["source_training"] = earlier
    if results.baselines:
        scored["labels_only"] = _baseline_report(results.baselines, records, task)
    metric = task.metric
    teacher_value = teacher["metrics"][metric]
    student_value = scored["student"]["metrics"][metric]
    checks = results.checks
    return {
        "task": task.task,
        "metric": metric,
        "reported_split": task.report,
        "examples": _examples(task),
        **scored,
        "retained": student_value / teacher_value if teacher_value else None,
        "stages": _stage_reports(folder / "student", student, records, task),
        "records": {name: split["records"] for name, split in task.splits.items()},
        "dropped": dict(task.dropped),
        "cache": _cache_report(folder / "cache"),
        "export": _export_report(exported),
        "preflight": [{"check": c.name, "passed": c.passed, "detail": c.detail} for c in checks],
        "weak_teacher": not all(check.passed for check in checks),
        "selects_on_reported_split": task.select == task.report,
        "seed": results.seed,
        "versions": versions.environment(),
    }


def _examples(task: TaskInfo) -> int:
    """Examples that are reported on; a long tagged sentence is several records."""
    reported = task.splits[task.report]
    return reported["labelled" if task.task_type == "tagging" else "records"]


def _joined_report(joined: Joined, records: RecordSet, task: TaskInfo) -> dict[str, Any]:
    """What they say together, and each alone on its own records; sizes and times add up."""
    alone = [
        _model_report(folder, RecordSet(own.pattern(own.report)), own)
        for folder, own in joined.teachers
    ]
    readers = joined.cache.readers({"logits": None}, records)
    predictions = predict_records(_Said(joined), records, task, sidecars=readers)
    sizes = ("parameters", "parameters_without_embeddings", "bytes")
    return {
        "metrics": _metrics(predictions, task),
        "by_language": predictions.by_language(task),
        **{name: sum(one[name] for one in alone) for name in sizes},
        "latency_ms": {
            shape: round(sum(one["latency_ms"][shape] for one in alone), 3) for shape in _LATENCY
        },
        "teachers": [
            one | {"model": folder} for one, (folder, _) in zip(alone, joined.teachers, strict=True)
        ],
    }


class _Said:
    """The joined logits. Those of one teacher become tags by its CRF; those of several by none."""

    def __init__(self, joined: Joined):
        self.decode = tag_decoding.most_probable
        if len(joined.teachers) == 1:
            ((folder, _),) = joined.teachers
            self.decode = tag_decoding.decoder_of(folders.load_model(folder))

    def __call__(self, batch: Mapping[str, Any]) -> Any:
        return batch["teacher/logits"]


def as_text(content: dict[str, Any]) -> str:
    """The report as a table for a terminal."""
    lines = [*_model_lines(content), "", *_stage_lines(content), ""]
    lines += _baseline_lines(content)
    if content["retained"] is not None:
        lines.append(_retained(content))
    if content["weak_teacher"]:
        lines.append("The teacher is no better than a constant answer (--accept_weak_teacher).")
    if content["selects_on_reported_split"]:
        lines.append("Selected on the split that is reported: the figures are too good.")
    return "\n".join(lines) + "\n"


def _retained(content: dict[str, Any]) -> str:
    if content["retained"] <= 1:
        return f"The student keeps {100 * content['retained']:.1f} % of its teacher."
    ours, theirs = (content[name]["metrics"][content["metric"]] for name in ("student", "teacher"))
    return f"The student is {ours - theirs:.4f} above its teacher."


def _model_lines(content: dict[str, Any]) -> list[str]:
    metric = content["metric"]
    lines = [
        f"{content['task']}: {metric} on {content['reported_split']} "
        f"({content['examples']} examples)",
        "",
        f"{'model':<14}{metric:>18}{'parameters':>14}{'w/o embed.':>12}{'MB':>8}"
        f"{'ms, 1':>8}{'ms, 32':>8}{'steps':>9}{'trained, s':>12}",
    ]
    for name in ("teacher", "student", "labels_only"):
        if name not in content:
            continue
        one = content[name]
        value = f"{one['metrics'][metric]:.4f} ± {one['metrics']['standard_error']:.4f}"
        line = (
            f"{name:<14}{value:>18}{one['parameters']:>14,}"
            f"{one['parameters_without_embeddings']:>12,}{one['bytes'] / 1e6:>8.1f}"
            f"{one['latency_ms']['batch_1']:>8.2f}{one['latency_ms']['batch_32']:>8.2f}"
        )
        # A teacher may have been trained elsewhere.
        trained = f"{one['steps']:>9,}{one['seconds']:>12.0f}" if "steps" in one else ""
        lines.append(line + trained)
    return lines


def _stage_lines(content: dict[str, Any]) -> list[str]:
    metric = content["metric"]
    lines = [f"{'stage':<28}{'steps':>8}{'seconds':>9}{'selected by':>30}{metric:>14}"]
    for stage in content["stages"]:
        selected = f"{stage['key']} {stage['best']:.4f}" if stage["best"] is not None else ""
        value = "" if stage["reported"] is None else f"{stage['reported']:.4f}"
        lines.append(
            f"{stage['name']:<28}{stage['steps']:>8}{stage['seconds']:>9.0f}"
            f"{selected:>30}{value:>14}"
        )
    return lines


def _baseline_lines(content: dict[str, Any]) -> list[str]:
    if "labels_only" not in content:
        return []
    one, student = content["labels_only"], content["student"]
    lines = []
    if len(one["learning_rates"]) > 1:
        lines += [
            f"labels_only at {run['learning_rate']:g}: {run['key']} {run['best']:.4f} held out, "
            f"{run['steps']:,} steps, {run['seconds']:.0f} s."
            for run in one["learning_rates"]
        ]
    if one["seconds"] < student["seconds"]:
        lines.append(
            f"labels_only had less time than the student: {one['seconds']:.0f} s against "
            f"{student['seconds']:.0f} s."
        )
    metric = content["metric"]
    difference = student["metrics"][metric] - one["metrics"][metric]
    side = "above" if difference > 0 else "below"
    place = f"{abs(difference):.4f} {side}" if round(difference, 4) else "equal to"
    lines.append(
        f"The student is {place} the same student on labels only "
        f"(standard error of one: {student['metrics']['standard_error']:.4f})."
    )
    return lines


def _training_of(model: str) -> dict[str, Any]:
    """How the model of a run folder was trained; of any other nothing."""
    path = pathlib.Path(model).parent / "run.json"  # A run folder holds its model in `model/`.
    return _training(files.read_json(path)) if path.is_file() else {}


def _training(run: Mapping[str, Any]) -> dict[str, Any]:
    """What a model's training took, from its `run.json`."""
    return {
        "steps": sum(stage["steps"] for stage in run["stages"]),
        "seconds": run["seconds"],
    }


def _baseline_report(
    runs: Sequence[BaselineRun], records: RecordSet, task: TaskInfo
) -> dict[str, Any]:
    best = runs[0].summary
    chosen = {key: best[key] for key in ("steps", "seconds", "learning_rate")}
    everything = {"learning_rates": [one.summary for one in runs]}
    return _model_report(runs[0].folder, records, task) | chosen | everything


def _metrics(predictions: Predictions, task: TaskInfo) -> dict[str, float]:
    """The task's metrics and, of several languages, the mean over them."""
    of_languages = predictions.macro(task)
    mean = {MACRO: of_languages[MACRO]} if of_languages else {}
    return predictions.metrics(task) | mean


def _model_report(model_dir: files.Path, records: RecordSet, task: TaskInfo) -> dict[str, Any]:
    folder = pathlib.Path(folders.find(str(model_dir)))
    model = folders.load_model(folder)
    predictions = predict_records(logits_function(model), records, task)
    return {
        "metrics": _metrics(predictions, task),
        "by_language": predictions.by_language(task),
        **parameter_counts(model),
        "bytes": sum(file.stat().st_size for file in folder.glob("model*.safetensors"))
        or sum(file.stat().st_size for file in folder.iterdir() if file.is_file()),
        "latency_ms": {name: round(latency_ms(model, *s), 3) for name, s in _LATENCY.items()},
    }


def _stage_reports(
    folder: pathlib.Path, student: dict[str, Any], records: RecordSet, task: TaskInfo
) -> list[dict[str, Any]]:
    """Each stage's result, and the reported metric of the weights it ended with."""
    model = folders.load_model(folders.find(str(folder)))
    logits_of, reports = logits_function(model), []
    for number, stage in enumerate(student["stages"], start=1):
        reported, mean = None, {}
        # Before a stage has trained the head, the metric says nothing.
        if not {"logits", "potentials", "marginals"}.isdisjoint(stage["outputs"]):
            weights = checkpoints.read_weights(folder / f"{number:02d}_{stage['name']}")
            variables = model.named_variables()
            # Width projections belong to the training alone.
            assign(variables, {name: weights[name] for name in weights if name in variables})
            found = _metrics(predict_records(logits_of, records, task), task)
            reported = found[task.metric]
            mean = {f"reported_{MACRO}": found[MACRO]} if MACRO in found else {}
        kept = ("name", "data", "steps", "key", "best", "seconds", "trained_parameters")
        reports.append({key: stage[key] for key in kept} | {"reported": reported} | mean)
    return reports


def _cache_report(folder: pathlib.Path) -> dict[str, Any] | None:
    path = folder / "cache.json"
    if not path.is_file():
        return None
    info = files.read_json(path)
    return {key: info[key] for key in ("bytes", "planned_bytes", "seconds")}


def _export_report(exported: pathlib.Path | None) -> dict[str, Any] | None:
    if exported is None:
        return None
    size = sum(file.stat().st_size for file in exported.rglob("*") if file.is_file())
    return {"bytes": size, "parity": files.read_json(exported / "parity.json")}
