"""Share the threads that compute predictions between models, which take turns piece by piece.

A piece is short and is never interrupted. When it is done, its work goes to the back of its model's queue, and its
model to the back of all models: a model with a thousand pieces delays another one by one piece at most. No model uses
all threads at the same time.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Hashable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from typing import Protocol

from serving.domain.errors import Overloaded

LEAST_THREADS = 2
# bytes for rows and answers of the requests that wait or are computed: of one model, and of all models together
MODEL_BYTES = 256 << 20
ALL_BYTES = 1 << 30
SMALL_BYTES = 1 << 20  # a request as small as this may always wait, even when others take all the bytes


def count_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def make_turns() -> Turns:
    """Return turns on threads of their own: one more than this process has cores, as one model may have all but one.

    Whoever calls this shuts the executor down.
    """
    threads = max(LEAST_THREADS, count_cores() + 1)
    return Turns(ThreadPoolExecutor(threads, "serving-predict"), threads)


class Work(Protocol):
    """Something that is done piece by piece."""

    def step(self) -> bool:
        """Do the next piece; returns whether it was the last. Runs in a thread, never in two at a time."""
        ...


class _Job:
    """One piece of work on its way, and the future that its caller waits for."""

    def __init__(self, owner: Hashable, work: Work, nbytes: int, done: asyncio.Future[None]) -> None:
        self.owner, self.work, self.nbytes, self.done = owner, work, nbytes, done


class Turns:
    """Runs work of many owners on the `threads` threads of `executor`. Event loop thread only."""

    def __init__(self, executor: Executor, threads: int) -> None:
        self.executor = executor
        self._threads = max(threads, LEAST_THREADS)
        self._waiting: dict[Hashable, deque[_Job]] = {}
        self._running: dict[Hashable, int] = {}
        self._bytes: dict[Hashable, int] = {}
        self._idle: dict[Hashable, asyncio.Event] = {}

    async def run(self, owner: Hashable, work: Work, nbytes: int, deadline_seconds: float) -> None:
        """Do all of `work`, which takes `nbytes` of memory until then; raises what its steps raise.

        Raises Overloaded when waiting work takes too much memory already, TimeoutError at the deadline. Then, and when
        the caller is cancelled, the remaining pieces are not done.
        """
        self._require_room(owner, nbytes)
        job = _Job(owner, work, nbytes, asyncio.get_running_loop().create_future())
        self._bytes[owner] = self._bytes.get(owner, 0) + nbytes
        self._waiting.setdefault(owner, deque()).append(job)
        self._dispatch_jobs()
        try:
            await asyncio.wait_for(job.done, deadline_seconds)
        finally:
            self._end(job)

    async def wait_idle(self, owner: Hashable) -> None:
        """Wait until no thread computes anything of this owner."""
        if owner in self._running:
            await self._idle.setdefault(owner, asyncio.Event()).wait()

    def count_waiting(self, owner: Hashable) -> int:
        """Return how many requests of this owner wait for a thread."""
        return len(self._waiting.get(owner, ()))

    def _require_room(self, owner: Hashable, nbytes: int) -> None:
        own, total = self._bytes.get(owner, 0), sum(self._bytes.values())
        is_full = (own > 0 and own + nbytes > MODEL_BYTES) or total + nbytes > ALL_BYTES
        if is_full and nbytes > SMALL_BYTES:
            raise Overloaded("the server is still busy with earlier, larger requests; try again shortly")

    def _dispatch_jobs(self) -> None:
        """Give free threads to the owners in turn, each for its oldest work."""
        while (owner := self._choose_owner()) is not None:
            queue = self._waiting.pop(owner)
            job = queue.popleft()
            if queue:
                self._waiting[owner] = queue  # behind all others
            self._start(job)

    def _choose_owner(self) -> Hashable | None:
        if sum(self._running.values()) >= self._threads:
            return None
        return next((owner for owner in self._waiting if self._running.get(owner, 0) < self._threads - 1), None)

    def _start(self, job: _Job) -> None:
        try:
            self.executor.submit(_run_step, job, self, asyncio.get_running_loop())
        except RuntimeError:
            job.done.set_exception(Overloaded("the server is stopping; ask another one"))
            return
        self._running[job.owner] = self._running.get(job.owner, 0) + 1

    def take_back(self, job: _Job, is_over: bool, error: Exception | None) -> None:
        """Go on after a piece is done; called on the loop by the thread that did it."""
        owner = job.owner
        self._running[owner] -= 1
        if not self._running[owner]:
            del self._running[owner]
            if (idle := self._idle.pop(owner, None)) is not None:
                idle.set()
        if not job.done.done():
            if error is not None:
                job.done.set_exception(error)
            elif is_over:
                job.done.set_result(None)
            else:
                self._waiting.setdefault(owner, deque()).append(job)
        self._dispatch_jobs()

    def _end(self, job: _Job) -> None:
        """Forget work that is done, or that no caller waits for."""
        queue = self._waiting.get(job.owner)
        if queue is not None and job in queue:
            queue.remove(job)
            if not queue:
                del self._waiting[job.owner]
        left = self._bytes.pop(job.owner, 0) - job.nbytes
        if left > 0:
            self._bytes[job.owner] = left


def _run_step(job: _Job, turns: Turns, loop: asyncio.AbstractEventLoop) -> None:
    """Do one piece in a thread, and have the loop go on."""
    is_over, error = True, None
    try:
        is_over = job.work.step()
    except Exception as caught:  # noqa: BLE001  (the caller that waits gets it)
        error = caught
    with suppress(RuntimeError):  # the loop is closed: nothing waits any more
        loop.call_soon_threadsafe(turns.take_back, job, is_over, error)
