"""From any text to shards of sentences, one a line, an empty line between documents.

```
find_inputs -> Job.begin -> parts in work/, several processes -> shards -> corpus.json
```
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import pathlib
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from typing import Any

from absl import logging

from xdistil_tf import files, versions
from xdistil_tf.data.corpus import convert, inputs, parts, workers
from xdistil_tf.data.corpus.documents import Found
from xdistil_tf.interruption import Interrupted, Interruption

FORMAT = 1
_CONVERSION = 2  # One more with each change of the code that changes bytes of the shards.
_FINISHED = "corpus.json"
_MADE = re.compile(r"text-\d{5,}-of-\d{5,}\.txt|dropped\.tsv")
_PROGRESS_SECONDS = 60.0


@dataclasses.dataclass(frozen=True)
class Options:
    """How text becomes shards: the flags of `prepare_wikipedia` of the same names."""

    input_format: str = "auto"
    text_field: str = "text"
    num_shards: int = 16
    max_bad_rows: int = 0

    def __post_init__(self):
        if self.input_format not in ("auto", *inputs.FORMATS):
            raise ValueError(
                f"Unknown input_format. Expected one of {['auto', *inputs.FORMATS]}. "
                f"Received: input_format={self.input_format!r}."
            )
        if self.num_shards < 1 or self.max_bad_rows < 0:
            raise ValueError(
                "Expected num_shards of at least 1 and max_bad_rows of at least 0. Received: "
                f"num_shards={self.num_shards}, max_bad_rows={self.max_bad_rows}."
            )


DEFAULT_OPTIONS = Options()


def prepare_corpus(
    input_files: str | Sequence[str],
    output_dir: files.Path,
    options: Options = DEFAULT_OPTIONS,
    num_processes: int = 0,
    interruption: Interruption | None = None,
) -> dict[str, Any]:
    """Writes the shards of a corpus and, last of all, `corpus.json`, unless they stand there.

    Args:
      input_files: As `inputs.find_inputs` takes them.
      output_dir: A folder of its own.
      options: What decides the shards.
      num_processes: 0: all cores. Changes no byte.
      interruption: Asked after each part whether to stop.

    Returns:
      The content of `corpus.json`.

    Raises:
      FileNotFoundError: If an input is missing.
      Interrupted: If a stop was asked for; parts that are complete stay.
      ValueError: If an input is empty or damaged, or has more bad rows than `max_bad_rows`; if
        there are fewer documents than shards; if the folder holds something else.
    """
    tally, paths = parts.Tally(), []
    logged = time.monotonic()
    with workers.started(parts.make_part, num_processes) as ordered:
        job = Job(input_files, output_dir, options)
        if finished := job.begin():
            return finished
        for part in ordered(_tasks(job, paths)):
            tally.update(part)
            job.check_bad(tally)
            if interruption is not None and interruption.requested:
                raise Interrupted("Stopped; parts that were complete are kept.")
            if time.monotonic() - logged > _PROGRESS_SECONDS:
                logged = time.monotonic()
                logging.info("%d documents, %d sentences so far.", tally.documents, tally.sentences)
    job.check_documents(tally)
    return job.finish(tally, parts.merge(paths, job.folder, options.num_shards))


class Job:
    """The folder of a corpus from its first to its last file.

    ```
    begin() -> (work in `work`) -> check_bad(tally), check_documents(tally) -> finish(tally, shards)
    ```

    Attributes:
      paths: The inputs.
      folder: The corpus.
      work: What a killed call left, of the same fingerprint.
      options: What decides the shards.
    """

    def __init__(self, input_files: str | Sequence[str], output_dir: files.Path, options: Options):
        self._began = time.monotonic()
        self.folder = pathlib.Path(output_dir)
        self.work = self.folder / "work"
        self.options = options
        self.paths = inputs.find_inputs(input_files)
        for path in self.paths:
            if path.resolve().is_relative_to(self.folder.resolve()):
                raise ValueError(
                    f"The input {path} lies in --output_dir={output_dir}. Choose another folder."
                )
            inputs.detect_format(path)  # What is empty or compressed in another way is told now.
        self._inputs = {str(path): files.file_fingerprint(path) for path in self.paths}
        settings = dataclasses.asdict(options)
        settings.pop("max_bad_rows")  # Decides whether there are shards, and none of their bytes.
        # By content, not by path: an input that moved is the same.
        basis = [FORMAT, _CONVERSION, settings, list(self._inputs.values())]
        self._fingerprint = files.fingerprint(basis)

    def begin(self) -> dict[str, Any] | None:
        """Makes the folder ready, or returns its `corpus.json` if it is finished.

        Raises:
          ValueError: If it holds a corpus of other inputs or settings, or anything else.
        """
        finished = self._finished()
        if finished:
            logging.info("%s is up to date.", self.folder)
            shutil.rmtree(self.work, ignore_errors=True)
            return finished
        state = self.work / "job.json"
        begun = files.fingerprint([self._fingerprint, _parser_version()])
        known = files.read_json(state).get("fingerprint") if state.is_file() else None
        if known and any(self.work.glob("part-*")):  # Else nothing would be lost.
            self._require_same(
                known, begun,
                "was begun with other inputs, settings or another mwparserfromhell",
            )  # fmt: skip
            logging.info("Going on with what stands in %s.", self.work)
            return None
        # A pipeline has no parts: it leaves its shards, should it be killed as it finishes.
        others = [
            one.name
            for one in _entries(self.folder)
            if one != self.work and not (known == begun and _MADE.fullmatch(one.name))
        ]
        if others:
            raise ValueError(
                f"{self.folder} is no folder of its own: it holds {sorted(others)[0]}. Choose "
                "another --output_dir, or empty it."
            )
        # Killed while it was removed: parts without a word about what they are of.
        shutil.rmtree(self.work, ignore_errors=True)
        files.write_json(state, {"fingerprint": begun})
        return None

    def found(self) -> Iterator[Found]:
        """What stands in the inputs, in their order."""
        for path in self.paths:
            yield from self.found_in(path)

    def found_in(self, path: pathlib.Path) -> Iterator[Found]:
        """What stands in one input."""
        return convert.read_documents(path, self.options.input_format, self.options.text_field)

    def check_bad(self, tally: parts.Tally) -> None:
        """Refuses one damaged document or line more than `max_bad_rows`.

        Raises:
          ValueError: Names the first one that is too many.
        """
        limit = self.options.max_bad_rows
        if len(tally.bad) > limit:
            bad = tally.bad[limit]
            raise ValueError(
                f"{bad.file}, row {bad.row}: {bad.reason}. Mend it, or leave so many out with "
                f"--max_bad_rows (now {limit})."
            )

    def check_documents(self, tally: parts.Tally) -> None:
        """Refuses fewer documents than shards.

        Raises:
          ValueError: Names both figures.
        """
        if tally.documents >= self.options.num_shards:
            return
        # Or the cure would be refused, as another job than the one that was begun.
        shutil.rmtree(self.work)
        if not tally.documents:
            raise ValueError(
                f"No document with a sentence in {len(self.paths)} input files; dropped: "
                f"{tally.dropped_by_reason()}. Check --input and --input_format."
            )
        raise ValueError(
            f"More shards than documents: --num_shards={self.options.num_shards}, but "
            f"documents: {tally.documents}. Set --num_shards to {tally.documents} or less."
        )

    def finish(self, tally: parts.Tally, shards: list[dict[str, Any]]) -> dict[str, Any]:
        """Writes `dropped.tsv` and `corpus.json`, and removes `work/`."""
        with files.replaced_file(self.folder / "dropped.tsv", "w") as handle:
            handle.write("file\trow\treason\n")
            handle.writelines(
                f"{bad.file}\t{bad.row}\t{' '.join(bad.reason.split())}\n" for bad in tally.bad
            )
        content = {
            "format": FORMAT,
            "settings": dataclasses.asdict(self.options),
            "inputs": self._inputs,
            "documents": tally.documents,
            "sentences": tally.sentences,
            "characters": tally.characters,
            "dropped": tally.dropped_by_reason(),
            "shards": shards,
            "fingerprint": self._fingerprint,
            "seconds": round(time.monotonic() - self._began, 1),
            "versions": versions.environment() | _parser_version(),
        }
        files.write_json(self.folder / _FINISHED, content)
        shutil.rmtree(self.work)
        return content

    def _finished(self) -> dict[str, Any] | None:
        path = self.folder / _FINISHED
        if not path.is_file():
            return None
        content = files.read_json(path)
        self._require_same(
            content.get("fingerprint"), self._fingerprint,
            "holds a corpus of other inputs or settings",
        )  # fmt: skip
        for shard in content["shards"]:
            if not (self.folder / shard["file"]).is_file():
                raise ValueError(
                    f"{self.folder} is damaged: {shard['file']} is missing. Remove the folder and "
                    "run the same command again."
                )
        return content

    def _require_same(self, fingerprint: str | None, wanted: str, otherwise: str) -> None:
        if fingerprint != wanted:
            raise ValueError(
                f"{self.folder} {otherwise}. Choose another --output_dir, or remove it."
            )


def _tasks(job: Job, paths: list[pathlib.Path]) -> Iterator[parts.Task]:
    """Yields a task for each part; appends the path of each to `paths`."""
    for number, found in enumerate(parts.cut_into_parts(job.found())):
        path = job.work / f"part-{number:06d}"
        paths.append(path)
        yield parts.Task(path, job.options.num_shards, None if parts.is_whole(path) else found)


def _entries(folder: pathlib.Path) -> list[pathlib.Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _parser_version() -> dict[str, str]:
    try:
        return {"mwparserfromhell": importlib.metadata.version("mwparserfromhell")}
    except importlib.metadata.PackageNotFoundError:
        return {"mwparserfromhell": "not installed"}
