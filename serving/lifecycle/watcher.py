"""The watcher thread: it only wakes the reconciler, which looks at the store to see what happened."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import structlog
from watchdog.events import (
    DirAttribEvent,
    DirCreatedEvent,
    DirDeletedEvent,
    DirModifiedEvent,
    DirMovedEvent,
    FileAttribEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

from serving.failpoints import reach
from serving.store.upload_directories import PREFIX

PROBE_SECONDS = 1.0
JOIN_SECONDS = 5.0
# Not the events of opening and closing for reading: listing and staging would wake themselves for ever.
EVENTS: list[type[FileSystemEvent]] = [
    DirAttribEvent,
    DirCreatedEvent,
    DirDeletedEvent,
    DirModifiedEvent,
    DirMovedEvent,
    FileAttribEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
]

# A directory that is made while the one above it is being added is added twice. watchdog warns of that on standard
# error, which is the log, and does the right thing.
warnings.filterwarnings("ignore", "Callback with id .* already exists for watch", RuntimeWarning)

_ASIDE = f"/{PREFIX}"
_LIMITS = {
    errno.ENOSPC: "raise fs.inotify.max_user_watches (sysctl)",
    errno.EMFILE: "raise fs.inotify.max_user_instances (sysctl)",
}

log = structlog.get_logger("serving.watcher")


class _Waker(FileSystemEventHandler):
    """Calls `wake` for every event, except in uploads that are not published yet, and notes that events arrive."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self.has_seen_event = threading.Event()

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Wake the reconciler (called by watchdog's thread)."""
        self.has_seen_event.set()
        reach("event")
        if _ASIDE in str(event.src_path) and not event.dest_path:
            return  # a long upload would have the store listed all the time
        self._wake()


class Watcher:
    """Owns watchdog's observer for one store. Called by the reconciler's thread only.

    `mode` says how changes are noticed now: ``events``, or ``poll`` when the reconciler has to look by itself. With
    ``auto`` events are used only after one has arrived: on network file systems inotify reports nothing, and no error
    says so. `problem` says why there are no events, if that can be mended.
    """

    def __init__(self, root: Path, watch: Literal["auto", "events", "poll"], wake: Callable[[], None]) -> None:
        self._root = root
        self._watch = watch
        self._wake = wake
        self._observer: BaseObserver | None = None
        self._identity: tuple[int, int] | None = None
        self._has_failed = False
        self.mode: Literal["events", "poll"] = "poll"
        self.problem: str | None = None

    def ensure(self, identity: tuple[int, int]) -> bool:
        """Make sure that the directory which has just been listed (device, inode) is being watched.

        A root that was replaced is watched anew; an observer that died is replaced. Return True if a watch has just
        begun: changes before that need another look. Blocks for at most PROBE_SECONDS, and only if something changed.
        """
        if self._watch == "poll":
            return False
        if identity == self._identity and (self._has_failed or self._is_alive()):
            return False
        if identity == self._identity:
            log.warning("watcher_lost", reason="its thread has ended", effect="the store is watched anew")
        self.stop()
        self.problem = None
        self._identity = identity
        self._has_failed = not self._start()
        mode: Literal["events", "poll"] = "poll" if self._has_failed else "events"
        if mode != self.mode or mode == "poll":
            log.info("watching", mode=mode, store=str(self._root))
        self.mode = mode
        return mode == "events"

    def has_root_moved(self) -> bool:
        """Whether the path no longer leads to the directory that is watched. One system call."""
        try:
            found = self._root.stat()
        except OSError:
            return True
        return (found.st_dev, found.st_ino) != self._identity

    def forget(self) -> None:
        """Forget a root that cannot be listed: it is watched anew when it is back."""
        self.stop()
        self._identity = None

    def distrust(self) -> None:
        """Poll from now on with ``auto``: a change was found that no event had announced."""
        if self._watch == "auto" and self.mode == "events":
            log.warning("events_missed", effect="the store is polled from now on", store=str(self._root))
            self.stop()
            self._has_failed = True

    def stop(self) -> None:
        """Stop and join the observer's threads."""
        observer, self._observer = self._observer, None
        self.mode = "poll"
        if observer is None:
            return
        observer.stop()
        with contextlib.suppress(RuntimeError):  # it never started
            observer.join(JOIN_SECONDS)
        if observer.is_alive():
            log.error("thread_alive", thread="watcher", reason=f"did not end within {JOIN_SECONDS:g} s")

    def _is_alive(self) -> bool:
        observer = self._observer
        return observer is not None and observer.is_alive() and all(one.is_alive() for one in observer.emitters)

    def _start(self) -> bool:
        waker = _Waker(self._wake)
        observer = Observer()
        observer.name = "serving-watcher"
        try:
            observer.schedule(waker, str(self._root.resolve()), recursive=True, event_filter=EVENTS)
            observer.start()
        except OSError as error:
            log.warning("watch_failed", reason=str(error), effect="the store is polled")
            advice = _LIMITS.get(error.errno or 0, "see the log")
            self.problem = f"changes are found by polling only: {error.strerror or error}; {advice}"
            self._observer = observer
            self.stop()
            return False
        self._observer = observer
        if self._watch == "auto" and not self._probe(waker):
            self.stop()
            return False
        return True

    def _probe(self, waker: _Waker) -> bool:
        """Set the times of the store's directory to now and see whether an event arrives.

        A file would work, too, but it could disturb a removal of the directory at that moment.
        """
        try:
            os.utime(self._root)
        except OSError as error:
            log.info("probe_impossible", reason=str(error), effect="the store is polled")
            return False
        return waker.has_seen_event.wait(PROBE_SECONDS)
