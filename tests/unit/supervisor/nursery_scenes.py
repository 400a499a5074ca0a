"""Scenes with a nursery, each in a process of its own, as forking needs one thread: python nursery_scenes.py NAME."""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from serving.supervisor.nursery import Nursery, NurseryGone

START_SECONDS = 20.0


def until(condition: Callable[[], Any], what: str) -> Any:
    """Wait for a condition and return what it gave. (The one of the servers' tests imports too much for a fork.)"""
    for _ in range(2000):
        if found := condition():
            return found
        time.sleep(0.01)
    raise AssertionError(what)


def work(index: int, descriptors: list[int]) -> int:
    """Say who this is, and end with the status that is asked for, or when nobody can ask any more."""
    channel = socket.socket(fileno=descriptors[0])
    channel.send(b"%d" % index)
    asked = channel.recv(16)
    return int(asked) if asked else 0


@dataclass
class Worker:
    channel: socket.socket
    pid: int
    pidfd: int

    def has_ended(self) -> bool:
        return bool(select.select([self.pidfd], [], [], 10)[0])


def start(nursery: Nursery, index: int) -> Worker:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        pid, pidfd = nursery.fork(index, [theirs.fileno()])
    ours.settimeout(10)
    assert ours.recv(16) == b"%d" % index
    return Worker(ours, pid, pidfd)


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def await_another(nursery: Nursery, gone: int) -> tuple[int, ...]:
    """Wait until there are two again, and return them."""
    return until(lambda: len(pids := nursery.pids) == 2 and gone not in pids and pids, "another spare")


def spare(nursery: Nursery, lost: threading.Event) -> None:
    """When the nursery is killed, its spare takes its place and has a spare; workers live on. Again and again."""
    workers = []
    for turn in range(3):
        pids = await_another(nursery, 0)
        workers.append(start(nursery, turn))
        kill(pids[0])
        assert await_another(nursery, pids[0])[0] == pids[1]
    workers.append(start(nursery, 3))
    for status, worker in enumerate(workers, 5):
        worker.channel.send(b"%d" % status)
        assert worker.has_ended()
        end = nursery.await_end(worker.pid, 10)
        if worker is workers[-1]:
            assert end is not None
            assert (end.pid, end.status) == (worker.pid, status)
        else:
            assert end is None, "its nursery is gone, so nobody knows"
    assert not lost.is_set()


def spare_first(nursery: Nursery, lost: threading.Event) -> None:
    """A spare that is killed is replaced by another one, and leaves no descriptor here."""
    pids = await_another(nursery, 0)
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(2):
        kill(pids[1])
        pids = await_another(nursery, pids[1])
    until(lambda: len(list(Path("/proc/self/fd").iterdir())) == descriptors, "as many descriptors as before")
    kill(pids[0])
    await_another(nursery, pids[0])
    start(nursery, 1)
    assert not lost.is_set()


def stopped(nursery: Nursery, lost: threading.Event) -> None:
    """A nursery that hangs is killed, and the spare asked next time."""
    pids = await_another(nursery, 0)
    os.kill(pids[0], signal.SIGSTOP)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    nursery._start_seconds = 1.0
    with ours, theirs, pytest.raises(NurseryGone, match="has not answered"):
        nursery.fork(1, [theirs.fileno()])
    nursery._start_seconds = START_SECONDS
    assert await_another(nursery, pids[0])[0] == pids[1]
    start(nursery, 1)
    assert not lost.is_set()


def both(nursery: Nursery, lost: threading.Event) -> None:
    """When all are killed at once it is told, nothing can be started, and workers live on."""
    pids = await_another(nursery, 0)
    worker = start(nursery, 1)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    for pid in pids:
        kill(pid)
    assert lost.wait(10)
    with pytest.raises(NurseryGone, match="were killed"):
        start(nursery, 2)
    worker.channel.send(b"0")
    assert worker.has_ended()


def ended(nursery: Nursery, lost: threading.Event) -> None:
    """How a worker ended is known, and its processor time; `close` ends nursery and spare, and is no loss."""
    pids = await_another(nursery, 0)
    worker = start(nursery, 1)
    kill(worker.pid)
    end = nursery.await_end(worker.pid, 10)
    assert end is not None
    assert end.status == -signal.SIGKILL
    assert end.cpu_seconds > 0
    nursery.close()
    for pid in pids:
        until(lambda pid=pid: is_gone(pid), "the end of the nursery")
    assert not lost.is_set()


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("Z")
    except (FileNotFoundError, ProcessLookupError):  # it ended before the file was opened, or read
        return True


if __name__ == "__main__":
    started = Nursery.start(work, START_SECONDS)
    is_lost = threading.Event()
    started.watch(is_lost.set)
    {each.__name__: each for each in (spare, spare_first, stopped, both, ended)}[sys.argv[1]](started, is_lost)
