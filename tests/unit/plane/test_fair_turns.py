"""Threads are given to models in turn: pieces of one never keep another's waiting for more than one piece."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from serving.domain.errors import Overloaded
from serving.plane.fair_turns import ALL_BYTES, MODEL_BYTES, SMALL_BYTES, Turns


class Pieces:
    """Work of some pieces, each of which waits for `may_go` (set from the beginning unless told otherwise)."""

    def __init__(self, name: str, count: int, log: list[str] | None = None, *, is_held: bool = False) -> None:
        self.name, self.left, self.log = name, count, [] if log is None else log
        self.may_go = threading.Event()
        self.begun = threading.Semaphore(0)
        if not is_held:
            self.may_go.set()

    def step(self) -> bool:
        self.begun.release()
        self.may_go.wait()
        self.log.append(self.name)
        self.left -= 1
        return self.left == 0


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


def until(condition: Callable[[], bool]) -> asyncio.Task[None]:
    async def poll() -> None:
        while not condition():
            await asyncio.sleep(0.001)

    return asyncio.ensure_future(asyncio.wait_for(poll(), 30))


def test_work_is_done_piece_by_piece(pool: ThreadPoolExecutor) -> None:
    work = Pieces("a", 5)
    asyncio.run(Turns(pool, 2).run("a", work, 0, 30))
    assert work.log == ["a"] * 5


def test_a_model_never_has_all_threads_and_another_is_answered_meanwhile(pool: ThreadPoolExecutor) -> None:
    async def run() -> None:
        turns = Turns(pool, 3)
        heavy = [Pieces("heavy", 1, is_held=True) for _ in range(16)]
        tasks = [asyncio.create_task(turns.run("heavy", work, 0, 30)) for work in heavy]
        await until(lambda: turns.count_waiting("heavy") == 14)
        await turns.run("light", Pieces("light", 3), 0, 30)
        assert not any(task.done() for task in tasks)
        assert turns.count_waiting("heavy") == 14
        for work in heavy:
            work.may_go.set()
        await asyncio.gather(*tasks)

    asyncio.run(run())


def test_models_take_turns_whatever_the_length_of_their_queues(pool: ThreadPoolExecutor) -> None:
    """On the one thread that each may have beside the other: a piece of one, then a piece of the other."""

    async def run() -> list[str]:
        turns, log = Turns(pool, 2), []
        blocker, other = Pieces("-", 1, is_held=True), Pieces("-", 1, is_held=True)
        blocking = [
            asyncio.create_task(turns.run(name, work, 0, 30)) for name, work in (("blocker", blocker), ("other", other))
        ]
        await until(lambda: len(turns._running) == 2)
        tasks = [asyncio.create_task(turns.run("many", Pieces("many", 2, log), 0, 30)) for _ in range(10)]
        await until(lambda: turns.count_waiting("many") == 10)
        few = asyncio.create_task(turns.run("few", Pieces("few", 2, log), 0, 30))
        await until(lambda: turns.count_waiting("few") == 1)
        blocker.may_go.set()  # one thread is free from here on
        await asyncio.gather(few, *tasks)
        other.may_go.set()
        await asyncio.gather(*blocking)
        return log

    log = asyncio.run(run())
    assert log[:4] == ["many", "few", "many", "few"]
    assert log[4:] == ["many"] * 18


def test_requests_of_one_model_take_turns_too(pool: ThreadPoolExecutor) -> None:
    async def run() -> list[str]:
        turns, log = Turns(pool, 2), []
        first = Pieces("long", 4, log, is_held=True)
        long = asyncio.create_task(turns.run("model", first, 0, 30))
        await until(lambda: first.begun.acquire(blocking=False))
        short = asyncio.create_task(turns.run("model", Pieces("short", 1, log), 0, 30))
        await until(lambda: turns.count_waiting("model") == 1)
        first.may_go.set()
        await asyncio.gather(long, short)
        return log

    assert asyncio.run(run()) == ["long", "short", "long", "long", "long"]


def test_pieces_that_nobody_waits_for_are_not_done(pool: ThreadPoolExecutor) -> None:
    async def run() -> tuple[int, int, int]:
        turns = Turns(pool, 2)
        late, gone, queued = Pieces("late", 3, is_held=True), Pieces("gone", 3, is_held=True), Pieces("queued", 3)
        late_task = asyncio.create_task(turns.run("a", late, 0, 0.05))
        gone_task = asyncio.create_task(turns.run("b", gone, 0, 30))
        await until(lambda: len(turns._running) == 2)
        queued_task = asyncio.create_task(turns.run("a", queued, 0, 30))
        await until(lambda: turns.count_waiting("a") == 1)
        with pytest.raises(TimeoutError):
            await late_task
        for task in (gone_task, queued_task):
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        late.may_go.set()
        gone.may_go.set()
        await turns.wait_idle("a")
        await turns.wait_idle("b")
        assert not turns._waiting
        assert not turns._bytes
        return late.left, gone.left, queued.left

    assert asyncio.run(run()) == (2, 2, 3)


def test_what_a_step_raises_is_raised_and_its_thread_is_free_again(pool: ThreadPoolExecutor) -> None:
    class Failing:
        def step(self) -> bool:
            raise ValueError("no")

    async def run() -> None:
        turns = Turns(pool, 2)
        for _ in range(5):
            with pytest.raises(ValueError, match="no"):
                await turns.run("a", Failing(), 0, 30)
        await turns.run("a", Pieces("a", 1), 0, 30)

    asyncio.run(run())


def test_requests_that_would_take_too_much_memory_together_are_turned_away(pool: ThreadPoolExecutor) -> None:
    async def run() -> None:
        turns = Turns(pool, 2)
        held = [Pieces("held", 1, is_held=True) for _ in range(5)]
        tasks = [
            asyncio.create_task(turns.run(name, work, MODEL_BYTES, 30))
            for name, work in zip("abcd", held, strict=False)
        ]
        await until(lambda: len(turns._bytes) == 4)
        assert sum(turns._bytes.values()) == ALL_BYTES
        with pytest.raises(Overloaded):  # of a model that has as much as it may
            await turns.run("a", Pieces("a", 1), SMALL_BYTES + 1, 30)
        with pytest.raises(Overloaded):  # of all together
            await turns.run("e", Pieces("e", 1), SMALL_BYTES + 1, 30)
        small = asyncio.create_task(turns.run("e", held[4], SMALL_BYTES, 30))
        await until(lambda: turns.count_waiting("e") == 1)
        for work in held:
            work.may_go.set()
        await asyncio.gather(small, *tasks)
        await turns.run("a", Pieces("a", 1), MODEL_BYTES, 30)

    asyncio.run(run())


def test_idle_means_that_no_thread_computes(pool: ThreadPoolExecutor) -> None:
    async def run() -> None:
        turns = Turns(pool, 2)
        await turns.wait_idle("a")
        work = Pieces("a", 1, is_held=True)
        task = asyncio.create_task(turns.run("a", work, 0, 30))
        await until(lambda: work.begun.acquire(blocking=False))
        idle = asyncio.create_task(turns.wait_idle("a"))
        await asyncio.sleep(0)
        assert not idle.done()
        work.may_go.set()
        await asyncio.gather(task, idle)

    asyncio.run(run())


def test_two_threads_are_the_least(pool: ThreadPoolExecutor) -> None:
    """With one, no model could have fewer than all."""
    asyncio.run(Turns(pool, 1).run("a", Pieces("a", 2), 0, 30))
