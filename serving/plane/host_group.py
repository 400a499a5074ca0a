"""The group of processes that answer for one version: a host and the replicas it has forked."""

from __future__ import annotations

import asyncio
import mmap
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Protocol

from serving.plane.batching import Request, encode, note_batch
from serving.plane.host_link import HostLink
from serving.rows.batch import bound_answer_bytes
from serving.wire.frames import Frame


class Process(Protocol):
    """The part of a host process that this package uses. The first channel is the host's, the others its replicas'."""

    @property
    def channels(self) -> Sequence[tuple[socket.socket, mmap.mmap]]:
        """The server's ends: a socket and an arena for each process that answers."""
        ...

    @property
    def exited(self) -> Future[int | None]:
        """Resolved when the host has ended."""
        ...

    def kill(self) -> None:
        """Kill it, and with it its replicas."""
        ...

    def close(self) -> None:
        """Kill it and close its sockets and arenas."""
        ...


class Replica:
    """One process that answers, and the requests that it answers now: one frame at a time, of `rows` rows."""

    def __init__(self, group: HostGroup, arena: mmap.mmap, on_frame: OnFrame, on_lost: OnLost) -> None:
        self.group = group
        self.link = HostLink(arena, partial(on_frame, self), partial(on_lost, self))
        self.members: list[Request] = []
        self.rows = 0
        self.is_stuck = False

    @property
    def is_idle(self) -> bool:
        """True when it could answer something now."""
        return not self.members and self.link.is_connected

    def send(self, members: list[Request], most_rows: int = 0) -> None:
        """Send requests of one layout; raises what `encode` raises, and then nothing was sent.

        `most_rows`: see `HostLink.send`.
        """
        header, buffers = encode(members)
        self.members = members
        self.rows = rows = sum([member.batch.rows for member in members])
        for member in members:
            if member.trace is not None:
                note_batch(member.trace, rows, len(members))
        self.link.send(header, buffers, bound_answer_bytes(rows), most_rows)

    def take(self) -> list[Request]:
        """Return the requests under way and forget them."""
        members, self.members, self.is_stuck = self.members, [], False
        return members

    def expire(self, now: float) -> bool:
        """Answer members that are past their deadline; returns whether the process is now stuck, with none left."""
        expired = [member for member in self.members if member.ends_at <= now]
        for member in expired:
            member.expire()
        was_stuck, self.is_stuck = self.is_stuck, bool(expired) and len(expired) == len(self.members)
        return self.is_stuck and not was_stuck


OnFrame = Callable[[Replica, Frame], None]
OnLost = Callable[[Replica], None]


class HostGroup:
    """A host process and one link to each process that answers. Event loop thread only."""

    def __init__(self, process: Process, on_frame: OnFrame, on_lost: OnLost) -> None:
        self.process = process
        self.replicas = [Replica(self, arena, on_frame, on_lost) for _, arena in process.channels]

    async def connect(self) -> None:
        """Take over the sockets. From now on `on_frame` gets each answer, and `on_lost` the end of each link, once."""
        loop = asyncio.get_running_loop()
        for replica, (sock, _) in zip(self.replicas, self.process.channels, strict=True):
            sock.setblocking(False)
            await loop.create_connection(partial(_return_link, replica.link), sock=sock)

    @property
    def can_answer(self) -> bool:
        """True while the host lives, and any of its processes is there and not stuck."""
        is_usable = any(replica.link.is_connected and not replica.is_stuck for replica in self.replicas)
        return is_usable and self.replicas[0].link.is_connected

    @property
    def violation(self) -> str | None:
        """How one of the processes broke the protocol or ended itself; None if none has."""
        return next((replica.link.violation for replica in self.replicas if replica.link.violation is not None), None)

    @property
    def is_whole(self) -> bool:
        """True while every process is connected and none is stuck."""
        return all(replica.link.is_connected and not replica.is_stuck for replica in self.replicas)

    @property
    def is_answering(self) -> bool:
        """True while a caller still waits for an answer that is under way."""
        return any(replica.members and not replica.is_stuck for replica in self.replicas)

    def find_idle(self) -> Replica | None:
        """Return a process that could answer something now."""
        for replica in self.replicas:
            if replica.is_idle:
                return replica
        return None

    def end(self) -> None:
        """Kill every process and close everything, also with answers under way."""
        for replica in self.replicas:
            replica.link.abort()
        self.process.close()


def _return_link(link: HostLink) -> HostLink:
    return link
