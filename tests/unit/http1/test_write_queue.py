"""Writes of one turn of the loop: after each other, and what is for one client together."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest
import uvloop

from serving.http1.write_queue import AnswerTransport, WriteQueue
from tests.fakes import run
from tests.unit.http1.wire import Transport, Wire, predict, request, turn


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


@pytest.mark.parametrize("make_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_connection_that_is_lost_in_a_turn_takes_no_answer_of_another_with_it(
    make_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """uvloop raises where what is written to is closed."""

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        made: asyncio.Queue[asyncio.Transport] = asyncio.Queue()

        class Accepted(asyncio.Protocol):
            def connection_made(self, transport: Any) -> None:
                made.put_nowait(transport)

        server = await loop.create_server(Accepted, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        try:
            with socket.create_connection(address), socket.create_connection(address) as other:
                lost, stays = await made.get(), await made.get()
                if lost.get_extra_info("peername") == other.getsockname():
                    lost, stays = stays, lost
                lost.abort()  # it is closed in the next turn, before what follows is sent
                queue = WriteQueue(loop)
                queue.write(lost, b"nothing")
                queue.write(stays, b"head ")
                queue.write(stays, b"body")
                await turn()
                stays.close()
                assert await asyncio.to_thread(other.recv, 100) == b"head body"
        finally:
            server.close()
            await server.wait_closed()

    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(scenario())


@pytest.mark.parametrize("raw", [predict(), request(b"/other", body=b"12345")])
def test_what_is_answered_is_sent_before_the_server_closes_the_connection(raw: bytes) -> None:
    """The server may be told to stop within the turn in which a request is answered."""

    async def scenario() -> None:
        wire = Wire()
        wire.connection.data_received(raw)
        while wire.limits.write_queue._waiting == []:
            await asyncio.sleep(0)
        assert wire.trace == []
        wire.connection.shutdown()
        assert wire.trace == [200, "close"]
        await turn()
        assert wire.trace == [200, "close"]

    run(scenario())


def test_what_is_answered_is_sent_where_its_client_has_ended_its_side() -> None:
    """A transport closes itself when the protocol has taken the end in."""

    async def scenario() -> None:
        wire = Wire()
        wire.connection.data_received(predict())
        wire.connection.eof_received()
        assert wire.trace == [200]

    run(scenario())
