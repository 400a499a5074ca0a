"""How a worker that is asked to end lets its connections go on elsewhere."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest
import uvicorn

from serving.server import DrainingServer
from serving.settings import Settings
from serving.worker import worker_process
from serving.worker.worker_process import WorkerServer
from tests.fakes import make_app, run

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="several workers need Linux")
FOR_EVER = 1_000_000


class Connections:
    """In the place of an acceptor: has connections for so many looks."""

    def __init__(self, looks: int) -> None:
        self.looks = looks
        self.is_closed = False

    def close(self) -> None:
        self.is_closed = True

    def pass_on_open(self) -> bool:
        assert self.is_closed
        self.looks -= 1
        return self.looks > 0


def drain(monkeypatch: pytest.MonkeyPatch, drain_seconds: float, *looks: int, is_hurried: bool = False) -> Any:
    """Drain a worker with these acceptors; return them, and what time was left for the usual way of draining."""
    left: list[Any] = []

    async def note(server: Any, _: Any) -> None:
        left.append(server.config.timeout_graceful_shutdown)

    monkeypatch.setattr(DrainingServer, "drain_http", note)
    monkeypatch.setattr(worker_process, "PASS_ON_SECONDS", 0.001)

    async def scenario() -> list[Connections]:
        settings = Settings.model_validate({"server": {"drain_seconds": drain_seconds}})
        app = make_app()
        server = WorkerServer(uvicorn.Config(app), app, settings, (), [], None)
        server.force_exit = is_hurried
        acceptors = [Connections(one) for one in looks]
        server.servers = acceptors  # type: ignore[assignment]
        async with asyncio.timeout(20):
            await server.drain_http(None)
        return acceptors

    return run(scenario()), left[0]


def test_connections_are_passed_on_until_none_of_any_port_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    acceptors, left = drain(monkeypatch, 60, 1, 5)
    assert [one.looks for one in acceptors] == [-4, 0]
    assert 30 < left <= 60


def test_what_is_left_after_half_of_the_time_is_drained_in_the_other_half(monkeypatch: pytest.MonkeyPatch) -> None:
    _, left = drain(monkeypatch, 0.2, FOR_EVER)
    assert 0 <= left <= 0.1


def test_a_second_signal_ends_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    (acceptor,), _ = drain(monkeypatch, 60, FOR_EVER, is_hurried=True)
    assert acceptor.looks == FOR_EVER
