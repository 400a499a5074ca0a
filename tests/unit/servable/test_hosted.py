"""A hosted engine: many requests at once, deadlines, and hosts that die."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import numpy as np
import pytest

from serving.domain.batch import Batch
from serving.domain.errors import DeadlineExceeded, HostLost, ModelFailed
from serving.servable.hosted import HostedEngine
from tests.unit.servable.host_stub import Answer, StubProcess, doubled

Run = Callable[[Callable[[HostedEngine], Coroutine[Any, Any, Any]]], Any]


def rows(value: float, count: int = 1, features: int = 1) -> Batch:
    return Batch(count, matrix=np.full((count, features), value))


@pytest.fixture
def hosts() -> Iterator[Callable[[Answer], StubProcess]]:
    made: list[StubProcess] = []

    def make(answer: Answer = doubled) -> StubProcess:
        made.append(StubProcess(answer))
        return made[-1]

    yield make
    for process in made:
        process.join()


def test_many_requests_at_once_each_get_their_own_answer(hosts: Callable[..., StubProcess]) -> None:
    async def scenario() -> list[float]:
        engine = HostedEngine("sklearn", lambda _: None)
        await engine.attach(hosts())
        answers = await asyncio.gather(*(engine.predict("predict", rows(i), 10) for i in range(200)))
        await engine.close()
        return [answer.by_row()[0] for answer in answers]

    assert asyncio.run(scenario()) == [2.0 * i for i in range(200)]


def test_a_large_request_goes_through_the_arena_and_a_second_one_beside_it_does_not_disturb_it(
    hosts: Callable[..., StubProcess],
) -> None:
    host = hosts()

    async def scenario() -> list[Any]:
        engine = HostedEngine("sklearn", lambda _: None)
        await engine.attach(host)
        batches = [rows(1.0, 20_000, 10), rows(2.0, 30_000, 10), rows(3.0), rows(4.0, 20_000, 10)]
        answers = await asyncio.gather(*(engine.predict("predict", batch, 10) for batch in batches))
        assert host.arena_uses == 1, "while one request uses it, the others take the socket"
        answers.append(await engine.predict("predict", rows(5.0, 20_000, 10), 10))
        await engine.close()
        return [set(answer.by_row()) for answer in answers]

    assert asyncio.run(scenario()) == [{2.0}, {4.0}, {6.0}, {8.0}, {10.0}]
    assert host.arena_uses == 2, "it is free again after its answer"


def test_requests_in_flight_are_sent_once_more_when_the_host_dies(hosts: Callable[..., StubProcess]) -> None:
    """One death costs nobody anything: the answers come from the next host."""

    def die(batch: Batch) -> np.ndarray:
        raise SystemExit

    lost = []

    async def scenario() -> list[float]:
        engine = HostedEngine("sklearn", lost.append)
        await engine.attach(hosts(die))
        requests = [asyncio.ensure_future(engine.predict("predict", rows(i), 10)) for i in range(5)]
        while not lost:
            await asyncio.sleep(0.001)
        assert not engine.is_connected
        late = asyncio.ensure_future(engine.predict("predict", rows(9), 10))
        await asyncio.sleep(0)
        await engine.attach(hosts())
        answers = await asyncio.gather(*requests, late)
        await engine.close()
        return [answer.by_row()[0] for answer in answers]

    assert asyncio.run(scenario()) == [0.0, 2.0, 4.0, 6.0, 8.0, 18.0]
    assert len(lost) == 1


def test_a_request_that_was_under_way_in_two_deaths_is_given_up(hosts: Callable[..., StubProcess]) -> None:
    def die(batch: Batch) -> np.ndarray:
        raise SystemExit

    lost: list[HostedEngine] = []

    async def scenario() -> None:
        engine = HostedEngine("sklearn", lost.append)
        await engine.attach(hosts(die))
        request = asyncio.ensure_future(engine.predict("predict", rows(1), 10))
        for deaths in (1, 2):
            while len(lost) < deaths:
                await asyncio.sleep(0.001)
            if deaths == 1:
                assert not request.done()
                await engine.attach(hosts(die))
        with pytest.raises(HostLost, match="twice"):
            await request
        await engine.close()

    asyncio.run(scenario())


def test_a_deadline_gives_up_the_request_and_kills_the_host_that_is_stuck_on_it(
    hosts: Callable[..., StubProcess],
) -> None:
    stuck = threading.Event()

    def hang(batch: Batch) -> np.ndarray:
        if batch.matrix is not None and batch.matrix[0, 0] == 13:
            stuck.wait(30)
            raise SystemExit
        return doubled(batch)

    host = hosts(hang)
    lost: list[HostedEngine] = []

    async def scenario() -> None:
        engine = HostedEngine("sklearn", lost.append)
        await engine.attach(host)
        poison = asyncio.ensure_future(engine.predict("predict", rows(13), 0.1))
        behind = asyncio.ensure_future(engine.predict("predict", rows(2), 30))
        with pytest.raises(DeadlineExceeded, match=r"0\.1 s"):
            await poison
        while not lost:
            await asyncio.sleep(0.001)
        await engine.attach(hosts())
        assert (await behind).by_row() == [4.0], "the request behind the stuck one must not suffer"
        await engine.close()

    asyncio.run(scenario())
    stuck.set()
    assert host.was_killed


def test_an_outage_is_told_at_once_until_a_host_is_there_again(hosts: Callable[..., StubProcess]) -> None:
    async def scenario() -> None:
        engine = HostedEngine("sklearn", lambda _: None)
        waiting = asyncio.ensure_future(engine.predict("predict", rows(1), 30))
        await asyncio.sleep(0)
        engine.report_outage(HostLost("no memory"))
        with pytest.raises(HostLost, match="no memory"):
            await waiting
        with pytest.raises(HostLost, match="no memory"):
            await engine.predict("predict", rows(1), 30)
        await engine.attach(hosts())
        assert (await engine.predict("predict", rows(1), 30)).by_row() == [2.0]
        await engine.close()

    asyncio.run(scenario())


def test_an_answer_that_cannot_be_read_costs_the_host_its_life(hosts: Callable[..., StubProcess]) -> None:
    class Liar(np.ndarray):
        """Claims a shape that its bytes do not have."""

    host = hosts(lambda batch: np.zeros((1, 2)).view(Liar))
    lost: list[HostedEngine] = []

    async def scenario() -> None:
        engine = HostedEngine("sklearn", lost.append)
        await engine.attach(host)
        link = engine._link
        assert link is not None
        request = asyncio.ensure_future(engine.predict("predict", rows(1), 10))
        await asyncio.sleep(0)
        link.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        while not lost:
            await asyncio.sleep(0.001)
        engine.report_outage(ModelFailed("broken"))
        with pytest.raises(ModelFailed, match="broken"):
            await request
        await engine.close()

    asyncio.run(scenario())
