"""Columns give the same batch as the same rows in JSON, or are refused with the same message."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from serving.domain.errors import InvalidInput
from serving.domain.signature import Container, Dtype, Feature, Signature
from serving.rows import tables
from serving.rows.parsing import rows_to_batch
from serving.rows.tables import Table, table_to_batch

NUMBERS = Signature(features=(Feature(name="a"), Feature(name="b", nullable=True)), methods=("predict",))
MIXED = Signature(
    features=(
        Feature(name="size"),
        Feature(name="kind", dtype=Dtype.STRING, nullable=True),
        Feature(name="new", dtype=Dtype.BOOL),
    ),
    methods=("predict",),
    container=Container.DATAFRAME,
)
TEXTS = Signature(features=(Feature(name="text", dtype=Dtype.STRING),), methods=("predict",), container=Container.TEXTS)


def get_refusal(signature: Signature, table: Table) -> str:
    with pytest.raises(InvalidInput) as caught:
        table_to_batch(signature, table)
    return str(caught.value)


@pytest.mark.parametrize("dtype", ["f8", "f4", "f2", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", ">f8", ">i4"])
def test_numbers_of_every_dtype_become_float64(dtype: str) -> None:
    matrix = np.array([[1, 2], [3, 4]], dtype=dtype)
    batch = table_to_batch(NUMBERS, Table(2, matrix))
    assert batch.matrix is not None
    assert batch.matrix.dtype == np.float64
    assert batch.matrix.flags.c_contiguous
    assert batch.matrix.tolist() == [[1.0, 2.0], [3.0, 4.0]]
    by_column = table_to_batch(NUMBERS, Table(2, columns=(matrix[:, 0], matrix[:, 1])))
    assert by_column.matrix is not None
    assert by_column.matrix.tolist() == batch.matrix.tolist()


def test_float64_in_order_is_not_copied() -> None:
    matrix = np.ones((3, 2))
    assert table_to_batch(NUMBERS, Table(3, matrix)).matrix is matrix
    assert table_to_batch(NUMBERS, Table(3, matrix, names=("a", "b"))).matrix is matrix


BASE = np.arange(24.0).reshape(4, 6)
LAYOUTS = {
    "rows of one matrix, as Arrow has them": list(BASE[1:4]),
    "long rows of one matrix": list(np.arange(1800.0).reshape(3, 600)),
    "columns of one matrix": list(BASE.T[:3]),
    "backwards": list(BASE[3:0:-1]),
    "every second value": [row[::2] for row in BASE[:3]],
    "one column three times": [BASE[2]] * 3,
    "at unequal distances": [BASE[0], BASE[1], BASE[3]],
    "each on its own": [row.copy() for row in BASE[:3]],
    "at equal distances, of unequal steps": [BASE[0, :3], BASE[1, ::2], BASE[2, :3]],
    "at equal distances, of unequal types": [BASE[0], BASE[1].view(np.int64), BASE[2]],
    "many of them": [np.full(5_000, place) for place in range(3)],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_columns_become_the_same_matrix_wherever_they_lie(layout: str) -> None:
    """Some of them already form a matrix in memory, which is transposed at once."""
    columns = LAYOUTS[layout]
    features = tuple(Feature(name=name) for name in "abc")
    batch = table_to_batch(
        Signature(features=features, methods=("predict",)), Table(len(columns[0]), columns=(*columns,))
    )
    np.testing.assert_array_equal(batch.matrix, np.column_stack(columns))
    assert batch.matrix is not None
    assert batch.matrix.flags.c_contiguous
    assert batch.matrix.flags.writeable


def test_columns_that_lie_far_apart_are_no_matrix() -> None:
    """A view of both would cover other memory, such as the target of the copy; to copy from it crashed the process."""
    room = np.zeros(1 << 16)
    for columns in ([room[:4], room[-4:]], [room[:600], room[-600:]], [room[-600:], room[:600]]):
        assert tables._view_as_matrix(columns) is None


def test_named_columns_are_put_in_order() -> None:
    batch = table_to_batch(NUMBERS, Table(1, np.array([[2.0, 1.0]]), names=("b", "a")))
    assert batch.matrix is not None
    assert batch.matrix.tolist() == [[1.0, 2.0]]
    columns = (np.array([True]), np.array([1.5]), ["x"])
    mixed = table_to_batch(MIXED, Table(1, columns=columns, names=("new", "size", "kind")))
    assert mixed.columns is not None
    assert [list(column) for column in mixed.columns] == [[1.5], ["x"], [True]]


def test_mixed_columns_give_the_same_batch_as_rows() -> None:
    columns: tuple[Any, ...] = (np.array([1.5, 2.0]), ["x", None], np.array([True, False]))
    batch = table_to_batch(MIXED, Table(2, columns=columns))
    wanted = rows_to_batch(MIXED, [[1.5, "x", True], [2.0, None, False]])
    assert batch.columns is not None
    assert wanted.columns is not None
    for mine, theirs in zip(batch.columns, wanted.columns, strict=True):
        assert type(mine) is type(theirs)
        assert list(mine) == list(theirs)


def test_columns_of_numbers_and_bools_stay_arrays() -> None:
    features = (Feature(name="size"), Feature(name="new", dtype=Dtype.BOOL))
    signature = Signature(features=features, methods=("predict",), container=Container.DATAFRAME)
    flags = np.array([True, False])
    batch = table_to_batch(signature, Table(2, columns=(np.array([1, 2]), flags)))
    assert batch.columns is not None
    assert batch.columns[1] is flags
    assert batch.columns[0].dtype == np.float64  # type: ignore[union-attr]


def test_texts_are_taken_as_one_column() -> None:
    batch = table_to_batch(TEXTS, Table(2, columns=(["a b", "c"],)))
    assert batch.columns == rows_to_batch(TEXTS, ["a b", "c"]).columns


def test_nan_is_a_missing_value_of_a_nullable_feature() -> None:
    batch = table_to_batch(NUMBERS, Table(1, np.array([[1.0, np.nan]])))
    assert batch.matrix is not None
    assert np.isnan(batch.matrix[0, 1])
    assert get_refusal(NUMBERS, Table(2, np.array([[1.0, 2.0], [np.nan, 2.0]]))) == (
        "row 1, feature 'a': is NaN; expected a finite number, and this feature may not be missing"
    )
    assert get_refusal(NUMBERS, Table(1, np.array([[1.0, np.inf]]))) == (
        "row 0, feature 'b': is an infinity; expected a finite number or NaN for a missing one"
    )


def test_wrong_cells_are_refused_with_the_messages_of_rows() -> None:
    assert "row 0 has 3 values, the model takes 2" in get_refusal(NUMBERS, Table(1, np.ones((1, 3))))
    assert get_refusal(NUMBERS, Table(0, np.ones((0, 2)))) == "no rows: send at least one"
    assert "feature 'kind'" in get_refusal(MIXED, Table(1, columns=([1.0], [2.0], [True])))
    assert "feature 'new'" in get_refusal(MIXED, Table(1, columns=(np.array([1.0]), ["x"], np.array([2]))))
    assert "feature 'a'" in get_refusal(NUMBERS, Table(1, np.array([[True, False]])))


def test_wrong_names_of_columns_are_named() -> None:
    missing = get_refusal(NUMBERS, Table(1, np.ones((1, 1)), names=("a",)))
    assert "'b'" in missing
    unknown = get_refusal(NUMBERS, Table(1, np.ones((1, 3)), names=("a", "b", "c")))
    assert "'c'" in unknown
    assert "there twice" in get_refusal(NUMBERS, Table(1, np.ones((1, 2)), names=("a", "a")))


def test_bools_and_numbers_stand_for_each_other_where_the_model_was_fitted_on_a_table() -> None:
    columns = (np.array([True, False]), ["x", None], np.array([1.0, 0.0]))
    batch = table_to_batch(MIXED, Table(2, columns=columns))
    assert batch.columns is not None
    assert [np.asarray(batch.columns[place]).tolist() for place in (0, 2)] == [[1.0, 0.0], [True, False]]
    numbers = NUMBERS.model_copy(update={"container": Container.DATAFRAME})
    matrix = table_to_batch(numbers, Table(1, np.array([[True, False]]))).matrix
    assert matrix is not None
    assert matrix.tolist() == [[1.0, 0.0]]
