"""What other threads put into the reconciler's inbox: values, never code to run.

The watcher says that the store has changed, worker threads how their work goes and ends, the plane its facts, and
operators what they have decided. A model's or a version's record only travels back to the reconciler, which alone reads
and changes it.
"""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass

from serving.domain.decision import Decision, DecisionOutcome
from serving.domain.plan import Fact, ReplaceHost
from serving.domain.report import GateResult
from serving.domain.rollout import Shift
from serving.domain.state import State
from serving.domain.status import HistoryEntry
from serving.lifecycle.candidate import Outcome
from serving.lifecycle.evaluation_request import Comparison
from serving.lifecycle.records import ModelRecord, VersionRecord


@dataclass(frozen=True, slots=True)
class StoreChanged:
    """Something may have changed in the store."""


@dataclass(frozen=True, slots=True)
class StateRead:
    """Decisions that could not be read at the start have been read: every model is looked at again."""


@dataclass(frozen=True, slots=True)
class StopAnnounced:
    """The service is about to stop: it is not ready any more."""


@dataclass(frozen=True, slots=True)
class StopNow:
    """The thread ends after its present turn."""


@dataclass(frozen=True, slots=True)
class PendingDecision:
    """An operator's decision, and the future of its outcome."""

    decision: Decision
    actor: str
    outcome: Future[DecisionOutcome]


@dataclass(frozen=True, slots=True)
class CandidateProgressed:
    """The evaluation of a version has reached another state, or a gate has given its verdict."""

    model: ModelRecord
    record: VersionRecord
    progress: State | GateResult


@dataclass(frozen=True, slots=True)
class CandidateFinished:
    """Copying or evaluating a version has ended."""

    model: ModelRecord
    record: VersionRecord
    outcome: Future[Outcome]


@dataclass(frozen=True, slots=True)
class HostBrought:
    """A version has a new host, or the outcome says why it has none."""

    record: VersionRecord
    command: ReplaceHost
    outcome: Future[str | None]


@dataclass(frozen=True, slots=True)
class AnswersCompared:
    """How the answers of two versions differ, in the split of `model` with this number."""

    model: str
    number: int
    shifts: tuple[Shift, ...]


@dataclass(frozen=True, slots=True)
class UploadChanged:
    """An upload has come further. `entry` is for the history, where its end belongs there."""

    model: str
    entry: HistoryEntry | None = None


@dataclass(frozen=True, slots=True)
class ComparisonWanted:
    """An upload is to be checked: what is this version compared with?"""

    model: str
    version: str
    comparison: Future[Comparison]


WorkMessage = CandidateProgressed | CandidateFinished | HostBrought | AnswersCompared
UploadMessage = UploadChanged | ComparisonWanted
Message = StoreChanged | StateRead | StopAnnounced | StopNow | PendingDecision | WorkMessage | UploadMessage | Fact
