"""The processes of somebody's own application that have attached to control.

They come and go as their process manager wants: none is started or killed here. One that does not do what it is told in
time is detached: others go on without it, and it answers nothing about models from the next commit on, until it has
attached again.
"""

from __future__ import annotations

import contextlib
import os
import queue
import select
import socket
import threading
import time
from concurrent.futures import wait
from dataclasses import dataclass, field
from datetime import UTC, datetime

import structlog

from serving import __version__
from serving.domain.errors import ServingError
from serving.domain.status import WorkerState, WorkerStatus
from serving.settings import Settings, describe_differences, dump_shared
from serving.supervisor.shared_control import SharedControl
from serving.supervisor.worker_link import WorkerLink
from serving.telemetry.count_sheet import CountSheet
from serving.wire.control_socket import Admission, Hello, Peer, read_peer, receive_hello, send_greeting
from serving.wire.wire_version import WIRE_VERSION
from serving.wire.worker_channel import WorkerChannel
from serving.wire.worker_messages import TYPES, Sync

MOST_PROCESSES = 256
GREETING_SECONDS = 5.0
POLL_SECONDS = 0.2

log = structlog.get_logger("serving.workers")


class Refused(ServingError):
    """A process that may not attach; the message says why, and goes to it."""


@dataclass(eq=False)
class _Attached:
    """One process, from its first attachment to its end. `inode` is that of the memory in which it counts."""

    index: int
    peer: Peer
    pidfd: int
    inode: int
    link: WorkerLink | None = None
    sock: socket.socket | None = None
    state: WorkerState = WorkerState.STARTING
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    reason: str | None = None
    connections: queue.SimpleQueue[socket.socket] = field(default_factory=queue.SimpleQueue)


class AttachedWorkers:
    """Implements `WorkerSet`. Processes attach at `listener`; `words` is the descriptor of the generation."""

    def __init__(self, control: SharedControl, settings: Settings, listener: socket.socket, words: int) -> None:
        self._control = control
        self._settings = dump_shared(settings)
        self._seconds = settings.server.worker_seconds
        self._listener = listener
        self._words = words
        self._lock = threading.Lock()  # guards what follows
        self._processes: list[_Attached] = []
        self._is_closed = False
        self._failure: str | None = None
        self._empty_since: float | None = time.monotonic()

    def start(self) -> None:
        """Take processes from now on; returns at once."""
        threading.Thread(target=self._accept, name="serving-attach", daemon=True).start()

    def refuse(self, reason: str) -> None:
        """Tell every process that attaches that there will be no control, and why."""
        self._failure = reason

    def close_if_empty(self, seconds: float) -> bool:
        """Return whether no process has been there for so long. From then on none is taken, and control has to end."""
        with self._lock:
            if self._is_closed:
                return True
            if self._empty_since is None or time.monotonic() - self._empty_since < seconds:
                return False
            self._is_closed = True
            return True

    # --- what control asks for ---------------------------------------------------------------------------------------

    def list_links(self) -> list[WorkerLink]:
        """Implement `WorkerSet.list_links`."""
        return [link for one in self._list() if (link := one.link) is not None]

    def list_status(self) -> tuple[WorkerStatus, ...]:
        """Implement `WorkerSet.list_status`."""
        requests = self._control.metrics.requests_by_worker()
        return tuple(
            WorkerStatus(
                index=one.index,
                pid=one.peer.pid,
                state=one.state,
                generation=link.generation if (link := one.link) is not None else 0,
                requests=requests.get(one.index, 0),
                started_at=one.started_at,
                reason=one.reason,
            )
            for one in self._list()
        )

    @property
    def problem(self) -> str | None:
        """Implement `WorkerSet.problem`."""
        detached = [one for one in self._list() if one.link is None and one.reason is not None]
        return "; ".join(f"process {one.peer.pid} does not serve: {one.reason}" for one in detached) or None

    def note_accepting(self, link: WorkerLink) -> None:
        """Implement `WorkerSet.note_accepting`."""
        for one in self._list():
            if one.link is link:
                one.reason = None
                self._set_state(one, WorkerState.SERVING)

    def note_leaving(self, link: WorkerLink) -> None:
        """Implement `WorkerSet.note_leaving`."""
        for one in self._list():
            if one.link is link:
                self._set_state(one, WorkerState.DRAINING)

    def replace(self, link: WorkerLink, reason: str) -> None:
        """Implement `WorkerSet.replace`: detach it."""
        if link.kill_reason is not None or link.has_ended.is_set():
            return
        link.kill_reason = reason
        log.error("worker_detached", worker=link.index, pid=link.pid, reason=reason)
        for one in self._list():
            if one.link is link and (sock := one.sock) is not None:
                one.reason = reason
                link.channel.close()
                with contextlib.suppress(OSError):  # else what waits to be written would keep it open
                    sock.shutdown(socket.SHUT_RDWR)

    def _list(self) -> list[_Attached]:
        with self._lock:
            return list(self._processes)

    def _set_state(self, process: _Attached, state: WorkerState) -> None:
        process.state = state
        self._control.tell()

    # --- a thread that takes connections, and a short one for each ---------------------------------------------------

    def _accept(self) -> None:
        while self._listener.fileno() >= 0:
            try:
                sock, _ = self._listener.accept()
            except OSError as error:
                log.error("cannot_attach", reason=str(error))
                time.sleep(POLL_SECONDS)
                continue
            threading.Thread(target=self._greet, args=(sock,), name="serving-greet", daemon=True).start()

    def _greet(self, sock: socket.socket) -> None:
        """Take a process, or tell it why not. Its socket is closed without a word when control is about to end."""
        descriptors: list[int] = []
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            stack.callback(sock.close)
            stack.callback(_close_all, descriptors)
            sock.settimeout(GREETING_SECONDS)
            received = receive_hello(sock)
            if received is None:
                return
            hello, descriptors[:] = received
            try:
                peer = read_peer(sock)
                _require_own(peer)  # first: others are told nothing about the settings, and end nothing
                self._require_same(hello)
                process = self._admit(peer, descriptors)
            except Refused as error:
                log.error("process_refused", pid=read_peer(sock).pid, reason=str(error))
                send_greeting(sock, Admission(refusal=str(error)))
                return
            if process is not None:
                sock.settimeout(None)
                send_greeting(sock, Admission(process.index), [self._words])
                process.connections.put(sock.dup())

    def _require_same(self, hello: Hello) -> None:
        if self._failure is not None:
            raise Refused(self._failure)
        differences = describe_differences(self._settings, hello.settings)
        if (hello.wire != WIRE_VERSION or differences) and self.close_if_empty(0.0):
            return  # the process starts a control of its own kind
        if hello.wire != WIRE_VERSION:
            release = f"release {hello.release}" if hello.release != __version__ else "another build"
            raise Refused(
                f"this process runs {release} of serving, and the control of its application (process {os.getpid()}) "
                f"runs {__version__}; end all processes of the application, then start them again"
            )
        if differences:
            raise Refused(
                f"other processes share the state directory with other settings: {'; '.join(differences)}; give all "
                "processes of one application the same settings, and other servers another state.path"
            )

    def _admit(self, peer: Peer, descriptors: list[int]) -> _Attached | None:
        """Return the process, known or new; None when control is about to end."""
        if not descriptors or not CountSheet.is_fixed(descriptors[0]):  # control would die of memory that is gone
            raise Refused("the memory in which this process counts is missing, or could be made smaller")
        inode = os.fstat(descriptors[0]).st_ino
        with self._lock:
            if self._is_closed:
                return None
            known = next((one for one in self._processes if one.inode == inode), None)
            if known is not None:
                return known
            index = next(
                index for index in range(MOST_PROCESSES + 1) if index not in {one.index for one in self._processes}
            )
            if index == MOST_PROCESSES:
                raise Refused(f"at most {MOST_PROCESSES} processes can share one control")
            pidfd = os.pidfd_open(peer.pid)
            sheet = CountSheet(descriptors.pop(0))
            process = _Attached(index, peer, pidfd, inode)
            self._processes.append(process)
            self._empty_since = None
            self._control.metrics.start_worker(index, sheet, peer.pid)
        name = f"serving-worker-{index}"
        threading.Thread(target=self._keep, args=(process,), name=name, daemon=True).start()
        return process

    # --- one thread for each process ---------------------------------------------------------------------------------

    def _keep(self, process: _Attached) -> None:
        while (sock := _next_connection(process)) is not None:
            try:
                self._run_link(process, sock)
            except Exception:  # as when no descriptor is left here: it attaches again, and its end has to be seen
                log.exception("worker_not_attached", worker=process.index, pid=process.peer.pid)
                process.link = None
                sock.close()
        self._control.metrics.end_worker(process.index, 0.0)  # before another process can have its index
        with self._lock:
            self._processes.remove(process)
            if not self._processes:
                self._empty_since = time.monotonic()
        os.close(process.pidfd)
        log.info("worker_ended", worker=process.index, pid=process.peer.pid)
        self._control.tell()

    def _end_link(self, link: WorkerLink) -> None:
        link.has_ended.set()
        self._control.end_link(link)

    def _run_link(self, process: _Attached, sock: socket.socket) -> None:
        link = WorkerLink(process.index, process.peer.pid, os.dup(process.pidfd))
        link.channel = WorkerChannel(
            *(sock, TYPES, lambda received: self._control.take(link, received)),
            *(lambda: self._end_link(link), f"worker-{link.index}"),
        )
        process.link, process.sock = link, sock  # first, so that it is told what is published from now on
        self._control.greet(link)
        link.channel.start()
        self._set_state(process, WorkerState.STARTING)
        log.info("worker_attached", worker=link.index, pid=link.pid)
        try:
            problem = self._control.planes.add(link)
        except Exception as error:
            log.exception("worker_not_added", worker=link.index)
            problem = repr(error)
        if problem is not None:
            self.replace(link, problem)
        self._watch(link)
        process.link = None
        self._control.planes.remove(link)
        link.close()
        self._set_state(process, WorkerState.STARTING)

    def _watch(self, link: WorkerLink) -> None:
        """Wait for the end of a channel; end it when nothing is answered there for too long."""
        while not link.has_ended.wait(self._seconds):
            answer = link.channel.ask(Sync())
            wait([answer], self._seconds)
            if not answer.done():
                self.replace(link, f"it has not answered for {self._seconds:.3g} s")


def _require_own(peer: Peer) -> None:
    if not peer.is_trusted:
        raise Refused("this process is another user's")
    if peer.pid == 0:
        raise Refused("this process is in another namespace of processes, as in another container")


def _close_all(descriptors: list[int]) -> None:
    for fd in descriptors:
        os.close(fd)


def _next_connection(process: _Attached) -> socket.socket | None:
    """Return the next connection of a process, None when it has ended. Blocks."""
    poller = select.poll()
    poller.register(process.pidfd, select.POLLIN)
    while True:
        try:
            return process.connections.get(timeout=POLL_SECONDS)
        except queue.Empty:
            if poller.poll(0):
                return None
