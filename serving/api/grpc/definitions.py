"""gRPC's server reflection: tells clients which calls there are. It needs the token of the scope read.

https://github.com/grpc/grpc/blob/master/doc/server-reflection.md
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc  # type: ignore[import-untyped]
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2  # type: ignore[import-untyped]
from grpc_reflection.v1alpha import reflection, reflection_pb2  # type: ignore[import-untyped]

from serving.api import problems
from serving.api.access import Access, AccessRefused
from serving.api.grpc import statuses
from serving.api.grpc.call_wrapper import headers_of
from serving.settings import TokenScope

SERVICE: str = reflection.SERVICE_NAME


class Definitions:
    """Answers with the definitions of services and messages. Event loop thread only; `services` are full names."""

    def __init__(self, access: Access, services: tuple[str, ...], pool: DescriptorPool) -> None:
        for known in (health_pb2, reflection_pb2):
            pool.AddSerializedFile(known.DESCRIPTOR.serialized_pb)
        self._access = access
        self._servicer = reflection.aio.ReflectionServicer((*services, SERVICE), pool=pool)

    def handlers(self) -> dict[str, grpc.RpcMethodHandler]:
        """Return the handler of the service's one method, by name."""
        codec = (
            reflection_pb2.ServerReflectionRequest.FromString,
            reflection_pb2.ServerReflectionResponse.SerializeToString,
        )
        return {"ServerReflectionInfo": grpc.stream_stream_rpc_method_handler(self._answer, *codec)}

    async def _answer(self, requests: Any, context: Any) -> AsyncIterator[Any]:
        try:
            self._access.check(TokenScope.READ, headers_of(context).get(b"authorization"))
        except AccessRefused as error:
            refusal = problems.refusal_of(error)
            metadata = statuses.metadata_of(refusal)
            await context.abort(statuses.code_of(refusal), statuses.details_of(refusal), metadata)
        async for response in self._servicer.ServerReflectionInfo(requests, context):
            yield response
