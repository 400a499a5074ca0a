"""Accepts the connections of a port that several workers share, and keeps few long connections even.

A worker that has more connections than another (`serving.ports.choose_worker`) passes on:

- the next connection that it accepts, before anything of it is read. One that came from another worker stays, and one
  that cannot be passed on;
- once in a second, and when it stops, connections that are open: between two requests, when every answer is sent. So a
  worker that has just started gets its part, and clients do not notice when one stops.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import structlog

from serving.http1.counted_connection import CountedConnection, OpenTally
from serving.ports.choose_worker import ALL, choose_worker
from serving.ports.handover import ConnectionDropped, count_waiting, give, has_free_descriptor, take
from serving.ports.listening import BACKLOG
from serving.ports.shared_port import PortShare

MOST_TAKEN = 16  # connections that are taken before others have their turn
RETRY_SECONDS = 1.0  # until a descriptor may be free again, as in asyncio
EVEN_SECONDS = 1.0

log = structlog.get_logger("serving.http1")

# `has_answered`: see `CountedConnection`. The protocol's `connection_lost` calls `OpenTally.end`.
MakeProtocol = Callable[[OpenTally, bool], asyncio.Protocol]


class Acceptor:
    """Serves one worker's share of a port, in the place of an `asyncio.Server`. Event loop thread only.

    It closes the share's descriptors in this process; the supervisor keeps its own. A worker that has `most_open`
    connections (0: there is no limit) passes on every other one that it accepts.
    """

    def __init__(
        self, share: PortShare, make_protocol: MakeProtocol, most_open: int = 0, backlog: int = BACKLOG
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._share = share
        self._make_protocol = make_protocol
        self._most_open = most_open or ALL
        self._backlog = backlog
        self._tally = OpenTally(share)
        self._servers: list[asyncio.Server] = []
        self._retry: asyncio.TimerHandle | None = None
        self._evening: asyncio.TimerHandle | None = None
        self._starting: set[asyncio.Task[Any]] = set()
        self._is_closed = False

    async def start(self) -> None:
        """Accept connections, those first that wait already. Raises OSError."""
        for one in self._share.listeners:
            server = await self._loop.create_server(self._accept, sock=one, backlog=self._backlog)
            self._servers.append(server)
        self._watch()
        self._even_out()

    def close(self) -> None:
        """Accept no more. What waits for this worker waits for its successor. A second call does nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        self._unwatch()
        if self._evening is not None:
            self._evening.cancel()
        for server in self._servers:
            server.close()

    async def wait_closed(self) -> None:
        """Wait until the sockets are closed, as `asyncio.Server.wait_closed` does; after `close`. Connections that are
        open are not passed on from then on.
        """
        await asyncio.gather(*self._starting, return_exceptions=True)
        await asyncio.gather(*(server.wait_closed() for server in self._servers))
        self._tally.relieve = None
        self._share.close_handover()

    # --- accepting ----------------------------------------------------------------------------------------------------

    def _accept(self) -> asyncio.Protocol:
        """Return the protocol of a connection that the loop has just accepted (called by the loop)."""
        if self._choose_for_new() is not None:
            return _Passing(self._pass_on)
        return self._make(has_answered=False)

    def _make(self, *, has_answered: bool) -> asyncio.Protocol:
        protocol = self._make_protocol(self._tally, has_answered)
        self._tally.begin(protocol)  # now, as the loop may accept several before it opens the first
        return protocol

    def _choose(self, own_count: int) -> int | None:
        """Return the worker that gets a connection, if this one has as many without it; None if it stays."""
        worker = self._share.worker
        own_count += self._count_waiting(worker)
        return choose_worker(worker, own_count, self._share.counts.read(), self._count_waiting)

    def _choose_for_new(self) -> int | None:
        own_count = len(self._tally)
        return None if self._is_closed else self._choose(own_count if own_count < self._most_open else ALL)

    def _count_waiting(self, worker: int) -> int:
        return count_waiting(self._share.giving[worker])

    def _pass_on(self, transport: asyncio.Transport) -> None:
        """Pass a connection on, or keep it. Others were accepted in the same turn, so it is chosen again."""
        worker = self._choose_for_new()
        if worker is not None and give(self._share.giving[worker], transport.get_extra_info("socket").fileno()):
            transport.abort()  # closes the descriptor of this process, and says nothing to the client
            return
        protocol = self._make(has_answered=False)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)

    # --- taking -------------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Take connections that other workers pass, from now on or as soon as there is a descriptor for one."""
        if has_free_descriptor():
            self._retry = None
            self._loop.add_reader(self._share.taking, self._take)
            self._tally.invite()
        else:
            self._retry = self._loop.call_later(RETRY_SECONDS, self._watch)

    def _unwatch(self) -> None:
        self._tally.decline()
        self._loop.remove_reader(self._share.taking)
        if self._retry is not None:
            self._retry.cancel()

    def _take(self) -> None:
        """Serve connections that were passed to this worker (called by the loop).

        The kernel would close a connection that arrives where no descriptor is left, so they wait until there is one.
        """
        for _ in range(MOST_TAKEN):
            if not has_free_descriptor():
                self._unwatch()
                self._watch()
                return
            try:
                passed = take(self._share.taking)
            except ConnectionDropped as error:
                log.error("connection_dropped", reason=str(error))
                continue
            if passed is None:
                return
            protocol = self._make(has_answered=passed.has_answered)
            task = self._loop.create_task(self._serve(passed.connection, protocol))
            self._starting.add(task)
            task.add_done_callback(self._starting.discard)

    async def _serve(self, connection: socket.socket, protocol: asyncio.Protocol) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: protocol, connection)
        except Exception:
            self._tally.end(protocol)
            connection.close()
            raise

    # --- passing on what is open --------------------------------------------------------------------------------------

    def pass_on_open(self) -> bool:
        """Pass on all connections, those with a request under way after its answer. Returns whether to call it again:
        some are left, and there is a worker for them. After `close`.
        """
        self._relieve_all()
        return len(self._tally) > 0 and self._choose_for_open() is not None

    def _choose_for_open(self) -> int | None:
        return self._choose(ALL if self._is_closed else len(self._tally) - 1)

    def _even_out(self) -> None:
        """Pass on what this worker has too many (called by the loop)."""
        self._relieve_all()
        self._evening = self._loop.call_later(EVEN_SECONDS, self._even_out)

    def _relieve_all(self) -> None:
        """Pass on connections that are free now; more of them as soon as they have answered."""
        worker = self._choose_for_open()
        for connection in self._tally:
            if worker is None:
                break
            if isinstance(connection, CountedConnection) and connection.pass_on(self._share.giving[worker]):
                worker = self._choose_for_open()
        self._tally.relieve = None if worker is None else self._relieve

    def _relieve(self, connection: CountedConnection) -> None:
        """Pass on a connection that has just answered, if this worker has too many still (called by the loop)."""
        if self._tally.relieve is None:
            return
        worker = self._choose_for_open()
        if worker is None:
            self._tally.relieve = None
        else:
            connection.pass_on(self._share.giving[worker])


class _Passing(asyncio.Protocol):
    """A connection that will be passed on as soon as it has a transport. Nothing of it is read before."""

    def __init__(self, pass_on: Callable[[asyncio.Transport], None]) -> None:
        self._pass_on = pass_on

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Pass the connection on (called by the loop)."""
        self._pass_on(transport)
