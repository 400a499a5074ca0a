"""Which workers count as hung."""

from __future__ import annotations

import os
import sys
import threading
import time

import pytest

from serving.ports.forwarding import ConnectionForwarder
from serving.ports.shared_port import SharedPort
from serving.supervisor.heartbeats import Heartbeats
from serving.supervisor.worker_link import WorkerLink
from serving.wire.shared_words import make_words, map_words

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="several workers need Linux")


class Hurried(threading.Event):
    """Waits for a moment only, so that looks follow one another."""

    def wait(self, timeout: float | None = None) -> bool:
        return super().wait(0.001)


def test_a_worker_counts_as_hung_when_its_beats_stop_but_not_before_the_first_one() -> None:
    fd = make_words("beats")
    words = map_words(fd, writes=True)
    links = [WorkerLink(index, 0, -1) for index in range(3)]
    heartbeats = Heartbeats(fd, 2.0)
    words[2] = 5
    for link in links:
        heartbeats.expect(link.index)
    words[0] = time.monotonic_ns() - 10**11
    words[1] = time.monotonic_ns() + 10**12
    hung: list[tuple[WorkerLink, str]] = []
    is_stopping = threading.Event()

    def note(link: WorkerLink, reason: str) -> None:
        hung.append((link, reason))
        if len(hung) > 2:
            is_stopping.set()

    heartbeats.watch(lambda: links, note, is_stopping, ConnectionForwarder(()))
    os.close(fd)
    assert {link.index for link, _ in hung} == {0}
    assert hung[0][1].startswith("its event loop has stood for 10")


def test_a_worker_that_is_silent_for_a_while_gets_no_connections_until_it_beats_again() -> None:
    fd = make_words("beats")
    words = map_words(fd, writes=True)
    heartbeats = Heartbeats(fd, 40.0)
    links = [WorkerLink(index, 0, -1) for index in range(2)]
    port = SharedPort.open("127.0.0.1", 0, 2)
    seen: list[list[int | None]] = []
    is_stopping = Hurried()

    def list_links() -> list[WorkerLink]:
        """Note what the last look has led to, and let one worker be silent at every second look."""
        seen.append(port.counts.read())
        if len(seen) > 3:
            is_stopping.set()
        words[0] = time.monotonic_ns()
        words[1] = time.monotonic_ns() - (25 * 10**9 if len(seen) % 2 else 0)
        return links

    for link in links:
        port.counts.publish(link.index, 7)
    heartbeats.watch(list_links, lambda *_: None, is_stopping, ConnectionForwarder([port]))
    port.close()
    os.close(fd)
    assert seen == [[7, 7], [7, None], [7, 7], [7, None]]
