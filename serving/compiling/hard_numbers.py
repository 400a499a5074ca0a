"""Make numbers that show a difference between formulas that are equal on paper: tiny, enormous, and both in one row.

Small numbers are lost beside large ones, products vanish or overflow in one formula earlier than in the other, and
scikit-learn takes branches: for example, it treats a norm below 10 eps as 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

EPS = float(np.finfo(np.float64).eps)
# where scikit-learn, or the float64 format itself, takes another branch
BRANCHES = (5e-324, float(np.finfo(np.float64).smallest_normal), 1e-162, 1e-154, EPS, 10 * EPS, 1e-8)
# changes that must not change an answer with a meaning: a few ulp, and the sum of many roundings
SLIGHTLY, AS_ROUNDING = 2.0**-51, 2.0**-43
LANDMARK_WAYS = 4
_LEAST_POWER, _SMALL_POWER = -323.3, -8.0


def add_neighbours(numbers: Sequence[float]) -> Numbers:
    """Return each number and its two neighbours."""
    made = np.asarray(numbers, dtype=np.float64)
    return np.stack([np.nextafter(made, -np.inf), made, np.nextafter(made, np.inf)], axis=1).ravel()


def make_tiny(random: np.random.Generator, plausible: Numbers) -> Numbers:
    """Return as many rows as `plausible` has, with numbers close to 0, alone and among plausible ones."""
    ways = [_make_alike, _make_at_branches, _put_one_among_plausible, _make_any_size, _make_zeros, _scale_units]
    parts = np.array_split(plausible, len(ways))
    return np.concatenate([way(random, part) for way, part in zip(ways, parts, strict=True)])


def make_extremes(
    random: np.random.Generator, plausible: Numbers, *, magnitudes: Sequence[float], columns: Sequence[int], few: int
) -> Numbers:
    """Return rows that hold each of `magnitudes`: alone in each of `columns`, in all cells, and mixed with any others.

    The last ``3 * few * len(magnitudes)`` rows are the mixed ones, three times: as they are, with the enormous numbers
    changed by `SLIGHTLY`, and with these changed by `AS_ROUNDING`. `plausible` must have `count_extremes` rows.
    """
    width, single = plausible.shape[1], count_extremes(magnitudes, columns, 0)
    made = plausible.copy()
    sizes = random.uniform(0.1, 1, made.shape)
    for row, (magnitude, way, column) in enumerate(product(magnitudes, range(5), [*columns, None])):
        cells = slice(None) if column is None else column
        near = magnitude * sizes[row, cells]
        made[row, cells] = (magnitude, -magnitude, near, -near, 1 / magnitude)[way]
    is_made = np.zeros((few * len(magnitudes), width), dtype=np.bool_)
    for place, magnitude in enumerate(magnitudes):
        rows = slice(place * few, place * few + few)
        made[single:][rows], is_made[rows] = _make_enormous(random, plausible[single:][rows], magnitude)
    whole = made[single : single + len(is_made)]
    changed = [np.where(is_made, whole * (1 - share), whole) for share in (SLIGHTLY, AS_ROUNDING)]
    return np.concatenate([made[: single + len(is_made)], *changed])


def count_extremes(magnitudes: Sequence[float], columns: Sequence[int], few: int) -> int:
    """Return how many rows `make_extremes` makes."""
    return len(magnitudes) * (5 * (len(columns) + 1) + 3 * few)


def make_near_landmarks(random: np.random.Generator, plausible: Numbers, *, known: Numbers) -> Numbers:
    """Return `LANDMARK_WAYS` rows for each of `known`: as it is, an ulp beside, half plausible, 0 but for one cell."""
    ways = random.integers(-1, 2, known.shape)
    beside_known = np.where(ways, np.nextafter(known, np.where(ways > 0, np.inf, -np.inf)), known)
    mixed = np.where(random.random(known.shape) < 0.5, known, plausible[: len(known)])
    kept = np.arange(known.shape[1]) == random.integers(0, known.shape[1], (len(known), 1))
    return np.concatenate([known, beside_known, mixed, np.where(kept, known, 0.0)])


def _make_enormous(
    random: np.random.Generator, plausible: Numbers, magnitude: float
) -> tuple[Numbers, NDArray[np.bool_]]:
    """Return rows of numbers up to `magnitude`, and which of their cells are not taken from `plausible`.

    Four kinds of rows, in turn: all cells about as large; only one; half of them, the others of any size; all of any
    size.
    """
    rows, width = plausible.shape
    turn = (np.arange(rows) % 4)[:, None]
    large = magnitude * random.uniform(0.5, 1, (rows, width))
    any_size = np.maximum(magnitude * 10.0 ** random.uniform(-20 - np.log10(magnitude), 0, (rows, width)), 5e-324)
    is_any = (turn == 3) | ((turn == 2) & (random.random((rows, width)) < 0.5))
    is_made = (turn != 1) | (np.arange(width) == random.integers(0, width, (rows, 1)))
    sizes = np.where(is_any, any_size, large) * _make_signs(random, (rows, width))
    return np.where(is_made, sizes, plausible), is_made


def _make_signs(random: np.random.Generator, shape: tuple[int, ...]) -> Numbers:
    signs: Numbers = random.choice([1.0, -1.0], shape)
    return signs


def _make_small(random: np.random.Generator, shape: tuple[int, ...]) -> Numbers:
    sizes: Numbers = 10.0 ** random.uniform(_LEAST_POWER, _SMALL_POWER, shape)
    return sizes * _make_signs(random, shape)


def _make_alike(random: np.random.Generator, plausible: Numbers) -> Numbers:
    return (
        _make_small(random, (len(plausible), 1))
        * random.uniform(0.1, 1, plausible.shape)
        * _make_signs(random, plausible.shape)
    )


def _make_at_branches(random: np.random.Generator, plausible: Numbers) -> Numbers:
    """Return rows whose largest number, sum or norm is at a branch, or one ulp beside it."""
    rows, width = plausible.shape
    sizes = np.resize(add_neighbours(BRANCHES), rows) * _make_signs(random, (rows,))
    shares = np.zeros((rows, width))
    shares[np.arange(rows), random.integers(0, width, rows)] = 1
    turn = np.arange(rows) // (3 * len(BRANCHES)) % 3
    shares[turn == 1] = 1 / np.sqrt(width)
    shares[turn == 2] = 1 / width
    return sizes[:, None] * shares


def _put_one_among_plausible(random: np.random.Generator, plausible: Numbers) -> Numbers:
    rows, width = plausible.shape
    chosen = np.concatenate([_make_small(random, (rows,)), add_neighbours(BRANCHES), [0.0, -0.0]])
    made = plausible.copy()
    made[np.arange(rows), random.integers(0, width, rows)] = random.choice(chosen, rows)
    return made


def _make_any_size(random: np.random.Generator, plausible: Numbers) -> Numbers:
    return np.where(random.random(plausible.shape) < 0.2, 0.0, _make_small(random, plausible.shape))


def _make_zeros(random: np.random.Generator, plausible: Numbers) -> Numbers:
    made = random.choice([0.0, -0.0], plausible.shape)
    made[:1], made[1:2] = 0.0, -0.0
    kept = random.random(plausible.shape) < np.where(np.arange(len(plausible)) % 2, 0.3, 0.0)[:, None]
    return np.where(kept, plausible, made)


def _scale_units(random: np.random.Generator, plausible: Numbers) -> Numbers:
    """Return plausible rows as if they were measured in other units: exponentials vanish, or overflow."""
    return plausible * 10.0 ** random.uniform(-12, 4, (len(plausible), 1)) * _make_signs(random, (len(plausible), 1))
