"""Keeps compiled forms in all workers within their budget: asks it before every load, and counts what is loaded."""

from __future__ import annotations

import threading

from serving.domain.graph_budget import GraphBudget
from serving.domain.plan import (
    Commit,
    Compiled,
    Draining,
    Load,
    Loaded,
    LoadFailed,
    NoRoom,
    Prepare,
    ReplaceHost,
    ReportOutage,
    Unload,
)
from serving.domain.recent_rows import RecentRows
from serving.domain.spread import Spread
from serving.domain.version import VersionId
from serving.hosting.host_process import HostProcess
from serving.lifecycle.plane_port import PlanePort


class BudgetedPlanes:
    """The planes of all workers, which load no more compiled forms than `budget` says. Any thread.

    A form counts from the moment at which its load begins until it is to be unloaded.
    """

    def __init__(self, planes: PlanePort, budget: GraphBudget) -> None:
        self._planes = planes
        self._budget = budget
        self._loaded: dict[VersionId, int] = {}
        self._loaded_lock = threading.Lock()

    def load(self, command: Load, process: HostProcess | None = None) -> Loaded | LoadFailed | NoRoom:
        """Implement `PlanePort.load`."""
        placement = command.placement
        if not isinstance(placement, Compiled):
            return self._planes.load(command, process)
        with self._loaded_lock:
            reason = self._budget.why_no_room(command.key, placement.bounds.session_bytes, self._loaded)
            if reason is not None:
                return NoRoom(command.key, reason)
            self._loaded[command.key] = placement.bounds.session_bytes
        outcome: Loaded | LoadFailed | NoRoom | None = None
        try:
            outcome = self._planes.load(command, process)
            return outcome
        finally:
            if not isinstance(outcome, Loaded):
                self._forget(command.key)

    def replace_host(self, command: ReplaceHost, process: HostProcess) -> Loaded | LoadFailed:
        """Implement `PlanePort.replace_host`."""
        return self._planes.replace_host(command, process)

    def prepare(self, command: Prepare) -> None:
        """Implement `PlanePort.prepare`."""
        self._planes.prepare(command)

    def commit(self, command: Commit) -> None:
        """Implement `PlanePort.commit`."""
        self._planes.commit(command)

    def unload(self, command: Unload) -> Draining:
        """Implement `PlanePort.unload`."""
        self._forget(command.key)
        return self._planes.unload(command)

    def sample(self, key: VersionId) -> RecentRows | None:
        """Implement `PlanePort.sample`."""
        return self._planes.sample(key)

    def spreads(self, model: str) -> dict[str, Spread]:
        """Implement `PlanePort.spreads`."""
        return self._planes.spreads(model)

    def report_outage(self, command: ReportOutage) -> None:
        """Implement `PlanePort.report_outage`."""
        self._planes.report_outage(command)

    def _forget(self, key: VersionId) -> None:
        with self._loaded_lock:
            self._loaded.pop(key, None)
