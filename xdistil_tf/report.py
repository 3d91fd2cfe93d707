"""`report.json` of a distill folder, and the table a person reads."""

from __future__ import annotations

import pathlib
from typing import Any

from xdistil_tf import checkpoints, files, versions
from xdistil_tf.data.record_set import RecordSet
from xdistil_tf.data.task_records import TaskInfo
from xdistil_tf.evaluate import latency_ms, logits_function, parameter_counts, predict_records
from xdistil_tf.models import folders
from xdistil_tf.preflight import Check
from xdistil_tf.trainer import assign

# The shapes at which a model's latency is stated: one text, and a batch, of 32 tokens.
_LATENCY = {"batch_1": (1, 32), "batch_32": (32, 32)}


def make_report(
    *,
    folder: pathlib.Path,
    task: TaskInfo,
    teacher: str,
    teacher_source: str,
    student: dict[str, Any],
    baseline: dict[str, Any] | None,
    cache_dir: pathlib.Path,
    exported: pathlib.Path | None,
    checks: list[Check],
    seed: int,
) -> dict[str, Any]:
    """Scores all models on the reported split and gathers what the run knows.

    Args:
      folder: The distill folder.
      task: The records.
      teacher: The teacher's model folder.
      teacher_source: Where it came from.
      student: The student's `run.json`.
      baseline: The labels-only run's, or `None`.
      cache_dir: The teacher cache, if there is one.
      exported: The SavedModel, or `None`.
      checks: Of the preflight.
      seed: Of the run.
    """
    records = RecordSet(task.pattern(task.report))
    scored = {"teacher": _model_report(teacher, records, task)}
    scored["teacher"]["source"] = teacher_source
    scored["student"] = _model_report(str(folder / "student"), records, task)
    scored["student"]["seconds"] = student["seconds"]
    if baseline is not None:
        scored["labels_only"] = _model_report(str(folder / "labels_only"), records, task)
        scored["labels_only"]["seconds"] = baseline["seconds"]
        scored["labels_only"]["steps"] = sum(stage["steps"] for stage in baseline["stages"])
    metric = task.metric
    teacher_value = scored["teacher"]["metrics"][metric]
    student_value = scored["student"]["metrics"][metric]
    return {
        "task": task.task,
        "metric": metric,
        "reported_split": task.report,
        "examples": len(records),
        **scored,
        "retained": student_value / teacher_value if teacher_value else None,
        "stages": _stage_reports(folder / "student", student, records, task),
        "records": {name: split["records"] for name, split in task.splits.items()},
        "dropped": dict(task.dropped),
        "cache": _cache_report(cache_dir),
        "export": _export_report(exported),
        "preflight": [{"check": c.name, "passed": c.passed, "detail": c.detail} for c in checks],
        "weak_teacher": not all(check.passed for check in checks),
        "selects_on_reported_split": task.select == task.report,
        "seed": seed,
        "versions": versions.environment(),
    }


def as_text(content: dict[str, Any]) -> str:
    """The report as a table for a terminal."""
    metric = content["metric"]
    lines = [
        f"{content['task']}: {metric} on {content['reported_split']} "
        f"({content['examples']} examples)",
        "",
        f"{'model':<14}{metric:>18}{'parameters':>14}{'w/o embed.':>12}{'MB':>8}"
        f"{'ms, 1':>8}{'ms, 32':>8}{'trained, s':>12}",
    ]
    for name in ("teacher", "student", "labels_only"):
        if name not in content:
            continue
        one = content[name]
        value = f"{one['metrics'][metric]:.4f} ± {one['metrics']['standard_error']:.4f}"
        lines.append(
            f"{name:<14}{value:>18}{one['parameters']:>14,}"
            f"{one['parameters_without_embeddings']:>12,}{one['bytes'] / 1e6:>8.1f}"
            f"{one['latency_ms']['batch_1']:>8.2f}{one['latency_ms']['batch_32']:>8.2f}"
            f"{one.get('seconds', 0):>12.0f}"
        )
    lines += ["", f"{'stage':<28}{'steps':>8}{'seconds':>9}{'selected by':>30}{metric:>14}"]
    for stage in content["stages"]:
        selected = f"{stage['key']} {stage['best']:.4f}" if stage["best"] is not None else ""
        value = "" if stage["reported"] is None else f"{stage['reported']:.4f}"
        lines.append(
            f"{stage['name']:<28}{stage['steps']:>8}{stage['seconds']:>9.0f}"
            f"{selected:>30}{value:>14}"
        )
    if content["retained"] is not None:
        lines += ["", f"The student keeps {100 * content['retained']:.1f} % of its teacher."]
    if content["weak_teacher"]:
        lines.append("The teacher is no better than a constant answer (--accept_weak_teacher).")
    if content["selects_on_reported_split"]:
        lines.append("Selected on the split that is reported: the figures are too good.")
    return "\n".join(lines) + "\n"


def _model_report(model_dir: str, records: RecordSet, task: TaskInfo) -> dict[str, Any]:
    folder = pathlib.Path(folders.find(model_dir))
    model = folders.load_model(folder)
    predictions = predict_records(logits_function(model), records, task)
    return {
        "metrics": predictions.metrics(task),
        "by_language": predictions.by_language(task),
        **parameter_counts(model),
        "bytes": sum(file.stat().st_size for file in folder.glob("*.safetensors"))
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
        reported = None
        # Before a stage has trained the head, the metric says nothing.
        if "logits" in stage["outputs"]:
            weights = checkpoints.read_weights(folder / f"{number:02d}_{stage['name']}")
            assign(model.named_variables(), weights)
            reported = predict_records(logits_of, records, task).metrics(task)[task.metric]
        kept = ("name", "data", "steps", "key", "best", "seconds", "trained_parameters")
        reports.append({key: stage[key] for key in kept} | {"reported": reported})
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
