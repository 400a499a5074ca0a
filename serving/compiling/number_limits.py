"""Find how large numbers may be: up to the size where estimator and graph still answer alike, and not by chance.

Enormous numbers leave no digits for what matters: an angle of 1e16, a square beside which other terms vanish, a sum
that overflows in one order and not in another. There, two computations that are equal on paper differ, on some rows and
at some sizes. Therefore many sizes are tried, and rows are tried again after a tiny change.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

from serving.compiling.drawing import NotCompilable
from serving.compiling.proof_rows import EXTREMES, RowMaker
from serving.compiling.prover import Prover, RefusedRows
from serving.host.estimator_model import EstimatorModel

# FIRST is far beyond any measurement, and must be answered alike. The groups end with float32 and with float64.
FIRST, LAST = 1e9, 1.7e308
GROUPS: tuple[tuple[float, ...], ...] = (
    tuple(10.0**power for power in range(10, 19)),
    (1e20, 1e25, 1e30, 3.4028234663852886e38),
    (1e50, 1e100, 1e150, 1e200, 1e300),
    (LAST,),
)
# A lower limit is enough where the model tells how large its numbers are, and the limit is this many times larger.
LOWER, TIMES_SCALE = (1e4, 1e5, 1e6, 1e7, 1e8), 1e4
# How many columns, and how many mixed rows, there is time for, by the number of other rows; more of them at the limit.
FEW_BY_ROWS = ((4096, 16), (1024, 6), (0, 2))
TIMES_AT_LIMIT, TIMES_AT_LAST = 8, 4

Attempt = Callable[[Sequence[float], int], None]


def find_number_limit(prover: Prover, maker: RowMaker, rows: int, tried: Counter[str]) -> float | None:
    """Return the largest magnitude at which both answer alike; None when they do at every one. Blocks.

    `rows` is the number of rows there is time for; rows that were compared are counted in `tried`. Raises NotCompilable
    when they differ at every magnitude.
    """
    if not maker.has_numbers:
        return None
    few = next(few for least, few in FEW_BY_ROWS if rows >= least)
    attempt = partial(_try_magnitudes, prover, maker, tried)
    proven, end = _find_answered_magnitudes(attempt, few)
    if end is None:
        return None
    if isinstance(end, RefusedRows):  # the estimator itself refuses larger numbers
        if not proven:
            raise end
        return proven[-1]
    scale = maker.find_scale()
    lower = [] if scale is None else [size for size in LOWER if size >= scale * TIMES_SCALE]
    for size in reversed([*lower, *proven]):
        try:
            attempt((size,), few * TIMES_AT_LIMIT)
        except NotCompilable:
            continue
        return size
    raise end


def _find_answered_magnitudes(attempt: Attempt, few: int) -> tuple[list[float], NotCompilable | None]:
    """Return the magnitudes at which both answer alike, and why the next one fails (None: none fails)."""
    proven: list[float] = []
    for group in ((FIRST,), *GROUPS):
        try:
            attempt(group, few * TIMES_AT_LAST if LAST in group else few)  # only some sums overflow
        except NotCompilable as error:
            if len(group) == 1:
                return proven, error
            for size in group:
                try:
                    attempt((size,), few)
                except NotCompilable as one:
                    return proven, one
                proven.append(size)
        else:
            proven.extend(group)
    return proven, None


def _try_magnitudes(
    prover: Prover, maker: RowMaker, tried: Counter[str], magnitudes: Sequence[float], few: int
) -> None:
    batch, mixed_rows = maker.make_extremes(magnitudes, few)
    answers = prover.compare_answers(EXTREMES, batch)
    if magnitudes == (FIRST,):
        prover.note_overflow(answers)
    if isinstance(prover.model, EstimatorModel):  # a file is the same graph in its host, rounding included
        prover.require_steady(answers, mixed_rows)
        if LAST in magnitudes:
            prover.require_growth(answers, LAST)
    tried[EXTREMES] += batch.rows
