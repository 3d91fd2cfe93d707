"""What goes wrong in tagging: by type of span, word by word, span by span, by language."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from absl import logging

from xdistil_tf import files
from xdistil_tf.data.examples import Example
from xdistil_tf.data.task_info import TaskInfo
from xdistil_tf.evaluate import Judge
from xdistil_tf.metrics import spans
from xdistil_tf.predictions import Predictions

HEADER = ("id", "language", "kind", "gold", "predicted", "words")


def check_files(
    errors_file: files.Path | None, plot_file: files.Path | None, with_texts: bool
) -> None:
    """Refuses before anything is scored what could not be written afterwards.

    Raises:
      ImportError: If matplotlib is wanted and not installed; says how to get it.
      ValueError: If words are wanted of records, or a picture of another kind.
    """
    if errors_file and not with_texts:
        raise ValueError("--errors_file shows words. Expected --task_dir instead of --records.")
    if plot_file:
        _figure_class(plot_file)


def judge(errors_file: files.Path | None = None) -> Judge:
    """What `EvaluatedModel` asks for more figures: `details`, and the errors in a file.

    Raises:
      ValueError: When asked, if the file is wanted of another task.
    """

    def of_tags(
        predictions: Predictions, task: TaskInfo, examples: Sequence[Example]
    ) -> dict[str, Any]:
        if task.task_type != "tagging":
            if errors_file:
                raise ValueError("--errors_file lists the spans of a tagging model. Leave it out.")
            return {}
        if errors_file:
            count = write_errors(errors_file, predictions, task, examples)
            logging.info("%d wrong spans are in %s.", count, errors_file)
        return details(predictions, task)

    return of_tags


def details(predictions: Predictions, task: TaskInfo) -> dict[str, Any]:
    """`by_type` (of tags that mark spans) and `confusion`, as `metrics.json` has them."""
    gold, predicted = predictions.comparable(task)
    counts = spans.confusion(gold, predicted, task.labels)
    found: dict[str, Any] = {"confusion": {"labels": list(task.labels), "counts": counts}}
    if task.metric == "span_f1":
        found["by_type"] = spans.by_type(gold, predicted)
    return found


def write_errors(
    path: files.Path, predictions: Predictions, task: TaskInfo, examples: Sequence[Example]
) -> int:
    """Writes a row for each wrong span: `id language kind gold predicted words`.

    Args:
      path: A TSV file.
      predictions: Of whole sentences.
      task: What they mean.
      examples: The sentences; others than those predicted may be among them.

    Returns:
      The number of rows.
    """
    words = {one.id: one.text for one in examples}
    wrong = spans.errors(*predictions.comparable(task))
    with files.replaced_file(path, "w") as handle:
        handle.write("\t".join(HEADER) + "\n")
        for one in wrong:
            sentence = predictions.ids[one.sentence].decode("utf-8")
            ends = [span for span in (one.gold, one.predicted) if span is not None]
            first, last = min(span.first for span in ends), max(span.last for span in ends)
            cells = (
                sentence,
                predictions.languages[one.sentence],
                one.kind,
                str(one.gold or ""),
                str(one.predicted or ""),
                " ".join(words[sentence][first : last + 1]),
            )
            handle.write("\t".join(cells) + "\n")
    return len(wrong)


def show(result: Mapping[str, Any], by_language: bool, plot_file: files.Path | None) -> None:
    """Logs a table of languages and draws their picture, as far as that is wanted."""
    if by_language:
        logging.info("By language:\n%s", language_table(result))
    if plot_file:
        plot_languages(plot_file, result)
        logging.info("The picture is in %s.", plot_file)


def language_table(result: Mapping[str, Any]) -> str:
    """A row for each language, and the mean: text for a terminal.

    Args:
      result: The content of `metrics.json`, perhaps with `teacher`.
    """
    metric = result["metric"]
    columns = [result, result["teacher"]] if "teacher" in result else [result]
    names = ["language", "examples", metric, "teacher"][: 2 + len(columns)]
    rows = [names]
    for language, own in _languages(result).items():
        values = [_languages(one)[language][metric] for one in columns]
        rows.append([language, str(own["examples"]), *(f"{value:.4f}" for value in values)])
    means = [one["by_language"].get("macro_mean", one["metrics"][metric]) for one in columns]
    rows.append(["mean", str(result["examples"]), *(f"{value:.4f}" for value in means)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(names))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if not place else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def _figure_class(path: files.Path):
    """Matplotlib's, if it can draw such a file."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "--plot_file needs matplotlib. Install it with: pip install 'xdistil_tf[plot]'."
        ) from error
    if pathlib.Path(path).suffix not in (".png", ".svg", ".pdf"):
        raise ValueError(f"Expected --plot_file to end in .png, .svg or .pdf. Received: {path}.")
    return Figure


def plot_languages(path: files.Path, result: Mapping[str, Any]) -> None:
    """Draws the metric of each language as bars, the teacher's behind them; PNG, SVG or PDF.

    Raises:
      ImportError: If matplotlib is not installed; says how to get it.
      ValueError: If the file has another ending.
    """
    figure_class = _figure_class(path)
    metric, languages = result["metric"], list(_languages(result))
    series = {"student" if "teacher" in result else "model": result}
    if "teacher" in result:
        series["teacher"] = result["teacher"]
    figure = figure_class(figsize=(max(4.5, 1.0 + 0.7 * len(languages)), 3.4), layout="constrained")
    axes = figure.subplots()
    axes.set_title(f"{result['split']}, {result['examples']:,} examples", loc="left", fontsize=10)
    width = 0.8 / len(series)
    for place, (name, one) in enumerate(series.items()):
        values = [_languages(one)[language][metric] for language in languages]
        left = [number + (place - (len(series) - 1) / 2) * width for number in range(len(values))]
        axes.bar(left, values, width * 0.92, label=name)
    axes.set_xticks(range(len(languages)), languages)
    axes.set_ylabel(metric)
    axes.set_ylim(0, 1)
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    figure.legend(loc="outside upper right", ncols=len(series), frameon=False)
    with files.replaced_file(path) as handle:
        figure.savefig(handle, format=pathlib.Path(path).suffix[1:], dpi=150)


def _languages(result: Mapping[str, Any]) -> Mapping[str, Mapping[str, float]]:
    """The metrics of each language; of one language alone those of all examples."""
    alone = {"all": dict(result["metrics"]) | {"examples": result.get("examples", 0)}}
    return result["by_language"].get("languages", alone)
