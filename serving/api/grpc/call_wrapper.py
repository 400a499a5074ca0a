"""Wraps every call: with its id, its log line, the check of its token, and an answer in every case."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc  # type: ignore[import-untyped]

from serving.api import problems
from serving.api.absence import explain
from serving.api.bodies import Headers
from serving.api.dialect import Refusal
from serving.api.grpc import statuses
from serving.api.grpc.messages import MessageReader
from serving.api.services import AppState
from serving.settings import TokenScope


@dataclass(slots=True)
class GrpcCall:
    """One call under way. The names of what it asks and of what answers are set as soon as they are known.

    `seconds_left` is how much of the client's own deadline is left now, None if it has none.
    """

    peer: str
    seconds_left: Callable[[], float | None]
    asked: tuple[str | None, str | None] = (None, None)
    model: str = ""
    version: str = ""

    def ask(self, model: str, version: str) -> tuple[str | None, str | None]:
        """Note the names that are asked; an empty one, for the default model or the active version, becomes None."""
        self.asked = (model or None, version or None)
        return self.asked

    @property
    def actor(self) -> str:
        """The name of the caller in the history."""
        return f"admin@{self.peer}"


Behaviour = Callable[[bytes, GrpcCall], Awaitable[bytes]]
"""Takes and returns a serialized message. Raises what `serving.api.problems` knows; anything else is a bug."""

Serve = Callable[[AsyncIterator[bytes], Headers, GrpcCall], Awaitable[bytes | Refusal]]
"""Takes the stream that a call's one message comes in, and returns the answer, serialized, or a refusal."""


class Calls:
    """Makes handlers of gRPC. Event loop thread only; `state` is ``app.state``."""

    def __init__(self, state: AppState) -> None:
        self._state = state
        self._services = state.services
        self._messages = MessageReader(state.services.settings.server)

    def handler(self, path: str, serve: Serve) -> grpc.RpcMethodHandler:
        """Return the handler of one method: it calls `serve`, logs the call under its id, and always answers."""

        async def answer(messages: AsyncIterator[bytes], context: Any) -> bytes:
            headers = headers_of(context)
            call = GrpcCall(_address_of(context.peer()), context.time_remaining)
            with self._services.requests.begin("GRPC", path, call.peer, headers) as request:
                outcome = await serve(messages, headers, call)
                refusal = outcome if isinstance(outcome, Refusal) else None
                request.status = 200 if refusal is None else refusal.status
            metadata = (("x-request-id", request.id.decode()), *_version_of(call))
            if refusal is not None:
                metadata += statuses.metadata_of(refusal)
                await context.abort(statuses.code_of(refusal), statuses.details_of(refusal), metadata)
            context.set_trailing_metadata(metadata)
            return outcome if isinstance(outcome, bytes) else b""

        return grpc.stream_unary_rpc_method_handler(answer)  # so that it begins before its message is read

    def guard(self, behaviour: Behaviour, scope: TokenScope | None) -> Serve:
        """Return a `Serve` that asks for a token of `scope` (None: no token is needed)."""

        async def serve(messages: AsyncIterator[bytes], headers: Headers, call: GrpcCall) -> bytes | Refusal:
            try:
                if scope is not None:
                    self._services.access.check(scope, headers.get(b"authorization"))
                with self._services.inflight.share() as share:
                    return await behaviour(await self._messages.read(messages, share), call)
            except Exception as error:  # noqa: BLE001 - every failure is answered
                return self._refusal_of(error, call)

        return serve

    def _refusal_of(self, error: Exception, call: GrpcCall) -> Refusal:
        if call.model:
            return problems.refusal_of(error, call.model, call.version)
        return problems.refusal_of(explain(error, self._state, call.asked[0]))


def headers_of(context: Any) -> dict[bytes, bytes]:
    """Return the metadata of a call in the form of HTTP headers; values of ``-bin`` keys are bytes already."""
    return {
        key.encode(): value if isinstance(value, bytes) else value.encode("utf-8", "surrogateescape")
        for key, value in context.invocation_metadata() or ()
    }


def _address_of(peer: str) -> str:
    """Return the address in a peer of gRPC, such as ``ipv4:127.0.0.1:50051`` or ``ipv6:%5B::1%5D:50051``."""
    address = peer.partition(":")[2].rpartition(":")[0]
    return address.replace("%5B", "").replace("%5D", "").strip("[]") or "unknown"


def _version_of(call: GrpcCall) -> statuses.Metadata:
    return (("x-model-name", call.model), ("x-model-version", call.version)) if call.model else ()
