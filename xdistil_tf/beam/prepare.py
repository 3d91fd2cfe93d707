"""`prepare_wikipedia` as an Apache Beam pipeline: byte for byte the shards of `prepare_corpus`.

```
files -> parts, numbered -> (shard, (place, document)) -> shards in work/ -> renamed -> corpus.json
                         \\-> (file, tally)             -> tallies in work/
```

Workers read the inputs and write to `work/` themselves: both must be where all of them see them. A
worker holds one shard while it sorts it.
"""

from __future__ import annotations

import io
import json
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from xdistil_tf import files
from xdistil_tf.beam.runners import Runner
from xdistil_tf.data.corpus import convert, parts
from xdistil_tf.data.corpus.prepare import Job, Options

Place = tuple[int, int, int]  # Of a document: its file, its part there, its number in the part.


def prepare_with_beam(
    input_files: str | Sequence[str],
    output_dir: files.Path,
    options: Options,
    runner: Runner,
) -> dict[str, Any]:
    """Writes the shards of a corpus and `corpus.json`, unless they stand there.

    A killed call begins anew, unlike that of `prepare_corpus`: the runner decides what it keeps.

    Args:
      input_files, output_dir, options: As `prepare_corpus` takes them.
      runner: What runs it.

    Returns:
      The content of `corpus.json`.

    Raises:
      FileNotFoundError, ValueError: As `prepare_corpus`.
    """
    job = Job(input_files, output_dir, options)
    if finished := job.begin():
        return finished
    for old in job.work.glob("beam-*"):
        old.unlink()
    with runner.pipeline() as pipeline:
        _build(runner.beam, pipeline, job)
    tally = parts.Tally()
    for number in range(len(job.paths)):
        path = job.work / f"beam-tally-{number:06d}"
        tally.update(parts.Tally.from_json(files.read_json(path)))
    job.check_bad(tally)
    job.check_documents(tally)
    return job.finish(tally, [_placed(job, shard) for shard in range(options.num_shards)])


def _build(beam, pipeline, job: Job) -> None:
    """The pipeline. Shuffled twice: parts, so that one file keeps all workers busy, and shards."""
    options, work = job.options, str(job.work)
    inputs = [
        (number, str(path), options.input_format, options.text_field)
        for number, path in enumerate(job.paths)
    ]
    converted = (
        pipeline
        | "Inputs" >> beam.Create(inputs)
        | "SpreadFiles" >> beam.Reshuffle()
        | "Read" >> beam.FlatMap(read_parts)
        | "SpreadParts" >> beam.Reshuffle()
        | "Convert" >> beam.FlatMap(convert_part, options.num_shards)
    )
    shards = pipeline | "AllShards" >> beam.Create([(k, None) for k in range(options.num_shards)])
    (
        ((converted | "Documents" >> beam.Filter(_is_document) | beam.Values()), shards)
        | "WithEmptyShards" >> beam.Flatten()
        | "ByShard" >> beam.GroupByKey()
        | "WriteShards" >> beam.Map(write_shard, work, options.num_shards)
    )
    no_tally = [(number, None) for number in range(len(inputs))]
    (
        (
            (converted | "Tallies" >> beam.Filter(_is_tally) | "TallyOf" >> beam.Values()),
            pipeline | "AllFiles" >> beam.Create(no_tally),
        )
        | "WithEmptyFiles" >> beam.Flatten()
        | "ByFile" >> beam.GroupByKey()
        | "WriteTallies" >> beam.Map(write_tally, work)
    )


def read_parts(one: tuple[int, str, str, str]) -> Iterator[tuple[int, int, list]]:
    """Yields (file, part, what was found) of one input."""
    number, path, input_format, text_field = one
    found = convert.read_documents(pathlib.Path(path), input_format, text_field)
    for part, some in enumerate(parts.cut_into_parts(found)):
        yield number, part, some


def convert_part(part: tuple[int, int, list], num_shards: int) -> Iterator[tuple[str, tuple]]:
    """Yields `("document", (shard, (place, text, sentences)))`, and `("tally", (file, ...))`."""
    file, number, found = part
    tally = parts.Tally()
    for row, one in enumerate(found):
        lines = convert.convert(one)
        tally.add(lines)
        if isinstance(lines, list):
            text = convert.text_of(lines)
            shard = convert.shard_of(text, num_shards)
            yield "document", (shard, ((file, number, row), text, len(lines)))
    yield "tally", (file, (number, tally.to_json()))


def write_shard(one: tuple[int, Iterable], work: str, num_shards: int) -> None:
    """Writes the documents of a shard in the order of the input, and what is said of it."""
    shard, documents = one
    folder = pathlib.Path(work)
    with parts.ShardWriter(folder, shard, num_shards, prefix="beam-") as writer:
        for _, text, count in sorted(document for document in documents if document):
            data = text.encode("utf-8")
            writer.copy(io.BytesIO(data), len(data), 1, count)
    files.write_json(folder / f"beam-shard-{shard:05d}.json", writer.summary())


def write_tally(one: tuple[int, Iterable], work: str) -> None:
    """Writes what was found in a file, added up in the order of its parts."""
    number, tallies = one
    total = parts.Tally()
    for _, tally in sorted((each for each in tallies if each), key=lambda each: each[0]):
        total.update(parts.Tally.from_json(tally))
    path = pathlib.Path(work) / f"beam-tally-{number:06d}"
    files.write_json(path, total.to_json())


def _placed(job: Job, shard: int) -> dict[str, Any]:
    """Moves a shard out of `work/`; both are on one file system."""
    summary = json.loads((job.work / f"beam-shard-{shard:05d}.json").read_text(encoding="utf-8"))
    os.replace(job.work / f"beam-{summary['file']}", job.folder / summary["file"])
    return summary


def _is_document(one: tuple[str, tuple]) -> bool:
    return one[0] == "document"


def _is_tally(one: tuple[str, tuple]) -> bool:
    return one[0] == "tally"
