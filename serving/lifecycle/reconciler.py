"""The reconciler thread: looks at the store, asks the policy, publishes what is true.

Everything reaches it through one inbox: wakes from the watcher, outcomes from worker threads, calls from operators.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from types import MappingProxyType
from typing import Protocol, TypeVar

import structlog

from serving.domain.errors import StagingFailed, StoreUnavailable
from serving.domain.status import Status, StoreStatus
from serving.lifecycle.exclusion import Exclusion
from serving.lifecycle.journal import Journal
from serving.lifecycle.records import now_utc
from serving.lifecycle.road import Road
from serving.lifecycle.snapshots import model_status
from serving.lifecycle.watcher import Watcher
from serving.registry import HoldsActive
from serving.settings import StoreSettings
from serving.store.listing import Store
from serving.store.staging import Cache

JOIN_SECONDS = 10.0
SUSPICION_SECONDS = 2.0
MIN_PAUSE_SECONDS = 0.02
PAUSE_PER_LISTING = 5.0  # a storm of events costs at most a sixth of a core
CRASH_PAUSE_SECONDS = 1.0

log = structlog.get_logger("serving.reconciler")


Result = TypeVar("Result")


class HoldsStatus(HoldsActive, Protocol):
    """``app.state``, as far as this module cares."""

    status: Status


class Reconciler:
    """Owns the reconciler thread. `wake` and `post` may be called from any thread."""

    def __init__(
        self,
        state: HoldsStatus,
        settings: StoreSettings,
        store: Store,
        cache: Cache,
        watcher: Watcher,
        road: Road,
        exclusion: Exclusion,
        journal: Journal,
        on_started: Callable[[Status], None] = lambda _: None,
    ) -> None:
        self._state = state
        self._settings = settings
        self._store = store
        self._cache = cache
        self._watcher = watcher
        self._road = road
        self._exclusion = exclusion
        self._journal = journal
        self._history = journal.history
        self._on_started = on_started
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="serving-reconciler", daemon=True)
        self._is_stopping = False
        self._is_stop_announced = False
        self._is_woken = True
        self._after_turn: list[Callable[[], None]] = []
        self._next_resync = 0.0
        self._not_before = 0.0
        self._next_root_check = 0.0
        self._suspicious_until: float | None = None
        self._store_status = StoreStatus()
        self._has_listed = False
        self._has_started = False

    # --- any thread --------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def look_now(self) -> None:
        """List the store in this turn, whatever the pace. Reconciler thread only."""
        self._next_resync = self._not_before = 0.0

    def announce_stop(self) -> None:
        """Let the service say that it is about to stop: it is not ready any more."""

        def announce() -> None:
            self._is_stop_announced = True

        self.post(announce)

    def stop(self) -> None:
        """End the thread after its present turn and join it with a deadline."""

        def end() -> None:
            self._is_stopping = True

        self.post(end)
        self._thread.join(JOIN_SECONDS)
        if self._thread.is_alive():
            log.error("thread_alive", thread="reconciler", reason=f"did not end within {JOIN_SECONDS:g} s")

    def post(self, message: Callable[[], None]) -> None:
        """Have `message` run on the reconciler's thread soon."""
        self._inbox.put(message)

    def wake(self) -> None:
        """Something may have changed in the store."""
        if not self._is_woken:
            self._is_woken = True
            self.post(self._notice)

    async def call(self, work: Callable[[], None], result: Callable[[], Result]) -> Result:
        """Run `work` on the thread and return `result` as it is when that turn has ended. Event loop only."""
        future: Future[Result] = Future()

        def settle(step: Callable[[], None]) -> None:
            try:
                step()
            except Exception as error:  # noqa: BLE001  (it belongs to the caller)
                future.set_exception(error)

        def run() -> None:
            if future.set_running_or_notify_cancel():
                settle(work_and_answer_later)

        def work_and_answer_later() -> None:
            work()
            self._after_turn.append(lambda: settle(lambda: future.set_result(result())))

        self.post(run)
        return await asyncio.wrap_future(future)

    # --- the thread --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        self._history.open()
        while not self._is_stopping:
            try:
                self._turn()
            except Exception:
                log.exception("turn_failed", effect="serving goes on; the store is looked at again")
                self._next_resync = 0.0
                time.sleep(CRASH_PAUSE_SECONDS)
        self._history.close()

    def _turn(self) -> None:
        self._receive()
        now = time.monotonic()
        is_woken = self._is_woken and now >= self._not_before
        is_due = now >= self._next_resync or any(model.is_due(now) for model in self._road.models.values())
        if is_woken or is_due or self._has_root_moved(now):
            self._look(now)
        self._check_suspicion(time.monotonic())
        self._road.advance_due(time.monotonic())
        self._publish(time.monotonic())
        self._history.flush()
        self._clean_cache()
        calls, self._after_turn = self._after_turn, []
        for call in calls:
            call()

    def _clean_cache(self) -> None:
        if not self._road.has_changed_cache:
            return
        self._road.has_changed_cache = False
        try:
            self._cache.evict(self._road.digests_in_use())
        except StagingFailed as error:
            log.warning("cache_not_cleaned", reason=str(error))

    def _receive(self) -> None:
        """Wait for the next message or the next thing that is due, then take all messages there are."""
        try:
            message = self._inbox.get(timeout=max(0.0, self._next_due() - time.monotonic()))
            while True:
                message()
                message = self._inbox.get_nowait()
        except queue.Empty:
            pass

    def _next_due(self) -> float:
        now = time.monotonic()
        due = [self._next_resync]
        if self._is_woken:
            due.append(self._not_before)
        if self._suspicious_until is not None:
            due.append(self._suspicious_until)
        if self._watcher.mode == "events":
            due.append(self._next_root_check)
        due += [at for model in self._road.models.values() if (at := model.wake_at) is not None]
        return max(min(due), now) if self._has_listed else now

    def _has_root_moved(self, now: float) -> bool:
        """Whether another directory is where the store was: a mount or a rename above it is no event inside of it."""
        if self._watcher.mode != "events" or now < self._next_root_check:
            return False
        self._next_root_check = now + self._settings.poll_seconds
        return self._watcher.has_root_moved()

    def _notice(self) -> None:
        """An event has arrived, so events do arrive."""
        self._suspicious_until = None

    def _look(self, now: float) -> None:
        """List the store and take in what is there. What cannot be listed is not empty."""
        was_woken, self._is_woken = self._is_woken, False
        try:
            listing = self._store.list()
        except StoreUnavailable as error:
            self._store_lost(str(error), now)
            return
        finally:
            self._has_listed = True
            duration = time.monotonic() - now
            self._not_before = time.monotonic() + max(MIN_PAUSE_SECONDS, PAUSE_PER_LISTING * duration)
            self._journal.metrics.resynced(duration)
        if self._watcher.ensure(listing.root):
            self._is_woken = True  # something may have changed between the listing and the watch
        is_changed = self._road.update(listing.models, time.monotonic())
        if is_changed and not was_woken and self._store_status.is_available and self._watcher.mode == "events":
            self._suspicious_until = time.monotonic() + SUSPICION_SECONDS
        if not self._store_status.is_available:
            log.info("store_available", store=str(self._settings.path), watch=self._watcher.mode)
        self._store_status = StoreStatus(
            is_available=True, watch=self._watcher.mode, listed_at=now_utc(), problems=listing.problems
        )
        is_polling = self._watcher.mode == "poll"
        interval = self._settings.poll_seconds if is_polling else self._settings.resync_seconds
        self._next_resync = time.monotonic() + max(interval, PAUSE_PER_LISTING * duration)

    def _store_lost(self, reason: str, now: float) -> None:
        self._watcher.forget()
        self._journal.metrics.store_failed()
        if self._store_status.is_available or self._store_status.reason != reason:
            log.error("store_unavailable", reason=reason, effect="what is served goes on being served")
        if self._store_status.listed_at is None and not self._road.models:
            self._restore(now)
        self._store_status = self._store_status.model_copy(update={"is_available": False, "reason": reason})
        self._next_resync = time.monotonic() + self._settings.poll_seconds

    def _restore(self, now: float) -> None:
        """Nothing has ever been listed by this process: start from what was active before, out of the cache."""
        for model, (version, digest) in self._history.active.items():
            try:
                cached = self._cache.artifacts(model)
            except StagingFailed as error:
                log.error("cache_unreadable", model=model, reason=str(error))
                continue
            artifact = next((one for one in cached if (one.id.version, one.id.digest) == (version, digest)), None)
            if artifact is not None:
                log.info("restored_from_cache", model=model, version=version, digest=digest)
                self._road.restore(model, artifact, now)

    def _check_suspicion(self, now: float) -> None:
        """A resync found a change some time ago, and still no event has come: events cannot be relied upon."""
        if self._suspicious_until is not None and now >= self._suspicious_until:
            self._suspicious_until = None
            self._watcher.distrust()
            self._next_resync = now

    def _publish(self, now: float) -> None:
        """Replace the snapshot in ``app.state`` when anything in it has changed."""
        status = self._state.status
        dirty, self._journal.dirty = self._journal.dirty, set()
        models = status.models
        if dirty:
            known = self._road.models
            kept = {name: model for name, model in models.items() if name in known}
            for name in dirty & known.keys():
                kept[name] = model_status(self._road, self._exclusion, known[name], self._history.pins.get(name), now)
            models = MappingProxyType(dict(sorted(kept.items())))
        has_started = self._has_started or all(model.is_settled for model in self._road.models.values())
        after = replace(
            status,
            models=models,
            store=self._store_status,
            has_started=has_started,
            is_stopping=self._is_stop_announced,
            state_problem=self._history.problem,
        )
        self._state.status = after
        if has_started and not self._has_started:
            self._has_started = True
            log.info("started", models=len(models), active=sum(1 for model in models.values() if model.active))
            self._on_started(after)
