"""Converts columns of dates and durations: ISO 8601 texts on the wire, pandas' own dtypes in a table."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.host.optional_pandas import HAS_PANDAS
from serving.host.optional_pandas import pandas as pd

DATE, DURATION = "M", "m"  # kinds of NumPy's dtypes

_KNOWS_ISO = HAS_PANDAS and int(pd.__version__.split(".")[0]) >= 2  # older ones take any text that looks like a date
_ISO_DATE = re.compile(r"\d{4}-\d\d-\d\d|\d{8}(\D|$)")

EXAMPLES = {
    DATE: ("2024-01-15T10:30:00", "2023-07-01T00:00:00", "2024-02-29T23:59:59"),
    DURATION: ("P1D", "PT36H", "PT90S"),
}


def parse_dates(cells: NDArray[Any], kind: str, name: str) -> NDArray[Any]:
    """Convert text, or None for a missing value, to datetime64[ns] or timedelta64[ns].

    Raises ValueError, which names the column, for text that is not ISO 8601 and for dates of different time zones.
    """
    texts = [None if cell is None or cell != cell else cell for cell in cells.tolist()]  # noqa: PLR0124  (NaN)
    wrong = next((cell for cell in texts if cell is not None and not isinstance(cell, str)), None)
    try:
        if wrong is not None:
            raise ValueError(f"got {wrong!r}")
        given: Any = texts  # pandas' stubs do not allow None
        found: Any = _parse_iso_dates(given) if kind == DATE else pd.to_timedelta(given)
        if kind == DATE and found.tz is not None:
            found = found.tz_convert("UTC").tz_localize(None)
    except (ValueError, TypeError, OverflowError) as error:
        what = "a date such as 2024-01-15T10:30:00" if kind == DATE else "a duration such as P1DT12H"
        reason = str(error).partition(".")[0][:120]
        raise ValueError(f"'{name}' takes {what} (ISO 8601): {reason}") from None
    return np.asarray(found.to_numpy(), dtype=f"{kind}8[ns]")


def _parse_iso_dates(texts: Any) -> Any:
    if _KNOWS_ISO:
        return pd.to_datetime(texts, format="ISO8601")
    wrong = next((text for text in texts if text is not None and not _ISO_DATE.match(text)), None)
    if wrong is not None:
        raise ValueError(f"got {wrong!r}")
    return pd.to_datetime(texts)


def date_kind_of(values: Any) -> str | None:
    """Return `DATE` or `DURATION` for an array or Series of dates or durations, None for everything else."""
    dtype = getattr(values, "dtype", None)
    if isinstance(dtype, pd.DatetimeTZDtype):
        return DATE
    kind = getattr(dtype, "kind", None)
    return kind if kind in (DATE, DURATION) else None


def format_dates(values: Any) -> list[str | None]:
    """Return dates or durations as text in the form of ISO 8601, None for missing values."""
    return [None if value is pd.NaT else value.isoformat() for value in pd.Index(values)]
