"""The nursery's own process: forks workers, and spares of itself, until the supervisor is gone. One thread.

It has imported all that workers need, so that they share its memory. A spare is the same process once more: it waits
until the nursery that forked it is gone.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import struct
from collections.abc import Callable, Sequence
from enum import IntEnum

from serving.signals import IGNORED, STOPPING

ORDER = struct.Struct("<I")
EVENT = struct.Struct("<Biid")
SPARE = 0xFFFFFFFF
"""In the place of a worker's index: fork a spare, whose socket is the only descriptor."""
_MOST_DESCRIPTORS = 250  # of one packet; the system takes 253
_TO_THE_SUPERVISOR = (*STOPPING, *IGNORED)

Run = Callable[[int, list[int]], int]
"""What a worker does with its index and descriptors; returns its exit status."""


class NurseryEvent(IntEnum):
    """What an event says: a process was started or has ended, or none could be started."""

    STARTED, ENDED, FAILED = 1, 2, 3


class NurseryProcess:
    """Serves one socket of the supervisor."""

    def __init__(self, control: socket.socket, run: Run) -> None:
        self._control = control
        self._run = run
        self._spares: set[int] = set()
        self._wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def serve(self) -> socket.socket | None:
        """Fork and reap until the supervisor is gone. Returns in each spare, too: with the socket it has to serve."""
        for one in _TO_THE_SUPERVISOR:
            signal.signal(one, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wake[1], warn_on_full_buffer=False)
        poller = select.poll()
        poller.register(self._control, select.POLLIN)
        poller.register(self._wake[0], select.POLLIN)
        while True:
            ready = dict(poller.poll())
            if self._wake[0] in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake[0], 4096)
                self._reap()
            if self._control.fileno() in ready:
                data, descriptors, _, _ = socket.recv_fds(self._control, ORDER.size, _MOST_DESCRIPTORS)
                if not data:
                    return None
                index = ORDER.unpack(data)[0]
                pid = self._fork(index, descriptors)
                if pid == 0 and index == SPARE:
                    return socket.socket(fileno=descriptors[0])

    def _reap(self) -> None:
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid in self._spares:
                self._spares.discard(pid)  # the supervisor sees the end of its socket
                continue
            seconds = usage.ru_utime + usage.ru_stime
            self._control.send(EVENT.pack(NurseryEvent.ENDED, pid, os.waitstatus_to_exitcode(status), seconds))

    def _fork(self, index: int, descriptors: Sequence[int]) -> int:
        """Fork, and return the process id; 0 in a spare, never in a worker."""
        try:
            pid = os.fork()
        except OSError as error:
            self._control.send(EVENT.pack(NurseryEvent.FAILED, -(error.errno or 1), 0, 0.0))
            pid = -1
        if pid == 0:
            self._leave()
            if index != SPARE:
                self._be_worker(index, list(descriptors))
            os.setpgid(0, 0)  # who kills the group of one nursery leaves the other
            return 0
        for fd in descriptors:
            os.close(fd)
        if pid > 0:
            if index == SPARE:
                self._spares.add(pid)
            pidfd = os.pidfd_open(pid)  # before it can be reaped
            try:
                socket.send_fds(self._control, [EVENT.pack(NurseryEvent.STARTED, pid, 0, 0.0)], [pidfd])
            finally:
                os.close(pidfd)
        return pid

    def _leave(self) -> None:
        """Close in a fork what belongs to this process."""
        signal.set_wakeup_fd(-1)
        self._control.close()
        for fd in self._wake:
            os.close(fd)

    def _be_worker(self, index: int, descriptors: list[int]) -> None:
        status = 1
        try:
            for one in (signal.SIGCHLD, *_TO_THE_SUPERVISOR):
                signal.signal(one, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            status = self._run(index, descriptors)
        finally:
            os._exit(status)


def be_nursery(control: socket.socket, run: Run) -> None:
    """Be a nursery, or one of its spares, until the supervisor is gone. Blocks; main thread of a new process."""
    served: socket.socket | None = control
    with contextlib.suppress(ConnectionError):  # the supervisor is gone
        while served is not None:
            served = NurseryProcess(served, run).serve()
