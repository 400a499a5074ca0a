"""What a rollout gets of requests: who the client is, what came of an answer that counts, copies for a shadow."""

from __future__ import annotations

import asyncio

from serving.api import problems
from serving.api.access import AccessRefused
from serving.api.bodies import BodyTooSlow, Headers
from serving.api.dialect import Call, Refusal
from serving.api.incoming import Incoming, Reply_co, Respondent
from serving.api.json_bodies.cutter import LARGE_BYTES
from serving.domain.errors import (
    BodyTooLarge,
    DeadlineExceeded,
    NotAcceptable,
    Overloaded,
    RequestRefused,
    UnsupportedMedia,
)
from serving.domain.rollout import BadExample
from serving.domain.text import without_values
from serving.plane.prediction import Answer
from serving.plane.request_copy import RequestCopy
from serving.plane.served_split import ServedSplit
from serving.plane.shadow import Shadow
from serving.rows.client_keys import find_key
from serving.telemetry.metrics import Metrics

# Refusals that are the server's own, whichever version answers.
_OF_THE_EDGE = (AccessRefused, BodyTooLarge, BodyTooSlow, NotAcceptable, Overloaded, UnsupportedMedia)
# After these the other version is not asked: it has another load, and not the client's deadline.
_OF_ONE_SIDE = (*_OF_THE_EDGE, DeadlineExceeded)

SLOW = BadExample(status=200, detail="it took longer than rollout.slo_seconds")


class RolloutTraffic:
    """Counts answers for the judge, and offers copies to a shadow. Event loop thread only; nothing raises or waits."""

    def __init__(self, metrics: Metrics, shadow: Shadow) -> None:
        self._metrics = metrics
        self._shadow = shadow

    async def find_key(self, split: ServedSplit, incoming: Incoming[Reply_co], size: int) -> bytes | None:
        """Return who the client is, None if nothing says so; a large body is read in a worker thread."""
        if split.header is not None:
            return incoming.header(split.header)
        if split.column is None:
            return None
        signature, column = split.old.signature, split.column

        def read() -> bytes | None:
            try:
                return find_key(incoming.parse().read(signature).rows, signature, column)
            except RequestRefused:
                return None

        return await asyncio.to_thread(read) if size > LARGE_BYTES else read()

    def note_answer(self, seen: Respondent, incoming: Incoming[Reply_co], seconds: float) -> None:
        """Take in a request that was answered, and how long that took."""
        if seen.split is not None:
            slo_seconds = seen.split.split.slo_seconds
            is_slow = slo_seconds is not None and seconds > slo_seconds
            self._count(seen.split, seen, SLOW if is_slow else None)
        elif seen.shadow is not None:
            self._copy(seen.shadow, seen, incoming)

    def note_refusal(self, seen: Respondent, incoming: Incoming[Reply_co], error: Exception, refusal: Refusal) -> None:
        """Take in a request that was refused, and what the client is told."""
        if seen.split is not None and not isinstance(error, _OF_THE_EDGE):
            self._count(seen.split, seen, refusal)
        elif seen.shadow is not None and not isinstance(error, _OF_ONE_SIDE):
            self._copy(seen.shadow, seen, incoming)

    def copy_now(self, split: ServedSplit, call: Call, headers: Headers, size: int, answer: Answer) -> None:
        """Offer a copy of a request that was answered the short way."""
        if self._shadow.has_room(split):
            key = None if split.header is None else headers.get(split.header)
            self._shadow.offer(RequestCopy(split, call.read, False, size, answer, key))

    def _count(self, split: ServedSplit, seen: Respondent, problem: Refusal | BadExample | None) -> None:
        """Count an answer for the judge of the new version; `problem` is what is wrong with a bad one."""
        model, number = seen.model, split.split.number
        self._metrics.count_in_split(model, number, seen.key, is_new=seen.is_new, is_bad=problem is not None)
        if problem is None or not seen.is_new:
            return
        if isinstance(problem, Refusal):
            problem = _make_example(problem, split)
        self._metrics.note_bad_answer(model, number, problem)

    def _copy(self, split: ServedSplit, seen: Respondent, incoming: Incoming[Reply_co]) -> None:
        """Let the new version answer what the active one has answered or refused, once nothing else is to be done."""
        if seen.call is None or not self._shadow.has_room(split):  # without a call no version can read it
            return
        is_slow = seen.call.reads_slowly or seen.size > LARGE_BYTES
        key = None if split.header is None else incoming.header(split.header)
        self._shadow.offer(RequestCopy(split, seen.call.read, is_slow, seen.size, seen.answer, key))


def describe_failure(error: Exception, split: ServedSplit) -> BadExample:
    """Return what is shown of an error with which the new version of a split has failed."""
    its = split.new.id
    return _make_example(problems.refusal_of(error, its.model, its.version), split)


def _make_example(refusal: Refusal, split: ServedSplit) -> BadExample:
    names = {feature.name for feature in split.new.signature.features}
    return BadExample(status=refusal.status, detail=without_values(refusal.detail, names))
