"""Which batches may become one, and that merging and splitting keep every value and its kind."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from serving.rows.batch import Batch, Prediction
from serving.rows.batch_merging import measure_batch, merge_batches, split_prediction


@pytest.mark.parametrize(
    ("first", "second", "is_alike"),
    [
        (["a"], ["b", None], True),
        ([1, None], [2.5], True),
        ([True], [False], True),
        ([True], [None, True], False),
        ([1], ["a"], False),
        ([1], [True], False),
        (np.array([1.0]), np.array([2.0]), True),
        (np.array([1.0]), np.array([2]), False),
        (np.array([1.0]), [1.0], False),
    ],
)
def test_columns_of_one_kind_are_alike(first: Any, second: Any, is_alike: bool) -> None:
    layouts = [measure_batch(Batch(len(column), columns=(column,)))[1] for column in (first, second)]
    assert (layouts[0] == layouts[1]) is is_alike


def test_matrices_are_alike_with_as_many_columns() -> None:
    layouts = [measure_batch(Batch(1, matrix=np.zeros((1, count))))[1] for count in (2, 2, 3)]
    assert layouts[0] == layouts[1] != layouts[2]


def test_rows_are_joined_in_order_and_their_answers_cut_apart() -> None:
    merged = merge_batches(
        [Batch(1, columns=(["a"], np.array([1]))), Batch(2, columns=(["b", None], np.array([2, 3])))]
    )
    assert merged.rows == 3
    assert merged.columns is not None
    assert merged.columns[0] == ["a", "b", None]
    np.testing.assert_array_equal(merged.columns[1], [1, 2, 3])
    parts = split_prediction(Prediction((np.arange(3), ["x", "y", "z"])), [1, 2])
    assert [part.list_rows() for part in parts] == [[[0, "x"]], [[1, "y"], [2, "z"]]]
