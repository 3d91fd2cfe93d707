"""Measures two sides alternately; `result_files.py` writes the result as one JSON file.

    with Worker("benchmarks.encoder:ours") as ours, Worker("benchmarks.encoder:theirs") as theirs:
        rates = interleaved({"ours": ours.case("bf16"), "theirs": theirs.case("bf16")}, repeats=5)
    write_results("encoder", [comparison("forward", rates["ours"], rates["theirs"], ...)], {})

A worker is a process of its own that keeps its models and its threads, and sleeps while the
other side is measured: two frameworks in one process would fight for the same cores.
"""

from __future__ import annotations

import dataclasses
import gc
import importlib
import importlib.metadata
import json
import os
import pathlib
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from absl import flags, logging

RESULTS = pathlib.Path(__file__).parent / "results"
ROOT = pathlib.Path(__file__).parent.parent

# Of every worker, whatever framework it runs.
THREADS = 2

BEGAN = time.perf_counter()
# Idle OpenMP threads spin before they sleep; let them, so that they do not disturb the other side.
_PAUSE = 0.25


FLAGS = flags.FLAGS


def define_flags(repeats: int) -> None:
    """The flags that every benchmark has; call it once, before `app.run`."""
    flags.DEFINE_string(
        "data_dir", os.environ.get("XDISTIL_DATA"), "Folder with glue/ and bert/; $XDISTIL_DATA."
    )
    flags.DEFINE_string("minilm", "models/minilm", "Hugging Face folder of MiniLM (make minilm).")
    flags.DEFINE_integer("repeats", repeats, "Measured rounds.", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "Of weights and order.")
    flags.DEFINE_string("output", None, "JSON file; default: benchmarks/results/<name>.json.")


def data_folder(*parts: str) -> str:
    """A folder or file below `--data_dir`.

    Raises:
      FileNotFoundError: If it is not there.
    """
    if not FLAGS.data_dir:
        raise FileNotFoundError("Expected --data_dir, or the variable XDISTIL_DATA.")
    return existing(pathlib.Path(FLAGS.data_dir, *parts), "Set --data_dir.")


def minilm_folder() -> str:
    """The folder of `--minilm`.

    Raises:
      FileNotFoundError: If it is not there.
    """
    return existing(pathlib.Path(FLAGS.minilm), "Run `make minilm`, or set --minilm.")


def write_sample(source: str, target: pathlib.Path, rows: int, seed: int) -> None:
    """A task folder with so many rows of SST-2's train, drawn by the seed, and with its dev."""
    lines = (pathlib.Path(source) / "train.tsv").read_text(encoding="utf-8").splitlines()
    order = np.random.default_rng(seed).permutation(len(lines) - 1)[:rows]
    target.mkdir(parents=True, exist_ok=True)
    chosen = [lines[0], *(lines[1 + place] for place in order)]
    (target / "train.tsv").write_text("\n".join(chosen) + "\n", encoding="utf-8")
    dev = (pathlib.Path(source) / "dev.tsv").read_text(encoding="utf-8")
    (target / "dev.tsv").write_text(dev, encoding="utf-8")


def existing(path: pathlib.Path, cure: str) -> str:
    """The absolute path.

    Raises:
      FileNotFoundError: If it is not there; says what to do.
    """
    if not path.exists():
        raise FileNotFoundError(f"There is no {path}. {cure}")
    return str(path.absolute())


@dataclasses.dataclass(frozen=True)
class Measured:
    """One repetition.

    Attributes:
      units: What was processed (examples, sequences, FLOP, ...).
      seconds: How long it took.
      extra: Anything else that the case reported, JSON-able.
      peak_mb: Largest resident size that its process ever had.
    """

    units: float
    seconds: float
    extra: Any = None
    peak_mb: float = 0.0

    @property
    def rate(self) -> float:
        """Units a second."""
        return self.units / self.seconds


def timed(case: Callable[[], Any]) -> Measured:
    """Runs a case once.

    Args:
      case: Returns the units it processed; or (units, extra); or a `Measured` of its own, which
        is passed on (a worker's case measures in the worker).
    """
    gc.collect()
    began = time.perf_counter()
    given = case()
    seconds = time.perf_counter() - began
    if isinstance(given, Measured):
        return given
    units, extra = given if isinstance(given, tuple) else (given, None)
    return Measured(float(units), seconds, extra, peak_mb())


def peak_mb() -> float:
    """The largest resident size that this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def rounds(
    cases: Mapping[str, Callable[[], Any]], repeats: int = 5, warmup: int = 1
) -> dict[str, list[Measured]]:
    """Runs A B C, A B C, ...: what slows the machine for a while slows all of them.

    Args:
      cases: Name -> callable, see `timed`.
      repeats: Measured rounds.
      warmup: Rounds before, not counted.

    Returns:
      Name -> `repeats` measurements.
    """
    results: dict[str, list[Measured]] = {name: [] for name in cases}
    for number in range(warmup + repeats):
        for name, case in cases.items():
            time.sleep(_PAUSE)
            measured = timed(case)
            logging.info(
                "round %d of %d: %s %.4g/s", number + 1, warmup + repeats, name, measured.rate
            )
            if number >= warmup:
                results[name].append(measured)
    return results


def against_pytorch(
    module: str, ours: Mapping[str, Any], theirs: Mapping[str, Any], repeats: int, warmup: int = 1
) -> dict[str, list[Measured]]:
    """`rounds` over the cases of a module's factories `ours` and `pytorch`, a worker each.

    Args:
      module: `benchmarks.<name>`.
      ours: Arguments of our factory.
      theirs: Arguments of the other one, which is called when ours has made its cases.
      repeats, warmup: As `rounds` takes them.

    Returns:
      `ours_<case>` and `pytorch_<case>` -> `repeats` measurements.
    """
    with (
        Worker(f"{module}:ours", ours) as mine,
        Worker(f"{module}:pytorch", theirs, TORCH_ONLY) as others,
    ):
        cases = {f"ours_{name}": mine.case(name) for name in mine.names}
        cases |= {f"pytorch_{name}": others.case(name) for name in others.names}
        return rounds(cases, repeats, warmup)


def interleaved(
    cases: Mapping[str, Callable[[], Any]], repeats: int = 5, warmup: int = 1
) -> dict[str, list[float]]:
    """`rounds`, as name -> units a second."""
    measured = rounds(cases, repeats, warmup)
    return {name: [one.rate for one in values] for name, values in measured.items()}


class Worker:
    """A process that holds cases and runs one of them when told to, on `THREADS` threads.

    Args:
      factory: `package.module:function`; called in the worker with `arguments`, returns a dict
        name -> case.
      arguments: JSON-able keyword arguments of the factory.
      environment: Variables set for the worker, on top of this process's.

    Attributes:
      names: The cases it offers.
    """

    def __init__(
        self,
        factory: str,
        arguments: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
    ):
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        threads = dict.fromkeys(_THREAD_VARIABLES, str(THREADS))
        self._factory = factory
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SERVE, factory, json.dumps(arguments or {})],
            env={**os.environ, "PYTHONPATH": path, **_QUIET, **threads, **(environment or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.names: list[str] = self._answer()["names"]

    def case(self, name: str) -> Callable[[], Measured]:
        """A callable that runs the worker's case of that name once."""
        return lambda: self.run(name)

    def run(self, name: str) -> Measured:
        """Runs a case once; time is taken in the worker.

        Raises:
          RuntimeError: If the worker died; its own error stands in the log above.
        """
        self._process.stdin.write(json.dumps({"run": name}) + "\n")
        self._process.stdin.flush()
        return Measured(**self._answer()["measured"])

    def close(self) -> None:
        """Ends the worker."""
        self._process.stdin.close()
        self._process.wait()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            raise RuntimeError(f"The worker {self._factory} ended with code {code}; see its error.")
        return json.loads(line)


# Not `-m benchmarks.harness`: that would make a second `Measured`, unknown to the cases.
_SERVE = "import sys; from benchmarks import harness; harness.serve(*sys.argv[1:])"
_QUIET = {"TF_CPP_MIN_LOG_LEVEL": "2", "TOKENIZERS_PARALLELISM": "true"}
# Read by TensorFlow, by PyTorch (OpenMP, MKL) and by the tokenizers.
_THREAD_VARIABLES = (
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "RAYON_NUM_THREADS",
)
# `transformers` imports every framework that it finds; each side sees its own only.
TENSORFLOW_ONLY = {"USE_TORCH": "0", "USE_TF": "1", "TF_USE_LEGACY_KERAS": "1"}
TORCH_ONLY = {"USE_TF": "0", "USE_TORCH": "1"}


def serve(factory: str, arguments: str) -> None:
    """Runs a worker: makes its cases, then runs those that standard input names."""
    # Whatever a library prints goes to the log; the answers have a channel of their own.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def answer(content: dict[str, Any]) -> None:
        answers.write(json.dumps(content) + "\n")
        answers.flush()

    module, name = factory.split(":")
    cases = getattr(importlib.import_module(module), name)(**json.loads(arguments))
    answer({"names": list(cases)})
    for line in sys.stdin:
        measured = timed(cases[json.loads(line)["run"]])
        answer({"measured": dataclasses.asdict(measured)})
