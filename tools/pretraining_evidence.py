"""The evidence of pretraining: an encoder continued on text, its soft labels, and their students.

    export XDISTIL_DATA=/path/to/data            # with text/en_wikipedia, en_wikinews, wikitext2
    python tools/pretraining_evidence.py --teacher=models/minilm --output_dir=runs/pretraining

Writes evidence/continued_pretraining.json and evidence/soft_label_mlm.json. Each step is a command
that a user would give; what is done is skipped, so a killed call goes on.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from evidence_commands import EVIDENCE, ROOT, run, run_study

from xdistil_tf import files, recipe, recipe_files, versions
from xdistil_tf.data.record_set import RecordSet
from xdistil_tf.data.records import decode_example
from xdistil_tf.data.tokenization import load_tokenizer

CURVE = ("masked_lm_loss", "masked_lm_accuracy", "next_sentence_accuracy")


def write_wikitext(source: pathlib.Path, target: pathlib.Path) -> None:
    """WikiText as text with one sentence a line: an article is a document, `<unk>` is `[UNK]`."""
    lines: list[str] = []
    for line in source.read_text(encoding="utf-8").splitlines():
        words = line.replace("<unk>", "[UNK]").strip()
        if words.startswith("= ") and not words.startswith("= ="):
            lines.append("")
        elif words and not words.startswith("="):
            # Full stops stand between spaces there.
            lines += [part.strip() for part in words.replace(" . ", " .\n").split("\n")]
    with files.replaced_file(target, "w") as handle:
        handle.write("\n".join(lines) + "\n")


def unigrams(pattern: str, special: Sequence[int]) -> dict[str, float]:
    """Entropy of a record set's tokens in nats, and the share of the commonest one."""
    counts: dict[int, int] = {}
    for ids in _gold_tokens(RecordSet(pattern)):
        for token in ids:
            counts[token] = counts.get(token, 0) + 1
    for token in special:
        counts.pop(token, None)
    shares = np.array(list(counts.values()), np.float64) / sum(counts.values())
    return {
        "tokens": sum(counts.values()),
        "entropy": float(-(shares * np.log(shares)).sum()),
        "commonest": float(shares.max()),
    }


def _gold_tokens(records: RecordSet) -> Iterator[list[int]]:
    """The tokens of each record, masks undone."""
    for number in range(len(records)):
        one = decode_example(records.read(number), str(records.paths[0]))
        ids = one["input_ids"][: sum(one["input_mask"])]
        for place, token, weight in zip(
            one["masked_lm_positions"], one["masked_lm_ids"], one["masked_lm_weights"], strict=True
        ):
            if weight:
                ids[place] = token
        yield ids


def curve(stage: pathlib.Path) -> list[dict[str, float]]:
    """Held-out metrics by step, from a stage's TensorBoard events."""
    import tensorflow as tf

    found: dict[int, dict[str, float]] = {}
    for path in sorted(stage.glob("events*")):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                name = value.tag.removeprefix("heldout/")
                if name in CURVE and name != value.tag:
                    figure = float(tf.make_ndarray(value.tensor))
                    found.setdefault(event.step, {"step": event.step})[name] = figure
    return [found[step] for step in sorted(found)]


def curve_table(
    points: Sequence[dict[str, float]], wikitext: dict[str, float], words: dict[str, float]
) -> dict[str, list]:
    """The curve as a table of the documents; below it WikiText, and what needs no model there."""
    columns = ["step", *CURVE]
    rows = [[f"{one['step']:,}", *(f"{one[name]:.4f}" for name in CURVE)] for one in points]
    rows.append(["WikiText-2, at the end", *(f"{wikitext[name]:.4f}" for name in CURVE)])
    simple = [f"{words['entropy']:.4f}", f"{words['commonest']:.4f}", ""]
    rows.append(["WikiText-2, entropy of single words, share of the commonest", *simple])
    return {"columns": columns, "rows": rows}


def prepare(data: pathlib.Path, teacher: str, folder: pathlib.Path) -> None:
    """Text and records, of the corpus and of WikiText."""
    text = [str(data / "text" / name) for name in ("en_wikipedia", "en_wikinews")]
    run("prepare_wikipedia", f"--input={','.join(text)}", f"--output_dir={folder / 'text'}")
    write_wikitext(data / "text" / "wikitext2" / "valid.txt", folder / "wikitext.txt")
    shared = (f"--tokenizer={teacher}", "--max_seq_length=128")
    corpus = (f"--input_file={folder / 'text'}/*.txt", *shared, "--dupe_factor=1",
              "--heldout_fraction=0.02")  # fmt: skip
    run("create_pretraining_data", *corpus, f"--output_dir={folder / 'records'}",
        "--dynamic_masking")  # fmt: skip
    # A quarter of the text is as much as the students read. They are scored on what is held out
    # above; more is held out here, so that none of it trains.
    run("create_pretraining_data", f"--input_file={folder / 'text'}/text-0000[0-3]-*.txt", *shared,
        "--dupe_factor=1", "--heldout_fraction=0.08",
        f"--output_dir={folder / 'soft_records'}")  # fmt: skip
    run("create_pretraining_data", f"--input_file={folder / 'wikitext.txt'}", *shared,
        f"--output_dir={folder / 'wikitext'}", "--dupe_factor=1", "--heldout_fraction=0",
        "--num_shards=1")  # fmt: skip


def continue_pretraining(teacher: str, folder: pathlib.Path, steps: int) -> dict[str, Any]:
    """Trains the encoder on; what it says about WikiText before and after, and its curve."""
    records = folder / "records"
    sets = ("epochs=null", f"steps={steps}", f"evaluate.every_steps={max(steps // 5, 1)}",
            "optimizer.learning_rate=2.0e-4")  # fmt: skip
    overrides = ["precision=bfloat16", *(f"stages.0.{one}" for one in sets)]
    run("train", "--recipe=configs/bert/continue_pretraining.yaml", f"--init_checkpoint={teacher}",
        f"--data=corpus={records}/train-*", f"--data=heldout={records}/heldout-*",
        f"--model_dir={folder / 'lm'}", *(f"--set={one}" for one in overrides))  # fmt: skip
    pattern, scores = f"{folder / 'wikitext'}/train-*", folder / "wikitext.json"
    run("evaluate", f"--model_dir={folder / 'lm'}", f"--records={pattern}", "--batch_size=32",
        f"--output_json={scores}")  # fmt: skip
    tokenizer = load_tokenizer(teacher)
    special = [tokenizer.tokens.index(one) for one in tokenizer.special_tokens.values()]
    words = unigrams(pattern, special)
    metrics, points = files.read_json(scores)["metrics"], curve(folder / "lm" / "01_pretrain")
    return {
        "teacher": teacher,
        "steps": steps,
        "seconds": files.read_json(folder / "lm" / "run.json")["seconds"],
        "recipe": recipe.to_plain(
            recipe_files.load_recipe(ROOT / "configs/bert/continue_pretraining.yaml", overrides)
        ),
        "wikitext": {
            "metrics": metrics,
            "masked_tokens": files.read_json(scores)["masked_tokens"],
            "unigrams": words,
            "loss_below_entropy": metrics["masked_lm_loss"] < words["entropy"],
            "accuracy_of_commonest": metrics["masked_lm_accuracy"] / words["commonest"],
        },
        "curve": points,
        "table": curve_table(points, metrics, words),
        "versions": versions.environment(),
    }


def soft_labels(folder: pathlib.Path, study: str) -> None:
    """The cache of the teacher's words, and the study of students."""
    records = f"{folder / 'soft_records'}/train-*"
    run("cache_teacher", f"--teacher={folder / 'lm'}", f"--records={records}",
        "--outputs=masked_lm_top_k", "--top_k=32", "--batch_size=64", "--precision=bfloat16",
        f"--output_dir={folder / 'soft'}")  # fmt: skip
    os.environ["PRETRAINING"] = str(folder)
    run_study(study, folder / "study")


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--teacher", default="models/minilm", help="An encoder of the BERT family.")
    parser.add_argument("--output_dir", required=True, help="A folder outside of the checkout.")
    parser.add_argument("--steps", type=int, default=1000, help="Of continued pretraining.")
    parser.add_argument("--study", default="configs/evidence/soft_label_mlm.yaml", help="YAML.")
    options = parser.parse_args(arguments)
    data = pathlib.Path(os.environ["XDISTIL_DATA"])
    folder = pathlib.Path(options.output_dir).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    prepare(data, options.teacher, folder)
    continued = continue_pretraining(options.teacher, folder, options.steps)
    files.write_json(EVIDENCE / "continued_pretraining.json", continued)
    soft_labels(folder, options.study)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
