"""The plane: carries out what control decides. The only owner of engines, of leases, and of ``app.state.active``.

It builds and warms engines off the event loop, keeps a plan that is being prepared beside the one that answers, puts it
in place by one assignment, and frees what no plan names when its last request has been answered.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from types import MappingProxyType
from typing import Any, TypeVar

from serving.domain.errors import HostLost, ServingError
from serving.domain.plan import (
    Commit,
    Compiled,
    Drained,
    Draining,
    Fact,
    HostGone,
    Load,
    Loaded,
    LoadFailed,
    Plan,
    Prepare,
    ReplaceHost,
    ReportOutage,
    Route,
    Unload,
)
from serving.domain.recent_rows import RecentRows
from serving.domain.spread import Spread
from serving.domain.version import VersionId
from serving.plane.active_reference import ActiveReference, HoldsActive, ModelReference, activate, settle
from serving.plane.compiled_engine import CompiledEngine
from serving.plane.fair_turns import Turns
from serving.plane.host_group import Process
from serving.plane.hosted_engine import HostedEngine
from serving.plane.recent_answers import MOST_SECONDS, answer_recent_rows
from serving.plane.row_sample import RowSample
from serving.plane.servable import Servable
from serving.plane.served_split import ServedSplit
from serving.settings import ReplaySettings

ATTACH_SECONDS = 10.0
SAMPLE_SECONDS = 10.0  # beyond what the answers to recent rows may take, for a loop or a host that is busy
SPREAD_SECONDS = 5.0

Result = TypeVar("Result")


class Plane:
    """One plane, for one event loop. Facts are told by `tell`, from the loop's thread.

    `load`, `replace_host`, `sample` and `spreads` may be called from any thread but the loop's. The other commands come
    from one thread, control's, and wait for nothing.

    `committed` is where control writes the generation that answers, in the memory it shares with all planes; None when
    this is the only one. With `takes_over` another plane answers until the first commit of this one, and is then asked
    to `retire`. `replay` says how many rows of each model are kept.
    """

    def __init__(
        self,
        state: HoldsActive,
        loop: asyncio.AbstractEventLoop,
        turns: Turns,
        tell: Callable[[Fact], None],
        committed: Sequence[int] | None = None,
        *,
        takes_over: bool = False,
        replay: ReplaySettings = ReplaySettings(),  # noqa: B008  (frozen)
    ) -> None:
        self._state = state
        self._loop = loop
        self._turns = turns
        self._tell = tell
        self._servables: dict[VersionId, Servable] = {}
        self._servables_lock = threading.Lock()
        self._replay = replay
        self._row_samples: dict[str, RowSample] = {}
        self._plan = self._prepared_plan = Plan()
        self._own_word = [0]
        self._committed = self._own_word if committed is None else committed
        self._reference = self._prepared = ActiveReference(generation=0, committed=self._committed)
        if takes_over:
            settle(state)  # what the other plane has prepared may answer already, and is forgotten in the next line
        state.prepared = self._reference
        if not takes_over:
            state.active = self._reference

    def load(self, command: Load, process: Process | None = None) -> Loaded | LoadFailed:
        """Build and warm the engine of a version that is not loaded. Blocks; not on the event loop.

        `process` is the host of a hosted one; it stays the caller's until this has returned Loaded. A hosted one
        without a host waits for `replace_host`.
        """
        placement = command.placement
        try:
            if isinstance(placement, Compiled):
                compiled = CompiledEngine(
                    placement.graphs, placement.signature, placement.guard, placement.bounds, self._turns
                )
                compiled.warm_up()
                servable = Servable(command.key, placement.signature, compiled)
            else:
                hosted = HostedEngine(
                    placement.engine,
                    lambda engine: self._tell_loss(command.key, engine),
                    max_batch_rows=placement.max_batch_rows,
                )
                if process is not None:
                    self._attach(hosted, process, command.host)
                servable = Servable(command.key, placement.signature, hosted)
        except ServingError as error:
            return LoadFailed(command.key, str(error))
        with self._servables_lock:
            self._servables[command.key] = servable
        return Loaded(command.key)

    def replace_host(self, command: ReplaceHost, process: Process) -> Loaded | LoadFailed:
        """Let `process` answer for a loaded version. Blocks; not on the event loop.

        It stays the caller's until this has returned Loaded. A version that is unloaded meanwhile ends it.
        """
        servable = self._find(command.key)
        if servable is None or not isinstance(servable.engine, HostedEngine):
            return LoadFailed(command.key, "the version is not loaded any more")
        if servable.engine.host > command.host:  # control would not know this one's end from that of an earlier host
            return LoadFailed(command.key, "the version has been loaded again since, with another host")
        try:
            self._attach(servable.engine, process, command.host)
        except ServingError as error:
            return LoadFailed(command.key, str(error))
        return Loaded(command.key)

    def prepare(self, command: Prepare) -> None:
        """Keep a plan beside the one that answers; raises KeyError for one that names what is not loaded."""
        plan = command.plan
        before, models = self._plan.routes, self._reference.models
        with self._servables_lock:
            references = {
                name: models[name] if before.get(name) == route else self._refer_to(route)
                for name, route in plan.routes.items()
            }
        self._prepared_plan = plan
        self._prepared = ActiveReference(MappingProxyType(references), plan.generation, self._committed)
        self._state.prepared = self._prepared

    def commit(self, command: Commit) -> None:
        """Let the prepared plan answer: one assignment. Where there are other planes, control has written the word."""
        assert self._prepared_plan.generation == command.generation
        self._own_word[0] = command.generation
        activate(self._state, self._prepared)
        self._plan, self._reference = self._prepared_plan, self._prepared
        self._place_samples(self._reference)  # after the swap, which does not wait for it: it looks at every model

    def unload(self, command: Unload) -> Draining:
        """Free a version when its last request has been answered; `Drained` follows. The plan does not name it."""
        with self._servables_lock:
            servable = self._servables.pop(command.key)
        requests = servable.leases
        drained = asyncio.run_coroutine_threadsafe(_drain_and_close(servable), self._loop)
        drained.add_done_callback(lambda done: self._tell(Drained(command.key, _failure_of(done))))
        return Draining(command.key, requests)

    def report_outage(self, command: ReportOutage) -> None:
        """Tell requests that wait for a host that none can be started now."""
        servable = self._find(command.key)
        if servable is not None and isinstance(servable.engine, HostedEngine):
            error = HostLost(command.reason, command.retry_seconds)
            self._loop.call_soon_threadsafe(servable.engine.report_outage, error)

    def sample(self, key: VersionId) -> RecentRows | None:
        """Return recent rows of the model and what the version answers to them. Blocks; not on the event loop.

        None when the version is not the active one, there are no rows, or it cannot answer now.
        """
        return self._wait_for(self._answer_recent_rows(key), MOST_SECONDS + SAMPLE_SECONDS)

    def spreads(self, model: str) -> dict[str, Spread]:
        """Return how the answers of each loaded version of a model are spread. Blocks; not on the event loop."""
        return self._wait_for(self._find_spreads(model), SPREAD_SECONDS) or {}

    def _wait_for(self, reading: Coroutine[Any, Any, Result], seconds: float) -> Result | None:
        """Return what the event loop finds; None where it does not answer in time. Blocks."""
        found = asyncio.run_coroutine_threadsafe(reading, self._loop)
        try:
            return found.result(seconds)
        except (TimeoutError, RuntimeError):
            found.cancel()
            return None

    def retire(self) -> None:
        """Free every version when its last request has been answered. The active reference is another plane's."""
        with self._servables_lock:
            servables, self._servables = list(self._servables.values()), {}
        for servable in servables:
            asyncio.run_coroutine_threadsafe(_drain_and_close(servable), self._loop)

    @property
    def is_answering(self) -> bool:
        """Whether the active reference is this plane's."""
        return self._state.active in (self._reference, self._prepared)

    def list_versions(self) -> list[VersionId]:
        """Return what is loaded."""
        with self._servables_lock:
            return list(self._servables)

    def _find(self, key: VersionId) -> Servable | None:
        with self._servables_lock:
            return self._servables.get(key)

    def _place_samples(self, reference: ActiveReference) -> None:
        """Let the active version of each model feed its sample, and no other; those of models that are gone go, too."""
        before, self._row_samples = self._row_samples, {}
        for name, model in reference.models.items():
            for servable in model.loaded.values():
                if servable is not model.active:
                    servable.sample_rows(None)
            if model.active is None or not self._replay.rows:
                continue
            sample = before.get(name)
            if sample is None or not sample.fits(model.active.signature):
                most_bytes = int(self._replay.megabytes * (1 << 20))
                sample = RowSample(model.active.signature, self._replay.rows, most_bytes)
            self._row_samples[name] = sample
            model.active.sample_rows(sample)

    async def _answer_recent_rows(self, key: VersionId) -> RecentRows | None:
        servable = self._find(key)
        if servable is None:
            return None
        with servable.lease():
            return await answer_recent_rows(servable)

    async def _find_spreads(self, model: str) -> dict[str, Spread]:
        with self._servables_lock:
            servables = [servable for key, servable in self._servables.items() if key.model == model]
        return {servable.id.version: servable.find_spread() for servable in servables}

    def _refer_to(self, route: Route) -> ModelReference:
        loaded = {key.version: self._servables[key] for key in reversed(route.loaded)}
        active = self._servables[route.active] if route.active is not None else None
        labels = {label: self._servables[key] if key is not None else None for label, key in route.labels}
        split = route.split
        served = None if split is None else ServedSplit(split, self._servables[split.new], self._servables[split.old])
        return ModelReference(active, MappingProxyType(loaded), served, MappingProxyType(labels))

    def _attach(self, engine: HostedEngine, process: Process, host: int) -> None:
        try:
            asyncio.run_coroutine_threadsafe(engine.attach(process, host), self._loop).result(ATTACH_SECONDS)
        except (TimeoutError, RuntimeError, OSError) as error:
            reason = str(error) or "the event loop does not answer"
            raise HostLost(f"the host could not be connected: {reason}") from None

    def _tell_loss(self, key: VersionId, engine: HostedEngine) -> None:
        self._tell(HostGone(key, engine.host, engine.violation, engine.has_answered))


async def _drain_and_close(servable: Servable) -> None:
    """Free a servable when its last request has been answered. Requests that would wait for another host are told."""
    if isinstance(servable.engine, HostedEngine):
        version = servable.id.version
        reason = f"version '{version}' is not served any more, and its process has ended; try again"
        servable.engine.expect_no_host(HostLost(reason))
    await servable.drain()
    await servable.engine.close()


def _failure_of(done: Future[None]) -> str | None:
    error = None if done.cancelled() else done.exception()
    return None if error is None else repr(error)
