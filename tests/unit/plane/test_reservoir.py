"""The sample is uniform, old things fade, and it is bounded in number and in bytes."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

import pytest

from serving.plane.reservoir import LEAST_CHANCE, MOST_AT_ONCE, Reservoir


def pass_by(reservoir: Reservoir[int], numbers: range, sizes: Iterable[int] = (1,), nbytes: int = 1) -> None:
    """Let numbers pass, in portions of `sizes`, as those of requests."""
    turns = [*sizes]
    start, turn = 0, 0
    while start < len(numbers):
        count = min(turns[turn % len(turns)], len(numbers) - start)
        reservoir.wait -= count
        if reservoir.wait < 0:
            for place in reservoir.draw(count):
                reservoir.put(numbers[start + place], nbytes)
        start, turn = start + count, turn + 1


@pytest.mark.parametrize("sizes", [(1,), (3, 1, 7), (150,)])
def test_each_thing_is_as_likely_as_any_other(sizes: tuple[int, ...]) -> None:
    rows, passing, trials, bins = 50, 2000, 400, 20
    counts = [0] * bins
    for trial in range(trials):
        reservoir: Reservoir[int] = Reservoir(rows, 1 << 20, Random(trial))
        pass_by(reservoir, range(passing), sizes)
        assert len(reservoir.items) == len(set(reservoir.items)) == rows
        for number in reservoir.items:
            counts[number * bins // passing] += 1
    expected = rows * trials / bins
    chi_squared = sum((count - expected) ** 2 / expected for count in counts)
    assert chi_squared < 43.8, counts  # exceeded by chance once in 1000 times, with 19 degrees of freedom


def test_what_is_old_fades() -> None:
    rows, passing, trials = 20, 30_000, 40
    ages = []
    for trial in range(trials):
        reservoir: Reservoir[int] = Reservoir(rows, 1 << 20, Random(trial))
        pass_by(reservoir, range(passing))
        ages += [passing - number for number in reservoir.items]
    assert sum(ages) / len(ages) == pytest.approx(rows / LEAST_CHANCE, rel=0.15)


def test_few_things_are_all_there() -> None:
    reservoir: Reservoir[int] = Reservoir(100, 1 << 20)
    pass_by(reservoir, range(100), (9,))
    assert reservoir.items == [*range(100)]


def test_it_has_no_more_bytes_than_it_may() -> None:
    reservoir: Reservoir[int] = Reservoir(100, 1600, Random(1))
    pass_by(reservoir, range(1000), nbytes=50)
    assert (len(reservoir.items), reservoir.nbytes) == (32, 1600)
    pass_by(reservoir, range(20_000), nbytes=90)
    assert reservoir.nbytes <= 1600
    assert len(reservoir.items) == 17, "fewer, as they are larger"
    pass_by(reservoir, range(100_000), nbytes=10)
    assert len(reservoir.items) == 100, "and more again"


def test_one_thing_does_not_take_the_place_of_all() -> None:
    reservoir: Reservoir[int] = Reservoir(100, 1600)
    pass_by(reservoir, range(10), nbytes=100)
    pass_by(reservoir, range(10), nbytes=101)
    assert reservoir.nbytes == 1000


def test_of_many_at_once_some_are_taken_from_everywhere() -> None:
    reservoir: Reservoir[int] = Reservoir(1000, 1 << 20)
    pass_by(reservoir, range(100_000), (100_000,))
    assert MOST_AT_ONCE / 2 <= len(reservoir.items) <= MOST_AT_ONCE
    assert reservoir.items[-1] > 90_000
