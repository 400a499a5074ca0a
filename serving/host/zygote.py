"""The server's side of the zygote: start it, have it fork hosts, learn how they ended."""

from __future__ import annotations

import contextlib
import itertools
import mmap
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from pathlib import Path

import structlog

from serving.domain.errors import HostFailed
from serving.host.forkserver import COMMAND, EVENT, Op
from serving.host.protocol import ARENA_BYTES

START_SECONDS = 120.0
SPAWN_SECONDS = 30.0
STOP_SECONDS = 5.0

Channels = tuple[tuple[socket.socket, mmap.mmap], ...]

log = structlog.get_logger("serving.zygote")


class HostProcess:
    """One host: its process id and the server's ends of its channels (a socket and an arena for each replica).

    The first channel is the host's own; the others belong to the replicas it forks when its candidate has passed.
    `scratch` is a directory of its own that is removed with it.
    `exited` is resolved with the return code (negative for a signal; None when the zygote died with it).
    """

    def __init__(self, zygote: _Process, host_id: int, channels: Channels, scratch: str | None) -> None:
        self._zygote = zygote
        self._id = host_id
        self.scratch = scratch
        self.pid = 0
        self.channels = channels
        self.socket, self.arena = channels[0]
        self.exited: Future[int | None] = Future()

    def kill(self) -> None:
        """Kill this host, and with it its replicas, if it still runs. Never blocks for long; any thread."""
        if not self.exited.done():
            self._zygote.send(Op.KILL, self._id)

    def close(self) -> None:
        """Kill this host and give its sockets and arenas back. Any thread."""
        self.kill()
        for sock, arena in self.channels:
            sock.close()
            with contextlib.suppress(BufferError):  # a request may still be written into it; the collector closes it
                arena.close()

    def returncode(self, wait_seconds: float = 2.0) -> int | None:
        """Wait for the end and return how it came; None when it is not known. Blocks."""
        try:
            return self.exited.result(wait_seconds)
        except FutureTimeout:
            return None


class Zygote:
    """Starts hosts. One zygote process serves for the life of the server; should it die, the next spawn starts another.

    Each host gets a directory of its own beneath `scratch`, a directory nobody else uses. All methods may be called
    from any thread; `start` and `spawn` block.
    """

    def __init__(self, environment: Mapping[str, str], scratch: Path) -> None:
        self._environment = dict(environment)
        self._scratch = os.path.abspath(scratch)
        self._process: _Process | None = None
        self._process_lock = threading.Lock()
        self._is_stopped = False

    def start(self) -> None:
        """Begin importing in the zygote; returns at once. `spawn` waits for the end of it."""
        shutil.rmtree(self._scratch, ignore_errors=True)  # what killed servers left
        self._running()

    def spawn(self, replicas: int = 1) -> HostProcess:
        """Fork a host and return it when its process exists; raises HostFailed. Blocks (about 20 ms when warm).

        `replicas` (at most 64) is the number of processes that will answer once its candidate has passed the gates.
        """
        try:
            return self._running().spawn(replicas)
        except _Gone:  # killed since its last host: that is nothing against this one
            return self._running().spawn(replicas)

    def stop(self) -> None:
        """End the zygote and with it every host; joins with a deadline."""
        with self._process_lock:
            self._is_stopped = True
            process, self._process = self._process, None
        if process is not None:
            process.stop()

    def _running(self) -> _Process:
        with self._process_lock:
            if self._is_stopped:
                raise HostFailed("the service is stopping; no host is started any more")
            if self._process is None or self._process.is_dead:
                self._process = _Process(self._environment, self._scratch)
            return self._process


class _Gone(HostFailed):
    """The zygote ended before it started the host it was asked for."""


class _Process:
    """One zygote process, and the thread that reads what it says."""

    def __init__(self, environment: Mapping[str, str], scratch: str) -> None:
        self._scratch = scratch
        self._control, theirs = socket.socketpair()
        self._popen = subprocess.Popen(
            [sys.executable, "-P", "-m", "serving.host.forkserver", str(theirs.fileno())],
            env=environment,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            process_group=0,  # a terminal's signals are not for it; a session of its own would make niceness void
        )
        theirs.close()
        self.is_dead = False
        self._ready: Future[None] = Future()
        self._ids = itertools.count(1)
        self._hosts: dict[int, HostProcess] = {}
        self._started: dict[int, Future[int]] = {}
        self._send_lock = threading.Lock()
        self._reader = threading.Thread(target=self._read, name="serving-zygote", daemon=True)
        self._reader.start()

    def spawn(self, replicas: int) -> HostProcess:
        try:
            self._ready.result(START_SECONDS)
        except FutureTimeout:
            self.stop()
            raise HostFailed(f"the zygote was not ready after {START_SECONDS:.0f} s") from None
        host_id = next(self._ids)
        pairs = [_channel() for _ in range(replicas)]
        channels = tuple((ours, arena) for ours, arena, _ in pairs)
        host = HostProcess(self, host_id, channels, _make_scratch(self._scratch))
        theirs = [fd for *_, fds in pairs for fd in fds]
        started: Future[int] = Future()
        self._hosts[host_id], self._started[host_id] = host, started
        try:
            self.send(Op.SPAWN, host_id, theirs)
            host.pid = started.result(SPAWN_SECONDS)
        except (FutureTimeout, _Gone) as error:
            self._hosts.pop(host_id, None)
            host.close()
            _remove_scratch(host.scratch)
            if isinstance(error, _Gone):
                raise
            raise HostFailed(f"no host could be started: the zygote did not answer in {SPAWN_SECONDS:.0f} s") from None
        finally:
            self._started.pop(host_id, None)
            for fd in theirs:
                os.close(fd)
        return host

    def send(self, op: Op, host_id: int, fds: list[int] | None = None) -> None:
        try:
            with self._send_lock:
                socket.send_fds(self._control, [COMMAND.pack(op, host_id)], fds or [])
        except OSError as error:
            if op is Op.SPAWN:
                self.is_dead = True  # the thread that reads may not have seen it yet
                raise _Gone(f"no host could be started: the zygote is gone ({error.strerror})") from None

    def stop(self) -> None:
        if not self._ready.done():  # it imports for seconds and listens to nobody, and has no hosts yet
            self._popen.kill()
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)
        self._reap()
        self._reader.join(STOP_SECONDS)
        self._control.close()

    def _read(self) -> None:
        pending = b""
        while True:
            try:
                raw = self._control.recv(4096)
            except OSError:
                raw = b""
            if not raw:
                break
            pending += raw
            while len(pending) >= EVENT.size:
                self._take(*EVENT.unpack_from(pending))
                pending = pending[EVENT.size :]
        self._end()

    def _take(self, op: int, host_id: int, value: int) -> None:
        if op == Op.READY:
            self._ready.set_result(None)
        elif op == Op.STARTED and host_id in self._started:
            self._started[host_id].set_result(value)
        elif op == Op.EXITED and host_id in self._hosts:
            host = self._hosts.pop(host_id)
            _remove_scratch(host.scratch)
            host.exited.set_result(value)

    def _end(self) -> None:
        """The zygote is gone and its hosts with it: say so to everyone who waits."""
        self.is_dead = True
        if not self._ready.done():
            self._ready.set_exception(HostFailed("the zygote ended while it imported; see its error output above"))
        for started in list(self._started.values()):
            if not started.done():
                started.set_exception(_Gone("no host could be started: the zygote ended"))
        for host in list(self._hosts.values()):
            _remove_scratch(host.scratch)
            host.exited.set_result(None)
        self._hosts.clear()
        self._reap()
        self._control.close()

    def _reap(self) -> None:
        """Wait for the end of the process: its socket ends a moment before it does. Any thread."""
        try:
            self._popen.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            log.warning("zygote_killed", reason=f"did not end within {STOP_SECONDS:.0f} s")
            self._popen.kill()
            self._popen.wait()


def _make_scratch(root: str) -> str | None:
    """Make a directory for one host; None, and the host has to do without, when the disk does not let us."""
    try:
        os.makedirs(root, 0o700, exist_ok=True)
        return tempfile.mkdtemp(prefix="host-", dir=root)
    except OSError as error:
        log.warning("no_scratch", reason=str(error), effect="the host cannot write anything")
        return None


def _remove_scratch(path: str | None) -> None:
    if path is None:
        return
    try:
        os.rmdir(path)
    except OSError:  # a model has written something; however much that is, nobody waits for it
        threading.Thread(target=shutil.rmtree, args=(path,), kwargs={"ignore_errors": True}, daemon=True).start()


def _channel() -> tuple[socket.socket, mmap.mmap, tuple[int, int]]:
    """Make a socket pair and an arena: the server's ends, then the descriptors for the host."""
    arena_fd = _shared_memory()
    ours, theirs = socket.socketpair()
    return ours, mmap.mmap(arena_fd, ARENA_BYTES), (theirs.detach(), arena_fd)


def _shared_memory() -> int:
    """Return a descriptor of `ARENA_BYTES` of anonymous shared memory; pages are taken only when touched."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("serving-arena", os.MFD_CLOEXEC)
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, ARENA_BYTES)
    return fd
