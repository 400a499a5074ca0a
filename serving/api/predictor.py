"""The one way in for predictions of all protocols: it checks the token, lets one version answer, and counts.

Protocols only read requests and write answers. HTTP and gRPC call `answer`; HTTP also `answer_now`, for predictions
that need no waiting; an application that holds a lease itself calls `answer_held`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Any

from starlette.requests import ClientDisconnect

from serving.api import problems
from serving.api.absence import explain
from serving.api.access import Access
from serving.api.answers import is_small
from serving.api.bodies import Headers
from serving.api.dialect import Call, Dialect, Refusal, Written
from serving.api.incoming import AnsweredCall, Incoming, RefusedCall, Reply_co, Respondent, Target
from serving.api.inflight import Inflight, Share
from serving.api.json_bodies.cutter import LARGE_BYTES
from serving.api.rollout_traffic import RolloutTraffic, describe_failure
from serving.api.services import AppState
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
from serving.plane.servable import Lease, Servable
from serving.plane.served_split import ServedSplit
from serving.plane.shadow import Shadow
from serving.recording.recorder import Recorder
from serving.settings import ServerSettings, TokenScope
from serving.telemetry.logging import REQUEST_ID
from serving.telemetry.metrics import Metrics

SLOW_SECONDS, SLOW_ROW_SECONDS = 1.0, 0.001  # rows of slower requests are not sampled


class Predictor:
    """Answers predictions. Event loop thread only; `state` is ``app.state``."""

    def __init__(
        self,
        state: AppState,
        settings: ServerSettings,
        access: Access,
        inflight: Inflight,
        metrics: Metrics,
        recorder: Recorder | None = None,
    ) -> None:
        self._state = state
        self._access = access
        self._is_open = access.is_open(TokenScope.PREDICT)
        self._inflight = inflight
        self._metrics = metrics
        self._recorder = recorder
        self._limits = RequestLimits.of(settings)
        self._shadow = Shadow(state, self._limits, metrics, describe_failure)
        self._rollout = RolloutTraffic(metrics, self._shadow)

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
        if split is not None:
            self._rollout.copy_now(split, call, headers, len(raw), answer)
        return answer, written

    async def answer(self, incoming: Incoming[Reply_co]) -> AnsweredCall | RefusedCall[Reply_co]:
        """Answer or refuse a request. Raises ClientDisconnect if the client has gone."""
        started = perf_counter()
        seen = Respondent()
        try:
            if not self._is_open:
                incoming.check(TokenScope.PREDICT)
            with self._inflight.share() as share:
                answer, written = await self._compute(incoming, share, seen)
        except ClientDisconnect:
            raise
        except Exception as error:  # noqa: BLE001 - every failure is answered, and known here by its version
            refusal = self._refusal_of(incoming.sharpen(error), incoming.names, seen)
            status, reply = incoming.refuse(refusal)
            self._metrics.traffic(seen.model, seen.version).record(status, 0, perf_counter() - started)
            self._rollout.note_refusal(seen, incoming, error, refusal)
            return RefusedCall(reply, status, seen.model, seen.version)
        seconds = perf_counter() - started
        self._metrics.traffic(seen.model, seen.version).record(200, answer.rows, seconds)
        self._rollout.note_answer(seen, incoming, seconds)
        if self._recorder is not None:
            self._recorder.note(answer, REQUEST_ID.get(), seconds, seen.size, seen.signature)
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
        seconds = perf_counter() - started
        traffic.record(200, answer.rows, seconds)
        if self._recorder is not None:
            self._recorder.note(answer, REQUEST_ID.get(), seconds, None, servable.signature)
        return answer

    async def _compute(self, incoming: Incoming[Reply_co], share: Share, seen: Respondent) -> tuple[Answer, Written]:
        seen.size = await incoming.receive(share)
        self._shadow.asked += 1
        self._shadow.under_way += 1
        try:
            return await self._compute_received(incoming, seen.size, seen)
        finally:
            self._shadow.under_way -= 1

    async def _compute_received(
        self, incoming: Incoming[Reply_co], size: int, seen: Respondent
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

    async def _choose(self, split: ServedSplit, incoming: Incoming[Reply_co], size: int, seen: Respondent) -> Lease:
        """Take a lease on the version that answers while requests are shared, and note that its answer counts."""
        seen.split = split
        with split.old.lease(), split.new.lease():  # reading a large body takes a while
            seen.key = await self._rollout.find_key(split, incoming, size)
            servable = split.choose(seen.key)
            seen.is_new = servable is split.new
            return take_lease(servable, self._limits, own=1)

    async def _prepare(
        self, servable: Servable, incoming: Incoming[Reply_co], size: int, seen: Respondent
    ) -> tuple[Call, Prepared]:
        """Read a body and prepare it for the model; slow steps share one thread, because each hop costs 0.1 ms."""
        if size > LARGE_BYTES:
            return await asyncio.to_thread(self._prepare_here, servable, incoming.parse, seen)
        call = seen.call = incoming.parse()
        if call.reads_slowly:
            return await asyncio.to_thread(self._prepare_here, servable, lambda: call, seen)
        return call, await prepare_off_loop(servable, call.read(servable.signature), self._limits)

    def _prepare_here(self, servable: Servable, parse: Callable[[], Call], seen: Respondent) -> tuple[Call, Prepared]:
        call = seen.call = parse()
        return call, prepare(servable, call.read(servable.signature), self._limits)

    def _refusal_of(self, error: Exception, names: Mapping[str, str], seen: Respondent) -> Refusal:
        error = explain(error, self._state, names.get("model"))
        if seen.model:
            return problems.refusal_of(error, seen.model, seen.version)
        return problems.refusal_of(error, *problems.names_of(names))


def _note(servable: Servable, answer: Answer, seconds: float) -> None:
    """Let the servable sample what it has answered, unless that took so long that nobody should compute it again."""
    if seconds < SLOW_SECONDS + answer.rows * SLOW_ROW_SECONDS:
        servable.wait -= answer.rows
        if servable.wait < 0:
            servable.sample(answer.method, answer.batch, answer.prediction)
