"""Control as a worker sees it, a channel to the supervisor: carries out what it says, and asks what only it knows."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import Any, Protocol

import structlog

from serving.api.counts import list_leases
from serving.domain.decision import Decision, DecisionRefused
from serving.domain.errors import StateUnavailable, Unavailable, UnknownModel
from serving.domain.plan import Commit, Fact, HostGone, Loaded, LoadFailed, ReplaceHost, ReportOutage, Unload
from serving.domain.status import HistoryEntry, ModelSummary, Status, WorkerStatus
from serving.domain.version import VersionId
from serving.plane.active_reference import HoldsActive, read
from serving.plane.fair_turns import Turns
from serving.plane.plane import Plane
from serving.telemetry.metrics import Metrics
from serving.telemetry.traffic import Traffic
from serving.wire.worker_channel import ChannelClosed, Received, WorkerChannel
from serving.wire.worker_messages import (
    TYPES,
    Accept,
    Accepting,
    Decide,
    Entries,
    Exposition,
    Forget,
    Gauges,
    HistoryRefused,
    HostLeft,
    ListWorkers,
    LoadOrder,
    Outcome,
    PlanPrepared,
    PrepareOrder,
    ReadGauges,
    ReadHistory,
    ReadTraffic,
    RenderMetrics,
    StatusChange,
    Sync,
    Synced,
    TrafficRead,
    VersionGauge,
    WorkerList,
)
from serving.worker.remote_host import RemoteHost

LOAD_THREADS = 2
RETRY_SECONDS = 1
SUPERVISOR_GONE = 3  # exit status
HOSTS_GONE = "the process that holds the model has ended with control, which is started again; try again"

log = structlog.get_logger("serving.worker")


def end_process() -> None:
    """End this process at once, because its supervisor is gone: nobody would know it any more."""
    log.error("supervisor_gone", effect="this worker ends")
    os._exit(SUPERVISOR_GONE)


class HoldsPublished(HoldsActive, Protocol):
    """The part of ``app.state`` that this module uses."""

    status: Status


class RemoteControl:
    """One worker's link to control. It implements `Operator`, `Counts` and `Background` for the HTTP side.

    When control is gone, or has closed the channel, `on_lost` is called, once, by the thread that reads. If this
    process lives on, the versions that are loaded answer until another commit. With `takes_over` those of an earlier
    `RemoteControl` answer until this one's first commit.
    """

    def __init__(
        self,
        state: HoldsPublished,
        channel_socket: Any,
        committed: memoryview,
        turns: Turns,
        metrics: Metrics,
        on_lost: Callable[[], None] = end_process,
        *,
        takes_over: bool = False,
    ) -> None:
        self._state = state
        self._loop = asyncio.get_running_loop()
        self._metrics = metrics
        self._channel = WorkerChannel(channel_socket, TYPES, self._take, self._end, "control")
        self._loads = ThreadPoolExecutor(LOAD_THREADS, "serving-load")
        self._plane = Plane(state, self._loop, turns, self._tell, committed, takes_over=takes_over)
        self._on_lost = on_lost
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
        """Wait until control is gone or has closed the channel."""
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
        with contextlib.suppress(Unavailable):
            read(self._state)
        if self._plane.is_answering:
            return True
        self._state.prepared = self._state.active
        self._plane.retire()
        return False

    def retire(self) -> None:
        """Free what is loaded: another one's versions answer now. Only after the loss."""
        self._plane.retire()

    def announce_stop(self) -> None:
        """Stop waiting for what is to be loaded: this worker ends. The supervisor announces the end of the service."""
        self._loop.call_soon_threadsafe(self._may_accept.set)

    # --- what only control knows -------------------------------------------------------------------------------------

    async def decide(self, decision: Decision, actor: str) -> tuple[ModelSummary, ...]:
        """Implement `Operator.decide`."""
        found: Outcome = await self._ask(Decide(decision, actor))
        if isinstance(found.outcome, DecisionRefused):
            raise found.outcome.to_error()
        return found.outcome.models

    async def history(self, model: str, limit: int = 100, before_id: int | None = None) -> tuple[HistoryEntry, ...]:
        """Implement `Operator.history`."""
        found: Entries | HistoryRefused = await self._ask(ReadHistory(model, limit, before_id))
        if isinstance(found, HistoryRefused):
            raise UnknownModel.for_name(model) if found.is_unknown else StateUnavailable(found.reason)
        return found.entries

    async def render(self, accept: str) -> tuple[bytes, str]:
        """Implement `Counts.render`."""
        found: Exposition = await self._ask(RenderMetrics(accept))
        return found.text.encode(), found.content_type

    async def sum_of(self, model: str, versions: Sequence[str]) -> list[Traffic]:
        """Implement `Counts.sum_of`."""
        found: TrafficRead = await self._ask(ReadTraffic(model, tuple(versions)))
        return [Traffic(list(numbers)) for numbers in found.versions]

    async def list_workers(self) -> tuple[WorkerStatus, ...]:
        """Implement `Counts.list_workers`."""
        found: WorkerList = await self._ask(ListWorkers())
        return found.workers

    async def _ask(self, question: Any) -> Any:
        try:
            return await asyncio.wrap_future(self._channel.ask(question))
        except ChannelClosed:
            raise Unavailable("this worker has lost its control; try again", RETRY_SECONDS) from None

    # --- what control says: the thread that reads --------------------------------------------------------------------

    def _take(self, received: Received) -> None:
        message = received.message
        match message:
            case LoadOrder():
                self._loads.submit(self._load, received, message)
            case ReplaceHost():
                self._loads.submit(self._replace_host, received, message)
            case PrepareOrder():
                self._plane.prepare(message.to_command())
                received.answer(PlanPrepared(message.generation))
            case Commit():
                self._plane.commit(message)
            case Unload():
                received.answer(self._plane.unload(message))
            case ReportOutage():
                self._plane.report_outage(message)
            case StatusChange():
                self._change_status(message)
            case Forget():
                self._loop.call_soon_threadsafe(self._forget, message)
            case Sync():
                received.answer(Synced())
            case ReadGauges():
                self._loop.call_soon_threadsafe(self._read_gauges, received)
            case Accept():
                self._loop.call_soon_threadsafe(self._may_accept.set)

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
            workers=change.workers,
            has_started=change.has_started,
            is_stopping=change.is_stopping,
        )

    def _tell(self, fact: Fact) -> None:
        self._channel.send(fact)
        if self.is_lost and isinstance(fact, HostGone):
            self._report_outage(fact.key)

    def _end(self) -> None:
        self.is_lost = True
        for event in (self._may_accept, self._lost):
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(event.set)
        if not self._is_stopping:
            for key in self._plane.list_versions():
                self._report_outage(key)
            self._on_lost()

    def _report_outage(self, key: VersionId) -> None:
        """Let no request wait for a host that this control will not bring any more."""
        self._plane.report_outage(ReportOutage(key, HOSTS_GONE, RETRY_SECONDS))

    # --- the event loop ----------------------------------------------------------------------------------------------

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
