"""The status as control publishes it, and what each worker has to be told of it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

from serving.domain.status import Status
from serving.wire.worker_messages import StatusChange


class StatusBoard:
    """Holds the status: control assigns `status`, the supervisor `worker_problem`. Any thread.

    `publish` is called with what has changed, in the order of the changes.
    """

    def __init__(self, publish: Callable[[StatusChange], None]) -> None:
        self._publish = publish
        self._lock = threading.RLock()
        self._status = Status()

    @property
    def status(self) -> Status:
        """The status now."""
        return self._status

    @status.setter
    def status(self, status: Status) -> None:
        with self._lock:
            before, self._status = self._status, replace(status, worker_problem=self._status.worker_problem)
            if self._status != before:
                self._publish(_change(before, self._status))

    def tell_problem(self, problem: str | None) -> None:
        """Say which workers do not serve, and why."""
        with self._lock:
            before, self._status = self._status, replace(self._status, worker_problem=problem)
            if problem != before.worker_problem:
                self._publish(_change(before, self._status))

    def show(self, show: Callable[[StatusChange], None]) -> None:
        """Call `show` with everything there is; what is published later is newer, what was published before older."""
        with self._lock:
            show(replace(_change(Status(), self._status), uploads=self._status.uploads))


def _change(before: Status, after: Status) -> StatusChange:
    return StatusChange(
        models={name: model for name, model in after.models.items() if before.models.get(name) is not model},
        removed=tuple(name for name in before.models if name not in after.models),
        store=after.store,
        state=after.state,
        worker_problem=after.worker_problem,
        has_started=after.has_started,
        is_stopping=after.is_stopping,
        newest_event=after.newest_event,
        uploads=None if after.uploads == before.uploads else after.uploads,
    )
