"""Signals to a process that serves, and how its main thread comes to heed them.

A handler runs between any two steps of the main thread, which may hold a lock at that moment: that of the log, or of a
queue. A handler that asked for the same lock would let the thread wait for itself, for ever. So handlers note a signal
and do nothing else; what follows from it is done where the thread looks.
"""

from __future__ import annotations

import signal
from collections import deque
from types import FrameType

import structlog

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)  # two of them when a terminal closes, or asks
IGNORED = (signal.SIGUSR1, signal.SIGUSR2)  # which would end the process at once

log = structlog.get_logger("serving.signals")


class NotedSignals:
    """Signals that came and were not heeded yet."""

    def __init__(self) -> None:
        self._noted: deque[int] = deque()

    def note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002  (a signal handler's signature)
        """Note a signal (called by the interpreter)."""
        self._noted.append(number)

    def take(self) -> list[str]:
        """Return the names of those that ask for an end, in the order in which they came. Logs the others."""
        names = []
        while self._noted:
            number = self._noted.popleft()
            if number in IGNORED:
                log_ignored(number)
            else:
                names.append(signal.Signals(number).name)
        return names


def log_ignored(number: int) -> None:
    """Log a signal that is ignored. Not in a handler."""
    log.warning("signal_ignored", signal=signal.Signals(number).name)
