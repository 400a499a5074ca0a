"""Integers beyond 2**53 stay integers in every form of a request, or are refused; they are never rounded."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from serving.domain.errors import InvalidInput
from serving.domain.signature import Feature, Signature
from serving.rows.conversion import Piece, convert_rows
from serving.rows.integers import find_rounded, is_rounded, join_columns, make_integer_column
from serving.rows.tables import Table, table_to_batch

BEYOND = 2**53 + 1
ONE = Signature(features=(Feature(name="id"),), methods=("predict",))
TWO = Signature(features=(Feature(name="id"), Feature(name="size")), methods=("predict",))


@pytest.mark.parametrize("cell", [BEYOND, -BEYOND, 2**63 - 1, 2**64 - 1, 10**400])
def test_integers_that_float64_would_round_are_found(cell: int) -> None:
    assert is_rounded(cell)


@pytest.mark.parametrize("cell", [0, True, None, "9007199254740993", 2**53, 2**54, -(2**63), 2.0**60, 1e300])
def test_values_that_float64_holds_are_not_rounded(cell: Any) -> None:
    assert not is_rounded(cell)


@pytest.mark.parametrize("dtype", [np.int64, np.uint64, ">i8"])
def test_rounded_integers_are_found_by_their_places_in_an_array(dtype: Any) -> None:
    integers = np.array([[1, BEYOND], [2**53, 2**62 + 1]], dtype)
    assert find_rounded(integers).tolist() == [[False, True], [False, True]]
    assert not find_rounded(np.array([2**31 - 1], np.int32)).any()
    assert not find_rounded(np.array([1e300])).any()


def test_a_column_of_integers_fits_one_dtype_or_is_none() -> None:
    assert make_integer_column([1, 2]) is not None
    assert make_integer_column([2**64 - 1, -1]) is None
    assert make_integer_column([1, 2.0]) is None


def test_parts_are_joined_without_rounding_or_not_at_all() -> None:
    joined = join_columns([np.array([1.0, 2.0]), np.array([BEYOND])])
    assert joined is not None
    assert joined.tolist() == [1, 2, BEYOND]
    assert join_columns([np.array([0.5]), np.array([BEYOND])]) is None
    assert join_columns([np.array([np.nan]), np.array([BEYOND])]) is None


@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
def test_a_matrix_of_integers_becomes_columns_if_one_would_be_rounded(dtype: Any) -> None:
    batch = table_to_batch(TWO, Table(2, matrix=np.array([[BEYOND, 1], [2, 3]], dtype)))
    assert batch.columns is not None
    assert [np.asarray(column).dtype for column in batch.columns] == [dtype, np.float64]
    assert np.asarray(batch.columns[0]).tolist() == [BEYOND, 2]
    assert table_to_batch(TWO, Table(2, matrix=np.array([[2**53, 1], [2, 3]], dtype))).matrix is not None


def test_a_column_of_integers_beside_one_of_floats_is_not_rounded() -> None:
    columns = (np.array([BEYOND, 2]), np.array([0.5, 1.5]))
    batch = table_to_batch(TWO, Table(2, columns=columns, names=("id", "size")))
    assert batch.columns is not None
    assert np.asarray(batch.columns[0]).tolist() == [BEYOND, 2]


def test_pieces_with_and_without_large_integers_become_one_column() -> None:
    batch = convert_rows(ONE, Pieces([[1], [2.0]], [[BEYOND]]))
    assert batch.columns is not None
    assert np.asarray(batch.columns[0]).tolist() == [1, 2, BEYOND]
    with pytest.raises(InvalidInput, match=f"feature 'id': the number {BEYOND} would be rounded"):
        convert_rows(ONE, Pieces([[1.5]], [[BEYOND]]))


class Pieces:
    """Rows in pieces."""

    def __init__(self, *pieces: list[Any]) -> None:
        self._pieces = pieces

    def __len__(self) -> int:
        return sum(map(len, self._pieces))

    def __iter__(self) -> Any:
        return (Piece(rows) for rows in self._pieces)
