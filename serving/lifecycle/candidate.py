"""One candidate under way, and what may become of it: plain values, which the reconciler gets."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

from serving.domain.artifact import Artifact
from serving.domain.errors import ServingError
from serving.domain.plan import Placement
from serving.domain.report import CandidateReport, Evaluation
from serving.hosting.host_process import HostProcess
from serving.lifecycle.graph_checks import GraphCheck
from serving.telemetry.candidate_trace import CandidateTrace


@dataclass(frozen=True, slots=True)
class CandidateStaged:
    """A verified copy is in the cache."""

    artifact: Artifact


@dataclass(frozen=True, slots=True)
class CandidateUnfinished:
    """The files are not complete, or changed while they were read."""

    reason: str


@dataclass(frozen=True, slots=True)
class CopyDamaged:
    """The cached copy is not what was hashed while it was made."""

    reason: str


@dataclass(frozen=True, slots=True)
class CandidateRefused:
    """A gate has refused these bytes."""

    report: CandidateReport


@dataclass(frozen=True, slots=True)
class CandidateReady:
    """Loaded where `placement` says, and can be activated; `host` is the number of its host, if it is hosted."""

    placement: Placement
    report: CandidateReport
    host: int


@dataclass(frozen=True, slots=True)
class CandidatePassed:
    """Every gate has passed these bytes; nothing was loaded."""

    evaluation: Evaluation


@dataclass(frozen=True, slots=True)
class CandidateFailed:
    """Something went wrong that is not the candidate's fault; it may work next time. `is_host_death`: its host died."""

    reason: str
    is_host_death: bool = False


@dataclass(frozen=True, slots=True)
class CandidateStopped:
    """It was cancelled."""


Outcome = (
    CandidateStaged
    | CandidateUnfinished
    | CopyDamaged
    | CandidateRefused
    | CandidateReady
    | CandidatePassed
    | CandidateFailed
    | CandidateStopped
)


class CopyLost(ServingError):
    """The cached copy of what is loaded is damaged, and cannot be renewed from the store."""


@dataclass(eq=False)
class Candidate:
    """One candidate under way. `cancel` may be called from any thread.

    `environments` names those there were when it began: see `EnvironmentWatch.against`.
    """

    model: str
    version: str
    environments: str = ""
    cancelled: threading.Event = field(default_factory=threading.Event)
    host: HostProcess | None = None
    check: GraphCheck | None = None
    reason: str = ""
    trace: CandidateTrace | None = None

    def time(self, part: str) -> AbstractContextManager[None]:
        """Return a ``with`` block that is recorded as a part of the candidate's way, where candidates are traced."""
        return nullcontext() if self.trace is None else self.trace.time(part)

    def cancel(self) -> None:
        """Stop the candidate as soon as possible: staging stops at the next block, its processes are killed."""
        self.cancelled.set()
        for under_way in (self.host, self.check):
            if under_way is not None:
                under_way.kill()
