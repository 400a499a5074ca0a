"""Decides which requests are traced, and exports what was recorded, in a thread of its own.

A request never waits for an export: it appends to a queue. When the queue is full, traces are dropped and counted.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import structlog

from serving.settings import SettingsError, TracesSettings
from serving.telemetry.candidate_trace import CandidateTrace
from serving.telemetry.request_trace import RequestTrace
from serving.telemetry.spans import TRACE_ID_BITS, FinishedSpan, FinishedTrace, SpanRole, format_trace_id, make_id
from serving.telemetry.trace_context import PARENT, TraceParent, parse_parent

MOST_WAITING = 4096  # traces, of about 2 kB each
BATCH_SPANS = 128  # the library encodes a batch in one go, while requests wait for the interpreter
GATHER_SECONDS = 1.0  # how long a batch waits for more spans
STOP_SECONDS = 2.0  # for what is left at the stop
LOG_SECONDS = 60.0  # between two lines about an endpoint that does not take spans

log = structlog.get_logger("serving.traces")


class SpanExporter(Protocol):
    """Sends spans to another program. One thread, except where said."""

    def export(self, spans: Sequence[FinishedSpan]) -> str | None:
        """Send spans; return why that was not possible, None if it was. Blocks for seconds at most; never raises."""
        ...

    def close(self) -> None:
        """Give up what is being sent. Any thread."""
        ...

    def find_current(self) -> TraceParent | None:
        """Return the span that an application's own tracing is in, None without one. Any thread."""
        ...


class RequestStart(NamedTuple):
    """What is known of a request's trace at its beginning.

    `trace_id` is None where the request belongs to no trace, and `trace` where it is not recorded here.
    """

    trace_id: str | None = None
    trace: RequestTrace | None = None


class RequestSampler:
    """Chooses a share of requests by chance. Event loop thread only.

    It draws how many requests come before the next chosen one, and counts down. The short way asks with `claim` before
    it is known who answers. Only a chosen request is counted then, and `count` finds it on the long way; any other is
    counted where it is answered. So each counts once, and one request takes the long way for each that is chosen.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._left = self._draw()
        self._claims = 0  # chosen on the short way, and not yet on the long one
        self._claimed_body: bytes | None = None

    def claim(self, body: bytes) -> bool:
        """Return whether a request is chosen that `count` is told of later, or `pass_over` if it is not.

        A connection asks twice for the same bytes if it knows their head: what was chosen the first time is chosen the
        second time. Another request with an equal body can be taken for it, and then only takes the long way.
        """
        claimed, self._claimed_body = self._claimed_body, None
        if claimed is not None and claimed == body:
            return True
        if self._left > 0:
            return False
        self._left += self._draw()
        self._claims += 1
        self._claimed_body = body
        return True

    def pass_over(self) -> None:
        """Count a request that was not chosen and has been answered."""
        self._left -= 1

    def count(self) -> bool:
        """Count a request on the long way, and return whether it is chosen."""
        if self._claims:
            self._claims -= 1
            return True
        if self._left > 0:
            self._left -= 1
            return False
        self._left += self._draw()
        return True

    def _draw(self) -> float:
        if self._share in (0.0, 1.0):
            return math.inf if self._share == 0 else 0
        return math.floor(math.log(1 - random.random()) / math.log1p(-self._share))  # noqa: S311 - no secret


class Tracer:
    """Begins traces, and exports those that are given back. Made in the process that uses it: it has a thread.

    `count_dropped` is told how many spans are lost, from any thread. `start` and `stop` by the owner of the process.
    """

    def __init__(self, sample: float, exporter: SpanExporter, count_dropped: Callable[[int], None]) -> None:
        self._sampler = RequestSampler(sample)
        self._exporter = exporter
        self._count_dropped = count_dropped
        self._waiting: deque[FinishedTrace] = deque()
        self._has_work = threading.Event()
        self._is_stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="serving-traces", daemon=True)
        self._lost_spans = 0
        self._log_at = -math.inf

    # --- requests: event loop thread only ----------------------------------------------------------------------------

    def wants(self, headers: Mapping[bytes, bytes], body: bytes) -> bool:
        """Say whether a prediction has to take the long way, where `begin_request` traces it; see `RequestSampler`."""
        parent = parse_parent(headers) if PARENT in headers else None
        return self._sampler.claim(body) if parent is None else parent.is_sampled

    def pass_over(self, headers: Mapping[bytes, bytes]) -> None:
        """Count a prediction that was answered without a trace, because `wants` was false."""
        if PARENT not in headers or parse_parent(headers) is None:
            self._sampler.pass_over()

    def begin_request(self, headers: Mapping[bytes, bytes], *, may_sample: bool) -> RequestStart:
        """Begin a request: its client says whether it is traced, or else, if it `may_sample`, the sampler does."""
        parent = parse_parent(headers)
        if parent is not None:
            return self._begin(parent.trace_id, parent) if parent.is_sampled else RequestStart(_format(parent))
        if may_sample and self._sampler.count():
            return self._begin(make_id(TRACE_ID_BITS), None)
        return RequestStart()

    def begin_call(self) -> RequestTrace | None:
        """Begin what an application asks of a model, as part of the span that its own tracing is in; None if that is
        not sampled, or if there is none and the sampler does not choose this call.
        """
        parent = self._exporter.find_current()
        if parent is not None:
            return RequestTrace(parent.trace_id, parent, SpanRole.INTERNAL) if parent.is_sampled else None
        return RequestTrace(make_id(TRACE_ID_BITS), None, SpanRole.INTERNAL) if self._sampler.count() else None

    def _begin(self, trace_id: int, parent: TraceParent | None) -> RequestStart:
        return RequestStart(format_trace_id(trace_id), RequestTrace(trace_id, parent))

    # --- everything: any thread --------------------------------------------------------------------------------------

    def begin_candidate(self, model: str, version: str) -> CandidateTrace:
        """Begin the trace of a candidate. All are recorded: there are few."""
        return CandidateTrace(model, version)

    def take(self, trace: FinishedTrace) -> None:
        """Export a trace soon; it does not change any more. Never waits."""
        if len(self._waiting) >= MOST_WAITING or self._is_stopping.is_set():
            self._count_dropped(trace.span_count)
            return
        self._waiting.append(trace)
        if not self._has_work.is_set():
            self._has_work.set()

    def start(self) -> None:
        """Start the thread that exports."""
        self._thread.start()

    def stop(self) -> None:
        """Export what is left, for two seconds at most; the rest is dropped. Blocks. Once, after `start` or not."""
        self._is_stopping.set()
        self._has_work.set()
        if self._thread.ident is not None:
            self._thread.join(STOP_SECONDS)
        self._exporter.close()
        lost = self._clear()
        if lost:
            log.warning("traces_lost_at_stop", spans=lost)

    # --- the thread --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        is_last = False
        while not is_last:
            self._has_work.wait()
            self._is_stopping.wait(GATHER_SECONDS)
            self._has_work.clear()
            is_last = self._is_stopping.is_set()  # what was taken before the stop is exported below
            try:
                self._export_waiting()
            except Exception:  # what comes later is exported all the same
                log.exception("traces_not_exported")

    def _export_waiting(self) -> None:
        while self._waiting:
            batch: list[FinishedTrace] = []
            size = 0
            while self._waiting and size < BATCH_SPANS:
                batch.append(self._waiting.popleft())
                size += batch[-1].span_count
            reason = self._exporter.export([span for trace in batch for span in trace.make_spans()])
            if reason is not None:
                self._note_failure(reason, size)

    def _note_failure(self, reason: str, spans: int) -> None:
        self._count_dropped(spans)
        self._lost_spans += spans
        now = time.monotonic()
        if now >= self._log_at:
            log.warning("traces_not_exported", reason=reason, lost_spans=self._lost_spans)
            self._log_at, self._lost_spans = now + LOG_SECONDS, 0

    def _clear(self) -> int:
        """Drop what was not exported, and return how many spans that were."""
        lost = 0
        while self._waiting:
            lost += self._waiting.popleft().span_count
        if lost:
            self._count_dropped(lost)
        return lost


def _format(parent: TraceParent) -> str:
    return format_trace_id(parent.trace_id)


def require_library(settings: TracesSettings) -> None:
    """Raise SettingsError if traces are asked for and OpenTelemetry, an extra, is not installed. Imports it."""
    if settings.endpoint is None:
        return
    try:
        import serving.telemetry.otlp  # noqa: F401, PLC0415  (an extra, and only for those who use it)
    except ImportError as error:
        missing = error.name or "a library"
        raise SettingsError(
            f"traces.endpoint: {missing} is not installed; pip install serving[otel], or remove the setting"
        ) from None


def make_tracer(settings: TracesSettings, register: Callable[[], Callable[[int], None]]) -> Tracer | None:
    """Return a tracer for this process, None if traces are off; its owner starts it.

    `register` is called if they are on, and returns what counts dropped spans. Raises SettingsError as above.
    """
    require_library(settings)
    if settings.endpoint is None:
        return None
    from serving.telemetry.otlp import OtlpExporter  # noqa: PLC0415

    return Tracer(settings.sample, OtlpExporter(str(settings.endpoint), settings.service), register())
