"""Tensors into messages and out of them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from serving.api.oip.tensors import DTYPES, ReceivedTensor, to_blob
from serving.domain.errors import InvalidInput

pytest.importorskip("grpc", reason="the extra grpc is not installed")

from serving.api.grpc.inference_pb2 import ModelInferRequest, ModelInferResponse
from serving.api.grpc.message_tensors import PIECE_VALUES, put_tensors, tensors_in

VALUES = {
    "BOOL": [True, False],
    **{name: [0, np.iinfo(DTYPES[name]).max] for name in DTYPES if name.startswith("UINT")},
    **{name: [np.iinfo(DTYPES[name]).min, np.iinfo(DTYPES[name]).max] for name in DTYPES if name.startswith("INT")},
    "FP32": [0.5, math.inf],
    "FP64": [0.1, -1e300],
    "BYTES": ["é", ""],
}


def _tensor(datatype: str, values: list[object]) -> ReceivedTensor:
    shape = (len(values), 1)
    return ReceivedTensor("x", datatype, shape, values if datatype == "BYTES" else np.array(values, DTYPES[datatype]))  # type: ignore[arg-type]


def _sent(response: ModelInferResponse) -> ModelInferRequest:
    """Send outputs back as inputs: the fields have the same meaning on both ways."""
    request = ModelInferRequest(raw_input_contents=response.raw_output_contents)
    for output in response.outputs:
        request.inputs.add().ParseFromString(output.SerializeToString())
    return request


@pytest.mark.parametrize("is_raw", [True, False])
@pytest.mark.parametrize("datatype", VALUES)
def test_values_come_back_as_they_were(datatype: str, is_raw: bool) -> None:
    tensor = _tensor(datatype, VALUES[datatype])
    response = ModelInferResponse()
    put_tensors(response, [tensor, tensor], is_raw=is_raw)
    assert bool(response.raw_output_contents) is is_raw
    for found in tensors_in(_sent(response)):
        assert found[:3] == tensor[:3]
        assert list(found.values) == list(tensor.values)
        assert datatype == "BYTES" or found.values.dtype == DTYPES[datatype]  # type: ignore[union-attr]


def test_many_values_are_taken_out_in_pieces_and_in_order() -> None:
    tensor = ReceivedTensor("x", "FP64", (PIECE_VALUES * 2 + 7, 1), np.arange(PIECE_VALUES * 2 + 7.0))
    response = ModelInferResponse()
    put_tensors(response, [tensor], is_raw=False)
    (found,) = tensors_in(_sent(response))
    assert np.array_equal(found.values, tensor.values)


def _input(datatype: str, shape: list[int], field: str = "", values: object = ()) -> ModelInferRequest:
    request = ModelInferRequest()
    tensor = request.inputs.add(name="x", datatype=datatype, shape=shape)
    if field:
        getattr(tensor.contents, field).extend(values)
    return request


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (_input("FP64", [2, 2], "fp64_contents", [1.0]), r"1 fp64_contents, expected 4 for shape \[2, 2\]"),
        (_input("FP64", [1], "fp32_contents", [1.0]), r"0 fp64_contents, expected 1"),
        (_input("INT8", [1], "int_contents", [128]), "beyond the range of INT8"),
        (_input("UINT16", [1], "uint_contents", [65536]), "beyond the range of UINT16"),
        (_input("FP16", [1]), "no typed contents hold FP16; send it in raw_input_contents"),
        (_input("FP8", [1]), 'no datatype the string "FP8"'),
        (_input("FP64", [2**62, 2**62]), "0 fp64_contents, expected"),
        (_input("FP64", [-1, 4]), r"expected \[rows, columns\] or \[rows\]"),
        (_input("FP64", [1] * 100_000), r"expected \[rows, columns\] or \[rows\]"),
        (_input("BYTES", [1], "bytes_contents", [b"\xff"]), "not UTF-8"),
        (_input("BYTES", [2], "bytes_contents", [b"a"]), "1 values, expected 2"),
    ],
)
def test_contents_that_are_not_what_the_shape_and_the_datatype_say(request_: ModelInferRequest, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        tensors_in(request_)


def test_raw_contents_are_for_all_inputs_or_none() -> None:
    blob = to_blob(_tensor("FP64", [1.0]))
    request = _input("FP64", [1, 1])
    request.raw_input_contents.extend([blob, blob])
    with pytest.raises(InvalidInput, match="2 raw_input_contents; expected one for each of the 1 inputs"):
        tensors_in(request)
    request = _input("FP64", [1, 1], "fp64_contents", [1.0])
    request.raw_input_contents.append(blob)
    with pytest.raises(InvalidInput, match="has contents, and there are raw_input_contents"):
        tensors_in(request)
