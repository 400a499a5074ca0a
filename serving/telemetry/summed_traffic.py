"""Sums what all workers have counted, dead ones included: what the supervisor shows of requests."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from serving.telemetry import fallbacks
from serving.telemetry.count_sheet import CountRecord, CountSheet, Key
from serving.telemetry.dropped_spans import COUNT, DROPPED_SPANS, DroppedSpanCollector, make_dropped_family
from serving.telemetry.record_counts import RECORD_NUMBERS, RECORDS, make_record_families
from serving.telemetry.split_counts import SPLIT, SplitRow, SummedSplits
from serving.telemetry.traffic import (
    FIRST_STATUS,
    OTHER_STATUS,
    VersionLeases,
    VersionTraffic,
    make_families,
    statuses_of,
)


class SumOfRows:
    """The sum of the rows of one version. The same status may lie in another slot in each row."""

    def __init__(self) -> None:
        self._before_statuses = [0.0] * FIRST_STATUS
        self._statuses: dict[int, int] = {}

    def add(self, numbers: list[float]) -> None:
        """Add one row."""
        for index in range(FIRST_STATUS):
            self._before_statuses[index] += numbers[index]
        for status, count in statuses_of(numbers).items():
            self._statuses[status] = self._statuses.get(status, 0) + count

    def add_sum(self, other: SumOfRows) -> None:
        """Add another sum."""
        for index in range(FIRST_STATUS):
            self._before_statuses[index] += other._before_statuses[index]
        for status, count in other._statuses.items():
            self._statuses[status] = self._statuses.get(status, 0) + count

    @property
    def numbers(self) -> list[float]:
        """The sum as a row, as long as its statuses need."""
        ordered = sorted(self._statuses.items(), key=lambda item: (item[0] == OTHER_STATUS, item[0]))
        return [*self._before_statuses, *(float(number) for pair in ordered for number in pair)]


class _SheetOfWorker:
    """The sheet of one live worker, and what of it does not count any more."""

    def __init__(self, index: int, sheet: CountSheet) -> None:
        self.index = index
        self.sheet = sheet
        self.forgotten: set[int] = set()  # serial numbers of records
        self._requests: dict[int, int] = {}  # by serial number, at the last look

    def read(self) -> tuple[list[CountRecord], int]:
        """Return the records that count, and how many requests those that have gone since the last look had."""
        records = self.sheet.read()
        requests = {record.serial: _requests_of(record) for record in records}
        gone = sum(count for serial, count in self._requests.items() if serial not in requests)
        self._requests = requests
        self.forgotten &= requests.keys()
        return [record for record in records if record.serial not in self.forgotten], gone

    @property
    def requests(self) -> int:
        """The requests of all records at the last look, forgotten ones included."""
        return sum(self._requests.values())


class Sums(NamedTuple):
    """Everything at one moment: traffic by version, fallbacks by problem, requests by worker."""

    traffic: list[VersionTraffic]
    fallbacks: list[tuple[str, list[float]]]
    requests: dict[int, int]


class SummedTraffic(Collector):
    """The traffic and the fallbacks of all workers that are or were. Any thread; no method waits for a worker.

    No counter goes back but by `forget`. The lock is held while sheets are read, which is memory: so a scrape meets a
    worker either live or absorbed, never neither nor both.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards all that follows
        self._live: list[_SheetOfWorker] = []
        self._absorbed: dict[Key, SumOfRows] = {}
        self._absorbed_fallbacks: dict[str, list[float]] = {}
        self._absorbed_splits = SummedSplits()
        self._absorbed_records: list[float] | None = None  # until there are any
        self._requests: dict[int, int] = {}
        self._absorbed_dropped = 0.0
        self.own_dropped_spans: DroppedSpanCollector | None = None  # of control, where traces are on
        self.loaded: tuple[VersionLeases, ...] = ()

    def add(self, index: int, sheet: CountSheet) -> None:
        """Count what worker `index` writes to `sheet`, which has no other reader here."""
        with self._lock:
            self._live.append(_SheetOfWorker(index, sheet))
            self._requests.setdefault(index, 0)

    def absorb(self, sheet: CountSheet) -> None:
        """Keep the last numbers of a worker that has ended, and close its sheet. Does nothing when called again."""
        with self._lock:
            found = next((worker for worker in self._live if worker.sheet is sheet), None)
            if found is None:
                return
            records = self._read(found)
            _add_records(records, self._absorbed, self._absorbed_fallbacks)
            for record in records:
                if record.key[0] == SPLIT:
                    self._absorbed_splits.absorb(record.key, record.numbers)
                elif record.key[0] == RECORDS:
                    self._absorbed_records = _add_numbers(self._absorbed_records, record.numbers)
            self._absorbed_dropped += _dropped_spans_of(records)
            self._requests[found.index] += found.requests
            self._live.remove(found)
        sheet.close()

    def forget(self, model: str, version: str | None = None) -> None:
        """Drop the sums of one version, or of a whole model, for good.

        Records of it that workers have now never count again, whenever they free them: what they count for a version
        of the same name later counts once they have freed these, and have taken new ones.
        """
        wanted = ("traffic", model) if version is None else ("traffic", model, version)
        with self._lock:
            for key in [key for key in self._absorbed if key[: len(wanted)] == wanted]:
                del self._absorbed[key]
            if version is None:
                self._absorbed_splits.forget(model)
            for worker in self._live:
                records = self._read(worker)
                worker.forgotten |= {record.serial for record in records if record.key[: len(wanted)] == wanted}

    def read_splits(self) -> dict[tuple[str, int], SplitRow]:
        """Return what all workers have counted in each split, by model and number. All sheets are read once."""
        with self._lock:
            found = self._absorbed_splits.read()
            for worker in self._live:
                for record in worker.sheet.read(SPLIT):
                    key = (record.key[1], int(record.key[2]))
                    found[key] = found.get(key, SplitRow()).plus(SplitRow.of(record.numbers))
        return found

    def read_records(self) -> list[float] | None:
        """Return what all workers have counted of the log of predictions, None if none of them writes it."""
        with self._lock:
            found = self._absorbed_records
            for worker in self._live:
                for record in worker.sheet.read(RECORDS):
                    found = _add_numbers(found, record.numbers)
        return found

    def sum(self) -> Sums:
        """Return everything as it is now."""
        with self._lock:
            traffic: dict[Key, SumOfRows] = {}
            for key, absorbed in self._absorbed.items():
                traffic[key] = SumOfRows()
                traffic[key].add_sum(absorbed)
            problems = dict(self._absorbed_fallbacks)
            requests: dict[int, int] = {}
            for worker in self._live:
                _add_records(self._read(worker), traffic, problems)
                requests[worker.index] = requests.get(worker.index, 0) + worker.requests
            for index, count in self._requests.items():
                requests[index] = requests.get(index, 0) + count
        rows = [VersionTraffic(key[1], key[2], total.numbers) for key, total in sorted(traffic.items())]
        return Sums(rows, sorted(problems.items()), dict(sorted(requests.items())))

    def collect(self) -> Iterator[Metric]:
        """Yield all samples; called by the registry."""
        found = self.sum()
        yield from make_families(found.traffic, self.loaded)
        yield fallbacks.make_family(found.fallbacks)
        if self.own_dropped_spans is not None:
            own, created = self.own_dropped_spans.numbers
            yield make_dropped_family([own + self._sum_dropped_spans(), created])
        records = self.read_records()
        if records is not None:
            yield from make_record_families(records)

    def _sum_dropped_spans(self) -> float:
        """Return how many spans all workers have dropped."""
        with self._lock:
            live = sum(_dropped_spans_of(worker.sheet.read(DROPPED_SPANS)) for worker in self._live)
            return self._absorbed_dropped + live

    def _read(self, worker: _SheetOfWorker) -> list[CountRecord]:
        records, gone = worker.read()
        self._requests[worker.index] += gone
        return records


def sum_leases(by_worker: Mapping[int, Iterable[VersionLeases]]) -> list[VersionLeases]:
    """Return the leases of live workers, summed by version; a version is active that any of them has active."""
    found: dict[tuple[str, str], VersionLeases] = {}
    for one in (one for leases in by_worker.values() for one in leases):
        before = found.get((one.model, one.version), VersionLeases(one.model, one.version, 0, False))
        found[one.model, one.version] = before._replace(
            leases=before.leases + one.leases, is_active=before.is_active or one.is_active
        )
    return list(found.values())


def _add_records(records: list[CountRecord], traffic: dict[Key, SumOfRows], problems: dict[str, list[float]]) -> None:
    for record in records:
        match record.key:
            case ("traffic", _, _):
                traffic.setdefault(record.key, SumOfRows()).add(record.numbers)
            case ("fallbacks", problem):
                count, created = record.numbers[fallbacks.COUNT], record.numbers[fallbacks.CREATED]
                before = problems.get(problem, [0.0, created])
                problems[problem] = [before[0] + count, min(before[1], created)]
            case _:
                pass


def _dropped_spans_of(records: list[CountRecord]) -> float:
    return sum(record.numbers[COUNT] for record in records if record.key == (DROPPED_SPANS,))


def _add_numbers(total: list[float] | None, numbers: list[float]) -> list[float]:
    return [ours + theirs for ours, theirs in zip(total or [0.0] * RECORD_NUMBERS, numbers, strict=False)]


def _requests_of(record: CountRecord) -> int:
    return sum(statuses_of(record.numbers).values()) if record.key[0] == "traffic" else 0
