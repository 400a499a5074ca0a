"""One port of several workers: all that the supervisor keeps of it, and the share that a worker gets."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from serving.ports.handover import make_pair
from serving.ports.listening import BACKLOG, Sockets, close_all, open_listeners, port_of
from serving.ports.open_counts import OpenCounts


@dataclass(frozen=True, slots=True)
class PortShare:
    """What one worker needs of a port. `listeners` and `taking` are its own; `giving` has one end for each worker."""

    worker: int
    listeners: Sockets
    taking: socket.socket
    giving: Sockets
    counts: OpenCounts

    def descriptors(self) -> list[int]:
        """Return what has to reach the worker's process, in an order that `receive` knows."""
        sockets = (self.taking, *self.giving, *self.listeners)
        return [self.counts.descriptor, *(one.fileno() for one in sockets)]

    @classmethod
    def receive(cls, worker: int, workers: int, descriptors: Sequence[int]) -> PortShare:
        """Make a share of the descriptors that have arrived; it owns them from now on. Raises OSError."""
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)  # a program's start passes descriptors without close-on-exec
        counts, *rest = descriptors
        taking, *others = (socket.socket(fileno=one) for one in rest)
        giving, listeners = tuple(others[:workers]), tuple(others[workers:])
        return cls(worker, listeners, taking, giving, OpenCounts(counts, workers))

    def close_handover(self) -> None:
        """Close everything but the listeners, whose loop closes them."""
        close_all((self.taking, *self.giving))
        self.counts.close()


class SharedPort:
    """A port that several workers listen on. The supervisor keeps it open as long as any worker may start. Nothing
    blocks but the opening.

    What waits for a worker, in its listeners and in its taking end, waits for its successor when it ends.
    """

    def __init__(self, listeners: Sequence[Sockets]) -> None:
        """Share listeners, one group for each worker: see `open`."""
        counts = OpenCounts.create(len(listeners))
        pairs = [make_pair() for _ in listeners]
        giving = tuple(pair[1] for pair in pairs)
        self.counts = counts
        self.shares = tuple(
            PortShare(worker, group, pair[0], giving, counts)
            for worker, (group, pair) in enumerate(zip(listeners, pairs, strict=True))
        )

    @classmethod
    def open(cls, host: str, port: int, workers: int, backlog: int = BACKLOG) -> SharedPort:
        """Listen, and connections wait from now on. Raises OSError as `open_listeners` does."""
        return cls(open_listeners(host, port, workers, backlog))

    @property
    def port(self) -> int:
        """The port's number, also if 0 was asked for."""
        return port_of(self.shares[0].listeners)

    def leave_out(self, worker: int) -> None:
        """Have no connections passed to a worker that does not answer; it may be alive."""
        self.counts.exclude(worker)

    def readmit(self, worker: int) -> None:
        """End `leave_out`: it answers again."""
        self.counts.include(worker)

    def expect_successor(self, worker: int) -> None:
        """Have no connections passed to a worker that has ended until its successor accepts."""
        self.counts.decline(worker)
        self.counts.include(worker)

    def stop_listening(self) -> None:
        """Close the listeners here. When the workers have closed theirs, too, clients cannot connect any more."""
        for share in self.shares:
            close_all(share.listeners)

    def close(self) -> None:
        """Close everything. Connections that wait for workers that have ended are reset."""
        for share in self.shares:
            close_all((*share.listeners, share.taking, *share.giving))
        self.counts.close()
