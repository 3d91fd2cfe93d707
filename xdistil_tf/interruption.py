"""Polite stopping: a signal asks the loop to save and leave; a second one stops at once."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

EXIT_CODE = 42
_RECEIVED = b"Stopping after the running loop; a second signal stops at once.\n"


class Interrupted(Exception):
    """A run stopped on request after saving; the same command goes on where it was."""


class Interruption:
    """Whether somebody asked to stop."""

    def __init__(self):
        self.requested = False

    def _handle(self, number, frame):
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        # Not by the logger, in whose middle the signal may have come.
        with contextlib.suppress(OSError):
            os.write(2, _RECEIVED)

    @contextlib.contextmanager
    def listening(self) -> Iterator[Interruption]:
        """Catches SIGTERM and SIGINT while the block runs (main thread only)."""
        previous = {
            number: signal.signal(number, self._handle)
            for number in (signal.SIGTERM, signal.SIGINT)
        }
        try:
            yield self
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
