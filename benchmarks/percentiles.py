"""The few statistics that are reported."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least `share` (0 to 1) of all values do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def median(values: Sequence[float]) -> float:
    """Return the middle value; the mean of the two middle ones when there are two."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


@dataclass(frozen=True, slots=True)
class Latency:
    """Latencies of many requests, in milliseconds."""

    p50: float
    p99: float
    worst: float
    count: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Latency:
        """Summarise latencies given in seconds."""
        in_ms = [one * 1000 for one in seconds]
        return cls(percentile(in_ms, 0.50), percentile(in_ms, 0.99), max(in_ms), len(in_ms))
