"""Lets new versions answer copies of requests that the old ones have answered, and compares both: nobody sees it.

A shadow never delays, fails or changes an answer. So nothing waits for it, and it has the quiet moments only: those in
which this process answers nothing, and was asked nothing for a while. It has no thread of low priority, which would
sleep with the interpreter lock while others have the core, and with it every request (decision 50). What it keeps is
bounded: a copy for which there is no room, or no quiet moment in time, is dropped and counted.

How long a new version takes is not judged here: it computes when nothing else does.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import structlog

from serving.domain.answer_pair import AnswerPair
from serving.domain.errors import Overloaded
from serving.domain.rollout import BadExample
from serving.plane.active_reference import HoldsActive
from serving.plane.prediction import Answer, RequestLimits, compute, prepare_off_loop
from serving.plane.request_copy import RequestCopy
from serving.plane.served_split import ServedSplit
from serving.rows.client_keys import find_key
from serving.rows.compare_answers import compare_answers
from serving.rows.conversion import INLINE_ROWS

MOST_COPIES = 64  # of one model, and what they may take: bodies and answers
MOST_BYTES = 4 << 20
MOST_WAIT_SECONDS = 2.0
QUIET_SECONDS = 0.002
MOST_PAUSE_SECONDS = 0.02  # between two looks for a quiet moment, while there is none
LOOK_SECONDS = 0.05  # until a copy that is computed hears that the shadow has ended
NOT_FINITE = BadExample(status=200, detail="a number that is not finite where the active version gave one")

log = structlog.get_logger("serving.plane")


class PairCounts(Protocol):
    """Where pairs are counted: see `serving.telemetry.metrics.Metrics`."""

    def count_pair(self, model: str, number: int, key: bytes | None, pair: AnswerPair) -> None:
        """Count a request that both versions have answered."""
        ...

    def count_dropped(self, model: str, number: int, copies: int) -> None:
        """Count copies that were dropped."""
        ...

    def note_bad_answer(self, model: str, number: int, example: BadExample) -> None:
        """Keep an example of what the new version does wrong."""
        ...


class Shadow:
    """All shadows of a process. Event loop thread only; no method waits or raises.

    Whoever answers requests adds to `asked` for each, and keeps `under_way` at the number of those that wait for their
    answer. `describe` says what is shown of an error with which the new version of a split fails.
    """

    def __init__(
        self,
        state: HoldsActive,
        limits: RequestLimits,
        counts: PairCounts,
        describe: Callable[[Exception, ServedSplit], BadExample],
    ) -> None:
        self.state = state
        self.limits = limits
        self.counts = counts
        self.describe = describe
        self.asked = 0
        self.under_way = 0
        self._by_model: dict[str, _ShadowOfModel] = {}

    def has_room(self, split: ServedSplit) -> bool:
        """Whether a copy may be offered. If not it counts as dropped: on a busy server that is the usual case."""
        found = self._by_model.get(split.new.id.model)
        if found is None or found.split is not split or len(found.copies) < MOST_COPIES:
            return True
        found.dropped += 1
        return False

    def offer(self, copy: RequestCopy) -> None:
        """Let the new version answer a copy in a quiet moment, or drop it: once the answer is on its way."""
        with suppress(RuntimeError):  # without a running loop
            asyncio.get_running_loop().call_soon(self._take, copy)

    def _take(self, copy: RequestCopy) -> None:
        try:
            found = self._by_model.get(copy.split.new.id.model)
            if found is None or found.split is not copy.split:
                found = _ShadowOfModel(self, copy.split)
            if found.take(copy):
                self._by_model[copy.split.new.id.model] = found
        except Exception:  # a request that has been answered must not fail because of its copy
            log.exception("shadow_failed")

    def forget(self, split: ServedSplit) -> None:
        """Hold no servable of a split of which there are no copies."""
        found = self._by_model.get(split.new.id.model)
        if found is not None and found.split is split:
            del self._by_model[split.new.id.model]


class _ShadowOfModel:
    """The copies of one split. Its task runs while there are any, and ends with the split."""

    def __init__(self, shadow: Shadow, split: ServedSplit) -> None:
        self.split = split
        self._shadow = shadow
        self._loop = asyncio.get_running_loop()
        self.copies: deque[tuple[float, int, RequestCopy]] = deque()
        self.dropped = 0  # that are not counted yet
        self._nbytes = 0
        self._task: asyncio.Task[None] | None = None
        self._watch: asyncio.TimerHandle

    def take(self, copy: RequestCopy) -> bool:
        """Keep a copy until a quiet moment, or drop it if there is no room; returns whether it is kept."""
        nbytes = copy.measure_bytes()
        if len(self.copies) >= MOST_COPIES or self._nbytes + nbytes > MOST_BYTES:
            self.dropped += 1
            if self._task is None:
                self._count_dropped()
            return False
        self.copies.append((self._loop.time(), nbytes, copy.without_views()))
        self._nbytes += nbytes
        if self._task is None:
            self._task = self._loop.create_task(self._run(), name=f"shadow of {self.split.new.id.model}")
        return True

    @property
    def _is_wanted(self) -> bool:
        """Whether the split holds still."""
        found = self._shadow.state.active.models.get(self.split.new.id.model)
        served = None if found is None else found.split
        return (
            served is not None
            and served.split.number == self.split.split.number
            and served.split.is_shadow
            and served.new is self.split.new
        )

    async def _run(self) -> None:
        try:
            asked = -1  # how many requests there were when the moment began that may be quiet
            pause = 0.0
            while self.copies and self._is_wanted:
                if asked != self._shadow.asked or self._shadow.under_way:
                    await asyncio.sleep(pause)
                    asked = self._shadow.asked
                    await asyncio.sleep(QUIET_SECONDS)
                    pause = min(2 * pause + QUIET_SECONDS, MOST_PAUSE_SECONDS)
                    self._drop_old_ones()
                    continue
                pause = 0.0
                _, nbytes, copy = self.copies.popleft()
                self._nbytes -= nbytes
                await self._answer_while_wanted(copy)
                await asyncio.sleep(0)  # what has arrived meanwhile is asked first
        except Exception:
            log.exception("shadow_failed", model=self.split.new.id.model)
        finally:
            self._count_dropped()
            self._task = None
            self.copies.clear()
            self._nbytes = 0
            self._shadow.forget(self.split)

    def _drop_old_ones(self) -> None:
        oldest = self._loop.time() - MOST_WAIT_SECONDS
        while self.copies and self.copies[0][0] < oldest:
            _, nbytes, _ = self.copies.popleft()
            self._nbytes -= nbytes
            self.dropped += 1
        self._count_dropped()

    def _count_dropped(self) -> None:
        dropped, self.dropped = self.dropped, 0
        if dropped:
            self._shadow.counts.count_dropped(self.split.new.id.model, self.split.split.number, dropped)

    async def _answer_while_wanted(self, copy: RequestCopy) -> None:
        """Answer a copy, and break off when the split ends: a version that hangs must be free to go."""
        self._watch = self._loop.call_later(LOOK_SECONDS, self._break_off_if_ended)
        try:
            await self._answer(copy)
        finally:
            self._watch.cancel()

    def _break_off_if_ended(self) -> None:
        self._count_dropped()
        if self._is_wanted:
            self._watch = self._loop.call_later(LOOK_SECONDS, self._break_off_if_ended)
        elif self._task is not None:
            self._task.cancel()

    async def _answer(self, copy: RequestCopy) -> None:
        new, limits = self.split.new, self._shadow.limits
        answer: Answer | None = None
        failure: Exception | None = None
        with new.lease():
            try:
                request = (
                    await asyncio.to_thread(copy.read, new.signature) if copy.is_slow else copy.read(new.signature)
                )
                ready = await prepare_off_loop(new, request, limits)
                answer = await compute(new, ready, limits.deadline_seconds)
            except Overloaded:
                self.dropped += 1
                return
            except Exception as error:  # noqa: BLE001 - it is what the client would have got
                failure = error
        if answer is not None:
            new.wait -= answer.rows
            if new.wait < 0:
                new.sample(answer.method, answer.batch, answer.prediction)  # for the spread of its answers
        key = copy.key if copy.key is not None else await self._find_key(copy)
        self._count(key, await self._compare(answer, copy.answer), failure)

    async def _find_key(self, copy: RequestCopy) -> bytes | None:
        column, signature = self.split.column, self.split.old.signature
        if column is None:
            return None

        def read() -> bytes | None:
            try:
                return find_key(copy.read(signature).rows, signature, column)
            except Exception:  # noqa: BLE001 - rows that cannot be read have no key
                return None

        return await asyncio.to_thread(read) if copy.is_slow else read()

    async def _compare(self, new: Answer | None, old: Answer | None) -> AnswerPair:
        if new is None or old is None:
            return AnswerPair(is_new_bad=new is None, is_old_bad=old is None)
        compared = new.outputs, old.outputs, self.split.old.signature
        if old.rows > INLINE_ROWS:
            return await asyncio.to_thread(compare_answers, *compared)
        return compare_answers(*compared)

    def _count(self, key: bytes | None, pair: AnswerPair, failure: Exception | None) -> None:
        shadow, model, number = self._shadow, self.split.new.id.model, self.split.split.number
        shadow.counts.count_pair(model, number, key, pair)
        if pair.is_new_bad and not pair.is_old_bad:
            example = NOT_FINITE if failure is None else shadow.describe(failure, self.split)
            shadow.counts.note_bad_answer(model, number, example)
