"""``ModelInfer``: tensors in, tensors out, through the one way in of predictions, `serving.api.predictor`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from functools import partial

from serving.api.access import Access
from serving.api.bodies import Headers
from serving.api.dialect import Call, Refusal, Written
from serving.api.grpc import message_limits
from serving.api.grpc.call_wrapper import GrpcCall
from serving.api.grpc.inference_pb2 import ModelInferRequest, ModelInferResponse
from serving.api.grpc.message_tensors import put_tensors, tensors_in
from serving.api.grpc.messages import MessageReader
from serving.api.incoming import RefusedCall, Target
from serving.api.inflight import Share
from serving.api.oip.specs import table_of, tensors_of
from serving.api.services import Services
from serving.domain.errors import InvalidInput
from serving.domain.signature import METHODS, Signature
from serving.plane.prediction import Answer, PredictRequest
from serving.rows.row_problems import describe_value
from serving.settings import TokenScope
from serving.telemetry.logging import REQUEST_ID


class Inference:
    """Answers predictions. Event loop thread only."""

    def __init__(self, services: Services) -> None:
        self._predictor = services.predictor
        self._messages = MessageReader(services.settings.server)
        self._access = services.access

    async def serve(self, messages: AsyncIterator[bytes], headers: Headers, call: GrpcCall) -> bytes | Refusal:
        """Answer a ModelInferRequest with a ModelInferResponse, both serialized; note in `call` what answered."""
        outcome = await self._predictor.answer(GrpcRequest(self._access, self._messages, messages, headers, call))
        call.model, call.version = outcome.model, outcome.version
        return outcome.reply if isinstance(outcome, RefusedCall) else outcome.written.body


class GrpcRequest:
    """One ModelInferRequest, as `Predictor` takes it."""

    __slots__ = ("_access", "_call", "_headers", "_message", "_messages", "_reader", "names")

    def __init__(
        self,
        access: Access,
        reader: MessageReader,
        messages: AsyncIterator[bytes],
        headers: Headers,
        call: GrpcCall,
    ) -> None:
        self._access = access
        self._reader = reader
        self._messages = messages
        self._call = call
        self._headers = headers
        self._message = ModelInferRequest()
        self.names: Mapping[str, str] = {}

    def check(self, scope: TokenScope) -> None:
        """Raise AccessRefused unless the token in the metadata opens this scope. There are no sessions over gRPC."""
        self._access.check(scope, self._headers.get(b"authorization"))

    async def receive(self, share: Share) -> int:
        """Read the message; a large one is looked through in a worker thread first."""
        raw = await self._reader.read(self._messages, share)
        message = self._message = await message_limits.read(ModelInferRequest, raw)
        asked = {"model": message.model_name, "version": message.model_version}
        self.names = {key: name for key, name in asked.items() if name}
        return len(raw)

    def target(self) -> Target:
        """Return what is asked for; empty names stand for the default model and the active version."""
        return self.names.get("model"), self.names.get("version")

    def parse(self) -> Call:
        """Return how tensors become rows, and an answer a message."""
        return Call(partial(_read, self._message), partial(_write, self._message))

    def header(self, name: bytes) -> bytes | None:
        """Return the value of a key of metadata."""
        return self._headers.get(name)

    def seconds_left(self) -> float | None:
        """Return how much of the client's own deadline is left, None where it has none."""
        return self._call.seconds_left()

    def sharpen(self, error: Exception) -> Exception:
        """Return `error`: there is none that says more."""
        return error

    def refuse(self, refusal: Refusal) -> tuple[int, Refusal]:
        """Return the refusal; the wrapper of all calls turns it into a status of gRPC."""
        return refusal.status, refusal


def _read(request: ModelInferRequest, signature: Signature) -> PredictRequest:
    """Return the rows, and the methods that the outputs are named for; none: the model's default one."""
    if len(request.outputs) > len(METHODS):
        raise InvalidInput(f"more than {len(METHODS)} outputs; there are {', '.join(METHODS)}")
    names = [output.name for output in request.outputs]
    for name in names:
        if names.count(name) > 1:
            raise InvalidInput(f"the output {describe_value(name)} is asked for twice")
    rows = table_of(tensors_in(request), signature)
    return PredictRequest(rows, names[0], also=tuple(names[1:])) if names else PredictRequest(rows)


def _write(request: ModelInferRequest, answer: Answer, signature: Signature) -> Written:
    identity = request.id or REQUEST_ID.get()
    response = ModelInferResponse(model_name=answer.model, model_version=answer.version, id=identity)
    put_tensors(response, tensors_of(answer, signature), is_raw=bool(request.raw_input_contents))
    return Written(response.SerializeToString())
