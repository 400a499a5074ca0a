"""The place of one worker, and what is known of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from serving.domain.status import WorkerState, WorkerStatus
from serving.supervisor.worker_link import WorkerLink

BAD_DEATHS = 2  # in a row, from which on a worker that does not serve is a problem to tell


@dataclass(eq=False)
class Berth:
    """The place of one worker; its successors take the same one, with the same sockets and memory (`descriptors`).

    `deaths` counts those in a row.
    """

    index: int
    descriptors: Sequence[int]
    link: WorkerLink | None = None
    state: WorkerState = WorkerState.STARTING
    started_at: datetime | None = None
    restarts: int = 0
    deaths: int = 0
    retry_at: datetime | None = None
    reason: str | None = None

    def to_status(self, requests: int) -> WorkerStatus:
        """Return the status of the worker, which has been asked for so many predictions."""
        link = self.link
        return WorkerStatus(
            index=self.index,
            pid=link.pid if link is not None and not link.has_ended.is_set() else None,
            state=self.state,
            generation=link.generation if link is not None else 0,
            requests=requests,
            started_at=self.started_at,
            restarts=self.restarts,
            retry_at=self.retry_at,
            reason=self.reason,
        )

    @property
    def is_dying_again(self) -> bool:
        """Whether several workers in a row have died here."""
        return self.deaths >= BAD_DEATHS

    @property
    def problem(self) -> str | None:
        """Why nobody serves here, for an operator; None if somebody does, or will in a moment."""
        if self.state is WorkerState.SERVING or not self.is_dying_again:
            return None
        return f"worker {self.index} does not serve: {self.deaths} have ended in a row, the last one: {self.reason}"
