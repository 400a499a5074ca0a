"""What is put around every call: its id, its token, its log line, its metrics, and an answer whatever happens."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from random import random
from time import perf_counter
from typing import Any

import grpc  # type: ignore[import-untyped]
import structlog

from serving.api import problems
from serving.api.absence import explain
from serving.api.dialect import Refusal
from serving.api.grpc import statuses
from serving.api.grpc.messages import MessageReader
from serving.api.services import AppState
from serving.settings import TokenScope
from serving.telemetry.logging import REQUEST_ID

CLIENT_GONE = 499

log = structlog.get_logger("serving.access")


@dataclass(slots=True)
class GrpcCall:
    """One call under way. What it asks for and what answers is filled in as soon as it is known.

    `seconds_left` says how much of the client's own deadline is left now, None when it has none.
    """

    peer: str
    seconds_left: Callable[[], float | None]
    asked: tuple[str | None, str | None] = (None, None)
    model: str = ""
    version: str = ""
    rows: int = 0

    def ask(self, model: str, version: str) -> tuple[str | None, str | None]:
        """Note what is asked for; empty names, which stand for the default model and the active version, are None."""
        self.asked = (model or None, version or None)
        return self.asked

    @property
    def actor(self) -> str:
        """Who is named in the history."""
        return f"admin@{self.peer}"


Behaviour = Callable[[bytes, GrpcCall], Awaitable[bytes]]
"""Takes and returns a serialized message. Raises what `serving.api.problems` knows; anything else is a bug."""


class Calls:
    """Makes behaviours into handlers of gRPC. Event loop thread only; `state` is ``app.state``."""

    def __init__(self, state: AppState) -> None:
        self._state = state
        self._services = services = state.services
        self._messages = MessageReader(services.settings.server)

    def handler(
        self, path: str, behaviour: Behaviour, scope: TokenScope | None, *, is_prediction: bool = False
    ) -> grpc.RpcMethodHandler:
        """Return the handler of one method. `scope` None: anybody may, always. Predictions are counted as such."""

        async def answer(messages: AsyncIterator[bytes], context: Any) -> bytes:
            started = perf_counter()
            headers = headers_of(context)
            request_id = self._services.requests.ids.of(headers).decode()
            token = REQUEST_ID.set(request_id)
            call = GrpcCall(_address_of(context.peer()), context.time_remaining)
            status, body, refusal = CLIENT_GONE, b"", None
            try:
                if scope is not None:
                    self._services.access.check(scope, headers.get(b"authorization"))
                with self._services.inflight.share() as share:
                    body = await behaviour(await self._messages.read(messages, share), call)
                status = 200
            except Exception as error:  # noqa: BLE001 - every failure is answered, and known here by its version
                refusal = self._refusal(error, call)
                status = refusal.status
            finally:
                seconds = perf_counter() - started
                if is_prediction and status != CLIENT_GONE:
                    self._services.metrics.traffic(call.model, call.version).record(status, call.rows, seconds)
                sample = self._services.settings.log.access_sample
                if status >= 400 or (sample and random() < sample):  # noqa: S311 - a sample, not a secret
                    _write(path, status, seconds, call)
                REQUEST_ID.reset(token)
            metadata = (("x-request-id", request_id), *_version_of(call))
            if refusal is not None:
                metadata += statuses.metadata_of(refusal)
                await context.abort(statuses.code_of(refusal), statuses.details_of(refusal), metadata)
            context.set_trailing_metadata(metadata)
            return body

        return grpc.stream_unary_rpc_method_handler(answer)  # so that it begins before its message is read

    def _refusal(self, error: Exception, call: GrpcCall) -> Refusal:
        if call.model:
            return problems.refusal_of(error, call.model, call.version)
        return problems.refusal_of(explain(error, self._state, call.asked[0]))


def headers_of(context: Any) -> dict[bytes, bytes]:
    """Return the metadata of a call as the HTTP side knows headers; values of ``-bin`` keys are bytes already."""
    return {
        key.encode(): value if isinstance(value, bytes) else value.encode("utf-8", "surrogateescape")
        for key, value in context.invocation_metadata() or ()
    }


def _address_of(peer: str) -> str:
    """Return the address in what gRPC calls a peer, ``ipv4:127.0.0.1:50051`` or ``ipv6:%5B::1%5D:50051``."""
    address = peer.partition(":")[2].rpartition(":")[0]
    return address.replace("%5B", "").replace("%5D", "").strip("[]") or "unknown"


def _version_of(call: GrpcCall) -> statuses.Metadata:
    return (("x-model-name", call.model), ("x-model-version", call.version)) if call.model else ()


def _write(path: str, status: int, seconds: float, call: GrpcCall) -> None:
    write = log.error if status >= 500 else log.info
    write("request", method="GRPC", path=path, status=status, duration_ms=round(seconds * 1000, 2), client=call.peer)
