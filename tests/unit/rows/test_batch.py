"""What an answer may be: numbers and plain values, one for each row, bounded."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from serving.rows.batch import MAX_ANSWER_BYTES, MAX_ROW_BYTES, bound_answer_bytes, why_not_an_answer

DEEP: list[Any] = [[[[[[[[1.0]]]]]]]]
DEEP_OBJECT: dict[str, Any] = {"a": {"a": {"a": DEEP}}}


@pytest.mark.parametrize(
    "tensor",
    [
        np.zeros(2),
        np.zeros((2, 3)),
        np.zeros((2, 3, 4)),
        np.zeros((2, 0)),
        np.zeros((2, 1, 1, 1, 1, 1, 1, 1)),
        np.array([True, False]),
        ["a", None],
        [1, 2.5],
        [True, "ü"],
        [["a", "b"], ["c", "d"]],
        [["a"], ["b", "c"], None][:2],
        [DEEP[0], DEEP[0]],
    ],
)
def test_an_answer_has_one_entry_for_each_row(tensor: Any) -> None:
    assert why_not_an_answer((tensor,), 2) is None
    assert "for 3 rows" in (why_not_an_answer((tensor,), 3) or "")


def test_each_of_several_outputs_has_two_dimensions() -> None:
    assert why_not_an_answer((np.zeros((2, 3)), np.zeros((2, 4)), [["a"], ["b"]]), 2) is None
    assert "expected" in (why_not_an_answer((np.zeros((2, 3)), np.zeros(2)), 2) or "")
    assert "1 values for 2 rows" in (why_not_an_answer((np.zeros((2, 3)), np.zeros((1, 3))), 2) or "")


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ((), "no values at all"),
        ((np.ones(()),), "a single value"),
        ((np.zeros((2, 5, 0)),), "shape"),
        ((np.zeros((2, 0, 5)),), "shape"),
        ((np.zeros((2, 1, 1, 1, 1, 1, 1, 1, 1)),), "shape"),
        (([{1: "a"}, {}],), "neither"),
        (([[{"a": (1,)}], []],), "neither"),
        (([DEEP_OBJECT, {}],), "neither"),
        (([b"a", b"b"],), "neither"),
        (([DEEP, DEEP],), "neither"),
        (([(1,), (2,)],), "neither"),
    ],
)
def test_a_wrong_answer_is_refused_with_a_reason(tensors: Any, reason: str) -> None:
    assert reason in (why_not_an_answer(tensors, 2) or "")


def test_few_rows_have_small_answers() -> None:
    assert bound_answer_bytes(1) == MAX_ROW_BYTES
    assert bound_answer_bytes(2) == 2 * MAX_ROW_BYTES
    assert bound_answer_bytes(100_000) == MAX_ANSWER_BYTES
