"""A row is answered as recorded when its labels are the same, and its numbers within the tolerance."""

from __future__ import annotations

from typing import Any

import pytest

from serving.domain.signature import Feature, Method, ModelKind, Signature
from serving.recording.compare_with_record import ReplayTally
from serving.recording.read_records import RecordedRequest


def compare(
    now: list[Any],
    before: list[Any],
    kind: ModelKind = ModelKind.REGRESSOR,
    method: Method = "predict",
    tolerance: float = 1e-5,
) -> ReplayTally:
    tally = ReplayTally(tolerance)
    signature = Signature(features=(Feature(name="a"),), methods=(method,), kind=kind)
    request = RecordedRequest("a", "m", "1", method, 0.5, [{"a": 1.0}] * len(before), before, ())
    tally.add(request, now, 0.25, signature)
    return tally


@pytest.mark.parametrize(
    ("now", "before", "equal"),
    [
        (1.0, 1.0, True),
        (1.000009, 1.0, True),
        (1.00002, 1.0, False),
        (1_000_001, 1_000_000, True),  # the tolerance is relative to large numbers ...
        (0.00001, 0.0, True),  # ... and not to small ones
        (None, None, True),
        (None, 1.0, False),
        (1.0, None, False),
        ([1.0, 2.0], [1.0, 2.0], True),
        ([1.0, 2.1], [1.0, 2.0], False),
        ([1.0], [1.0, 2.0], False),
        ([*[0.0] * 30, 1.0], [*[0.0] * 30, 2.0], False),  # however wide the answer is
        ("a", "a", True),
        ("a", "b", False),
        ("a", 1.0, False),
        ({"a": 1}, {"a": 1}, True),
        ({"a": 1}, {"a": 2}, False),
        ([["a", 1]], [["a", 1]], True),
        ([["a", 1]], [["a", 2]], False),
        (True, True, True),
        (2**60, 2**60 + 1, False),
    ],
)
def test_answers_of_one_row(now: Any, before: Any, equal: bool) -> None:
    tally = compare([now], [before])
    assert (tally.equal, tally.differing) == (int(equal), int(not equal))
    assert tally.is_same is equal


def test_labels_that_are_numbers_are_equal_or_not() -> None:
    tally = compare([1, 2, 2], [1, 1, 2], ModelKind.CLASSIFIER, tolerance=100.0)
    assert (tally.equal, tally.differing) == (2, 1)
    assert tally.changes == {("1", "2"): 1}
    assert tally.mean is None


def test_chances_are_numbers_also_of_several_outputs() -> None:
    tally = compare(
        [[[0.5, 0.5], [1.0]], [[0.4, 0.6], [1.0]]],
        [[[0.5, 0.5], [1.0]], [[0.5, 0.5], [1.0]]],
        ModelKind.CLASSIFIER,
        "predict_proba",
    )
    assert (tally.equal, tally.differing) == (1, 1)
    assert tally.largest == pytest.approx(0.1)
    assert tally.mean == pytest.approx(0.2 / 3 / 2)


def test_differences_are_over_all_rows() -> None:
    tally = compare([1.0, 2.0, 3.5], [1.0, 2.25, 3.0])
    assert tally.largest == 0.5
    assert tally.mean == pytest.approx(0.25)
    assert tally.asked == 3
    assert (tally.recorded_seconds, tally.replayed_seconds) == ([0.5], [0.25])


def test_rows_that_are_refused_are_not_the_same_and_none_at_all_is_no_proof() -> None:
    tally = compare([1.0], [1.0])
    tally.refused["too old"] += 2
    assert tally.asked == 3
    assert not tally.is_same
    assert not ReplayTally(0.1).is_same
