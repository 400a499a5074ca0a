"""Make the rows that a compiled form is proved with: like those of training, far from them, and hard ones.

Many, and random from a fixed seed: they look for a difference. `serving.host.synthetic_rows` makes a few ordinary rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.compiling import hard_numbers
from serving.compiling.cells import list_cells, make_batch
from serving.compiling.find_guard import ProvableModel
from serving.compiling.hard_numbers import Numbers
from serving.compiling.landmarks import find_scale
from serving.domain.compiled_form import Guard
from serving.domain.signature import Container, Dtype
from serving.host.input_columns import dtype_of
from serving.host.synthetic_rows import SEED
from serving.rows.batch import Batch

PLAIN_ROWS = 1024  # between the splits of trees, more rows would show nothing new
UNSEEN_TEXT = "no such value"
HARD_TEXTS = (
    "",
    " ",
    "Stra\u00dfe \u0130stanbul \u00c9T\u00c9 \u00e9te\u0301",
    "don't re-use e_mail@x.org 3.14 1,000",
    "\u4f60\u597d \U0001f600 a\u00a0b\u2009c",
    "tab\tnew\nline\x00nul\ufeffbom",
    "A a AA aa",
    "\u0661\u0662\u0663 x\u00b2 \u216b",
)
_LOW, _HIGH = 0.25, 1.75
LEAST_TINY_ROWS = 96
TINY, EXTREMES = "tiny", "extremes"  # kinds of rows that a `Prover` compares by rules of their own

Draw = Callable[[np.random.Generator, int], list[Any]]


class RowMaker:
    """Makes batches for one model within its guard. Deterministic: the same calls give the same rows."""

    def __init__(
        self,
        model: ProvableModel,
        guard: Guard,
        thresholds: dict[int, NDArray[np.float64]],
        examples: Sequence[Batch],
        landmarks: NDArray[np.float64] | None = None,
    ) -> None:
        self._signature = model.signature
        self._columns = model.columns
        self._guard = guard
        self._thresholds = thresholds
        self._examples = examples
        self._landmarks = landmarks
        self._random = np.random.default_rng(SEED)
        features = enumerate(model.signature.features)
        self._numeric = [at for at, feature in features if feature.dtype is Dtype.NUMBER and at not in guard.known]
        self.has_numbers = bool(self._numeric)

    def make_batches(self, rows: int) -> Iterator[tuple[str, Batch]]:
        """Yield batches, each with the kind of its rows: `rows` rows where trees split, fewer of the other kinds."""
        yield from (("examples", batch) for batch in self._examples)
        few = min(rows, PLAIN_ROWS)
        yield "near examples", self._make_near_examples(few)
        yield "random", self._make_rows(few, self._draw_plausible)
        yield "far", self._make_rows(max(64, few // 4), self._draw_far)
        if self.has_numbers:
            yield TINY, self._make_hard(max(LEAST_TINY_ROWS, few // 4), partial(hard_numbers.make_tiny, self._random))
        known = self._list_known_numbers()
        if known.size:
            make = partial(hard_numbers.make_near_landmarks, self._random, known=known)
            yield "landmarks", self._make_hard(hard_numbers.LANDMARK_WAYS * len(known), make)
        if self._thresholds:
            yield "thresholds", self._make_rows(rows, self._draw_at_thresholds)
            yield "thresholds", self._change_one_at_a_time(rows)
        if any(feature.dtype is not Dtype.NUMBER or column.values for feature, column in self._list_columns()):
            yield "categories", self._make_rows(max(64, few // 4), self._draw_categories)
        if any(feature.nullable for feature in self._signature.features):
            yield "missing", self._make_with_nulls(max(64, few // 4))

    def make_extremes(self, magnitudes: Sequence[float], few: int) -> tuple[Batch, int]:
        """Return rows with numbers as large as each of `magnitudes`, and how many of them come three times.

        These are the last rows: as they are, with the enormous numbers changed slightly, and changed as by rounding.
        """
        chosen = self._random.permutation(len(self._numeric))[:few].tolist()
        mixed_rows = few * len(magnitudes)
        make = partial(hard_numbers.make_extremes, self._random, magnitudes=magnitudes, columns=chosen, few=few)
        return self._make_hard(hard_numbers.count_extremes(magnitudes, chosen, few), make, mixed_rows), mixed_rows

    def find_scale(self) -> float | None:
        """Return the largest number known of all columns; None when nothing is known of one of them."""
        return find_scale([self._columns[at] for at in self._numeric], self._list_known_numbers())

    def make_plausible(self, rows: int) -> Batch:
        """Return rows like those of training."""
        return self._make_rows(rows, self._draw_plausible)

    # --- kinds of cells ----------------------------------------------------------------------------------------------

    def _draw_plausible(self, at: int, rows: int) -> list[Any]:
        column, dtype = self._columns[at], self._signature.features[at].dtype
        if dtype is Dtype.BOOL:
            return self._random.integers(0, 2, rows).astype(bool).tolist()  # type: ignore[no-any-return]
        if dtype is not Dtype.NUMBER:
            return self._pick_values(self._list_texts(at), rows)
        if at in self._guard.known:
            return self._pick_values(list(self._guard.known[at]), rows)
        low, high = self._find_range(at)
        numbers = self._random.uniform(low - 0.25 * (high - low), high + 0.25 * (high - low), rows)
        is_round = self._random.random(rows) < 0.2
        numbers[is_round] = np.round(numbers[is_round])
        if column.values and dtype_of(column.values) is Dtype.NUMBER:
            is_kept = self._random.random(rows) < 0.4
            numbers[is_kept] = self._random.choice(np.asarray(column.values, dtype=float), int(is_kept.sum()))
        return self._keep_in_bounds(numbers)

    def _draw_far(self, at: int, rows: int) -> list[Any]:
        if self._signature.features[at].dtype is not Dtype.NUMBER or at in self._guard.known:
            return self._draw_plausible(at, rows)
        low, high = self._find_range(at)
        return self._keep_in_bounds(self._random.normal((low + high) / 2, 20 * max(high - low, abs(high), 1e-3), rows))

    def _draw_at_thresholds(self, at: int, rows: int) -> list[Any]:
        numbers = self._thresholds.get(at)
        cells = self._draw_plausible(at, rows)
        if numbers is None or at in self._guard.known:
            return cells
        chosen = self._move_by_an_ulp(self._random.choice(numbers, rows))
        is_plain = self._random.random(rows) < 0.3
        return self._keep_in_bounds(np.where(is_plain, np.asarray(cells, dtype=float), chosen))

    def _draw_categories(self, at: int, rows: int) -> list[Any]:
        column, dtype = self._columns[at], self._signature.features[at].dtype
        if at in self._guard.known:
            return list(np.resize(np.array(self._guard.known[at], dtype=object), rows))
        if dtype is Dtype.NUMBER and column.values and dtype_of(column.values) is Dtype.NUMBER:
            edges = np.asarray(column.values, dtype=float)
            edges = np.concatenate([edges, edges + 0.5, edges[:1] - 1, edges[-1:] + 1, np.nextafter(edges, np.inf)])
            return self._keep_in_bounds(self._random.choice(edges, rows))
        return self._draw_plausible(at, rows)

    def _move_by_an_ulp(self, numbers: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return each number, in turns at random: as it is, or an ulp beside, in float64 or rounded to float32."""
        with np.errstate(over="ignore"):
            single = numbers.astype(np.float32)
            ways = [
                numbers,
                np.nextafter(numbers, np.inf),
                np.nextafter(numbers, -np.inf),
                single.astype(np.float64),
                np.nextafter(single, np.float32(np.inf)).astype(np.float64),
                np.nextafter(single, np.float32(-np.inf)).astype(np.float64),
            ]
        beside: NDArray[np.float64] = np.choose(self._random.integers(0, len(ways), len(numbers)), ways)
        return beside

    # --- batches -----------------------------------------------------------------------------------------------------

    def _make_near_examples(self, rows: int) -> Batch:
        """Return rows close to the examples, or to plausible rows when there are none."""
        base = (
            list_cells(self._examples[0]) if self._examples else self._draw_cells(min(rows, 32), self._draw_plausible)
        )
        cells = []
        for at, feature in enumerate(self._signature.features):
            own: list[Any] = list(np.resize(np.array(base[at], dtype=object), rows))
            if feature.dtype is Dtype.NUMBER and at not in self._guard.known:
                numbers = np.array([np.nan if cell is None else cell for cell in own], dtype=np.float64)
                low, high = self._find_range(at)
                shift = self._random.normal(0, 0.02 * max(high - low, 1e-9), rows)
                own = self._keep_in_bounds(numbers + np.where(self._random.random(rows) < 0.5, shift, 0.0))
            cells.append(own)
        return self._make_batch(cells)

    def _change_one_at_a_time(self, rows: int) -> Batch:
        cells = self._draw_cells(rows, self._draw_plausible)
        places = np.array([at for at in self._thresholds if at not in self._guard.known], dtype=int)
        if len(places):
            for row, at in enumerate(self._random.choice(places, rows).tolist()):
                cells[at][row] = self._keep_in_bounds(
                    self._move_by_an_ulp(self._random.choice(self._thresholds[at], 1))
                )[0]
        return self._make_batch(cells)

    def _make_with_nulls(self, rows: int) -> Batch:
        cells = self._draw_cells(rows, self._draw_plausible)
        for at, feature in enumerate(self._signature.features):
            if feature.nullable:
                share = (0.1, 0.5, 1.0)[at % 3]
                for row in np.flatnonzero(self._random.random(rows) < share).tolist():
                    cells[at][row] = None
        return self._make_batch(cells)

    def _make_hard(self, rows: int, make: Callable[[Numbers], Numbers], mixed_rows: int = 0) -> Batch:
        """Return rows whose numbers are `make` of plausible ones; other columns repeat their last cells."""
        cells = self._draw_cells(rows, self._draw_plausible)
        others = set(range(len(cells))) - set(self._numeric)
        made = make(np.array([cells[at] for at in self._numeric], dtype=np.float64).T)
        if self._guard.smallest is not None:
            made = np.abs(made)
        for place, at in enumerate(self._numeric):
            cells[at] = self._keep_in_bounds(made[:, place])
        for at in others if mixed_rows else ():
            cells[at] = (
                cells[at][: rows - 2 * mixed_rows] + 2 * cells[at][rows - 3 * mixed_rows : rows - 2 * mixed_rows]
            )
        return self._make_batch(cells)

    def _make_rows(self, rows: int, draw: Callable[[int, int], list[Any]]) -> Batch:
        return self._make_batch(self._draw_cells(rows, draw))

    def _draw_cells(self, rows: int, draw: Callable[[int, int], list[Any]]) -> list[list[Any]]:
        return [draw(at, rows) for at in range(len(self._columns))]

    def _make_batch(self, cells: list[list[Any]]) -> Batch:
        return make_batch(cells, self._signature)

    # --- what is known of a column -----------------------------------------------------------------------------------

    def _list_columns(self) -> Iterator[tuple[Any, Any]]:
        return zip(self._signature.features, self._columns, strict=True)

    def _find_range(self, at: int) -> tuple[float, float]:
        column = self._columns[at]
        if column.values and dtype_of(column.values) is Dtype.NUMBER:
            return float(min(column.values)), float(max(column.values))
        low = _LOW if column.low is None else column.low
        high = _HIGH if column.high is None else column.high
        return low, high

    def _list_known_numbers(self) -> Numbers:
        return np.empty((0, len(self._numeric))) if self._landmarks is None else self._landmarks[:, self._numeric]

    def _list_texts(self, at: int) -> list[Any]:
        if at in self._guard.known:
            return list(self._guard.known[at])
        values: list[Any] = [value for value in self._columns[at].values if isinstance(value, str)]
        if self._signature.container is Container.TEXTS:
            words = sorted({word for value in values for word in value.split()})
            longer = [" ".join(self._pick_values(words, 12)) for _ in range(16)] if words else []
            return [*values, *longer, *(text.upper() for text in longer[:4]), *HARD_TEXTS]
        return [*values, *values, UNSEEN_TEXT, *HARD_TEXTS]

    def _pick_values(self, values: list[Any], rows: int) -> list[Any]:
        return [values[place] for place in self._random.integers(0, len(values), rows).tolist()]

    def _keep_in_bounds(self, numbers: NDArray[np.float64]) -> list[Any]:
        if self._guard.smallest is not None:
            numbers = np.where(numbers < self._guard.smallest, self._guard.smallest, numbers)  # -0.0 stays
        return list(numbers.tolist())
