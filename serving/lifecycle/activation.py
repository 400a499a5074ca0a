"""The swap, and what becomes of the version that was swapped out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future
from types import MappingProxyType

import structlog

from serving.domain.state import State
from serving.failpoints import reach
from serving.lifecycle.journal import Journal
from serving.lifecycle.records import ModelRecord, VersionRecord, now_utc
from serving.plane.registry import HoldsActive, ModelReference, activate
from serving.plane.servable import Servable

log = structlog.get_logger("serving.activation")


class Activation:
    """Puts versions into the active reference and takes them out. Reconciler thread only."""

    def __init__(
        self,
        state: HoldsActive,
        journal: Journal,
        post: Callable[[Callable[[], None]], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._state = state
        self._journal = journal
        self._post = post
        self._loop = loop

    def publish(self, model: ModelRecord, *, is_known: bool = True) -> None:
        """Make the active reference say what `model` has loaded; a model that is not known any more leaves it."""
        reference = None
        if is_known:
            loaded = {record.version: record.servable for record in reversed(model.loaded) if record.servable}
            reference = ModelReference(model.active.servable if model.active else None, MappingProxyType(loaded))
        activate(self._state, self._state.active.with_model(model.name, reference))

    def activate(self, model: ModelRecord, record: VersionRecord) -> None:
        """Let `record` answer from now on; what answered before becomes a standby.

        It is written down first: a server that is killed in between answers with it when it is started again, and no
        client that has seen it answer sees an older version then.
        """
        reach("before-activation")
        report = record.report
        self._journal.history.note_active(
            record.id, report.signature if report else None, report.provenance if report else None
        )
        previous = model.active
        if record in model.standbys:
            model.standbys.remove(record)
        if previous is not None:
            model.standbys.insert(0, previous)
        model.active, model.activated_at, model.kept = record, now_utc(), None
        self.publish(model)
        reach("activated")
        reason = f"replaces version '{previous.version}'" if previous else "first active version"
        self._journal.move(record, State.ACTIVE, reason)
        if previous is not None:
            self._journal.move(previous, State.READY, f"standby; version '{record.version}' took over")
        self._journal.metrics.swapped(model.name)

    def retire(self, model: ModelRecord, record: VersionRecord) -> None:
        """Take a version out of the reference, wait for its leases on the loop, then tear it down."""
        if record is model.active:
            model.active = model.activated_at = None
        else:
            model.standbys.remove(record)
        model.leaving.append(record)
        self.publish(model)
        reach("draining")
        servable = record.servable
        assert servable is not None
        self._journal.move(record, State.DRAINING, f"{servable.leases} requests in flight")
        began = time.monotonic()
        future = asyncio.run_coroutine_threadsafe(_drain_and_close(servable), self._loop)
        future.add_done_callback(lambda done: self._post(lambda: self._retired(model, record, began, done)))

    def _retired(self, model: ModelRecord, record: VersionRecord, began: float, done: Future[None]) -> None:
        error = None if done.cancelled() else done.exception()
        if error is not None:
            log.error("teardown_failed", model=model.name, version=record.version, reason=repr(error))
        reach("retired")
        duration = time.monotonic() - began
        model.leaving.remove(record)
        self._keep_unlisted(model, record)
        record.servable = None
        record.artifact = None
        is_quarantined = self._journal.history.is_quarantined(record.model, record.version, record.digest)
        after = State.QUARANTINED if is_quarantined else State.RETIRED
        self._journal.move(record, after, "drained and unloaded")
        self._journal.metrics.drained(model.name, duration)
        if record.version not in {one.version for one in model.loaded}:
            self._journal.metrics.forget(model.name, record.version)

    def _keep_unlisted(self, model: ModelRecord, record: VersionRecord) -> None:
        """Let a model be loaded again that is unloaded and of which the store, as far as is known, has nothing."""
        was_active = self._journal.history.active.get(model.name) == (record.version, record.digest)
        if was_active and model.active is None and not model.listed:
            model.kept = VersionRecord(
                *(model.name, record.version, (), record.seen_at), digest=record.digest, artifact=record.artifact
            )


async def _drain_and_close(servable: Servable) -> None:
    await servable.drain()
    await servable.engine.close()
