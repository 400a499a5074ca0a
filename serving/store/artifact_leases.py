"""Tracks which Artifacts the process still uses, so that eviction spares them."""

from __future__ import annotations

import threading
import weakref

from serving.domain.artifact import Artifact


class ArtifactLeases:
    """The Artifacts that were handed out and that this process still refers to. Any thread.

    It covers the time between the end of a copy and the moment its new owner can report it as in use.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._handed_out: list[weakref.ref[Artifact]] = []  # not a WeakSet: that keeps one of two equal Artifacts

    def hand_out(self, artifact: Artifact) -> Artifact:
        """Note that `artifact` is about to be used, and return it."""
        with self._lock:
            self._handed_out = [one for one in self._handed_out if one() is not None]
            self._handed_out.append(weakref.ref(artifact))
        return artifact

    def current(self) -> tuple[Artifact, ...]:
        """Return the Artifacts that are still referred to."""
        with self._lock:
            found = [one() for one in self._handed_out]
        return tuple(artifact for artifact in found if artifact is not None)
