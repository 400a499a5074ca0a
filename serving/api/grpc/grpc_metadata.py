"""The calls that read: the server, its health, and for each model whether it is ready and its tensors."""

from __future__ import annotations

from serving import __version__
from serving.api.grpc import message_limits
from serving.api.grpc.call_wrapper import GrpcCall
from serving.api.grpc.inference_pb2 import (
    ModelMetadataRequest,
    ModelMetadataResponse,
    ModelReadyRequest,
    ModelReadyResponse,
    ServerLiveRequest,
    ServerLiveResponse,
    ServerMetadataRequest,
    ServerMetadataResponse,
    ServerReadyRequest,
    ServerReadyResponse,
)
from serving.api.oip.specs import Spec, inputs_of, outputs_of
from serving.api.services import AppState
from serving.domain.errors import UnknownModel, UnknownVersion
from serving.plane.active_reference import ModelReference, read
from serving.plane.prediction import RequestLimits, look

EXTENSIONS = ("model_repository",)


class Metadata:
    """Answers from ``app.state``, which is `state`; each call takes and returns a serialized message.

    Event loop thread only; nothing is waited for.
    """

    def __init__(self, state: AppState) -> None:
        self._state = state
        self._limits = RequestLimits.of(state.services.settings.server)

    async def server_live(self, raw: bytes, call: GrpcCall) -> bytes:  # noqa: ARG002  (a behaviour's signature)
        """Answer live for as long as the process can answer at all."""
        await message_limits.read(ServerLiveRequest, raw)
        return ServerLiveResponse(live=True).SerializeToString()

    async def server_ready(self, raw: bytes, call: GrpcCall) -> bytes:  # noqa: ARG002
        """Answer the same as ``GET /health/ready``."""
        await message_limits.read(ServerReadyRequest, raw)
        return ServerReadyResponse(ready=self._state.status.is_ready).SerializeToString()

    async def server_metadata(self, raw: bytes, call: GrpcCall) -> bytes:  # noqa: ARG002
        """Name the server and its version."""
        await message_limits.read(ServerMetadataRequest, raw)
        found = ServerMetadataResponse(name="serving", version=__version__, extensions=EXTENSIONS)
        return found.SerializeToString()

    async def model_ready(self, raw: bytes, call: GrpcCall) -> bytes:
        """Say whether a model has an active version, or whether the version asked for is loaded.

        Raises UnknownModel and UnknownVersion for what is not in the store either.
        """
        request = await message_limits.read(ModelReadyRequest, raw)
        name, version = call.ask(request.name, request.version)
        known = self._state.status.models.get(request.name)
        reference = self._reference(request.name)
        if known is None and not reference.loaded:
            raise UnknownModel.for_name(request.name, "RepositoryIndex")
        servable = reference.active if version is None else reference.loaded.get(version)
        if servable is not None:
            call.model, call.version = servable.id.model, servable.id.version
        elif version is not None and (known is None or version not in {one.version for one in known.versions}):
            raise UnknownVersion(f"'{name}' has no version {version[:120]!r}")
        return ModelReadyResponse(ready=servable is not None).SerializeToString()

    async def model_metadata(self, raw: bytes, call: GrpcCall) -> bytes:
        """Describe inputs and outputs of the active version, or of the one asked for; raises what `look` raises."""
        request = await message_limits.read(ModelMetadataRequest, raw)
        servable = look(self._state, self._limits, *call.ask(request.name, request.version))
        call.model, call.version = servable.id.model, servable.id.version
        response = ModelMetadataResponse(
            name=call.model,
            versions=tuple(self._reference(call.model).loaded),
            platform=servable.engine.name,
            inputs=map(_tensor, inputs_of(servable.signature)),
            outputs=map(_tensor, outputs_of(servable.signature)),
        )
        return response.SerializeToString()

    def _reference(self, model: str) -> ModelReference:
        active = read(self._state)
        return active.models.get(model, ModelReference())


def _tensor(spec: Spec) -> ModelMetadataResponse.TensorMetadata:
    return ModelMetadataResponse.TensorMetadata(name=spec.name, datatype=spec.datatype, shape=spec.shape)
