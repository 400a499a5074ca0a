"""Hosts that died while they served: another one is brought from the cache."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future

import structlog

from serving.domain.errors import HostLost
from serving.lifecycle.candidate import CandidateRunner
from serving.lifecycle.journal import Journal
from serving.lifecycle.records import ModelRecord, VersionRecord
from serving.servable.hosted import HostedEngine
from serving.settings import CandidateSettings

log = structlog.get_logger("serving.respawn")


class Respawn:
    """Reconciler thread only, except `on_lost`."""

    def __init__(
        self,
        runner: CandidateRunner,
        journal: Journal,
        executor: Executor,
        post: Callable[[Callable[[], None]], None],
        loop: asyncio.AbstractEventLoop,
        settings: CandidateSettings,
    ) -> None:
        self._runner = runner
        self._journal = journal
        self._executor = executor
        self._post = post
        self._loop = loop
        self._settings = settings

    def on_lost(self, model: ModelRecord, record: VersionRecord) -> Callable[[HostedEngine], None]:
        """Return what a servable's engine calls, on the loop's thread, when its host is gone."""
        return lambda _: self._post(lambda: self._lost(model, record))

    def advance(self, record: VersionRecord, now: float) -> None:
        """Start a respawn that is due."""
        servable = record.servable
        if record.respawn_at is None or record.respawn_at > now or servable is None or record.artifact is None:
            return
        engine, artifact = servable.engine, record.artifact
        assert isinstance(engine, HostedEngine)
        record.respawn_at = None
        is_first = record.respawn_failures == 0
        entry = None if is_first else record.entry
        future = self._executor.submit(self._runner.respawn, engine, artifact, entry)
        future.add_done_callback(lambda done: self._post(lambda: self._finished(record, engine, done)))

    def _lost(self, model: ModelRecord, record: VersionRecord) -> None:
        if record not in model.loaded:
            return
        log.warning("host_lost", model=record.model, version=record.version, digest=record.digest)
        self._journal.metrics.host_restarted(record.model)
        record.respawn_at = time.monotonic()
        self._note(record, "its host died; another one is being started")
        self.advance(record, record.respawn_at)

    def _finished(self, record: VersionRecord, engine: HostedEngine, done: Future[str | None]) -> None:
        error = done.exception()
        problem = repr(error) if error else done.result()
        if problem is None:
            log.info("host_respawned", model=record.model, version=record.version, digest=record.digest)
            record.respawn_failures = 0
            self._note(record, None)
            return
        record.respawn_failures += 1
        wait = self._settings.wait_seconds(record.respawn_failures)
        record.respawn_at = time.monotonic() + wait
        reason = f"its host died and no other could be started: {problem}; next try in {wait:.0f} s"
        log.error("respawn_failed", model=record.model, version=record.version, reason=problem, wait_seconds=wait)
        self._note(record, reason)
        outage = HostLost(f"the process that holds the model cannot be started: {problem}", max(1, round(wait)))
        self._loop.call_soon_threadsafe(engine.report_outage, outage)

    def _note(self, record: VersionRecord, problem: str | None) -> None:
        record.host_problem = problem
        record.touch()
        self._journal.dirty.add(record.model)
