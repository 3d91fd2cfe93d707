"""What comes of a study's runs: paired differences over seeds, and the table of the documents."""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from xdistil_tf import files, metrics, versions
from xdistil_tf.data.readers import task_name

MODELS = ("teacher", "student", "labels_only")


def run_of(report: Mapping[str, Any]) -> tuple:
    """What tells a run from the others of its study: variant, task, labels and seed.

    Reports of earlier versions have no field of variants or languages.
    """
    labels = (report["labels_per_class"], report.get("labels_per_language"))
    return report.get("variant"), task_name(report["task"]), *labels, report["seed"]


def environment(
    made: Iterable[Any], earlier: Collection[Any], finished_runs: files.Path | None
) -> dict[str, Any]:
    """Versions and machine of a result: the earlier one's, as long as all runs are taken from it.

    Args:
      made: All runs.
      earlier: Those that were taken over.
      finished_runs: The result that they stood in.
    """
    if finished_runs and all(one in earlier for one in made):
        return files.read_json(finished_runs)["versions"]
    return versions.environment()


def compare(reports: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Paired differences over seeds: student against labels only, and what it keeps of its teacher.

    `two_standard_errors` says whether the mean lies beyond 2 SD / sqrt(n) on either side of 0;
    `retained` is `None` where the other side has 0 at a seed.

    Args:
      reports: Of one task, a seed each.
    """
    metric = reports[0]["metric"]
    return [
        _paired(reports, other, [one[other]["metrics"][metric] for one in reports])
        for other in ("labels_only", "teacher")
        if other in reports[0]
    ]


def against_the_first(
    first: str | None, group: Sequence[dict[str, Any]], reports: Iterable[dict[str, Any]]
) -> list[dict[str, Any]]:
    """A variant's difference from the first one, over the seeds that both have.

    Args:
      first: Name of the first variant; None: there are none.
      group: Reports of the variant on one task, a seed each.
      reports: Of all runs.
    """
    if group[0].get("variant") in (None, first):
        return []
    finished = {run_of(one): one for one in reports}
    others = [finished.get((first, *run_of(one)[1:])) for one in group]
    both = [(one, other) for one, other in zip(group, others, strict=True) if other]
    metric = group[0]["metric"]
    values = [other["student"]["metrics"][metric] for _, other in both]
    return [_paired([one for one, _ in both], first, values)] if both else []


def _paired(
    reports: Sequence[dict[str, Any]], other: str, values: Sequence[float]
) -> dict[str, Any]:
    """The student's figures of some seeds against those of something else."""
    first, metric = reports[0], reports[0]["metric"]
    ours = [one["student"]["metrics"][metric] for one in reports]
    differences = [mine - theirs for mine, theirs in zip(ours, values, strict=True)]
    deviation = statistics.stdev(differences) if len(differences) > 1 else None
    error = None if deviation is None else deviation / math.sqrt(len(differences))
    mean = statistics.fmean(differences)
    return {
        **({"variant": first["variant"]} if "variant" in first else {}),
        "task": first["task"],
        "labels_per_class": first["labels_per_class"],
        "labels_per_language": first.get("labels_per_language"),
        "metric": metric,
        "difference": f"student - {other}",
        "per_seed": differences,
        "mean": mean,
        "standard_deviation": deviation,
        "standard_error": error,
        "two_standard_errors": error is not None and abs(mean) > 2 * error,
        # Known of the task's own metric alone, not of a mean over languages.
        "reported_split_standard_error": None
        if metric == metrics.MACRO
        else statistics.fmean(one["student"]["metrics"]["standard_error"] for one in reports),
        "retained": statistics.fmean(a / b for a, b in zip(ours, values, strict=True))
        if all(values)
        else None,
    }


def _setting(report: Mapping[str, Any]) -> str:
    """Which labels the runs had."""
    if report["labels_per_class"] is not None:
        return f"{report['labels_per_class']} labels a class"
    if report.get("labels_per_language") is not None:
        return f"{report['labels_per_language']} labels a language"
    return "all labels"


def table(groups: Sequence[Sequence[dict[str, Any]]], seeds: Sequence[int]) -> dict[str, list]:
    """Rows: teacher, every stage of the student, the student, labels only; a column a seed.

    A seed that has not been run yet has a dash.

    Args:
      groups: For each task its reports.
      seeds: All of them.
    """
    columns = ["model", *(f"seed {seed}" for seed in seeds), "mean", "SD"]
    columns += ["parameters", "without embeddings", "MB"]
    columns += ["ms, batch 1", "ms, batch 32", "steps", "training, s"]
    rows = []
    for group in groups:
        task, metric, setting = group[0]["task"], group[0]["metric"], _setting(group[0])
        if variant := group[0].get("variant"):
            setting = f"{setting}, {variant}"
        rows.append([f"**{task}, {metric}, {setting}**", *[""] * (len(columns) - 1)])
        rows.append(_model_row("teacher", group, seeds))
        for number, stage in enumerate(group[0]["stages"]):
            values = {one["seed"]: one["stages"][number]["reported"] for one in group}
            seconds = statistics.fmean(one["stages"][number]["seconds"] for one in group)
            steps = statistics.fmean(one["stages"][number]["steps"] for one in group)
            figures = _figures(values, seeds)
            rows.append([stage["name"], *figures, *[""] * 5, f"{steps:,.0f}", f"{seconds:,.0f}"])
        rows += [_model_row(name, group, seeds) for name in MODELS[1:] if name in group[0]]
    return {"columns": columns, "rows": rows}


def _model_row(name: str, group: Sequence[dict[str, Any]], seeds: Sequence[int]) -> list[str]:
    first, metric = group[0][name], group[0]["metric"]
    values = {one["seed"]: one[name]["metrics"][metric] for one in group}
    titles = {"student": "**student**", "labels_only": "same student, labels only"}
    latency = {
        key: statistics.fmean(one[name]["latency_ms"][key] for one in group)
        for key in ("batch_1", "batch_32")
    }
    return [
        titles.get(name, name),
        *_figures(values, seeds),
        f"{first['parameters']:,}",
        f"{first['parameters_without_embeddings']:,}",
        f"{first['bytes'] / 1e6:.1f}",
        f"{latency['batch_1']:.2f}",
        f"{latency['batch_32']:.1f}",
        _mean(group, name, "steps"),
        _mean(group, name, "seconds"),
    ]


def _mean(group: Sequence[dict[str, Any]], name: str, key: str) -> str:
    """The mean over seeds; nothing of a teacher, which may have been trained elsewhere."""
    values = [one[name].get(key) for one in group]
    return "" if None in values else f"{statistics.fmean(values):,.0f}"


def _figures(values: Mapping[int, float | None], seeds: Sequence[int]) -> list[str]:
    """Each seed's value, their mean and their standard deviation."""
    known = [value for value in values.values() if value is not None]
    cells = ["–" if values.get(seed) is None else f"{values[seed]:.4f}" for seed in seeds]
    mean = f"{statistics.fmean(known):.4f}" if known else "–"
    deviation = f"{statistics.stdev(known):.4f}" if len(known) > 1 else "–"
    return [*cells, mean, deviation]
