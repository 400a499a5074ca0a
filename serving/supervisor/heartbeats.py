"""Watches the event loops of workers: each writes the time into a word of shared memory again and again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

from serving.ports.forwarding import ConnectionForwarder
from serving.supervisor.worker_link import WorkerLink
from serving.wire.shared_words import map_words

LOOKS_IN_TIME = 5  # in the time after which a worker counts as hung
PATIENCE = 4  # a worker gets no new connections after this part of that time


class Heartbeats:
    """Reports workers whose event loop has stood for `seconds`; `words` is the descriptor of their words.

    A worker counts from its first beat on: until then it starts, which others bound.
    """

    def __init__(self, words: int, seconds: float) -> None:
        self._beats = map_words(words, writes=True)
        self._seconds = seconds

    def expect(self, worker: int) -> None:
        """Wait for the first beat of a worker that is about to be started. Any thread."""
        self._beats[worker] = 0

    def watch(
        self,
        list_links: Callable[[], Iterable[WorkerLink]],
        on_hang: Callable[[WorkerLink, str], None],
        is_stopping: threading.Event,
        forwarder: ConnectionForwarder,
    ) -> None:
        """Report hung workers until the event is set. Blocks; a thread of its own.

        The forwarder is told of one that is silent for a while, and when that has ended. If this thread has stood as
        well, all of the machine has, and it is nobody's fault.
        """
        every = min(1.0, self._seconds / LOOKS_IN_TIME)
        before = time.monotonic()
        left_out: set[int] = set()
        while not is_stopping.wait(every):
            now = time.monotonic()
            stood, before = now - before > 3 * every, now
            if stood:
                continue
            for link in list_links():
                beat = self._beats[link.index]
                silent = now - beat / 1e9 if beat else 0.0
                if silent > self._seconds:
                    on_hang(link, f"its event loop has stood for {silent:.1f} s")
                elif silent > self._seconds / PATIENCE:
                    left_out.add(link.index)
                    forwarder.leave_out(link.index)
                elif link.index in left_out:
                    left_out.remove(link.index)
                    forwarder.readmit(link.index)
