"""Tensors of the Open Inference Protocol: from lists and blobs, and back."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.utils import (  # type: ignore[import-untyped]
    deserialize_bytes_tensor,
    np_to_triton_dtype,
    serialize_byte_tensor,
)

from serving.api.oip.tensors import BYTES, DTYPES, ReceivedTensor, from_blob, from_texts, from_values, shape_of, to_blob
from serving.domain.errors import InvalidInput


@pytest.mark.parametrize("datatype", DTYPES)
def test_a_blob_is_what_a_client_makes_of_an_array(datatype: str) -> None:
    dtype = DTYPES[datatype]
    array = np.array([[0, 1], [1, 0]], dtype)
    assert np_to_triton_dtype(array.dtype) == datatype
    tensor = from_blob("a", datatype, (2, 2), array.tobytes())
    assert isinstance(tensor.values, np.ndarray)
    assert (tensor.values.dtype, tensor.values.tolist()) == (dtype, array.ravel().tolist())
    assert to_blob(tensor) == array.tobytes()


def test_a_blob_at_an_odd_place_becomes_an_aligned_array() -> None:
    raw = b"\0" + np.array([1.5, 2.5]).tobytes()
    tensor = from_blob("a", "FP64", (2,), memoryview(raw)[1:])
    assert isinstance(tensor.values, np.ndarray)
    assert tensor.values.flags.aligned
    assert tensor.values.tolist() == [1.5, 2.5]


@given(st.lists(st.text(), max_size=5))
def test_texts_go_both_ways_as_a_client_writes_and_reads_them(texts: list[str]) -> None:
    array = np.array([text.encode() for text in texts] or [b""], dtype=object)
    blob = serialize_byte_tensor(array).item()
    tensor = from_blob("a", BYTES, (len(array),), blob)
    assert tensor.values == (texts or [""])
    assert to_blob(tensor) == blob
    assert [raw.decode() for raw in deserialize_bytes_tensor(to_blob(tensor))] == tensor.values


@pytest.mark.parametrize(
    ("datatype", "shape", "values", "expected"),
    [
        ("FP64", (2, 2), [1, 2.5, 3, 4], [1, 2.5, 3, 4]),
        ("FP64", (2, 2), [[1, 2.5], [3, 4]], [1, 2.5, 3, 4]),
        ("FP32", (1,), [0.1], [float(np.float32(0.1))]),
        ("INT8", (3,), [-128, 0, 127], [-128, 0, 127]),
        ("UINT64", (1, 1), [[2**64 - 1]], [2**64 - 1]),
        ("BOOL", (2,), [True, False], [True, False]),
        ("BYTES", (2, 1), [["ä"], [None]], ["ä", None]),
        ("FP64", (0,), [], []),
    ],
)
def test_lists_are_flat_or_nested_like_the_shape(
    datatype: str, shape: tuple[int, ...], values: list[Any], expected: list[Any]
) -> None:
    assert list(from_values("a", datatype, shape, values).values) == expected


def test_null_is_a_missing_number() -> None:
    values = from_values("a", "FP32", (2,), [None, 1]).values
    assert isinstance(values, np.ndarray)
    assert np.array_equal(values, [np.nan, 1], equal_nan=True)


@pytest.mark.parametrize(
    ("datatype", "shape", "values", "message"),
    [
        ("FP64", (2, 2), [1, 2, 3], "3 values, expected 4 for shape [2, 2]"),
        ("FP64", (2, 2), [[1, 2], [3]], "not 2 arrays of 2"),
        ("FP64", (1, 4), [[[1, 2, 3, 4]]], "not 1 arrays of 4"),
        ("FP64", (2,), [1, True], "FP64 takes numbers, and value 1 of the data is true"),
        ("FP64", (1,), ["1"], "FP64 takes numbers"),
        ("INT32", (1,), [1.5], "INT32 takes integers"),
        ("INT8", (1,), [128], "beyond the range of INT8"),
        ("UINT8", (1,), [-1], "beyond the range of UINT8"),
        ("BOOL", (1,), [1], "BOOL takes true and false"),
        ("BYTES", (1,), [1], "BYTES takes texts"),
        ("FP99", (1,), [1], "no datatype"),
    ],
)
def test_what_a_datatype_does_not_take_is_named(
    datatype: str, shape: tuple[int, ...], values: list[Any], message: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        from_values("a", datatype, shape, values)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("datatype", "shape", "blob", "message"),
    [
        ("FP64", (1, 2), b"\0" * 8, "8 bytes of data, expected 16"),
        ("FP64", (10**12, 10**12), b"", "0 bytes of data"),
        ("BOOL", (2,), b"\1\2", "neither 0 nor 1"),
        (BYTES, (10**12,), b"", "cannot hold"),
        (BYTES, (1,), struct.pack("<I", 9) + b"abc", "end in element 0 of 1"),
        (BYTES, (2,), struct.pack("<I", 4) + b"abcd", "end in element 1 of 2"),
        (BYTES, (1,), struct.pack("<I", 0) + b"abc", "3 bytes follow"),
        (BYTES, (1,), struct.pack("<I", 1) + b"\xff", "not UTF-8"),
        ("nothing", (1,), b"", "no datatype"),
    ],
)
def test_a_blob_that_is_not_as_it_says_is_refused(
    datatype: str, shape: tuple[int, ...], blob: bytes, message: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        from_blob("a", datatype, shape, blob)
    assert message in str(refused.value)


@pytest.mark.parametrize("shape", [[], [1, 2, 3], [-1], [True], [1.0], ["1"], [None, 2]])
def test_a_shape_is_rows_or_rows_and_columns(shape: list[Any]) -> None:
    with pytest.raises(InvalidInput, match=r"expected \[rows, columns\]"):
        shape_of("a", shape)


def test_elements_of_bytes_are_counted() -> None:
    assert from_texts("a", (2,), [b"x", b""]) == ReceivedTensor("a", BYTES, (2,), ["x", ""])
    with pytest.raises(InvalidInput, match="1 values, expected 2"):
        from_texts("a", (2,), [b"x"])
