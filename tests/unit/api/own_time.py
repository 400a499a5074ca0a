"""Runs a scenario in a time of its own, which passes only while all of it waits: a stalled machine changes nothing."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


class _Selector(selectors.DefaultSelector):
    """Does not wait for the next timer: lets as much time pass at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None:
            self.now += max(timeout, 0)
        return super().select(None if timeout is None else 0)


def run_in_own_time(scenario: Coroutine[Any, Any, Result]) -> Result:
    """Run a scenario without threads on a loop of its own."""
    selector = _Selector()
    loop = asyncio.SelectorEventLoop(selector)
    loop.time = lambda: selector.now  # type: ignore[method-assign]
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(scenario)
