"""Counts requests in plain numbers, and makes samples of them only when Prometheus asks.

A counter and a histogram of the client library cost 1.4 us per request, this costs 0.3 us. The numbers of a version are
one row: a list with one worker, with several a record of the worker's :class:`CountSheet`, which the supervisor reads.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterable, Iterator, MutableSequence, Sequence
from typing import NamedTuple, cast

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from serving.telemetry.count_sheet import NUMBERS, CountSheet

LATENCY_BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

# A row: requests by time (one number per bound, and one for longer ones), rows, seconds, then pairs of an HTTP status
# and its requests. The buckets come first, because then their index needs no addition.
BUCKETS = len(LATENCY_BOUNDS) + 1
ROWS, SECONDS = BUCKETS, BUCKETS + 1
FIRST_STATUS = BUCKETS + 2
OTHER_STATUS = 0
"""Stands for all statuses that came after every pair but the last was taken."""


class VersionLeases(NamedTuple):
    """One loaded version and its leases at the moment of a scrape."""

    model: str
    version: str
    leases: int
    is_active: bool


class Traffic:
    """The requests one version answered. Event loop thread only."""

    __slots__ = ("_numbers", "_slots")

    def __init__(self, numbers: MutableSequence[float] | None = None) -> None:
        """Count in `numbers`, which has `NUMBERS` numbers, all 0; in a list of its own when not given."""
        self._numbers: MutableSequence[float] = [0] * NUMBERS if numbers is None else numbers
        self._slots: dict[int, int] = {}

    def record(self, status: int, rows: int, seconds: float) -> None:
        """Count one request: its HTTP status, how many rows it answered, and how long it took."""
        numbers = self._numbers
        try:
            numbers[self._slots[status]] += 1
        except KeyError:
            numbers[self._take_slot(status)] += 1
        numbers[ROWS] += rows
        numbers[SECONDS] += seconds
        numbers[bisect_left(LATENCY_BOUNDS, seconds)] += 1

    @property
    def rows(self) -> int:
        """How many rows were answered."""
        return int(self._numbers[ROWS])

    @property
    def seconds(self) -> float:
        """How long all requests took together."""
        return float(self._numbers[SECONDS])

    @property
    def statuses(self) -> dict[int, int]:
        """The number of requests by HTTP status."""
        return statuses_of(self._numbers)

    @property
    def buckets(self) -> list[int]:
        """The number of requests up to each bound and above the one before, and above the last."""
        return [int(self._numbers[index]) for index in range(BUCKETS)]

    @property
    def numbers(self) -> Sequence[float]:
        """The row itself; it changes while requests are counted."""
        return self._numbers

    def detach(self) -> None:
        """Count in private memory from now on."""
        self._numbers = list(self._numbers)

    def _take_slot(self, status: int) -> int:
        slot = FIRST_STATUS + 2 * len(self._slots) + 1
        if slot >= NUMBERS - 1:
            self._slots[status] = NUMBERS - 1  # the number before it stays OTHER_STATUS
            return NUMBERS - 1
        self._numbers[slot - 1] = status
        self._slots[status] = slot
        return slot


class VersionTraffic(NamedTuple):
    """The row of numbers of one version."""

    model: str
    version: str
    numbers: Sequence[float]


class TrafficCollector(Collector):
    """The traffic of every version, and what is loaded, as Prometheus samples."""

    def __init__(self, sheet: CountSheet | None = None) -> None:
        # Nested dicts instead of one keyed by a pair: each request looks its version up, and need not build a key.
        self._by_model: dict[str, dict[str, Traffic]] = {}
        self._sheet = sheet
        self._lock = threading.Lock()  # guards changes of the dicts and what follows
        self._records: dict[Traffic, int] = {}
        self._hidden: list[Traffic] = []
        self.loaded: tuple[VersionLeases, ...] = ()

    def of(self, model: str, version: str) -> Traffic:
        """Return the counters of one version; they are made at the first call. Event loop thread only."""
        try:
            return self._by_model[model][version]
        except KeyError:
            return self._make(model, version)

    def forget(self, model: str, version: str | None = None) -> None:
        """Drop the counters of one version, or of a whole model. Any thread.

        Their records are hidden at once, but taken again only on the event loop's thread, which has then stopped
        writing to them: a request that began before may still count in the old ones, which nobody sees any more.
        """
        with self._lock:
            if version is None:
                dropped = list(self._by_model.pop(model, {}).values())
            else:
                found = self._by_model.get(model, {}).pop(version, None)
                dropped = [] if found is None else [found]
            for traffic in dropped:
                if self._sheet is not None and traffic in self._records:
                    self._sheet.hide(self._records[traffic])
                    self._hidden.append(traffic)

    def collect(self) -> Iterator[Metric]:
        """Yield all samples; called by the registry."""
        yield from make_families(self.list_traffic(), self.loaded)

    def list_traffic(self) -> list[VersionTraffic]:
        """Return the row of every version; rows change while requests are counted."""
        return [
            VersionTraffic(model, version, traffic.numbers)
            for model, versions in list(self._by_model.items())
            for version, traffic in list(versions.items())
        ]

    def _make(self, model: str, version: str) -> Traffic:
        with self._lock:
            traffic = Traffic() if self._sheet is None else self._make_shared(self._sheet, model, version)
            return self._by_model.setdefault(model, {}).setdefault(version, traffic)

    def _make_shared(self, sheet: CountSheet, model: str, version: str) -> Traffic:
        for hidden in self._hidden:
            hidden.detach()
            sheet.release(self._records.pop(hidden))
        self._hidden.clear()
        taken = sheet.take(("traffic", model, version))
        if taken is None:
            return Traffic()
        record, numbers = taken
        traffic = Traffic(cast("MutableSequence[float]", numbers))
        self._records[traffic] = record
        return traffic


def statuses_of(numbers: Sequence[float]) -> dict[int, int]:
    """Return the number of requests by HTTP status from the row of a version."""
    found = {}
    for slot in range(FIRST_STATUS, len(numbers), 2):
        status, count = numbers[slot], numbers[slot + 1]
        if count:
            found[int(status)] = int(count)
    return found


def make_families(traffic: Iterable[VersionTraffic], loaded: Iterable[VersionLeases]) -> Iterator[Metric]:
    """Yield the metric families of the traffic of versions and of what is loaded."""
    names = ["model", "version"]
    requests = CounterMetricFamily("serving_requests", "Prediction requests, by outcome.", labels=[*names, "status"])
    rows = CounterMetricFamily("serving_rows", "Rows answered.", labels=names)
    latency = HistogramMetricFamily("serving_request_duration_seconds", "Time to answer.", labels=names)
    for model, version, numbers in traffic:
        for status, count in statuses_of(numbers).items():
            requests.add_metric([model, version, str(status) if status != OTHER_STATUS else "other"], count)
        rows.add_metric([model, version], numbers[ROWS])
        latency.add_metric([model, version], _accumulate(numbers[:BUCKETS]), numbers[SECONDS])
    leases = GaugeMetricFamily("serving_leases", "Requests that hold a version now.", labels=names)
    active = GaugeMetricFamily("serving_active", "1 for the version that answers.", labels=names)
    for one in loaded:
        leases.add_metric([one.model, one.version], one.leases)
        if one.is_active:
            active.add_metric([one.model, one.version], 1)
    yield from (requests, rows, latency, leases, active)


def _accumulate(buckets: Sequence[float]) -> list[tuple[str, float]]:
    total = 0.0
    found = []
    for bound, count in zip([*map(str, LATENCY_BOUNDS), "+Inf"], buckets, strict=True):
        total += count
        found.append((bound, total))
    return found
