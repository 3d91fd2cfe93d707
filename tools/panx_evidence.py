"""The evidence of named entities: PAN-X in six languages, many labels and few, several sizes.

    export XDISTIL_DATA=/path/to/data            # with ner/panx
    make minilm                                  # models/minilm, the teacher
    python tools/panx_evidence.py --output_dir=runs/panx

Writes evidence/xtremedistil_panx.json, evidence/xtremedistil_panx_sizes.json and, of the latter
beside the paper's figures, evidence/xtremedistil_panx_paper.json. What is done is skipped, so a
killed call goes on; runs of a committed result are taken over.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from evidence_commands import EVIDENCE, run_study

from xdistil_tf import files

LANGUAGES = ("en", "de", "es", "fr", "tr", "sw")
# Labelled sentences of a language where labels are many; of one that has fewer, half of them.
LABELLED = 5000
TRANSFER = 10_000  # Texts of a language beside them.
REPORTED = 2000
STUDIES = ("xtremedistil_panx", "xtremedistil_panx_sizes")

# Sizes and speeds of Mukherjee & Hassan Awadallah (ACL 2020): F1 over 41 languages, millions of
# parameters, speed-up over multilingual BERT on a P100 at batch 32; by E and H.
PAPER = {
    "e300_h600": (88.64, 31.8, 14),
    "e300_h200": (87.54, 27.7, 40),
    "e200_h200": (87.47, 18.7, 46),
    "e100_h200": (86.89, 9.6, 49),
    "e100_h100": (85.64, 9.2, 74),
    "e50_h200": (86.46, 5.1, 51),
    "e50_h100": (84.60, 4.7, 77),
}
PAPER_TEACHER = 91.86  # F1 of multilingual BERT there.

Sentence = tuple[list[str], list[str]]


def sentences(path: pathlib.Path) -> Iterator[Sentence]:
    """Words and tags of a file with one token a line."""
    for block in path.read_text(encoding="utf-8").strip().split("\n\n"):
        pairs = [line.split("\t") for line in block.split("\n")]
        yield [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def write(path: pathlib.Path, chosen: Sequence[Sentence]) -> None:
    """A file with one token a line."""
    with files.replaced_file(path, "w") as handle:
        for words, tags in chosen:
            handle.writelines(f"{word}\t{tag}\n" for word, tag in zip(words, tags, strict=True))
            handle.write("\n")


def make_tasks(data: pathlib.Path, folder: pathlib.Path) -> None:
    """`full/` and `low/`, and the transfer texts of the first, with their languages."""
    transfer = []
    for language in LANGUAGES:
        train = list(sentences(data / f"train-{language}.tsv"))[: LABELLED + TRANSFER]
        dev = list(sentences(data / f"dev-{language}.tsv"))[:REPORTED]
        labelled = min(LABELLED, len(train) // 2)
        for name, chosen in (("full", train[:labelled]), ("low", train)):
            (folder / name).mkdir(parents=True, exist_ok=True)
            write(folder / name / f"train-{language}.tsv", chosen)
            write(folder / name / f"dev-{language}.tsv", dev)
        transfer += [{"words": words, "language": language} for words, _ in train[labelled:]]
    with files.replaced_file(folder / "transfer.jsonl", "w") as handle:
        handle.writelines(json.dumps(one, ensure_ascii=False) + "\n" for one in transfer)


def beside_the_paper(sizes: Mapping[str, Any]) -> dict[str, Any]:
    """The study of sizes as a table, the paper's figures beside ours.

    Args:
      sizes: Its result.
    """
    rows = []
    for run in sizes["runs"]:
        student, teacher = run["student"], run["teacher"]
        f1, parameters, speed = PAPER[run["variant"]]
        faster = teacher["latency_ms"]["batch_32"] / student["latency_ms"]["batch_32"]
        rows.append(
            [
                run["variant"].replace("_", ", ").replace("e", "E ").replace("h", "H "),
                round(student["parameters"] / 1e6, 1),
                round(100 * student["metrics"]["macro"], 2),
                f"{run['retained']:.1%}",
                round(faster, 1),
                parameters,
                f1,
                f"{f1 / PAPER_TEACHER:.1%}",
                speed,
            ]
        )
    ours = ["student", "parameters, M", "macro F1", "kept", "times as fast, batch 32"]
    theirs = [f"the paper's {name}" for name in ("parameters, M", "F1", "kept", "times as fast")]
    return {"table": {"columns": ours + theirs, "rows": rows}, "versions": sizes["versions"]}


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output_dir", required=True, help="A folder outside of the checkout.")
    parser.add_argument("--studies", nargs="*", default=STUDIES, help="Names of the studies.")
    options = parser.parse_args(arguments)
    folder = pathlib.Path(options.output_dir).absolute()
    make_tasks(pathlib.Path(os.environ["XDISTIL_DATA"]) / "ner" / "panx", folder)
    os.environ["PANX"] = str(folder)
    for name in options.studies:
        run_study(f"configs/evidence/{name}.yaml", folder / name)
    if "xtremedistil_panx_sizes" in options.studies:
        sizes = files.read_json(EVIDENCE / "xtremedistil_panx_sizes.json")
        files.write_json(EVIDENCE / "xtremedistil_panx_paper.json", beside_the_paper(sizes))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
