"""Forks more processes for one version from the host that has loaded it, so that they share its memory."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

from serving import sandbox
from serving.host.channels import Channel, ChannelEnds, Lifeline

_PR_SET_CHILD_SUBREAPER = 36


def fork_replicas(
    lifeline: Lifeline, own: Sequence[Channel], others: Sequence[Sequence[ChannelEnds]]
) -> tuple[Sequence[Channel], list[int] | None]:
    """Fork a process for each of `others`, the channels of one replica; return the channels that a process serves.

    The second value is the list of the replicas' process ids; None in a replica. The parent serves its `own` channels.
    Each process closes the channels of the others, so the end of a process ends its channels; only the parent keeps the
    lifeline.

    Only the thread that will serve may call this, when no other thread exists: replicas die with this thread
    (PR_SET_PDEATHSIG), and it has computed nothing yet, so no OpenMP runtime needs threads that a fork does not copy.

    If the system cannot fork now, this process kills itself: its candidate gets no verdict and is tried again later,
    as after any kill from outside.
    """
    parent = os.getpid()
    replicas: list[int] = []
    for index, ends in enumerate(others):
        try:
            pid = os.fork()
        except OSError:
            os.kill(parent, signal.SIGKILL)
            raise
        if pid == 0:
            sandbox.die_with_parent(parent)
            lifeline.socket.close()
            for channel in own:
                channel.close()
            for left in others[index + 1 :]:
                for end in left:
                    end.close()
            return [end.open() for end in ends], None
        for end in ends:
            end.close()
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
