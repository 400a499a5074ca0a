"""``ModelInfer``: tensors in, tensors out, through the one use case of `serving.plane.prediction`."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial

from serving.api.answers import is_small
from serving.api.grpc import wire
from serving.api.grpc.calls import GrpcCall
from serving.api.grpc.inference_pb2 import ModelInferRequest, ModelInferResponse
from serving.api.grpc.tensors import put_tensors, tensors_in
from serving.api.oip.specs import table_of, tensors_of
from serving.api.pieces import LARGE_BYTES
from serving.api.services import AppState
from serving.domain.errors import InvalidInput
from serving.domain.signature import METHODS, Signature
from serving.plane.prediction import Answer, Limits, PredictRequest, Prepared, compute, execute, hold, prepare
from serving.plane.servable import Servable
from serving.rows.row_problems import shown
from serving.telemetry.logging import REQUEST_ID


class Inference:
    """Answers predictions. Event loop thread only; `state` is ``app.state``."""

    def __init__(self, state: AppState) -> None:
        self._state = state
        self._limits = Limits.of(state.services.settings.server)

    async def infer(self, raw: bytes, call: GrpcCall) -> bytes:
        """Answer a ModelInferRequest with a ModelInferResponse, both serialized.

        Large ones are read and written in a worker thread. The deadline is the client's, if that is the shorter one.
        """
        request = await wire.read(ModelInferRequest, raw)
        asked = call.ask(request.model_name, request.model_version)
        with hold(self._state, self._limits, *asked) as servable:
            call.model, call.version = servable.id.model, servable.id.version
            signature = servable.signature
            if len(raw) > LARGE_BYTES:
                prepared = await asyncio.to_thread(self._prepare, servable, request)
                answer = await compute(servable, prepared, self._limits_of(call).deadline_seconds)
            else:
                answer = await execute(servable, _read(request, signature), self._limits_of(call))
        call.rows = answer.rows
        write = partial(_write, request, answer, signature)
        return write() if is_small(answer) else await asyncio.to_thread(write)

    def _prepare(self, servable: Servable, request: ModelInferRequest) -> Prepared:
        return prepare(servable, _read(request, servable.signature), self._limits)

    def _limits_of(self, call: GrpcCall) -> Limits:
        left = call.seconds_left()
        if left is None or left >= self._limits.deadline_seconds:
            return self._limits
        return replace(self._limits, deadline_seconds=max(left, 0.0))


def _read(request: ModelInferRequest, signature: Signature) -> PredictRequest:
    """Return the rows, and the methods that the outputs are named for; none: the model's default one."""
    if len(request.outputs) > len(METHODS):
        raise InvalidInput(f"more than {len(METHODS)} outputs; there are {', '.join(METHODS)}")
    names = [output.name for output in request.outputs]
    for name in names:
        if names.count(name) > 1:
            raise InvalidInput(f"the output {shown(name)} is asked for twice")
    rows = table_of(tensors_in(request), signature)
    return PredictRequest(rows, names[0], also=tuple(names[1:])) if names else PredictRequest(rows)


def _write(request: ModelInferRequest, answer: Answer, signature: Signature) -> bytes:
    identity = request.id or REQUEST_ID.get()
    response = ModelInferResponse(model_name=answer.model, model_version=answer.version, id=identity)
    put_tensors(response, tensors_of(answer, signature), is_raw=bool(request.raw_input_contents))
    return response.SerializeToString()
