"""The server's handle on one host: its lifeline and channels, its scratch directory, a way to kill it, and its end."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout

import structlog

from serving.domain.last_words import read_last_words
from serving.hosting.removal import remove_tree
from serving.wire.frames import ARENA_BYTES

Channels = tuple[tuple[socket.socket, mmap.mmap], ...]
Slot = tuple[tuple[socket.socket, int], ...]

log = structlog.get_logger("serving.zygote")


class HostProcess:
    """One host: its process id and the server's ends of its sockets.

    `socket` and `arena` are its lifeline: the candidate is evaluated over it, and the host ends when it ends. A slot is
    what one process needs to get answers: a channel to the host, and one to each of the replicas that the host forks
    when its candidate has passed. `channels` is the first slot, for a plane in this process: a socket and an arena
    each. Other processes use slots that `take_slot` hands out.

    `scratch` is its own directory, which is removed when the host is gone. `exited` is resolved with the return code
    (negative for a signal; None when the zygote died too, or could not say). `ask_zygote_to_kill` is for systems where
    a process has no descriptor.
    """

    def __init__(
        self,
        lifeline: tuple[socket.socket, mmap.mmap],
        slots: Sequence[Slot],
        scratch: str | None,
        ask_zygote_to_kill: Callable[[], None],
    ) -> None:
        self.scratch = scratch
        self.pid = 0
        self.socket, self.arena = lifeline
        self._slots = [*slots]
        self._slots_lock = threading.Lock()
        self.channels: Channels = tuple((sock, mmap.mmap(arena_fd, ARENA_BYTES)) for sock, arena_fd in slots[0])
        self.exited: Future[int | None] = Future()
        self._ask_zygote_to_kill = ask_zygote_to_kill
        self._pidfd: int | None = None
        self._pidfd_lock = threading.Lock()  # a closed number may soon belong to another descriptor

    def kill(self) -> None:
        """Kill this host, and with it its replicas, if it still runs. Never blocks for long; any thread.

        If the process has a descriptor, the zygote is not needed; it may be stopped itself.
        """
        if self.exited.done():
            return
        with self._pidfd_lock:
            if self._pidfd is not None:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
                return
        self._ask_zygote_to_kill()

    def take_slot(self) -> Slot | None:
        """Return a slot that was never returned before, or None when there is none left. Any thread.

        It has a socket and the descriptor of an arena for each process that answers. The caller sends them to one other
        process and closes them here. When that process ends, its slot ends, and is never used again. The first slot is
        returned last; from then on `channels` is empty.
        """
        with self._slots_lock:
            if not self._slots:
                return None
            slot = self._slots.pop()
            if not self._slots:
                for _, arena in self.channels:
                    _close_arena(arena)
                self.channels = ()
            return slot

    def close(self) -> None:
        """Kill this host, and free its sockets and arenas, but for the slots that were taken. Any thread."""
        self.kill()
        with self._slots_lock:
            slots, self._slots = self._slots, []
        for sock, arena_fd in (pair for slot in slots for pair in slot):
            sock.close()
            os.close(arena_fd)
        self.socket.close()
        for arena in (self.arena, *(arena for _, arena in self.channels)):
            _close_arena(arena)

    def read_last_words(self) -> str | None:
        """Return what the host wrote about its end; None when it still runs or wrote nothing. Call before `close`."""
        status = self.exited.result() if self.exited.done() else None
        return None if status is None else read_last_words(self.arena, status)

    def returncode(self, wait_seconds: float = 2.0) -> int | None:
        """Wait for the end and return the return code; None when it is not known. Blocks."""
        try:
            return self.exited.result(wait_seconds)
        except FutureTimeout:
            return None

    def note_start(self, pid: int, pidfd: int | None) -> None:
        """Note that the process exists. `note_end` closes its descriptor. The zygote's reader calls this once."""
        with self._pidfd_lock:
            self.pid, self._pidfd = pid, pidfd

    def note_end(self, code: int | None) -> None:
        """Note that the process is gone, or never started. Called once."""
        with self._pidfd_lock:
            pidfd, self._pidfd = self._pidfd, None
            if pidfd is not None:
                os.close(pidfd)
        remove_scratch(self.scratch)
        self.exited.set_result(code)


def make_scratch(root: str) -> str | None:
    """Make a directory for one host; None when that fails: then the host has no directory."""
    try:
        os.makedirs(root, 0o700, exist_ok=True)
        return tempfile.mkdtemp(prefix="host-", dir=root)
    except OSError as error:
        log.warning("no_scratch", reason=str(error), effect="the host cannot write anything")
        return None


def remove_scratch(path: str | None) -> None:
    """Remove the directory of a host that is gone; does not wait until everything in it is removed."""
    if path is None:
        return
    try:
        os.rmdir(path)
    except OSError:
        threading.Thread(target=remove_tree, args=(path,), daemon=True).start()


def _close_arena(arena: mmap.mmap) -> None:
    with contextlib.suppress(BufferError):  # a request may still be written into it; the garbage collector closes it
        arena.close()


def make_channel() -> tuple[socket.socket, socket.socket, int]:
    """Make a socket pair and an arena; returns the server's end, the host's end, and the descriptor of the arena.

    Raises OSError when this process may open no more.
    """
    arena_fd = _make_shared_memory()
    try:
        return (*socket.socketpair(), arena_fd)
    except OSError:
        os.close(arena_fd)
        raise


def _make_shared_memory() -> int:
    """Return a descriptor of `ARENA_BYTES` of anonymous shared memory; pages are taken only when touched.

    Its size is sealed if the system can do that: if a host made it smaller, the server would touch memory that does not
    exist, and crash.
    """
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("serving-arena", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, ARENA_BYTES)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        return fd
    with tempfile.TemporaryFile() as file:
        fd = os.dup(file.fileno())
    os.ftruncate(fd, ARENA_BYTES)
    return fd
