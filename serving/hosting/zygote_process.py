"""One zygote process, and the thread that starts it and reads its messages."""

from __future__ import annotations

import contextlib
import errno
import itertools
import mmap
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from concurrent.futures import TimeoutError as FutureTimeout
from pathlib import Path
from typing import TypeVar

import structlog

from serving.domain.errors import HostFailed
from serving.hosting.host_process import HostProcess, make_channel, make_scratch
from serving.wire.frames import ARENA_BYTES
from serving.wire.wire_version import WIRE_VERSION
from serving.wire.zygote_messages import COMMAND, EVENT, MOST_CHANNELS, MOST_DESCRIPTORS, Op

START_SECONDS = 120.0
SPAWN_SECONDS = 5.0  # a fork takes 20 ms
LOOK_SECONDS = 0.5
EXIT_SECONDS = 1.0
STOP_SECONDS = 5.0
# errors of a message whose descriptors are too many, for this process or for the system
_TOO_MANY = (errno.EMFILE, errno.ENFILE, errno.ETOOMANYREFS)

# what an interpreter of another environment runs
_ENTER = str(Path(__file__).parent.parent / "host" / "enter.py")

Value = TypeVar("Value")

log = structlog.get_logger("serving.zygote")


class ZygoteGone(HostFailed):
    """The zygote ended before it started the requested host."""


class ZygoteUnusable(ZygoteGone):
    """The zygote cannot be started, or ends while it imports: so would every other one in its environment."""


class ZygoteSlow(ZygoteUnusable):
    """The zygote of another environment imports for too long: so would the next one."""


class ZygoteHung(HostFailed):
    """The zygote is stopped (SIGSTOP) or does not answer: another one is needed."""


class ZygoteProcess:
    """One zygote. `spawn` blocks; any thread may call anything.

    The thread that reads its messages also starts its process: the thread lives as long as the process is needed, and
    the kernel kills the process when the thread ends (PR_SET_PDEATHSIG), so even a stopped zygote does not outlive the
    server. The descriptors of hosts show their ends too, in case the zygote does not report them.

    `python` is the interpreter of another environment that it runs in; None for the server's own. After `idle_seconds`
    without hosts it ends; None for never.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        scratch: str,
        python: str | None = None,
        idle_seconds: float | None = None,
    ) -> None:
        self._scratch = scratch
        self._python, self._idle_seconds = python, idle_seconds
        self._idle_since: float | None = None  # since it is ready, only while it has no hosts
        self._control, theirs = socket.socketpair()
        self.is_dead = False
        self._is_retired = False
        self._ready: Future[None] = Future()
        self._ids = itertools.count(1)
        self._hosts: dict[int, HostProcess] = {}
        self._started: dict[int, Future[None]] = {}
        self._watched: dict[
            int, int
        ] = {}  # host ids by descriptor; only the reader's thread uses this and the next three
        self._ending: dict[int, float] = {}
        self._descriptors: list[int] = []
        self._poller = select.poll()
        self._send_lock = threading.Lock()
        self._popen: subprocess.Popen[bytes]
        launched: Future[None] = Future()
        self._reader = threading.Thread(
            target=self._run_process, args=(environment, theirs, launched), name="serving-zygote", daemon=True
        )
        self._reader.start()
        launched.result()

    @property
    def host_count(self) -> int:
        """The number of its hosts."""
        return len(self._hosts)

    def spawn(self, replicas: int, slots: int = 1) -> HostProcess:
        """Fork a host and return it when its process exists. Raises ZygoteGone, ZygoteHung, ZygoteSlow, HostFailed.

        See `serving.hosting.zygote.Zygote.spawn`.
        """
        if replicas * slots > MOST_CHANNELS:
            most = f"at most {MOST_CHANNELS} are possible"
            raise HostFailed(f"no host could be started: {replicas} replicas with {slots} channels each, {most}")
        self._wait_for_start()
        host_id = next(self._ids)
        host, theirs = self._make_host(host_id, replicas, slots)
        started: Future[None] = Future()
        self._hosts[host_id], self._started[host_id] = host, started
        try:
            self._send_command(Op.SPAWN, host_id, theirs, replicas, slots)
            self._wait_for(started, SPAWN_SECONDS)
        except HostFailed:
            if self._hosts.pop(host_id, None) is not None:
                host.note_end(None)
            host.close()
            self._end_if_unused()
            raise
        finally:
            self._started.pop(host_id, None)
            for fd in theirs:
                os.close(fd)
        return host

    def retire(self) -> None:
        """Let its hosts go on, and end the zygote when the last of them has ended."""
        self._is_retired = True
        self._end_if_unused()

    def stop(self) -> None:
        """End it, and with it its hosts; joins with a deadline."""
        # While it imports, it has no hosts and reads no message; a stopped one reads none either.
        if not self._ready.done() or self._is_retired or self._is_stopped():
            self._popen.kill()
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)
        self._reap_process()
        self._reader.join(STOP_SECONDS)
        self._control.close()

    # -----------------------------------------------------------------------------------------------------------------

    def _make_host(self, host_id: int, replicas: int, slots: int) -> tuple[HostProcess, list[int]]:
        """Return a host without a process, and the descriptors for the process. Raises HostFailed."""
        ours: list[tuple[socket.socket, int]] = []
        theirs: list[int] = []
        try:
            for _ in range(1 + replicas * slots):
                sock, other, arena_fd = make_channel()
                ours.append((sock, arena_fd))
                theirs += (other.detach(), os.dup(arena_fd))
            (lifeline, arena_fd), *channels = ours
            arena = mmap.mmap(arena_fd, ARENA_BYTES)
            parts = [tuple(channels[slot::slots]) for slot in range(slots)]
            host = HostProcess(
                (lifeline, arena),
                parts,
                make_scratch(self._scratch),
                lambda: self._send_command(Op.KILL, host_id),
            )
        except OSError as error:
            for sock, arena_fd in ours:
                sock.close()
                os.close(arena_fd)
            for fd in theirs:
                os.close(fd)
            raise HostFailed(f"no host could be started: {error.strerror}") from None
        os.close(arena_fd)
        return host, theirs

    def _wait_for_start(self) -> None:
        try:
            self._wait_for(self._ready, START_SECONDS)
        except ZygoteHung:
            if self._python is None or self._is_stopped():
                raise
            slow = ZygoteSlow(f"the zygote was not ready within {START_SECONDS:.0f} s")
            with contextlib.suppress(InvalidStateError):  # all threads that wait for it are told the same
                self._ready.set_exception(slow)
            self._popen.kill()
            raise slow from None

    def _wait_for(self, future: Future[Value], seconds: float) -> Value:
        ends_at = time.monotonic() + seconds
        while True:
            try:
                return future.result(LOOK_SECONDS)
            except FutureTimeout:
                if self._is_stopped():
                    raise ZygoteHung("no host could be started: the zygote is stopped") from None
                if time.monotonic() > ends_at:
                    raise ZygoteHung(
                        f"no host could be started: the zygote did not answer in {seconds:.0f} s"
                    ) from None

    def _is_stopped(self) -> bool:
        """Whether the process was stopped (SIGSTOP). The system reports this for a child, without reaping it."""
        if not hasattr(os, "waitid"):
            return False
        try:
            found = os.waitid(os.P_PID, self._popen.pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return False
        return found is not None

    def _send_command(self, op: Op, host_id: int, fds: Sequence[int] = (), replicas: int = 0, slots: int = 0) -> None:
        try:
            with self._send_lock:
                if op is Op.SPAWN and self.is_dead:
                    raise ZygoteGone("no host could be started: the zygote has ended")
                while len(fds) > MOST_DESCRIPTORS:
                    socket.send_fds(
                        self._control, [COMMAND.pack(Op.DESCRIPTORS, host_id, 0, 0)], fds[:MOST_DESCRIPTORS]
                    )
                    fds = fds[MOST_DESCRIPTORS:]
                socket.send_fds(self._control, [COMMAND.pack(op, host_id, replicas, slots)], fds)
        except OSError as error:
            if error.errno in _TOO_MANY:
                raise HostFailed(f"no host could be started: {error.strerror}") from None
            if op is Op.SPAWN:
                self.is_dead = True  # the reader's thread may not have seen it yet
                raise ZygoteGone(f"no host could be started: the zygote is gone ({error.strerror})") from None

    def _end_if_unused(self) -> None:
        if self._is_retired:
            self._end_without_hosts()

    def _end_without_hosts(self) -> None:
        """End it unless it has a host: `spawn` notes its host before it sends the command, and none follows after."""
        with self._send_lock:
            if not self._hosts:
                self.is_dead = True
                self._popen.kill()

    def _reap_process(self) -> None:
        """Wait for the end of the process: its socket ends a moment before it does. Any thread."""
        try:
            self._popen.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            log.warning("zygote_killed", reason=f"did not end within {STOP_SECONDS:.0f} s")
            self._popen.kill()
            self._popen.wait()

    # --- the thread that reads ---------------------------------------------------------------------------------------

    def _run_process(self, environment: Mapping[str, str], theirs: socket.socket, launched: Future[None]) -> None:
        try:
            self._popen = subprocess.Popen(
                [*self._choose_program(), str(theirs.fileno()), str(os.getpid())],
                env=environment,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                # a terminal's signals must not reach it; in a session of its own, its niceness would have no effect
                process_group=0,
            )
        except Exception as error:  # noqa: BLE001  (raised in the thread that starts the zygote)
            self._control.close()
            launched.set_exception(ZygoteUnusable(f"the zygote cannot be started: {error}"))
            return
        finally:
            theirs.close()
        launched.set_result(None)
        try:
            self._read_events()
        finally:
            self._end_all()

    def _choose_program(self) -> list[str]:
        if self._python is None:
            return [sys.executable, "-P", "-m", "serving.host.forkserver"]
        return [self._python, "-I", "-B", _ENTER]

    def _read_events(self) -> None:
        self._poller.register(self._control, select.POLLIN)
        control = self._control.fileno()
        pending = b""
        while True:
            ready = {descriptor for descriptor, _ in self._poller.poll(self._compute_poll_ms())}
            for pidfd in ready - {control}:  # first: events of the zygote may close them, and reuse their numbers
                self._note_end(pidfd)
            if control in ready:
                raw = self._receive_events()
                if not raw:
                    return
                pending += raw
                while len(pending) >= EVENT.size:
                    self._process_event(*EVENT.unpack_from(pending))
                    pending = pending[EVENT.size :]
            self._stop_waiting_for_codes()
            if self._has_idled():
                self._end_without_hosts()

    def _receive_events(self) -> bytes:
        try:
            raw, descriptors, _, _ = socket.recv_fds(self._control, 4096, 64)
        except OSError:
            return b""
        self._descriptors += descriptors  # of the STARTED events in it; none when this process may not open more
        return raw

    def _process_event(self, op: int, host_id: int, value: int) -> None:
        if op == Op.THREAD:
            self._warn_about_thread(value)
        elif op == Op.READY:
            self._note_ready(host_id)
        elif op in (Op.STARTED, Op.STARTED_UNSEEN):
            self._note_start(host_id, value, self._descriptors.pop(0) if self._descriptors else None)
        elif op == Op.NOT_STARTED and host_id in self._started:
            reason = f"no host could be started: {os.strerror(value)}"
            self._started[host_id].set_exception(HostFailed(reason))
        elif op == Op.EXITED and host_id in self._hosts:
            self._end_host(host_id, value)

    def _note_ready(self, wire_version: int) -> None:
        with contextlib.suppress(InvalidStateError):  # it comes too late
            if wire_version == WIRE_VERSION:
                self._ready.set_result(None)
                return
            reason = "the files of this server were replaced by another release while it runs: restart the server"
            self._ready.set_exception(HostFailed(f"no host could be started: {reason}"))
        self._popen.kill()

    def _warn_about_thread(self, thread: int) -> None:
        """Warn that the zygote has a second thread.

        A lock that this thread holds during a fork stays locked in the host forever, and the host hangs.
        """
        try:
            name = Path(f"/proc/{self._popen.pid}/task/{thread}/comm").read_text().strip()
        except OSError:
            name = "one that has ended"
        log.warning("zygote_not_single_threaded", thread=name, id=thread, reason="hosts forked from it may hang")

    def _note_start(self, host_id: int, pid: int, pidfd: int | None) -> None:
        host, started = self._hosts.get(host_id), self._started.get(host_id)
        if host is None or started is None:  # `spawn` has given it up: its socket is closed, which ends it
            if pidfd is not None:
                os.close(pidfd)
            return
        host.note_start(pid, pidfd)
        if pidfd is not None:
            self._watched[pidfd] = host_id
            self._poller.register(pidfd, select.POLLIN)
        started.set_result(None)

    def _note_end(self, pidfd: int) -> None:
        """Note that a host has ended; the zygote reports the return code in a moment, if it can."""
        self._poller.unregister(pidfd)
        self._ending[self._watched.pop(pidfd)] = time.monotonic() + EXIT_SECONDS

    def _stop_waiting_for_codes(self) -> None:
        for host_id in [host_id for host_id, at in self._ending.items() if at <= time.monotonic()]:
            self._end_host(host_id, None)

    def _compute_poll_ms(self) -> float | None:
        moments = [*self._ending.values()]
        if self._idle_seconds is not None:
            moments.append((self._idle_since or time.monotonic()) + self._idle_seconds)
        return max(0.0, min(moments) - time.monotonic()) * 1000 + 1 if moments else None

    def _has_idled(self) -> bool:
        """Whether it has been ready, and without hosts, for as long as it may be."""
        if self._idle_seconds is None:
            return False
        if self._hosts or not self._ready.done():
            self._idle_since = None
            return False
        now = time.monotonic()
        self._idle_since = self._idle_since or now
        return now - self._idle_since >= self._idle_seconds

    def _end_host(self, host_id: int, code: int | None) -> None:
        self._ending.pop(host_id, None)
        for pidfd in [pidfd for pidfd, watched in self._watched.items() if watched == host_id]:
            del self._watched[pidfd]
            self._poller.unregister(pidfd)
        host = self._hosts.pop(host_id, None)
        if host is not None:
            host.note_end(code)
        self._end_if_unused()

    def _end_all(self) -> None:
        """Report to all waiting threads that the zygote and its hosts are gone."""
        self.is_dead = True
        with contextlib.suppress(InvalidStateError):  # it has been ready
            self._ready.set_exception(ZygoteUnusable("the zygote ended while it imported; see its error output above"))
        for started in list(self._started.values()):
            if not started.done():
                started.set_exception(ZygoteGone("no host could be started: the zygote ended"))
        for host_id in list(self._hosts):
            self._end_host(host_id, None)
        self._reap_process()
        self._control.close()
