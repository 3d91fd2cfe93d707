"""How many texts of held-out and reported records stand inside a longer train text, word for word.

    python tools/heldout_overlap.py --records=runs/full/sst-2_all_seed1/records \
        --output_json=evidence/sst2_heldout_overlap.json

Explains a held-out score that promises more than the reported split keeps: SST-2's train texts are
phrases, whole sentences and the phrases inside them alike.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from xdistil_tf import files, versions
from xdistil_tf.data.record_set import RecordSet
from xdistil_tf.data.records import decode_example
from xdistil_tf.data.task_info import load_task_info


def texts(records: RecordSet) -> list[str]:
    """The pieces of each record between blanks, without its special tokens at the ends."""
    rows = (decode_example(records.read(n), str(records.paths[0])) for n in range(len(records)))
    return [" " + " ".join(map(str, row["input_ids"][1:-1])) + " " for row in rows]


def inside(parts: Sequence[str], wholes: Sequence[str]) -> float:
    """The share of `parts` that stand inside one of `wholes`, or equal it.

    >>> inside([" 7 8 ", " 8 9 "], [" 6 7 8 ", " 8 ", " 9 "])
    0.5
    """
    everything = "\n".join(wholes)
    return sum(part in everything for part in parts) / len(parts)


def measure(folder: str) -> dict:
    """Shares of the splits that select and report, and what they were measured on."""
    task = load_task_info(folder)
    train = texts(RecordSet(task.pattern("train")))
    splits = {"select": task.select, "report": task.report}
    shares = {
        use: {"split": split, "inside_train": inside(texts(RecordSet(task.pattern(split))), train)}
        for use, split in splits.items()
    }
    return {
        "task": task.task,
        "records": task.fingerprint,
        "train_texts": len(train),
        **shares,
        "versions": versions.environment(),
    }


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", required=True, help="A records folder of a task.")
    parser.add_argument("--output_json", required=True, help="Where the shares go.")
    options = parser.parse_args(arguments)
    files.write_json(options.output_json, measure(options.records))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
