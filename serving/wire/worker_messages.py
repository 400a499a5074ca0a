"""What the supervisor and its workers say to each other: the values of `serving.domain.plan`, and some more.

    supervisor                                    worker
    LoadOrder, ReplaceHost  (question)  ------->  Loaded, LoadFailed
    PrepareOrder            (question)  ------->  PlanPrepared
    Commit                              ------->            a wake: the word in shared memory is what counts
    Unload                              ------->            later Drained
    Accept                              ------->  Accepting  the worker may take connections, and does
    StatusChange, Forget, ReportOutage  ------->
    Sync                    (question)  ------->  Synced     all that was sent before has been carried out
    ReadGauges              (question)  ------->  Gauges
    ReadRecentRows          (question)  ------->  RecentRowsRead
    ReadSpreads             (question)  ------->  SpreadsRead
                                        <-------  HostGone, HostLeft, Drained, Leaving, BadAnswer
    Outcome                             <-------  Decide        (question)
    Entries, HistoryRefused             <-------  ReadHistory   (question)
    Exposition                          <-------  RenderMetrics (question)
    EventsRead, HistoryRefused          <-------  ReadEvents    (question)
    TrafficRead                         <-------  ReadTraffic   (question)
    TrafficList                         <-------  ListTraffic   (question)
    WorkerList                          <-------  ListWorkers   (question)
    UploadBegun, UploadFailed           <-------  BeginUpload   (question)
    UploadDone, UploadFailed            <-------  FinishUpload, AbandonUpload (question)
                                        <-------  NoteUpload

Graphs and the descriptors of hosts' channels travel beside their packet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from serving.domain.compiled_form import Graph, Guard, RunBounds
from serving.domain.decision import Decision, DecisionOutcome
from serving.domain.event_page import EventPage, HistoryQuery
from serving.domain.plan import (
    Commit,
    Compiled,
    Drained,
    Hosted,
    HostGone,
    Load,
    Loaded,
    LoadFailed,
    Placement,
    Plan,
    Prepare,
    ReplaceHost,
    ReportOutage,
    Route,
    Unload,
)
from serving.domain.rollout import BadExample
from serving.domain.signature import Method, Signature
from serving.domain.spread import Spread
from serving.domain.status import ModelHistoryEntry, ModelStatus, StateStatus, StoreStatus, WorkerStatus
from serving.domain.upload import UploadBegun, UploadDone, UploadFailed, UploadRequest, UploadStatus
from serving.domain.version import VersionId
from serving.wire.shared_content import map_content


@dataclass(frozen=True, slots=True)
class CompiledOrder:
    """A `Compiled` without the bytes of its graphs: only the names of their outputs, graph by graph."""

    outputs: tuple[dict[Method, tuple[str, ...]], ...]
    guard: Guard
    bounds: RunBounds


@dataclass(frozen=True, slots=True)
class HostedOrder:
    """A `Hosted` without its signature."""

    engine: str
    max_batch_rows: int


@dataclass(frozen=True, slots=True)
class LoadOrder:
    """A `Load`. Its descriptors: the memory of each graph, or a socket and an arena for each replica of the host.

    A hosted version without any has no host now; `ReplaceHost` brings one.
    """

    key: VersionId
    signature: Signature
    host: int
    compiled: CompiledOrder | None = None
    hosted: HostedOrder | None = None

    @classmethod
    def of(cls, command: Load) -> LoadOrder:
        """Return the order for this command."""
        placement = command.placement
        if isinstance(placement, Compiled):
            outputs = tuple(graph.outputs for graph in placement.graphs)
            compiled = CompiledOrder(outputs, placement.guard, placement.bounds)
            return cls(command.key, placement.signature, command.host, compiled=compiled)
        hosted = HostedOrder(placement.engine, placement.max_batch_rows)
        return cls(command.key, placement.signature, command.host, hosted=hosted)

    def to_command(self, descriptors: Sequence[int]) -> Load:
        """Return the command; maps the memory of graphs, whose descriptors stay open."""
        placement: Placement
        if self.compiled is not None:
            contents = [map_content(fd) for fd in descriptors]
            graphs = tuple(
                Graph(content, outputs) for content, outputs in zip(contents, self.compiled.outputs, strict=True)
            )
            placement = Compiled(self.signature, graphs, self.compiled.guard, self.compiled.bounds)
        else:
            assert self.hosted is not None
            placement = Hosted(self.signature, self.hosted.engine, self.hosted.max_batch_rows)
        return Load(self.key, placement, self.host)


@dataclass(frozen=True, slots=True)
class PrepareOrder:
    """A `Prepare`, its routes in a dict."""

    generation: int
    routes: dict[str, Route]

    @classmethod
    def of(cls, plan: Plan) -> PrepareOrder:
        """Return the order to prepare this plan."""
        return cls(plan.generation, dict(plan.routes))

    def to_command(self) -> Prepare:
        """Return the command."""
        return Prepare(Plan(self.generation, MappingProxyType(self.routes)))


@dataclass(frozen=True, slots=True)
class PlanPrepared:
    """The plan of this generation is kept, and answers from the moment at which the word says so."""

    generation: int


@dataclass(frozen=True, slots=True)
class Accept:
    """Take connections from now on: everything that is committed has been loaded."""


@dataclass(frozen=True, slots=True)
class Accepting:
    """Connections are taken."""


@dataclass(frozen=True, slots=True)
class Leaving:
    """This worker was asked to end. It takes no connections soon, and answers what it has read."""


@dataclass(frozen=True, slots=True)
class BadAnswer:
    """A new version has given a bad answer of a kind that this worker has not told of this split yet."""

    model: str
    number: int
    example: BadExample


@dataclass(frozen=True, slots=True)
class HostLeft:
    """A worker uses a host no more: it has another one, or the version is gone."""

    key: VersionId
    host: int


@dataclass(frozen=True, slots=True)
class StatusChange:
    """What has changed in the status since the last change: `models` are new or other ones, the rest is as it is now.

    `uploads` is None where nothing has changed in them. The first one that a worker gets holds everything.
    """

    models: dict[str, ModelStatus]
    removed: tuple[str, ...]
    store: StoreStatus
    state: StateStatus
    worker_problem: str | None
    has_started: bool
    is_stopping: bool
    newest_event: str | None
    uploads: tuple[UploadStatus, ...] | None


@dataclass(frozen=True, slots=True)
class Forget:
    """Drop the counts of a version that is not loaded any more, or of a whole model."""

    model: str
    version: str | None = None


@dataclass(frozen=True, slots=True)
class Sync:
    """Answer when everything that was sent before has been carried out."""


@dataclass(frozen=True, slots=True)
class Synced:
    """See `Sync`."""


@dataclass(frozen=True, slots=True)
class ReadGauges:
    """Say what is loaded, and how many requests hold it now."""


@dataclass(frozen=True, slots=True)
class VersionGauge:
    """One loaded version of one worker."""

    model: str
    version: str
    leases: int
    is_active: bool


@dataclass(frozen=True, slots=True)
class Gauges:
    """What a worker holds now."""

    versions: tuple[VersionGauge, ...]


@dataclass(frozen=True, slots=True)
class ReadRecentRows:
    """Give recent rows of a model, and what this version, the active one, answers to them."""

    key: VersionId


@dataclass(frozen=True, slots=True)
class RecentRowsRead:
    """The rows as `serving.wire.recent_rows_document` writes them; None when there are none."""

    document: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class ReadSpreads:
    """Say how the answers of the loaded versions of a model are spread."""

    model: str


@dataclass(frozen=True, slots=True)
class SpreadsRead:
    """See `ReadSpreads`; by version."""

    spreads: dict[str, Spread]


@dataclass(frozen=True, slots=True)
class Decide:
    """An operator's call that this worker has received."""

    decision: Decision
    actor: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What has become of a decision."""

    outcome: DecisionOutcome


@dataclass(frozen=True, slots=True)
class ReadHistory:
    """A page of the history, newest first."""

    query: HistoryQuery


@dataclass(frozen=True, slots=True)
class Entries:
    """See `ReadHistory`."""

    entries: tuple[ModelHistoryEntry, ...]


@dataclass(frozen=True, slots=True)
class ReadEvents:
    """What happened after the entry with this id, oldest first."""

    event_id: str | None
    limit: int


@dataclass(frozen=True, slots=True)
class EventsRead:
    """See `ReadEvents`."""

    page: EventPage


@dataclass(frozen=True, slots=True)
class HistoryRefused:
    """The history cannot be read."""

    reason: str


@dataclass(frozen=True, slots=True)
class RenderMetrics:
    """The metrics of the whole service, for this header ``Accept``."""

    accept: str


@dataclass(frozen=True, slots=True)
class Exposition:
    """See `RenderMetrics`."""

    text: str
    content_type: str


@dataclass(frozen=True, slots=True)
class ReadTraffic:
    """What was counted of these versions, by all workers."""

    model: str
    versions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TrafficRead:
    """The numbers of each version, as they lie in a record: see `serving.telemetry.traffic`."""

    versions: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class ListTraffic:
    """What was counted of every version, by all workers."""


@dataclass(frozen=True, slots=True)
class CountedVersion:
    """One version and its numbers, as they lie in a record."""

    model: str
    version: str
    numbers: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class TrafficList:
    """See `ListTraffic`."""

    versions: tuple[CountedVersion, ...]


@dataclass(frozen=True, slots=True)
class ListWorkers:
    """How are the workers?"""


@dataclass(frozen=True, slots=True)
class WorkerList:
    """All workers, as they are now."""

    workers: tuple[WorkerStatus, ...]


@dataclass(frozen=True, slots=True)
class BeginUpload:
    """A client wants to upload a version to this worker: where may it be written?"""

    request: UploadRequest
    actor: str


@dataclass(frozen=True, slots=True)
class NoteUpload:
    """So many bytes of an upload have arrived."""

    upload_id: str
    size: int


@dataclass(frozen=True, slots=True)
class FinishUpload:
    """The whole body of an upload has been written: check it, and publish it."""

    upload_id: str
    size: int


@dataclass(frozen=True, slots=True)
class AbandonUpload:
    """The body of an upload will not arrive."""

    upload_id: str
    reason: str


TYPES: tuple[type, ...] = (
    *(
        LoadOrder,
        ReplaceHost,
        PrepareOrder,
        Commit,
        Unload,
        ReportOutage,
        Accept,
        StatusChange,
        Forget,
        Sync,
        ReadGauges,
    ),
    *(Loaded, LoadFailed, PlanPrepared, Accepting, Leaving, Drained, HostGone, HostLeft, BadAnswer, Synced, Gauges),
    *(Decide, Outcome, ReadHistory, Entries, ReadEvents, EventsRead, HistoryRefused, RenderMetrics, Exposition),
    *(ListTraffic, TrafficList),
    *(ReadTraffic, TrafficRead, ListWorkers, WorkerList, ReadRecentRows, RecentRowsRead, ReadSpreads, SpreadsRead),
    *(BeginUpload, UploadBegun, NoteUpload, FinishUpload, AbandonUpload, UploadDone, UploadFailed),
)
