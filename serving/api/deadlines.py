"""Ends things that take too long, such as a connection or a body: one timer for all of a kind."""

from __future__ import annotations

import asyncio
from typing import Protocol

SWEEP_SECONDS = 1.0
SWEEPS = 4


class Overdue(Protocol):
    """A thing that can take too long."""

    def on_overdue(self) -> None:
        """End it. It has no deadline any more, unless it begins again."""


class Deadlines:
    """Calls `on_overdue` of everything that began `seconds` ago. It is late by at most one sweep.

    A sweep comes every second, or after a quarter of a shorter deadline. To begin and to end cost one operation on a
    dictionary each: there is no timer for a request. Event loop thread only, that of `loop`.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self.loop = loop
        self._seconds = seconds
        self._every = min(SWEEP_SECONDS, seconds / SWEEPS)
        self._since: dict[Overdue, float] = {}  # the oldest first: all have the same time
        self._is_ticking = False

    def __contains__(self, one: Overdue) -> bool:
        return one in self._since

    def begin(self, one: Overdue) -> None:
        """Count its time from now."""
        self._since.pop(one, None)
        self._since[one] = self.loop.time()
        if not self._is_ticking:
            self._is_ticking = True
            self.loop.call_later(self._every, self._sweep)

    def end(self, one: Overdue) -> None:
        """Remove its deadline; nothing happens if it has none."""
        self._since.pop(one, None)

    def _sweep(self) -> None:
        until = self.loop.time() - self._seconds
        overdue = []
        for one, since in self._since.items():
            if since > until:
                break
            overdue.append(one)
        for one in overdue:
            self._since.pop(one, None)
            one.on_overdue()
        self._is_ticking = bool(self._since)
        if self._is_ticking:
            self.loop.call_later(self._every, self._sweep)
