"""Which Artifacts are in somebody's hands."""

from __future__ import annotations

import threading
import weakref

from serving.domain.artifact import Artifact


class ArtifactLeases:
    """Artifacts that were handed out and that something in this process still refers to. Any thread.

    It closes the gap between the end of a copy and the moment its new owner can say that it is in use.
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
