"""Return values of estimators become tensors for the wire and for JSON."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import numpy as np
import orjson
import pandas as pd
import pytest
from scipy.sparse import csr_array, csr_matrix

from serving.domain.errors import InvalidInput, ModelFailed
from serving.host import output_tensors
from serving.host.output_tensors import is_finite, to_plain_value, to_prediction


def test_numbers_and_bools_stay_arrays() -> None:
    for dtype in (np.float64, np.float32, np.float16, np.int64, np.int8, np.uint16, np.bool_):
        [tensor] = to_prediction(np.ones((2, 3), dtype=dtype), 2).tensors
        assert isinstance(tensor, np.ndarray)
        assert tensor.dtype == dtype


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (np.array(["a", "b"]), ["a", "b"]),
        (np.array(["a", "b"], dtype=object), ["a", "b"]),
        (np.array([b"a", b"b"]), ["a", "b"]),
        (np.array([["a", 1], [None, 2.5]], dtype=object), [["a", 1], [None, 2.5]]),
        (np.array([np.str_("a"), np.int64(3)], dtype=object), ["a", 3]),
        (np.array([np.bool_(True), Decimal("1.5")], dtype=object), [True, "1.5"]),
        (np.array(["2026-11-20", "2026-11-21"], dtype="datetime64[D]"), ["2026-11-20", "2026-11-21"]),
        (np.array([1, 2], dtype="timedelta64[s]"), ["1 seconds", "2 seconds"]),
        (pd.Series(["a", "b"]), ["a", "b"]),
        (pd.Series([1.5, 2.5]), [1.5, 2.5]),
        (pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}), [[1, "x"], [2, "y"]]),
        (pd.DataFrame({"a": [1.0, 2.0]}), [[1.0], [2.0]]),
        (csr_array(np.eye(2)), [[1.0, 0.0], [0.0, 1.0]]),
        (csr_matrix(np.eye(2)), [[1.0, 0.0], [0.0, 1.0]]),
        (np.eye(2).view(np.matrix), [[1.0, 0.0], [0.0, 1.0]]),
        (np.ma.masked_array([1.0, 2.0], mask=[False, True]), [1.0, None]),
        ([1, 2], [1, 2]),
        (("a", "b"), ["a", "b"]),
        (np.array([1, 2], dtype=np.longdouble), [1.0, 2.0]),
        ([{"label": "a", "p": np.float64(0.5)}, {"label": None}], [{"label": "a", "p": 0.5}, {"label": None}]),
        ([{1: {"deep": (np.int64(1), 2)}}, {}], [{"1": {"deep": [1, 2]}}, {}]),
        ({"label": np.array(["a", "b"]), "p": [0.5, 1]}, [{"label": "a", "p": 0.5}, {"label": "b", "p": 1}]),
        ([date(2026, 11, 20), datetime(2026, 11, 20, 8, tzinfo=UTC)], ["2026-11-20", "2026-11-20T08:00:00+00:00"]),
        (pd.Series(pd.to_datetime(["2026-11-20", "2026-11-21"]).date), ["2026-11-20", "2026-11-21"]),
        ([{"at": pd.Timestamp("2026-11-20")}, {"at": time(8)}], [{"at": "2026-11-20T00:00:00"}, {"at": "08:00:00"}]),
    ],
)
def test_other_values_become_json_values(answer: Any, expected: list[Any]) -> None:
    prediction = to_prediction(answer, 2)
    assert orjson.loads(orjson.dumps(prediction.list_rows())) == expected
    for tensor in prediction.tensors:
        assert isinstance(tensor, list) or tensor.dtype.kind in "biuf"


def test_one_array_for_each_output_is_several_tensors() -> None:
    prediction = to_prediction([np.zeros((2, 3)), np.zeros((2, 2))], 2)
    assert [len(tensor[0]) for tensor in prediction.tensors] == [3, 2]
    assert len(to_prediction([np.zeros(3), np.zeros(3)], 2).tensors) == 1


def test_a_flat_answer_for_one_row_is_one_row() -> None:
    assert to_prediction(np.arange(6.0), 1).list_rows() == [[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]]
    assert to_prediction(np.arange(1.0), 1).list_rows() == [0.0]


def test_a_sparse_answer_too_large_for_memory_is_not_made_dense(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output_tensors, "MAX_DENSE_BYTES", 1 << 20)
    with pytest.raises(
        InvalidInput, match=r"2 rows would take 15 MB as a dense array, at most 1 MB .* send fewer rows"
    ):
        to_prediction(csr_array((2, 1_000_000)), 2)
    with pytest.raises(ModelFailed, match="the answer for one row would take 7 MB"):
        to_prediction(csr_array((1, 1_000_000)), 1)


def test_finite_rows_are_found_row_by_row() -> None:
    assert is_finite(np.array([[1.0, np.nan], [1.0, 2.0], [np.inf, 1.0]])).tolist() == [False, True, False]
    assert is_finite(np.array([1, 2])).tolist() == [True, True]
    assert is_finite(np.zeros((2, 0))).tolist() == [True, True]
    assert is_finite(["a", None, float("nan"), [1, [float("inf")]], 2.0]).tolist() == [True, False, False, False, True]


def test_plain_values() -> None:
    assert to_plain_value(np.array([[1, 2]])) == [[1, 2]]
    assert to_plain_value((np.float32(0.5), pd.Timestamp("2026-11-20"))) == [0.5, "2026-11-20T00:00:00"]
    assert [type(to_plain_value(value)) for value in (np.bool_(1), np.int8(1), np.float32(1), np.str_("a"))] == [
        bool,
        int,
        float,
        str,
    ]


def test_one_dict_for_one_row_is_that_row() -> None:
    assert to_prediction({"label": "a", "scores": [1, 2]}, 1).list_rows() == [{"label": "a", "scores": [1, 2]}]
    assert to_prediction({"label": ["a"]}, 1).list_rows() == [{"label": "a"}]


def test_one_dict_for_several_rows_is_refused_unless_it_holds_columns() -> None:
    with pytest.raises(ModelFailed, match="one dict for 2 rows, without 2 values under each of its keys"):
        to_prediction({"label": "ab", "p": [1, 2]}, 2)


def test_null_in_an_object_counts_as_finite_and_nan_does_not() -> None:
    assert is_finite([{"a": None, "b": 1.0}, {"a": float("nan")}, {"a": [None]}]).tolist() == [True, False, False]
