"""Where the time between a drop and its first answer goes, as the server itself has written it down."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from benchmarks.percentiles import median
from tests.e2e.harness import Server

STATES = ("STAGING", "LOADING", "VALIDATING", "WARMING", "READY", "ACTIVE")
Timeline = dict[str, float]


class Drop(NamedTuple):
    """When one drop began (Unix time) and how many seconds it took to what was waited for."""

    began_at: float
    seconds: float


def read_timelines(server: Server, model: str, drops: Mapping[str, Drop], end: str = "") -> dict[str, Timeline]:
    """Return for each version when (Unix time) it was dropped, first reached each state, and, if named, the `end`."""
    reached = {version: {"drop": drop.began_at} for version, drop in drops.items()}
    for entry in reversed(server.get(f"/models/{model}/history?limit=10000")["history"]):
        if entry["version"] in reached and entry["after"] in STATES:
            reached[entry["version"]].setdefault(entry["after"], datetime.fromisoformat(entry["at"]).timestamp())
    for version, drop in drops.items() if end else ():
        reached[version][end] = drop.began_at + drop.seconds
    return reached


def steps(reached: Mapping[str, Timeline], end: str) -> tuple[tuple[str, float], ...]:
    """Return the median milliseconds from the drop to STAGING, between the states that follow, and to the `end`."""
    return tuple(
        (f"{before} to {after}", median([(one[after] - one[before]) * 1000 for one in reached.values()]))
        for before, after in itertools.pairwise(("drop", *STATES, end))
    )


def step_at(timeline: Timeline, moment: float) -> str:
    """Return what had been reached last at a moment (Unix time); the first step for the instant before it."""
    return max(((at, name) for name, at in timeline.items() if at <= moment), default=(0.0, next(iter(timeline))))[1]
