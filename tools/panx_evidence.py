"""The evidence of named entities: PAN-X in six languages, many labels and few, several sizes.

    export XDISTIL_DATA=/path/to/data            # with ner/panx
    make minilm                                  # models/minilm, the teacher
    python tools/panx_evidence.py --output_dir=runs/panx

Writes evidence/xtremedistil_panx.json and evidence/xtremedistil_panx_sizes.json. What is done is
skipped, so a killed call goes on; runs of a committed result are taken over.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import sys
from collections.abc import Iterator, Sequence

from evidence_commands import run_study

from xdistil_tf import files

LANGUAGES = ("en", "de", "es", "fr", "tr", "sw")
# Labelled sentences of a language where labels are many; of one that has fewer, half of them.
LABELLED = 5000
TRANSFER = 10_000  # Texts of a language beside them.
REPORTED = 2000
STUDIES = ("xtremedistil_panx", "xtremedistil_panx_sizes")

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
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
