"""Dates and durations of NumPy and Arrow as ISO 8601 text, which is their form in all protocols."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.rows.conversion import YIELD_SECONDS

PIECE_VALUES = 10_000

_UNITS = {"W": (604_800, 1), "D": (86_400, 1), "h": (3_600, 1), "m": (60, 1), "s": (1, 1)}
_UNITS |= {"ms": (1, 1_000), "us": (1, 1_000_000), "ns": (1, 1_000_000_000)}


def to_iso_texts(moments: NDArray[Any]) -> list[str | None]:
    """Return datetime64 or timedelta64 of shape (rows,) as texts, None for NaT; exact in every unit.

    A duration is a text such as ``P1DT0.5S``; the days of a negative duration are negative. Blocks; releases the
    interpreter lock between pieces of ten thousand.
    """
    moments = moments.astype(moments.dtype.newbyteorder("="), copy=False)  # NumPy writes others down wrong
    write = _dates if moments.dtype.kind == "M" else _durations
    texts: list[str | None] = []
    for start in range(0, len(moments), PIECE_VALUES):
        piece = moments[start : start + PIECE_VALUES]
        texts += [None if is_missing else text for text, is_missing in zip(write(piece), np.isnat(piece), strict=True)]
        if len(moments) > PIECE_VALUES:
            time.sleep(YIELD_SECONDS)
    return texts


def _dates(moments: NDArray[Any]) -> list[str]:
    return list(np.datetime_as_string(moments).tolist())


def _durations(moments: NDArray[Any]) -> list[str]:
    unit, multiple = np.datetime_data(moments.dtype)
    seconds, fraction = _UNITS[unit]
    day = 86_400 * fraction
    digits = len(str(fraction)) - 1
    texts = []
    for count in moments.view(np.int64).tolist():
        days, rest = divmod(count * multiple * seconds, day)
        whole, part = divmod(rest, fraction)
        texts.append(f"P{days}DT{whole}.{part:0{digits}d}S" if part else f"P{days}DT{whole}S")
    return texts
