"""The main job over several tasks, one after the other, and one table of them."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import tf_keras

from xdistil_tf import files
from xdistil_tf.distill import distill
from xdistil_tf.job import Job

_MODELS = ("teacher", "student", "labels_only")


def for_task(value: str | None, task: str, what: str, several: bool) -> str | None:
    """A flag's value with the task's name in place of `{task}`.

    Raises:
      ValueError: If several tasks would share what each must have for itself.
    """
    if value is not None and several and "{task}" not in value:
        raise ValueError(
            f"--{what}={value} would serve several tasks. Expected {{task}} in it, which stands "
            "for the name of each."
        )
    return value.replace("{task}", task) if value is not None else None


def distill_tasks(jobs: Mapping[str, Job], summary: files.Path, **training: Any) -> dict[str, Any]:
    """Does the jobs in order; `summary` is written after each of them.

    Args:
      jobs: Task -> its job.
      summary: A JSON file.
      training: As `distill` takes it.

    Returns:
      Its content: a row for each task.
    """
    rows: list[dict[str, Any]] = []
    for task, job in jobs.items():
        content = distill(job, **training)
        metric = content["metric"]
        rows.append(
            {
                "task": task,
                "metric": metric,
                "reported_split": content["reported_split"],
                "examples": content["examples"],
                **{name: content[name]["metrics"][metric] for name in _MODELS if name in content},
                "retained": content["retained"],
                "model_dir": str(pathlib.Path(job.model_dir)),
            }
        )
        files.write_json(summary, {"tasks": rows, "complete": len(rows) == len(jobs)})
        tf_keras.backend.clear_session()
    return files.read_json(summary)


def as_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as a table for a terminal."""
    models = [name for name in _MODELS if any(name in row for row in rows)]
    lines = [f"{'task':<10}{'metric':>18}" + "".join(f"{name:>14}" for name in models)]
    for row in rows:
        figures = (f"{row[name]:.4f}" if name in row else "" for name in models)
        lines.append(
            f"{row['task']:<10}{row['metric']:>18}" + "".join(f"{one:>14}" for one in figures)
        )
    return "\n".join(lines) + "\n"
