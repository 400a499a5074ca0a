"""One worker process as the supervisor sees it."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Any

from serving.wire.worker_channel import WorkerChannel


class WorkerLink:
    """One worker: its index, its process and its channel. `is_gone` is set when the process has ended.

    `generation` is the plan that it answers with. `take_pending` returns the loads that it was asked for since the
    last call.
    """

    def __init__(self, index: int, pid: int, pidfd: int) -> None:
        self.index = index
        self.pid = pid
        self.pidfd = pidfd
        self.generation = 0
        self.is_gone = False
        self.channel: WorkerChannel
        self._pending: list[Future[Any]] = []
        self._lock = threading.Lock()

    def note_pending(self, answer: Future[Any]) -> None:
        """Remember a load that was asked for."""
        with self._lock:
            self._pending.append(answer)

    @property
    def has_pending(self) -> bool:
        """Whether it was asked to load something since the last call of `take_pending`."""
        return bool(self._pending)

    def take_pending(self) -> list[Future[Any]]:
        """Return the loads that have been asked for since the last call."""
        with self._lock:
            pending, self._pending = self._pending, []
        return pending
