"""The server's handle on one host: its channels, its scratch directory, a way to kill it, and how it ended."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout

import structlog

from serving.domain.last_words import read_last_words
from serving.hosting.removal import remove_tree
from serving.wire.frames import ARENA_BYTES

Channels = tuple[tuple[socket.socket, mmap.mmap], ...]

log = structlog.get_logger("serving.zygote")


class HostProcess:
    """One host: its process id and the server's ends of its channels (a socket and an arena for each replica).

    The first channel is the host's own; the others belong to the replicas it forks when its candidate has passed.
    `scratch` is its own directory, which is removed when the host is gone. `exited` is resolved with the return code
    (negative for a signal; None when the zygote died too, or could not say). `ask_zygote_to_kill` is for systems where
    a process has no descriptor.
    """

    def __init__(self, channels: Channels, scratch: str | None, ask_zygote_to_kill: Callable[[], None]) -> None:
        self.scratch = scratch
        self.pid = 0
        self.channels = channels
        self.socket, self.arena = channels[0]
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

    def close(self) -> None:
        """Kill this host, and free its sockets and arenas. Any thread."""
        self.kill()
        for sock, arena in self.channels:
            sock.close()
            with contextlib.suppress(
                BufferError
            ):  # a request may still be written into it; the garbage collector closes it
                arena.close()

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


def make_channel() -> tuple[socket.socket, mmap.mmap, tuple[int, int]]:
    """Make a socket pair and an arena; returns the server's ends, and the descriptors for the host."""
    arena_fd = _make_shared_memory()
    ours, theirs = socket.socketpair()
    return ours, mmap.mmap(arena_fd, ARENA_BYTES), (theirs.detach(), arena_fd)


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
