"""The gRPC server: where it listens, what it answers, and how it stops."""

from __future__ import annotations

import grpc  # type: ignore[import-untyped]

from serving.api.grpc import definitions, grpc_health
from serving.api.grpc.call_wrapper import Behaviour, Calls
from serving.api.grpc.definitions import Definitions
from serving.api.grpc.grpc_health import Health
from serving.api.grpc.grpc_metadata import Metadata
from serving.api.grpc.grpc_repository import Repository
from serving.api.grpc.infer import Inference
from serving.api.grpc.inference_pb2 import DESCRIPTOR
from serving.api.services import AppState
from serving.settings import ServerSettings, TokenScope

SERVICE = DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name


class Listener:
    """Answers the Open Inference Protocol on a port of its own. Event loop thread only.

    `state` is ``app.state`` after the lifespan has begun. If there is an admin port, the calls that HTTP has only there
    are not here: the repository's calls, and reflection, which is documentation.
    """

    def __init__(self, state: AppState) -> None:
        settings = state.services.settings.server
        self._settings = settings
        self._health = Health(state)
        self._server = grpc.aio.server(
            options=_options_of(settings), maximum_concurrent_rpcs=settings.max_connections or None
        )
        handlers = {SERVICE: _inference(state), grpc_health.SERVICE: self._health.handlers()}
        if settings.docs and settings.admin_port is None:
            reflection = Definitions(state.services.access, tuple(handlers), DESCRIPTOR.pool)
            handlers[definitions.SERVICE] = reflection.handlers()
        for name, methods in handlers.items():
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, methods),))

    async def start(self, port: int) -> str:
        """Listen and return the address; raises RuntimeError if it cannot listen on the port."""
        host = self._settings.host
        host = f"[{host}]" if ":" in host else host
        taken = self._server.add_insecure_port(f"{host}:{port}")
        await self._server.start()
        return f"{host}:{taken}"

    async def stop(self, seconds: float) -> None:
        """Refuse new calls and give those under way `seconds` to end. A second call may shorten that."""
        self._health.stop()
        await self._server.stop(seconds)


def _options_of(settings: ServerSettings) -> list[tuple[str, int]]:
    """Return HTTP's limits under gRPC's names: https://grpc.github.io/grpc/core/group__grpc__arg__keys.html"""
    max_mb = settings.max_body_mb if settings.grpc_max_mb is None else settings.grpc_max_mb
    return [
        ("grpc.max_receive_message_length", int(max_mb * (1 << 20))),  # holds after decompression, too
        ("grpc.max_send_message_length", -1),  # bounded by the rows of a request
        ("grpc.max_allowed_incoming_connections", settings.max_connections or (1 << 31) - 1),
        ("grpc.max_metadata_size", int(settings.max_header_kb * 1024)),
        ("grpc.max_connection_idle_ms", int(settings.idle_seconds * 1000)),
        ("grpc.so_reuseport", 0),  # a port that is taken is an error, not a share of its calls
    ]


def _inference(state: AppState) -> dict[str, grpc.RpcMethodHandler]:
    """Return the handlers of the inference service, by name."""
    calls = Calls(state)
    metadata, repository = Metadata(state), Repository(state)
    open_to_all: dict[str, Behaviour] = {"ServerLive": metadata.server_live, "ServerReady": metadata.server_ready}
    for_readers: dict[str, Behaviour] = {
        "ModelReady": metadata.model_ready,
        "ServerMetadata": metadata.server_metadata,
        "ModelMetadata": metadata.model_metadata,
    }
    for_operators: dict[str, Behaviour] = {
        "RepositoryIndex": repository.index,
        "RepositoryModelLoad": repository.load,
        "RepositoryModelUnload": repository.unload,
    }
    if state.services.settings.server.admin_port is not None:
        for_operators = {}
    scopes = ((None, open_to_all), (TokenScope.READ, for_readers), (TokenScope.ADMIN, for_operators))
    handlers = {
        name: calls.handler(f"/{SERVICE}/{name}", calls.guard(behaviour, scope))
        for scope, behaviours in scopes
        for name, behaviour in behaviours.items()
    }
    handlers["ModelInfer"] = calls.handler(f"/{SERVICE}/ModelInfer", Inference(state.services).serve)
    return handlers
