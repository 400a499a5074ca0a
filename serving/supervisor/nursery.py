"""Forks workers from a process that has imported all they need and has one thread, so that they share its memory.

The supervisor cannot fork them itself: it has threads, and a lock that one of them holds would stay locked in the fork.
The nursery is forked from it before there is any. It dies with the supervisor (PR_SET_PDEATHSIG). Workers outlive the
nursery, but not their channel to the supervisor.

Messages are packets of a Unix socket that keeps packets apart::

    supervisor -> nursery   u32 index, with the descriptors of the worker
    nursery -> supervisor   u8 event, i32 process id, i32 status, f64 processor seconds; a descriptor of the process
"""

from __future__ import annotations

import contextlib
import gc
import os
import queue
import select
import signal
import socket
import struct
import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

from serving.domain.errors import ServingError
from serving.sandbox.process import die_with_parent

START_SECONDS = 10.0
_ORDER = struct.Struct("<I")
_EVENT = struct.Struct("<Biid")
_STARTED, _ENDED, _FAILED = 1, 2, 3
_MOST_DESCRIPTORS = 64

Run = Callable[[int, list[int]], int]


class NurseryGone(ServingError):
    """No worker can be started any more: the process that forks them has ended."""


class Ended(NamedTuple):
    """A worker that is gone: how it ended (negative for a signal), and the processor time it took, in seconds."""

    pid: int
    status: int
    cpu_seconds: float


class Nursery:
    """The supervisor's side. `start` and then `watch` are called by the main thread, `fork` by any one thread."""

    def __init__(self, pid: int, sock: socket.socket) -> None:
        self.pid = pid
        self._socket = sock
        self._started: queue.SimpleQueue[tuple[int, int] | None] = queue.SimpleQueue()
        self.is_gone = False

    @classmethod
    def start(cls, run: Run, forget: Callable[[], None]) -> Nursery:
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
                _serve(theirs, run)
                status = 0
            finally:
                os._exit(status)
        theirs.close()
        return cls(pid, ours)

    def watch(self, on_end: Callable[[Ended], None], on_loss: Callable[[], None]) -> None:
        """Start the thread that is told how workers end, and when the nursery itself is gone."""
        threading.Thread(target=self._read, args=(on_end, on_loss), name="serving-nursery", daemon=True).start()

    def fork(self, index: int, descriptors: Sequence[int]) -> tuple[int, int]:
        """Start a worker; return its process id and a descriptor of its process. Raises NurseryGone and OSError."""
        try:
            socket.send_fds(self._socket, [_ORDER.pack(index)], descriptors)
            found = self._started.get(timeout=START_SECONDS)
        except (OSError, queue.Empty) as error:
            reason = str(error) or "the nursery does not answer"
            raise NurseryGone(f"no worker can be started: {reason}") from None
        if found is None:
            raise NurseryGone("no worker can be started: the nursery has ended")
        if found[0] < 0:
            raise OSError(-found[0], f"no worker could be started: {os.strerror(-found[0])}")
        return found

    def close(self) -> None:
        """End it. Workers are not ended by that."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def _read(self, on_end: Callable[[Ended], None], on_loss: Callable[[], None]) -> None:
        with contextlib.suppress(OSError):
            while True:
                data, descriptors, _, _ = socket.recv_fds(self._socket, _EVENT.size, 1)
                if not data:
                    break
                event, pid, status, seconds = _EVENT.unpack(data)
                if event == _ENDED:
                    on_end(Ended(pid, status, seconds))
                else:
                    self._started.put((pid, descriptors[0] if descriptors else -1))
        self.is_gone = True
        self._started.put(None)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        on_loss()


def _serve(control: socket.socket, run: Run) -> None:
    """Fork and reap until the supervisor is gone. One thread."""
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_read, False)
    os.set_blocking(wake_write, False)
    for one in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(one, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    poller = select.poll()
    poller.register(control, select.POLLIN)
    poller.register(wake_read, select.POLLIN)
    while True:
        ready = dict(poller.poll())
        if wake_read in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(wake_read, 4096)
            _reap(control)
        if control.fileno() in ready:
            data, descriptors, _, _ = socket.recv_fds(control, _ORDER.size, _MOST_DESCRIPTORS)
            if not data:
                return
            _fork(control, [wake_read, wake_write], run, _ORDER.unpack(data)[0], descriptors)


def _reap(control: socket.socket) -> None:
    while True:
        try:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        seconds = usage.ru_utime + usage.ru_stime
        control.send(_EVENT.pack(_ENDED, pid, os.waitstatus_to_exitcode(status), seconds))


def _fork(control: socket.socket, private: list[int], run: Run, index: int, descriptors: list[int]) -> None:
    try:
        pid = os.fork()
    except OSError as error:
        control.send(_EVENT.pack(_FAILED, -(error.errno or 1), 0, 0.0))
        for fd in descriptors:
            os.close(fd)
        return
    if pid == 0:
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            for one in (
                *(signal.SIGCHLD, signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM),
                signal.SIGUSR1,
                signal.SIGUSR2,
            ):
                signal.signal(one, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            control.close()
            for fd in private:
                os.close(fd)
            status = run(index, descriptors)
        finally:
            os._exit(status)
    for fd in descriptors:
        os.close(fd)
    pidfd = os.pidfd_open(pid)  # before it can be reaped
    try:
        socket.send_fds(control, [_EVENT.pack(_STARTED, pid, 0, 0.0)], [pidfd])
    finally:
        os.close(pidfd)
