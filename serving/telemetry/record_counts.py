"""Counts the log of predictions, in a worker's sheet where there is one."""

from __future__ import annotations

from collections.abc import Iterator, MutableSequence, Sequence
from typing import cast

from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from serving.telemetry.count_sheet import CountSheet

RECORDS = "records"
WRITTEN, DROPPED, LOST, FAILURES = range(4)
RECORD_NUMBERS = 4

_FAMILIES = (
    ("serving_records", "Predictions that were written to the log of predictions.", (WRITTEN,)),
    ("serving_record_dropped", "Predictions that were chosen for that log, and not written.", (DROPPED, LOST)),
    ("serving_record_failures", "Writes to that log that failed.", (FAILURES,)),
)


class RecordCounts(Collector):
    """The numbers of one process. Make it on the event loop's thread. Each method says which thread may call it."""

    def __init__(self, sheet: CountSheet | None = None) -> None:
        taken = sheet.take((RECORDS,)) if sheet is not None else None
        self._numbers = [0.0] * RECORD_NUMBERS if taken is None else cast("MutableSequence[float]", taken[1])

    @property
    def numbers(self) -> list[float]:
        """The numbers now. Any thread."""
        return list(self._numbers[:RECORD_NUMBERS])

    def count_dropped(self) -> None:
        """Count a record that was dropped because too many wait. Event loop thread only."""
        self._numbers[DROPPED] += 1

    def count_written(self, records: int) -> None:
        """Count records that were written. Writing thread only, as the methods below."""
        self._numbers[WRITTEN] += records

    def count_lost(self, records: int) -> None:
        """Count records that could not be encoded or written."""
        self._numbers[LOST] += records

    def count_failure(self) -> None:
        """Count a write that failed."""
        self._numbers[FAILURES] += 1

    def collect(self) -> Iterator[Metric]:
        """Yield all samples; called by the registry."""
        yield from make_record_families(self._numbers)


def make_record_families(numbers: Sequence[float]) -> Iterator[Metric]:
    """Yield the metric families of one row of numbers, or of the sum of several."""
    for name, about, places in _FAMILIES:
        yield CounterMetricFamily(name, about, value=sum(numbers[place] for place in places))
