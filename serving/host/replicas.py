"""More processes for one version: forked from the host that has loaded it, so that they share its memory."""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import socket
import sys
from collections.abc import Sequence

from serving import sandbox
from serving.wire.frames import ARENA_BYTES

_PR_SET_CHILD_SUBREAPER = 36


class Channel:
    """The host's end of one socket and its arena. Takes the descriptors over.

    `end` is the end of the arena once more, which stays when the channel is closed: the place of last words.
    """

    def __init__(self, socket_fd: int, arena_fd: int) -> None:
        self.socket = socket.socket(fileno=socket_fd)
        self.arena = mmap.mmap(arena_fd, ARENA_BYTES)
        size = mmap.ALLOCATIONGRANULARITY
        self.end = mmap.mmap(arena_fd, size, offset=ARENA_BYTES - size)
        os.close(arena_fd)

    def close(self) -> None:
        """Give both back, in this process only; more than once is harmless."""
        self.socket.close()
        self.arena.close()


def channels_of(fds: Sequence[int]) -> list[Channel]:
    """Make channels of descriptors that come in pairs: socket, arena, socket, arena ..."""
    return [Channel(*pair) for pair in zip(fds[::2], fds[1::2], strict=True)]


def fork_replicas(channels: Sequence[Channel]) -> tuple[Channel, list[int]]:
    """Fork one process for each channel but the first; returns, in each process, the channel that it serves.

    The second value holds the replicas' process ids in the parent, which keeps the first channel, and is empty in a
    replica. No process keeps another's channel open, so the end of a process ends its socket. Called by the thread
    that will serve, when no other thread is left: replicas die with it (PR_SET_PDEATHSIG), and it has computed nothing,
    so no OpenMP runtime misses threads that a fork does not copy.

    Where the system cannot fork now, this process kills itself: its candidate is tried again later, as after any death
    from outside, and gets no verdict.
    """
    own, *others = channels
    parent = os.getpid()
    replicas: list[int] = []
    for channel in others:
        try:
            pid = os.fork()
        except OSError:
            os.kill(parent, signal.SIGKILL)
            raise
        if pid == 0:
            sandbox.die_with_parent(parent)
            for other in channels:
                if other is not channel:
                    other.close()
            return channel, []
        channel.close()
        replicas.append(pid)
    return own, replicas


def adopt_orphans() -> None:
    """Have this process inherit, and so reap, replicas whose host was killed (Linux; elsewhere init does).

    Otherwise they would go to the first process of a container, which may be one that reaps nobody.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def await_replicas(pids: Sequence[int]) -> None:
    """Wait until replicas are gone: their sockets end with that of their host. One that is stuck dies with it."""
    for pid in pids:
        os.waitpid(pid, 0)
