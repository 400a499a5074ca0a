"""Control as a worker sees it, a channel to the supervisor: carries out what it says, and asks what only it knows."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from functools import partial
from types import MappingProxyType
from typing import Any, Protocol

import structlog

from serving.api.counts import list_leases
from serving.domain.decision import Decision, DecisionRefused
from serving.domain.errors import StateUnavailable, Unavailable
from serving.domain.event_page import EventPage, HistoryQuery
from serving.domain.plan import Commit, Fact, HostGone, Loaded, LoadFailed, ReplaceHost, ReportOutage, Unload
from serving.domain.status import ModelHistoryEntry, ModelSummary, Status, WorkerStatus
from serving.domain.upload import UploadBegun, UploadDone, UploadFailed, UploadRequest, UploadStatus
from serving.domain.version import VersionId
from serving.failpoints import reach
from serving.plane.active_reference import HoldsActive, settle
from serving.plane.fair_turns import Turns
from serving.plane.plane import Plane
from serving.settings import ReplaySettings
from serving.telemetry.metrics import Metrics
from serving.telemetry.traffic import Traffic, VersionTraffic
from serving.wire.recent_rows_document import encode_recent_rows
from serving.wire.worker_channel import ChannelClosed, Received, WorkerChannel
from serving.wire.worker_messages import (
    TYPES,
    AbandonUpload,
    Accept,
    Accepting,
    BadAnswer,
    BeginUpload,
    Decide,
    Entries,
    EventsRead,
    Exposition,
    FinishUpload,
    Forget,
    Gauges,
    HistoryRefused,
    HostLeft,
    Leaving,
    ListTraffic,
    ListWorkers,
    LoadOrder,
    NoteUpload,
    Outcome,
    PlanPrepared,
    PrepareOrder,
    ReadEvents,
    ReadGauges,
    ReadHistory,
    ReadRecentRows,
    ReadSpreads,
    ReadTraffic,
    RecentRowsRead,
    RenderMetrics,
    SpreadsRead,
    StatusChange,
    Sync,
    Synced,
    TrafficList,
    TrafficRead,
    VersionGauge,
    WorkerList,
)
from serving.worker.remote_host import RemoteHost

LOAD_THREADS = 2
RETRY_SECONDS = 1
SUPERVISOR_GONE, ORDER_FAILED = 3, 4  # exit statuses
HOSTS_GONE = "the process that holds the model has ended with control, which is started again; try again"

log = structlog.get_logger("serving.worker")


class HoldsPublished(HoldsActive, Protocol):
    """The part of ``app.state`` that this module uses."""

    status: Status


class RemoteControl:
    """One worker's link to control. It implements `Operator`, `Counts`, `UploadControl` and `Background`.

    When control is gone, or this process cannot do what control says, `give_up` is called with an exit status: nobody
    would know this process any more. If it does not end this process, the channel is closed, and the versions that are
    loaded answer until another commit. With `takes_over` those of an earlier `RemoteControl` answer until this one's
    first commit.
    """

    def __init__(
        self,
        state: HoldsPublished,
        channel_socket: Any,
        committed: memoryview,
        turns: Turns,
        metrics: Metrics,
        give_up: Callable[[int], object] = os._exit,
        *,
        takes_over: bool = False,
        replay: ReplaySettings = ReplaySettings(),  # noqa: B008  (frozen)
    ) -> None:
        self._state = state
        self._loop = asyncio.get_running_loop()
        self._metrics = metrics
        self._channel = WorkerChannel(channel_socket, TYPES, self._take, self._end, "control")
        metrics.tell_bad_answers(lambda model, number, example: self._channel.send(BadAnswer(model, number, example)))
        self._loads = ThreadPoolExecutor(LOAD_THREADS, "serving-load")
        self._doing: dict[VersionId, Future[None]] = {}  # the last thing for each version; the reader's
        self._plane = Plane(state, self._loop, turns, self._tell, committed, takes_over=takes_over, replay=replay)
        self._give_up = give_up
        self._lost = asyncio.Event()
        self.is_lost = False
        self._may_accept = asyncio.Event()
        self._is_stopping = False
        self.on_started: Callable[[Status], None] = lambda _: None

    def start(self) -> None:
        """Begin to listen to the supervisor."""
        self._channel.start()

    async def wait_until_loaded(self) -> None:
        """Wait until everything that is committed is loaded, or control is lost: this worker may take connections."""
        await self._may_accept.wait()

    async def wait_until_lost(self) -> None:
        """Wait until control is gone or the channel is closed."""
        await self._lost.wait()

    def note_accepting(self) -> None:
        """Tell the supervisor that connections are taken."""
        self._channel.send(Accepting())

    def stop(self) -> None:
        """End the channel. Blocks for a moment."""
        self._is_stopping = True
        self._loads.shutdown(wait=False, cancel_futures=True)
        self._channel.close()

    def settle(self) -> bool:
        """After the loss, return whether what was loaded here answers; else free it. Event loop thread only."""
        settle(self._state)
        if self._plane.is_answering:
            return True
        self._state.prepared = self._state.active
        self._plane.retire()
        return False

    def retire(self) -> None:
        """Free what is loaded: another one's versions answer now. Only after the loss."""
        self._plane.retire()

    def announce_stop(self) -> None:
        """Tell the supervisor that this worker ends, and wait no more for what is to be loaded."""
        self._loop.call_soon_threadsafe(self._leave)  # a signal may have come while the channel's lock is held

    # --- what only control knows -------------------------------------------------------------------------------------

    async def decide(self, decision: Decision, actor: str) -> tuple[ModelSummary, ...]:
        """Implement `Operator.decide`."""
        found: Outcome = await self._ask(Decide(decision, actor))
        if isinstance(found.outcome, DecisionRefused):
            raise found.outcome.to_error()
        return found.outcome.models

    async def history(self, query: HistoryQuery) -> tuple[ModelHistoryEntry, ...]:
        """Implement `Operator.history`."""
        found: Entries | HistoryRefused = await self._ask(ReadHistory(query))
        if isinstance(found, HistoryRefused):
            raise StateUnavailable(found.reason)
        return found.entries

    async def events_after(self, event_id: str | None, limit: int) -> EventPage:
        """Implement `Operator.events_after`."""
        found: EventsRead | HistoryRefused = await self._ask(ReadEvents(event_id, limit))
        if isinstance(found, HistoryRefused):
            raise StateUnavailable(found.reason)
        return found.page

    async def render(self, accept: str) -> tuple[bytes, str]:
        """Implement `Counts.render`."""
        found: Exposition = await self._ask(RenderMetrics(accept))
        return found.text.encode(), found.content_type

    async def sum_of(self, model: str, versions: Sequence[str]) -> list[Traffic]:
        """Implement `Counts.sum_of`."""
        found: TrafficRead = await self._ask(ReadTraffic(model, tuple(versions)))
        return [Traffic(list(numbers)) for numbers in found.versions]

    async def list_traffic(self) -> list[VersionTraffic]:
        """Implement `Counts.list_traffic`."""
        found: TrafficList = await self._ask(ListTraffic())
        return [VersionTraffic(one.model, one.version, one.numbers) for one in found.versions]

    async def list_workers(self) -> tuple[WorkerStatus, ...]:
        """Implement `Counts.list_workers`."""
        found: WorkerList = await self._ask(ListWorkers())
        return found.workers

    async def begin_upload(self, request: UploadRequest, actor: str) -> UploadBegun:
        """Implement `UploadControl.begin_upload`."""
        found: UploadBegun | UploadFailed = await self._ask(BeginUpload(request, actor))
        if isinstance(found, UploadFailed):
            raise found.to_error()
        return found

    def note_upload(self, upload_id: str, size: int) -> None:
        """Implement `UploadControl.note_upload`."""
        self._channel.send(NoteUpload(upload_id, size))

    async def finish_upload(self, upload_id: str, size: int) -> UploadStatus:
        """Implement `UploadControl.finish_upload`."""
        found: UploadDone | UploadFailed = await self._ask(FinishUpload(upload_id, size))
        if isinstance(found, UploadFailed):
            raise found.to_error()
        return found.status

    async def abandon_upload(self, upload_id: str, reason: str) -> None:
        """Implement `UploadControl.abandon_upload`."""
        with suppress(Unavailable):  # whoever has control next removes it
            await self._ask(AbandonUpload(upload_id, reason))

    async def _ask(self, question: Any) -> Any:
        try:
            return await asyncio.wrap_future(self._channel.ask(question))
        except ChannelClosed:
            raise Unavailable("this worker has lost its control; try again", RETRY_SECONDS) from None

    # --- what control says: the thread that reads --------------------------------------------------------------------

    def _take(self, received: Received) -> None:
        with self._giving_up_on_failure(type(received.message).__name__):
            self._carry_out(received)

    @contextmanager
    def _giving_up_on_failure(self, what: str) -> Iterator[None]:
        """Give up if something cannot be done that control counts on: a successor begins anew."""
        try:
            yield
        except Exception:  # noqa: BLE001  (whatever it is)
            if self._is_stopping:
                return
            try:
                log.exception("order_failed", order=what, effect="this worker gives up")
            finally:
                self._give_up(ORDER_FAILED)
            self._channel.close()

    def _carry_out(self, received: Received) -> None:
        message = received.message
        match message:
            case LoadOrder():
                self._do_in_order(message.key, partial(self._load, received, message))
            case ReplaceHost():
                self._do_in_order(message.key, partial(self._replace_host, received, message))
            case PrepareOrder():
                self._plane.prepare(message.to_command())
                reach("worker-prepared")
                received.answer(PlanPrepared(message.generation))
            case Commit():
                reach("worker-told")
                self._plane.commit(message)
            case Unload():
                reach("worker-draining")
                self._do_in_order(message.key, partial(self._plane.unload, message))
            case ReportOutage():
                self._plane.report_outage(message)
            case StatusChange():
                self._change_status(message)
            case Forget():
                self._loop.call_soon_threadsafe(self._forget, message)
            case Sync():
                received.answer(Synced())
            case ReadRecentRows() | ReadSpreads() | ReadGauges():
                self._read(received, message)
            case Accept():
                self._loop.call_soon_threadsafe(self._may_accept.set)

    def _do_in_order(self, key: VersionId, do: Callable[[], object]) -> None:
        """Do something with a version in a thread, when everything that came before it has been done."""
        before = self._doing.get(key)

        def run() -> None:
            if before is not None:
                wait((before,))  # it was submitted before: it is done, or runs
            with self._giving_up_on_failure(f"{key.model}/{key.version}"):
                do()

        if self._is_stopping:
            return
        self._doing = {other: one for other, one in self._doing.items() if not one.done()}
        self._doing[key] = self._loads.submit(run)

    def _load(self, received: Received, order: LoadOrder) -> None:
        try:
            process = None
            if order.hosted is not None and received.descriptors:
                process = self._open_host(order, received.descriptors)
            command = order.to_command(received.descriptors if order.compiled is not None else ())
            outcome = self._plane.load(command, process)
            if process is not None and isinstance(outcome, LoadFailed):
                process.close()
        except Exception as error:  # noqa: BLE001  (the supervisor is told, and replaces this worker)
            outcome = LoadFailed(order.key, repr(error))
        finally:
            if order.compiled is not None:
                for fd in received.descriptors:
                    os.close(fd)
        reach("worker-loaded")
        received.answer(outcome)

    def _replace_host(self, received: Received, command: ReplaceHost) -> None:
        if not received.descriptors:  # the host has no channels left; the next one brings some
            received.answer(Loaded(command.key))
            return
        process = self._open_host(command, received.descriptors)
        outcome = self._plane.replace_host(command, process)
        if isinstance(outcome, LoadFailed):
            process.close()
        received.answer(outcome)

    def _read(self, received: Received, message: ReadRecentRows | ReadSpreads | ReadGauges) -> None:
        if isinstance(message, ReadGauges):
            self._loop.call_soon_threadsafe(self._read_gauges, received)
        else:
            self._loads.submit(self._read_sample, received, message)

    def _read_sample(self, received: Received, message: ReadRecentRows | ReadSpreads) -> None:
        if isinstance(message, ReadSpreads):
            received.answer(SpreadsRead(self._plane.spreads(message.model)))
            return
        recent = self._plane.sample(message.key)
        received.answer(RecentRowsRead(None if recent is None else encode_recent_rows(recent)))

    def _open_host(self, order: LoadOrder | ReplaceHost, descriptors: list[int]) -> RemoteHost:
        left = HostLeft(order.key, order.host)
        return RemoteHost(descriptors, lambda: self._channel.send(left))

    def _change_status(self, change: StatusChange) -> None:
        before = self._state.status
        models = {name: model for name, model in before.models.items() if name not in change.removed}
        models |= change.models
        self._state.status = Status(
            models=MappingProxyType(dict(sorted(models.items()))),
            store=change.store,
            state=change.state,
            worker_problem=change.worker_problem,
            has_started=change.has_started,
            is_stopping=change.is_stopping,
            newest_event=change.newest_event,
            uploads=before.uploads if change.uploads is None else change.uploads,
        )

    def _tell(self, fact: Fact) -> None:
        self._channel.send(fact)
        if self.is_lost and isinstance(fact, HostGone):
            self._report_outage(fact.key)

    def _end(self) -> None:
        self.is_lost = True
        if not self._is_stopping:
            try:
                log.error("control_gone", pid=os.getpid())
            finally:
                self._give_up(SUPERVISOR_GONE)
            for key in self._plane.list_versions():
                self._report_outage(key)
        for event in (self._may_accept, self._lost):
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(event.set)

    def _report_outage(self, key: VersionId) -> None:
        """Let no request wait for a host that this control will not bring any more."""
        self._plane.report_outage(ReportOutage(key, HOSTS_GONE, RETRY_SECONDS))

    # --- the event loop ----------------------------------------------------------------------------------------------

    def _leave(self) -> None:
        self._channel.send(Leaving())
        self._may_accept.set()

    def _forget(self, message: Forget) -> None:
        if message.version is None:
            self._metrics.forget_model(message.model)
        else:
            self._metrics.forget(message.model, message.version)

    def _read_gauges(self, received: Received) -> None:
        received.answer(Gauges(tuple(VersionGauge(*one) for one in list_leases(self._state))))


async def beat(words: memoryview, index: int, every_seconds: float) -> None:
    """Write the time into this worker's word again and again: the supervisor replaces a worker whose loop stands."""
    while True:
        words[index] = time.monotonic_ns()
        await asyncio.sleep(every_seconds)
