"""Passes on what waits for workers that do not accept: connections that wait are served by the others meanwhile.

The kernel gives each worker's listener its share of new connections, whether that worker accepts or not. It does not
while it starts, drains, hangs, or is dead and waits for its next start. All that it has not accepted or taken is in
sockets that the supervisor holds, too. So the supervisor accepts and takes in its place, and passes each connection to
the worker that has the fewest. Nothing is read of any.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass

from serving.ports.choose_worker import ALL, choose_worker
from serving.ports.handover import Passed, count_waiting, give, has_free_descriptor, take
from serving.ports.shared_port import SharedPort

MOST_FORWARDED = 16  # connections of one socket, before it is asked again who accepts
FULL_SECONDS = 0.01  # until a worker may have taken some of what waits for it


@dataclass(frozen=True, slots=True)
class _Source:
    """A socket of a worker that does not accept."""

    port: SharedPort
    worker: int
    socket: socket.socket

    def choose(self) -> int | None:
        """Return the worker that gets the next connection."""
        giving = self.port.shares[self.worker].giving
        return choose_worker(self.worker, ALL, self.port.counts.read(), lambda worker: count_waiting(giving[worker]))

    def accept(self) -> Passed | None:
        """Return the next connection, None if there is none."""
        try:
            if self.socket is self.port.shares[self.worker].taking:
                return take(self.socket)
            return Passed(self.socket.accept()[0], has_answered=False)
        except OSError:
            return None

    def give(self, worker: int, passed: Passed) -> bool:
        """Pass a connection to a worker; False if that is not possible now."""
        giving = self.port.shares[self.worker].giving[worker]
        return give(giving, passed.connection.fileno(), has_answered=passed.has_answered)


class ConnectionForwarder:
    """Serves, in the supervisor, all ports for workers that do not accept.

    `forward` is called again and again by one thread, which closes it when it has ended; the rest by any thread.
    """

    def __init__(self, ports: Sequence[SharedPort]) -> None:
        self._ports = ports
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._held: tuple[_Source, Passed] | None = None  # accepted, but not given yet

    def leave_out(self, worker: int) -> None:
        """Pass nothing more to a worker, and what waits for it to others: it hangs, or has ended."""
        for port in self._ports:
            port.leave_out(worker)
        self.wake()

    def readmit(self, worker: int) -> None:
        """End `leave_out`: it does not hang any more."""
        for port in self._ports:
            port.readmit(worker)

    def expect_successor(self, worker: int) -> None:
        """End `leave_out` for a worker that has ended: nothing is passed to its successor until that accepts."""
        for port in self._ports:
            port.expect_successor(worker)

    def wake(self) -> None:
        """Have `forward` look again who accepts. It looks at each call, too. Also for signal handlers."""
        with contextlib.suppress(OSError, ValueError):  # closed by now
            os.eventfd_write(self._wake, 1)

    def forward(self, seconds: float) -> None:
        """Pass on what waits and what comes, for so long or until `wake` is called. Blocks."""
        ends_at = time.monotonic() + seconds
        while True:
            if self._held is not None:
                self._give(*self._held)
            sources = self._find_sources()
            poller = select.poll()
            for descriptor in (self._wake, *sources):
                poller.register(descriptor, select.POLLIN)
            ready = dict(poller.poll(max(0.0, ends_at - time.monotonic()) * 1000))
            if self._wake in ready:
                os.eventfd_read(self._wake)
                return
            has_room = False not in [self._forward(sources[one]) for one in ready]
            left = ends_at - time.monotonic()
            if left <= 0:
                return
            if not has_room:
                time.sleep(min(FULL_SECONDS, left))

    def close(self) -> None:
        """Give everything back; the ports stay open. All other calls do nothing from now on."""
        self._ports = ()
        if self._held is not None:
            self._held[1].connection.close()
        os.close(self._wake)
        self._wake = -1

    def _find_sources(self) -> dict[int, _Source]:
        """Return what to read, by descriptor: nothing where there is no worker to pass it to."""
        found: dict[int, _Source] = {}
        for port in self._ports:
            counts = port.counts.read()
            if all(count is None for count in counts):
                continue
            for share, count in zip(port.shares, counts, strict=True):
                if count is None:
                    for one in (share.taking, *share.listeners):
                        found[one.fileno()] = _Source(port, share.worker, one)
        return found

    def _forward(self, source: _Source) -> bool:
        """Pass some connections on; False if there is no room for one, here or there."""
        for _ in range(MOST_FORWARDED):
            if source.choose() is None:
                return True
            if self._held is not None or not has_free_descriptor():
                return False
            passed = source.accept()
            if passed is None:
                return True
            if not self._give(source, passed):
                return False
        return True

    def _give(self, source: _Source, passed: Passed) -> bool:
        """Pass a connection on. If nobody has room, let it wait where the worker's successor takes it, or hold it."""
        worker = source.choose()
        is_given = worker is not None and source.give(worker, passed)
        self._held = None if is_given or source.give(source.worker, passed) else (source, passed)
        if self._held is None:
            passed.connection.close()
        return is_given
