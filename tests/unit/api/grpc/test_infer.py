"""Whatever is sent: an answer, or a refusal that is the caller's fault."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.api.dialect import Refusal
from serving.api.oip.tensors import DTYPES
from serving.domain.errors import RequestRefused
from tests.fakes import MIXED, FakeEngine, echo, make_app, make_reference, make_servable, run

pytest.importorskip("grpc", reason="the extra grpc is not installed")

from serving.api.grpc.call_wrapper import GrpcCall
from serving.api.grpc.infer import Inference
from serving.api.grpc.inference_pb2 import InferTensorContents, ModelInferRequest, ModelInferResponse

NAMES = st.sampled_from(["input", "age", "town", "is_new", ""])
INTEGERS = st.lists(st.integers(-(2**31), 2**31 - 1), max_size=4)
CONTENTS = st.builds(
    InferTensorContents,
    int_contents=INTEGERS,
    int64_contents=INTEGERS,
    bool_contents=st.lists(st.booleans(), max_size=4),
    fp32_contents=st.lists(st.floats(width=32), max_size=4),
    fp64_contents=st.lists(st.floats(), max_size=4),
    bytes_contents=st.lists(st.binary(max_size=3), max_size=4),
)
TENSORS = st.builds(
    ModelInferRequest.InferInputTensor,
    name=NAMES,
    datatype=st.sampled_from([*DTYPES, "BYTES", "FP8", ""]),
    shape=st.lists(st.sampled_from([-1, 0, 1, 2, 4, 2**62]), max_size=3),
    contents=st.none() | CONTENTS,
)
REQUESTS = st.builds(
    ModelInferRequest,
    model_name=st.sampled_from(["iris", "mixed", "other", ""]),
    model_version=st.sampled_from(["", "", "1", "../1"]),
    inputs=st.lists(TENSORS, max_size=4),
    outputs=st.lists(
        st.builds(ModelInferRequest.InferRequestedOutputTensor, name=st.sampled_from(["predict", "transform", ""])),
        max_size=2,
    ),
    raw_input_contents=st.just([]) | st.lists(st.binary(max_size=40), max_size=4),
)


@given(REQUESTS.map(lambda request: request.SerializeToString()) | st.binary(max_size=60))
def test_nothing_else_is_raised(raw: bytes) -> None:
    mixed = make_servable("mixed", "1", FakeEngine(echo), MIXED)
    services = make_app(make_reference(iris=make_servable("iris", "1"), mixed=mixed)).state.services

    async def messages() -> AsyncIterator[bytes]:
        yield raw

    async def scenario() -> None:
        call = GrpcCall("127.0.0.1", lambda: None)
        outcome = await Inference(services).serve(messages(), {}, call)
        traffic = services.metrics.traffic(call.model, call.version)
        if isinstance(outcome, Refusal):
            assert isinstance(outcome.error, RequestRefused)
            assert traffic.statuses == {outcome.status: 1}
        else:
            response = ModelInferResponse.FromString(outcome)
            assert (response.model_name, response.model_version) == (call.model, call.version)
            assert (traffic.statuses, traffic.rows) == ({200: 1}, response.outputs[0].shape[0])
        assert not mixed.leases

    run(scenario())
