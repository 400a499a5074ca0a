"""The uploads that this server knows: those under way, and the newest that have ended."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Any

from serving.domain.upload import UploadStatus
from serving.lifecycle.records import now_utc

MAX_SHOWN = 20
SHOWN_SECONDS = 600.0  # for how long one that has ended is shown


class UploadTable:
    """What is known of each upload. Any thread; waits for nothing."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[str, UploadStatus] = {}  # the oldest first
        self._forget_at: dict[str, float] = {}

    def add(self, status: UploadStatus) -> None:
        """Take in a new one."""
        with self._lock:
            self._known[status.id] = status

    def change(self, upload_id: str, **changes: Any) -> UploadStatus | None:
        """Change what is known, and return it; None for one that has ended, or is not known: its end stands."""
        with self._lock:
            before = self._known.get(upload_id)
            if before is None or before.state.has_ended:
                return None
            if "state" in changes:
                changes["at"] = now_utc()
            after = self._known[upload_id] = before.model_copy(update=changes)
            if after.state.has_ended:
                self._forget_at[upload_id] = self._clock() + SHOWN_SECONDS
            return after

    def find(self, upload_id: str) -> UploadStatus | None:
        """Return what is known of one."""
        with self._lock:
            return self._known.get(upload_id)

    def list_status(self) -> tuple[UploadStatus, ...]:
        """Return all that are shown now, the oldest first; the others are forgotten."""
        with self._lock:
            now = self._clock()
            ended = [one for one, at in self._forget_at.items() if at <= now]
            excess = [one for one, status in self._known.items() if status.state.has_ended]
            ended += excess[: max(0, len(self._known) - MAX_SHOWN)]
            for one in ended:
                self._known.pop(one, None)
                self._forget_at.pop(one, None)
            return tuple(self._known.values())

    def list_under_way(self) -> list[UploadStatus]:
        """Return those that have not ended."""
        with self._lock:
            return [one for one in self._known.values() if not one.state.has_ended]

    def next_due(self) -> float:
        """Return when `list_status` shows less than now if nothing happens, infinity for never."""
        with self._lock:
            return min(self._forget_at.values(), default=math.inf)
