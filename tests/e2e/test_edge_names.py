"""To whom a request is addressed, and for whose page a browser sends it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.e2e.harness import TOKEN, Server, connect, linear, serving, until, write_version

ROW = '{"instances": [[1.0, 2.0]]}'
TENSOR = '{"inputs": [{"name": "input", "shape": [1, 2], "datatype": "FP64", "data": [1.0, 2.0]}]}'
JSON = {"Content-Type": "application/json"}
ADMIN = {"Authorization": f"Bearer {TOKEN}"}
POSTS = {
    "/models/m/predict": ROW,
    "/models/m/versions/1/predict": ROW,
    "/predict": ROW,
    "/v2/models/m/infer": TENSOR,
    "/v1/models/m:predict": ROW,
    "/v1/models/m:regress": '{"examples": [{"x0": 1.0, "x1": 2.0}]}',
    "/invocations": ROW,
    "/models/m/invocations": ROW,
    "/refresh": "",
    "/models/m/pin": '{"version": "1"}',
    "/v2/repository/index": "{}",
    "/v2/repository/models/m/load": "{}",
}
OTHERS = ["/health/live", "/health/ready", "/ping", "/models", "/metrics", "/docs", "/openapi.json", "/v2", "/nope"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("names")
    write_version(directory / "store" / "m", 1, linear())
    return directory / "store"


@pytest.fixture(scope="module")
def own(store: Path) -> Iterator[Server]:
    """One on a loopback address, with its defaults."""
    with serving(store.parent, store=store, name="own", wait_ready=True) as server:
        yield server


@pytest.fixture(scope="module")
def named(store: Path) -> Iterator[Server]:
    """One on every address that has been given a name, with a port for operators on a loopback address."""
    given = {
        "SERVING_SERVER__HOST": "0.0.0.0",
        "SERVING_SERVER__HOSTS": "models.example.com",
        "SERVING_SERVER__ADMIN_PORT": "0",
    }
    with serving(store.parent, store=store, name="named", wait_ready=True, **given) as server:
        yield server


def ask(
    server: Server | str, method: str, path: str, body: str = "", host: str = "localhost", **headers: str
) -> tuple[int, dict[str, str], str]:
    """Send one request with exactly these headers and return its status, headers and body."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", "Connection: close", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    with connect(server if isinstance(server, str) else server.url) as sock:
        sock.sendall("\r\n".join([*lines, "", body]).encode())
        received = b""
        while part := sock.recv(65536):
            received += part
    head, _, text = received.decode().partition("\r\n\r\n")
    first, *rest = head.split("\r\n")
    return int(first.split()[1]), dict(line.lower().split(": ", 1) for line in rest), text


def detail(text: str) -> str:
    """Return what an error says, whatever the protocol's shape of it."""
    document = json.loads(text)
    return str(document.get("detail") or document.get("error") or document.get("message"))


# --- names --------------------------------------------------------------------------------------------------------

LOOPBACK = ["localhost", "LOCALHOST:8000", "localhost.", "iris.localhost", "127.0.0.1", "127.9.8.7:1", "[::1]:8000"]
FOREIGN = [
    "rebound.example",
    "rebound.example:8000",
    "localhost.example",
    "192.168.0.7",
    "[2001:db8::1]",
    "127.0.0.1.x",
]


@pytest.mark.parametrize("host", LOOPBACK)
def test_loopback_names_reach_a_server_on_a_loopback_address(own: Server, host: str) -> None:
    assert ask(own, "POST", "/models/m/predict", ROW, host, **JSON)[0] == 200
    assert ask(own, "GET", "/health/live", host=host)[0] == 200


@pytest.mark.parametrize("host", FOREIGN)
@pytest.mark.parametrize("path", [*POSTS, *OTHERS])
def test_no_other_name_does_whatever_is_asked(own: Server, host: str, path: str) -> None:
    """So no page reaches it by having its own name resolve to this machine."""
    method = "POST" if path in POSTS else "GET"
    status, headers, text = ask(own, method, path, POSTS.get(path, ""), host, **JSON, **ADMIN)
    name = host.removesuffix(":8000").strip("[]")
    assert status == 421
    assert detail(text) == f"this server does not answer to '{name}'; if it should, add \"{name}\" to server.hosts"
    assert headers["x-request-id"]
    expected = "application/problem+json" if path in ("/models", "/predict", "/refresh") else "json"
    assert expected in headers["content-type"]


def test_the_name_is_looked_at_again_after_one_that_was_right(own: Server) -> None:
    """On one connection, on the short way of predictions too."""
    with connect(own.url) as sock:
        for host, expected in (("localhost", b"200"), ("rebound.example", b"421")) * 3:
            head = f"POST /models/m/predict HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(ROW)}\r\n\r\n"
            sock.sendall((head + ROW).encode())
            assert sock.recv(65536)[9:12] == expected


def test_a_misdirected_request_is_logged_and_its_body_not_read(own: Server) -> None:
    with connect(own.url) as sock:
        sock.sendall(b"POST /models/m/predict HTTP/1.1\r\nHost: rebound.example\r\nContent-Length: 1000000\r\n\r\n{")
        assert sock.recv(65536).startswith(b"HTTP/1.1 421 ")
    until(lambda: any(one.get("event") == "request" and one.get("status") == 421 for one in own.log()), "its line")


def test_a_server_on_every_address_answers_to_any_name(store: Path) -> None:
    with serving(store.parent, store=store, name="open", wait_ready=True, SERVING_SERVER__HOST="0.0.0.0") as server:
        port = urlsplit(server.url).port
        for host in [*LOOPBACK, *FOREIGN, "model-server", f"0.0.0.0:{port}"]:
            assert ask(f"http://127.0.0.1:{port}", "POST", "/predict", ROW, host, **JSON)[0] == 200


def test_names_that_are_set_are_the_only_ones_besides_loopback_names(named: Server) -> None:
    port = urlsplit(named.url).port
    url = f"http://127.0.0.1:{port}"
    for host in ["models.example.com", "Models.Example.Com.:8000", *LOOPBACK]:
        assert ask(url, "POST", "/predict", ROW, host, **JSON)[0] == 200
    for host in [*FOREIGN, "other.example.com", "x.models.example.com"]:
        assert ask(url, "POST", "/predict", ROW, host, **JSON)[0] == 421


def test_the_admin_port_goes_by_its_own_address(named: Server) -> None:
    operators = next(str(one["url"]) for one in named.log() if one.get("event") == "listening_for_operators")
    assert ask(operators, "GET", "/models/m/history", host="localhost", **ADMIN)[0] == 200
    assert ask(operators, "GET", "/models/m/history", host="models.example.com", **ADMIN)[0] == 200
    assert ask(operators, "GET", "/models/m/history", host="rebound.example", **ADMIN)[0] == 421


def test_a_star_is_any_name(store: Path) -> None:
    with serving(store.parent, store=store, name="star", wait_ready=True, SERVING_SERVER__HOSTS="*") as server:
        for host in FOREIGN:
            assert ask(server, "POST", "/predict", ROW, host, **JSON)[0] == 200


# --- pages of other sites -----------------------------------------------------------------------------------------

FORMS = ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain", None]
FOREIGN_PAGES: list[dict[str, str]] = [
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://localhost:1"},
    {"Origin": "http://127.0.0.1"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site", "Origin": "http://localhost"},
    {"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"},
]


@pytest.mark.parametrize("page", FOREIGN_PAGES, ids=lambda page: " ".join(page.values()))
@pytest.mark.parametrize("path", list(POSTS))
def test_a_page_of_another_site_cannot_have_a_browser_post(own: Server, path: str, page: dict[str, str]) -> None:
    for kind in (*FORMS, "application/json"):
        headers = page | ({} if kind is None else {"Content-Type": kind}) | ADMIN
        status, answered, text = ask(own, "POST", path, POSTS[path], **headers)
        assert (status, "for another site" in detail(text)) == (403, True), (kind, text)
        assert not any(name.startswith("access-control") for name in answered)


@pytest.mark.parametrize(
    "page",
    [
        {},
        {"Origin": "http://localhost"},
        {"Origin": "HTTP://LOCALHOST:80"},
        {"Origin": "https://localhost"},
        {"Sec-Fetch-Site": "same-origin", "Origin": "https://models.example.com"},
        {"Sec-Fetch-Site": "none"},
    ],
    ids=lambda page: " ".join(page.values()),
)
@pytest.mark.parametrize("path", list(POSTS))
def test_a_page_of_this_server_and_what_is_no_browser_may(own: Server, path: str, page: dict[str, str]) -> None:
    """The third last is a proxy that speaks TLS, the one after it a proxy that has put its own name into `Host`."""
    assert ask(own, "POST", path, POSTS[path], **page, **JSON, **ADMIN)[0] == 200


def test_the_origin_is_compared_with_its_port(own: Server) -> None:
    port = urlsplit(own.url).port
    for origin, expected in ((f"http://localhost:{port}", 200), ("http://localhost", 403)):
        status, _, _ = ask(own, "POST", "/predict", ROW, f"localhost:{port}", Origin=origin, **JSON)
        assert status == expected


def test_deleting_is_refused_like_posting(own: Server) -> None:
    assert ask(own, "DELETE", "/models/m/pin", Origin="http://evil.example", **ADMIN)[0] == 403
    assert ask(own, "DELETE", "/models/m/pin", **ADMIN)[0] == 200


def test_curl_may_go_on_to_call_json_a_form_where_the_protocol_lets_it(own: Server) -> None:
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    assert ask(own, "POST", "/v2/models/m/infer", TENSOR, **kind)[0] == 200
    assert ask(own, "POST", "/v1/models/m:predict", ROW, **kind)[0] == 200
    assert ask(own, "POST", "/models/m/predict", ROW, **kind)[0] == 415


@pytest.mark.parametrize("path", [*POSTS, *OTHERS])
def test_a_browser_that_asks_first_is_granted_nothing(own: Server, path: str) -> None:
    asks = {
        "Origin": "http://evil.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type",
    }
    status, headers, _ = ask(own, "OPTIONS", path, **asks)
    assert status in (404, 405)
    assert not any(name.startswith("access-control") for name in headers)
    status, headers, _ = ask(own, "GET", path, Origin="http://evil.example")
    assert not any(name.startswith("access-control") for name in headers)
