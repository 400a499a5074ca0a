"""The short way of a prediction and the long one answer alike: every byte that is not a date or an id."""

from __future__ import annotations

import json
import re
import select
import socket
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tests.e2e.harness import Server, connect, linear, serving, until, write_version

JSON = b"Content-Type: application/json\r\n"
ROW = b'{"instances": [[1.0, 2.0]]}'
IDLE_SECONDS = 4.0  # longer than a busy machine makes a test wait between two requests


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Server]]:
    """One that takes the short way, and one that cannot: it writes every request into its log."""
    directory = tmp_path_factory.mktemp("ways")
    write_version(directory / "store" / "m", 1, linear())
    store = directory / "store"
    idle = {"SERVING_SERVER__IDLE_SECONDS": str(IDLE_SECONDS)}
    with (
        serving(directory, store=store, name="short", wait_ready=True, **idle) as short,
        serving(directory, store=store, name="long", wait_ready=True, SERVING_LOG__ACCESS_SAMPLE="1", **idle) as long,
    ):
        assert short.model("m")["active"]["engine"] == "onnx"
        yield short, long


def exchange(server: Server, *pieces: bytes, until_closed: bool = False, responses: int = 1) -> bytes:
    """Send pieces, each in a segment of its own, and return what comes back, without dates and ids."""
    with connect(server.url, 10) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            sock.sendall(piece)
            if len(pieces) > 1:
                # the next piece must be a read of its own: wait until this one has been taken
                until(lambda: _unread_by_peer(sock) == 0, "the piece being read")
        received = b""
        while until_closed or not _is_whole(received, responses):
            part = sock.recv(65536)
            if not part:
                break
            received += part
    received = re.sub(rb"date: [^\r]*\r\n", b"", received)
    # ids differ, and may in length; problems carry theirs in the body too
    received = re.sub(
        rb"content-length: \d+(?=(?:\r\n(?!\r\n)[^\r]*)*\r\n\r\n\{\"type\")", b"content-length: *", received
    )
    return re.sub(rb"[0-9a-f]{12}-[0-9a-f]+", b"*", received)


def _unread_by_peer(sock: socket.socket) -> int:
    import array
    import fcntl
    import termios

    unsent = array.array("i", [0])
    fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, unsent)
    return unsent[0]


def _is_whole(received: bytes, responses: int) -> bool:
    found, rest = 0, received
    while b"\r\n\r\n" in rest:
        head, _, rest = rest.partition(b"\r\n\r\n")
        if head.startswith(b"HTTP/1.1 100"):
            continue
        length = int((re.search(rb"content-length: (\d+)", head) or [0, 0])[1])
        if len(rest) < length:
            return False
        rest = rest[length:]
        found += 1
    return found >= responses


def post(body: bytes, path: bytes = b"/models/m/predict", headers: bytes = JSON, version: bytes = b"1.1") -> bytes:
    """Return one request."""
    length = b"Content-Length: %d\r\n" % len(body)
    return b"POST %b HTTP/%b\r\nHost: localhost\r\n%b%b\r\n%b" % (path, version, headers, length, body)


REQUESTS = {
    "one row": post(ROW),
    "one row as input": post(b'{"input": [1, 2]}'),
    "rows as objects": post(b'{"instances": [{"x1": 1, "x0": 2}, {"x0": 0.5, "x1": 0}]}'),
    "a method": post(b'{"instances": [[1, 2]], "method": "predict"}'),
    "the only model": post(ROW, b"/predict"),
    "a version": post(ROW, b"/models/m/versions/1/predict"),
    "a query": post(ROW, b"/models/m/predict?x=1"),
    "an encoded path": post(ROW, b"/models/%6d/predict"),
    "an id of one's own": post(ROW, headers=JSON + b"X-Request-Id: chosen-7\r\n"),
    "an id nobody should choose": post(ROW, headers=JSON + b"X-Request-Id: a b\r\n"),
    "no content type": post(ROW, headers=b""),
    "not JSON": post(b'{"instances": [[1, 2]'),
    "another content type": post(ROW, headers=b"Content-Type: text/plain\r\n"),
    "compressed": post(ROW, headers=JSON + b"Content-Encoding: gzip\r\n"),
    "too few features": post(b'{"instances": [[1]]}'),
    "a string": post(b'{"instances": [[1, "2"]]}'),
    "a bool": post(b'{"instances": [[1, true]]}'),
    "a null": post(b'{"instances": [[1, null]]}'),
    "a number too large": post(b'{"instances": [[1, 1e999]]}'),
    "numbers that add up to infinity": post(b'{"instances": [[1.7e308, 1.7e308]]}'),
    "no rows": post(b'{"instances": []}'),
    "no object": post(b"[1, 2]"),
    "nothing": post(b""),
    "an unknown method": post(b'{"instances": [[1, 2]], "method": "transform"}'),
    "an unknown model": post(ROW, b"/models/other/predict"),
    "an unknown version": post(ROW, b"/models/m/versions/9/predict"),
    "no model": post(ROW, b"/models//predict"),
    "another path": post(ROW, b"/models/m/predicts"),
    "many rows": post(json.dumps({"instances": [[1.0, 2.0]] * 3000}).encode()),
    "GET": b"GET /models/m/predict HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "in chunks": (
        b"POST /models/m/predict HTTP/1.1\r\nHost: localhost\r\n" + JSON + b"Transfer-Encoding: chunked\r\n\r\n"
        b"1b\r\n" + ROW + b"\r\n0\r\n\r\n"
    ),
    "an upgrade": post(ROW, headers=JSON + b"Connection: upgrade\r\nUpgrade: h2c\r\n"),
}


@pytest.mark.parametrize("name", list(REQUESTS))
def test_both_ways_answer_alike(servers: tuple[Server, Server], name: str) -> None:
    short, long = (exchange(server, REQUESTS[name]) for server in servers)
    assert short == long
    assert short.startswith(b"HTTP/1.1 ")


def test_the_answer_is_whole(servers: tuple[Server, Server]) -> None:
    answer = exchange(servers[0], REQUESTS["one row"])
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.splitlines() == [
        b"HTTP/1.1 200 OK",
        b"content-type: application/json",
        b"content-length: %d" % len(body),
        b"x-content-type-options: nosniff",
        b"x-model-name: m",
        b"x-model-version: 1",
        b"x-request-id: *",
    ]
    assert json.loads(body)["predictions"] == pytest.approx([5.0], abs=1.0)


@pytest.mark.parametrize("way", [0, 1])
def test_a_request_in_pieces_is_answered(servers: tuple[Server, Server], way: int) -> None:
    """The short way is for what arrives at once; the rest goes on where it was."""
    whole = exchange(servers[way], REQUESTS["one row"])
    raw = REQUESTS["one row"]
    body = raw.index(b"\r\n\r\n") + 4
    for cuts in ((10,), (body,), (body + 5,), (10, body - 2, body + 5)):
        places = [0, *cuts, len(raw)]
        pieces = [raw[start:end] for start, end in pairwise(places)]
        assert exchange(servers[way], *pieces) == whole


@pytest.mark.parametrize("way", [0, 1])
def test_requests_sent_ahead_are_answered_in_order(servers: tuple[Server, Server], way: int) -> None:
    """Short ones, long ones (a GET, a problem, many rows) and short ones again on one connection."""
    names = ["one row", "many rows", "one row as input", "GET", "too few features", "one row", "one row"]
    expected = b"".join(exchange(servers[way], REQUESTS[name]) for name in names)
    together = b"".join(REQUESTS[name] for name in names)
    assert exchange(servers[way], together, responses=len(names)) == expected


@pytest.mark.parametrize("way", [0, 1])
@pytest.mark.parametrize(
    "last", [post(ROW, headers=JSON + b"Connection: close\r\n"), post(ROW, version=b"1.0")], ids=["close", "HTTP/1.0"]
)
def test_a_connection_ends_where_the_client_wants_it(servers: tuple[Server, Server], way: int, last: bytes) -> None:
    answer = exchange(servers[way], REQUESTS["one row"] + last, until_closed=True)
    assert answer.count(b"HTTP/1.1 200 OK") == 2
    assert answer.count(b"connection: close") == 1


@pytest.mark.parametrize("way", [0, 1])
def test_a_client_that_asks_first_is_told_to_go_on(servers: tuple[Server, Server], way: int) -> None:
    raw = post(ROW, headers=JSON + b"Expect: 100-continue\r\n")
    head, _, body = raw.partition(b"\r\n\r\n")
    answer = exchange(servers[way], head + b"\r\n\r\n", body)
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK")


def test_both_ways_are_counted(servers: tuple[Server, Server], tmp_path: Path) -> None:
    for server in servers:
        before = _counted(server)
        exchange(server, REQUESTS["one row"])
        assert _counted(server) == before + 1


def _counted(server: Server) -> float:
    text = server.client.get(server.url + "/metrics").text
    found = re.search(r'serving_requests_total\{model="m",status="200",version="1"\} ([\d.]+)', text)
    return float(found[1]) if found else 0.0


def test_an_idle_connection_is_closed_and_a_busy_one_is_not(servers: tuple[Server, Server]) -> None:
    """`server.idle_seconds` after its last answer, however many there were; not while a request is half there."""
    with connect(servers[0].url, 30) as idle, connect(servers[0].url, 30) as busy:
        for _ in range(3):
            asked_at = time.monotonic()
            for sock in (idle, busy):
                sock.sendall(REQUESTS["one row"])
                assert sock.recv(65536).startswith(b"HTTP/1.1 200")
        busy.sendall(REQUESTS["one row"][:-5])
        assert idle.recv(1) == b""
        assert time.monotonic() - asked_at > IDLE_SECONDS - 0.1  # a bound from below only: it was kept open
        assert not select.select([busy], [], [], 0.5)[0]  # longer than an idle connection lives
        busy.sendall(REQUESTS["one row"][-5:])
        assert busy.recv(65536).startswith(b"HTTP/1.1 200")


def test_a_connection_is_idle_after_the_late_end_of_a_body_nobody_wanted(servers: tuple[Server, Server]) -> None:
    with connect(servers[0].url, 30) as sock:
        whole = post(ROW, b"/nope")
        sock.sendall(whole[:-5])
        assert sock.recv(65536).startswith(b"HTTP/1.1 404 ")
        sock.sendall(whole[-5:])
        assert sock.recv(1) == b""
