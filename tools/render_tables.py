"""Writes the tables of README.md and docs/*.md from the JSON files they name.

    python tools/render_tables.py            # brings all tables up to date
    python tools/render_tables.py --check    # exits 1 if a table differs from its file

A table stands between `<!-- table: benchmarks/results/<name>.json -->` and `<!-- end -->`. Two
kinds of file are known: a study (`"table": {"columns": [...], "rows": [[...]]}`) and a benchmark
(`"comparisons": [{"name", "ours", "theirs", "unit", "ratio", "aim"}]`). `variants` behind the name
makes a short table of a study of one task: a row for each of its variants.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import re
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parent.parent
_BLOCK = re.compile(
    r"(?P<begin>^<!-- table: (?P<path>[^\s]+)(?P<view> variants)? -->\n)"
    r"(?P<body>.*?)(?P<end>^<!-- end -->$)",
    re.DOTALL | re.MULTILINE,
)
_BEGIN = re.compile(r"^<!-- table: ", re.MULTILINE)
# A figure, one with a unit of comparison, a dash, or nothing.
_NUMBER = re.compile(r"(≥ )?[-−]?[\d.,]+(e[-+]?\d+)?( ×)?|–|")


def documents(root: pathlib.Path) -> list[pathlib.Path]:
    """The files that may hold tables."""
    return [root / "README.md", *sorted((root / "docs").glob("*.md"))]


def rendered(text: str, root: pathlib.Path) -> str:
    """A document with every table written anew.

    Raises:
      ValueError: If a marker has no end, or a file is of neither kind.
    """
    if len(_BEGIN.findall(text)) != len(_BLOCK.findall(text)):
        raise ValueError("a line `<!-- table: ... -->` has no line `<!-- end -->` after it")
    return _BLOCK.sub(
        lambda m: m["begin"] + _body(m["path"], m["view"] is not None, root) + m["end"], text
    )


def _body(path: str, by_variant: bool, root: pathlib.Path) -> str:
    file = root / path
    if not file.is_file():
        return f"Not measured yet: there is no `{path}`.\n"
    content = json.loads(file.read_text(encoding="utf-8"))
    if by_variant:
        return markdown(*variants(content["runs"], content["comparisons"]))
    if "table" in content:
        table = markdown(content["table"]["columns"], content["table"]["rows"])
        if content.get("comparisons"):
            table += "\n" + markdown(*differences(content["comparisons"]))
        return table
    if "comparisons" in content:
        return markdown(*comparisons(content["comparisons"]))
    raise ValueError(f"{path} has neither 'table' nor 'comparisons'. It has {sorted(content)}")


def variants(
    runs: Sequence[Mapping[str, Any]], paired: Sequence[Mapping[str, Any]]
) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows of a study's variants: students, and what sets them apart from the first.

    The differences have two standard errors beside them where there are several seeds.
    """
    first = runs[0]["variant"]
    seeds = list(dict.fromkeys(run["seed"] for run in runs))
    columns = ["student", *(f"seed {seed}" for seed in seeds), "mean", f"less {first}"]
    apart = {
        one["variant"]: one for one in paired if one["difference"] == f"student - {first}"
    }  # fmt: skip
    teachers = [run for run in runs if run["variant"] == first]
    rows = [_variant("its teacher", "teacher", teachers, seeds, None)]
    for name in dict.fromkeys(run["variant"] for run in runs):
        chosen = [run for run in runs if run["variant"] == name]
        rows.append(_variant(name, "student", chosen, seeds, apart.get(name)))
    return [*columns, "parameters", "training, s"], rows


def _variant(
    name: str,
    model: str,
    runs: Sequence[Mapping[str, Any]],
    seeds: Sequence[int],
    apart: Mapping[str, Any] | None,
) -> list[Any]:
    scores = {run["seed"]: run[model]["metrics"][run["metric"]] for run in runs}
    difference = ""
    if apart is not None:
        difference = f"{apart['mean']:+.4f}"
        if error := apart["standard_error"]:
            difference += f" ± {2 * error:.4f}"
    return [
        name,
        *(f"{scores[seed]:.4f}" if seed in scores else "–" for seed in seeds),
        f"{statistics.mean(scores.values()):.4f}",
        difference,
        runs[0][model]["parameters"],
        round(statistics.median(run[model]["seconds"] for run in runs)),
    ]


def differences(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows of a study's paired differences over seeds."""
    columns = ["difference", "by seed", "mean", "2 · SD / √n", "beyond it", "SE of the split"]
    return [*columns, "share kept"], [
        [
            ", ".join(filter(None, [row["task"], row.get("variant"), row["difference"]])),
            " ".join(f"{one:+.4f}" for one in row["per_seed"]),
            f"{row['mean']:+.4f}",
            _four_places(row["standard_error"] and 2 * row["standard_error"]),
            "yes" if row["two_standard_errors"] else "no",
            _four_places(row["reported_split_standard_error"]),
            None if row["retained"] is None else f"{row['retained']:.1%}",
        ]
        for row in rows
    ]


def _four_places(value: float | None) -> str | None:
    return None if value is None else f"{value:.4f}"


def comparisons(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows of a benchmark; a ratio above 1 means that ours is better."""
    columns = ["compared", "ours", "theirs", "unit", "ratio", "aim"]
    return columns, [
        [
            row["name"],
            row["ours"],
            row["theirs"],
            row["unit"],
            _times(row["ratio"]),
            f"≥ {_times(row['aim'])}" if row.get("aim") is not None else None,
        ]
        for row in rows
    ]


def markdown(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table; columns that hold numbers are aligned to the right.

    Raises:
      ValueError: If a row has another width than the header.
    """
    for row in rows:
        if len(row) != len(columns):
            raise ValueError(f"expected rows of {len(columns)} cells, received {list(row)}")
    cells = [[_cell(one) for one in row] for row in rows]
    numeric = [
        any(row[i] for row in cells) and all(_NUMBER.fullmatch(row[i]) for row in cells)
        for i in range(len(columns))
    ]
    lines = [[_cell(one) for one in columns], ["---:" if one else "---" for one in numeric], *cells]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        value = f"{value:,.0f}" if abs(value) >= 10000 else f"{value:.4g}"
    elif isinstance(value, int) and not isinstance(value, bool):
        value = f"{value:,}"
    return str(value).replace("|", "\\|").replace("\n", " ")


def _times(ratio: float) -> str:
    return f"{ratio:.3g} ×"


def _changed(root: pathlib.Path) -> Iterator[tuple[pathlib.Path, str]]:
    """Documents that are not up to date, with what they should be."""
    for path in documents(root):
        text = path.read_text(encoding="utf-8")
        try:
            wanted = rendered(text, root)
        except (ValueError, KeyError) as error:
            raise ValueError(f"{path}: {error}") from error
        if wanted != text:
            yield path, wanted


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--check", action="store_true", help="Change nothing; exit 1 on differences."
    )
    parser.add_argument("--root", type=pathlib.Path, default=ROOT, help="The checkout.")
    options = parser.parse_args(arguments)
    try:
        changed = list(_changed(options.root))
    except (ValueError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    for path, wanted in changed:
        if options.check:
            sys.stderr.write(f"error: {path} differs. Run python tools/render_tables.py.\n")
        else:
            path.write_text(wanted, encoding="utf-8")
            sys.stdout.write(f"{path}\n")
    return int(options.check and bool(changed))


if __name__ == "__main__":
    sys.exit(main())
