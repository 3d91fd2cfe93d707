"""From a dump to text: `prepare_wikipedia` against WikiExtractor 3, pages and megabytes a second.

    python -m benchmarks.wikipedia --dump=dump.xml.bz2

Each side is its own command with `harness.THREADS` processes for pages, from its start to its last
file, without templates. The work is not the same: ours also splits sentences, drops what only
disambiguates and writes shards; WikiExtractor stops at JSON lines. `make bench-deps` installs it.
"""

from __future__ import annotations

import collections
import importlib.util
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

from absl import app, flags

from benchmarks import harness, result_files
from benchmarks.result_files import comparison
from xdistil_tf.data.corpus import convert, inputs, mediawiki, sentences
from xdistil_tf.data.corpus.documents import Document

_DUMP = "enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"

FLAGS = flags.FLAGS


def require_wikiextractor() -> None:
    """Checks that the other side is there.

    Raises:
      ModuleNotFoundError: If it is not; says how to get it.
    """
    if not importlib.util.find_spec("wikiextractor"):
        raise ModuleNotFoundError("WikiExtractor is not installed. Run `make bench-deps`.")


def dump_path() -> str:
    """The dump of `--dump`, or the one below `--data_dir`.

    Raises:
      FileNotFoundError: If it is not there.
    """
    if FLAGS.dump:
        return harness.existing(pathlib.Path(FLAGS.dump), "Set --dump.")
    return harness.data_folder("text", "xml", _DUMP)


def size_of(dump: str) -> tuple[int, float]:
    """Pages of any kind, and megabytes of XML."""
    path = pathlib.Path(dump)
    pages = sum(1 for _ in mediawiki.read_pages(path))
    with inputs.opened(path) as handle:
        size = sum(len(chunk) for chunk in iter(lambda: handle.read(1 << 20), b""))
    return pages, size / 1e6


def cpu_seconds(dump: str) -> dict[str, float]:
    """What one process of ours takes for each kind of work, of which the other side has no third.

    Medians of five.
    """
    path, taken = pathlib.Path(dump), collections.defaultdict(list)

    def timed(work: str, call: Callable[[], list]) -> list:
        began = time.process_time()
        made = call()
        taken[work].append(time.process_time() - began)
        return made

    for _ in range(5):
        found = timed("reading", lambda: list(mediawiki.read_pages(path)))
        pages = [one for one in found if isinstance(one, Document)]
        texts = timed("cleaning", lambda: [convert.clean_text(one) for one in pages])
        timed(
            "splitting sentences",
            lambda: [sentences.split_text(one) for one in texts if isinstance(one, str)],
        )
    return {work: round(statistics.median(values), 3) for work, values in taken.items()}


def ours_command(dump: str, output: str) -> list[str]:
    flags_of_ours = [f"--input={dump}", f"--output_dir={output}", "--num_shards=1"]
    processes = f"--num_processes={harness.THREADS}"
    return [sys.executable, "bin/prepare_wikipedia.py", *flags_of_ours, processes]


def theirs_command(dump: str, output: str) -> list[str]:
    processes = str(harness.THREADS)
    options = ["--json", "--no-templates", "--quiet", "--processes", processes]
    return [sys.executable, "-m", "wikiextractor.WikiExtractor", dump, "-o", output, *options]


def case(command: Callable[[str, str], list[str]], dump: str, pages: int) -> Callable[[], int]:
    """A case that runs a command into a fresh folder and gives the pages.

    Raises:
      RuntimeError: (the case) If the command fails or writes nothing; shows its last line.
    """

    def run() -> int:
        folder = tempfile.mkdtemp()
        try:
            output = str(pathlib.Path(folder, "out"))
            done = subprocess.run(
                command(dump, output), cwd=harness.ROOT, capture_output=True, text=True
            )
            written = any(one.is_file() for one in pathlib.Path(output).rglob("*"))
            if done.returncode or not written:
                last = (done.stderr.strip().splitlines() or ["it wrote nothing"])[-1]
                raise RuntimeError(f"{command.__name__} ended with {done.returncode}: {last}")
        finally:
            shutil.rmtree(folder)
        return pages

    return run


def main(_) -> None:
    require_wikiextractor()
    dump = dump_path()
    pages, megabytes = size_of(dump)
    rates = harness.interleaved(
        {"ours": case(ours_command, dump, pages), "theirs": case(theirs_command, dump, pages)},
        FLAGS.repeats,
    )
    size = megabytes / pages
    of_size = {name: [one * size for one in values] for name, values in rates.items()}
    result_files.write_results(
        FLAGS.output or "wikipedia",
        [
            comparison("dump to text", rates["ours"], rates["theirs"], "pages/s", 1.0),
            comparison("dump to text, XML", of_size["ours"], of_size["theirs"], "MB/s"),
        ],
        {
            "pages": pages,
            "megabytes": round(megabytes, 1),
            "repeats": FLAGS.repeats,
            "cpu_seconds_of_ours": cpu_seconds(dump),
        },
        measurements=rates,
        seed=FLAGS.seed,
    )


if __name__ == "__main__":
    harness.define_flags(repeats=15)
    flags.DEFINE_string("dump", None, "A pages-articles dump; default: one below --data_dir.")
    app.run(main)
