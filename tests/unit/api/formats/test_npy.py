"""NumPy arrays: views of the body, from a header that is not believed."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from serving.api.formats import npy
from serving.domain.errors import InvalidInput, Malformed, NotAcceptable
from serving.plane.prediction import Answer
from serving.rows.batch import Prediction, Tensor
from serving.rows.tables import table_to_batch
from tests.fakes import MIXED, NUMBERS, TEXTS

MATRIX = np.arange(12.0).reshape(3, 4)


def saved(array: NDArray[Any], *, allow_pickle: bool = False) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=allow_pickle)
    return file.getvalue()


def headed(header: str, body: bytes = b"") -> bytes:
    return npy.MAGIC + b"\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + body


def answer(*tensors: Tensor, method: Any = "predict") -> Answer:
    return Answer("iris", "3", method, len(tensors[0]), Prediction(tensors), False)


def test_a_matrix_of_float64_is_a_view_of_the_body() -> None:
    raw = saved(MATRIX)
    table = npy.read(raw, NUMBERS)
    batch = table_to_batch(NUMBERS, table)
    assert batch.matrix is not None
    assert np.shares_memory(batch.matrix, np.frombuffer(raw, np.uint8))
    assert np.array_equal(batch.matrix, MATRIX)


@pytest.mark.parametrize("dtype", ["<f8", ">f8", "<f4", "<f2", "<i8", ">i2", "|u1", "<u4"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_any_order_and_any_number_is_read(dtype: str, order: Any) -> None:
    batch = table_to_batch(NUMBERS, npy.read(saved(np.array(MATRIX, dtype=dtype, order=order)), NUMBERS))
    assert batch.matrix is not None
    assert np.array_equal(batch.matrix, MATRIX)


def test_one_dimension_is_a_row_or_a_column_where_there_is_one_feature() -> None:
    assert npy.read(saved(MATRIX[0]), NUMBERS).rows == 1
    texts = npy.read(saved(np.array(["good", "bad"])), TEXTS)
    assert (texts.rows, texts.columns) == (2, (["good", "bad"],))


def test_a_structured_array_is_named_columns_in_any_order() -> None:
    kinds = [("is_new", "?"), ("town", "U9"), ("age", "<i4")]
    for align in (False, True):
        rows = np.array([(True, "Ulm", 7), (False, "Bonn", 9)], np.dtype(kinds, align=align))
        batch = table_to_batch(MIXED, npy.read(saved(rows), MIXED))
        assert batch.columns is not None
        assert [list(column) for column in batch.columns] == [[7, 9], ["Ulm", "Bonn"], [True, False]]


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"not an array at all",
        npy.MAGIC,
        saved(MATRIX)[:-1],
        saved(MATRIX) + b"\0",
        headed("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000, 1000000), }"),
        headed("{'descr': '<f8', 'fortran_order': False, 'shape': (-1, 4), }"),
        headed("{'descr': '<f8', 'fortran_order': False, 'shape': (True, 4), }"),
        headed("{'descr': '<f8', 'fortran_order': False}"),
        headed("__import__('os').system('true')"),
        headed("(" * 5000),
        headed("9" * 5000),
        headed("{'descr': '\\xff'}"),
        npy.MAGIC + b"\x02\x00" + b"\xff\xff\xff\x7f",
        npy.MAGIC + b"\x07\x00" + b"\0" * 100,
        saved(np.array(["x"], "U1"))[:-4] + b"\xff\xff\xff\x7f",
    ],
)
def test_what_is_no_array_is_malformed(raw: bytes) -> None:
    with pytest.raises(Malformed):
        npy.read(raw, NUMBERS)


@pytest.mark.parametrize(
    "array",
    [
        np.array([1 + 2j]),
        np.array([np.datetime64("NaT")]),
        np.array([1], "m8[M]"),
        np.array([b"bytes"]),
        np.zeros((2, 2, 2)),
        np.zeros((1,), [("a", "f8", (3,))]),
        np.zeros((1, 1), [("a", "f8")]),
        np.zeros((1,), np.longdouble),
        np.array(1.0),
    ],
)
def test_what_no_model_takes_is_named(array: NDArray[Any]) -> None:
    with pytest.raises(InvalidInput):
        npy.read(saved(array), NUMBERS)


def test_an_object_array_is_never_made() -> None:
    raw = saved(np.array([print, None], dtype=object), allow_pickle=True)
    with pytest.raises(InvalidInput, match=r"dtype '\|O' are not taken"):
        npy.read(raw, NUMBERS)


@given(place=st.integers(0, 127), byte=st.integers(0, 255))
def test_a_changed_header_is_read_or_refused_and_nothing_else(place: int, byte: int) -> None:
    raw = bytearray(saved(MATRIX))
    raw[place] = byte
    try:
        table = npy.read(bytes(raw), NUMBERS)
    except (Malformed, InvalidInput):
        return
    assert table.matrix is not None
    assert table.matrix.nbytes == MATRIX.nbytes


@pytest.mark.parametrize(
    "tensor", [np.array([0, 2]), np.eye(2), np.asfortranarray(np.ones((3, 2), np.float32)), np.array([True, False])]
)
def test_an_answer_is_what_numpy_loads(tensor: NDArray[Any]) -> None:
    raw = npy.write(answer(tensor), NUMBERS)
    loaded = np.load(io.BytesIO(raw), allow_pickle=False)
    assert loaded.dtype == tensor.dtype
    assert np.array_equal(loaded, tensor)
    assert raw.index(b"\n") % 64 == 63


def test_labels_that_are_text_are_as_wide_as_the_longest() -> None:
    loaded = np.load(io.BytesIO(npy.write(answer(["no", "maybe"]), NUMBERS)))
    assert (loaded.dtype.str, loaded.tolist()) == ("<U5", ["no", "maybe"])


def test_several_outputs_are_an_axis_of_their_own() -> None:
    loaded = np.load(io.BytesIO(npy.write(answer(np.eye(2), np.zeros((2, 2)), method="predict_proba"), NUMBERS)))
    assert loaded.shape == (2, 2, 2)
    assert loaded[0].tolist() == [[1, 0], [0, 0]]


@pytest.mark.parametrize("tensors", [(["a", 1],), (np.eye(2), np.ones((2, 3))), (["x" * 1000] * 20_000,)])
def test_what_has_no_place_in_an_array_is_refused_with_another_way(tensors: tuple[Tensor, ...]) -> None:
    with pytest.raises(NotAcceptable, match="ask for application/json"):
        npy.write(answer(*tensors), NUMBERS)
