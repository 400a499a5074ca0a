"""What control and planes say to each other: values only, without sockets and without engines.

Control (`serving.lifecycle`) decides which versions are loaded and which one answers; a plane (`serving.plane`) builds
engines, holds leases and answers. Neither imports the other, both import this.

    control                                              plane
    Load(key, placement, host)  ----------------------->  build the engine and warm it up
    ReplaceHost(key, host)      ----------------------->  let another host answer, in place of one that is gone
                                <-----------------------  Loaded(key), LoadFailed(key, reason) or NoRoom(key, reason)
    Prepare(plan)               ----------------------->  keep what the plan names beside what answers now
    Commit(generation)          ----------------------->  one assignment: the prepared plan answers
    Unload(key)                 ----------------------->  Draining(key, requests); wait for its requests, then free it
                                <-----------------------  Drained(key, failure), HostGone(key, host, ...)
    ReportOutage(key, reason)   ----------------------->  tell it to requests that wait for a host

All of them are frozen, and no more than what they say: they can be written down and sent elsewhere. The descriptors of
a host travel beside its `Load`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from serving.domain.compiled_form import Graph, Guard, RunBounds
from serving.domain.report import Evaluation
from serving.domain.signature import Signature
from serving.domain.version import VersionId


class NotReady(AssertionError):
    """An attempt to load what has not passed the gates: a bug in this package, never a user's fault."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """A version that the plane itself answers: its checked graphs, and what they must refuse."""

    signature: Signature
    graphs: tuple[Graph, ...]
    guard: Guard
    bounds: RunBounds

    def without_graphs(self) -> Compiled:
        """Return what is left to know of it once it is loaded: graphs are large, and only a plane needs them."""
        return replace(self, graphs=())

    @property
    def engine(self) -> str:
        """What its engine is called."""
        return "onnx"


@dataclass(frozen=True, slots=True)
class Hosted:
    """A version that a host answers: what its engine is called, and how many rows go to it at once."""

    signature: Signature
    engine: str
    max_batch_rows: int


Placement = Compiled | Hosted


def place(evaluation: Evaluation, max_batch_rows: int) -> Placement:
    """Return where a version is answered that has passed every gate: the only way to a placement.

    `max_batch_rows` is the most that several requests have together, where its report lets them be merged. Raises
    NotReady for what has not passed.
    """
    report = evaluation.report
    if not report.is_ready or report.signature is None:
        raise NotReady("only what has passed every gate is loaded")
    if not report.is_compiled:
        rows = max_batch_rows if report.may_batch else 1
        return Hosted(report.signature, report.engine or "unknown", rows)
    compilation = report.compilation
    if compilation is None or compilation.bounds is None:
        raise NotReady("a compiled form came without a proof or bounds")
    return Compiled(report.signature, tuple(evaluation.graphs), compilation.guard, compilation.bounds)


@dataclass(frozen=True, slots=True)
class Split:
    """How the requests that name no version are shared between a new version and the old one.

    `share`, from 0 to 1, is the part of the new one: chance decides, or the client, by what `sticky` says:
    ``header:X-User`` or ``field:user``. With `is_shadow` the new one only gets copies, and nobody sees its answers.
    Answers are counted under `number`, which grows from split to split of a model; one that takes longer than
    `slo_seconds` counts as bad.
    """

    number: int
    new: VersionId
    old: VersionId
    share: float
    is_shadow: bool = False
    sticky: str | None = None
    slo_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Route:
    """What answers for one model: the active version, and all loaded ones, most recently active first.

    `split` is set while another version than the active one answers, too, or gets copies. `labels` has
    every label that is set, and the loaded version that answers for it, None if there is none.
    """

    active: VersionId | None = None
    loaded: tuple[VersionId, ...] = ()
    split: Split | None = None
    labels: tuple[tuple[str, VersionId | None], ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """What answers for every model the service knows. `generation` only grows."""

    generation: int = 0
    routes: Mapping[str, Route] = field(default_factory=lambda: MappingProxyType({}))

    def with_route(self, model: str, route: Route | None) -> Plan:
        """Return the next plan, in which `route` answers for `model` (None: the model is gone)."""
        routes = {name: each for name, each in self.routes.items() if name != model}
        if route is not None:
            routes[model] = route
        return Plan(self.generation + 1, MappingProxyType(routes))


# --- commands, from control to a plane --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Load:
    """Make a version ready to answer. `host` is the number of its host, if it has one: each has its own in a server."""

    key: VersionId
    placement: Placement
    host: int = 0


@dataclass(frozen=True, slots=True)
class ReplaceHost:
    """Give a loaded version another host, which has number `host`; LoadFailed when it is not loaded any more, or has
    been loaded again since.
    """

    key: VersionId
    host: int


@dataclass(frozen=True, slots=True)
class Prepare:
    """Keep a plan beside the one that answers. All that it names is loaded."""

    plan: Plan


@dataclass(frozen=True, slots=True)
class Commit:
    """Let the plan that was prepared under this generation answer from now on."""

    generation: int


@dataclass(frozen=True, slots=True)
class Unload:
    """Free a version that no plan names any more, when its last request has been answered."""

    key: VersionId


@dataclass(frozen=True, slots=True)
class ReportOutage:
    """No host can be started now: tell this to the requests that wait for one, and when to come back."""

    key: VersionId
    reason: str
    retry_seconds: int


# --- facts, from a plane to control -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Loaded:
    """The version can be named in a plan."""

    key: VersionId


@dataclass(frozen=True, slots=True)
class LoadFailed:
    """The version cannot answer; nothing of it is kept."""

    key: VersionId
    reason: str


@dataclass(frozen=True, slots=True)
class NoRoom:
    """All planes together have no memory left for the graphs of this version; a host may answer for it."""

    key: VersionId
    reason: str


@dataclass(frozen=True, slots=True)
class Draining:
    """A version is to be unloaded, and `requests` still hold it; None where several planes count them."""

    key: VersionId
    requests: int | None


@dataclass(frozen=True, slots=True)
class Drained:
    """A version has answered its last request and is freed; `failure` says what went wrong in that."""

    key: VersionId
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class HostGone:
    """A process of a host that was loaded is gone or stuck. `violation` says how it broke the protocol, if it did."""

    key: VersionId
    host: int
    violation: str | None
    has_answered: bool


Fact = Drained | HostGone
