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
from serving.domain.status import HistoryEntry, ModelSummary, Status, WorkerStatus
from serving.plane.fair_turns import Turns, make_turns
from serving.settings import Settings
from serving.telemetry.count_sheet import CountSheet
from serving.telemetry.metrics import Metrics
from serving.telemetry.traffic import Traffic
from serving.wire.shared_words import map_words
from serving.worker.attach import Attachment, attach
from serving.worker.remote_control import HoldsPublished, RemoteControl
from serving.worker.worker_settings import count_workers, settings_of_one

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.1, 30.0
SOUND_SECONDS = 60.0  # a control that has lived as long as this was not lost because of what it was asked

log = structlog.get_logger("serving.worker")


class AttachedControl:
    """Implements `Operator`, `Counts` and `Background` over one control after another. Event loop thread only.

    While there is none, versions that are compiled go on answering, everything else is Unavailable.
    """

    def __init__(
        self, state: HoldsPublished, settings: Settings, sheet: CountSheet, turns: Turns, metrics: Metrics
    ) -> None:
        self._state = state
        self._settings = settings
        self._sheet = sheet
        self._turns, self._metrics = turns, metrics
        self._loop = asyncio.get_running_loop()
        self._stop = threading.Event()
        self._lost = asyncio.Event()
        self._remote: RemoteControl
        self._keeping: asyncio.Task[None] | None = None
        self.on_started: Callable[[Status], None] = lambda _: None

    async def start(self) -> None:
        """Attach, and return when everything that is committed is loaded. Raises StateUnavailable."""
        while True:
            attachment = await self._attach()
            assert attachment is not None
            if await self._connect(attachment, takes_over=False):
                break
            await asyncio.sleep(FIRST_PAUSE_SECONDS)
        self._keeping = asyncio.create_task(self._keep_attached())

    async def stop(self) -> None:
        """Detach."""
        self._stop.set()
        if self._keeping is not None:
            self._keeping.cancel()
            with suppress(asyncio.CancelledError):
                await self._keeping
        if self._remote is not None:
            self._remote.stop()

    def announce_stop(self) -> None:
        """Implement `Background.announce_stop`: nothing, as others go on."""

    async def decide(self, decision: Decision, actor: str) -> tuple[ModelSummary, ...]:
        """Implement `Operator.decide`."""
        return await self._remote.decide(decision, actor)

    async def history(self, model: str, limit: int = 100, before_id: int | None = None) -> tuple[HistoryEntry, ...]:
        """Implement `Operator.history`."""
        return await self._remote.history(model, limit, before_id)

    async def render(self, accept: str) -> tuple[bytes, str]:
        """Implement `Counts.render`."""
        return await self._remote.render(accept)

    async def sum_of(self, model: str, versions: Sequence[str]) -> list[Traffic]:
        """Implement `Counts.sum_of`."""
        return await self._remote.sum_of(model, versions)

    async def list_workers(self) -> tuple[WorkerStatus, ...]:
        """Implement `Counts.list_workers`."""
        return await self._remote.list_workers()

    # -----------------------------------------------------------------------------------------------------------------

    async def _attach(self) -> Attachment | None:
        return await asyncio.to_thread(attach, self._settings, self._sheet.fd, self._stop)

    async def _connect(self, attachment: Attachment, *, takes_over: bool) -> bool:
        """Load what control says; returns whether it has let this process answer, before it was lost."""
        words = map_words(attachment.words)
        os.close(attachment.words)
        remote = self._remote = RemoteControl(
            *(self._state, attachment.sock, words, self._turns, self._metrics, self._note_loss), takes_over=takes_over
        )
        remote.start()
        await remote.wait_until_loaded()
        if remote.is_lost and not remote.settle():
            remote.stop()
            return False
        remote.note_accepting()
        log.info("attached", worker=attachment.index)
        return True

    async def _keep_attached(self) -> None:
        """Attach again and again, whenever control is lost."""
        answering, losses = self._remote, 0
        attached_at = time.monotonic()
        while True:
            await self._lost.wait()
            self._lost.clear()
            losses = 1 if time.monotonic() - attached_at > SOUND_SECONDS else losses + 1
            log.warning("control_lost", effect="what is compiled goes on answering until control is there again")
            self._remote.stop()
            await asyncio.sleep(min(FIRST_PAUSE_SECONDS * 2 ** (losses - 1), LONGEST_PAUSE_SECONDS))
            try:
                attachment = await self._attach()
            except StateUnavailable as error:
                log.error("cannot_attach", reason=str(error))
                self._lost.set()
                continue
            if attachment is None:
                return
            attached_at = time.monotonic()
            if await self._connect(attachment, takes_over=True):
                answering.retire()
                answering = self._remote
            else:
                self._lost.set()

    def _note_loss(self) -> None:
        self._loop.call_soon_threadsafe(self._lost.set)


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
        state.services = api.make_services(state, own, metrics, control, control, access, control)
        try:
            await control.start()
            yield
        finally:
            await control.stop()
            await asyncio.to_thread(turns.executor.shutdown)

    return run
