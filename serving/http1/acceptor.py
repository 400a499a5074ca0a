"""Accepts the connections of a port that several workers share, and keeps few long connections even.

The kernel spreads connections over workers by a hash of their addresses, so four connections that stay open may all be
one worker's. So a worker that has more connections than another passes the next one on. Three rules:

- Only a connection that has just been accepted is passed on, and only once: nothing of it has been read. One that came
  from another worker stays.
- A connection that cannot be passed on is kept.
- A worker may have an eighth more than the others. Of few connections each counts, and one more is enough to pass the
  next one on; many are spread well enough by the kernel, and passing costs about as much as accepting.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Sequence
from typing import Any

import structlog

from serving.http1.connection import HttpConnection
from serving.ports.handover import ConnectionDropped, count_waiting, give, take
from serving.ports.listening import BACKLOG
from serving.ports.shared_port import PortShare

MOST_TAKEN = 16  # connections that are taken before others have their turn
RETRY_SECONDS = 1.0  # until a descriptor may be free again, as in asyncio
SLACK_SHARE = 8

log = structlog.get_logger("serving.http1")


class OpenTally:
    """The connections of one port that a worker has open; other workers see how many. Event loop thread only."""

    def __init__(self, share: PortShare) -> None:
        self._share = share
        self._open: set[asyncio.BaseProtocol] = set()
        self._is_published = False

    def __len__(self) -> int:
        return len(self._open)

    def begin(self, connection: asyncio.BaseProtocol) -> None:
        """Count a connection."""
        self._open.add(connection)
        self._publish()

    def end(self, connection: asyncio.BaseProtocol) -> None:
        """Count a connection no more; nothing happens if it is not counted."""
        self._open.discard(connection)
        self._publish()

    def invite(self) -> None:
        """Let other workers pass connections to this one."""
        self._is_published = True
        self._publish()

    def decline(self) -> None:
        """Have other workers pass no connections to this one."""
        self._is_published = False
        self._share.counts.decline(self._share.worker)

    def _publish(self) -> None:
        if self._is_published:
            self._share.counts.publish(self._share.worker, len(self._open))


class CountedConnection(HttpConnection):
    """A connection of a port that several workers share."""

    def __init__(self, *args: Any, tally: OpenTally, **options: Any) -> None:
        super().__init__(*args, **options)
        self._tally = tally

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection (called by the loop)."""
        self._tally.end(self)
        super().connection_lost(exc)


MakeProtocol = Callable[[OpenTally], asyncio.Protocol]  # its `connection_lost` calls `OpenTally.end`


class Acceptor:
    """Serves one worker's share of a port, in the place of an `asyncio.Server`. Event loop thread only.

    It closes the share's descriptors in this process; the supervisor keeps its own.
    """

    def __init__(self, share: PortShare, make_protocol: MakeProtocol, backlog: int = BACKLOG) -> None:
        self._loop = asyncio.get_running_loop()
        self._share = share
        self._make_protocol = make_protocol
        self._backlog = backlog
        self._tally = OpenTally(share)
        self._servers: list[asyncio.Server] = []
        self._retry: asyncio.TimerHandle | None = None
        self._starting: set[asyncio.Task[Any]] = set()
        self._is_closed = False

    async def start(self) -> None:
        """Accept connections, those first that wait already. Raises OSError."""
        for one in self._share.listeners:
            server = await self._loop.create_server(self._accept, sock=one, backlog=self._backlog)
            self._servers.append(server)
        self._watch()

    @property
    def sockets(self) -> tuple[Any, ...]:
        """The sockets that listen; none after `close`."""
        return tuple(one for server in self._servers for one in server.sockets)

    def is_serving(self) -> bool:
        """Whether connections are accepted."""
        return bool(self._servers) and not self._is_closed

    def decline(self) -> None:
        """Have other workers pass no more connections to this one, which will stop soon; those passed are served."""
        self._tally.decline()

    def close(self) -> None:
        """Accept no more. What waits for this worker waits for its successor. A second call does nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        self._unwatch()
        for server in self._servers:
            server.close()

    async def wait_closed(self) -> None:
        """Wait until the sockets are closed, as `asyncio.Server.wait_closed` does; after `close`."""
        await asyncio.gather(*self._starting, return_exceptions=True)
        await asyncio.gather(*(server.wait_closed() for server in self._servers))

    # --- accepting ----------------------------------------------------------------------------------------------------

    def _accept(self) -> asyncio.Protocol:
        """Return the protocol of a connection that the loop has just accepted (called by the loop)."""
        if self._choose() is not None:
            return _Passing(self._pass_on)
        return self._make()

    def _make(self) -> asyncio.Protocol:
        protocol = self._make_protocol(self._tally)
        self._tally.begin(protocol)  # now, as the loop may accept several before it opens the first
        return protocol

    def _choose(self) -> int | None:
        if self._is_closed:
            return None
        worker = self._share.worker
        own_count = len(self._tally) + self._count_waiting(worker)
        return choose_worker(worker, own_count, self._share.counts.read(), self._count_waiting)

    def _count_waiting(self, worker: int) -> int:
        return count_waiting(self._share.giving[worker])

    def _pass_on(self, transport: asyncio.Transport) -> None:
        """Pass a connection on, or keep it. Others were accepted in the same turn, so it is chosen again."""
        worker = self._choose()
        if worker is not None and give(self._share.giving[worker], transport.get_extra_info("socket").fileno()):
            transport.abort()  # closes the descriptor of this process, and says nothing to the client
            return
        protocol = self._make()
        transport.set_protocol(protocol)
        protocol.connection_made(transport)

    # --- taking -------------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Take connections that other workers pass, from now on or as soon as there is a descriptor for one."""
        if _has_free_descriptor():
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
            if not _has_free_descriptor():
                self._unwatch()
                self._watch()
                return
            try:
                connection = take(self._share.taking)
            except ConnectionDropped as error:
                log.error("connection_dropped", reason=str(error))
                continue
            if connection is None:
                return
            task = self._loop.create_task(self._serve(connection, self._make()))
            self._starting.add(task)
            task.add_done_callback(self._starting.discard)

    async def _serve(self, connection: socket.socket, protocol: asyncio.Protocol) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: protocol, connection)
        except Exception:
            self._tally.end(protocol)
            connection.close()
            raise


def _has_free_descriptor() -> bool:
    try:
        os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


class _Passing(asyncio.Protocol):
    """A connection that will be passed on as soon as it has a transport. Nothing of it is read before."""

    def __init__(self, pass_on: Callable[[asyncio.Transport], None]) -> None:
        self._pass_on = pass_on

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Pass the connection on (called by the loop)."""
        self._pass_on(transport)


def choose_worker(
    own_worker: int, own_count: int, counts: Sequence[int | None], count_waiting: Callable[[int], int]
) -> int | None:
    """Return the worker that a new connection is passed to, None if `own_worker` keeps it.

    `counts` says how many connections each worker has open, None for one that must not be given any; `count_waiting`
    how many were given to a worker and are not in its count yet.
    """
    candidates = [
        (count, worker)
        for worker, count in enumerate(counts)
        if worker != own_worker and count is not None and own_count - count >= _slack(count)
    ]
    if not candidates:
        return None
    fewest, chosen = min((count + count_waiting(worker), worker) for count, worker in candidates)
    return chosen if own_count - fewest >= _slack(fewest) else None


def _slack(count: int) -> int:
    return 1 + count // SLACK_SHARE
