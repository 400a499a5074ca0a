"""The short way: answers a prediction that has arrived whole, without a scope, a task or a framework."""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter

from serving.api.bodies import Headers
from serving.api.dialect import Dialect
from serving.api.incoming import Target
from serving.api.json_bodies.cutter import LARGE_BYTES
from serving.api.origins import ORIGIN, SITE
from serving.api.paths import prediction_of
from serving.api.predictor import Predictor
from serving.api.problems import kind_of
from serving.api.request_log import RequestLog
from serving.recording.recorder import Recorder
from serving.settings import ServerSettings
from serving.telemetry.metrics import Metrics

MOST_PATHS = 4096
# longer paths are not kept: clients choose the length, and two names of 100 characters fit
MOST_PATH_CHARACTERS = 512


class Shortcut:
    """Answers predictions that need no waiting and succeed; all others are left to the long way, which begins anew.

    Event loop thread only. If successful requests are logged, all requests go the long way, which writes the log.
    """

    def __init__(
        self,
        dialects: Mapping[str, Dialect],
        settings: ServerSettings,
        predictor: Predictor,
        requests: RequestLog,
        metrics: Metrics,
        recorder: Recorder | None = None,
    ) -> None:
        self._dialects = dialects
        self._most_bytes = min(int(settings.max_body_mb * (1 << 20)), LARGE_BYTES)
        self._answer_now = predictor.answer_now
        self._ids = requests.ids
        self._metrics = metrics
        self._recorder = recorder
        self._is_open = not requests.sample
        self._calls: dict[str, tuple[Dialect, Target, dict[str, str]] | None] = {}

    def respond(self, path: str, headers: Headers, raw: bytes) -> tuple[bytes, bytes] | None:
        """Return header lines (each with its end) and body of a 200, or None if the long way has to answer."""
        try:
            call = self._calls[path]
        except KeyError:
            call = self._remember(path)
        if call is None or not self._is_open or ORIGIN in headers or SITE in headers:
            return None
        if len(raw) > self._most_bytes or b"content-encoding" in headers:
            return None
        dialect, target, params = call
        recorder = self._recorder
        began = 0.0 if recorder is None else perf_counter()
        try:
            found = self._answer_now(dialect, target, params, headers, raw)
        except Exception as error:  # noqa: BLE001 - it happens again on the long way, and is answered there
            self._metrics.count_fallback(kind_of(error).slug)
            return None
        if found is None:
            return None
        answer, written = found
        head = (
            b"content-type: %b\r\ncontent-length: %d\r\nx-content-type-options: nosniff\r\n"
            b"x-model-name: %b\r\nx-model-version: %b\r\n%bx-request-id: %b\r\n"
        )
        names = answer.model.encode(), answer.version.encode()
        request_id = self._ids.of(headers)
        more = b"".join([b"%b: %b\r\n" % header for header in written.headers]) if written.headers else b""
        body = written.body
        if recorder is not None:
            recorder.note(answer, request_id, perf_counter() - began, len(raw))
        return head % (written.media_type, len(body), *names, more, request_id), body

    def _remember(self, path: str) -> tuple[Dialect, Target, dict[str, str]] | None:
        found = prediction_of(path)
        call = None
        if found is not None:
            protocol, params = found
            dialect = self._dialects[protocol]
            call = (dialect, dialect.target(params), params)
        if len(path) <= MOST_PATH_CHARACTERS:
            if len(self._calls) >= MOST_PATHS:
                self._calls.clear()
            self._calls[path] = call
        return call
