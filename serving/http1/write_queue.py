"""Sends the parts of an answer together, and all answers of one turn of the event loop directly after each other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any


class WriteQueue:
    """The bytes to send at the end of this turn of the event loop. Event loop thread only.

    The writes of a turn follow each other directly. The first one wakes a client that waits in another process, which
    takes longer than the write itself; it is awake for the next ones. uvloop would write at once, between reads.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: list[list[Any]] = []  # a transport and what it has to send

    def write(self, transport: asyncio.Transport, data: bytes) -> None:
        """Send `data` before the loop looks for new events; parts in a row for one transport are sent together."""
        waiting = self._waiting
        if not waiting:
            self._loop.call_soon(self.flush)
        elif waiting[-1][0] is transport:
            waiting[-1].append(data)
            return
        waiting.append([transport, data])

    def flush(self) -> None:
        """Send everything now. What is for a connection that is gone by now is dropped, and nothing else."""
        waiting, self._waiting = self._waiting, []
        for entry in waiting:
            try:
                if len(entry) == 2:
                    entry[0].write(entry[1])
                else:
                    entry[0].writelines(entry[1:])
            except RuntimeError:  # uvloop says so of a transport that was lost within this turn; asyncio says nothing
                continue


class AnswerTransport:
    """The transport of an answer: its writes are queued, and `end` closes it."""

    def __init__(self, transport: asyncio.Transport, write_queue: WriteQueue, end: Callable[[], None]) -> None:
        self.write: Callable[[bytes], None] = partial(write_queue.write, transport)
        self.is_closing = transport.is_closing
        self.close = end
