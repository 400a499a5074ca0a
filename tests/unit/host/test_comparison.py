"""Comparing an answer with the expected one: equal labels, numbers within a tolerance, null for NaN."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from serving.host.comparison import compare_values, relative_distances

NAN = math.nan


@pytest.mark.parametrize(
    ("expected", "got"),
    [
        (1.0, 1.0 + 1e-9),
        (0.0, 1e-12),
        (1, 1.0),
        (1.0, 1),
        ("a", "a"),
        (True, True),
        (None, None),
        (None, NAN),
        (None, math.inf),
        (NAN, NAN),
        ([1.0, [2.0, "a"]], [1.0 + 1e-9, [2.0, "a"]]),
        ([], []),
    ],
)
def test_answers_within_the_tolerance(expected: Any, got: Any) -> None:
    assert not compare_values(expected, got, rtol=1e-6, atol=1e-9).is_beyond


@pytest.mark.parametrize(
    ("expected", "got", "distance"),
    [
        (1.0, 1.1, 0.1),
        (10_000_001, 10_000_002, 1.0),  # labels: within rtol, but not the same
        ("a", "b", 0.0),
        (1, True, 0.0),
        (1, "1", 0.0),
        (1.0, None, 0.0),
        (None, 1.0, 0.0),
        (1.0, NAN, 0.0),
        ([1.0, 2.0, 3.0], [1.0, 2.5, 3.2], 0.5),
        ([[1.0], [2.0]], [[1.0], [2.25]], 0.25),
    ],
)
def test_answers_beyond_the_tolerance(expected: Any, got: Any, distance: float) -> None:
    found = compare_values(expected, got, rtol=1e-6, atol=1e-9)
    assert found.is_beyond
    assert found.distance == pytest.approx(distance)


@pytest.mark.parametrize(
    ("expected", "got", "reason"),
    [
        ([1.0], [1.0, 2.0], "1 values expected, 2 given"),
        ([1.0], 1.0, "one is a list"),
        (1.0, [1.0], "one is a list"),
        ([[1.0]], [[1.0, 2.0]], "1 values expected, 2 given"),
    ],
)
@pytest.mark.parametrize("is_shape_only", [False, True])
def test_answers_of_another_shape(expected: Any, got: Any, reason: str, is_shape_only: bool) -> None:
    found = compare_values(expected, got, 1.0, 1.0, is_shape_only=is_shape_only)
    assert found.is_beyond
    assert reason in found.reason


def test_models_that_are_not_deterministic_are_compared_by_shape_only() -> None:
    assert not compare_values([1.0, "a", [2]], [9.0, "b", [3]], 0, 0, is_shape_only=True).is_beyond


def test_the_tolerance_is_absolute_plus_relative() -> None:
    assert not compare_values(100.0, 101.0, rtol=0.01, atol=0.0).is_beyond
    assert compare_values(100.0, 101.1, rtol=0.01, atol=0.0).is_beyond
    assert not compare_values(0.0, 0.5, rtol=0.0, atol=0.5).is_beyond


def test_objects_must_have_the_same_keys_and_values_within_the_tolerance() -> None:
    assert not compare_values({"a": 1.0, "b": "x"}, {"b": "x", "a": 1.0 + 1e-9}, 1e-6, 0.0).is_beyond
    assert compare_values({"a": 1.0}, {"a": 1.1}, 1e-6, 0.0).is_beyond
    assert compare_values([{"a": 1.0}], [{"b": 1.0}], 1e-6, 0.0).reason == "keys a expected, b given"
    assert compare_values({"a": 1.0}, 1.0, 1e-6, 0.0).is_beyond


def test_arrays_are_compared_by_the_number_or_by_the_scale() -> None:
    wanted = np.array([[2.0, 1e-9], [np.nan, np.inf], [-4.0, 0.0]])
    given = np.array([[2.5, 2e-9], [np.nan, np.inf], [-4.0, 0.5]])
    np.testing.assert_allclose(relative_distances(wanted, given), [[0.25, 1e-9], [0, 0], [0, 0.5]])
    small = np.array([1e-3, 2e-3])
    np.testing.assert_allclose(relative_distances(small, small + 1e-3), [0.5, 0.5])


@pytest.mark.parametrize(("wanted", "given"), [(np.nan, 1.0), (1.0, np.nan), (np.inf, 1.0), (1.0, -np.inf)])
def test_numbers_that_are_not_finite_are_infinitely_far_from_others(wanted: float, given: float) -> None:
    assert relative_distances(np.array([wanted, 1.0]), np.array([given, 1.0])).tolist() == [np.inf, 0.0]


def test_a_scale_is_computed_only_where_something_differs() -> None:
    asked: list[Any] = []

    def count_call(sizes: Any) -> float:
        asked.append(sizes.tolist())
        return 10.0

    same = np.array([1.0, np.inf])
    assert relative_distances(same, same, count_call).tolist() == [0.0, 0.0]
    assert asked == []
    assert relative_distances(same, np.array([2.0, np.inf]), count_call).tolist() == [0.1, 0.0]
    assert asked == [[1.0, 0.0]]
