"""A process leaves a port that another one shares: clients reach the other, and none is lost in between."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

pytest.importorskip("grpc", reason="the extra grpc is not installed")

from serving.api.grpc import port_leaving

CLIENTS = 20
OTHER = """
import socket, sys
with socket.socket() as listener:
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind(("127.0.0.1", int(sys.argv[1])))
    listener.listen(100)
    print(flush=True)
    while True:
        with listener.accept()[0] as one:
            one.sendall(b"other")
"""


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A socket that shares its port with another process, and from which no connection is taken."""
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        one.bind(("127.0.0.1", 0))
        one.listen(100)
        command = [sys.executable, "-c", OTHER, str(one.getsockname()[1])]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
            assert other.stdout is not None
            other.stdout.readline()
            yield one
            other.kill()


def _ask(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), 20) as client:
        return client.recv(5)


def test_clients_that_come_while_it_leaves_and_later_reach_the_other(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = listener.getsockname()[1]

    async def scenario() -> None:
        is_settled = asyncio.Event()
        monkeypatch.setattr(port_leaving, "asyncio", SimpleNamespace(sleep=lambda _: is_settled.wait()))
        leaving = asyncio.ensure_future(port_leaving.stop_listening(port))
        await asyncio.sleep(0)
        with ThreadPoolExecutor(CLIENTS) as pool:
            loop = asyncio.get_running_loop()
            during = [loop.run_in_executor(pool, _ask, port) for _ in range(CLIENTS)]
            await asyncio.sleep(port_leaving.SETTLE_SECONDS / 2)
            assert not leaving.done()
            is_settled.set()
            assert await asyncio.gather(*during) == [b"other"] * CLIENTS
            await leaving
            after = [loop.run_in_executor(pool, _ask, port) for _ in range(CLIENTS)]
            assert await asyncio.gather(*after) == [b"other"] * CLIENTS

    asyncio.run(scenario())


def test_a_descriptor_that_is_something_else_by_then_is_let_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second stop closes the port meanwhile, and its number may be given to another file."""
    with socket.socket() as own, tempfile.TemporaryFile() as other:
        own.bind(("127.0.0.1", 0))
        own.listen()

        async def replace(_: float) -> None:
            os.dup2(other.fileno(), own.fileno())

        port = own.getsockname()[1]
        monkeypatch.setattr(port_leaving, "asyncio", SimpleNamespace(sleep=replace))
        asyncio.run(port_leaving.stop_listening(port))
        assert os.path.sameopenfile(own.fileno(), other.fileno())


def test_connections_on_the_port_are_seen(listener: socket.socket) -> None:
    with socket.socket() as alone:
        alone.bind(("127.0.0.1", 0))
        alone.listen()
        port = alone.getsockname()[1]
        assert not port_leaving.has_connections(port)
        with socket.create_connection(("127.0.0.1", port)), alone.accept()[0]:
            assert port_leaving.has_connections(port)
            assert not port_leaving.has_connections(listener.getsockname()[1])
        assert not port_leaving.has_connections(port)
