"""Clients that are slow, greedy, lost or not who they should be, over real sockets."""

from __future__ import annotations

import contextlib
import json
import re
import select
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.e2e.harness import NO_TLS, TOKEN, Server, connect, linear, serving, until, write_version
from tests.e2e.traffic import Traffic

JSON = b"Content-Type: application/json\r\n"
ROW = b'{"instances": [[1.0, 2.0]]}'
PATIENCE_SECONDS = 6  # for what may stand still for a while, on either side, and must not be ended for it
READS, PREDICTS, OLD = "token-that-reads", "token-that-predicts", "token-of-last-year"
SLOW = 300
NAMES = [
    "%2e%2e",
    "..",
    ".",
    "%00",
    "a%00b",
    "x" * 300,
    "%F0%9F%98%80",
    "%ff%fe",
    "M",
    "m%2f1",
    "%252e%252e",
    "-",
    "%20",
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("edge")
    write_version(directory / "store" / "m", 1, linear())
    return directory / "store"


@pytest.fixture(scope="module")
def server(store: Path) -> Iterator[Server]:
    """One with little patience."""
    limits = {
        "SERVING_SERVER__HEADER_SECONDS": str(PATIENCE_SECONDS),
        "SERVING_SERVER__BODY_SECONDS": str(PATIENCE_SECONDS),
        "SERVING_SERVER__MAX_HEADER_KB": "4",
        "SERVING_SERVER__MAX_BODY_MB": "0.1",
        "SERVING_SERVER__MAX_CONNECTIONS": str(SLOW + 50),
    }
    with serving(store.parent, store=store, name="impatient", wait_ready=True, **limits) as found:
        yield found


@pytest.fixture(scope="module")
def guarded(store: Path) -> Iterator[Server]:
    """One that wants tokens, and has a port for operators."""
    tokens = store.parent / "predict-tokens"
    tokens.write_text(f"# until the end of the year\n{OLD}\n{PREDICTS}\n")
    limits = {
        "SERVING_SECURITY__READ_TOKEN": READS,
        "SERVING_SECURITY__PREDICT_TOKEN_FILE": str(tokens),
        "SERVING_SERVER__ADMIN_PORT": "0",
    }
    with serving(store.parent, store=store, name="guarded", wait_ready=True, **limits) as found:
        until(lambda: ask(found, "GET", "/models/m/active", READS).json()["active"], "an active version")
        yield found


def post(path: bytes = b"/models/m/predict", headers: bytes = JSON, body: bytes = ROW) -> bytes:
    return b"POST %b HTTP/1.1\r\nHost: localhost\r\n%bContent-Length: %d\r\n\r\n%b" % (path, headers, len(body), body)


def rest_of(sock: socket.socket, *, may_be_reset: bool = False) -> bytes:
    """Return everything until the end of the connection, which must not be a reset, or only after everything."""
    received = b""
    with contextlib.suppress(*([ConnectionResetError] if may_be_reset else [])):
        while part := sock.recv(65536):
            received += part
    return received


def problem(answer: bytes, status: int, slug: str) -> dict[str, str]:
    """Return the document of an answer that must be this problem, in full."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), answer[:200]
    lowered = head.lower()
    assert b"content-type: application/problem+json" in lowered
    assert b"content-length: %d" % len(body) in lowered
    assert b"x-content-type-options: nosniff" in lowered
    found: dict[str, str] = json.loads(body)
    assert (found["status"], found["type"]) == (status, f"urn:serving:problem:{slug}")
    return found


# --- slow clients -----------------------------------------------------------------------------------------------------


def test_heads_that_trickle_in_are_closed_at_the_deadline_and_others_are_served(server: Server) -> None:
    request = post(headers=JSON + b"X-Slow: " + b"x" * 500 + b"\r\n")
    with contextlib.ExitStack() as stack, Traffic(server.url, "m", rate=100) as traffic:
        waiting = {stack.enter_context(connect(server.url)) for _ in range(SLOW)}
        answers = []
        sent = 0
        while waiting:  # for ever, if they are not closed; the suite's limit on time says so then
            assert sent < len(request), "they are still open"
            ready, _, _ = select.select(list(waiting), [], [], 0.05)
            for sock in ready:
                answers.append(rest_of(sock, may_be_reset=True))  # it goes on sending
                waiting.discard(sock)
            for sock in waiting:
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    sock.send(request[sent : sent + 1])
            sent += 1
    assert len(answers) == SLOW
    for answer in answers:
        assert f"within {PATIENCE_SECONDS} seconds" in problem(answer, 408, "head-too-slow")["detail"]
    assert traffic.replies
    assert {reply.status for reply in traffic.replies} == {200}


def test_whoever_stops_half_way_is_told_so_or_closed_at_the_deadline(server: Server) -> None:
    """All side by side. Silence is closed without a word; a request that was refused at once has its answer already."""
    starts = {
        "silence": b"",
        "empty lines": b"\r\n\r\n",
        "a head": post(body=b"x" * 100)[:-100],
        "some of a body": post(body=b"x" * 100)[:-100] + b'{"inst',
        "some of a body that nobody needs": post(b"/nope", body=b"x" * 100)[:-50],
    }
    with contextlib.ExitStack() as stack:
        socks = {name: stack.enter_context(connect(server.url)) for name in starts}
        for name, start in starts.items():
            socks[name].sendall(start)
        answers = {name: rest_of(sock) for name, sock in socks.items()}
    assert answers["silence"] == answers["empty lines"] == b""
    for name in ("a head", "some of a body"):
        assert f"within {PATIENCE_SECONDS} seconds" in problem(answers[name], 408, "body-too-slow")["detail"]
        assert b"connection: close" in answers[name]
    assert answers["some of a body that nobody needs"].startswith(b"HTTP/1.1 404 ")


def test_an_answered_request_whose_body_ends_late_is_followed_by_the_next(server: Server) -> None:
    with connect(server.url) as sock:
        whole = post(b"/nope", body=b"x" * 100)
        sock.sendall(whole[:-50])
        assert sock.recv(65536).startswith(b"HTTP/1.1 404 ")
        sock.sendall(whole[-50:] + post())
        assert sock.recv(65536).startswith(b"HTTP/1.1 200 ")


# --- greedy clients ---------------------------------------------------------------------------------------------------

LARGE = {
    "a header": post(headers=JSON + b"X-Large: " + b"x" * 5000 + b"\r\n"),
    "headers": post(headers=JSON + b"X-Many: 1\r\n" * 500),
    "a path": post(b"/" + b"x" * 5000),
    "a query": post(b"/models/m/predict?" + b"x" * 5000),
    "much": post(headers=JSON + b"X-Large: " + b"x" * 300_000 + b"\r\n"),
}


@pytest.mark.parametrize("is_in_pieces", [False, True])
@pytest.mark.parametrize("what", list(LARGE))
def test_a_head_that_is_too_large_is_431(server: Server, what: str, is_in_pieces: bool) -> None:
    with connect(server.url) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(post())
        assert sock.recv(65536).startswith(b"HTTP/1.1 200 ")
        step = 1000 if is_in_pieces else len(LARGE[what])
        for start in range(0, len(LARGE[what]), step):
            if select.select([sock], [], [], 0)[0]:
                break
            sock.sendall(LARGE[what][start : start + step])
        answer = rest_of(sock)
    assert "larger than 4 kB" in problem(answer, 431, "head-too-large")["detail"]


def test_a_head_that_is_nearly_too_large_is_read(server: Server) -> None:
    with connect(server.url) as sock:
        sock.sendall(post(headers=JSON + b"X-Large: " + b"x" * 3800 + b"\r\n") * 2)
        assert until_two(sock).count(b"HTTP/1.1 200 ") == 2


def until_two(sock: socket.socket) -> bytes:
    received = b""
    while received.count(b"predictions") < 2 and (part := sock.recv(65536)):
        received += part
    return received


@pytest.mark.parametrize("tail", [b"0\r\nX-Trailer: ", b"1;extension="], ids=["a trailer", "an extension"])
def test_what_comes_with_chunks_and_never_ends_is_not_kept(server: Server, tail: bytes) -> None:
    with connect(server.url) as sock:
        sock.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" + tail)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for _ in range(1000):
                if select.select([sock], [], [], 0)[0]:
                    break
                sock.sendall(b"x" * 10_000)
        problem(rest_of(sock), 431, "head-too-large")


@pytest.mark.parametrize("how", ["with its length", "in chunks"])
@pytest.mark.parametrize("close", [b"Connection: close\r\n", b""])
def test_a_client_that_sends_too_much_reads_why(server: Server, how: str, close: bytes) -> None:
    size, part = 8 << 20, b"x" * 65536
    with connect(server.url) as sock:
        if how == "in chunks":
            sock.sendall(
                b"POST /predict HTTP/1.1\r\nHost: localhost\r\n" + close + b"Transfer-Encoding: chunked\r\n\r\n"
            )
            part = b"10000\r\n" + part + b"\r\n"
        else:
            sock.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\n%bContent-Length: %d\r\n\r\n" % (close, size))
        for _ in range(size >> 16):  # all of it, before it looks for an answer: many clients do
            sock.sendall(part)
        if how == "in chunks":
            sock.sendall(b"0\r\n\r\n")
        if close or how == "in chunks":
            problem(rest_of(sock), 413, "body-too-large")
        else:
            assert sock.recv(65536).startswith(b"HTTP/1.1 413 ")
            sock.sendall(post())
            assert sock.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_one_connection_too_many_is_told_so(server: Server) -> None:
    with contextlib.ExitStack() as stack:
        kept: list[socket.socket] = []
        answer = b""
        while answer.startswith(b"HTTP/1.1 200 ") or not kept:
            kept.append(stack.enter_context(connect(server.url)))
            kept[-1].sendall(post())
            answer = kept[-1].recv(65536)
        assert SLOW < len(kept) <= SLOW + 51  # the harness has some too
        assert b"retry-after: 1" in answer.lower()
        problem(answer, 503, "too-many-connections")
        kept[0].sendall(post())
        assert kept[0].recv(65536).startswith(b"HTTP/1.1 200 ")
    until(lambda: predicted(server), "a prediction after they have gone")


def predicted(server: Server) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.post(f"{server.url}/models/m/predict", content=ROW, timeout=60, verify=NO_TLS).status_code == 200
    return False


# --- lost clients -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("raw", [b"\x16\x03\x01\x02\x00\x01", b"HELO x\r\n\r\n", b"GET / HTTP/1.1\r\nA b\r\n\r\n"])
def test_what_is_not_http_is_400(server: Server, raw: bytes) -> None:
    with connect(server.url) as sock:
        sock.sendall(raw)
        problem(rest_of(sock), 400, "bad-request")


def test_what_is_not_http_behind_a_request_leaves_its_answer_alone(server: Server) -> None:
    with connect(server.url) as sock:
        sock.sendall(b"GET /models HTTP/1.1\r\nHost: localhost\r\n\r\nHELO x\r\n\r\n")
        answer = rest_of(sock)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_is_none_is_a_problem_and_nothing_else(server: Server, name: str) -> None:
    for method, path in [
        ("POST", f"/models/{name}/predict"),
        ("POST", f"/models/m/versions/{name}/predict"),
        ("GET", f"/models/{name}"),
        ("GET", f"/models/m/versions/{name}"),
        ("GET", f"/models/{name}/history"),
        ("DELETE", f"/models/{name}/pin"),
        ("POST", f"/models/m/versions/{name}/release"),
    ]:
        body = ROW if method == "POST" else b""
        with connect(server.url) as sock:  # a client library would tidy the path up
            head = (
                f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer {TOKEN}\r\n"
            )
            sock.sendall(head.encode() + b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
            answer = rest_of(sock)
        status = int(answer[9:12])
        assert status in (404, 405, 409, 422), (method, path, answer)
        assert b"application/problem+json" in answer
        assert str(server.directory).encode() not in answer


# --- clients that are not who they should be --------------------------------------------------------------------------


def ask(server: Server, method: str, path: str, token: str | None, url: str = "") -> httpx.Response:
    headers = {} if token is None else {"Authorization": f"Bearer {token}".encode("latin-1")}
    return httpx.request(method, (url or server.url) + path, content=ROW, headers=headers, timeout=60, verify=NO_TLS)


def admin_url(server: Server) -> str:
    return next(str(one["url"]) for one in server.log() if one.get("event") == "listening_for_operators")


def test_both_ways_of_a_prediction_ask_for_the_token(guarded: Server) -> None:
    before = re.search(r'status="200",version="1"} (\d+)', metrics(guarded))
    for token, status in ((None, 401), ("x", 401), (READS, 403), (PREDICTS, 200), (OLD, 200), (TOKEN, 200)):
        assert ask(guarded, "POST", "/models/m/predict", token).status_code == status
        assert ask(guarded, "POST", "/models/m/predict", f"{token}\xff").status_code == 401
    answered = re.search(r'status="200",version="1"} (\d+)', metrics(guarded))
    assert answered is not None
    assert int(answered[1]) - int(before[1] if before else 0) == 3


def metrics(server: Server) -> str:
    return ask(server, "GET", "/metrics", READS, admin_url(server)).text


def test_the_admin_port_alone_has_the_operators_part(guarded: Server) -> None:
    operators = admin_url(guarded)
    for method, path in [("POST", "/refresh"), ("GET", "/metrics"), ("GET", "/docs"), ("GET", "/models/m/history")]:
        assert ask(guarded, method, path, TOKEN).status_code == 404
        assert ask(guarded, method, path, None, operators).status_code == 401
        assert ask(guarded, method, path, TOKEN, operators).status_code == 200
    for url in (guarded.url, operators):
        assert ask(guarded, "GET", "/health/ready", None, url).status_code == 200


def test_commands_bring_their_tokens(guarded: Server) -> None:
    operators = admin_url(guarded)

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "serving", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    refused = run("status", "--url", operators)
    assert (refused.returncode, "SERVING_SECURITY__READ_TOKEN" in refused.stderr) == (1, True)
    assert run("status", "--url", operators, SERVING_SECURITY__READ_TOKEN=READS).returncode == 0
    assert run("refresh", "--url", operators, SERVING_SECURITY__ADMIN_TOKEN=TOKEN).returncode == 0
    tokens = {"SERVING_SECURITY__READ_TOKEN": READS, "SERVING_SECURITY__PREDICT_TOKEN": PREDICTS}
    bench = run("bench", "m", "--url", guarded.url, "--seconds", "0.2", "--connections", "2", **tokens)
    assert bench.returncode == 0, bench.stderr


def test_no_token_is_in_the_log_or_in_the_environment_of_a_child(guarded: Server) -> None:
    for token in (None, READS, "guessed-token"):
        ask(guarded, "POST", "/refresh", token, admin_url(guarded))
    refused = [one for one in guarded.log() if one.get("event") == "admin" and one["outcome"] == "refused"]
    assert len(refused) >= 3
    assert all(one["actor"] == "admin@127.0.0.1" for one in refused)
    text = guarded.log_path.read_text()
    for process in guarded.processes():
        with contextlib.suppress(psutil.NoSuchProcess):  # what evaluated may be about to end
            text += repr(process.environ())
    for token in (TOKEN, READS, PREDICTS, OLD, "guessed-token"):
        assert token not in text
