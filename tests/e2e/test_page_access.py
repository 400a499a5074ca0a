"""The page over real connections: who gets what, with which cookie, sent by whom, from which worker."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from serving.api.access import Access
from serving.api.sessions import LIFE_SECONDS, Sessions
from serving.settings import SecuritySettings
from tests.e2e.harness import NO_TLS, TOKEN, Server, connect, linear, serving, until, write_version
from tests.e2e.test_edge import rest_of
from tests.e2e.test_shared_control import TwoProcesses, running

READS, PREDICTS = "reads-and-nothing-else", "predicts-and-nothing-else"
TOKENS = {"SERVING_SECURITY__READ_TOKEN": READS, "SERVING_SECURITY__PREDICT_TOKEN": PREDICTS}
ROW = {"input": [1.0, 2.0]}
OWN = {"Sec-Fetch-Site": "same-origin"}
CHANGES: list[tuple[str, str, Any]] = [
    ("POST", "/refresh", None),
    ("POST", "/models/m/pin", {"version": "1"}),
    ("PUT", "/models/m/labels/best", {"version": "1"}),
    ("DELETE", "/models/m/labels/best", None),
    ("DELETE", "/models/m/pin", None),
    ("POST", "/models/m/predict", ROW),
    ("POST", "/predict", ROW),
]
FOREIGN: list[dict[str, str]] = [
    {},
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1:1"},
    {"Sec-Fetch-Site": "none"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1:1"},
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "store"
    write_version(path / "m", 1, linear())
    return path


@pytest.fixture(scope="module")
def guarded(store: Path) -> Iterator[Server]:
    """A server that needs a token for everything."""
    with serving(store.parent, store=store, name="guarded", wait_ready=True, **TOKENS) as server:
        yield server


@pytest.fixture(scope="module")
def crowd(store: Path) -> Iterator[Server]:
    """Two workers with an admin port."""
    more = {"SERVING_SERVER__WORKERS": "2", "SERVING_SERVER__ADMIN_PORT": "0"}
    with serving(store.parent, store=store, name="crowd", wait_ready=True, **TOKENS, **more) as server:
        yield server


@pytest.fixture(scope="module")
def neighbour(store: Path) -> Iterator[Server]:
    """Another server on this host, which needs no token for reading."""
    with serving(store.parent, store=store, name="neighbour", wait_ready=True, SERVING_SERVER__UI="read") as server:
        yield server


def ask(server: Server | str, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
    """Send one request on a connection of its own, so that any worker may get it."""
    url = server if isinstance(server, str) else server.url
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.request(method, url + path, json=body, headers=named, verify=NO_TLS, timeout=60)


def sign_in(server: Server | str, token: str = TOKEN, **headers: str) -> str:
    """Return the cookie as the browser sends it."""
    response = ask(server, "POST", "/ui/session", {"token": token}, **headers)
    assert response.status_code == 200, response.text
    return response.headers["set-cookie"].partition(";")[0]


def exchange(server: Server, head: str) -> bytes:
    """Send bytes as they are, and return all that comes back."""
    with connect(server.url) as sock:
        sock.sendall(head.encode("latin-1"))
        return rest_of(sock)


def operators_of(server: Server) -> dict[str, Any]:
    return next(one for one in server.log() if one.get("event") == "listening_for_operators")


# --- files ------------------------------------------------------------------------------------------------------------


def test_the_log_says_at_the_start_where_the_page_is(guarded: Server, crowd: Server) -> None:
    (started,) = [one for one in guarded.log() if one.get("event") == "listening"]
    page = httpx.get(started["page"], verify=NO_TLS, timeout=60)
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    (started,) = [one for one in crowd.log() if one.get("event") == "listening"]
    assert "page" not in started
    operators = operators_of(crowd)
    assert operators["page"] == operators["url"] + "/ui/"
    assert httpx.get(operators["page"], verify=NO_TLS, timeout=60).status_code == 200


@pytest.mark.parametrize(
    "target",
    [
        *(
            "/ui/../api/edge.py",
            "/ui/%2e%2e/edge.py",
            "/ui/..%2f..%2fserver.py",
            "/ui/%2e%2e%2fedge.py",
            "/ui/..\\edge.py",
        ),
        *("/ui/%00index.html", "/ui/index.html%00.js", "//ui/index.html", "/ui//index.html", "/ui/./index.html"),
        *("/ui/index.html/", "/ui/%C0%AE%C0%AE/edge.py", "/ui/views", "/ui/views/", "/ui/" + "x/" * 2000),
        *("http://127.0.0.1/ui/../edge.py", "/docs/../ui/index.html", "/ui/session/../index.html"),
    ],
)
def test_only_names_of_the_package_are_files(guarded: Server, target: str) -> None:
    answer = exchange(guarded, f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
    assert answer[9:12] in (b"404", b"400"), answer[:300]
    assert b"import " not in answer


def test_a_head_has_no_body_and_a_copy_is_not_sent_again(guarded: Server) -> None:
    answer = exchange(guarded, "HEAD /ui/ HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert (head[9:12], body) == (b"200", b"")
    assert int(re.findall(rb"content-length: (\d+)", head)[0]) > 0
    tag = re.findall(rb"etag: ([^\r]+)", head)[0].decode()
    again = exchange(
        guarded, f"GET /ui/ HTTP/1.1\r\nHost: 127.0.0.1\r\nIf-None-Match: {tag}\r\nConnection: close\r\n\r\n"
    )
    assert (again[9:12], again.partition(b"\r\n\r\n")[2]) == (b"304", b"")


@pytest.mark.parametrize("host", ["rebound.example", "127.0.0.1.evil.example", "localhost.evil.example:8000"])
def test_the_page_its_session_and_its_cookie_are_for_names_of_this_server(guarded: Server, host: str) -> None:
    """A page of another site whose name leads here would be of the same origin as this server."""
    cookie = sign_in(guarded)
    for method, path in [("GET", "/ui/"), ("GET", "/ui/session"), ("POST", "/ui/session"), ("GET", "/models")]:
        for more in ({}, {"Origin": f"http://{host}"}, OWN):
            refused = ask(guarded, method, path, Host=host, Cookie=cookie, **more)
            assert refused.status_code == 421
            assert refused.headers.get("set-cookie") is None
            if path != "/models":
                assert "frame-ancestors 'none'" in refused.headers["content-security-policy"]
    refused = ask(guarded, "POST", "/refresh", Host=host, Cookie=cookie, Origin=f"http://{host}")
    assert refused.status_code == 421


# --- sessions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("token", "reads", "predicts", "operates"),
    [(TOKEN, 200, 200, 200), (READS, 200, 403, 403), (PREDICTS, 403, 200, 403)],
)
def test_a_session_opens_what_its_token_opens(
    guarded: Server, token: str, reads: int, predicts: int, operates: int
) -> None:
    cookie = sign_in(guarded, token)
    for path in ("/models", "/metrics", "/models/m/history", "/docs", "/"):
        assert ask(guarded, "GET", path, Cookie=cookie, **OWN).status_code == reads
    assert ask(guarded, "POST", "/models/m/predict", ROW, Cookie=cookie, **OWN).status_code == predicts
    assert ask(guarded, "POST", "/refresh", Cookie=cookie, **OWN).status_code == operates
    for method, path, body in [("GET", "/models", None), ("POST", "/predict", ROW), ("POST", "/refresh", None)]:
        assert ask(guarded, method, path, body, **OWN).status_code == 401


def test_only_the_page_changes_or_computes_with_a_session(guarded: Server) -> None:
    cookie = sign_in(guarded)
    for method, path, body in CHANGES:
        for headers in FOREIGN:
            assert ask(guarded, method, path, body, Cookie=cookie, **headers).status_code == 403, (path, headers)
    assert not any("(page)" in str(one.get("actor")) for one in history_of(guarded))
    for method, path, body in CHANGES:
        for own in (OWN, {"Origin": guarded.url}):
            assert ask(guarded, method, path, body, Cookie=cookie, **own).status_code == 200, (path, own)
    assert "admin@127.0.0.1 (page)" in {one["actor"] for one in history_of(guarded)}


def history_of(server: Server) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = ask(server, "GET", "/models/m/history", authorization=f"Bearer {TOKEN}").json()[
        "history"
    ]
    return found


def test_the_cookie_of_another_server_on_this_host_changes_nothing(guarded: Server, neighbour: Server) -> None:
    """Browsers send a cookie to every port of a host."""
    theirs, ours = sign_in(neighbour), sign_in(guarded, READS)
    both = f"{theirs}; {ours}"
    assert theirs.partition("=")[0] != ours.partition("=")[0]
    for cookie in (theirs, ours, both):  # nobody is asked for a token where none is needed
        assert ask(neighbour, "GET", "/models", Cookie=cookie).status_code == 200
        assert ask(neighbour, "POST", "/models/m/predict", ROW, Cookie=cookie).status_code == 200
    assert ask(neighbour, "POST", "/refresh", Cookie=ours, **OWN).status_code == 401
    refused = ask(neighbour, "POST", "/refresh", Cookie=both, **OWN)
    assert (refused.status_code, "server.ui" in refused.json()["detail"]) == (403, True)
    assert ask(neighbour, "GET", "/ui/session", Cookie=both).json()["scopes"] == ["read", "predict"]
    assert ask(guarded, "GET", "/ui/session", Cookie=both).json()["scopes"] == ["read"]
    page = {"Sec-Fetch-Site": "same-site", "Origin": neighbour.url}  # a page of the neighbour asks the other server
    assert ask(guarded, "GET", "/models", Cookie=both, **page).status_code == 403
    assert ask(guarded, "POST", "/refresh", Cookie=sign_in(guarded), **page).status_code == 403


def test_cookies_in_odd_forms(guarded: Server) -> None:
    cookie = sign_in(guarded)

    name, _, host = *cookie.partition("=")[:2], urlsplit(guarded.url).netloc

    def status(*lines: str) -> bytes:
        head = "".join(f"{line}\r\n" for line in lines)
        request = f"GET /models HTTP/1.1\r\nHost: {host}\r\n{head}Connection: close\r\n\r\n"
        return exchange(guarded, request)[9:12]

    assert status(f"Cookie: {cookie}") == b"200"
    assert status(f"cookie:a=b; {cookie};c=d") == b"200"
    assert status(f"Cookie: {name}=AAAA; {cookie}") == b"200"
    assert status("Cookie: a=b", f"Cookie: {cookie}") == b"200"
    assert status(f"Cookie: {cookie[:-1]}") == b"401"
    assert status(f"Cookie: {cookie}x") == b"401"
    assert status(f"Cookie: {cookie.upper()}") == b"401"
    assert status(f"Cookie: x{cookie}") == b"401"
    assert status(f"Cookie: {name}=" + "A" * 8000) == b"401"
    assert status("Cookie: " + f"{name}=\xff\xfe;" * 500) == b"401"
    assert status("Cookie:") == b"401"
    assert status(f"Cookie: {cookie}", "Authorization: Bearer guess") == b"401"
    assert status(f"Cookie: {cookie}", f"Authorization: Bearer {PREDICTS}") == b"403"
    assert status(f"Cookie: {cookie[:-9]}", f"Authorization: Bearer {READS}") == b"200"


def test_a_request_with_a_session_leaves_the_next_one_on_its_connection_without_it(guarded: Server) -> None:
    """The connection remembers heads that it has parsed; with one of a session it would keep the cookie, too."""
    cookie = sign_in(guarded, PREDICTS)
    body, host = b'{"input": [1.0, 2.0]}', urlsplit(guarded.url).netloc
    for more, status in [(f"Cookie: {cookie}\r\nOrigin: {guarded.url}\r\n", b"200"), ("", b"401")] * 2:
        with connect(guarded.url) as sock:
            for _ in range(3):
                head = f"POST /predict HTTP/1.1\r\nHost: {host}\r\n{more}Content-Length: {len(body)}\r\n\r\n"
                sock.sendall(head.encode() + body)
                assert sock.recv(65536)[9:12] == status


def test_no_token_and_no_session_is_in_a_log_an_answer_or_an_address(guarded: Server) -> None:
    cookie = sign_in(guarded)
    answers = [
        ask(guarded, "POST", "/ui/session", {"token": "a-guess-of-mine"}),
        ask(guarded, "POST", "/ui/session", {"token": TOKEN, "more": 1}),
        ask(guarded, "POST", "/ui/session", {"token": [TOKEN]}),
        ask(guarded, "GET", "/ui/session", Cookie=cookie),
        ask(guarded, "POST", "/refresh", Cookie=cookie),
        ask(guarded, "DELETE", "/ui/session", Cookie=cookie, **OWN),
        ask(guarded, "GET", "/metrics", Cookie=cookie),
    ]
    seen = "".join(f"{one.text} {one.headers} {one.url}" for one in answers) + guarded.log_path.read_text()
    for secret in (TOKEN, READS, PREDICTS, "a-guess-of-mine", cookie.partition("=")[2]):
        assert secret not in seen
    lines = [one for one in guarded.log() if one.get("event") == "admin" and one["call"] == "sign_in"]
    assert {one["actor"] for one in lines} == {"page@127.0.0.1"}
    assert {one["outcome"] for one in lines} == {"done", "refused"}


def test_behind_a_proxy_that_speaks_tls_the_cookie_is_for_tls(guarded: Server) -> None:
    token = {"token": READS}
    for said in ({"X-Forwarded-Proto": "https"}, {"Origin": guarded.url.replace("http:", "https:")}):
        cookie = ask(guarded, "POST", "/ui/session", token, **said).headers["set-cookie"]
        assert cookie.endswith("; Secure"), said
    assert "Secure" not in ask(guarded, "POST", "/ui/session", token).headers["set-cookie"]


def test_sign_ins_that_fail_are_bounded(neighbour: Server) -> None:
    statuses = [ask(neighbour, "POST", "/ui/session", {"token": f"guess {number}"}).status_code for number in range(40)]
    assert statuses[:10] == [401] * 10
    assert 429 in statuses
    until(lambda: ask(neighbour, "POST", "/ui/session", {"token": TOKEN}).status_code == 200, "a sign-in")


def test_a_stream_ends_with_its_session(guarded: Server) -> None:
    earlier = Sessions(
        Access.read(SecuritySettings.model_validate({"read_token": READS})),
        "read",
        lambda: time.time() - LIFE_SECONDS + 8,  # long enough for a busy machine to begin the stream
    )
    found = earlier.sign_in(READS.encode())
    assert found is not None
    cookie = f"serving_session_{urlsplit(guarded.url).port}={found[1].decode()}"
    headers = {"Cookie": cookie, **OWN}
    with httpx.stream("GET", guarded.url + "/events", headers=headers, verify=NO_TLS, timeout=60) as stream:
        assert stream.status_code == 200
        text = stream.read()  # as long as it lasts: httpx would raise if it was not ended properly
    assert b"event: start" in text
    assert ask(guarded, "GET", "/events", Cookie=cookie, **OWN).status_code == 401


def test_a_stream_and_the_history_are_for_those_who_may_read(guarded: Server) -> None:
    as_json = {"Accept": "application/json"}
    for path in ("/events", "/history"):
        assert ask(guarded, "GET", path, **as_json).status_code == 401
        for token, status in ((READS, 200), (TOKEN, 200), (PREDICTS, 403)):
            cookie = sign_in(guarded, token)
            assert ask(guarded, "GET", path, Cookie=cookie, **OWN, **as_json).status_code == status
            other = {"Origin": "http://127.0.0.1:1"}
            assert ask(guarded, "GET", path, Cookie=cookie, **other, **as_json).status_code == 403
            assert ask(guarded, "GET", path, Cookie=cookie, Host="rebound.example", **as_json).status_code == 421


# --- restarts, workers, applications ----------------------------------------------------------------------------------


def test_a_session_outlives_a_restart_and_not_its_token(store: Path) -> None:
    tokens = store.parent / "tokens"
    tokens.write_text("first\nsecond\n")
    environment = {"SERVING_SECURITY__READ_TOKEN_FILE": str(tokens)}
    with serving(store.parent, store=store, name="restarted", **environment) as server:
        first, second, admin = (sign_in(server, token, Host="localhost") for token in ("first", "second", TOKEN))
        server.stop()
        tokens.write_text("second\nthird\n")
        server.start()
        assert ask(server, "GET", "/models", Host="localhost", Cookie=first).status_code == 401
        assert ask(server, "GET", "/ui/session", Host="localhost", Cookie=first).json()["signed_in"] is False
        assert ask(server, "GET", "/models", Host="localhost", Cookie=second).status_code == 200
        assert ask(server, "POST", "/refresh", Host="localhost", Cookie=admin, **OWN).status_code == 200
        server.kill()
        server.environment["SERVING_SECURITY__ADMIN_TOKEN"] = "rotated"
        server.start()
        assert ask(server, "POST", "/refresh", Host="localhost", Cookie=admin, **OWN).status_code == 401
        assert ask(server, "GET", "/models", Host="localhost", Cookie=second).status_code == 200


def test_a_session_counts_in_every_worker_and_on_the_admin_port(crowd: Server) -> None:
    operators = str(operators_of(crowd)["url"])
    cookie = sign_in(operators)
    for path in ("/models", "/metrics", "/ui/session"):
        assert_same_in_all(operators, path, cookie, 2)
    assert ask(operators, "POST", "/models/m/pin", {"version": "1"}, Cookie=cookie, **OWN).status_code == 200
    assert ask(operators, "POST", "/models/m/predict", ROW, Cookie=cookie, **OWN).status_code == 200
    assert ask(operators, "POST", "/models/m/pin", {"version": "1"}, Cookie=cookie).status_code == 403
    for method, path in [("GET", "/ui"), ("GET", "/ui/"), ("POST", "/ui/session"), ("GET", "/ui/session")]:
        assert ask(crowd, method, path, {"token": TOKEN}).status_code == 404


def assert_same_in_all(url: str, path: str, cookie: str, processes: int) -> None:
    """Ask until so many processes have answered: each has a prefix of its own for the ids of requests.

    Connections that stay open are spread over all of them.
    """
    seen: set[str] = set()
    with contextlib.ExitStack() as stack:

        def have_all_answered() -> bool:
            client = stack.enter_context(httpx.Client(base_url=url, verify=NO_TLS, timeout=60))
            response = client.get(path, headers={"Cookie": cookie, **OWN})
            assert response.status_code == 200
            seen.add(response.headers["x-request-id"].partition("-")[0])
            return len(seen) >= processes

        until(have_all_answered, f"answers of {processes} processes")


def test_processes_of_an_application_share_sessions(store: Path) -> None:
    environment = {**TOKENS, "SERVING_SECURITY__ADMIN_TOKEN": TOKEN}
    with running(store.parent, TwoProcesses, store=store, name="own", **environment) as app:
        cookie = sign_in(app)
        assert_same_in_all(app.url, "/models", cookie, 2)
        assert_same_in_all(app.url, "/ui/session", cookie, 2)
        assert ask(app, "GET", "/ui/").status_code == 200
        assert ask(app, "POST", "/refresh", Cookie=cookie).status_code == 403
        assert ask(app, "POST", "/refresh", Cookie=cookie, **OWN).status_code == 200
