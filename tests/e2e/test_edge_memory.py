"""What clients can make the server keep: bodies that never end; and who is asked for a token before one is read."""

from __future__ import annotations

import contextlib
import json
import select
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from sklearn.linear_model import LinearRegression

from tests.e2e.harness import TOKEN, Server, connect, linear, serving, until, write_version

PREDICTS = "token-that-predicts"
BODY_MB, INFLIGHT_MB = 4, 16
ROW = b'{"instances": [[1.0, 2.0]]}'
ALL = b'{"instances": [' + b",".join([b"[1.0, 2.0]"] * 90_000) + b"]}"
PATHS = ["/models/m/predict", "/v2/models/m/infer", "/v1/models/m:predict", "/invocations"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("memory")
    write_version(directory / "store" / "m", 1, linear())
    limits = {
        "SERVING_SERVER__MAX_BODY_MB": str(BODY_MB),
        "SERVING_SERVER__MAX_INFLIGHT_MB": str(INFLIGHT_MB),
        "SERVING_SERVER__BODY_SECONDS": "120",
        "SERVING_SECURITY__PREDICT_TOKEN": PREDICTS,
    }
    with serving(directory, wait_ready=True, **limits) as found:
        yield found


def begin(server: Server, path: str, size: int, token: str, *, is_chunked: bool = False) -> socket.socket:
    """Connect and send a head that announces a body of so many bytes."""
    sock = connect(server.url)
    framing = "Transfer-Encoding: chunked" if is_chunked else f"Content-Length: {size}"
    token = f"Authorization: Bearer {token}\r\n" if token else ""
    sock.sendall(f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{token}{framing}\r\n\r\n".encode())
    return sock


def memory_mb(server: Server) -> float:
    assert server.process is not None
    return psutil.Process(server.process.pid).memory_info().rss / (1 << 20)


def ask(server: Server, body: bytes, path: str = "/models/m/predict") -> httpx.Response:
    headers = {"Authorization": f"Bearer {PREDICTS}"}
    return server.client.post(server.url + path, content=body, headers=headers)


@pytest.mark.parametrize("is_chunked", [False, True], ids=["with their length", "in chunks"])
@pytest.mark.parametrize("path", PATHS)
def test_unfinished_bodies_take_what_is_there_for_all_and_no_more(server: Server, path: str, is_chunked: bool) -> None:
    """Whoever comes later is told 503 at once, small requests are answered, and in the end there is room again."""
    assert ask(server, ALL).status_code == 200
    before = memory_mb(server)
    size = BODY_MB * (1 << 20) - 100
    almost = b"1" * (size - 10)
    if is_chunked:
        almost = b"%x\r\n" % size + almost
    answers: list[bytes] = []
    with contextlib.ExitStack() as stack:
        waiting: set[socket.socket] = set()

        def has_refused_most(seconds: float = 0) -> bool:
            for sock in select.select(list(waiting), [], [], seconds)[0]:
                waiting.discard(sock)
                with contextlib.suppress(ConnectionResetError):
                    answers.append(sock.recv(65536))
            return len(answers) >= 15

        for _ in range(20):
            sock = stack.enter_context(begin(server, path, size, PREDICTS, is_chunked=is_chunked))
            sock.settimeout(0.2)
            waiting.add(sock)
            with contextlib.suppress(TimeoutError, BrokenPipeError, ConnectionResetError):
                sock.sendall(almost)
            has_refused_most(0.2)  # who has room is not answered; others are, now or on a busy machine a moment later
        until(has_refused_most, "most being refused")
        for answer in answers:
            assert answer.startswith(b"HTTP/1.1 503 "), answer
            assert b"retry-after: 1" in answer.lower()
            assert b"%d MB there are for all" % INFLIGHT_MB in answer
        assert memory_mb(server) - before < 2 * INFLIGHT_MB
        assert ask(server, ROW).status_code == 200
        assert ask(server, ROW + b" " * 30_000).status_code == 200
        assert ask(server, ALL).status_code == 503
    until(lambda: ask(server, ALL).status_code == 200, "room after they have gone")


def test_a_body_whose_length_has_no_room_is_refused_before_it_is_read(server: Server) -> None:
    size = BODY_MB * (1 << 20)
    with contextlib.ExitStack() as stack:

        def is_full() -> bool:
            sock = stack.enter_context(begin(server, PATHS[0], size, PREDICTS))
            sock.settimeout(0.2)
            with contextlib.suppress(TimeoutError, ConnectionResetError, BrokenPipeError):
                sock.sendall(b"1" * (size - 10))
            return ask(server, ALL).status_code == 503

        until(is_full, "no room for large ones")
        sock = stack.enter_context(begin(server, PATHS[0], size, PREDICTS))
        answer = sock.recv(65536)
        assert answer.startswith(b"HTTP/1.1 503 ")
        problem = json.loads(answer.partition(b"\r\n\r\n")[2])
        assert problem["type"] == "urn:serving:problem:overloaded"
    until(lambda: ask(server, ALL).status_code == 200, "room after they have gone")


@pytest.mark.parametrize("path", [*PATHS, "/models/m/pin", "/refresh", "/v2/repository/models/m/load"])
@pytest.mark.parametrize(("token", "status"), [("", 401), ("guessed", 401), ("wrong scope", 403)])
def test_who_may_not_is_told_before_the_body_is_read(server: Server, path: str, token: str, status: int) -> None:
    """Not a byte of it is sent here."""
    if token == "wrong scope":
        if path in PATHS:
            return  # the admin token opens these, too, and there is no third one
        token = PREDICTS
    with begin(server, path, 1 << 20, token) as sock:
        assert sock.recv(65536)[9:12] == b"%d" % status
    with begin(server, path, 1 << 20, TOKEN) as sock:
        if path in PATHS:  # who may is waited for
            assert not select.select([sock], [], [], 0.3)[0]
        else:
            assert sock.recv(1)


def test_one_body_may_be_as_large_as_it_may_whatever_there_is_for_all(tmp_path: Path) -> None:
    limits = {"SERVING_SERVER__MAX_INFLIGHT_MB": "0.1"}
    with serving(tmp_path, **limits) as server:
        server.drop("m", 1, LinearRegression().fit([[0.0, 0.0], [1.0, 0.0]], [0.0, 1.0]))
        server.wait_active("m", 1)
        assert server.client.post(server.url + "/predict", content=ALL).status_code == 200
