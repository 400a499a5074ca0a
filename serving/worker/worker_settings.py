"""How many workers there are, and the settings of each."""

from __future__ import annotations

from serving.plane.fair_turns import count_cores
from serving.settings import Settings


def count_workers(settings: Settings) -> int:
    """Return how many workers there are."""
    wanted = settings.server.workers
    return count_cores() if wanted == "auto" else wanted


def settings_of_one(settings: Settings, workers: int) -> Settings:
    """Return the settings of one worker: its share of the limits, and no announcement of its end."""
    server = settings.server
    share = {
        "max_connections": -(-server.max_connections // workers),
        "max_queue": -(-server.max_queue // workers),
        "max_inflight_mb": server.max_inflight_mb / workers,
        "lame_duck_seconds": 0.0,
        "fail_fast": False,
    }
    return settings.model_copy(update={"server": server.model_copy(update=share)})
