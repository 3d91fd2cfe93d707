"""`pretraining.json`: what records were made from and what they hold; and whose a folder is."""

from __future__ import annotations

import itertools
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from xdistil_tf import files, versions
from xdistil_tf.data import records
from xdistil_tf.data.pretraining.job import Job
from xdistil_tf.data.pretraining.shards import counts_path
from xdistil_tf.data.pretraining.splits import Split
from xdistil_tf.data.tokenizer import Tokenizer

MANIFEST = "pretraining.json"
_BEGUN = "begun.json"
_CLEARED = "cleared.json"
_RECORDS = [
    f"{a}-*-of-*.{b}" for a, b in itertools.product(("train", "heldout"), ("tfrecord", "index"))
]


def made_from(settings: Mapping[str, Any], paths: Sequence[str], tokenizer: Tokenizer) -> dict:
    """Everything that decides bytes, as it stands in the manifest."""
    return {
        "format": 3,
        "settings": dict(settings),
        "tokenizer": {
            "kind": tokenizer.kind,
            "fingerprint": tokenizer.fingerprint,
            "vocab_size": tokenizer.vocab_size,
            "do_lower_case": tokenizer.do_lower_case,
        },
        "inputs": {path: files.file_fingerprint(path) for path in paths},
    }


def fingerprint(content: Mapping[str, Any]) -> str:
    """Of what `made_from` says; names of files do not count."""
    return files.fingerprint({**content, "inputs": list(content["inputs"].values())})


def finished(folder: pathlib.Path, wanted: str) -> dict[str, Any] | None:
    """The manifest of a folder that was made from the same.

    Raises:
      ValueError: If a shard that it names is missing.
    """
    path = folder / MANIFEST
    content = files.read_json(path) if path.is_file() else {}
    if content.get("fingerprint") != wanted:
        return None
    for name, split in content["splits"].items():
        for number in range(split["shards"]):
            shard = records.shard_path(folder, name, number, split["shards"])
            if not shard.is_file():
                raise ValueError(
                    f"{folder} is damaged: {shard.name} is missing. Remove the folder and run the "
                    "same command again."
                )
    return content


def begin(folder: pathlib.Path, wanted: str, tokenizer: Tokenizer) -> None:
    """Opens the work folder, or goes on in it if it was begun for the same.

    Raises:
      ValueError: If the folder holds records that are not ours to replace.
    """
    _refuse_others(folder)
    work = folder / "work"
    if (work / _BEGUN).is_file() and files.read_json(work / _BEGUN)["fingerprint"] == wanted:
        return
    # From here on the folder is known to be ours, and what stands in it to be of no use yet.
    files.write_json(work / _BEGUN, {"fingerprint": None})
    for path in sorted(work.iterdir()):
        if path.name != _BEGUN:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    tokenizer.save(work / "tokenizer")
    files.write_json(work / _BEGUN, {"fingerprint": wanted})


def clear(folder: pathlib.Path) -> None:
    """Removes earlier records once, so that shards of two corpora never stand side by side."""
    if (folder / "work" / _CLEARED).is_file():
        return
    (folder / MANIFEST).unlink(missing_ok=True)
    for path in itertools.chain.from_iterable(map(folder.glob, _RECORDS)):
        path.unlink()
    files.write_json(folder / "work" / _CLEARED, {})


def finish(
    job: Job,
    content: Mapping[str, Any],
    splits: Mapping[str, Split],
    tokenizer: Tokenizer,
    seconds: float,
) -> dict[str, Any]:
    """Writes tokenizer and manifest, and removes the work folder."""
    folder = pathlib.Path(job.folder)
    counts = {name: _counts(job, name, split) for name, split in splits.items()}
    masking = job.settings.masking
    if job.epoch_files:
        masking = "static" if any(one["masked"] for one in counts.values()) else "none"
    manifest = {
        **content,
        "splits": counts,
        "masking": masking,
        "fingerprint": job.fingerprint,
        "seconds": round(seconds, 1),
        "versions": versions.environment(),
    }
    tokenizer.save(folder / "tokenizer")
    files.write_json(folder / MANIFEST, manifest)
    remove_work(folder)
    return manifest


def remove_work(folder: pathlib.Path) -> None:
    shutil.rmtree(folder / "work", ignore_errors=True)


def _counts(job: Job, name: str, split: Split) -> dict[str, Any]:
    shards = [
        files.read_json(
            counts_path(job, records.shard_path(job.folder, name, one, split.num_shards))
        )
        for one in range(split.num_shards)
    ]
    total = {
        key: sum(one[key] for one in shards)
        for key in ("records", "tokens", "masked", "random_next")
    }
    return {
        "documents": split.documents,
        "records": total["records"],
        "shards": len(shards),
        **{key: total[key] for key in ("tokens", "masked", "random_next")},
        "length_mean": round(total["tokens"] / total["records"], 2),
        "length_max": max(one["length_max"] for one in shards),
        "fingerprint": records.shards_fingerprint(one["sha256"] for one in shards),
    }


def _refuse_others(folder: pathlib.Path) -> None:
    if (folder / "task.json").exists():
        raise ValueError(f"{folder} holds the records of a task. Choose another output_dir.")
    ours = (folder / MANIFEST).is_file() or (folder / "work" / _BEGUN).is_file()
    if not ours and any(itertools.chain.from_iterable(map(folder.glob, _RECORDS))):
        raise ValueError(
            f"{folder} holds records without a {MANIFEST}, so not of this program. Choose another "
            "output_dir, or remove them."
        )
    # A call that was killed as it began leaves nothing but a file that is hidden.
    if not ours and any(folder.glob("work/[!.]*")):
        raise ValueError(
            f"{folder / 'work'} is not of this program. Choose another output_dir, or remove it."
        )
