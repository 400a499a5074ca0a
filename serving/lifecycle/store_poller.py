"""Decides when to look at the store, and whether file events can be trusted."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable

import structlog

from serving.domain.errors import StoreUnavailable
from serving.domain.listing import Listing
from serving.domain.status import StoreStatus
from serving.lifecycle.records import now_utc
from serving.lifecycle.served_versions import KnownStore, ServedVersions
from serving.lifecycle.watcher import Watcher
from serving.settings import StoreSettings
from serving.store.list_store import Store
from serving.telemetry.metrics import Metrics

SUSPICION_SECONDS = 2.0
MIN_PAUSE_SECONDS = 0.02
LASTING_SECONDS = 2.0  # a problem that is still there after that is logged
PAUSE_PER_LISTING = 5.0  # a storm of events costs at most a sixth of a core

log = structlog.get_logger("serving.lookout")


class StorePoller:
    """Lists the store. Reconciler thread only, except `wake`. `status` says how the store is, `path` where it is.

    A look is due after a wake, when the last look is long ago, and when another directory has replaced the store. A
    change that no event has announced raises the suspicion that events do not arrive.
    """

    def __init__(
        self, settings: StoreSettings, store: Store, watcher: Watcher, served: ServedVersions, metrics: Metrics
    ) -> None:
        self.path = os.path.abspath(settings.path)  # noqa: PTH100  (Path.absolute leaves '..' in it)
        self._served = served
        self._settings = settings
        self._store = store
        self._watcher = watcher
        self._metrics = metrics
        self._is_woken = True
        self._was_woken = True
        self._next_resync = 0.0
        self._not_before = 0.0
        self._next_root_check = 0.0
        self._suspicious_until: float | None = None
        self._told: set[str] = set()
        self.status = StoreStatus()

    def wake(self) -> bool:
        """Ask for a look; return False if one has been asked for already. Any thread."""
        was_woken, self._is_woken = self._is_woken, True
        return not was_woken

    def trust(self) -> None:
        """Note that an event has arrived: events can be trusted."""
        self._suspicious_until = None

    def hurry(self) -> None:
        """Make a look due now, without the usual pause."""
        self._next_resync = self._not_before = 0.0

    def is_due(self, now: float) -> bool:
        """Whether it is time to look."""
        self._check_suspicion(now)
        return now >= self._next_resync or (self._is_woken and now >= self._not_before) or self._has_root_moved(now)

    def next_due(self) -> float:
        """Return the monotonic time at which `is_due` may change without any event."""
        due = [self._next_resync]
        if self._is_woken:
            due.append(self._not_before)
        if self._suspicious_until is not None:
            due.append(self._suspicious_until)
        if self._watcher.mode == "events":
            due.append(self._next_root_check)
        return min(due)

    def look(self) -> Listing | None:
        """List the store; None when it cannot be listed. Blocks on the disk."""
        began = time.monotonic()
        self._was_woken, self._is_woken = self._is_woken, False
        try:
            listing = self._store.list({model: version for model, (version, _) in self._served.active.items()})
            self._refuse_unmounted(listing)
        except StoreUnavailable as error:
            self._lost(str(error))
            return None
        finally:
            duration = time.monotonic() - began
            self._not_before = began + duration + max(MIN_PAUSE_SECONDS, PAUSE_PER_LISTING * duration)
            self._metrics.record_resync(duration)
        if self._watcher.ensure(listing.root):
            self._is_woken = True  # something may have changed between the listing and the watch
        is_polling = self._watcher.mode == "poll"
        interval = self._settings.poll_seconds if is_polling else self._settings.resync_seconds
        self._next_resync = time.monotonic() + max(interval, PAUSE_PER_LISTING * duration)
        return listing

    def _refuse_unmounted(self, listing: Listing) -> None:
        """Raise StoreUnavailable for an empty directory on another device than the store with the models was on.

        It is there when a volume is not mounted. A directory with models in it is a store, wherever it is.
        """
        here = KnownStore(self.path, listing.root[0])
        known = self._served.store
        if listing.models:
            self._served.note_store(here)
        elif known is not None and known.path == here.path and known.device != here.device:
            raise StoreUnavailable(
                f"the store '{self._settings.path}' is empty and on another device than the models were: "
                "its volume does not seem to be mounted"
            )

    def took_in(self, listing: Listing, unfinished: Iterable[str] = (), *, is_changed: bool) -> None:
        """Note that a listing has been handled, and whether it differed from the one before.

        `unfinished` are versions whose files do not settle.
        """
        if not self.status.is_available:
            log.info("store_available", store=str(self._settings.path), watch=self._watcher.mode)
        elif is_changed and not self._was_woken and self._watcher.mode == "events":
            self._suspicious_until = time.monotonic() + SUSPICION_SECONDS
        watching = [self._watcher.problem] if self._watcher.problem is not None else []
        problems = (*listing.problems, *unfinished, *watching)
        self._tell(problems)
        self.status = StoreStatus(is_available=True, watch=self._watcher.mode, listed_at=now_utc(), problems=problems)

    def _tell(self, problems: tuple[str, ...]) -> None:
        """Log each problem once. A problem that is new since the last look may be a copy that is still running."""
        self._told &= {*problems}
        lasting = [one for one in problems if one in self.status.problems and one not in self._told]
        for problem in lasting:
            log.warning("store_problem", problem=problem, store=str(self._settings.path))
        self._told.update(lasting)
        if not self._told.issuperset(problems):
            self._next_resync = min(self._next_resync, time.monotonic() + LASTING_SECONDS)

    def _lost(self, reason: str) -> None:
        self._watcher.forget()
        self._metrics.count_store_failure()
        if self.status.is_available or self.status.reason != reason:
            log.error("store_unavailable", reason=reason, effect="what is active goes on; it is looked for again")
        self.status = self.status.model_copy(update={"is_available": False, "reason": reason})
        self._next_resync = time.monotonic() + self._settings.poll_seconds

    def _has_root_moved(self, now: float) -> bool:
        """Whether another directory is where the store was: a mount or a rename above it makes no event inside it."""
        if self._watcher.mode != "events" or now < self._next_root_check:
            return False
        self._next_root_check = now + self._settings.poll_seconds
        return self._watcher.has_root_moved()

    def _check_suspicion(self, now: float) -> None:
        """Distrust events if a resync found a change some time ago, and still no event has come."""
        if self._suspicious_until is not None and now >= self._suspicious_until:
            self._suspicious_until = None
            self._watcher.distrust()
            self._next_resync = now
