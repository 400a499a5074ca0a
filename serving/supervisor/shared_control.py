"""Control of several workers: decides for all of them, and answers what they ask."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, Protocol

import structlog

from serving import __version__
from serving.domain.decision import DecisionOutcome
from serving.domain.errors import ServingError
from serving.domain.graph_budget import GraphBudget
from serving.domain.plan import Drained, Fact, HostGone
from serving.domain.status import WorkerStatus
from serving.service import Service
from serving.settings import Settings
from serving.supervisor.graph_memory import BudgetedPlanes
from serving.supervisor.shared_uploads import SharedUploads
from serving.supervisor.status_board import StatusBoard
from serving.supervisor.worker_link import WorkerLink
from serving.supervisor.worker_planes import WorkerPlanes
from serving.telemetry.service_metrics import ServiceMetrics
from serving.telemetry.tracer import make_tracer
from serving.telemetry.traffic import VersionLeases
from serving.wire.worker_channel import ChannelClosed, Received
from serving.wire.worker_messages import (
    AbandonUpload,
    Accepting,
    BadAnswer,
    BeginUpload,
    CountedVersion,
    Decide,
    Entries,
    EventsRead,
    Exposition,
    FinishUpload,
    Forget,
    HistoryRefused,
    HostLeft,
    Leaving,
    ListTraffic,
    ListWorkers,
    NoteUpload,
    Outcome,
    ReadEvents,
    ReadGauges,
    ReadHistory,
    ReadTraffic,
    RenderMetrics,
    Sync,
    TrafficList,
    TrafficRead,
    WorkerList,
)

GAUGE_SECONDS = 0.5  # how long a scrape waits for a worker
READ_THREADS = 2

log = structlog.get_logger("serving.workers")


class WorkerSet(Protocol):
    """The processes that answer, however they come and go. Any thread."""

    def list_links(self) -> list[WorkerLink]:
        """Return those that live now."""
        ...

    def list_status(self) -> tuple[WorkerStatus, ...]:
        """Return the status of each."""
        ...

    @property
    def problem(self) -> str | None:
        """What keeps any of them from serving, for an operator; None when all do, or will in a moment."""
        ...

    def note_accepting(self, link: WorkerLink) -> None:
        """Note that one takes requests."""
        ...

    def note_leaving(self, link: WorkerLink) -> None:
        """Note that one was asked to end."""
        ...

    def replace(self, link: WorkerLink, reason: str) -> None:
        """Do without one that does not do what it is told."""
        ...


class SharedControl:
    """Control, its planes, and what workers ask. Made by the main thread; the other methods may be called by any.

    `committed` is the descriptor of the words in which the generation is written; `workers` is how many there are, and
    each host may answer twice as many, as those that end leave their channels behind. `make_workers` gets this,
    complete but for them. `on_accepting` is called when a worker takes requests.
    With `is_held` nothing is committed before `planes.release` is called.
    """

    def __init__(
        self,
        settings: Settings,
        committed: int,
        workers: int,
        make_workers: Callable[[SharedControl], WorkerSet],
        on_accepting: Callable[[], None] = lambda: None,
        *,
        is_held: bool = False,
    ) -> None:
        self.planes: WorkerPlanes
        self._seconds = settings.server.worker_seconds
        self._load_seconds = settings.candidate.timeout_seconds
        self._committed, self._is_held = committed, is_held
        graph_bytes = int(settings.engine.workers_mb * (1 << 20))
        self._budget = GraphBudget(graph_bytes, workers, settings.store.keep_warm)
        self._on_accepting = on_accepting
        self.metrics = ServiceMetrics(__version__, self._forget)
        # a few threads, however many clients ask at once
        self._reads = ThreadPoolExecutor(READ_THREADS, "serving-read")
        self._renders = ThreadPoolExecutor(1, "serving-render")
        self._board = StatusBoard(self._publish)
        self._replay_rows = settings.replay.rows
        tracer = make_tracer(settings.traces, self.metrics.count_traces)
        self.service = Service(self._board, settings, self.metrics, self._make_planes, workers, tracer)
        self._uploads = SharedUploads(self.service.uploads)
        self._workers = make_workers(self)

    def _make_planes(self, tell: Callable[[Fact], None]) -> BudgetedPlanes:
        self.planes = WorkerPlanes(
            *(self._committed, self._seconds, self._load_seconds, tell, self._replace),
            is_held=self._is_held,
            replay_rows=self._replay_rows,
        )
        return BudgetedPlanes(self.planes, self._budget)

    def _replace(self, link: WorkerLink, reason: str) -> None:
        self._workers.replace(link, reason)

    def greet(self, link: WorkerLink) -> None:
        """Tell a new worker the status, before anything else."""
        self._board.show(link.channel.send)

    def tell(self) -> None:
        """Tell all workers which of them do not serve."""
        self._board.tell_problem(self._workers.problem)

    def _publish(self, change: Any) -> None:
        for link in self._workers.list_links():
            link.channel.send(change)

    def take(self, link: WorkerLink, received: Received) -> None:
        """Take a message of a worker, on the thread that reads its channel."""
        message = received.message
        match message:
            case Drained() | HostGone() | HostLeft():
                self.planes.take(link, message)
            case Accepting():
                self._workers.note_accepting(link)
                self._on_accepting()
            case BadAnswer():
                self.metrics.note_bad_answer(message.model, message.number, message.example)
            case Leaving():
                self._workers.note_leaving(link)
            case Decide():
                outcome = self.service.decide(message.decision, message.actor)
                outcome.add_done_callback(lambda done: self._answer_decision(received, done.result()))
            case BeginUpload() | NoteUpload() | FinishUpload() | AbandonUpload():
                self._uploads.take(link, received, message)
            case ReadHistory() | ReadEvents():
                self._reads.submit(self._answer, self._read_history, link, received, message)
            case ListWorkers():
                received.answer(WorkerList(self._workers.list_status()))
            case ReadTraffic():
                numbers = self.metrics.read_traffic(message.model, message.versions)
                received.answer(TrafficRead(tuple(map(tuple, numbers))))
            case ListTraffic():
                self._reads.submit(self._answer, self._list_traffic, link, received, message)
            case RenderMetrics():
                self._renders.submit(self._answer, self._render, link, received, message)

    def _answer(
        self, answer: Callable[[Received, Any], None], link: WorkerLink, received: Received, asked: Any
    ) -> None:
        """Answer a question in one of the threads for that, unless nobody waits for the answer any more."""
        if link.has_ended.is_set():
            return
        try:
            answer(received, asked)
        except Exception:
            log.exception("not_answered", question=type(asked).__name__)

    def _answer_decision(self, received: Received, outcome: DecisionOutcome) -> None:
        """Answer when every worker knows the status that the decision has led to: then all of them say the same."""
        links = self._workers.list_links()
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

    def end_link(self, link: WorkerLink) -> None:
        """Give up what a worker was doing for control, because its channel has ended."""
        self._uploads.end(link)

    def _read_history(self, received: Received, question: ReadHistory | ReadEvents) -> None:
        try:
            if isinstance(question, ReadHistory):
                received.answer(Entries(self.service.read_history(question.query)))
            else:
                received.answer(EventsRead(self.service.read_events(question.event_id, question.limit)))
        except ServingError as error:
            received.answer(HistoryRefused(str(error)))

    def _list_traffic(self, received: Received, _: ListTraffic) -> None:
        found = self.metrics.list_traffic()
        received.answer(TrafficList(tuple(CountedVersion(*one[:2], tuple(one.numbers)) for one in found)))

    def _render(self, received: Received, question: RenderMetrics) -> None:
        for link in self._workers.list_links():
            self.metrics.note_generation(link.index, link.generation)
        text, content_type = self.metrics.render_workers(self._read_gauges(), question.accept)
        received.answer(Exposition(text.decode(), content_type))

    def _read_gauges(self) -> dict[int, list[VersionLeases]]:
        """Return what each worker has loaded; one that does not answer in a moment is left out. Blocks."""
        answers = {link.index: link.channel.ask(ReadGauges()) for link in self._workers.list_links()}
        ends_at = time.monotonic() + GAUGE_SECONDS
        found: dict[int, list[VersionLeases]] = {}
        for index, answer in answers.items():
            with contextlib.suppress(ChannelClosed, FutureTimeout):
                gauges = answer.result(max(0.0, ends_at - time.monotonic())).versions
                found[index] = [VersionLeases(one.model, one.version, one.leases, one.is_active) for one in gauges]
        return found

    def _forget(self, model: str, version: str | None) -> None:
        for link in self._workers.list_links():
            link.channel.send(Forget(model, version))
