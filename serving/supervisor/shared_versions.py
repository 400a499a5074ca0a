"""What the workers have loaded, as control keeps it: enough to let one more worker load the same.

Graphs lie in memory that all processes share. A host has a set of channels for each worker; a set is used by one worker
and never by another, as nobody knows what was under way on it when a worker died.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field

from serving.domain.plan import Compiled, Load
from serving.hosting.host_process import HostProcess
from serving.wire.worker_messages import LoadOrder, share_content


@dataclass(eq=False)
class Host:
    """One host, and the workers that use it, by index. `is_replaced`: no other worker will use it."""

    number: int
    process: HostProcess
    users: set[int] = field(default_factory=set)
    is_replaced: bool = False
    is_told: bool = False

    def take_channels(self, worker: int) -> list[int]:
        """Return the descriptors of a set of channels for this worker, the caller's to close; empty if none is left."""
        slot = self.process.take_slot()
        if slot is None:
            return []
        self.users.add(worker)
        descriptors: list[int] = []
        for sock, arena in slot:
            descriptors += [sock.detach(), arena]
        return descriptors


class SharedVersion:
    """One version that workers load. The lock of its owner guards it."""

    def __init__(self, command: Load, process: HostProcess | None) -> None:
        self.key = command.key
        self.order = LoadOrder.of(command)
        self.host = None if process is None else Host(command.host, process)
        graphs = command.placement.graphs if isinstance(command.placement, Compiled) else ()
        self._graphs = [share_content(graph.content) for graph in graphs]
        self.users: set[int] = set()
        self.failures: list[str] = []

    def take_descriptors(self, worker: int) -> list[int]:
        """Return what travels with the order to this worker; the caller closes it."""
        if self.host is not None:
            return self.host.take_channels(worker)
        return [os.dup(fd) for fd in self._graphs]

    def close(self) -> None:
        """Free the graphs. The host is its owner's."""
        for fd in self._graphs:
            with contextlib.suppress(OSError):
                os.close(fd)
        self._graphs = []
