"""More clients than there are descriptors for: whoever asks how the server is gets an answer, the others are told."""

from __future__ import annotations

import contextlib
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.e2e.harness import NO_TLS, Server, connect, constant, serving, until, write_version

DESCRIPTORS = 256
CLIENTS = 600
SCRIPT = (
    f"import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_NOFILE, ({DESCRIPTORS}, {DESCRIPTORS})); "
    "sys.argv[0] = 'serving'; runpy.run_module('serving', run_name='__main__')"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One that may have few descriptors, with a model in a host, and patience."""
    directory: Path = tmp_path_factory.mktemp("crowd")
    write_version(directory / "store" / "m", 1, constant(1))
    limits = {"SERVING_SERVER__HEADER_SECONDS": "120", "SERVING_SERVER__IDLE_SECONDS": "120"}
    with serving(directory, wait_ready=True, entry=("-c", SCRIPT), **limits) as found:
        yield found


def get(server: Server, path: str) -> httpx.Response:
    """Ask over a connection of its own."""
    return httpx.get(server.url + path, timeout=20, verify=NO_TLS)


@pytest.mark.parametrize("start", [b"", b"GET /models HT", b"GET /models HTTP/1.1\r\nHost: localhost\r\n\r\n"])
def test_health_is_answered_whoever_else_is_connected(server: Server, start: bytes) -> None:
    """Clients that say nothing, that say half of something, and that wait after an answer."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert server.process is not None
    process = psutil.Process(server.process.pid)
    with contextlib.ExitStack() as stack:
        if soft < 2 * CLIENTS:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        for _ in range(CLIENTS):
            sock = stack.enter_context(connect(server.url))
            with contextlib.suppress(ConnectionResetError, BrokenPipeError):
                sock.sendall(start)
        for _ in range(20):
            for path in ("/health/live", "/health/ready", "/v2/health/live", "/ping"):
                assert get(server, path).status_code == 200
        refused = get(server, "/models")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert refused.json()["type"] == "urn:serving:problem:too-many-connections"
        assert process.num_fds() < DESCRIPTORS - 32, "what hosts and files need is left"
        before = process.cpu_times()
        time.sleep(1)  # doing nothing must cost nothing
        after = process.cpu_times()
        assert after.user + after.system - before.user - before.system < 0.5
    until(lambda: server.predict("m").status_code == 200, "a prediction after they have gone")


def test_candidates_are_evaluated_whoever_else_is_connected(server: Server) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(CLIENTS // 2):
            stack.enter_context(connect(server.url))
        server.drop("m", 2, constant(2))
        done = {"event": "transition", "model": "m", "version": "2", "after": "ACTIVE"}
        until(lambda: any(done.items() <= one.items() for one in server.log()), "version 2 becoming active")


def test_the_limit_is_said_in_the_log(server: Server) -> None:
    said = next(one for one in server.log() if one.get("event") == "connections_limited")
    assert (said["max_connections"], said["descriptors"]) == (96, DESCRIPTORS)
