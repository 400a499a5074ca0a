"""The model repository extension, for operators: list, load, unload; see `serving.api.oip.oip_repository`."""

from __future__ import annotations

from serving.api.admin import audit_decision, operator_of
from serving.api.grpc import message_limits
from serving.api.grpc.call_wrapper import GrpcCall
from serving.api.grpc.inference_pb2 import (
    RepositoryIndexRequest,
    RepositoryIndexResponse,
    RepositoryModelLoadRequest,
    RepositoryModelLoadResponse,
    RepositoryModelUnloadRequest,
    RepositoryModelUnloadResponse,
)
from serving.api.oip.oip_repository import entries_of, load_newest
from serving.api.services import AppState
from serving.domain.decision import LoadModel, UnloadModel
from serving.domain.errors import InvalidInput


class Repository:
    """Answers operators; each call takes and returns a serialized message. Event loop thread only."""

    def __init__(self, state: AppState) -> None:
        self._state = state

    async def index(self, raw: bytes, call: GrpcCall) -> bytes:  # noqa: ARG002  (a behaviour's signature)
        """List every version of every model, or those that are ready."""
        request = await message_limits.read(RepositoryIndexRequest, raw)
        response = RepositoryIndexResponse()
        for entry in entries_of(self._state.status, only_ready=request.ready):
            response.models.add(name=entry.name, version=entry.version, state=entry.state, reason=entry.reason)
        return response.SerializeToString()

    async def load(self, raw: bytes, call: GrpcCall) -> bytes:
        """Look at the store now and return when the newest version is active; raises InvalidInput when it is refused.

        Waits for as long as a candidate may take.
        """
        request = await message_limits.read(RepositoryModelLoadRequest, raw)
        call.ask(request.model_name, "")
        decision = LoadModel(request.model_name)
        with audit_decision(decision, call.actor):
            if request.parameters:
                raise InvalidInput("parameters of a load are not taken: a model's files come from the store only")
            await load_newest(self._state, decision, call.actor)
        return RepositoryModelLoadResponse().SerializeToString()

    async def unload(self, raw: bytes, call: GrpcCall) -> bytes:
        """Load no version of the model until `load`; raises UnknownModel or StateUnavailable."""
        request = await message_limits.read(RepositoryModelUnloadRequest, raw)
        call.ask(request.model_name, "")
        decision = UnloadModel(request.model_name)
        with audit_decision(decision, call.actor):
            await operator_of(self._state).decide(decision, call.actor)
        return RepositoryModelUnloadResponse().SerializeToString()
