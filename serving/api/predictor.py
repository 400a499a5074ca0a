"""The one way in for predictions of all protocols: it checks the token, lets one version answer, and counts.

Protocols only read requests and write answers. HTTP and gRPC call `answer`; HTTP also `answer_now`, for predictions
that need no waiting; an application that holds a lease itself calls `answer_held`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from starlette.requests import ClientDisconnect

from serving.api import problems
from serving.api.absence import explain
from serving.api.access import Access, AccessRefused
from serving.api.answers import is_small
from serving.api.bodies import BodyTooSlow, Headers
from serving.api.dialect import Call, Dialect, Refusal, Written
from serving.api.inflight import Inflight, Share
from serving.api.json_bodies.cutter import LARGE_BYTES
from serving.api.services import AppState
from serving.domain.errors import (
    BodyTooLarge,
    DeadlineExceeded,
    NotAcceptable,
    Overloaded,
    RequestRefused,
    UnsupportedMedia,
)
from serving.domain.rollout import BadExample
from serving.domain.signature import Signature
from serving.domain.text import without_values
from serving.plane.active_reference import Asked
from serving.plane.prediction import (
    Answer,
    PredictRequest,
    Prepared,
    RequestLimits,
    compute,
    execute,
    execute_now,
    look_for_any,
    prepare,
    prepare_off_loop,
    take_lease,
)
from serving.plane.request_copy import RequestCopy
from serving.plane.servable import Lease, Servable
from serving.plane.served_split import ServedSplit
from serving.plane.shadow import Shadow
from serving.rows.client_keys import find_key
from serving.settings import ServerSettings, TokenScope
from serving.telemetry.metrics import Metrics

# Refusals that are the server's own, whichever version answers.
_OF_THE_EDGE = (AccessRefused, BodyTooLarge, BodyTooSlow, NotAcceptable, Overloaded, UnsupportedMedia)
# After these the other version is not asked: it has another load, and not the client's deadline.
_OF_ONE_SIDE = (*_OF_THE_EDGE, DeadlineExceeded)

SLOW_SECONDS, SLOW_ROW_SECONDS = 1.0, 0.001  # rows of slower requests are not sampled
SLOW = BadExample(status=200, detail="it took longer than rollout.slo_seconds")

Reply_co = TypeVar("Reply_co", covariant=True)
Target = tuple[str | None, Asked]
"""The model (None: the default one) and the version (None: the active one) that are asked for."""


class Incoming(Protocol[Reply_co]):
    """One request that a protocol has received. Event loop thread only, except `parse`.

    `names` has the asked `model` and `version`, as far as they are known, for the texts of errors.
    """

    @property
    def authorization(self) -> bytes | None:
        """The value of the header ``Authorization``."""
        ...

    @property
    def names(self) -> Mapping[str, str]:
        """See above."""
        ...

    async def receive(self, share: Share) -> int:
        """Read the whole body, counted in `share`; return how many bytes it has.

        Faults of its head are raised before anything is read.
        """
        ...

    def target(self) -> Target:
        """Return the asked model and version; call it after `receive`."""
        ...

    def parse(self) -> Call:
        """Parse the body; any thread, because a large one takes a while. Raises RequestRefused."""
        ...

    def header(self, name: bytes) -> bytes | None:
        """Return the value of a header, or of a key of metadata, None without one. `name` is in lower case."""
        ...

    def seconds_left(self) -> float | None:
        """Return how much of the client's own deadline is left, None if it has none."""
        ...

    def sharpen(self, error: Exception) -> Exception:
        """Return the error to report: a fault of the body if it says more than `error`, else `error`."""
        ...

    def refuse(self, refusal: Refusal) -> tuple[int, Reply_co]:
        """Return the status of a refusal, and the refusal in the protocol's own shape."""
        ...


class AnsweredCall(NamedTuple):
    """An answer that is ready to be sent, and the version that gave it."""

    written: Written
    model: str
    version: str


class RefusedCall(NamedTuple, Generic[Reply_co]):
    """A refusal that is ready to be sent; `model` and `version` would have answered, empty if that is unknown."""

    reply: Reply_co
    status: int
    model: str
    version: str


class _Respondent:
    """The version that would answer a request, set as soon as it is known.

    `split` is how requests are shared at that moment, where the answer counts for that. `key` is who the client is, and
    `is_new` whether the new version answers. `shadow` is set instead where the new version only gets a copy: of `call`,
    whose body has `size` bytes, as soon as it is parsed, and of the `answer`, as soon as it is computed.
    """

    __slots__ = ("answer", "call", "is_new", "key", "model", "shadow", "size", "split", "version")

    def __init__(self) -> None:
        self.model, self.version = "", ""
        self.split: ServedSplit | None = None
        self.key: bytes | None = None
        self.is_new = False
        self.shadow: ServedSplit | None = None
        self.call: Call | None = None
        self.size = 0
        self.answer: Answer | None = None

    def set(self, servable: Servable) -> None:
        """Note what answers."""
        self.model, self.version = servable.id.model, servable.id.version


class Predictor:
    """Answers predictions. Event loop thread only; `state` is ``app.state``."""

    def __init__(
        self, state: AppState, settings: ServerSettings, access: Access, inflight: Inflight, metrics: Metrics
    ) -> None:
        self._state = state
        self._access = access
        self._is_open = access.is_open(TokenScope.PREDICT)
        self._inflight = inflight
        self._metrics = metrics
        self._limits = RequestLimits.of(settings)
        self._shadow = Shadow(state, self._limits, metrics, _describe_failure)

    def answer_now(
        self, dialect: Dialect, target: Target, params: Mapping[str, str], headers: Headers, raw: bytes
    ) -> tuple[Answer, Written] | None:
        """Return an answer and its body if that needs no waiting, else None.

        Raises the errors that `answer` turns into refusals, and counts nothing then.
        """
        if not self._is_open:
            self._access.check(TokenScope.PREDICT, headers.get(b"authorization"))
        started = perf_counter()
        self._shadow.asked += 1
        servable, split = look_for_any(self._state, self._limits, *target)
        if not servable.engine.is_immediate or (split is not None and not split.split.is_shadow):
            return None  # a choice between two versions is made once: what follows an error here would choose again
        dialect.check_head(headers)
        call = dialect.parse(params, headers, raw)
        if call.reads_slowly or call.writes_slowly:
            return None
        answer = execute_now(servable, call.read(servable.signature), self._limits)
        if answer is None or not is_small(answer):
            return None
        written = call.write(answer, servable.signature)
        servable.wait -= answer.rows
        if servable.wait < 0:
            servable.sample(answer.method, answer.batch, answer.prediction)
        self._metrics.traffic(answer.model, answer.version).record(200, answer.rows, perf_counter() - started)
        if split is not None and self._shadow.has_room(split):
            key = None if split.header is None else headers.get(split.header)
            self._shadow.offer(RequestCopy(split, call.read, False, len(raw), answer, key))
        return answer, written

    async def answer(self, incoming: Incoming[Reply_co]) -> AnsweredCall | RefusedCall[Reply_co]:
        """Answer or refuse a request. Raises ClientDisconnect if the client has gone."""
        started = perf_counter()
        seen = _Respondent()
        try:
            if not self._is_open:
                self._access.check(TokenScope.PREDICT, incoming.authorization)
            with self._inflight.share() as share:
                answer, written = await self._compute(incoming, share, seen)
        except ClientDisconnect:
            raise
        except Exception as error:  # noqa: BLE001 - every failure is answered, and known here by its version
            refusal = self._refusal_of(incoming.sharpen(error), incoming.names, seen)
            status, reply = incoming.refuse(refusal)
            self._metrics.traffic(seen.model, seen.version).record(status, 0, perf_counter() - started)
            if seen.split is not None and not isinstance(error, _OF_THE_EDGE):
                self._count_in_split(seen.split, seen, refusal)
            elif seen.shadow is not None and not isinstance(error, _OF_ONE_SIDE):
                self._offer_copy(seen.shadow, seen, incoming)
            return RefusedCall(reply, status, seen.model, seen.version)
        seconds = perf_counter() - started
        self._metrics.traffic(seen.model, seen.version).record(200, answer.rows, seconds)
        if seen.split is not None:
            slo_seconds = seen.split.split.slo_seconds
            is_slow = slo_seconds is not None and seconds > slo_seconds
            self._count_in_split(seen.split, seen, SLOW if is_slow else None)
        elif seen.shadow is not None:
            self._offer_copy(seen.shadow, seen, incoming)
        return AnsweredCall(written, seen.model, seen.version)

    async def answer_held(self, servable: Servable, rows: list[Any], method: str | None) -> Answer:
        """Answer rows with a servable that the caller holds; raises what `execute` raises. Counted as a request."""
        started = perf_counter()
        traffic = self._metrics.traffic(servable.id.model, servable.id.version)
        self._shadow.asked += 1
        self._shadow.under_way += 1
        try:
            answer = await execute(servable, PredictRequest(rows, method), self._limits)
        except Exception as error:
            traffic.record(problems.kind_of(error).status, 0, perf_counter() - started)
            raise
        finally:
            self._shadow.under_way -= 1
        _note(servable, answer, perf_counter() - started)
        traffic.record(200, answer.rows, perf_counter() - started)
        return answer

    async def _compute(self, incoming: Incoming[Reply_co], share: Share, seen: _Respondent) -> tuple[Answer, Written]:
        seen.size = await incoming.receive(share)
        self._shadow.asked += 1
        self._shadow.under_way += 1
        try:
            return await self._compute_received(incoming, seen.size, seen)
        finally:
            self._shadow.under_way -= 1

    async def _compute_received(
        self, incoming: Incoming[Reply_co], size: int, seen: _Respondent
    ) -> tuple[Answer, Written]:
        servable, split = look_for_any(self._state, self._limits, *incoming.target())
        if split is not None and split.split.is_shadow:
            seen.shadow, split = split, None
        held = take_lease(servable, self._limits) if split is None else await self._choose(split, incoming, size, seen)
        with held as servable:
            seen.set(servable)
            signature = servable.signature
            call, ready = await self._prepare(servable, incoming, size, seen)
            left, most = incoming.seconds_left(), self._limits.deadline_seconds
            began = perf_counter()
            answer = await compute(servable, ready, most if left is None else max(min(left, most), 0.0))
            seen.answer = answer
            _note(servable, answer, perf_counter() - began)
        if is_small(answer) and not call.writes_slowly:
            return answer, call.write(answer, signature)
        return answer, await asyncio.to_thread(call.write, answer, signature)

    async def _choose(self, split: ServedSplit, incoming: Incoming[Reply_co], size: int, seen: _Respondent) -> Lease:
        """Take a lease on the version that answers while requests are shared, and note that its answer counts."""
        seen.split = split
        with split.old.lease(), split.new.lease():  # reading a large body takes a while
            if split.header is not None:
                seen.key = incoming.header(split.header)
            elif split.column is not None:
                seen.key = await self._read_key(split.old.signature, split.column, incoming, size)
            servable = split.choose(seen.key)
            seen.is_new = servable is split.new
            return take_lease(servable, self._limits, own=1)

    async def _read_key(
        self, signature: Signature, column: str, incoming: Incoming[Reply_co], size: int
    ) -> bytes | None:
        """Return what the first row says who the client is; None also for a body that cannot be read."""

        def read() -> bytes | None:
            try:
                return find_key(incoming.parse().read(signature).rows, signature, column)
            except RequestRefused:
                return None

        return await asyncio.to_thread(read) if size > LARGE_BYTES else read()

    def _count_in_split(self, split: ServedSplit, seen: _Respondent, problem: Refusal | BadExample | None) -> None:
        """Count an answer for the judge of the new version; `problem` is what is wrong with a bad one."""
        model, number = seen.model, split.split.number
        self._metrics.count_in_split(model, number, seen.key, is_new=seen.is_new, is_bad=problem is not None)
        if problem is None or not seen.is_new:
            return
        if isinstance(problem, Refusal):
            problem = _make_example(problem, split)
        self._metrics.note_bad_answer(model, number, problem)

    def _offer_copy(self, split: ServedSplit, seen: _Respondent, incoming: Incoming[Reply_co]) -> None:
        """Let the new version answer what the active one has answered or refused, once nothing else is to be done."""
        if seen.call is None or not self._shadow.has_room(split):  # without a call no version can read it
            return
        is_slow = seen.call.reads_slowly or seen.size > LARGE_BYTES
        key = None if split.header is None else incoming.header(split.header)
        self._shadow.offer(RequestCopy(split, seen.call.read, is_slow, seen.size, seen.answer, key))

    async def _prepare(
        self, servable: Servable, incoming: Incoming[Reply_co], size: int, seen: _Respondent
    ) -> tuple[Call, Prepared]:
        """Read a body and prepare it for the model; slow steps share one thread, because each hop costs 0.1 ms."""
        if size > LARGE_BYTES:
            return await asyncio.to_thread(self._prepare_here, servable, incoming.parse, seen)
        call = seen.call = incoming.parse()
        if call.reads_slowly:
            return await asyncio.to_thread(self._prepare_here, servable, lambda: call, seen)
        return call, await prepare_off_loop(servable, call.read(servable.signature), self._limits)

    def _prepare_here(self, servable: Servable, parse: Callable[[], Call], seen: _Respondent) -> tuple[Call, Prepared]:
        call = seen.call = parse()
        return call, prepare(servable, call.read(servable.signature), self._limits)

    def _refusal_of(self, error: Exception, names: Mapping[str, str], seen: _Respondent) -> Refusal:
        error = explain(error, self._state, names.get("model"))
        if seen.model:
            return problems.refusal_of(error, seen.model, seen.version)
        return problems.refusal_of(error, *problems.names_of(names))


def _describe_failure(error: Exception, split: ServedSplit) -> BadExample:
    """Return what is shown of an error with which the new version of a split has failed."""
    its = split.new.id
    return _make_example(problems.refusal_of(error, its.model, its.version), split)


def _make_example(refusal: Refusal, split: ServedSplit) -> BadExample:
    names = {feature.name for feature in split.new.signature.features}
    return BadExample(status=refusal.status, detail=without_values(refusal.detail, names))


def _note(servable: Servable, answer: Answer, seconds: float) -> None:
    """Let the servable sample what it has answered, unless that took so long that nobody should compute it again."""
    if seconds < SLOW_SECONDS + answer.rows * SLOW_ROW_SECONDS:
        servable.wait -= answer.rows
        if servable.wait < 0:
            servable.sample(answer.method, answer.batch, answer.prediction)
