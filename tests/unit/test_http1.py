"""Deadlines: those who take too long are told, once, in order, by one timer; the others are not."""

from __future__ import annotations

import asyncio

from serving.http1.deadlines import Deadlines
from tests.fakes import run


class Slow:
    """Remembers when it was told."""

    def __init__(self, told: list[Slow]) -> None:
        self._told = told

    def on_overdue(self) -> None:
        """Be told."""
        self._told.append(self)


def test_who_takes_too_long_is_told_once_and_the_others_are_not() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        told: list[Slow] = []
        deadlines = Deadlines(loop, 0.04)
        slow, quick, again = Slow(told), Slow(told), Slow(told)
        deadlines.end(quick)  # nobody minds
        for one in (slow, quick, again):
            deadlines.begin(one)
        deadlines.end(quick)
        began = loop.time()
        while slow not in told:
            deadlines.begin(again)  # its time begins anew
            await asyncio.sleep(0.005)
        assert loop.time() - began >= 0.04
        assert (told, again in deadlines, slow in deadlines) == ([slow], True, False)
        while again not in told:
            await asyncio.sleep(0.005)
        assert told == [slow, again]
        deadlines.begin(slow)  # the timer was at rest, and begins again
        while len(told) < 3:
            await asyncio.sleep(0.005)

    run(scenario())


def test_one_that_asks_again_while_it_is_told_is_told_again() -> None:
    async def scenario() -> None:
        deadlines = Deadlines(asyncio.get_running_loop(), 0.02)
        times = []

        class Stubborn:
            def on_overdue(self) -> None:
                times.append(1)
                deadlines.begin(self)

        deadlines.begin(Stubborn())
        while len(times) < 3:
            await asyncio.sleep(0.005)

    run(scenario())


def test_no_timer_is_left_when_there_is_nobody_to_look_after() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        calls = []
        original = loop.call_later
        loop.call_later = lambda *args, **kwargs: calls.append(args[0]) or original(*args, **kwargs)  # type: ignore
        told: list[Slow] = []
        deadlines = Deadlines(loop, 0.02)
        for _ in range(100):
            one = Slow(told)
            deadlines.begin(one)
            deadlines.end(one)
        assert len(calls) == 1

    run(scenario())
