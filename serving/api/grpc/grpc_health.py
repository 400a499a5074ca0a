"""``grpc.health.v1.Health``: readiness, for load balancers and probes over gRPC.

https://github.com/grpc/grpc/blob/master/doc/health-checking.md
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import grpc  # type: ignore[import-untyped]
from grpc_health.v1 import health_pb2  # type: ignore[import-untyped]

from serving.api.grpc.inference_pb2 import DESCRIPTOR
from serving.api.services import AppState

SERVICE = "grpc.health.v1.Health"
WATCH_SECONDS = 0.25  # the status is a value that is replaced without notice, so calls that watch have to look

_KNOWN = ("", *(service.full_name for service in DESCRIPTOR.services_by_name.values()), SERVICE)
_Response = health_pb2.HealthCheckResponse


class Health:
    """Says SERVING while ``/health/ready`` says 200, of the server and of each service. Event loop thread only.

    If this process is not the whole service, its end is not the service's: only the status says that.
    """

    def __init__(self, state: AppState, *, is_whole_service: bool = True) -> None:
        self._state = state
        self._is_whole_service = is_whole_service
        self._stopping = asyncio.Event()

    def handlers(self) -> dict[str, grpc.RpcMethodHandler]:
        """Return the handlers of the service's methods, by name."""
        codec = (health_pb2.HealthCheckRequest.FromString, _Response.SerializeToString)
        return {
            "Check": grpc.unary_unary_rpc_method_handler(self._check, *codec),
            "Watch": grpc.unary_stream_rpc_method_handler(self._watch, *codec),
        }

    def stop(self) -> None:
        """End the calls that watch: they would delay the drain. The whole service is NOT_SERVING from now on."""
        self._stopping.set()

    async def _check(self, request: Any, context: Any) -> Any:
        if request.service not in _KNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"there is no service {request.service[:120]!r} here")
        return _Response(status=self._status_of(request.service))

    async def _watch(self, request: Any, context: Any) -> None:
        told = None
        is_last = False
        while not is_last:
            is_last = self._stopping.is_set()
            status = self._status_of(request.service)
            if status != told:
                await context.write(_Response(status=status))
                told = status
            if not is_last:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), WATCH_SECONDS)

    def _status_of(self, service: str) -> int:
        if service not in _KNOWN:
            return int(_Response.SERVICE_UNKNOWN)
        is_ready = self._state.status.is_ready and not (self._is_whole_service and self._stopping.is_set())
        return int(_Response.SERVING if is_ready else _Response.NOT_SERVING)
