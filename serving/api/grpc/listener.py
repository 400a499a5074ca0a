"""The gRPC server: where it listens, what it answers, and how it stops."""

from __future__ import annotations

import asyncio
import time

import grpc  # type: ignore[import-untyped]
import structlog

from serving.api.grpc import definitions, grpc_health, port_leaving
from serving.api.grpc.call_wrapper import Behaviour, Calls
from serving.api.grpc.definitions import Definitions
from serving.api.grpc.grpc_health import Health
from serving.api.grpc.grpc_metadata import Metadata
from serving.api.grpc.grpc_repository import Repository
from serving.api.grpc.infer import Inference
from serving.api.grpc.inference_pb2 import DESCRIPTOR
from serving.api.services import AppState
from serving.settings import ServerSettings, TokenScope

# Where workers share the port, a client connects anew after about this time, and the kernel chooses a worker again. Not
# less: some clients fail a call now and then when a connection ends. Not more: a worker that ends waits until those it
# has are that old, within LEAVING_SHARE of `server.drain_seconds`, by default 30. gRPC adds up to a tenth to each age.
SHARED_CONNECTION_SECONDS = 20.0
OLDEST = 1.1
NOTICE_SECONDS = 1.0  # for a client to be told that its connection is old, and to say that it knows
LEAVING_SHARE = 0.8
POLL_SECONDS = 0.2

SERVICE = DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name

log = structlog.get_logger("serving.grpc")


class Listener:
    """Answers the Open Inference Protocol on a port of its own. Event loop thread only.

    `state` is ``app.state`` after the lifespan has begun. If there is an admin port, the calls that HTTP has only there
    are not here: the repository's calls, and reflection, which is documentation.

    With `shares_port`, several processes of this user listen on the port at once, each on a socket of its own: gRPC
    takes no socket from elsewhere. Whoever starts them keeps the port with `serving.ports.listening.reserve_port`, and
    so finds out whether something else has it. The kernel spreads connections over the processes. Each connection ends
    after SHARED_CONNECTION_SECONDS, in the way of HTTP/2: its calls are finished, and further ones use another one.
    """

    def __init__(self, state: AppState, *, shares_port: bool = False) -> None:
        settings = state.services.settings.server
        self._state = state
        self._settings = settings
        self._shares_port = shares_port
        self._shared_port: int | None = None
        self._health = Health(state, is_whole_service=not shares_port)
        self._server = grpc.aio.server(
            options=_options_of(settings, shares_port=shares_port),
            maximum_concurrent_rpcs=settings.max_connections or None,
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
        taken: int = self._server.add_insecure_port(f"{host}:{port}")
        await self._server.start()
        if self._shares_port:
            self._shared_port = taken
        return f"{host}:{taken}"

    async def stop(self, seconds: float) -> None:
        """Refuse new calls and give those under way `seconds` to end. A second call may shorten that.

        If others share the port and go on, nothing is refused for the first of these seconds: new connections are the
        others' from now on, and those here come of age.
        """
        leaving_seconds = min(SHARED_CONNECTION_SECONDS * OLDEST + NOTICE_SECONDS, seconds * LEAVING_SHARE)
        if self._shared_port is not None and leaving_seconds > port_leaving.SETTLE_SECONDS:
            port, self._shared_port = self._shared_port, None
            began = time.monotonic()
            try:
                await self._leave(port, began + leaving_seconds)
            except OSError as error:
                log.warning("port_not_left", port=port, reason=str(error), effect="some calls are cancelled")
            seconds -= time.monotonic() - began
        self._health.stop()
        await self._server.stop(seconds)

    async def _leave(self, port: int, ends_at: float) -> None:
        """Take no more connections, and wait until those there are have ended. Ends when the whole service stops."""
        if not self._state.status.is_stopping:
            await port_leaving.stop_listening(port)
        while time.monotonic() < ends_at and not self._state.status.is_stopping:
            if not await asyncio.to_thread(port_leaving.has_connections, port):
                break
            await asyncio.sleep(POLL_SECONDS)


def _options_of(settings: ServerSettings, *, shares_port: bool) -> list[tuple[str, int]]:
    """Return HTTP's limits under gRPC's names: https://grpc.github.io/grpc/core/group__grpc__arg__keys.html"""
    max_mb = settings.max_body_mb if settings.grpc_max_mb is None else settings.grpc_max_mb
    options = [
        ("grpc.max_receive_message_length", int(max_mb * (1 << 20))),  # holds after decompression, too
        ("grpc.max_send_message_length", -1),  # bounded by the rows of a request
        ("grpc.max_allowed_incoming_connections", settings.max_connections or (1 << 31) - 1),
        ("grpc.max_metadata_size", int(settings.max_header_kb * 1024)),
        ("grpc.max_connection_idle_ms", int(settings.idle_seconds * 1000)),
        ("grpc.so_reuseport", int(shares_port)),  # else a port that is taken is an error, not a share of its calls
    ]
    if shares_port:
        options.append(("grpc.max_connection_age_ms", int(SHARED_CONNECTION_SECONDS * 1000)))
    return options


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
