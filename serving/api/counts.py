"""What the service has counted, wherever that is known: here with one worker, in the supervisor with several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from serving.domain.status import WorkerStatus
from serving.plane.active_reference import HoldsActive, read
from serving.telemetry.metrics import Metrics
from serving.telemetry.traffic import Traffic, VersionLeases, VersionTraffic


class Counts(Protocol):
    """Counts of the whole service. Awaited on the event loop."""

    async def render(self, accept: str) -> tuple[bytes, str]:
        """Return all metrics as text, and its content type, for the caller's ``Accept``."""
        ...

    async def sum_of(self, model: str, versions: Sequence[str]) -> list[Traffic]:
        """Return what was counted of each of these versions."""
        ...

    async def list_traffic(self) -> list[VersionTraffic]:
        """Return what was counted of every version so far; the rows may change later."""
        ...

    async def list_workers(self) -> tuple[WorkerStatus, ...]:
        """Return the processes that answer, by index; none where the server's own process does."""
        ...


class OwnCounts:
    """Implements `Counts` where this process is the whole service. `state` is ``app.state``."""

    def __init__(self, state: HoldsActive, metrics: Metrics) -> None:
        self._state = state
        self._metrics = metrics

    async def render(self, accept: str) -> tuple[bytes, str]:
        """Implement `Counts.render`."""
        return self._metrics.render(list_leases(self._state), accept)

    async def sum_of(self, model: str, versions: Sequence[str]) -> list[Traffic]:
        """Implement `Counts.sum_of`."""
        return [self._metrics.traffic(model, version) for version in versions]

    async def list_traffic(self) -> list[VersionTraffic]:
        """Implement `Counts.list_traffic`."""
        return self._metrics.list_traffic()

    async def list_workers(self) -> tuple[WorkerStatus, ...]:
        """Implement `Counts.list_workers`."""
        return ()


def list_leases(state: HoldsActive) -> list[VersionLeases]:
    """Return every loaded version of this process, and how many requests hold it now. Event loop thread only."""
    return [
        VersionLeases(name, version, servable.leases, servable is model.active)
        for name, model in read(state).models.items()
        for version, servable in model.loaded.items()
    ]
