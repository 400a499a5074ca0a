"""Control as a process of somebody's own application has it: it may end, and then another one is found or started."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress

import structlog
from fastapi import FastAPI

from serving import __version__, api
from serving.api.access import Access
from serving.app import Lifespan
from serving.domain.decision import Decision
from serving.domain.errors import StateUnavailable
from serving.domain.event_page import EventPage, HistoryQuery
from serving.domain.status import ModelHistoryEntry, ModelSummary, Status, WorkerStatus
from serving.domain.upload import UploadBegun, UploadRequest, UploadStatus
from serving.plane.fair_turns import Turns, make_turns
from serving.recording.recorder import keep_recording
from serving.settings import Settings, make_shared
from serving.store.upload_receiver import UploadReceiver
from serving.telemetry.count_sheet import CountSheet
from serving.telemetry.metrics import Metrics
from serving.telemetry.tracer import make_tracer
from serving.telemetry.traffic import Traffic, VersionTraffic
from serving.wire.shared_words import map_words
from serving.worker.attach import attach
from serving.worker.remote_control import HoldsPublished, RemoteControl
from serving.worker.worker_settings import count_workers, settings_of_one

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.1, 30.0
SOUND_SECONDS = 60.0  # a control that has lived as long as this was not lost because of what it was asked

log = structlog.get_logger("serving.worker")


class AttachedControl:
    """Implements `Operator`, `Counts`, `UploadControl` and `Background` over one control after another.

    Event loop thread only. While there is none, versions that are compiled go on answering, everything else is
    Unavailable.
    """

    def __init__(
        self, state: HoldsPublished, settings: Settings, sheet: CountSheet, turns: Turns, metrics: Metrics
    ) -> None:
        self._state = state
        self._settings = make_shared(settings)
        self._sheet = sheet
        self._turns, self._metrics = turns, metrics
        self._stop = threading.Event()
        self._remote: RemoteControl
        self._keeping: asyncio.Task[None] | None = None
        self.on_started: Callable[[Status], None] = lambda _: None

    async def start(self) -> None:
        """Attach, and return when everything that is committed is loaded. Raises StateUnavailable."""
        while True:
            if await self._attach(takes_over=False):
                break
            await asyncio.sleep(FIRST_PAUSE_SECONDS)
        self._keeping = asyncio.create_task(self._keep_attached())

    async def stop(self) -> None:
        """Detach. Only after `start`."""
        self._stop.set()
        if self._keeping is not None:
            self._keeping.cancel()
            with suppress(asyncio.CancelledError):
                await self._keeping
        self._remote.stop()

    def announce_stop(self) -> None:
        """Implement `Background.announce_stop`: nothing, as others go on."""

    async def decide(self, decision: Decision, actor: str) -> tuple[ModelSummary, ...]:
        """Implement `Operator.decide`."""
        return await self._remote.decide(decision, actor)

    async def history(self, query: HistoryQuery) -> tuple[ModelHistoryEntry, ...]:
        """Implement `Operator.history`."""
        return await self._remote.history(query)

    async def events_after(self, event_id: str | None, limit: int) -> EventPage:
        """Implement `Operator.events_after`."""
        return await self._remote.events_after(event_id, limit)

    async def render(self, accept: str) -> tuple[bytes, str]:
        """Implement `Counts.render`."""
        return await self._remote.render(accept)

    async def sum_of(self, model: str, versions: Sequence[str]) -> list[Traffic]:
        """Implement `Counts.sum_of`."""
        return await self._remote.sum_of(model, versions)

    async def list_traffic(self) -> list[VersionTraffic]:
        """Implement `Counts.list_traffic`."""
        return await self._remote.list_traffic()

    async def list_workers(self) -> tuple[WorkerStatus, ...]:
        """Implement `Counts.list_workers`."""
        return await self._remote.list_workers()

    async def begin_upload(self, request: UploadRequest, actor: str) -> UploadBegun:
        """Implement `UploadControl.begin_upload`."""
        return await self._remote.begin_upload(request, actor)

    def note_upload(self, upload_id: str, size: int) -> None:
        """Implement `UploadControl.note_upload`."""
        self._remote.note_upload(upload_id, size)

    async def finish_upload(self, upload_id: str, size: int) -> UploadStatus:
        """Implement `UploadControl.finish_upload`."""
        return await self._remote.finish_upload(upload_id, size)

    async def abandon_upload(self, upload_id: str, reason: str) -> None:
        """Implement `UploadControl.abandon_upload`."""
        await self._remote.abandon_upload(upload_id, reason)

    # -----------------------------------------------------------------------------------------------------------------

    async def _attach(self, *, takes_over: bool) -> bool:
        """Attach and load what control says; returns whether this process answers then. Raises StateUnavailable."""
        attachment = await asyncio.to_thread(attach, self._settings, self._sheet.fd, self._stop)
        if attachment is None:
            return False
        words = map_words(attachment.words)
        os.close(attachment.words)
        remote = self._remote = RemoteControl(
            *(self._state, attachment.sock, words, self._turns, self._metrics, _go_on),
            takes_over=takes_over,
            replay=self._settings.replay,
        )
        remote.start()
        await remote.wait_until_loaded()
        if remote.is_lost and not (takes_over and remote.settle()):
            remote.stop()
            remote.retire()
            return False
        remote.note_accepting()
        log.info("attached", worker=attachment.index)
        return True

    async def _keep_attached(self) -> None:
        """Attach again, whenever control is lost."""
        answering, attached_at, losses = self._remote, time.monotonic(), 0
        while not self._stop.is_set():
            await self._remote.wait_until_lost()
            self._remote.stop()
            losses = 1 if time.monotonic() - attached_at > SOUND_SECONDS else losses + 1
            pause = min(FIRST_PAUSE_SECONDS * 2 ** (losses - 1), LONGEST_PAUSE_SECONDS)
            log.warning("control_lost", retry_seconds=pause, effect="what is compiled goes on answering")
            await asyncio.sleep(pause)
            attached_at = time.monotonic()
            try:
                has_attached = await self._attach(takes_over=True)
            except StateUnavailable as error:
                log.error("cannot_attach", reason=str(error))
                continue
            except Exception:  # whatever it is, as when no descriptor or thread is left: nobody else tries again
                log.exception("cannot_attach")
                continue
            if has_attached:
                answering.retire()
                answering = self._remote


def _go_on(status: int) -> None:
    """Do nothing when control is lost: another one is found by `_keep_attached`."""


def make_shared_lifespan(settings: Settings, access: Access | None = None) -> Lifespan:
    """Return a lifespan for an application that runs in several processes, which share one control."""

    @asynccontextmanager
    async def run(app: FastAPI) -> AsyncIterator[None]:
        if sys.platform != "linux":
            raise StateUnavailable("server.workers: several processes need Linux")
        state = app.state
        state.status = Status()
        sheet, turns = CountSheet.create(), make_turns()
        metrics = Metrics(__version__, sheet)
        control = AttachedControl(state, settings, sheet, turns, metrics)
        own = settings_of_one(settings, count_workers(settings))
        uploads = UploadReceiver(control)
        tracer = make_tracer(own.traces, metrics.count_traces)
        asked = (state, own, metrics, control, control, uploads, access, control)
        state.services = api.make_services(*asked, tracer=tracer)
        await control.start()
        if tracer is not None:
            tracer.start()
        try:
            async with keep_recording(state.services.recorder):
                yield
        finally:
            if tracer is not None:
                await asyncio.to_thread(tracer.stop)
            await control.stop()
            await asyncio.to_thread(turns.executor.shutdown)

    return run
