"""Calls in several processes, which import neither TensorFlow nor the program that started them."""

from __future__ import annotations

import concurrent.futures
import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool

from xdistil_tf.interruption import Interrupted, Interruption

# Runs a function of a module with each of the arguments, in any order.
Execution = Callable[[Callable[..., None], Sequence[tuple]], None]


def available_cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def execution(num_processes: int = 1, interruption: Interruption | None = None) -> Execution:
    """How calls are run.

    Args:
      num_processes: 0 for one a core; 1 stays in this process.
      interruption: Asked between calls; those that ended stay done.

    Raises:
      ValueError: If the number is negative.
    """
    if num_processes < 0:
        raise ValueError(
            f"Expected num_processes of at least 0 (all cores). Received: {num_processes}."
        )
    count = num_processes or available_cores()
    stop = interruption or Interruption()

    def execute(function: Callable[..., None], arguments: Sequence[tuple]) -> None:
        if min(count, len(arguments)) > 1:
            _in_pool(function, arguments, count, stop)
        else:
            for one in arguments:
                _check(stop)
                function(*one)
        _check(stop)

    return execute


def _check(interruption: Interruption) -> None:
    if interruption.requested:
        raise Interrupted("Stopped; parts and shards that were complete are kept.")


def _in_pool(
    function: Callable[..., None], arguments: Sequence[tuple], count: int, stop: Interruption
) -> None:
    pool = concurrent.futures.ProcessPoolExecutor(
        min(count, len(arguments)), multiprocessing.get_context("spawn"), _begin
    )
    try:
        with _without_main():
            futures = [pool.submit(function, *one) for one in arguments]
        for future in concurrent.futures.as_completed(futures):
            future.result()
            _check(stop)
    except BrokenProcessPool as error:
        raise RuntimeError(
            "A worker process ended at once, perhaps for want of memory. Run the same command "
            "again to go on, with fewer --num_processes or more --num_shards."
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Keeps new processes from importing the main program, and TensorFlow with it."""
    main = sys.modules["__main__"]
    hidden = {name: vars(main).pop(name) for name in ("__file__", "__spec__") if name in vars(main)}
    main.__spec__ = None
    try:
        yield
    finally:
        vars(main).update(hidden)


def _begin() -> None:
    """What a new process does first."""
    for number in (signal.SIGINT, signal.SIGTERM):  # Meant for the one that started us.
        signal.signal(number, signal.SIG_IGN)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Nobody waits for a process whose parent was killed."""
    multiprocessing.parent_process().join()
    os._exit(1)
