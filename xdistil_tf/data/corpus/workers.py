"""Processes that apply a function to tasks, with results in the order of the tasks.

```
with started(function, 4) as ordered:
    ordered(tasks): tasks -> [worker | worker | worker | worker] -> results
```

They are fresh interpreters that import the function's module alone: neither the caller's main
module (whose libraries would be loaded again in each, and which need not guard its main part) nor
its threads come along. A worker ends when its caller does, however that ends.
"""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import gc
import importlib
import os
import pathlib
import pickle
import queue
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, BinaryIO

import xdistil_tf

_AHEAD = 2  # Tasks that wait, for each worker; they bound the memory.
_SERVE = "from xdistil_tf.data.corpus import workers; workers.serve()"


def available_processes() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextlib.contextmanager
def started(function: Callable, num_processes: int) -> Iterator[Callable[[Iterable], Iterator]]:
    """Starts workers, which get ready while the block comes to its tasks; they end with it.

    Args:
      function: Of a module that can be imported; its argument and result can be pickled.
      num_processes: 0: all cores; 1: this process itself does it.

    Yields:
      Tasks -> `function(task)` for each, in order. Tasks are read by this process alone, few ahead.
      It raises what `function` raises, in its turn, and RuntimeError if a worker dies.
    """
    count = num_processes or available_processes()
    if count == 1:
        yield lambda tasks: map(function, tasks)
        return
    workers: list[_Worker] = []
    try:
        workers += (_Worker(function) for _ in range(count))
        yield lambda tasks: _ordered(workers, tasks)
    finally:
        for worker in workers:
            worker.stop()


def _ordered(workers: Sequence[_Worker], tasks: Iterable) -> Iterator:
    idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
    for worker in workers:
        idle.put(worker)

    def run(task: Any) -> Any:
        worker = idle.get()
        try:
            return worker.run(task)
        finally:
            idle.put(worker)

    pool = concurrent.futures.ThreadPoolExecutor(len(workers))
    try:
        waiting: collections.deque[concurrent.futures.Future] = collections.deque()
        for task in tasks:
            waiting.append(pool.submit(run, task))
            if len(waiting) >= len(workers) * _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in workers:  # Ends the calls that wait for one.
            worker.stop()
        pool.shutdown()


class _Worker:
    """A process and the two pipes to it; one thread at a time uses them."""

    def __init__(self, function: Callable):
        root = str(pathlib.Path(xdistil_tf.__file__).parent.parent)
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SERVE, function.__module__],
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._function = (function.__module__, function.__qualname__)

    def run(self, task: Any) -> Any:
        try:
            _send(self._process.stdin, (*self._function, task))
            worked, result = pickle.load(self._process.stdout)
        except (EOFError, OSError, pickle.UnpicklingError) as error:
            code = self._process.wait()
            raise RuntimeError(
                f"A worker process ended with code {code} (-9: killed, mostly for want of memory). "
                "Run the same command to go on, with a smaller --num_processes."
            ) from error
        if not worked:
            raise result
        return result

    def stop(self) -> None:
        """Ends the process at once, if it has not ended; it holds nothing that is not redone."""
        if self._process.stdout.closed:
            return
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()
        try:
            self._process.stdin.close()
        except BrokenPipeError:
            pass  # A task that was being sent when the process ended.


def serve() -> None:
    """The worker's side: answers tasks until its caller is gone."""
    for number in (signal.SIGINT, signal.SIGTERM):  # They may reach all; the caller ends us.
        signal.signal(number, signal.SIG_IGN)
    tasks = sys.stdin.buffer
    # Only answers may stand in the pipe, whatever a library writes to standard output.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    importlib.import_module(sys.argv[1])  # While the caller reads its first task.
    gc.set_threshold(100_000)  # A parsed page has many objects, which are soon gone.
    while True:
        try:
            module, name, task = pickle.load(tasks)
        except EOFError:
            return
        try:
            answer = (True, getattr(importlib.import_module(module), name)(task))
        except Exception as error:  # Whatever it is, the caller is told and raises it.
            answer = (False, error)
        try:
            _send(answers, answer)
        except BrokenPipeError:
            return


def _send(pipe: BinaryIO, value: Any) -> None:
    pickle.dump(value, pipe, protocol=pickle.HIGHEST_PROTOCOL)
    pipe.flush()
