"""A plane that builds nothing: it remembers what control has said, and the test says what it tells."""

from __future__ import annotations

from serving.domain.plan import (
    Commit,
    Compiled,
    Draining,
    Load,
    Loaded,
    LoadFailed,
    NoRoom,
    Plan,
    Prepare,
    ReplaceHost,
    ReportOutage,
    Route,
    Unload,
)
from serving.domain.recent_rows import RecentRows
from serving.domain.spread import Spread
from serving.domain.version import VersionId
from serving.hosting.host_process import HostProcess


class FakePlane:
    """Stands for `serving.plane.plane.Plane`. Like it, it takes no plan that names what is not loaded."""

    def __init__(self) -> None:
        self.loaded: set[VersionId] = set()
        self.unloaded: list[VersionId] = []
        self.outages: list[ReportOutage] = []
        self.sampled: list[VersionId] = []
        self.recent: RecentRows | None = None
        self.spread: dict[str, Spread] = {}
        self.plan = Plan()
        self.failure: str | None = None
        self.lack: str | None = None
        self._prepared = Plan()

    def load(self, command: Load, process: HostProcess | None = None) -> Loaded | LoadFailed | NoRoom:
        """Have a version loaded at once, or not when there is a `failure`, or a `lack` of room for a graph."""
        if self.lack is not None and isinstance(command.placement, Compiled):
            return NoRoom(command.key, self.lack)
        if self.failure is not None:
            return LoadFailed(command.key, self.failure)
        self.loaded.add(command.key)
        return Loaded(command.key)

    def replace_host(self, command: ReplaceHost, process: HostProcess) -> Loaded | LoadFailed:
        """Take another host for a version that is loaded."""
        return Loaded(command.key) if command.key in self.loaded else LoadFailed(command.key, "not loaded")

    def prepare(self, command: Prepare) -> None:
        """Keep a plan."""
        for route in command.plan.routes.values():
            shared = [route.split.new, route.split.old] if route.split is not None else []
            missing = {*route.loaded, *([route.active] if route.active else []), *shared} - self.loaded
            assert not missing, f"the plan names what is not loaded: {missing}"
        assert command.plan.generation > self.plan.generation
        self._prepared = command.plan

    def commit(self, command: Commit) -> None:
        """Put the prepared plan in place."""
        assert command.generation == self._prepared.generation
        self.plan = self._prepared

    def unload(self, command: Unload) -> Draining:
        """Have a version drain; the test tells when it has."""
        named = [key for route in self.plan.routes.values() for key in (route.active, *route.loaded)]
        assert command.key not in named, "the plan still names it"
        self.loaded.remove(command.key)
        self.unloaded.append(command.key)
        return Draining(command.key, 0)

    def sample(self, key: VersionId) -> RecentRows | None:
        """Return the `recent` rows."""
        self.sampled.append(key)
        return self.recent

    def spreads(self, model: str) -> dict[str, Spread]:
        """Return what a test has said."""
        return self.spread

    def report_outage(self, command: ReportOutage) -> None:
        """Remember what those who wait are told."""
        self.outages.append(command)

    def route(self, model: str) -> Route | None:
        """Return what answers for a model."""
        return self.plan.routes.get(model)
