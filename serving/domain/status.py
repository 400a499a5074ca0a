"""The public status: immutable snapshots that the reconciler publishes and every thread may read.

The field names are the JSON of the HTTP interface.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType

from serving.domain.compiled_form import Compilation
from serving.domain.environment import OWN, Needs
from serving.domain.report import GateResult
from serving.domain.rollout import RolloutStatus
from serving.domain.sandbox import Sandbox
from serving.domain.signature import Signature
from serving.domain.snapshot import Snapshot
from serving.domain.state import State
from serving.domain.upload import UploadStatus


class ActiveStatus(Snapshot):
    """The version that answers for a model. `note` says what an operator should know, such as vanished files.

    `environment` is the one that it was evaluated in, ``own`` for the server's own.
    """

    version: str
    digest: str
    engine: str
    environment: str = OWN
    state: State = State.ACTIVE
    activated_at: datetime
    note: str | None = None


class TargetStatus(Snapshot):
    """The version the model is on its way to, and how far it has come."""

    version: str
    state: State


class Failure(Snapshot):
    """The last time a version was refused or failed."""

    version: str
    gate: str
    reason: str
    at: datetime


class GateWarning(Snapshot):
    """A gate that let the active version pass with a warning, and what it saw."""

    version: str
    gate: str
    evidence: str


class Quarantine(Snapshot):
    """A version that an operator has rolled back from. It is not served until it is released.

    `path` is its place in the store, None when the store does not hold these bytes.
    """

    version: str
    path: str | None = None


class ModelSummary(Snapshot):
    """One model in ``GET /models/active``.

    `unloaded`: an operator has unloaded it. `problem` says why the model does not follow an operator's decision, such
    as a pin on a version that cannot be served. `warnings` are those of the active version. `labels` are operators'
    names for versions: each answers with the version that it names, or until that is loaded with the one before.
    """

    name: str
    active: ActiveStatus | None
    target: TargetStatus | None = None
    pinned: str | None = None
    labels: dict[str, str] = {}
    unloaded: bool = False
    problem: str | None = None
    last_failure: Failure | None = None
    warnings: tuple[GateWarning, ...] = ()
    quarantined: tuple[Quarantine, ...] = ()


class VersionStatus(Snapshot):
    """One version of a model: its state, since when and why, and the results of its evaluation.

    `gates`, `sandbox` and `compilation` are the verdicts, the layers around the host that evaluated it, and the proof.
    `needs` is what its file needs to run, found out without running any of it. `environment` is the one that was chosen
    for it, ``own`` for the server's own and None where none fits; `environment_reason` says why.
    `retry_at` is set while the state is FAILED. `is_loaded` says whether a request may name this version.
    """

    version: str
    digest: str | None = None
    state: State
    since: datetime
    reason: str | None = None
    retry_at: datetime | None = None
    is_loaded: bool = False
    is_quarantined: bool = False
    engine: str | None = None
    memory_bytes: int | None = None
    libraries: dict[str, str] = {}
    signature: Signature | None = None
    gates: tuple[GateResult, ...] = ()
    compilation: Compilation | None = None
    sandbox: Sandbox | None = None
    needs: Needs | None = None
    environment: str | None = None
    environment_reason: str | None = None


class ModelStatus(ModelSummary):
    """One model with all its versions, newest first; `signature` is the active version's.

    `rollout` says how new versions take over, and what is under way; None where they do so at once and ever did.
    """

    signature: Signature | None = None
    rollout: RolloutStatus | None = None
    versions: tuple[VersionStatus, ...] = ()


class StoreStatus(Snapshot):
    """Whether the store can be listed, and how changes are noticed (``events`` or ``poll``)."""

    is_available: bool = False
    reason: str | None = None
    watch: str = "poll"
    listed_at: datetime | None = None
    problems: tuple[str, ...] = ()


class StateStatus(Snapshot):
    """The state database: its `problem`, if it has one.

    `is_held`: operators' decisions have been lost, so only versions that were active before are activated until an
    operator accepts the loss.
    """

    problem: str | None = None
    is_held: bool = False


class WorkerState(StrEnum):
    """How far a worker is.

    It loads what is committed; takes connections; was asked to end, and answers what it has read; or has died several
    times and is started again later.
    """

    STARTING, SERVING, DRAINING, WAITING = "starting", "serving", "draining", "waiting"


class WorkerStatus(Snapshot):
    """One worker: a process that answers requests.

    `generation` is the plan that it answers with, `requests` counts predictions since the service started, of its
    predecessors too; `restarts` is how often it was replaced, and `reason` why the last time, until its successor
    serves. `retry_at` is set while the state is WAITING.
    """

    index: int
    pid: int | None = None
    state: WorkerState
    generation: int = 0
    started_at: datetime | None = None
    requests: int = 0
    restarts: int = 0
    retry_at: datetime | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """Everything the reconciler publishes. `has_started`: the first pass over the store has ended.

    `worker_problem` says which workers do not serve, and why, where several should. `newest_event` is the id of the
    newest entry of the history that is on disk (see `serving.domain.event_page`), None while that is not known.
    `uploads` are the newest ones, the oldest of them first; those that have ended are shown for some minutes.
    """

    models: Mapping[str, ModelStatus] = field(default_factory=lambda: MappingProxyType({}))
    store: StoreStatus = field(default_factory=StoreStatus)
    state: StateStatus = field(default_factory=StateStatus)
    worker_problem: str | None = None
    has_started: bool = False
    is_stopping: bool = False
    newest_event: str | None = None
    uploads: tuple[UploadStatus, ...] = ()

    @property
    def is_ready(self) -> bool:
        """True when the first pass over the store has ended, a version is active and no stop was announced."""
        return self.has_started and not self.is_stopping and any(model.active for model in self.models.values())


class HistoryEntry(Snapshot):
    """One transition of one version, or one operator's call (`before` and `after` are then None).

    `id` grows with time, and pages of the history begin at one; 0 until the entry has been written.
    """

    id: int = 0
    at: datetime
    version: str | None
    digest: str | None = None
    before: State | None = None
    after: State | None = None
    actor: str
    event: str
    reason: str | None = None
    duration_seconds: float | None = None


class ModelHistoryEntry(HistoryEntry):
    """An entry of the history over all models."""

    model: str
