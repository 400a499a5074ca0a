"""Counts spans that were not exported, in a worker's sheet where there is one."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, MutableSequence, Sequence
from typing import cast

from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from serving.telemetry.count_sheet import CountSheet

DROPPED_SPANS = "dropped spans"
COUNT, CREATED = 0, 1


class DroppedSpanCollector(Collector):
    """The number of spans of this process that were dropped. Made on the event loop's thread."""

    def __init__(self, sheet: CountSheet | None = None) -> None:
        taken = sheet.take((DROPPED_SPANS,)) if sheet is not None else None
        self.numbers = [0.0, 0.0] if taken is None else cast("MutableSequence[float]", taken[1])
        self.numbers[CREATED] = time.time()
        self._lock = threading.Lock()  # guards `numbers`

    def count(self, spans: int) -> None:
        """Count spans. Any thread."""
        with self._lock:
            self.numbers[COUNT] += spans

    def collect(self) -> Iterator[Metric]:
        """Yield the sample; called by the registry."""
        yield make_dropped_family(self.numbers)


def make_dropped_family(numbers: Sequence[float]) -> Metric:
    """Return the metric family of a count and the Unix time since which it counts."""
    about = "Spans that were not exported: the endpoint did not take them, or too many waited."
    family = CounterMetricFamily("serving_trace_spans_dropped", about)
    family.add_metric([], numbers[COUNT], created=numbers[CREATED])
    return family
