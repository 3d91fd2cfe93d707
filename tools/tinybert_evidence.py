"""The evidence of TinyBERT: a general student, augmented tasks, and the studies of their students.

    export XDISTIL_DATA=/path/to/data            # with text/ and glue/
    make minilm                                  # models/minilm, the teacher of all studies
    python tools/pretraining_evidence.py --teacher=models/minilm --output_dir=runs/pretraining
    python tools/tinybert_evidence.py --pretraining=runs/pretraining --output_dir=runs/tinybert

Writes evidence/tinybert_*.json. The masked LM that augments is the encoder that the first command
continued; its text is the corpus of general distillation. Each step is a command that a user would
give; what is done is skipped, so a killed call goes on.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import sys
from collections.abc import Sequence

from evidence_commands import run, run_study

TEACHER = "models/minilm"  # As the studies have it.
# Name of the augmented file: task, its folder below glue/ or the small tasks, rounds.
AUGMENTED = {
    "sst-2": ("sst-2", "glue/SST-2", 1),
    "cola": ("cola", "glue/CoLA", 2),
    "rte": ("rte", "glue/RTE", 1),
    "small": ("sst-2", "small/SST-2", 2),
    "pairs": ("regression", "small/pairs", 1),
}
SMALL_ROWS = 2000
STUDIES = ("tinybert_sst2", "tinybert_ablation", "tinybert_small_tasks", "tinybert_regression")


def small_tasks(data: pathlib.Path, folder: pathlib.Path) -> None:
    """Some sentences of SST-2, evenly spread over its train file, and scored pairs."""
    from xdistil_tf import files
    from xdistil_tf.data import synthetic

    source, target = data / "glue" / "SST-2", folder / "small" / "SST-2"
    header, *rows = (source / "train.tsv").read_text(encoding="utf-8").splitlines()
    chosen = rows[:: len(rows) // SMALL_ROWS][:SMALL_ROWS]
    target.mkdir(parents=True, exist_ok=True)
    for name, lines in (
        ("train.tsv", [header, *chosen]),
        ("dev.tsv", (source / "dev.tsv").read_text(encoding="utf-8").splitlines()),
    ):
        with files.replaced_file(target / name, "w") as handle:
            handle.write("\n".join(lines) + "\n")
    synthetic.generate_pairs(folder / "small" / "pairs", SMALL_ROWS, 500, 500, 1)


def copied_student(folder: pathlib.Path) -> None:
    """Three layers of the encoder before it knows any task: a start that needs no teacher."""
    from xdistil_tf.data.tokenization import load_tokenizer
    from xdistil_tf.models import encoder_presets, pretrained

    encoder = pretrained.load_encoder(TEACHER)
    student = encoder_presets.student_from_layers(encoder, {"num_hidden_layers": 3}, "uniform")
    pretrained.save_encoder(student, str(folder / "start_3x384"))
    load_tokenizer(TEACHER).save(folder / "start_3x384")


def general_student(pretraining: pathlib.Path, folder: pathlib.Path) -> None:
    """A 4 x 312 student that learnt from the encoder's layers on general text, without masks."""
    run(
        "create_pretraining_data",
        f"--input_file={pretraining / 'text'}/*.txt",
        f"--tokenizer={TEACHER}",
        "--max_seq_length=128",
        "--masked_lm_prob=0",
        "--dupe_factor=1",
        "--heldout_fraction=0",
        f"--output_dir={folder / 'records'}",
    )
    sets = ("epochs=null", "steps=1000", "batch_size=64", "optimizer.learning_rate=5.0e-4")
    run(
        "train",
        "--recipe=configs/tinybert/general.yaml",
        f"--teacher={TEACHER}",
        f"--data=corpus={folder / 'records'}/train-*",
        f"--model_dir={folder / 'general_4x312'}",
        "--set=precision=bfloat16",
        *(f"--set=stages.0.{one}" for one in sets),
    )


def augment(data: pathlib.Path, masked_lm: pathlib.Path, folder: pathlib.Path) -> None:
    """The augmented files of all studies."""
    for name, (task, place, rounds) in AUGMENTED.items():
        root = folder if place.startswith("small/") else data
        run(
            "augment",
            f"--task={task}",
            f"--task_dir={root / place}",
            f"--masked_lm={masked_lm}",
            f"--output_file={folder / name}.tsv",
            f"--rounds={rounds}",
            "--precision=bfloat16",
        )


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pretraining", required=True, help="Of tools/pretraining_evidence.py.")
    parser.add_argument("--output_dir", required=True, help="A folder outside of the checkout.")
    parser.add_argument("--studies", nargs="*", default=STUDIES, help="Names of the studies.")
    options = parser.parse_args(arguments)
    data = pathlib.Path(os.environ["XDISTIL_DATA"])
    pretraining = pathlib.Path(options.pretraining).absolute()
    folder = pathlib.Path(options.output_dir).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    small_tasks(data, folder)
    copied_student(folder)
    general_student(pretraining, folder)
    augment(data, pretraining / "lm", folder)
    os.environ["TINYBERT"] = str(folder)
    for name in options.studies:
        run_study(f"configs/evidence/{name}.yaml", folder / name)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
