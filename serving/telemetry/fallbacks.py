"""Counts predictions that the short way left to the long way, in a worker's sheet where there is one."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, MutableSequence, Sequence
from typing import cast

from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from serving.telemetry.count_sheet import CountSheet

COUNT, CREATED = 0, 1


class FallbackCollector(Collector):
    """The number of fallbacks by problem: rows of a count and the Unix time of the first one."""

    def __init__(self, sheet: CountSheet | None = None) -> None:
        self._sheet = sheet
        self._by_problem: dict[str, MutableSequence[float]] = {}

    def count(self, problem: str) -> None:
        """Count one fallback. Event loop thread only."""
        numbers = self._by_problem.get(problem)
        if numbers is None:
            taken = self._sheet.take(("fallbacks", problem)) if self._sheet is not None else None
            numbers = [0.0, 0.0] if taken is None else cast("MutableSequence[float]", taken[1])
            numbers[CREATED] = time.time()
            self._by_problem[problem] = numbers
        numbers[COUNT] += 1

    def collect(self) -> Iterator[Metric]:
        """Yield all samples; called by the registry."""
        yield make_family(list(self._by_problem.items()))


def make_family(counts: Iterable[tuple[str, Sequence[float]]]) -> Metric:
    """Return the metric family of the rows of problems."""
    name, about = "serving_shortcut_fallbacks", "Errors on the short way in, which the long way answered."
    family = CounterMetricFamily(name, about, labels=["problem"])
    for problem, numbers in counts:
        family.add_metric([problem], numbers[COUNT], created=numbers[CREATED])
    return family
