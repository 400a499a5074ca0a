"""Carries facts from the threads that read workers' channels to who takes them, and may wait for answers there."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

import structlog

log = structlog.get_logger("serving.workers")


class FactThread:
    """One thread that calls `take` with everything that is put, in order."""

    def __init__(self, take: Callable[[Any], None]) -> None:
        self._take = take
        self._inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="serving-facts", daemon=True).start()

    def put(self, fact: Any) -> None:
        """Hand a fact over. Any thread; waits for nothing."""
        self._inbox.put(fact)

    def _run(self) -> None:
        while True:
            fact = self._inbox.get()
            try:
                self._take(fact)
            except Exception:
                log.exception("fact_failed")
