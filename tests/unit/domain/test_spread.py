"""How much the answers of two versions differ, from 0 for equal ones to 1 for ones that never meet."""

from __future__ import annotations

from typing import Any

import pytest

from serving.domain.signature import Feature, ModelKind, Signature
from serving.domain.spread import LEAST_ANSWERS, Spread, compare_spreads, make_spread, merge_spreads


def spread(*answers: Any, kind: ModelKind = ModelKind.REGRESSOR, method: Any = "predict") -> Spread:
    signature = Signature(features=(Feature(name="x"),), methods=(method,), kind=kind)
    return make_spread(signature, [answer if isinstance(answer, tuple) else (answer,) for answer in answers])


def labels(**counts: int) -> Spread:
    return spread(*[name for name, count in counts.items() for _ in range(count)], kind=ModelKind.CLASSIFIER)


def test_equal_answers_have_no_effect() -> None:
    (shift,) = compare_spreads(spread(*range(101)), spread(*range(101)))
    assert (shift.output, shift.effect) == ("predict", 0.0)
    assert shift.old == shift.new == {"0.05": 5.0, "0.25": 25.0, "0.5": 50.0, "0.75": 75.0, "0.95": 95.0}


@pytest.mark.parametrize(("by", "effect"), [(25, 0.25), (50, 0.5), (100, 1.0), (1000, 1.0)])
def test_the_effect_of_numbers_is_the_largest_distance_of_their_cumulated_shares(by: int, effect: float) -> None:
    (shift,) = compare_spreads(spread(*range(100)), spread(*range(by, 100 + by)))
    assert shift.effect == pytest.approx(effect)


def test_the_effect_of_labels_does_not_depend_on_an_order() -> None:
    (shift,) = compare_spreads(labels(yes=60, no=40), labels(yes=30, no=50, maybe=20))
    assert shift.effect == pytest.approx(0.3)
    assert shift.old == {"yes": 0.6, "no": 0.4, "maybe": 0.0}
    assert shift.new == pytest.approx({"yes": 0.3, "no": 0.5, "maybe": 0.2})
    (apart,) = compare_spreads(labels(yes=60), labels(no=50))
    assert apart.effect == 1.0


def test_few_answers_say_nothing() -> None:
    many, few = spread(*range(100)), spread(*range(LEAST_ANSWERS - 1))
    assert compare_spreads(many, few) == compare_spreads(few, many) == ()
    assert compare_spreads(labels(a=100), labels(a=LEAST_ANSWERS - 1)) == ()
    assert compare_spreads(spread(), spread()) == ()


def test_numbers_of_a_classifier_are_labels_and_those_that_are_not_finite_are_left_out() -> None:
    (output,) = spread(0, 1, 1, True, None, kind=ModelKind.CLASSIFIER).outputs
    assert output.labels == {"0": 1, "1": 2, "true": 1, "null": 1}
    (numbers,) = spread(0.5, float("nan"), None, float("inf"), 2).outputs
    assert numbers.numbers == (0.5, 2.0)


def test_each_output_is_compared() -> None:
    old, new = spread(*[(n, 0.0) for n in range(50)]), spread(*[(n, 1.0) for n in range(50)])
    assert [(one.output, one.effect) for one in compare_spreads(old, new)] == [("predict[0]", 0.0), ("predict[1]", 1.0)]


def test_samples_of_workers_are_put_together() -> None:
    merged = merge_spreads([spread(*range(50)), spread(*range(50, 100))])
    assert merged.answers == 100
    assert compare_spreads(merged, spread(*range(100)))[0].effect == 0.0
    assert merge_spreads([labels(a=1, b=2), labels(b=3, c=1)]).outputs[0].labels == {"a": 1, "b": 5, "c": 1}


def test_no_answer_is_in_a_text() -> None:
    assert "secret" not in repr(labels(secret=30))
