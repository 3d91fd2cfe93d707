"""Result files of benchmarks: comparisons, tables, circumstances, and what makes a file valid."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import pathlib
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.harness import BEGAN, RESULTS, THREADS
from xdistil_tf import versions

COMPARISON_KEYS = ("name", "ours", "theirs", "unit", "ratio", "aim")
LOWER_IS_BETTER = ("s", "ms", "us", "MB", "bytes")


def comparison(
    name: str,
    ours: float | Sequence[float],
    theirs: float | Sequence[float],
    unit: str,
    aim: float | None = None,
) -> dict[str, Any]:
    """One row of `comparisons`; of several measurements the median counts.

    Args:
      name: What is compared, in words.
      ours: A number or the repetitions of one.
      theirs: The same, of the other side.
      unit: Of both; times and sizes (`LOWER_IS_BETTER`) are better when smaller.
      aim: The ratio to reach, or `None`.

    Returns:
      `{name, ours, theirs, unit, ratio, aim}`; a ratio above 1 means that ours is better.
    """
    ours, theirs = _median(ours), _median(theirs)
    ratio = theirs / ours if unit in LOWER_IS_BETTER else ours / theirs
    return {
        "name": name,
        "ours": _rounded(ours),
        "theirs": _rounded(theirs),
        "unit": unit,
        "ratio": _rounded(ratio),
        "aim": aim,
    }


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Median, extremes and number of repetitions."""
    return {
        "median": _rounded(statistics.median(values)),
        "min": _rounded(min(values)),
        "max": _rounded(max(values)),
        "repeats": len(values),
    }


def write_results(
    path: str | pathlib.Path,
    comparisons: Sequence[Mapping[str, Any]],
    extra: Mapping[str, Any] | None = None,
    *,
    measurements: Mapping[str, Sequence[float]] | None = None,
    seed: int = 0,
) -> pathlib.Path:
    """Writes `benchmarks/results/<name>.json` (or any path) and prints its rows.

    Args:
      path: A benchmark's name, or a path that ends in `.json`.
      comparisons: Rows of `comparison`.
      extra: Settings and notes that belong to the result.
      measurements: Name -> repetitions; kept as median, minimum and maximum.
      seed: Of data and weights.

    Raises:
      ValueError: If a row is not one of `comparison`.
    """
    path = _result_path(path)
    content = {
        "benchmark": path.stem,
        "comparisons": [dict(row) for row in comparisons],
        "measurements": {name: summary(values) for name, values in (measurements or {}).items()},
        **_circumstances(extra, seed),
    }
    problems = schema_problems(content)
    if problems:
        raise ValueError(f"{path} would not be a benchmark result: {'; '.join(problems)}.")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write("\n" + table(comparisons) + f"\nThe result is in {path}.\n")
    return path


def write_table(
    path: str | pathlib.Path,
    content: Mapping[str, Sequence],
    extra: Mapping[str, Any] | None = None,
    *,
    seed: int = 0,
) -> pathlib.Path:
    """Writes a result that compares no two sides: a table of text for the documents.

    Args:
      path: A name, or a path that ends in `.json`.
      content: `columns` and `rows`, all of one width.
      extra: Settings and notes that belong to the result.
      seed: Of data and weights.
    """
    path = _result_path(path)
    result = {"benchmark": path.stem, "table": dict(content), **_circumstances(extra, seed)}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for row in [content["columns"], *content["rows"]]:
        sys.stdout.write(" | ".join(row) + "\n")
    sys.stdout.write(f"The result is in {path}.\n")
    return path


def _result_path(path: str | pathlib.Path) -> pathlib.Path:
    path = pathlib.Path(path)
    return path if path.suffix == ".json" else RESULTS / f"{path}.json"


def _circumstances(extra: Mapping[str, Any] | None, seed: int) -> dict[str, Any]:
    """What a result was measured with."""
    return {
        "extra": {"threads": THREADS, **(extra or {})},
        "versions": versions.environment() | {"torch": package_version("torch")},
        "seed": seed,
        "command": command(),
        "wall_seconds": round(time.perf_counter() - BEGAN, 1),
    }


def command() -> str:
    """The command line that made a result, without this machine's paths."""
    places = ("--data_dir", "--minilm", "--output", "--work_dir")
    arguments = [one for one in sys.argv[1:] if not one.startswith(places)]
    return " ".join(["python -m", f"benchmarks.{pathlib.Path(sys.argv[0]).stem}", *arguments])


def table(comparisons: Sequence[Mapping[str, Any]]) -> str:
    """The rows as aligned text."""
    cells = [tuple(str(row[key]) for key in COMPARISON_KEYS) for row in comparisons]
    cells = [COMPARISON_KEYS, *cells]
    widths = [max(len(row[column]) for row in cells) for column in range(len(COMPARISON_KEYS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in cells
    )


def schema_problems(content: Mapping[str, Any]) -> list[str]:
    """What keeps a dict from being the content of a result file; empty if nothing does."""
    expected = {
        "benchmark": str,
        "comparisons": list,
        "measurements": dict,
        "extra": dict,
        "versions": dict,
        "seed": int,
        "command": str,
        "wall_seconds": (int, float),
    }
    problems = [
        f"{key} is missing or of the wrong type"
        for key, kind in expected.items()
        if not isinstance(content.get(key), kind)
    ]
    for number, row in enumerate(content.get("comparisons") or []):
        problems += [f"comparison {number}: {one}" for one in _row_problems(row)]
    if not content.get("comparisons"):
        problems.append("there are no comparisons")
    return problems


def _row_problems(row: Mapping[str, Any]) -> list[str]:
    if tuple(row) != COMPARISON_KEYS:
        return [f"expected the keys {COMPARISON_KEYS}, received {tuple(row)}"]
    problems = [f"{k} is no text" for k in ("name", "unit") if not isinstance(row[k], str)]
    for key in ("ours", "theirs", "ratio"):
        if not isinstance(row[key], (int, float)) or not row[key] > 0:
            problems.append(f"{key} is no positive number")
    if row["aim"] is not None and not isinstance(row["aim"], (int, float)):
        problems.append("aim is neither a number nor null")
    if not problems:
        lower = row["unit"] in LOWER_IS_BETTER
        ratio = row["theirs"] / row["ours"] if lower else row["ours"] / row["theirs"]
        if abs(ratio / row["ratio"] - 1) > 0.01:
            problems.append(f"ratio {row['ratio']} does not follow from ours and theirs")
    return problems


def _median(value: float | Sequence[float]) -> float:
    return float(value) if isinstance(value, (int, float)) else float(statistics.median(value))


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def package_version(package: str) -> str:
    """Of an installed package, or that it is not."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
