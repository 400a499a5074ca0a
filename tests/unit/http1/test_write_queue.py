"""Writes of one turn of the loop: after each other, and what is for one client together."""

from __future__ import annotations

import asyncio
from typing import Any

from serving.http1.write_queue import AnswerTransport, WriteQueue
from tests.fakes import run
from tests.unit.http1.wire import Transport, Wire, predict, turn


class Recorder(Transport):
    """Writes down who was written to, and with what."""

    def __init__(self, name: str, written: list[tuple[str, list[bytes]]]) -> None:
        super().__init__()
        self._name = name
        self._written = written

    def write(self, data: Any) -> None:
        """Send."""
        self._written.append((self._name, [data]))

    def writelines(self, parts: Any) -> None:
        """Send together."""
        self._written.append((self._name, list(parts)))


def test_writes_wait_for_the_end_of_the_turn_and_those_in_a_row_are_one() -> None:
    async def scenario() -> None:
        written: list[tuple[str, list[bytes]]] = []
        queue = WriteQueue(asyncio.get_running_loop())
        first, second = (AnswerTransport(Recorder(name, written), queue, lambda: None) for name in ("first", "second"))
        first.write(b"head")
        first.write(b"body")
        second.write(b"whole")
        first.write(b"more")
        assert written == []
        await turn()
        assert written == [("first", [b"head", b"body"]), ("second", [b"whole"]), ("first", [b"more"])]
        first.write(b"last")
        queue.flush()
        assert written[3:] == [("first", [b"last"])]
        await turn()
        assert len(written) == 4

    run(scenario())


def test_nothing_is_written_between_the_reads_of_a_turn() -> None:
    """Each write would wake its client by itself."""

    async def scenario() -> None:
        first = Wire()
        second = Wire(first.application)
        for wire in (first, second, first):
            wire.connection.data_received(predict())
        assert (first.trace, second.trace) == ([], [])
        await turn()
        assert (first.trace, second.trace) == ([200, 200], [200])

    run(scenario())


def test_an_end_comes_behind_the_answer() -> None:
    async def scenario() -> None:
        wire = Wire()
        wire.connection.data_received(predict(headers=b"Connection: close\r\n"))
        assert wire.trace == [200, "close"]
        other = Wire()
        other.connection.data_received(predict() + b"\x16\x03\x01\r\n\r\n")
        assert other.trace == [200, 400, "eof"]

    run(scenario())
