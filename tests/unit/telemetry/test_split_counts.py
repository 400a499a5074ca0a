"""What is counted for the judge of a new version: each answer once, of the newest split, over all workers."""

from __future__ import annotations

import os
import sys
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from serving.domain.rollout import BadExample
from serving.telemetry import split_counts
from serving.telemetry.count_sheet import CountSheet
from serving.telemetry.split_counts import MOST_EXAMPLES, SplitCount, SplitCounts, SplitRow
from serving.telemetry.summed_traffic import SummedTraffic

RECORDS = 8
needs_sheets = pytest.mark.skipif(sys.platform != "linux", reason="needs memfd_create")


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def answer(counts: SplitCounts, number: int, *, new: bool = True, bad: bool = False, key: bytes | None = None) -> None:
    counts.count("m", number, key, is_new=new, is_bad=bad)


def find(counted: SplitCounts | SummedTraffic, model: str, number: int) -> SplitCount:
    found = counted.read() if isinstance(counted, SplitCounts) else counted.read_splits()
    return found.get((model, number), SplitRow()).answers


def test_each_answer_counts_for_the_version_that_gave_it() -> None:
    counts = SplitCounts()
    for new, bad, times in ((True, False, 3), (True, True, 2), (False, False, 5), (False, True, 1)):
        for _ in range(times):
            answer(counts, 1, new=new, bad=bad)
    assert find(counts, "m", 1) == SplitCount(new=5, new_bad=2, old=6, old_bad=1, new_clients=2, old_clients=1)
    assert find(counts, "other", 1) == SplitCount()


@pytest.mark.parametrize("new", [True, False])
def test_of_one_client_one_bad_answer_in_a_second_counts_and_the_client_once(new: bool) -> None:
    clock = Clock()
    counts = SplitCounts(now=clock)
    for second in range(3):
        for _ in range(10):
            answer(counts, 1, new=new, bad=True, key=b"broken")
            answer(counts, 1, new=new, key=b"broken")
        clock.seconds = 101.0 + second
    answer(counts, 1, new=new, bad=True, key=b"other")
    found = find(counts, "m", 1)
    assert (found if new else (*found[2:4], *found[:2], *found[:3:-1])) == (34, 4, 0, 0, 2, 0)


def test_another_split_counts_anew_and_one_before_it_no_more() -> None:
    counts = SplitCounts()
    answer(counts, 1, bad=True, key=b"a")
    answer(counts, 2, bad=True, key=b"a")
    answer(counts, 1)
    assert find(counts, "m", 2) == SplitCount(new=1, new_bad=1, new_clients=1)
    assert find(counts, "m", 1) == SplitCount()


def test_clients_beyond_those_that_are_remembered_count_on_neither_side(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split_counts, "MOST_CLIENTS", 3)
    counts = SplitCounts()
    for number in range(5):
        answer(counts, 1, bad=True, key=b"%d" % number)
    assert find(counts, "m", 1) == SplitCount(new=5, new_bad=5, new_clients=3)


def test_long_keys_take_no_memory() -> None:
    """A client may send a key as long as a body."""
    counts = SplitCounts()
    tracemalloc.start()
    try:
        for number in range(50):
            answer(counts, 1, bad=True, key=b"%d" % number * 1_000_000)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert find(counts, "m", 1).new_clients == 50
    assert held < 1_000_000


def test_examples_are_few_each_of_its_own_kind_and_told_once() -> None:
    counts = SplitCounts()
    told: list[Any] = []
    counts.on_example = lambda *example: told.append(example)
    kinds = [BadExample(status=500, detail=f"kind {number}") for number in range(MOST_EXAMPLES + 3)]
    for example in [*kinds, *kinds]:
        counts.note_example("m", 1, example)
    assert counts.read_examples("m", 1) == tuple(kinds[:MOST_EXAMPLES])
    assert told == [("m", 1, example) for example in kinds[:MOST_EXAMPLES]]
    counts.note_example("m", 2, kinds[0])
    counts.note_example("m", 1, kinds[1])
    assert (counts.read_examples("m", 2), counts.read_examples("m", 1)) == ((kinds[0],), ())


# --- several workers --------------------------------------------------------------------------------------------------


class Worker:
    """A worker in this process: it writes through a mapping of its own, as a real one does."""

    def __init__(self, index: int, summed: SummedTraffic, now: Callable[[], float]) -> None:
        self.sheet = CountSheet.create(RECORDS)
        theirs = CountSheet(os.dup(self.sheet.fd), RECORDS)
        self.counts = SplitCounts(theirs, now)
        os.close(theirs.fd)  # the mapping needs none
        summed.add(index, self.sheet)


@needs_sheets
def test_workers_are_summed_the_dead_ones_included() -> None:
    summed, clock = SummedTraffic(), Clock()
    workers = [Worker(index, summed, clock) for index in range(3)]
    for worker in workers:
        answer(worker.counts, 7)
        answer(worker.counts, 7, new=False, bad=True)
    expected = SplitCount(new=3, old=3, old_bad=3, old_clients=3)
    assert find(summed, "m", 7) == expected
    for worker in workers[:2]:
        summed.absorb(worker.sheet)
        assert find(summed, "m", 7) == expected
    answer(workers[2].counts, 8)
    assert find(summed, "m", 8) == SplitCount(new=1)
    assert find(summed, "other", 7) == SplitCount()


@needs_sheets
def test_a_dead_worker_that_was_behind_adds_nothing_to_a_newer_split() -> None:
    summed, clock = SummedTraffic(), Clock()
    behind, ahead = Worker(0, summed, clock), Worker(1, summed, clock)
    answer(behind.counts, 7)
    answer(ahead.counts, 8)
    for worker in (ahead, behind):
        summed.absorb(worker.sheet)
    assert find(summed, "m", 8) == SplitCount(new=1)


@needs_sheets
def test_split_after_split_and_model_after_model_leave_no_record_behind() -> None:
    summed = SummedTraffic()
    worker = Worker(0, summed, Clock())
    for number in range(5 * RECORDS):
        worker.counts.count(f"m{number % 3}", number, None, is_new=True, is_bad=False)
    assert len(worker.sheet.read()) == len(worker.sheet.read("split")) == 3
    assert worker.sheet.read("spli") == []
    for number in range(3):
        worker.counts.forget(f"m{number}")
    assert worker.sheet.read() == []
    summed.absorb(worker.sheet)


@needs_sheets
def test_what_is_counted_for_a_judge_is_no_request_in_the_metrics() -> None:
    summed = SummedTraffic()
    worker = Worker(0, summed, Clock())
    answer(worker.counts, 7)
    assert summed.sum() == ([], [], {0: 0})
    summed.absorb(worker.sheet)
    assert summed.sum() == ([], [], {0: 0})


@needs_sheets
def test_a_model_that_is_gone_is_forgotten() -> None:
    summed = SummedTraffic()
    worker = Worker(0, summed, Clock())
    answer(worker.counts, 7)
    summed.absorb(worker.sheet)
    summed.forget("m")
    assert find(summed, "m", 7) == SplitCount()
