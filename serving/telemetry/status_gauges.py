"""What the status says, as Prometheus gauges: whether the service is ready, what each model has, what is wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from serving.domain.state import State
from serving.domain.status import ModelStatus, Status


class _CountedModel(NamedTuple):
    """A model's snapshot, and what was counted of its versions: once for each snapshot, not at each scrape."""

    model: ModelStatus
    states: Counter[State]
    memory: list[tuple[str, str, int]]


class StatusCollector(Collector):
    """The status at the moment of a scrape. One scrape at a time, of any thread; nothing blocks."""

    def __init__(self, read_status: Callable[[], Status], workers: int | None) -> None:
        """`read_status` is called at each scrape. `workers` is how many should answer; None without workers."""
        self._read_status = read_status
        self._workers = workers
        self._counted: dict[str, _CountedModel] = {}

    def collect(self) -> Iterator[Metric]:
        """Yield all samples; called by the registry."""
        status = self._read_status()
        yield _gauge("serving_ready", "1 while /health/ready says so.", status.is_ready)
        yield _gauge("serving_store_available", "1 while the store can be listed.", status.store.is_available)
        yield _gauge("serving_store_problems", "Names in the store that serve nothing.", len(status.store.problems))
        about = "1 while the state database has a problem."
        yield _gauge("serving_state_problem", about, status.state.problem is not None)
        about = "1 while nothing new is activated, because operators' decisions are not known."
        yield _gauge("serving_state_held", about, status.state.is_held)
        if self._workers is not None:
            yield _gauge("serving_workers_wanted", "Workers that should be live.", self._workers)
        yield from self._collect_models(status)

    def _collect_models(self, status: Status) -> Iterator[Metric]:
        about = "1 for a model that has an active version, 0 for one without; none for an unloaded one."
        answers = GaugeMetricFamily("serving_model_has_active", about, labels=["model"])
        about = "1 while a model does not follow an operator's decision."
        problem = GaugeMetricFamily("serving_model_problem", about, labels=["model"])
        versions = GaugeMetricFamily("serving_versions", "Versions, by state.", labels=["model", "state"])
        about = "What a loaded version takes: its host, or its compiled form in each process."
        memory = GaugeMetricFamily("serving_version_memory_bytes", about, labels=["model", "version", "engine"])
        self._counted = {model.name: self._count(model) for model in status.models.values()}
        for name, counted in self._counted.items():
            if not counted.model.unloaded:
                answers.add_metric([name], counted.model.active is not None)
            problem.add_metric([name], counted.model.problem is not None)
            for state, count in counted.states.items():
                versions.add_metric([name, state], count)
            for version, engine, size in counted.memory:
                memory.add_metric([name, version, engine], size)
        yield from (answers, problem, versions, memory)

    def _count(self, model: ModelStatus) -> _CountedModel:
        found = self._counted.get(model.name)
        if found is not None and found.model is model:
            return found
        memory = [
            (one.version, one.engine or "", one.memory_bytes)
            for one in model.versions
            if one.is_loaded and one.memory_bytes is not None
        ]
        return _CountedModel(model, Counter(one.state for one in model.versions), memory)


def _gauge(name: str, about: str, value: float) -> Metric:
    return GaugeMetricFamily(name, about, value=value)
