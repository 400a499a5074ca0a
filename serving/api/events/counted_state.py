"""What was counted, and how the workers are, as clients of the stream know it: read every two seconds at most."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import orjson
import structlog

from serving.api.counts import Counts
from serving.api.events.stream_event import StreamEvent
from serving.api.schemas import Workers
from serving.domain.errors import ServingError
from serving.telemetry.traffic import BUCKETS, LATENCY_BOUNDS, ROWS, SECONDS, VersionTraffic, statuses_of

READ_SECONDS = 2.0

log = structlog.get_logger("serving.events")


class CountedState:
    """The counts of every version and the workers at the last reading. Event loop thread only."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts
        self._lock = asyncio.Lock()  # guards the reading: many may ask for one at once
        self._read_at = float("-inf")
        self._traffic: dict[tuple[str, str], VersionTraffic] = {}
        self._workers: StreamEvent | None = None

    @property
    def events(self) -> list[StreamEvent]:
        """Everything at the last reading; nothing before the first."""
        if self._workers is None:
            return []
        return [self._workers, describe_traffic(self._traffic.values(), has_bounds=True)]

    async def read_if_due(self) -> list[StreamEvent]:
        """Read the counts unless that was done lately; return the events for what has changed.

        While they cannot be read, nothing changes.
        """
        async with self._lock:
            now = asyncio.get_running_loop().time()
            if now - self._read_at < READ_SECONDS:
                return []
            self._read_at = now
            try:
                workers = await self._counts.list_workers()
                traffic = await self._counts.list_traffic()
            except ServingError as error:
                log.debug("counts_not_read", reason=str(error))
                return []
            is_first = self._workers is None
            return [*self._take_workers(workers), *self._take_traffic(traffic, is_first=is_first)]

    def _take_workers(self, workers: tuple[Any, ...]) -> list[StreamEvent]:
        event = StreamEvent("workers", Workers(workers=workers).model_dump_json().encode())
        before, self._workers = self._workers, event
        return [] if before is not None and before.data == event.data else [event]

    def _take_traffic(self, found: Iterable[VersionTraffic], *, is_first: bool) -> list[StreamEvent]:
        # requests that reached no version are counted under two empty names
        traffic = {one[:2]: one._replace(numbers=tuple(one.numbers)) for one in found if one.model}
        changed = [one for key, one in traffic.items() if one != self._traffic.get(key)]
        self._traffic = traffic
        return [describe_traffic(changed, has_bounds=is_first)] if changed or is_first else []


def describe_traffic(traffic: Iterable[VersionTraffic], *, has_bounds: bool = False) -> StreamEvent:
    """Return the event with the counts of these versions; with `has_bounds`, also the bounds of their buckets."""
    data: dict[str, Any] = {"at": datetime.now(UTC)}
    if has_bounds:
        data["bounds"] = LATENCY_BOUNDS
    data["versions"] = [_describe_version(one) for one in traffic]
    return StreamEvent("traffic", orjson.dumps(data))


def _describe_version(traffic: VersionTraffic) -> dict[str, Any]:
    numbers = traffic.numbers
    statuses = statuses_of(numbers)
    return {
        "model": traffic.model,
        "version": traffic.version,
        "requests": sum(statuses.values()),
        "refused": sum(count for status, count in statuses.items() if 400 <= status < 500),
        "failed": sum(count for status, count in statuses.items() if status >= 500),
        "rows": int(numbers[ROWS]),
        "seconds": numbers[SECONDS],
        "buckets": [int(count) for count in numbers[:BUCKETS]],
    }
