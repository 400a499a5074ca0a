"""One worker process as the supervisor sees it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
from concurrent.futures import Future
from typing import Any

from serving.wire.worker_channel import WorkerChannel


class WorkerLink:
    """One worker: its index, its process and its channel. `has_ended` is set when the channel has: the worker is dead,
    or as good as. Any thread.

    `generation` is the plan that it answers with. `kill_reason` is why it was killed, if it was; `doing` says what it
    did last before it serves, as in "while it loaded m/1".
    """

    def __init__(self, index: int, pid: int, pidfd: int) -> None:
        self.index = index
        self.pid = pid
        self.generation = 0
        self.has_ended = threading.Event()
        self.kill_reason: str | None = None
        self.doing: str | None = None
        self.channel: WorkerChannel
        self._pidfd = pidfd
        self._pidfd_lock = threading.Lock()  # its number is another file's once it is closed
        self._pending: list[tuple[str, Future[Any]]] = []
        self._pending_lock = threading.Lock()

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the process, if it is there."""
        with self._pidfd_lock, contextlib.suppress(OSError):
            if self._pidfd >= 0:
                signal.pidfd_send_signal(self._pidfd, number)

    def await_exit(self, seconds: float) -> bool:
        """Wait for the end of the process; returns whether it has ended. Blocks. Not at the same time as `close`."""
        if self._pidfd < 0:
            return True
        poller = select.poll()
        poller.register(self._pidfd, select.POLLIN)
        return bool(poller.poll(1000 * seconds))

    def close(self) -> None:
        """Give the descriptor of the process back."""
        with self._pidfd_lock:
            os.close(self._pidfd)
            self._pidfd = -1

    def note_pending(self, what: str, answer: Future[Any]) -> None:
        """Remember a question that a worker has to answer before it may serve."""
        with self._pending_lock:
            self._pending.append((what, answer))

    @property
    def has_pending(self) -> bool:
        """Whether there are such questions since the last call of `take_pending`."""
        return bool(self._pending)

    def take_pending(self) -> list[tuple[str, Future[Any]]]:
        """Return the questions that were noted since the last call, and what each is about."""
        with self._pending_lock:
            pending, self._pending = self._pending, []
        return pending
