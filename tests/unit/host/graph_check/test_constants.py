"""The constants of a graph: read as what they are, and refused for the reason that applies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, numpy_helper

from serving.domain.errors import GraphRefused
from serving.host.graph_check.constants import read_tensor


def tensor(**fields: Any) -> Any:
    """Return a tensor of two floats, with some fields changed."""
    return TensorProto(**{"data_type": TensorProto.FLOAT, "dims": [2], "raw_data": bytes(8), **fields})


def segmented() -> Any:
    made = tensor()
    made.segment.begin = 0
    return made


def external() -> Any:
    made = tensor()
    made.external_data.add(key="location", value="/etc/hostname")
    return made


REFUSED: dict[str, dict[str, Any]] = {
    "has the element type 14, which is not known": {"complex numbers": tensor(data_type=TensorProto.COMPLEX64)},
    "is kept in another file": {
        "a location": tensor(data_location=TensorProto.EXTERNAL),
        "a path": external(),
        "a segment": segmented(),
    },
    "has the shape": {"a negative length": tensor(dims=[-2]), "nine axes": tensor(dims=[1] * 8 + [2])},
    "keeps its content in float_data and raw_data": {"two contents": tensor(float_data=[1.0, 2.0])},
    "keeps its content in int64_data": {"a content of another type": tensor(raw_data=b"", int64_data=[1, 2])},
    "is not as long as its shape says": {
        "fewer bytes": tensor(raw_data=bytes(4)),
        "more bytes": tensor(raw_data=bytes(12)),
        "fewer numbers": tensor(raw_data=b"", float_data=[1.0]),
        "texts as bytes": tensor(data_type=TensorProto.STRING, raw_data=bytes(16)),
        "no content": tensor(raw_data=b""),
    },
}


@pytest.mark.parametrize(("reason", "name"), [(reason, name) for reason, cases in REFUSED.items() for name in cases])
def test_a_malformed_constant_is_refused(reason: str, name: str) -> None:
    with pytest.raises(GraphRefused, match=reason):
        read_tensor(REFUSED[reason][name])


@pytest.mark.parametrize("dtype", ["f4", "f8", "i1", "u1", "i4", "i8", "?"])
def test_numbers_are_read_as_they_are(dtype: str) -> None:
    array = np.array([[0, 1], [1, 0]], dtype)
    found = read_tensor(numpy_helper.from_array(array))
    assert found.dtype == array.dtype
    assert found.tolist() == array.tolist()


def test_numbers_and_texts_in_fields_of_their_own_are_read() -> None:
    assert read_tensor(tensor(raw_data=b"", float_data=[1.5, -2.0])).tolist() == [1.5, -2.0]
    texts = TensorProto(data_type=TensorProto.STRING, dims=[1, 2], string_data=[b"a", b""])
    assert read_tensor(texts).tolist() == [[b"a", b""]]
