"""Forks more processes for one version from the host that has loaded it, so that they share its memory."""

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
    """The host's end of one socket, with its arena. Owns the descriptors.

    `end` maps the end of the arena a second time and stays open when the channel is closed: the place of last words.
    """

    def __init__(self, socket_fd: int, arena_fd: int) -> None:
        self.socket = socket.socket(fileno=socket_fd)
        self.arena = mmap.mmap(arena_fd, ARENA_BYTES)
        size = mmap.ALLOCATIONGRANULARITY
        self.end = mmap.mmap(arena_fd, size, offset=ARENA_BYTES - size)
        os.close(arena_fd)

    def close(self) -> None:
        """Close the socket and the arena in this process only; may be called more than once."""
        self.socket.close()
        self.arena.close()


def make_channels(fds: Sequence[int]) -> list[Channel]:
    """Make channels from descriptors that come in pairs: socket, arena, socket, arena ..."""
    return [Channel(*pair) for pair in zip(fds[::2], fds[1::2], strict=True)]


def fork_replicas(channels: Sequence[Channel]) -> tuple[Channel, list[int]]:
    """Fork one process for each channel but the first; returns in each process the channel that it serves.

    The second value is the list of the replicas' process ids; it is empty in a replica. The parent serves the first
    channel. Each process closes the channels of the others, so the end of a process ends its socket.

    Only the thread that will serve may call this, when no other thread exists: replicas die with this thread
    (PR_SET_PDEATHSIG), and it has computed nothing yet, so no OpenMP runtime needs threads that a fork does not copy.

    If the system cannot fork now, this process kills itself: its candidate gets no verdict and is tried again later,
    as after any kill from outside.
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
    """Make this process the parent of replicas whose host was killed, so that it reaps them (Linux only).

    Otherwise the first process of a container becomes their parent, and it may not reap processes.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def await_replicas(pids: Sequence[int]) -> None:
    """Wait until all replicas have ended. A stuck replica dies with this process (PR_SET_PDEATHSIG). Blocks."""
    for pid in pids:
        os.waitpid(pid, 0)
