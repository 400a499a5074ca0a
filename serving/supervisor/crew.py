"""The crew: starts workers, watches them, and starts another one for each that ends or hangs."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import structlog

from serving.domain.errors import ServingError
from serving.domain.status import WorkerStatus
from serving.ports.forwarding import ConnectionForwarder
from serving.supervisor.nursery import Ended, Nursery
from serving.supervisor.worker_link import WorkerLink
from serving.supervisor.worker_planes import WorkerPlanes
from serving.telemetry.count_sheet import CountSheet
from serving.telemetry.service_metrics import ServiceMetrics
from serving.wire.shared_words import map_words
from serving.wire.worker_channel import Received, WorkerChannel
from serving.wire.worker_messages import TYPES

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.1, 30.0
SOUND_SECONDS = 60.0  # a worker that has lived as long as this did not die of what it was told at its start
REAP_SECONDS = 2.0
PATIENCE = 4  # a worker gets no connections after this part of the time after which it counts as hung

Take = Callable[[WorkerLink, Received], None]

log = structlog.get_logger("serving.workers")


@dataclass(eq=False)
class _Berth:
    """The place of one worker; its successors take the same one."""

    index: int
    descriptors: Sequence[int]
    link: WorkerLink | None = None
    state: str = "starting"
    started_at: datetime | None = None
    restarts: int = 0
    deaths: int = 0
    retry_at: datetime | None = None
    reason: str | None = None
    is_left_out: bool = False
    ended: threading.Event = field(default_factory=threading.Event)


class Crew:
    """All workers. `descriptors` has for each worker those of its sockets and memory, which stay open here.

    `take` gets every message of a worker, on a thread of its own for each worker; `on_change` is called when any status
    has changed; `greet` is called with each new worker before anything else is sent to it. `metrics` keeps what
    each has counted. `forwarder` is told of workers that end or hang, so that nothing waits for them.
    """

    def __init__(
        self,
        nursery: Nursery,
        planes: WorkerPlanes,
        descriptors: Sequence[Sequence[int]],
        beats: int,
        seconds: float,
        take: Take,
        greet: Callable[[WorkerLink], None],
        on_change: Callable[[], None],
        metrics: ServiceMetrics,
        forwarder: ConnectionForwarder,
    ) -> None:
        self._nursery = nursery
        self._planes = planes
        self._berths = [_Berth(index, each) for index, each in enumerate(descriptors)]
        self._beats = map_words(beats, writes=True)
        self._seconds = seconds
        self._take, self._greet, self._on_change, self._metrics = take, greet, on_change, metrics
        self._forwarder = forwarder
        self._fork_lock = threading.Lock()
        self._ends: dict[int, Ended] = {}
        self._ends_seen = threading.Condition()
        self._is_stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Start every worker; returns at once."""
        self._nursery.watch(self._note_end, self._note_loss)
        for berth in self._berths:
            thread = threading.Thread(
                target=self._keep, args=(berth,), name=f"serving-worker-{berth.index}", daemon=True
            )
            self._threads.append(thread)
            thread.start()
        threading.Thread(target=self._watch_beats, name="serving-beats", daemon=True).start()

    def list_links(self) -> list[WorkerLink]:
        """Return the workers that live now."""
        return [link for berth in self._berths if (link := berth.link) is not None]

    def list_status(self) -> tuple[WorkerStatus, ...]:
        """Return the status of every worker."""
        requests = self._metrics.requests_by_worker()
        return tuple(
            WorkerStatus(
                index=berth.index,
                pid=link.pid if (link := berth.link) is not None and not link.is_gone else None,
                state=berth.state,
                generation=link.generation if link is not None else 0,
                requests=requests.get(berth.index, 0),
                started_at=berth.started_at,
                restarts=berth.restarts,
                retry_at=berth.retry_at,
                reason=berth.reason,
            )
            for berth in self._berths
        )

    def note_accepting(self, link: WorkerLink) -> None:
        """Note that a worker takes connections."""
        berth = self._berths[link.index]
        if berth.link is link:
            self._set(berth, "serving")

    def note_ending(self, link: WorkerLink) -> None:
        """Note that a worker was asked to end, and takes no more connections."""
        berth = self._berths[link.index]
        if berth.link is link:
            self._set(berth, "draining")

    def replace(self, link: WorkerLink, reason: str) -> None:
        """Kill a worker; another one takes its place. Any thread."""
        log.error("worker_killed", worker=link.index, pid=link.pid, reason=reason)
        self._berths[link.index].reason = reason
        _signal(link, signal.SIGKILL)

    def stop(self) -> None:
        """Ask all workers to drain and end, and start no others. A second call hurries them."""
        self._is_stopping.set()
        for berth in self._berths:
            if berth.link is not None:
                _signal(berth.link, signal.SIGTERM)
            else:
                berth.ended.set()

    def join(self, seconds: float) -> bool:
        """Wait for the end of all workers; kills those that live after the seconds. Returns whether none was killed."""
        ends_at = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, ends_at - time.monotonic()))
        left = self.list_links()
        for link in left:
            log.warning("worker_killed", worker=link.index, pid=link.pid, reason="it did not end in time")
            _signal(link, signal.SIGKILL)
        for thread in self._threads:
            thread.join(REAP_SECONDS)
        return not left

    # --- one thread for each worker ----------------------------------------------------------------------------------

    def _keep(self, berth: _Berth) -> None:
        while not self._is_stopping.is_set():
            began, was_asked = time.monotonic(), False
            berth.ended.clear()
            try:
                link = self._fork(berth)
            except (ServingError, OSError) as error:
                berth.reason = str(error)
                log.error("worker_not_started", worker=berth.index, reason=berth.reason)
            else:
                self._planes.add(link)
                berth.ended.wait()
                was_asked = self._bury(berth, link)
            if self._is_stopping.is_set():
                break
            if was_asked:
                berth.deaths = 0
                continue
            berth.deaths = 1 if time.monotonic() - began > SOUND_SECONDS else berth.deaths + 1
            self._pause(berth)
        self._set(berth, "ended")

    def _fork(self, berth: _Berth) -> WorkerLink:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._beats[berth.index] = time.monotonic_ns()
        with theirs, self._fork_lock:
            sheet = CountSheet.create()
            pid, pidfd = self._nursery.fork(berth.index, [theirs.fileno(), sheet.fd, *berth.descriptors])
            self._metrics.start_worker(berth.index, sheet, pid)
        link = WorkerLink(berth.index, pid, pidfd)
        link.channel = WorkerChannel(
            ours, TYPES, lambda received: self._take(link, received), berth.ended.set, f"worker-{berth.index}"
        )
        self._greet(link)
        link.channel.start()
        berth.link, berth.started_at, berth.retry_at = link, datetime.now(UTC), None
        self._set(berth, "starting")
        log.info("worker_started", worker=berth.index, pid=pid)
        if self._is_stopping.is_set():
            _signal(link, signal.SIGTERM)
        return link

    def _bury(self, berth: _Berth, link: WorkerLink) -> bool:
        """Forget a worker whose channel has ended: it is dead, or as good as. Returns whether it was asked to end."""
        link.is_gone = True
        self._forwarder.leave_out(link.index)
        was_asked = berth.state == "draining"
        if not self._is_stopping.is_set():
            berth.restarts += 1
            self._metrics.count_worker_restart(berth.index)
        self._set(berth, "starting")  # from here on nobody is told that it serves
        if not was_asked:
            _signal(link, signal.SIGKILL)
        self._planes.remove(link)
        end = self._await_end(link.pid)
        if end is None:
            _signal(link, signal.SIGKILL)
            end = self._await_end(link.pid)
        self._forwarder.expect_successor(link.index)
        os.close(link.pidfd)
        berth.link = None
        self._metrics.end_worker(berth.index, 0.0 if end is None else end.cpu_seconds)
        how = "unknown" if end is None else _describe(end.status)
        has_ended_well = (was_asked or self._is_stopping.is_set()) and end is not None and end.status == 0
        write = log.info if has_ended_well else log.error
        write("worker_ended", worker=berth.index, pid=link.pid, how=how)
        berth.reason = berth.reason or ("it was asked to end" if has_ended_well else how)
        return was_asked

    def _pause(self, berth: _Berth) -> None:
        pause = min(FIRST_PAUSE_SECONDS * 2 ** (berth.deaths - 1), LONGEST_PAUSE_SECONDS) if berth.deaths > 1 else 0.0
        if pause:
            berth.retry_at = datetime.now(UTC) + timedelta(seconds=pause)
            self._set(berth, "waiting")
            self._is_stopping.wait(pause)

    def _set(self, berth: _Berth, state: str) -> None:
        berth.state = state
        if state == "serving":
            berth.reason = None
        self._on_change()

    # --- ends and hearts ---------------------------------------------------------------------------------------------

    def _note_end(self, end: Ended) -> None:
        with self._ends_seen:
            self._ends[end.pid] = end
            self._ends_seen.notify_all()

    def _await_end(self, pid: int) -> Ended | None:
        with self._ends_seen:
            self._ends_seen.wait_for(lambda: pid in self._ends or self._nursery.is_gone, REAP_SECONDS)
            return self._ends.pop(pid, None)

    def _note_loss(self) -> None:
        if not self._is_stopping.is_set():
            log.error("nursery_gone", effect="workers that end are not replaced until the service is started again")

    def _watch_beats(self) -> None:
        """Kill workers whose event loop stands for too long. If all of this machine stood, it is nobody's fault."""
        every = min(1.0, self._seconds / 5)
        before = time.monotonic()
        while not self._is_stopping.wait(every):
            now = time.monotonic()
            stood, before = now - before > 3 * every, now
            if stood:
                continue
            for berth in self._berths:
                link, silent = berth.link, now - self._beats[berth.index] / 1e9
                if link is None or berth.state != "serving":
                    continue
                if silent > self._seconds:
                    self.replace(link, f"its event loop has stood for {silent:.1f} s")
                elif silent > self._seconds / PATIENCE:
                    berth.is_left_out = True
                    self._forwarder.leave_out(berth.index)
                elif berth.is_left_out:
                    berth.is_left_out = False
                    self._forwarder.readmit(berth.index)


def _signal(link: WorkerLink, number: signal.Signals) -> None:
    with contextlib.suppress(OSError):
        signal.pidfd_send_signal(link.pidfd, number)


def _describe(status: int) -> str:
    return f"exit status {status}" if status >= 0 else signal.Signals(-status).name
