"""Connections beside each other: those who take too long are told, and one that sends much leaves the others time."""

from __future__ import annotations

import asyncio
import socket
import threading

import uvicorn
import uvloop
from uvicorn.server import ServerState

from serving.api.deadlines import Deadlines
from serving.api.edge import PredictionRouter
from serving.http1 import HttpConnection
from serving.http1.connection_state import DROPPING
from tests.fakes import make_app, run
from tests.unit.http1.wire import turn

READ_BYTES = 256_000  # what uvloop reads in one go


class Slow:
    """Remembers when it was told."""

    def __init__(self, told: list[Slow]) -> None:
        self._told = told

    def on_overdue(self) -> None:
        """Be told."""
        self._told.append(self)


def test_who_takes_too_long_is_told_once_and_the_others_are_not() -> None:
    """The clock of the loop is the test's, or else a loop that stands for a moment would be too late for all."""

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        now = began = float(int(loop.time()))
        loop.time = lambda: now  # type: ignore[method-assign]
        told: list[Slow] = []
        deadlines = Deadlines(loop, 1.0)
        slow, quick, again = Slow(told), Slow(told), Slow(told)
        deadlines.end(quick)  # nobody minds
        for one in (slow, quick, again):
            deadlines.begin(one)
        deadlines.end(quick)
        while slow not in told:
            deadlines.begin(again)  # its time begins anew
            now += 0.125
            await turn()
        assert 1.0 <= now - began <= 1.25, "late by one sweep at most"
        assert (told, again in deadlines, slow in deadlines) == ([slow], True, False)
        while again not in told:
            now += 0.125
            await turn()
        assert told == [slow, again]
        deadlines.begin(slow)  # the timer was at rest, and begins again
        while len(told) < 3:
            now += 0.125
            await turn()

    run(scenario())


def test_one_that_asks_again_while_it_is_told_is_told_again() -> None:
    async def scenario() -> None:
        deadlines = Deadlines(asyncio.get_running_loop(), 0.02)
        times = []

        class Stubborn:
            def on_overdue(self) -> None:
                times.append(1)
                deadlines.begin(self)

        deadlines.begin(Stubborn())
        while len(times) < 3:
            await asyncio.sleep(0.005)

    run(scenario())


def test_no_timer_is_left_when_there_is_nobody_to_look_after() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        calls = []
        original = loop.call_later
        loop.call_later = lambda *args, **kwargs: calls.append(args[0]) or original(*args, **kwargs)  # type: ignore
        told: list[Slow] = []
        deadlines = Deadlines(loop, 0.02)
        for _ in range(100):
            one = Slow(told)
            deadlines.begin(one)
            deadlines.end(one)
        assert len(calls) == 1

    run(scenario())


def test_a_body_that_is_not_read_leaves_other_connections_their_turn() -> None:
    """libuv reads a connection up to 32 times in a row, 8 MB, for as long as there is something to be read."""
    app = make_app()
    config = uvicorn.Config(PredictionRouter(app), lifespan="off", log_config=None)
    config.load()
    turns: list[int] = []  # bytes that were dropped in each turn of the loop

    class Counting(HttpConnection):
        def data_received(self, data: bytes) -> None:
            if self._state is DROPPING:
                turns[-1] += len(data)
            super().data_received(data)

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            over.set()

    over = asyncio.Event()

    async def scenario() -> None:
        loop = asyncio.get_running_loop()

        def turn() -> None:
            turns.append(0)
            loop.call_soon(turn)

        turn()
        server = await loop.create_server(lambda: Counting(config, ServerState(), {}), "127.0.0.1", 0)
        sending = threading.Thread(target=_send_unwanted, args=(server.sockets[0].getsockname(),))
        sending.start()
        await asyncio.wait_for(over.wait(), 20)
        await asyncio.to_thread(sending.join)
        server.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario())
    assert sum(turns) >= UNWANTED_BYTES // 2
    assert max(turns) <= READ_BYTES


UNWANTED_BYTES = 64 << 20


def _send_unwanted(address: tuple[str, int]) -> None:
    with socket.create_connection(address) as sock:
        head = f"POST /models/iris/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {UNWANTED_BYTES}\r\n\r\n"
        sock.sendall(head.encode())
        assert sock.recv(1 << 16).startswith(b"HTTP/1.1 413 ")
        sock.sendall(bytes(UNWANTED_BYTES))
