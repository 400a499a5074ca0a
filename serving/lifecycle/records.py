"""What the reconciler knows of each model and version. Reconciler thread only; the outside gets snapshots."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from serving.domain.artifact import Artifact
from serving.domain.environment import OWN
from serving.domain.listing import Entry, Fingerprint
from serving.domain.plan import Placement
from serving.domain.report import CandidateReport, GateResult
from serving.domain.state import State, require_transition
from serving.domain.status import Failure, VersionStatus
from serving.domain.version import VersionId
from serving.lifecycle.candidate import Candidate

if TYPE_CHECKING:
    from serving.lifecycle.rollout_run import RolloutRun
    from serving.telemetry.candidate_trace import CandidateTrace

LOADED = (State.READY, State.SHADOW, State.CANARY, State.ACTIVE)
"""The states of a version that can answer."""
HELD = "operators' decisions have been lost; it waits until that is accepted"


def now_utc() -> datetime:
    """Return the wall clock's time, for people; decisions use the monotonic clock."""
    return datetime.now(UTC)


@dataclass(eq=False, slots=True)
class VersionRecord:
    """One content of one version: its state and what is known of it.

    `is_held`: it waits until an operator accepts that decisions have been lost. `not_before` is monotonic: the end of
    the settle window or of a backoff. `seen_at`: when these bytes were first seen. `begun_at`: when the changes began
    that have not settled yet. `postponements` counts how often its files were not complete when they were copied;
    `unfinished` says why they are not. `placement`: where it answers, from READY until it is unloaded; `host` is the
    number of its host, if it is hosted. `is_copy_lost`: its host is gone, and there is no undamaged copy of its files
    to start another one from. `fruitless_hosts` are the times (monotonic) at which its hosts ended lately without
    being of use: see `Respawn`. `gates_so_far` have spoken in the evaluation that is under way. `was_active`: it has
    been active since it was first seen. `trace` is that of the candidate, from its staging until its outcome is
    exported, where candidates are traced.
    """

    model: str
    version: str
    fingerprint: Fingerprint
    seen_at: float
    begun_at: float = math.inf
    unfinished: str | None = None
    entry: Entry | None = None
    digest: str | None = None
    artifact: Artifact | None = None
    state: State = State.DISCOVERED
    since: datetime = field(default_factory=now_utc)
    entered_at: float = field(default_factory=time.monotonic)
    reason: str | None = None
    is_held: bool = False
    report: CandidateReport | None = None
    gates_so_far: tuple[GateResult, ...] = ()
    not_before: float = 0.0
    retry_at: datetime | None = None
    failures: int = 0
    host_deaths: int = 0
    postponements: int = 0
    placement: Placement | None = None
    host: int = 0
    respawn_at: float = 0.0
    is_respawning: bool = False
    respawn_failures: int = 0
    is_host_lost: bool = False
    fruitless_hosts: tuple[float, ...] = ()
    host_problem: str | None = None
    is_copy_lost: bool = False
    was_active: bool = False
    trace: CandidateTrace | None = None
    _status: VersionStatus | None = None

    @property
    def is_nameless(self) -> bool:
        """Whether this is a lone file that has not been read: it may have had another name before a restart."""
        return self.entry is not None and self.entry.is_lone and self.digest is None

    @property
    def id(self) -> VersionId:
        """The identity; only once the digest is known."""
        assert self.digest is not None
        return VersionId(self.model, self.version, self.digest)

    @property
    def environment(self) -> str:
        """The name of the environment that it was evaluated in: its hosts run there."""
        return OWN if self.report is None else self.report.place

    def move(self, after: State, reason: str | None) -> float:
        """Change the state and return the seconds spent in the one left.

        Raises IllegalTransition for a change that the table does not know.
        """
        require_transition(self.state, after)
        left_at, self.entered_at = self.entered_at, time.monotonic()
        self.state, self.reason, self.since, self.is_held = after, reason, now_utc(), False
        if after is not State.FAILED:
            self.retry_at = None
        self._status = None
        return self.entered_at - left_at

    def forget_engine(self) -> None:
        """It is unloaded: what is known of its engine, of its hosts and of the copy they opened is past."""
        self.placement = self.artifact = self.host_problem = None
        self.is_host_lost = self.is_copy_lost = False
        self.respawn_failures, self.respawn_at = 0, 0.0

    def copy_kept(self) -> VersionRecord:
        """Return a record of the copy in the cache, which can be loaded whatever the store holds."""
        return VersionRecord(self.model, self.version, (), self.seen_at, digest=self.digest, artifact=self.artifact)

    def touch(self) -> None:
        """Note that something other than the state has changed: the next snapshot is made anew."""
        self._status = None

    def status(self, *, is_quarantined: bool) -> VersionStatus:
        """Return the snapshot of this version."""
        status = self._status
        if status is None or status.is_quarantined != is_quarantined:
            report = self.report
            chosen = report.environment if report else None
            status = VersionStatus(
                version=self.version,
                digest=self.digest,
                state=self.state,
                since=self.since,
                reason=HELD if self.is_held else self.reason,
                retry_at=self.retry_at,
                is_loaded=self.placement is not None and self.state in LOADED,
                is_quarantined=is_quarantined,
                engine=report.engine if report else None,
                memory_bytes=report.memory_bytes if report else None,
                libraries=report.libraries if report else {},
                signature=report.signature if report else None,
                gates=self.gates_so_far or (report.gates if report else ()),
                compilation=report.compilation if report else None,
                sandbox=report.sandbox if report else None,
                needs=report.needs if report else None,
                environment=chosen.name if chosen else None,
                environment_reason=chosen.reason if chosen else None,
            )
            self._status = status
        return status


@dataclass(eq=False, slots=True)
class ModelRecord:
    """One model: what the store lists, what is loaded, what is under way.

    `listed` maps version names to records in the store's order (newest first). `standbys` are loaded but not active,
    most recently active first. `kept` is the version that was active before a restart, from the cache, until something
    is active. `labelled` has the loaded version that answers for each label, None while none does; `kept_labelled` what
    answered for labels before a restart, from the cache, until they answer again. `problem` says why the model does not
    do what an operator has decided. `settles_at` is the monotonic time at which nothing in the model's directory will
    have changed for the settle window. `rollout` is a version on its way to take over step by step, or the part that
    the version before still has.
    """

    name: str
    entries: tuple[Entry, ...] = ()
    listed: dict[str, VersionRecord] = field(default_factory=dict)
    active: VersionRecord | None = None
    activated_at: datetime | None = None
    standbys: list[VersionRecord] = field(default_factory=list)
    leaving: list[VersionRecord] = field(default_factory=list)
    running: VersionRecord | None = None
    candidate: Candidate | None = None
    kept: VersionRecord | None = None
    labelled: dict[str, VersionRecord | None] = field(default_factory=dict)
    kept_labelled: dict[str, VersionRecord] = field(default_factory=dict)
    problem: str | None = None
    last_failure: Failure | None = None
    is_settled: bool = False
    wake_at: float | None = None
    settles_at: float = 0.0
    rollout: RolloutRun | None = None

    def is_due(self, now: float) -> bool:
        """Whether waiting alone has changed what is to be done."""
        return self.wake_at is not None and self.wake_at <= now

    @property
    def loaded(self) -> list[VersionRecord]:
        """Everything that can answer: the active version, then the standbys."""
        return ([self.active] if self.active else []) + self.standbys

    @property
    def all_kept(self) -> list[VersionRecord]:
        """What answered before a restart, from the cache: the version that was active, then those with labels."""
        return ([self.kept] if self.kept else []) + list(self.kept_labelled.values())

    def find_loaded(self, version: str, digest: str) -> VersionRecord | None:
        """Return the loaded record of exactly these bytes."""
        return next((one for one in self.loaded if (one.version, one.digest) == (version, digest)), None)

    def find(self, version: str) -> VersionRecord | None:
        """Return the record of a version: the listed one, or else the loaded or the kept one."""
        others = [*self.loaded, *self.all_kept]
        return self.listed.get(version) or next((one for one in others if one.version == version), None)
