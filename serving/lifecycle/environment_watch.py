"""Notices environments that appear or change, so that versions refused for want of one are tried again."""

from __future__ import annotations

import math
from collections.abc import Callable

import structlog

from serving.lifecycle.remembered_verdicts import RememberedVerdicts

MOST_PAUSE_SECONDS = 30.0

_AGAINST = "environments:"

log = structlog.get_logger("serving.environments")


class EnvironmentWatch:
    """Compares the environments with those that refusals were made against. Reconciler thread only.

    `read_fingerprint` returns a text that changes with any environment; it costs a few calls of stat, and is called
    every `poll_seconds` while a version waits for an environment. While each call shows a change, such as during an
    installation, the pause doubles up to MOST_PAUSE_SECONDS: every change costs an evaluation of each such version.
    """

    def __init__(self, read_fingerprint: Callable[[], str], verdicts: RememberedVerdicts, poll_seconds: float) -> None:
        self._read_fingerprint = read_fingerprint
        self._verdicts = verdicts
        self._poll_seconds = poll_seconds
        self._pause = poll_seconds
        self._next_look = 0.0
        self._fingerprint: str | None = None

    def against(self) -> str:
        """Return what a refusal by the gate `environment` is made against: the environments, as they were seen last."""
        if self._fingerprint is None:
            self._fingerprint = self._read_fingerprint()
        return _AGAINST + self._fingerprint

    def holds(self, against: str) -> bool:
        """Whether a refusal that was made against these environments still holds."""
        return against == self.against()

    def next_due(self) -> float:
        """Return when `find_models_to_retry` wants to look (monotonic); infinity while no version waits."""
        return self._next_look if self._list_waiting() else math.inf

    def find_models_to_retry(self, now: float) -> set[str]:
        """Return the models with versions that wait for an environment, if any environment has changed."""
        if now < self._next_look:
            return set()
        waiting = self._list_waiting()
        before = self.against()
        if waiting:
            self._fingerprint = self._read_fingerprint()
        has_changed = before != self.against()
        most = max(self._poll_seconds, MOST_PAUSE_SECONDS)
        self._pause = min(2 * self._pause, most) if has_changed else self._poll_seconds
        self._next_look = now + self._pause
        if not has_changed:
            return set()
        log.info("environments_changed", effect="versions that were refused for want of one are tried again")
        return waiting

    def _list_waiting(self) -> set[str]:
        refusals = self._verdicts.refusals.items()
        return {id.model for id, refusal in refusals if is_against_environments(refusal.against)}


def is_against_environments(against: str | None) -> bool:
    """Whether a refusal was made against the environments there were; otherwise it names a digest, or nothing."""
    return against is not None and against.startswith(_AGAINST)
