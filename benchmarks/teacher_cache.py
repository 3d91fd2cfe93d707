"""What the teacher cache saves: nine stages on 1,000 sentences, cached against live.

    python -m benchmarks.teacher_cache

End to end: the whole `run` of configs/xtremedistil/text.yaml (ten epochs a stage, student 50/200,
teacher on 1,000 transfer texts and the held-out ones), from records to a model folder, tracing,
checkpoints, evaluation and the making of the cache included. Only the five stages that ask the
teacher gain. The teacher has BERT-base's size and random weights; MiniLM is printed too.

Then memory: with a tiny teacher, a process that caches and trains on 67 k and on 670 k records
needs the same.

Both sides run in bfloat16, in which a live teacher takes about half an hour on two cores; in
float32 (`--precisions=float32,bfloat16`) it is nearly twice that, and the cache saves more. With
--work_dir a killed call goes on at the pair that was not measured.
"""

from __future__ import annotations

import dataclasses
import pathlib
import shutil
import tempfile
import time
from collections.abc import Callable

import numpy as np
from absl import app, flags

from benchmarks import harness, result_files
from benchmarks.result_files import comparison
from xdistil_tf import files, versions

SENTENCES, HELDOUT, EPOCHS = 1000, 200, 10
STUDENT = ("model.embedding.dim=50", "model.lstm_units=200")
SMALL, LARGE = 67_000, 670_000
_TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}
_PARTS = ("bert_base", "minilm", "memory")


def _recipe(overrides: list[str], precision: str):
    from xdistil_tf import recipe_files

    path = harness.ROOT / "configs" / "xtremedistil" / "text.yaml"
    return recipe_files.load_recipe(path, [*STUDENT, f"precision={precision}", *overrides])


def _write_sample(source: str, target: pathlib.Path, rows: int, seed: int) -> None:
    """A task folder with `rows` different sentences of SST-2's train, and its dev."""
    lines = (pathlib.Path(source) / "train.tsv").read_text(encoding="utf-8").splitlines()
    header, lines = lines[0], lines[1:]
    dev = (pathlib.Path(source) / "dev.tsv").read_text(encoding="utf-8")
    known = {line.split("\t")[0].strip().lower() for line in dev.splitlines()}
    chosen = []
    for place in np.random.default_rng(seed).permutation(len(lines)):
        text = lines[place].split("\t")[0].strip().lower()
        if text not in known:
            known.add(text)
            chosen.append(lines[place])
        if len(chosen) == rows:
            break
    target.mkdir(parents=True, exist_ok=True)
    (target / "train.tsv").write_text("\n".join([header, *chosen]) + "\n", encoding="utf-8")
    (target / "dev.tsv").write_text(dev, encoding="utf-8")


def _write_teacher(folder: pathlib.Path, tokenizer, labels, minilm: str | None, config, seed: int):
    """A teacher with a head for the task: MiniLM's encoder, or random weights of a size."""
    from xdistil_tf.models import encoder, folders, pretrained

    head = {"kind": "classification", "num_labels": len(labels)}
    if minilm:
        model = pretrained.load_encoder(minilm, head=head, allow_missing_head=True, seed=seed)
    else:
        sizes = {"vocab_size": tokenizer.vocab_size, "head": head, **config}
        model = encoder.Encoder.from_config_dict(sizes, seed=seed)
    folders.save_model(model, folder, labels)
    tokenizer.save(folder)


def stages(
    work_dir: str, task_dir: str, vocabulary: str, minilm: str | None, precision: str, seed: int,
    epochs: int,
) -> dict[str, Callable[[], harness.Measured]]:  # fmt: skip
    """Whole runs of the nine stages, cached and live."""
    from xdistil_tf.data.task_records import Options, create_task_records
    from xdistil_tf.data.tokenization import load_tokenizer

    work = pathlib.Path(work_dir)
    tokenizer = load_tokenizer(minilm or vocabulary)
    _write_sample(task_dir, work / "task", SENTENCES + HELDOUT, seed)
    options = Options(heldout_rows=HELDOUT, num_shards=1)
    task = create_task_records(work / "task", "sst-2", tokenizer, work / "records", options=options)
    _write_teacher(work / "teacher", tokenizer, task.labels, minilm, {}, seed)
    # Layer 6 of 12, the recipe's; a teacher of six layers gives its last.
    overrides = [f"stages.{number}.epochs={epochs}" for number in range(3)]
    overrides += ["teacher.layer=-1"] if minilm else []
    return {
        mode: lambda mode=mode: _run(
            work, task, _recipe([*overrides, f"teacher.mode={mode}"], precision), {}
        )
        for mode in ("cached", "live")
    }


def _run(work: pathlib.Path, task, config, extra: dict) -> harness.Measured:
    """One run in a fresh folder; stages and their seconds go into `extra`."""
    from xdistil_tf.run import run
    from xdistil_tf.task_teacher import bindings
    from xdistil_tf.trainer import TrainerOptions

    folder = work / "run"
    shutil.rmtree(folder, ignore_errors=True)
    began = time.perf_counter()
    result = run(
        config,
        bindings(task),
        folder,
        teacher=str(work / "teacher"),
        options=TrainerOptions(progress=False),
    )
    seconds = time.perf_counter() - began
    extra = extra | {
        "records": {name: int(split["records"]) for name, split in task.splits.items()},
        "stages": {one["name"]: [one["steps"], one["seconds"]] for one in result["stages"]},
        "stage_seconds": round(sum(one["seconds"] for one in result["stages"]), 2),
    }
    cache = folder / "cache"
    if cache.is_dir():
        extra["cache_bytes"] = sum(file.stat().st_size for file in cache.iterdir())
    shutil.rmtree(folder)
    return harness.Measured(1, seconds, extra, harness.peak_mb())


def synthetic_records(
    work_dir: str, vocabulary: str, rows: int, seed: int
) -> dict[str, Callable[[], float]]:
    """Makes the records of a synthetic task and a tiny teacher; the memory of this is not asked."""
    from xdistil_tf.data.task_records import Options, create_task_records
    from xdistil_tf.data.tokenization import load_tokenizer

    def make() -> float:
        work = pathlib.Path(work_dir)
        tokenizer = load_tokenizer(vocabulary)
        words = [one for one in tokenizer.tokens if one.isalpha() and len(one) > 3]
        random = np.random.default_rng(seed)
        (work / "task").mkdir(parents=True, exist_ok=True)
        with open(work / "task" / "train.tsv", "w", encoding="utf-8") as handle:
            handle.write("sentence\tlabel\n")
            for size in random.integers(4, 20, rows):
                chosen = " ".join(words[i] for i in random.integers(0, len(words), size))
                handle.write(f"{chosen}\t{int(size) % 2}\n")
        options = Options(heldout_fraction=0.0, heldout_rows=HELDOUT)
        task = create_task_records(
            work / "task", "sst-2", tokenizer, work / "records", options=options
        )
        _write_teacher(work / "teacher", tokenizer, task.labels, None, _TINY, seed)
        return rows

    return {"make": make}


def memory(work_dir: str, steps: int) -> dict[str, Callable[[], harness.Measured]]:
    """A cache of all records and some steps of each kind of stage, for the peak memory."""
    from xdistil_tf.data.task_info import load_task_info

    work = pathlib.Path(work_dir)

    def case() -> harness.Measured:
        overrides = ["teacher.layer=-1", f"model.embedding.dim={_TINY['hidden_size']}"]
        overrides += ["stages.1.unfreeze=null", "stages.2.unfreeze=null"]
        for number in range(3):
            overrides += [f"stages.{number}.epochs=null", f"stages.{number}.steps={steps}"]
        return _run(work, load_task_info(work / "records"), _recipe(overrides, "float32"), {})

    return {"run": case}


def _measure_stages(name: str, minilm: str | None, work: pathlib.Path, vocabulary: str) -> dict:
    arguments = {
        "task_dir": harness.data_folder("glue", "SST-2"),
        "vocabulary": vocabulary,
        "minilm": minilm,
        "seed": harness.FLAGS.seed,
        "epochs": harness.FLAGS.epochs,
    }
    measured = {}
    for precision in harness.FLAGS.precisions:
        place = {"work_dir": str(work / f"{name}_{precision}"), "precision": precision}

        def pair(precision=precision, place=place) -> dict[str, list[harness.Measured]]:
            with harness.Worker("benchmarks.teacher_cache:stages", arguments | place) as worker:
                cases = {f"{name} {precision} {mode}": worker.case(mode) for mode in worker.names}
                return harness.rounds(cases, harness.FLAGS.repeats, warmup=0)

        measured |= _kept(work / f"{name}_{precision}.json", arguments, pair)
        shutil.rmtree(place["work_dir"], ignore_errors=True)
    return measured


def _kept(
    path: pathlib.Path, settings: dict, measure: Callable[[], dict[str, list[harness.Measured]]]
) -> dict[str, list[harness.Measured]]:
    """What was measured with the same settings on the same machine; else it is measured."""
    settings = settings | {"repeats": harness.FLAGS.repeats, "versions": versions.environment()}
    known = files.read_json(path) if path.is_file() else {}
    if known.get("settings") != settings:
        found = {
            name: [dataclasses.asdict(one) for one in values] for name, values in measure().items()
        }
        known = {"settings": settings, "measured": found}
        files.write_json(path, known)
    return {
        name: [harness.Measured(**one) for one in values]
        for name, values in known["measured"].items()
    }


def _measure_memory(work: pathlib.Path, vocabulary: str) -> dict[str, list[harness.Measured]]:
    measured: dict[str, list[harness.Measured]] = {}
    for rows in harness.FLAGS.records:
        place = str(work / f"synthetic_{rows}")
        made_from = {"vocabulary": vocabulary, "rows": int(rows), "seed": 0}

        def peaks(rows=rows, place=place, made_from=made_from) -> dict[str, list]:
            arguments = {"work_dir": place, **made_from}
            with harness.Worker("benchmarks.teacher_cache:synthetic_records", arguments) as worker:
                worker.run("make")
            values = []
            for _ in range(harness.FLAGS.repeats):
                # A process of its own each time: the peak is that of its whole life.
                arguments = {"work_dir": place, "steps": 50}
                with harness.Worker("benchmarks.teacher_cache:memory", arguments) as worker:
                    values.append(worker.run("run"))
            return {f"memory {rows}": values}

        measured |= _kept(work / f"synthetic_{rows}.json", made_from, peaks)
        shutil.rmtree(place, ignore_errors=True)
    return measured


def _comparisons(measured: dict[str, list[harness.Measured]]) -> list[dict]:
    rows = []
    for key in measured:
        if not key.endswith(" cached"):
            continue
        name, precision, _ = key.split()
        mine = [one.seconds for one in measured[key]]
        live = [one.seconds for one in measured[f"{name} {precision} live"]]
        aim = 5.0 if name == "bert_base" else None
        rows.append(comparison(f"nine stages, {name}, {precision}: cached against live",
                               mine, live, "s", aim))  # fmt: skip
    sizes = [key for key in measured if key.startswith("memory")]
    if len(sizes) == 2:
        small, large = ([one.peak_mb for one in measured[key]] for key in sizes)
        name = f"peak memory with {sizes[1].split()[1]} records against {sizes[0].split()[1]}"
        rows.append(comparison(name, large, small, "MB", 0.95))
    return rows


def main(_) -> None:
    vocabulary = harness.data_folder("bert", "vocab", "bert-base-uncased.vocab.txt")
    parts, measured = harness.FLAGS.parts, {}
    with tempfile.TemporaryDirectory() as temporary:
        work = pathlib.Path(harness.FLAGS.work_dir or temporary).absolute()
        if "bert_base" in parts:
            measured |= _measure_stages("bert_base", None, work, vocabulary)
        if "minilm" in parts:
            measured |= _measure_stages("minilm", harness.minilm_folder(), work, vocabulary)
        if "memory" in parts:
            measured |= _measure_memory(work, vocabulary)
    timed = {k: v for k, v in measured.items() if not k.startswith("memory")}
    result_files.write_results(
        harness.FLAGS.output or "teacher_cache",
        _comparisons(measured),
        {
            "recipe": "configs/xtremedistil/text.yaml",
            "epochs": harness.FLAGS.epochs,
            "student": list(STUDENT),
            "memory": "float32; cache of all records, then 50 steps of each kind of stage; an aim "
            "of 0.95 lets each further record take about 100 bytes of index",
            "runs": {key: values[-1].extra for key, values in measured.items()},
        },
        measurements={f"{k} (s)": [one.seconds for one in v] for k, v in timed.items()}
        | {f"{k} (MB)": [one.peak_mb for one in v] for k, v in measured.items() if k not in timed},
        seed=harness.FLAGS.seed,
    )


if __name__ == "__main__":
    harness.define_flags(repeats=1)
    flags.DEFINE_integer("epochs", EPOCHS, "Of each stage.", lower_bound=1)
    flags.DEFINE_list("precisions", ["bfloat16"], "Of teacher and student.")
    flags.DEFINE_string("work_dir", None, "Keeps what was measured; default: nothing is kept.")
    flags.DEFINE_list("parts", list(_PARTS), f"Of the benchmark, of {_PARTS}.")
    flags.DEFINE_list("records", [str(SMALL), str(LARGE)], "Synthetic records, smaller first.")
    app.run(main)
