"""The metrics of a service of several workers, as the supervisor renders them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from serving.telemetry.count_sheet import CountSheet
from serving.telemetry.dropped_spans import DroppedSpanCollector
from serving.telemetry.metrics import Metrics
from serving.telemetry.service_processes import ServiceProcessCollector
from serving.telemetry.split_counts import SplitRow
from serving.telemetry.summed_traffic import SummedTraffic, sum_leases
from serving.telemetry.traffic import VersionLeases, VersionTraffic


@dataclass(slots=True)
class _Worker:
    """One worker's index: whether it is live now, and what is kept over its processes."""

    sheet: CountSheet | None = None
    pid: int = 0
    generation: int = 0
    restarts: int = 0


class WorkerCollector(Collector):
    """Which workers are live, and what each has done. The owner guards it with `lock`."""

    def __init__(self, summed: SummedTraffic) -> None:
        self.lock = threading.Lock()  # guards `workers`
        self.workers: dict[int, _Worker] = {}
        self._summed = summed

    def collect(self) -> Iterator[Metric]:
        """Yield all samples; called by the registry."""
        names = ["worker"]
        generation = GaugeMetricFamily("serving_worker_generation", "Generation of a live worker's plan.", labels=names)
        restarts = CounterMetricFamily("serving_worker_restarts", "Workers that ended and were replaced.", labels=names)
        requests = CounterMetricFamily("serving_worker_requests", "Prediction requests, by worker.", labels=names)
        with self.lock:
            live = [(index, worker) for index, worker in self.workers.items() if worker.sheet is not None]
            for index, worker in live:
                generation.add_metric([str(index)], worker.generation)
            for index, worker in self.workers.items():
                restarts.add_metric([str(index)], worker.restarts)
        for index, count in self._summed.sum().requests.items():
            requests.add_metric([str(index)], count)
        yield from (generation, restarts, requests)
        yield GaugeMetricFamily("serving_workers", "Live workers.", value=len(live))


class ServiceMetrics(Metrics):
    """What control counts, what all workers have counted, and their processes. Any thread but for `render_workers`."""

    def __init__(
        self, service_version: str, forget_in_workers: Callable[[str, str | None], None] | None = None
    ) -> None:
        """`forget_in_workers` sends (model, version or None for all) to every worker; it must not wait for them."""
        self._summed = SummedTraffic()
        self._workers = WorkerCollector(self._summed)
        self._processes = ServiceProcessCollector()
        self._forget_in_workers = forget_in_workers
        super().__init__(service_version)

    def start_worker(self, index: int, sheet: CountSheet, pid: int) -> None:
        """Count worker `index`, a new process that counts in `sheet`. The sheet is owned from now on."""
        self._summed.add(index, sheet)
        self._processes.add(pid)
        with self._workers.lock:
            worker = self._workers.workers.setdefault(index, _Worker())
            worker.sheet, worker.pid, worker.generation = sheet, pid, 0

    def end_worker(self, index: int, cpu_seconds: float) -> None:
        """Keep what worker `index` has counted, and its processor time, once it was reaped. Once per process."""
        with self._workers.lock:
            worker = self._workers.workers[index]
            sheet, worker.sheet, pid = worker.sheet, None, worker.pid
        if sheet is not None:
            self._summed.absorb(sheet)
            self._processes.absorb_process(pid, cpu_seconds)

    def count_worker_restart(self, index: int) -> None:
        """Count that worker `index` has ended and is replaced."""
        with self._workers.lock:
            self._workers.workers[index].restarts += 1

    def note_generation(self, index: int, generation: int) -> None:
        """Note which generation worker `index` answers from."""
        with self._workers.lock:
            self._workers.workers[index].generation = generation

    def requests_by_worker(self) -> dict[int, int]:
        """Return how many predictions each worker was asked for, over all of its processes."""
        return self._summed.sum().requests

    def read_traffic(self, model: str, versions: Iterable[str]) -> list[Sequence[float]]:
        """Return the numbers of each of these versions, empty for one of which nothing was counted."""
        found = {(one.model, one.version): one.numbers for one in self._summed.sum().traffic}
        return [found.get((model, version), ()) for version in versions]

    def list_traffic(self) -> list[VersionTraffic]:
        """Return the sums of every version. Any thread."""
        return self._summed.sum().traffic

    def read_splits(self) -> dict[tuple[str, int], SplitRow]:
        """Return what all workers have counted in each split so far, by model and number."""
        return self._summed.read_splits()

    def count_traces(self) -> Callable[[int], None]:
        """Show from now on how many spans of all processes were not exported; return what counts those of this one."""
        self._summed.own_dropped_spans = own = DroppedSpanCollector()
        return own.count

    def forget(self, model: str, version: str) -> None:
        """Drop the sums of a retired version, then have the workers drop their records."""
        self._summed.forget(model, version)
        if self._forget_in_workers is not None:
            self._forget_in_workers(model, version)

    def forget_model(self, model: str) -> None:
        """Drop every series of a model that is gone, then have the workers drop their records."""
        super().forget_model(model)
        self._summed.forget(model)
        if self._forget_in_workers is not None:
            self._forget_in_workers(model, None)

    def render(self, loaded: Iterable[VersionLeases], accept: str = "") -> tuple[bytes, str]:
        """Return the metrics as text and its content type. `loaded` has the leases of all workers, summed."""
        self._summed.loaded = tuple(loaded)
        return super().render((), accept)

    def render_workers(self, by_worker: Mapping[int, Iterable[VersionLeases]], accept: str = "") -> tuple[bytes, str]:
        """Return the metrics as text and its content type; `by_worker` has the leases of live workers. One thread."""
        with self._workers.lock:
            live = {index for index, worker in self._workers.workers.items() if worker.sheet is not None}
        return self.render(sum_leases({index: by_worker[index] for index in by_worker if index in live}), accept)

    def _register_counts(self) -> None:
        for collector in (self._summed, self._workers, self._processes):
            self.registry.register(collector)
