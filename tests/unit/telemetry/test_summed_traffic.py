"""Sums over workers: each count once, dead workers included; no counter goes back but by forgetting."""

from __future__ import annotations

import os
import sys
import threading
from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from serving.telemetry.count_sheet import CountSheet
from serving.telemetry.metrics import Metrics
from serving.telemetry.service_metrics import ServiceMetrics
from serving.telemetry.summed_traffic import SummedTraffic, sum_leases
from serving.telemetry.traffic import ROWS, VersionLeases, statuses_of

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs memfd_create")

RECORDS = 16
VERSIONS = st.sampled_from([("iris", "1"), ("iris", "2"), ("wine", "1")])
WORKERS = st.integers(0, 2)


class Worker:
    """A worker in this process: it writes through a mapping of its own, as a real one does."""

    def __init__(self, index: int, summed: SummedTraffic) -> None:
        self.sheet = CountSheet.create(RECORDS)
        theirs = CountSheet(os.dup(self.sheet.fd), RECORDS)
        self.metrics = Metrics("0", theirs)
        os.close(theirs.fd)  # the mapping needs none, and there are many workers
        summed.add(index, self.sheet)


def rows_of(summed: SummedTraffic) -> dict[tuple[str, str], float]:
    return {(one.model, one.version): one.numbers[ROWS] for one in summed.sum().traffic}


def test_statuses_rows_and_fallbacks_are_summed_by_version() -> None:
    summed = SummedTraffic()
    first, second = Worker(0, summed), Worker(1, summed)
    first.metrics.traffic("iris", "1").record(200, 2, 0.1)
    for status in (422, 200):
        second.metrics.traffic("iris", "1").record(status, 1, 0.1)
    for worker in (first, second):
        worker.metrics.count_fallback("internal")
    (only,) = summed.sum().traffic
    assert statuses_of(only.numbers) == {200: 2, 422: 1}
    assert only.numbers[ROWS] == 4
    assert [(problem, numbers[0]) for problem, numbers in summed.sum().fallbacks] == [("internal", 2)]


def test_a_dead_workers_counts_are_kept_once() -> None:
    summed = SummedTraffic()
    worker = Worker(0, summed)
    worker.metrics.traffic("iris", "1").record(200, 2, 0.1)
    worker.metrics.count_fallback("internal")
    before = summed.sum()
    for _ in range(2):
        summed.absorb(worker.sheet)
    assert summed.sum() == before


def test_records_are_summed_over_live_and_dead_workers_and_shown_only_where_there_are_any() -> None:
    summed = SummedTraffic()
    first, second = Worker(0, summed), Worker(1, summed)
    assert summed.read_records() is None
    assert not [family for family in summed.collect() if "record" in family.name]
    first.metrics.make_record_counts().count_written(3)
    counts = second.metrics.make_record_counts()
    counts.count_dropped()
    counts.count_lost(2)
    counts.count_failure()
    shown = {"serving_records": 3, "serving_record_dropped": 3, "serving_record_failures": 1}
    for end in (None, first, second):
        if end is not None:
            summed.absorb(end.sheet)
        families = [family for family in summed.collect() if "record" in family.name]
        assert {family.name: family.samples[0].value for family in families} == shown


def test_a_forgotten_version_begins_anew_though_its_old_record_is_still_there() -> None:
    summed = SummedTraffic()
    dead, live = Worker(0, summed), Worker(1, summed)
    for worker in (dead, live):
        worker.metrics.traffic("iris", "1").record(200, 5, 0.1)
    summed.absorb(dead.sheet)
    summed.forget("iris", "1")
    live.metrics.traffic("iris", "1").record(200, 5, 0.1)  # the worker has not been told yet
    assert rows_of(summed) == {}
    live.metrics.forget("iris", "1")
    live.metrics.traffic("iris", "1").record(200, 1, 0.1)
    assert rows_of(summed) == {("iris", "1"): 1}
    summed.absorb(live.sheet)
    assert rows_of(summed) == {("iris", "1"): 1}
    assert summed.sum().requests == {0: 1, 1: 3}


def test_a_forgotten_record_stays_forgotten_when_its_worker_dies() -> None:
    summed = SummedTraffic()
    worker = Worker(0, summed)
    worker.metrics.traffic("iris", "1").record(200, 5, 0.1)
    worker.metrics.traffic("iris", "2").record(200, 3, 0.1)
    summed.forget("iris", "1")
    summed.absorb(worker.sheet)
    assert rows_of(summed) == {("iris", "2"): 3}
    summed.forget("iris")
    assert rows_of(summed) == {}


def test_no_scrape_goes_back_while_workers_die() -> None:
    summed = SummedTraffic()
    seen: list[float] = []
    stop = threading.Event()

    def scrape() -> None:
        while not stop.is_set():
            seen.append(sum(rows_of(summed).values()))

    thread = threading.Thread(target=scrape)
    thread.start()
    for index in range(60):
        worker = Worker(index, summed)
        worker.metrics.traffic("iris", "1").record(200, 1, 0.1)
        summed.absorb(worker.sheet)
    stop.set()
    thread.join()
    assert seen == sorted(seen)
    assert rows_of(summed) == {("iris", "1"): 60}


def test_leases_are_summed_and_one_active_worker_is_enough() -> None:
    leases = {
        0: [VersionLeases("iris", "1", 2, True), VersionLeases("iris", "2", 0, False)],
        1: [VersionLeases("iris", "1", 3, False)],
    }
    assert sum_leases(leases) == [VersionLeases("iris", "1", 5, True), VersionLeases("iris", "2", 0, False)]


class AnyOrder(RuleBasedStateMachine):
    """Counting, deaths, forgetting and scrapes in any order, against plain numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.summed = SummedTraffic()
        self.workers = {index: Worker(index, self.summed) for index in range(3)}
        self.expected: Counter[tuple[str, str]] = Counter()
        self.requests: Counter[int] = Counter()
        self.untold: list[tuple[Worker, str, str]] = []
        self.seen_requests: dict[int, int] = {}

    @rule(index=WORKERS, version=VERSIONS, rows=st.integers(1, 9), status=st.sampled_from([200, 422, 500]))
    def count(self, index: int, version: tuple[str, str], rows: int, status: int) -> None:
        worker = self.workers[index]
        worker.metrics.traffic(*version).record(status, rows, rows / 7)
        self.requests[index] += 1
        if (worker, *version) not in self.untold:
            self.expected[version] += rows

    @rule(index=WORKERS)
    def die(self, index: int) -> None:
        worker = self.workers[index]
        self.summed.absorb(worker.sheet)
        self.untold = [each for each in self.untold if each[0] is not worker]
        self.workers[index] = Worker(index, self.summed)

    @rule(version=VERSIONS)
    def forget(self, version: tuple[str, str]) -> None:
        self.summed.forget(*version)
        del self.expected[version]
        for worker in self.workers.values():
            if (worker, *version) not in self.untold and any(
                record.key == ("traffic", *version) for record in worker.sheet.read()
            ):
                self.untold.append((worker, *version))

    @rule()
    def tell_workers(self) -> None:
        for worker, model, version in self.untold:
            worker.metrics.forget(model, version)
        self.untold.clear()

    @invariant()
    def sums_are_what_was_counted(self) -> None:
        found = self.summed.sum()
        assert {key: rows for key, rows in rows_of(self.summed).items() if rows} == dict(self.expected)
        for one in found.traffic:
            assert sum(one.numbers[:ROWS]) == sum(statuses_of(one.numbers).values())
        assert all(found.requests[index] >= count for index, count in self.seen_requests.items())
        self.seen_requests = found.requests
        assert found.requests == {index: self.requests[index] for index in range(3)}

    def teardown(self) -> None:
        for worker in self.workers.values():
            self.summed.absorb(worker.sheet)


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestAnyOrder.pytestmark = pytestmark


def test_dropped_spans_are_summed_over_workers_dead_ones_included() -> None:
    metrics = ServiceMetrics("0")
    assert b"serving_trace_spans_dropped" not in metrics.render(())[0]
    count_here = metrics.count_traces()
    sheets = [CountSheet.create(RECORDS) for _ in range(2)]
    counting = [Metrics("0", CountSheet(os.dup(sheet.fd), RECORDS)).count_traces() for sheet in sheets]
    for index, sheet in enumerate(sheets):
        metrics.start_worker(index, sheet, os.getpid())
    count_here(1)
    counting[0](10)
    counting[1](100)
    metrics.end_worker(0, 0.0)
    assert b"serving_trace_spans_dropped_total 111.0\n" in metrics.render(())[0]
