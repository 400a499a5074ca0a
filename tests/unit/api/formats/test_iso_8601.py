"""Dates and durations of NumPy's and Arrow's forms, as the text that a model of dates takes."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from serving.api.formats import arrow, npy
from serving.api.formats.iso_8601 import to_iso_texts
from serving.domain.signature import Container, Dtype, Feature, Signature

UNITS = ("W", "D", "h", "m", "s", "ms", "us", "ns")
COUNTS = (0, 1, -1, 59, 3_661, -8_641, 12_345)
WHEN = Signature(
    features=(Feature(name="when", dtype=Dtype.STRING), Feature(name="took", dtype=Dtype.STRING)),
    methods=("predict",),
    container=Container.DATAFRAME,
)
DATES = np.array(["2024-01-15T10:30:00.000000001", "NaT", "1969-12-31T23:59:59"], "M8[ns]")
DURATIONS = np.array([90, "NaT", -1], "m8[s]")
TEXTS = (
    ["2024-01-15T10:30:00.000000001", None, "1969-12-31T23:59:59.000000000"],
    ["P0DT90S", None, "P-1DT86399S"],
)


def saved(array: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def stream_of(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return bytes(sink.getvalue())


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("order", ["<", ">"])
def test_pandas_reads_the_same_moments_from_the_text(unit: str, order: str) -> None:
    for kind, read in (("m", pd.to_timedelta), ("M", lambda texts: pd.to_datetime(texts, format="ISO8601"))):
        moments = np.array([*COUNTS, "NaT"], f"{order}{kind}8[{unit}]")
        found = read(to_iso_texts(moments)).to_numpy()
        assert np.array_equal(found.astype(f"{kind}8[ns]"), moments.astype(f"{kind}8[ns]"), equal_nan=True)


def test_many_are_as_few() -> None:
    assert to_iso_texts(np.tile(DURATIONS, 9_000)) == TEXTS[1] * 9_000


def test_an_array_of_dates_is_text() -> None:
    table = npy.read(saved(np.column_stack([DATES, DATES])), WHEN)
    assert table.columns == (TEXTS[0], TEXTS[0])


def test_fields_of_an_array_are_dates_and_durations() -> None:
    records = np.zeros(3, [("when", DATES.dtype), ("took", DURATIONS.dtype)])
    records["when"], records["took"] = DATES, DURATIONS
    assert npy.read(saved(records), WHEN).columns == TEXTS


def test_timestamps_of_arrow_are_text_in_utc() -> None:
    zoned = pa.array([1, None, 0], pa.timestamp("s", "Europe/Berlin"))
    table = pa.table({"when": zoned, "took": pa.array(DURATIONS)})
    assert arrow.read(stream_of(table), WHEN).columns == (
        ["1970-01-01T00:00:01", None, "1970-01-01T00:00:00"],
        TEXTS[1],
    )


@pytest.mark.parametrize(
    ("days", "text"), [(pa.array([19_737], pa.date32()), "2024-01-15"), (pa.array([0], pa.date64()), "1970-01-01")]
)
def test_days_of_arrow_are_text(days: Any, text: str) -> None:
    columns = arrow.read(stream_of(pa.table({"when": days})), WHEN).columns
    assert columns is not None
    assert str(columns[0][0]).startswith(text)
