"""Forks workers from a process that has imported all they need and has one thread, so that they share its memory.

The supervisor cannot fork them itself: it has threads, and a lock that one of them holds would stay locked in the fork.
The nursery is forked from it before there is any, and ends with it. As no other could be forked later, each nursery
first forks a spare of itself, which takes its place when it dies or hangs. Workers outlive the nursery, but not their
channel to the supervisor.

Messages are packets of a Unix socket that keeps packets apart::

    supervisor -> nursery   u32 index, with the descriptors of the worker
    nursery -> supervisor   u8 event, i32 process id, i32 status, f64 processor seconds; a descriptor of the process
"""

from __future__ import annotations

import contextlib
import gc
import os
import queue
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import structlog

from serving.domain.errors import ServingError
from serving.sandbox.process import die_with_parent
from serving.supervisor.nursery_process import EVENT, ORDER, SPARE, NurseryEvent, Run, be_nursery

START_SECONDS = 10.0
SPARE_PAUSE_SECONDS = 1.0  # between two spares, if they die at once

log = structlog.get_logger("serving.workers")


class NurseryGone(ServingError):
    """No worker can be started now: the process that forks them has ended or does not answer."""


class Ended(NamedTuple):
    """A worker that is gone: how it ended (negative for a signal), and the processor time it took, in seconds."""

    pid: int
    status: int
    cpu_seconds: float


class _Forker:
    """One process that forks: the nursery or its spare. `is_gone` is set when it has ended."""

    def __init__(self, pid: int, pidfd: int, sock: socket.socket) -> None:
        self.pid = pid
        self.is_gone = False
        self._pidfd = pidfd
        self._pidfd_lock = threading.Lock()  # its number is another file's once it is closed
        self._socket = sock
        self._started: queue.SimpleQueue[tuple[int, int] | None] = queue.SimpleQueue()

    def order(self, index: int, descriptors: Sequence[int], seconds: float) -> tuple[int, int]:
        """Have it fork; return the process id and a descriptor of the process. Raises NurseryGone and OSError."""
        try:
            socket.send_fds(self._socket, [ORDER.pack(index)], descriptors)
            found = self._started.get(timeout=seconds)
        except (OSError, queue.Empty) as error:
            self.kill()  # one that answers late would start a worker that nobody knows
            reason = str(error) or f"the nursery has not answered for {seconds:g} s"
            raise NurseryGone(f"no worker could be started: {reason}") from None
        if found is None:
            raise NurseryGone("no worker could be started: the nursery has ended")
        if found[0] < 0:
            raise OSError(-found[0], f"no worker could be started: {os.strerror(-found[0])}")
        return found

    def read(self, on_end: Callable[[Ended], None], on_loss: Callable[[], None]) -> None:
        """Take in what it says until it ends. Blocks; a thread of its own."""
        with contextlib.suppress(OSError):
            while True:
                data, descriptors, _, _ = socket.recv_fds(self._socket, EVENT.size, 1)
                if not data:
                    break
                event, pid, status, seconds = EVENT.unpack(data)
                if event == NurseryEvent.ENDED:
                    on_end(Ended(pid, status, seconds))
                else:
                    self._started.put((pid, descriptors[0] if descriptors else -1))
        self.is_gone = True
        on_loss()
        self._started.put(None)
        with contextlib.suppress(ChildProcessError):  # a spare is the child of a nursery
            os.waitpid(self.pid, 0)
        with self._pidfd_lock:
            os.close(self._pidfd)
            self._pidfd = -1

    def kill(self) -> None:
        """End it at once."""
        with self._pidfd_lock, contextlib.suppress(OSError):
            if self._pidfd >= 0:
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def close(self) -> None:
        """End it."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)


class Nursery:
    """The supervisor's side. `start` and then `watch` are called by the main thread, the others by any.

    `start_seconds` is how long a fork may take until the nursery counts as hung.
    """

    def __init__(self, first: _Forker, start_seconds: float) -> None:
        self._forkers = [first]  # the one that forks workers, then its spare
        self._start_seconds = start_seconds
        self._forker_of: dict[int, _Forker] = {}
        self._ends: dict[int, Ended] = {}
        self._changed = threading.Condition()  # guards all of the above
        self._fork_lock = threading.Lock()  # one order at a time
        self._is_closed = False
        self._on_loss: Callable[[], None] = lambda: None

    @classmethod
    def start(
        cls, run: Run, start_seconds: float = START_SECONDS, forget: Callable[[], None] = lambda: None
    ) -> Nursery:
        """Fork it from this process, which has one thread. Workers call `run` with their index and descriptors.

        `forget` is called in it first, to close what only the supervisor keeps open.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        parent = os.getpid()
        gc.collect()
        gc.freeze()  # workers share these pages, and do not copy them when they look for garbage
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                ours.close()
                os.setpgid(0, 0)  # a terminal's signals reach the supervisor only
                die_with_parent(parent)
                forget()
                be_nursery(theirs, run)
                status = 0
            finally:
                os._exit(status)
        theirs.close()
        return cls(_Forker(pid, os.pidfd_open(pid), ours), start_seconds)

    def watch(self, on_loss: Callable[[], None]) -> None:
        """Begin to listen to it, and have it fork a spare. `on_loss` is called when nothing is left that can fork."""
        self._on_loss = on_loss
        self._read(self._forkers[0])
        self._keep_spare()

    @property
    def pids(self) -> tuple[int, ...]:
        """The processes that can fork: the one that does, then its spare."""
        with self._changed:
            return tuple(forker.pid for forker in self._forkers)

    def fork(self, index: int, descriptors: Sequence[int]) -> tuple[int, int]:
        """Start a worker; return its process id and a descriptor of its process.

        Raises NurseryGone: the spare is asked next time, if there is one. Raises OSError.
        """
        with self._fork_lock:
            with self._changed:
                forker = next(iter(self._forkers), None)
            if forker is None:
                raise NurseryGone("no worker can be started: the processes that start them were killed")
            pid, pidfd = forker.order(index, descriptors, self._start_seconds)
            with self._changed:
                self._forker_of[pid] = forker
        self._keep_spare()  # one could not be forked before, perhaps
        return pid, pidfd

    def await_end(self, pid: int, seconds: float) -> Ended | None:
        """Wait for the news of how a worker ended; None when nobody can tell, or not in time. Once for each."""
        with self._changed:
            forker = self._forker_of.pop(pid, None)
            self._changed.wait_for(lambda: pid in self._ends or forker is None or forker.is_gone, seconds)
            found = self._ends.pop(pid, None)
        if found is None:
            with contextlib.suppress(ChildProcessError):  # it is ours only if this is the first process of a container
                pid, status, usage = os.wait4(pid, os.WNOHANG)
                if pid:
                    return Ended(pid, os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime)
        return found

    def close(self) -> None:
        """End it. Workers are not ended by that."""
        with self._changed:
            self._is_closed = True
            forkers = list(self._forkers)
        for forker in forkers:
            forker.close()

    def _read(self, forker: _Forker) -> None:
        began = time.monotonic()

        def note_loss() -> None:
            self._note_loss(forker, time.monotonic() - began)

        threading.Thread(
            target=forker.read, args=(self._note_end, note_loss), name=f"serving-nursery-{forker.pid}", daemon=True
        ).start()

    def _note_end(self, end: Ended) -> None:
        with self._changed:
            self._ends[end.pid] = end
            self._changed.notify_all()

    def _note_loss(self, forker: _Forker, lived_seconds: float) -> None:
        with self._changed:
            self._forkers.remove(forker)
            is_left = bool(self._forkers)
            self._changed.notify_all()
            if self._is_closed:
                return
        log.error("nursery_gone", pid=forker.pid, effect="its spare takes its place" if is_left else "none is left")
        if is_left:
            pause = 0.0 if lived_seconds > SPARE_PAUSE_SECONDS else SPARE_PAUSE_SECONDS
            timer = threading.Timer(pause, self._keep_spare)
            timer.daemon = True
            timer.start()
        else:
            self._on_loss()

    def _keep_spare(self) -> None:
        """Have the nursery fork another one like itself, unless there is one."""
        with self._fork_lock:
            with self._changed:
                if self._is_closed or len(self._forkers) != 1:
                    return
                forker = self._forkers[0]
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            try:
                with theirs:
                    pid, pidfd = forker.order(SPARE, [theirs.fileno()], self._start_seconds)
            except (NurseryGone, OSError) as error:
                ours.close()
                log.warning("nursery_without_spare", reason=str(error))
                return
            spare = _Forker(pid, pidfd, ours)
            with self._changed:
                self._forkers.append(spare)
            self._read(spare)
