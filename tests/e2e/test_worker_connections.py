"""Connections outlive the worker that has them: restarts, kills and stops of workers, seen by clients."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from tests.e2e.harness import Server, connect, constant, serving, until, write_version
from tests.e2e.real_time import Clients
from tests.e2e.test_workers import answering, assert_sound, wait_all_serving

WORKERS = 2


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("connections")
    write_version(directory / "store" / "m", 1, answering(1))
    write_version(directory / "store" / "hosted", 1, constant(1))
    settings = {"WORKERS": str(WORKERS), "HOST": "localhost", "ADMIN_PORT": "0", "MAX_CONNECTIONS": "60"}
    environment = {f"SERVING_SERVER__{name}": value for name, value in settings.items()}
    with serving(directory, wait_ready=True, **environment) as running:
        running.wait_active("m", 1)
        running.wait_active("hosted", 1)
        yield running


def pids_of(server: Server) -> list[int]:
    return [one["pid"] for one in wait_all_serving(server)]


def restart(server: Server, worker: int) -> None:
    """Ask one worker to end, and wait for its successor."""
    before = pids_of(server)
    os.kill(before[worker], signal.SIGTERM)
    until(lambda: wait_all_serving(server)[worker]["pid"] != before[worker], "another worker in its place")


def test_a_rolling_restart_under_load_fails_no_request(server: Server) -> None:
    before = pids_of(server)
    with Clients(server.url, "m") as compiled, Clients(server.url, "hosted") as hosted:
        for worker in range(WORKERS):
            restart(server, worker)
            asked = len(compiled.seen), len(hosted.seen)
            until(lambda asked=asked: len(compiled.seen) > asked[0] + 200 and len(hosted.seen) > asked[1] + 50)
    after = wait_all_serving(server)
    assert not {one["pid"] for one in after} & set(before)
    assert [one["restarts"] for one in after] == [1] * WORKERS
    for clients in (compiled, hosted):
        assert clients.failures() == []
        assert_sound(clients)
