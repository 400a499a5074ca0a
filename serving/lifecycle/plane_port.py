"""What control sees of the plane: commands go in, and their results come back as facts."""

from __future__ import annotations

from typing import Protocol

from serving.domain.plan import (
    Commit,
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


class PlanePort(Protocol):
    """A plane, or a fake of it.

    `load`, `replace_host`, `sample` and `spreads` block, in worker threads; the others do not wait.
    """

    def load(self, command: Load, process: HostProcess | None = None) -> Loaded | LoadFailed | NoRoom:
        """Make a version ready to answer; `process` is the host of a hosted one, the caller's until it is loaded."""
        ...

    def replace_host(self, command: ReplaceHost, process: HostProcess) -> Loaded | LoadFailed:
        """Let `process` answer for a loaded version; it is the caller's until that has worked."""
        ...

    def prepare(self, command: Prepare) -> None:
        """Keep a plan beside the one that answers."""
        ...

    def commit(self, command: Commit) -> None:
        """Let the plan that was prepared answer."""
        ...

    def unload(self, command: Unload) -> Draining:
        """Free a version that no plan names, when its last request has been answered."""
        ...

    def sample(self, key: VersionId) -> RecentRows | None:
        """Return recent rows of a model, and what this version, the active one, answers to them; None: there are none.

        It takes a few seconds at most, whatever the rows.
        """
        ...

    def spreads(self, model: str) -> dict[str, Spread]:
        """Return how the answers of each loaded version of a model are spread, by version."""
        ...

    def report_outage(self, command: ReportOutage) -> None:
        """Tell requests that wait for a host that none can be started now."""
        ...
