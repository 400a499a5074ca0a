"""How large numbers may be: up to where estimator and graph both answer, alike, and not by chance.

Somewhere every float64 has no digits left for what matters: angles of 1e16, squares beside which nothing counts, sums
that overflow in one order and not in another. Two computations that are equal on paper part there, on some rows and at
some sizes. So many sizes are tried, and rows are asked again after they were changed by next to nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

from serving.compiling.drawing import NotCompilable
from serving.compiling.proof_rows import EXTREMES, RowMaker
from serving.compiling.prover import Prover, RefusedRows
from serving.host.estimator_model import EstimatorModel

# The first is far beyond anything measured, and has to be answered; the others end with float32 and with float64.
FIRST, LAST = 1e9, 1.7e308
GROUPS: tuple[tuple[float, ...], ...] = (
    tuple(10.0**power for power in range(10, 19)),
    (1e20, 1e25, 1e30, 3.4028234663852886e38),
    (1e50, 1e100, 1e150, 1e200, 1e300),
    (LAST,),
)
# Less will do where the model says what its numbers are like, and this is so much more.
LESS, TIMES_MORE = (1e4, 1e5, 1e6, 1e7, 1e8), 1e4
# How many columns, and mixed rows, there is time for: by how many rows of other kinds there is. More where it ends.
FEW = ((4096, 16), (1024, 6), (0, 2))
TIMES_MANY, TIMES_LAST = 8, 4

Attempt = Callable[[Sequence[float], int], None]


def find_reach(prover: Prover, maker: RowMaker, rows: int, tried: Counter[str]) -> float | None:
    """Return up to which magnitude both answer alike, None when there is no end to it; counts the rows as `tried`.

    `rows` says how many there is time for. Raises NotCompilable when there is no beginning either. Blocks.
    """
    if not maker.has_numbers:
        return None
    few = next(few for least, few in FEW if rows >= least)
    attempt = partial(_try, prover, maker, tried)
    proven, end = _climb_magnitudes(attempt, few)
    if end is None:
        return None
    if isinstance(end, RefusedRows):  # the estimator says itself where it ends
        if not proven:
            raise end
        return proven[-1]
    scale = maker.scale()
    less = [] if scale is None else [size for size in LESS if size >= scale * TIMES_MORE]
    for size in reversed([*less, *proven]):
        try:
            attempt((size,), few * TIMES_MANY)
        except NotCompilable:
            continue
        return size
    raise end


def _climb_magnitudes(attempt: Attempt, few: int) -> tuple[list[float], NotCompilable | None]:
    """Return the magnitudes that are answered, and what is wrong with the next one."""
    proven: list[float] = []
    for group in ((FIRST,), *GROUPS):
        try:
            attempt(group, few * TIMES_LAST if LAST in group else few)  # only some sums overflow
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


def _try(prover: Prover, maker: RowMaker, tried: Counter[str], magnitudes: Sequence[float], few: int) -> None:
    batch, thrice = maker.make_extremes(magnitudes, few)
    answers = prover.compare(EXTREMES, batch)
    if magnitudes == (FIRST,):
        prover.note_overflow(answers)
    if isinstance(prover.model, EstimatorModel):  # a file is the same graph either way, rounding included
        prover.require_steady(answers, thrice)
        if LAST in magnitudes:
            prover.require_growth(answers, LAST)
    tried[EXTREMES] += batch.rows
