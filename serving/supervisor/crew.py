"""The crew: starts workers, watches them, and starts another one for each that ends or hangs."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import structlog

from serving.domain.errors import ServingError
from serving.domain.status import WorkerState, WorkerStatus
from serving.failpoints import reach
from serving.ports.forwarding import ConnectionForwarder
from serving.supervisor.berth import Berth
from serving.supervisor.heartbeats import Heartbeats
from serving.supervisor.nursery import Nursery
from serving.supervisor.worker_link import WorkerLink
from serving.supervisor.worker_planes import WorkerPlanes
from serving.telemetry.count_sheet import CountSheet
from serving.telemetry.service_metrics import ServiceMetrics
from serving.wire.worker_channel import Received, WorkerChannel
from serving.wire.worker_messages import TYPES

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.1, 30.0
SOUND_SECONDS = 60.0  # a worker that has lived as long as this did not die of what it was told at its start
REAP_SECONDS = 2.0
EXIT_SECONDS = 1.0  # from the end of a worker's channel to its own

Take = Callable[[WorkerLink, Received], None]

log = structlog.get_logger("serving.workers")


class Crew:
    """All workers. `descriptors` has for each worker those of its sockets and memory, which stay open here.

    `take` gets every message of a worker, on a thread of its own for each worker; `on_change` is called when any status
    has changed; `greet` is called with each new worker before anything else is sent to it, `end` with each whose
    channel has ended. `metrics` keeps what each has counted; `forwarder` is told of workers that leave, end or hang, so
    that no connection waits for them.
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
        end: Callable[[WorkerLink], None],
        on_change: Callable[[], None],
        metrics: ServiceMetrics,
        forwarder: ConnectionForwarder,
    ) -> None:
        self._nursery = nursery
        self._planes = planes
        self._berths = [Berth(index, each) for index, each in enumerate(descriptors)]
        self._heartbeats = Heartbeats(beats, seconds)
        self._take, self._greet, self._end, self._on_change = take, greet, end, on_change
        self._metrics = metrics
        self._forwarder = forwarder
        self._is_stopping = threading.Event()
        self._can_start = True
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Start every worker; returns at once."""
        self._nursery.watch(self._note_loss)
        for berth in self._berths:
            thread = threading.Thread(
                target=self._keep, args=(berth,), name=f"serving-worker-{berth.index}", daemon=True
            )
            self._threads.append(thread)
            thread.start()
        watched = (self.list_links, self.replace, self._is_stopping, self._forwarder)
        threading.Thread(target=self._heartbeats.watch, args=watched, name="serving-beats", daemon=True).start()

    def list_links(self) -> list[WorkerLink]:
        """Return the workers that live now."""
        return [link for berth in self._berths if (link := berth.link) is not None]

    def list_status(self) -> tuple[WorkerStatus, ...]:
        """Return the status of every worker."""
        requests = self._metrics.requests_by_worker()
        return tuple(berth.to_status(requests.get(berth.index, 0)) for berth in self._berths)

    @property
    def problem(self) -> str | None:
        """What keeps workers from serving, for an operator; None when all do, or will in a moment."""
        problems = [problem for berth in self._berths if (problem := berth.problem) is not None]
        if not self._can_start:
            problems.append("workers that end cannot be replaced until the service is started again")
        return "; ".join(problems) or None

    @property
    def is_lost(self) -> bool:
        """Whether no worker lives, and none can be started any more."""
        return not self._can_start and not self.list_links()

    def note_accepting(self, link: WorkerLink) -> None:
        """Note that a worker takes connections."""
        berth = self._berths[link.index]
        if berth.link is link and berth.state is WorkerState.STARTING:
            self._set(berth, WorkerState.SERVING)

    def note_leaving(self, link: WorkerLink) -> None:
        """Note that a worker was asked to end: it answers what it has read, and takes no connections."""
        berth = self._berths[link.index]
        if berth.link is link:
            self._forwarder.leave_out(link.index)
            self._set(berth, WorkerState.DRAINING)

    def replace(self, link: WorkerLink, reason: str) -> None:
        """Kill a worker; another one takes its place. Any thread."""
        if link.kill_reason is None:
            link.kill_reason = reason
            log.error("worker_killed", worker=link.index, pid=link.pid, reason=reason)
        link.send_signal(signal.SIGKILL)

    def stop(self) -> None:
        """Ask all workers to drain and end, and start no others. A second call hurries them."""
        is_hurried = self._is_stopping.is_set()
        self._is_stopping.set()
        self._planes.close()
        for berth in self._berths:
            has_been_asked = berth.state is WorkerState.DRAINING  # by somebody else: another signal would hurry it
            if (link := berth.link) is not None and (is_hurried or not has_been_asked):
                link.send_signal(signal.SIGTERM)

    def join(self, seconds: float) -> bool:
        """Wait for the end of all workers; kills those that live after the seconds. Returns whether none was killed."""
        ends_at = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, ends_at - time.monotonic()))
        left = self.list_links()
        for link in left:
            self.replace(link, "it did not end in time")
        for thread in self._threads:
            thread.join(REAP_SECONDS)
        return not left

    # --- one thread for each worker ----------------------------------------------------------------------------------

    def _keep(self, berth: Berth) -> None:
        while not self._is_stopping.is_set():
            began = time.monotonic()
            is_asked = False
            self._set(berth, WorkerState.STARTING)
            berth.retry_at = None
            try:
                link = self._fork(berth)
            except (ServingError, OSError) as error:
                berth.reason = str(error)
                log.error("worker_not_started", worker=berth.index, reason=berth.reason)
            else:
                self._add(link)
                link.has_ended.wait()
                is_asked = self._bury(berth, link)
            if self._is_stopping.is_set():
                break
            berth.deaths = 0 if is_asked else 1 if time.monotonic() - began > SOUND_SECONDS else berth.deaths + 1
            self._pause(berth)

    def _fork(self, berth: Berth) -> WorkerLink:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sheet = CountSheet.create()
        self._heartbeats.expect(berth.index)
        try:
            with theirs:
                pid, pidfd = self._nursery.fork(berth.index, [theirs.fileno(), sheet.fd, *berth.descriptors])
        except BaseException:
            ours.close()
            sheet.close()
            raise
        self._metrics.start_worker(berth.index, sheet, pid)
        link = WorkerLink(berth.index, pid, pidfd)
        link.channel = WorkerChannel(
            ours,
            TYPES,
            lambda received: self._take(link, received),
            lambda: self._end_link(link),
            f"worker-{berth.index}",
        )
        reach("worker-forked")
        berth.link, berth.started_at = link, datetime.now(UTC)
        self._greet(link)  # now that it is told what is published from now on
        link.channel.start()
        log.info("worker_started", worker=berth.index, pid=pid)
        if self._is_stopping.is_set():
            link.send_signal(signal.SIGTERM)
        return link

    def _end_link(self, link: WorkerLink) -> None:
        link.has_ended.set()
        self._end(link)

    def _add(self, link: WorkerLink) -> None:
        """Let a worker load what there is, then serve; it is replaced if that fails, for whatever reason."""
        try:
            problem = self._planes.add(link)
        except Exception as error:  # as when no descriptor is left here: this thread has to go on
            log.exception("worker_not_added", worker=link.index)
            problem = repr(error)
        if problem is not None:
            self.replace(link, problem)

    def _bury(self, berth: Berth, link: WorkerLink) -> bool:
        """Forget a worker whose channel has ended: it is dead, or will be. Returns whether it was asked to end."""
        self._forwarder.leave_out(link.index)
        was_leaving = berth.state is WorkerState.DRAINING
        if not self._is_stopping.is_set():
            berth.restarts += 1
            self._metrics.count_worker_restart(berth.index)
            self._set(berth, WorkerState.STARTING)  # from here on nobody is told that it serves
        if not link.await_exit(EXIT_SECONDS):
            self.replace(link, "it has closed its channel and goes on")
        self._planes.remove(link)
        end = self._nursery.await_end(link.pid, REAP_SECONDS)
        self._forwarder.expect_successor(link.index)
        link.close()
        berth.link = None
        self._metrics.end_worker(berth.index, 0.0 if end is None else end.cpu_seconds)
        how = "it has ended" if end is None else _describe(end.status)
        if link.doing is not None:
            how += f" while it {link.doing}"
        is_asked = was_leaving and link.kill_reason is None and (end is None or end.status == 0)
        write = log.info if is_asked else log.error
        write("worker_ended", worker=berth.index, pid=link.pid, how=how)
        berth.reason = "it was asked to end" if is_asked else link.kill_reason or how
        return is_asked

    def _pause(self, berth: Berth) -> None:
        if not berth.is_dying_again:
            return
        pause = min(FIRST_PAUSE_SECONDS * 2 ** (berth.deaths - 1), LONGEST_PAUSE_SECONDS)
        berth.retry_at = datetime.now(UTC) + timedelta(seconds=pause)
        self._on_change()
        serving = sum(one.state is WorkerState.SERVING for one in self._berths)
        effect = (
            f"{serving} of {len(self._berths)} workers serve" if serving else "no worker serves, nobody is answered"
        )
        waits = {"worker": berth.index, "deaths": berth.deaths, "wait_seconds": pause}
        log.error("worker_waits", **waits, reason=berth.reason, effect=effect)
        self._is_stopping.wait(pause)

    def _set(self, berth: Berth, state: WorkerState) -> None:
        berth.state = state
        if state is WorkerState.SERVING:
            berth.reason = None
        self._on_change()

    def _note_loss(self) -> None:
        self._can_start = False
        log.error("workers_not_replaced", effect="workers that end are not replaced until the service is started again")
        self._on_change()


def _describe(status: int) -> str:
    return f"exit status {status}" if status >= 0 else signal.Signals(-status).name
