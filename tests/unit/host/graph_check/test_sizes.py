"""Sizes that are linear in the number of rows: results are exact, or None."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.host.graph_check.sizes import ONE, ROWS, Size, multiply_sizes

SIZES = st.builds(Size, st.integers(-50, 50), st.integers(-50, 50))
MANY_ROWS = st.integers(1, 1000)


@given(SIZES, SIZES, MANY_ROWS)
def test_arithmetic_holds_for_every_number_of_rows(one: Size, other: Size, rows: int) -> None:
    assert (one + other).compute_for(rows) == one.compute_for(rows) + other.compute_for(rows)
    assert (one - other).compute_for(rows) == one.compute_for(rows) - other.compute_for(rows)
    made = one.multiply(other)
    assert made is None or made.compute_for(rows) == one.compute_for(rows) * other.compute_for(rows)
    quotient = one.divide(other)
    assert quotient is None or quotient.compute_for(rows) * other.compute_for(rows) == one.compute_for(rows)


@given(SIZES)
def test_a_length_is_never_negative(size: Size) -> None:
    assert size.is_length == all(size.compute_for(rows) >= 0 for rows in (1, 2, 10, 1000))


def test_a_quadratic_product_has_no_size() -> None:
    assert multiply_sizes([ROWS, Size(0, 3), ROWS]) is None
    assert multiply_sizes([ROWS, Size(0, 3), ONE]) == Size(3, 0)
    assert multiply_sizes([]) == ONE


@pytest.mark.parametrize(
    ("size", "by", "quotient"),
    [
        (Size(6, 4), Size(0, 2), Size(3, 2)),
        (Size(6, 3), Size(0, 2), None),
        (Size(6, 4), Size(3, 2), Size(0, 2)),
        (Size(6, 5), Size(3, 2), None),
        (Size(0, 6), Size(1, 0), None),
        (Size(6, 0), Size(0, 0), None),
        (Size(0, 6), Size(0, -3), Size(0, -2)),
    ],
)
def test_a_quotient_leaves_no_remainder(size: Size, by: Size, quotient: Size | None) -> None:
    assert size.divide(by) == quotient


def test_sizes_are_written_as_people_write_them() -> None:
    assert [str(size) for size in (ROWS, Size(6, 0), Size(2, -1), Size(0, 7), Size(1, 3))] == [
        "n",
        "6n",
        "2n-1",
        "7",
        "n+3",
    ]
