"""The reconciler thread: looks at the store, asks the policy, publishes the status.

Everything reaches it through one inbox, as values: see `serving.lifecycle.inbox`.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from types import MappingProxyType
from typing import Protocol, assert_never

import structlog

from serving.domain.decision import Decision, DecisionOutcome
from serving.domain.errors import StagingFailed
from serving.domain.listing import Listing
from serving.domain.plan import Drained, HostGone
from serving.domain.status import StateStatus, Status
from serving.lifecycle.environment_watch import EnvironmentWatch
from serving.lifecycle.exclusion import Exclusion
from serving.lifecycle.history import History
from serving.lifecycle.inbox import (
    AnswersCompared,
    CandidateFinished,
    CandidateProgressed,
    ComparisonWanted,
    HostBrought,
    Message,
    PendingDecision,
    StateRead,
    StopAnnounced,
    StopNow,
    StoreChanged,
    UploadChanged,
)
from serving.lifecycle.journal import Journal
from serving.lifecycle.model_table import ModelTable
from serving.lifecycle.operations import Operations
from serving.lifecycle.snapshots import model_status
from serving.lifecycle.store_poller import StorePoller
from serving.lifecycle.unfinished_copies import list_unfinished
from serving.lifecycle.upload_table import UploadTable
from serving.store.staging import Cache

JOIN_SECONDS = 10.0
CRASH_PAUSE_SECONDS = 1.0

log = structlog.get_logger("serving.reconciler")


class HoldsStatus(Protocol):
    """The part of ``app.state`` that this module uses."""

    status: Status


class Reconciler:
    """Owns the reconciler thread. `wake`, `post` and `decide` may be called from any thread."""

    def __init__(
        self,
        state: HoldsStatus,
        store_poller: StorePoller,
        cache: Cache,
        model_table: ModelTable,
        exclusion: Exclusion,
        history: History,
        journal: Journal,
        operations: Operations,
        environments: EnvironmentWatch,
        uploads: UploadTable,
        on_started: Callable[[Status], None] = lambda _: None,
    ) -> None:
        self._state = state
        self._store_poller = store_poller
        self._cache = cache
        self._model_table = model_table
        self._exclusion = exclusion
        self._journal = journal
        self._history = history
        self._operations = operations
        self._environments = environments
        self._uploads = uploads
        self._on_started = on_started
        self._inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="serving-reconciler", daemon=True)
        self._is_stopping = False
        self._is_stop_announced = False
        self._has_looked = False
        self._was_state_loaded = False
        self._has_started = False

    # --- any thread --------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def announce_stop(self) -> None:
        """Let the status say that the service stops soon: it is not ready any more."""
        self.post(StopAnnounced())

    def stop(self) -> None:
        """End the thread after its present turn and join it with a deadline."""
        self.post(StopNow())
        self._thread.join(JOIN_SECONDS)
        if self._thread.is_alive():
            log.error("thread_alive", thread="reconciler", reason=f"did not end within {JOIN_SECONDS:g} s")

    def post(self, message: Message) -> None:
        """Put a message into the inbox; the thread takes it in its next turn."""
        self._inbox.put(message)

    def wake(self) -> None:
        """Ask for a look at the store, because something may have changed there."""
        if self._store_poller.wake():
            self.post(StoreChanged())

    def decide(self, decision: Decision, actor: str) -> Future[DecisionOutcome]:
        """Carry out a decision on the thread; the future gets its outcome when that turn has ended."""
        pending = PendingDecision(decision, actor, Future())
        self._inbox.put(pending)
        return pending.outcome

    # --- the thread --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._is_stopping:
            try:
                self._turn()
            except Exception:
                log.exception("turn_failed", effect="serving goes on; the store is looked at again")
                self._store_poller.hurry()
                time.sleep(CRASH_PAUSE_SECONDS)
        self._history.close()

    def _turn(self) -> None:
        if self._has_looked:  # before the first look, operators would ask about models that are not known yet
            self._receive()
        now = time.monotonic()
        if self._store_poller.is_due(now) or any(model.is_due(now) for model in self._model_table.models.values()):
            self._look()
        self._model_table.rollouts.look(self._model_table.models.values(), now)
        self._journal.dirty |= self._environments.find_models_to_retry(now) & self._model_table.models.keys()
        self._model_table.advance_due(time.monotonic())
        self._publish(time.monotonic())
        self._keep_history()
        self._clean_cache()
        self._operations.answer(self._state.status)

    def _keep_history(self) -> None:
        """Write what has happened to disk, and publish that. Decisions that can be read only now may change what every
        model does.
        """
        self._history.flush()
        if self._history.events.newest != self._state.status.newest_event:
            self._state.status = replace(self._state.status, newest_event=self._history.events.newest)
        was_loaded, self._was_state_loaded = self._was_state_loaded, self._history.is_loaded
        if self._was_state_loaded and not was_loaded:
            self.post(StateRead())

    def _clean_cache(self) -> None:
        if not self._model_table.has_changed_cache:
            return
        self._model_table.has_changed_cache = False
        try:
            self._cache.evict(self._model_table.digests_in_use())
        except StagingFailed as error:
            log.warning("cache_not_cleaned", reason=str(error))

    def _receive(self) -> None:
        """Wait for the next message or until something is due, then handle all messages in the inbox."""
        try:
            message = self._inbox.get(timeout=max(0.0, self._next_due() - time.monotonic()))
            while True:
                self._take(message)
                message = self._inbox.get_nowait()
        except queue.Empty:
            pass

    def _take(self, message: Message) -> None:
        match message:
            case PendingDecision():
                self._operations.take(message)
            case StoreChanged():
                self._store_poller.trust()
            case StateRead():
                self._journal.dirty.update(self._model_table.models)
            case StopAnnounced():
                self._is_stop_announced = True
            case StopNow():
                self._is_stopping = True
            case (
                CandidateProgressed() | CandidateFinished() | HostBrought() | AnswersCompared() | Drained() | HostGone()
            ):
                self._model_table.take(message)
            case UploadChanged():
                self._take_upload(message)
            case ComparisonWanted():
                if message.comparison.set_running_or_notify_cancel():
                    message.comparison.set_result(self._model_table.compare(message.model, message.version))
            case _:
                assert_never(message)

    def _take_upload(self, message: UploadChanged) -> None:
        """Note what has become of an upload; the next snapshot shows it."""
        if message.entry is not None:
            self._history.events.note(message.entry, message.model)
            self._model_table.has_changed_cache = True  # a version was copied into it

    def _next_due(self) -> float:
        times = [at for model in self._model_table.models.values() if (at := model.wake_at) is not None]
        others = (self._environments.next_due(), self._model_table.rollouts.next_due(), self._uploads.next_due())
        return min([self._store_poller.next_due(), *others, *times])

    def _look(self) -> None:
        """List the store and update all models. A store that cannot be listed is not empty."""
        is_first, self._has_looked = not self._has_looked, True
        listing = None
        try:
            listing = self._store_poller.look()
        finally:
            now = time.monotonic()
            if is_first:
                self._restore(listing, now)
        if listing is not None:
            is_changed = self._model_table.update(listing.models, now)
            unfinished = list_unfinished(self._model_table.models.values(), now)
            self._store_poller.took_in(listing, unfinished, is_changed=is_changed)
        else:
            self._model_table.lose_store()

    def _restore(self, listing: Listing | None, now: float) -> None:
        """Start with the versions that were active or had labels before, from the cache, whatever the store holds now.

        If that was another store, or it is not known which, take only what this store still has, if it can be listed.
        """
        served = self._history.served
        store = served.store
        if store is not None and store.path != self._store_poller.path:
            return
        for model in {**served.active, **served.labelled}:
            is_listed = listing is not None and model in listing.models
            if store is None and listing is not None and not is_listed:
                continue
            try:
                artifacts = {(one.id.version, one.id.digest): one for one in self._cache.artifacts(model)}
            except StagingFailed as error:
                log.error("cache_unreadable", model=model, reason=str(error))
                continue
            for label, version, digest in served.list_answers(model, self._history.decisions.labels_of(model)):
                artifact = artifacts.get((version, digest))
                if artifact is not None:
                    log.info("restored_from_cache", model=model, version=version, digest=digest, label=label)
                    self._model_table.restore(artifact, now, label)
                elif not is_listed:
                    reason = "the cache has no sound copy of it"
                    log.error("not_restored", model=model, version=version, label=label, reason=reason)

    def _publish(self, now: float) -> None:
        """Replace the snapshot in ``app.state`` when anything in it has changed."""
        status, decisions = self._state.status, self._history.decisions
        dirty, self._journal.dirty = self._journal.dirty, set()
        models = status.models
        if dirty:
            known = self._model_table.models
            kept = {name: model for name, model in models.items() if name in known}
            for name in dirty & known.keys():
                kept[name] = model_status(self._model_table, self._exclusion, known[name], decisions, now)
            models = MappingProxyType(dict(sorted(kept.items())))
        has_started = self._has_started or all(model.is_settled for model in self._model_table.models.values())
        after = replace(
            status,
            models=models,
            store=self._store_poller.status,
            has_started=has_started,
            is_stopping=self._is_stop_announced,
            uploads=self._uploads.list_status(),
            state=StateStatus(problem=self._history.problem, is_held=decisions.held is not None),
        )
        self._state.status = after
        if has_started and not self._has_started:
            self._has_started = True
            log.info("started", models=len(models), active=sum(1 for model in models.values() if model.active))
            self._on_started(after)
