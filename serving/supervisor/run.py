"""Serving with several workers: the first process has control and supervises, the others answer."""

from __future__ import annotations

import contextlib
import gc
import signal
import sys
import threading
import time
from concurrent.futures import TimeoutError as FutureTimeout
from types import FrameType
from typing import Any

import structlog

from serving import __version__
from serving.api.access import Access
from serving.domain.decision import DecisionOutcome
from serving.domain.errors import ServingError, StateUnavailable, UnknownModel
from serving.domain.graph_budget import GraphBudget
from serving.domain.plan import Drained, HostGone
from serving.domain.status import Status, WorkerState
from serving.plane.fair_turns import count_cores
from serving.ports.forwarding import ConnectionForwarder
from serving.ports.shared_port import SharedPort
from serving.server import CannotListen, explain_admin_port, explain_port, prepare
from serving.service import Service
from serving.settings import Settings
from serving.silence import load_onnxruntime
from serving.supervisor.crew import Crew
from serving.supervisor.fact_thread import FactThread
from serving.supervisor.graph_memory import BudgetedPlanes
from serving.supervisor.grpc_port import GrpcPort
from serving.supervisor.nursery import Nursery
from serving.supervisor.status_board import StatusBoard
from serving.supervisor.worker_link import WorkerLink
from serving.supervisor.worker_planes import WorkerPlanes
from serving.telemetry.service_metrics import ServiceMetrics
from serving.telemetry.traffic import VersionLeases
from serving.wire.shared_words import make_words
from serving.wire.worker_channel import ChannelClosed, Received
from serving.wire.worker_messages import (
    Accepting,
    Decide,
    Entries,
    Exposition,
    Forget,
    HistoryRefused,
    HostLeft,
    Leaving,
    ListWorkers,
    Outcome,
    ReadGauges,
    ReadHistory,
    ReadTraffic,
    RenderMetrics,
    Sync,
    TrafficRead,
    WorkerList,
)
from serving.worker.worker_process import WorkerPlan

GAUGE_SECONDS = 0.5  # how long a scrape waits for a worker
KILL_SECONDS = 5.0  # beyond drain_seconds, until workers that drain are killed
POLL_SECONDS = 0.1
STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
IGNORED = (signal.SIGUSR1, signal.SIGUSR2)

log = structlog.get_logger("serving.supervisor")


class Supervisor:
    """Control, and the workers that it tells what answers. Made and run by the main thread, before any other exists."""

    def __init__(self, settings: Settings, access: Access, workers: int) -> None:
        self._settings = settings
        server = settings.server
        self._ports = _open_ports(settings, workers)
        self._grpc = GrpcPort.keep(server)
        committed, beats = make_words("generation"), make_words("beats")
        descriptors = [
            [committed, beats, *(fd for port in self._ports for fd in port.shares[index].descriptors())]
            for index in range(workers)
        ]
        counts = tuple(len(port.shares[0].descriptors()) for port in self._ports)
        grpc_port = None if self._grpc is None else self._grpc.number
        plan = WorkerPlan(_settings_of_one(settings, workers), access, workers, counts, grpc_port)
        self._forwarder = ConnectionForwarder(self._ports)
        if settings.engine.compile != "off":
            load_onnxruntime()  # all workers share its pages: 14 MB less in each that has a compiled form
        self._nursery = Nursery.start(plan.run, forget=self._close_ports)
        # from here on there may be threads
        self._metrics = ServiceMetrics(__version__, self._forget)
        self._render_lock = threading.Lock()
        self._facts = FactThread(lambda each: self._planes.take(*each))
        self._board = StatusBoard(self._publish)
        self._service = Service(
            self._board, settings, self._metrics, lambda tell: self._make_planes(committed, tell, workers), 2 * workers
        )
        self._crew = Crew(
            *(self._nursery, self._planes, descriptors, beats, server.worker_seconds),
            *(self._take, self._greet, self._tell, self._metrics, self._forwarder),
        )
        self._signals = 0
        self._is_listening = False
        self.exit_code = 0

    def _make_planes(self, committed: int, tell: Any, workers: int) -> BudgetedPlanes:
        seconds, load_seconds = self._settings.server.worker_seconds, self._settings.candidate.timeout_seconds
        self._planes = WorkerPlanes(committed, seconds, load_seconds, tell, self._replace)
        total_bytes = int(self._settings.engine.workers_mb * (1 << 20))
        return BudgetedPlanes(self._planes, GraphBudget(total_bytes, workers, self._settings.store.keep_warm))

    def run(self) -> int:
        """Serve until a signal says otherwise; returns the exit status. Raises StateUnavailable. Blocks."""
        before = {one: signal.signal(one, self._note_signal) for one in (*STOPPING, *IGNORED)}
        try:
            self._service.on_started = self._check_start
            self._service.start()
            self._crew.start()
            while not self._signals and not self._crew.is_lost:
                self._forwarder.forward(POLL_SECONDS)
            if self._crew.is_lost:
                log.error("no_worker_left", effect="the service ends, as nobody could answer")
                self.exit_code = 1
            self._drain()
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)
            self._service.stop()
            self._nursery.close()
            self._close_ports()
        return self.exit_code

    def _close_ports(self) -> None:
        self._forwarder.close()
        for port in self._ports:
            port.close()
        if self._grpc is not None:
            self._grpc.close()

    def _drain(self) -> None:
        """Announce the end, wait as long as that takes, then have the workers drain. A second signal hurries both.

        No worker passes its connections to others then. When none accepts, clients cannot connect any more.
        """
        server = self._settings.server
        self._service.announce_stop()
        ends_at = time.monotonic() + server.lame_duck_seconds
        while self._signals == 1 and time.monotonic() < ends_at:
            self._forwarder.forward(POLL_SECONDS)
        for worker in range(len(self._ports[0].shares)):
            self._forwarder.leave_out(worker)
        self._crew.stop()
        ends_at = time.monotonic() + server.drain_seconds + KILL_SECONDS
        while time.monotonic() < ends_at and self._crew.list_links():
            if self._signals > 1:
                self._signals = 1
                self._crew.stop()
            if all(worker.state is not WorkerState.SERVING for worker in self._crew.list_status()):
                for port in self._ports:
                    port.stop_listening()
            time.sleep(POLL_SECONDS / 5)
        self._crew.join(POLL_SECONDS)

    def _note_signal(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002  (a signal handler's signature)
        name = signal.Signals(number).name
        if number in IGNORED:
            log.warning("signal_ignored", signal=name)
            return
        self._signals += 1
        if self._signals == 1:
            log.info("stopping", signal=name, lame_duck_seconds=self._settings.server.lame_duck_seconds)
        else:
            log.warning("stopping_now", signal=name)
        self._forwarder.wake()

    def _check_start(self, status: Status) -> None:
        if self._settings.server.fail_fast and not any(model.active for model in status.models.values()):
            log.error("nothing_to_serve", reason=f"no model is active in {self._settings.store.path}")
            self.exit_code = 1
            self._signals += 1

    # --- workers -----------------------------------------------------------------------------------------------------

    def _replace(self, link: WorkerLink, reason: str) -> None:
        self._crew.replace(link, reason)

    def _greet(self, link: WorkerLink) -> None:
        self._board.show(link.channel.send)

    def _publish(self, change: Any) -> None:
        for link in self._crew.list_links():
            link.channel.send(change)

    def _tell(self) -> None:
        self._board.tell_problem(self._crew.problem)

    def _take(self, link: WorkerLink, received: Received) -> None:
        message = received.message
        match message:
            case Drained() | HostGone() | HostLeft():
                self._facts.put((link, message))
            case Accepting():
                self._crew.note_accepting(link)
                self._log_listening()
            case Leaving():
                self._crew.note_leaving(link)
            case Decide():
                outcome = self._service.decide(message.decision, message.actor)
                outcome.add_done_callback(lambda done: self._answer_decision(received, done.result()))
            case ReadHistory():
                threading.Thread(target=self._read_history, args=(received, message), daemon=True).start()
            case ListWorkers():
                received.answer(WorkerList(self._crew.list_status()))
            case ReadTraffic():
                numbers = self._metrics.read_traffic(message.model, message.versions)
                received.answer(TrafficRead(tuple(map(tuple, numbers))))
            case RenderMetrics():
                threading.Thread(target=self._render, args=(received, message), daemon=True).start()

    def _answer_decision(self, received: Received, outcome: DecisionOutcome) -> None:
        """Answer when every worker knows the status that the decision has led to: then all of them say the same."""
        links = self._crew.list_links()
        left = [len(links)]
        lock = threading.Lock()

        def note(_: Any) -> None:
            with lock:
                left[0] -= 1
                is_last = left[0] == 0
            if is_last:
                received.answer(Outcome(outcome))

        for link in links:
            link.channel.ask(Sync()).add_done_callback(note)

    def _read_history(self, received: Received, question: ReadHistory) -> None:
        try:
            received.answer(Entries(self._service.read_history(question.model, question.limit, question.before_id)))
        except UnknownModel as error:
            received.answer(HistoryRefused(str(error), is_unknown=True))
        except (StateUnavailable, ServingError) as error:
            received.answer(HistoryRefused(str(error), is_unknown=False))

    def _render(self, received: Received, question: RenderMetrics) -> None:
        with self._render_lock:
            for link in self._crew.list_links():
                self._metrics.note_generation(link.index, link.generation)
            text, content_type = self._metrics.render_workers(self._read_gauges(), question.accept)
        received.answer(Exposition(text.decode(), content_type))

    def _read_gauges(self) -> dict[int, list[VersionLeases]]:
        """Return what each worker has loaded; one that does not answer in a moment is left out. Blocks."""
        answers = {link.index: link.channel.ask(ReadGauges()) for link in self._crew.list_links()}
        ends_at = time.monotonic() + GAUGE_SECONDS
        found: dict[int, list[VersionLeases]] = {}
        for index, answer in answers.items():
            with contextlib.suppress(ChannelClosed, FutureTimeout):
                gauges = answer.result(max(0.0, ends_at - time.monotonic())).versions
                found[index] = [VersionLeases(one.model, one.version, one.leases, one.is_active) for one in gauges]
        return found

    def _forget(self, model: str, version: str | None) -> None:
        for link in self._crew.list_links():
            link.channel.send(Forget(model, version))

    def _log_listening(self) -> None:
        if not self._is_listening:
            self._is_listening = True
            gc.freeze()
            if self._grpc is not None:
                log.info("listening_for_grpc", address=self._grpc.address)
            log.info("listening", url=self._url(self._ports[0]), workers=len(self._ports[0].shares))
            for port in self._ports[1:]:
                log.info("listening_for_operators", url=self._url(port))

    def _url(self, port: SharedPort) -> str:
        address = port.shares[0].listeners[0].getsockname()
        host = f"[{address[0]}]" if ":" in address[0] else address[0]
        return f"http://{host}:{address[1]}"


def _open_ports(settings: Settings, workers: int) -> list[SharedPort]:
    """Open the port for HTTP, and the admin port if there is one. Raises CannotListen."""
    server = settings.server
    try:
        ports = [SharedPort.open(server.host, server.port, workers)]
    except OSError as error:
        raise CannotListen(explain_port(settings, error)) from None
    if server.admin_port is not None:
        try:
            ports.append(SharedPort.open(server.admin_host, server.admin_port, workers))
        except OSError as error:
            ports[0].close()
            raise CannotListen(explain_admin_port(server.admin_host, server.admin_port, error)) from None
    return ports


def _settings_of_one(settings: Settings, workers: int) -> Settings:
    """Return the settings of one worker: its share of the limits, and no announcement of its end."""
    server = settings.server
    share = {
        "max_connections": -(-server.max_connections // workers),
        "max_queue": -(-server.max_queue // workers),
        "max_inflight_mb": server.max_inflight_mb / workers,
        "lame_duck_seconds": 0.0,
        "fail_fast": False,
    }
    return settings.model_copy(update={"server": server.model_copy(update=share)})


def run_workers(settings: Settings) -> int:
    """Serve with as many workers as the settings say; returns the exit status. Blocks; main thread only.

    Raises SettingsError when a token cannot be read.
    """
    settings, access = prepare(settings)
    workers = count_workers(settings)
    try:
        if sys.platform != "linux":
            raise CannotListen("server.workers: several workers need Linux")
        return Supervisor(settings, access, workers).run()
    except (ServingError, OSError) as error:
        log.error("cannot_start", reason=str(error))
        return 1


def count_workers(settings: Settings) -> int:
    """Return how many workers there are."""
    wanted = settings.server.workers
    return count_cores() if wanted == "auto" else wanted
