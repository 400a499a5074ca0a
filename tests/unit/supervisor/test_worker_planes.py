"""All workers' planes as one: who loads, who prepares, who is replaced, and that a hung one holds up nobody."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator

import pytest

from serving.domain.plan import Commit, Drained, Draining, Loaded, LoadFailed, Unload
from serving.domain.recent_rows import AnsweredRows, RecentRows
from serving.domain.spread import OutputSpread, Spread
from serving.supervisor import worker_planes
from serving.wire.recent_rows_document import encode_recent_rows
from serving.wire.worker_channel import Received
from serving.wire.worker_messages import (
    Accept,
    LoadOrder,
    PlanPrepared,
    PrepareOrder,
    ReadRecentRows,
    RecentRowsRead,
    SpreadsRead,
)
from tests.e2e.harness import until
from tests.unit.supervisor.fake_workers import Running, Service, key_of, load_of, prepare_of, service

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="several workers need Linux")


@pytest.fixture
def planes() -> Iterator[Service]:
    with service() as found:
        yield found


def nothing(_: Received) -> None:
    """Answer nothing: the worker hangs."""


def refuse(received: Received) -> LoadFailed:
    return LoadFailed(received.message.key, "MemoryError()")


# --- loading ----------------------------------------------------------------------------------------------------------


def test_one_worker_loads_a_version_before_the_others_do(planes: Service) -> None:
    first, other = planes.join(0, LoadOrder=nothing), planes.join(1)
    loading = Running(lambda: planes.planes.load(load_of(1)))
    order = first.wait_for(LoadOrder)
    assert other.of(LoadOrder) == []
    first.received[-1].answer(Loaded(order.key))
    assert loading.result() == Loaded(key_of(1))
    assert [one.key for one in other.of(LoadOrder)] == [key_of(1)]
    assert planes.replaced == {}


def test_a_version_that_kills_workers_is_refused_after_two_and_no_other_one_loads_it(planes: Service) -> None:
    workers = [planes.join(index) for index in range(3)]
    for worker in workers:
        worker.answers = {"LoadOrder": lambda _, worker=worker: worker.die()}
    failed = planes.planes.load(load_of(1))
    assert isinstance(failed, LoadFailed)
    assert failed.reason == "worker 0 has ended while it loaded it; worker 1 has ended while it loaded it"
    assert workers[2].of(LoadOrder) == []
    assert planes.join(0).of(LoadOrder) == [], "successors load what has been loaded only"


def test_a_worker_that_cannot_load_what_another_one_can_is_replaced(planes: Service) -> None:
    first, second = planes.join(0, LoadOrder=refuse), planes.join(1)
    third = planes.join(2, LoadOrder=refuse)
    assert planes.planes.load(load_of(1)) == Loaded(key_of(1))
    assert second.of(LoadOrder)
    assert planes.replaced == {0: "MemoryError()", 2: "MemoryError()"}
    for worker in (first, third):
        worker.link.has_ended.wait(10)
        planes.planes.remove(worker.link)
    assert [one.key for one in planes.join(0).of(LoadOrder)] == [key_of(1)]


def test_a_version_that_no_worker_can_load_costs_none(planes: Service) -> None:
    for index in range(2):
        planes.join(index, LoadOrder=refuse)
    assert planes.planes.load(load_of(1)) == LoadFailed(key_of(1), "MemoryError()")
    assert planes.replaced == {}


def test_a_worker_that_does_not_load_in_time_is_replaced_and_another_one_asked() -> None:
    with service(load_seconds=0.2) as planes:
        planes.join(0, LoadOrder=nothing)
        planes.join(1)
        assert planes.planes.load(load_of(1)) == Loaded(key_of(1))
        assert planes.replaced == {0: "while it loaded m/1: it has not answered for 0.2 s"}


def test_the_others_have_the_seconds_of_a_worker_to_load_it_too() -> None:
    with service(seconds=0.2) as planes:
        planes.join(0)
        planes.join(1, LoadOrder=nothing)
        assert planes.planes.load(load_of(1)) == Loaded(key_of(1))
        said = re.fullmatch(r"it has not answered for (\S+) s", planes.replaced[1])
        assert said is not None
        assert 0.2 <= float(said[1]) < 20.0, "and as long as the first one took, but not the seconds to load it"


def test_nothing_is_loaded_where_no_worker_lives_and_a_worker_is_waited_for(planes: Service) -> None:
    loading = Running(lambda: planes.planes.load(load_of(1)))
    planes.join(0)
    assert loading.result() == Loaded(key_of(1))
    planes.workers[0].die()
    planes.workers[0].link.has_ended.wait(10)
    planes.planes.remove(planes.workers[0].link)
    loading = Running(lambda: planes.planes.load(load_of(2)))
    planes.planes.close()
    assert loading.result() == LoadFailed(key_of(2), "there is no worker to load it")


# --- the swap ---------------------------------------------------------------------------------------------------------


def test_a_worker_that_does_not_prepare_in_time_is_dead_before_the_others_commit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker_planes, "KILL_SECONDS", 20.0)
    with service(seconds=0.2) as planes:
        first, hung = planes.join(0), planes.join(1, PrepareOrder=nothing)
        planes.planes.load(load_of(1))
        planes.dies_when_replaced = False
        preparing = Running(lambda: planes.planes.prepare(prepare_of(1, 1)))
        hung.wait_for(PrepareOrder, 2)
        until(lambda: planes.replaced, "its replacement")
        assert not preparing.is_done, "it was killed, and may not have ended"
        hung.die()
        preparing.result()
        planes.planes.commit(Commit(1))
        assert planes.replaced == {1: "it has not answered for 0.2 s"}
        assert first.wait_for(Commit, 2).generation == planes.word[0] == 1
        assert hung.of(Commit) == [Commit(0)]


def test_a_starting_worker_that_hangs_holds_up_nothing(planes: Service) -> None:
    first = planes.join(0)
    planes.planes.load(load_of(1))
    for place, held in enumerate(("Sync", "LoadOrder", "PrepareOrder"), 1):
        hung = planes.make(place, **{held: nothing})
        adding = Running(lambda hung=hung: planes.planes.add(hung.link))
        hung.wait_for({"Sync": LoadOrder, "LoadOrder": LoadOrder, "PrepareOrder": PrepareOrder}[held])
        generation = 2 * place - 1

        def swap(version: int = place + 1, generation: int = generation) -> bool:
            planes.planes.load(load_of(version))
            planes.planes.prepare(prepare_of(generation, version))
            planes.planes.commit(Commit(generation))
            planes.planes.prepare(prepare_of(generation + 1, version, 1))
            planes.planes.commit(Commit(generation + 1))
            return True

        assert Running(swap).result()
        assert planes.word[0] == generation + 1
        assert not adding.is_done
        assert hung.of(Accept) == []
        hung.die()
        assert adding.result() is None
        Running(lambda hung=hung: planes.planes.remove(hung.link) or True).result()
    assert planes.replaced == {}
    assert first.link.generation == 6


def test_a_worker_that_starts_during_swaps_accepts_with_the_newest_plan(planes: Service) -> None:
    planes.join(0)
    planes.planes.load(load_of(1))
    planes.planes.load(load_of(2))
    planes.planes.prepare(prepare_of(1, 1))
    planes.planes.commit(Commit(1))
    newcomer = planes.make(1, PrepareOrder=nothing)
    adding = Running(lambda: planes.planes.add(newcomer.link))
    newcomer.wait_for(PrepareOrder)
    planes.planes.prepare(prepare_of(2, 2, 1))
    planes.planes.commit(Commit(2))
    planes.planes.prepare(prepare_of(3, 1, 2))
    newcomer.answers = {}
    first_order = next(one for one in newcomer.received if isinstance(one.message, PrepareOrder))
    first_order.answer(PlanPrepared(1))
    assert adding.result() is None
    newcomer.wait_for(Accept)
    plans = [one for one in newcomer.seen if isinstance(one, PrepareOrder | Commit | Accept)]
    assert [getattr(one, "generation", "accept") for one in plans] == [1, 1, 2, 2, 3, "accept"]
    planes.planes.commit(Commit(3))
    assert newcomer.wait_for(Commit, 3) == Commit(3)


def test_a_starting_worker_that_makes_no_progress_is_told_by_name() -> None:
    with service(seconds=0.3, load_seconds=0.1) as planes:
        planes.join(0)
        planes.planes.load(load_of(1))
        cases = {
            "Sync": "while it started: it has not answered for 0.1 s",
            "LoadOrder": "while it loaded m/1: it has not answered for 0.1 s",
            "PrepareOrder": "while it prepared what is committed: it has not answered for 0.3 s",
        }
        for index, (held, reason) in enumerate(cases.items(), 1):
            worker = planes.make(index, **{held: nothing})
            assert planes.planes.add(worker.link) == reason
            assert worker.of(Accept) == []
            planes.planes.remove(worker.link)
        worker = planes.make(1, LoadOrder=lambda _: worker.die())
        assert planes.planes.add(worker.link) is None
        assert worker.link.doing == "loaded m/1"
        planes.planes.remove(worker.link)
        worker = planes.make(2, LoadOrder=refuse)
        assert planes.planes.add(worker.link) == "while it loaded m/1: MemoryError()"


# --- unloading --------------------------------------------------------------------------------------------------------


def test_unloading_waits_for_no_worker_and_ends_when_all_have_drained(planes: Service) -> None:
    drained = planes.join(0)
    slow = planes.join(1, Unload=nothing)
    planes.planes.load(load_of(1))
    assert planes.planes.unload(Unload(key_of(1))) == Draining(key_of(1), None)
    drained.wait_for(Unload)
    slow.wait_for(Unload)
    assert planes.facts == []
    slow.channel.send(Drained(key_of(1), "it leaked"))
    until(lambda: planes.facts, "the fact")
    assert planes.facts == [Drained(key_of(1), "it leaked")]


def test_what_a_dead_worker_still_said_is_not_taken_for_its_successors_word(planes: Service) -> None:
    dead = planes.join(0, Unload=nothing)
    planes.planes.load(load_of(1))
    planes.planes.remove(dead.link)
    successor = planes.join(0, Unload=nothing)
    planes.planes.unload(Unload(key_of(1)))
    planes.planes.take(dead.link, Drained(key_of(1)))
    assert planes.facts == []
    planes.planes.take(successor.link, Drained(key_of(1)))
    assert planes.facts == [Drained(key_of(1))]


def test_a_dead_worker_has_drained_everything(planes: Service) -> None:
    dead = planes.join(0, Unload=nothing)
    planes.planes.load(load_of(1))
    planes.planes.unload(Unload(key_of(1)))
    dead.die()
    planes.planes.remove(dead.link)
    assert planes.facts == [Drained(key_of(1))]


# --- samples ----------------------------------------------------------------------------------------------------------


def recent_rows(first: int, count: int) -> RecentRows:
    rows = [[number] for number in range(first, first + count)]
    return RecentRows("1", (AnsweredRows(rows, {"predict": [0] * count}),))


def test_recent_rows_of_all_workers_are_put_together_and_one_that_hangs_is_not_missed() -> None:
    with service(seconds=0.5) as planes:
        for index in range(2):
            document = encode_recent_rows(recent_rows(1000 * index, 800))
            planes.join(index, ReadRecentRows=lambda _, document=document: RecentRowsRead(document))
        planes.join(2, ReadRecentRows=lambda _: RecentRowsRead(None))
        hung = planes.join(3, ReadRecentRows=nothing)
        found = planes.planes.sample(key_of(1))
        assert found is not None
        rows = [row[0] for piece in found.pieces for row in piece.rows]
        assert [sum(row // 1000 == index for row in rows) for index in range(2)] == [500, 500]
        assert hung.of(ReadRecentRows) == [ReadRecentRows(key_of(1))]
        assert planes.replaced == {}


def test_spreads_of_all_workers_are_put_together(planes: Service) -> None:
    one = Spread(2, (OutputSpread("predict", (1.0, 2.0)),))
    planes.join(0, ReadSpreads=lambda _: SpreadsRead({"1": one}))
    planes.join(1, ReadSpreads=lambda _: SpreadsRead({"1": one, "2": one}))
    assert planes.planes.spreads("m") == {"1": Spread(4, (OutputSpread("predict", (1.0, 2.0, 1.0, 2.0)),)), "2": one}
