"""Where a request ends: nothing in its bytes is read as another one, and no request is read before its turn."""

from __future__ import annotations

import contextlib
import re
import select
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
from sklearn.linear_model import LinearRegression

from tests.e2e.harness import TOKEN, Server, connect, linear, serving, until, write_version

HOST = b"Host: localhost\r\n"
JSON = b"Content-Type: application/json\r\n"
ROW = b'{"instances": [[1.0, 2.0]]}'
INNER = b"GET /models/active HTTP/1.1\r\nHost: localhost\r\n\r\n"
OFFER = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n"
TENSOR = b'{"inputs": [{"name": "input", "shape": [1, 2], "datatype": "FP64", "data": [1.0, 2.0]}]}'
CALLS = {
    "native": (b"/models/m/predict", ROW),
    "open inference": (b"/v2/models/m/infer", TENSOR),
    "tensorflow": (b"/v1/models/m:predict", ROW),
    "mlflow": (b"/invocations", ROW),
    "operators": (b"/refresh", b"{}"),
    "nothing": (b"/nope", ROW),
}


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Server]]:
    """One that takes the short way for predictions, and one that cannot: it writes every request into its log."""
    directory = tmp_path_factory.mktemp("framing")
    write_version(directory / "store" / "m", 1, linear())
    store = directory / "store"
    with (
        serving(directory, store=store, name="short", wait_ready=True) as short,
        serving(directory, store=store, name="long", wait_ready=True, SERVING_LOG__ACCESS_SAMPLE="1") as long,
    ):
        yield {"short": short, "long": long}


def request(path: bytes, headers: bytes, body: bytes = b"", *, first: bytes = b"") -> bytes:
    line = first or b"POST %b HTTP/1.1" % path
    token = b"Authorization: Bearer %b\r\n" % TOKEN.encode()
    return line + b"\r\n" + HOST + JSON + token + headers + b"\r\n" + body


def length_of(body: bytes) -> bytes:
    return b"Content-Length: %d\r\n" % len(body)


def chunks_of(body: bytes) -> bytes:
    return b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


def receive(sock: socket.socket, answers: int = 1) -> list[int]:
    """Return the statuses of so many answers, fewer where the connection ends, read to their last byte."""
    statuses, received = [], b""
    while len(statuses) < answers:
        head, mark, rest = received.partition(b"\r\n\r\n")
        length = int((re.search(rb"content-length: (\d+)", head.lower()) or [0, b"0"])[1])
        if mark and len(rest) >= length:
            statuses.append(int(head[9:12]))
            received = rest[length:]
            continue
        part = sock.recv(65536)
        if not part:
            break
        received += part
    assert not received, "more answers than requests"
    return statuses


def is_open(sock: socket.socket) -> bool:
    """Whether one more request is answered, and answered once: what came before has left nothing behind."""
    sock.sendall(INNER.replace(b"/models/active", b"/health/live"))
    return receive(sock) == [200]


# --- an offer of another protocol ---------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["short", "long"])
@pytest.mark.parametrize("name", list(CALLS))
@pytest.mark.parametrize("offer", [OFFER, b"Upgrade: websocket\r\nConnection: keep-alive, upgrade\r\n"])
def test_an_upgrade_is_ignored_and_the_body_is_the_requests_own(
    servers: dict[str, Server], way: str, name: str, offer: bytes
) -> None:
    path, body = CALLS[name]
    expected = 404 if name == "nothing" else 200
    for framing, sent in ((length_of(body), body), (b"Transfer-Encoding: chunked\r\n", chunks_of(body))):
        with connect(servers[way].url) as sock:
            raw = request(path, offer + framing, sent)
            sock.sendall(raw)
            assert receive(sock) == [expected]
            sock.sendall(raw * 2)
            assert receive(sock, 2) == [expected] * 2
            assert is_open(sock)


@pytest.mark.parametrize("way", ["short", "long"])
def test_a_request_in_the_body_behind_an_upgrade_is_a_body(servers: dict[str, Server], way: str) -> None:
    for cut in (0, 1, len(INNER)):
        with connect(servers[way].url) as sock:
            sock.sendall(request(b"/models/m/predict", OFFER + length_of(INNER), INNER[:cut]))
            if cut < len(INNER):
                assert not select.select([sock], [], [], 0.1)[0], "answered before the body was there"
            sock.sendall(INNER[cut:])
            assert receive(sock) == [400]
            assert is_open(sock)


def test_an_upgrade_is_ignored_wherever_it_is_cut(servers: dict[str, Server]) -> None:
    raw = request(b"/models/m/predict", OFFER + length_of(ROW), ROW)
    with connect(servers["short"].url) as sock:
        for place in range(1, len(raw), 7):
            sock.sendall(raw[:place])
            select.select([sock], [], [], 0.001)
            sock.sendall(raw[place:])
            assert receive(sock) == [200]


def test_a_get_that_offers_a_websocket_is_answered(servers: dict[str, Server]) -> None:
    with connect(servers["short"].url) as sock:
        sock.sendall(INNER[:-2] + b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n")
        assert receive(sock) == [200]
        assert is_open(sock)


def test_an_upgrade_keeps_the_wish_to_close(servers: dict[str, Server]) -> None:
    with connect(servers["short"].url) as sock:
        sock.sendall(request(b"/predict", b"Connection: close, upgrade\r\nUpgrade: x\r\n" + length_of(ROW), ROW))
        assert receive(sock, 2) == [200]


def test_curl_and_java_that_offer_http2_are_answered(servers: dict[str, Server], tmp_path: Path) -> None:
    url = f"{servers['short'].url}/models/m/predict"
    tried = []
    if (
        shutil.which("curl")
        and b"HTTP2" in subprocess.run(["curl", "--version"], check=True, capture_output=True).stdout
    ):
        command = ["curl", "-s", "--http2", "-H", "Content-Type: application/json", "-d", ROW.decode(), url, url]
        tried.append(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout)
    if shutil.which("java") and shutil.which("javac"):
        (tmp_path / "Post.java").write_text(JAVA)
        command = ["java", "-XX:TieredStopAtLevel=1", str(tmp_path / "Post.java"), url, ROW.decode()]
        tried.append(subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout)
    if not tried:
        pytest.skip("neither a curl with HTTP/2 nor a JDK is here")
    for said in tried:
        assert said.count('"predictions":[5.') == 2, said


JAVA = """
import java.net.URI;
import java.net.http.*;
public class Post {
  public static void main(String[] a) throws Exception {
    HttpClient client = HttpClient.newHttpClient();
    for (int i = 0; i < 2; i++) {
      var request = HttpRequest.newBuilder(URI.create(a[0])).header("Content-Type", "application/json")
          .POST(HttpRequest.BodyPublishers.ofString(a[1])).build();
      System.out.println(client.send(request, HttpResponse.BodyHandlers.ofString()).body());
    }
  }
}
"""

# --- lengths, codings, lines and names ----------------------------------------------------------------------------

OK, BAD = 200, 400
CHUNKED = b"Transfer-Encoding: chunked\r\n"


def head(more: bytes, body: bytes = ROW, first: bytes = b"") -> bytes:
    return request(b"/models/m/predict", more, body, first=first)


def chunk(size: bytes, end: bytes = b"\r\n0\r\n\r\n") -> bytes:
    return head(CHUNKED, size + ROW + end)


LENGTH = length_of(ROW)
FRAMES = {
    "two lengths that are equal": (head(LENGTH * 2), BAD),
    "two lengths that differ": (head(b"Content-Length: 0\r\n" + LENGTH), BAD),
    "a list of lengths": (head(b"Content-Length: 27, 27\r\n"), BAD),
    "a length and chunks": (head(LENGTH + CHUNKED, chunks_of(ROW)), BAD),
    "chunks and a length": (head(CHUNKED + LENGTH, chunks_of(ROW)), BAD),
    "a negative length": (head(b"Content-Length: -1\r\n"), BAD),
    "a length with a sign": (head(b"Content-Length: +27\r\n"), BAD),
    "a length with an underscore": (head(b"Content-Length: 2_7\r\n"), BAD),
    "a length in hexadecimal": (head(b"Content-Length: 0x1b\r\n"), BAD),
    "a length with a space": (head(b"Content-Length: 2 7\r\n"), BAD),
    "a length of other digits": (head("Content-Length: ٢٧\r\n".encode()), BAD),
    "no length in it": (head(b"Content-Length: \r\n"), BAD),
    "a length beyond 64 bits": (head(b"Content-Length: 18446744073709551643\r\n"), BAD),
    "a length with zeros": (head(b"Content-Length: 0000027\r\n"), OK),
    "chunked, identity": (head(b"Transfer-Encoding: chunked, identity\r\n", chunks_of(ROW)), BAD),
    "identity, chunked in two lines": (head(b"Transfer-Encoding: identity\r\n" + CHUNKED, chunks_of(ROW)), BAD),
    "chunked twice": (head(CHUNKED * 2, chunks_of(ROW)), BAD),
    "gzip, chunked": (head(b"Transfer-Encoding: gzip, chunked\r\n", chunks_of(ROW)), BAD),
    "identity": (head(b"Transfer-Encoding: identity\r\n"), BAD),
    "xchunked": (head(b"Transfer-Encoding: xchunked\r\n", chunks_of(ROW)), BAD),
    '"chunked"': (head(b'Transfer-Encoding: "chunked"\r\n', chunks_of(ROW)), BAD),
    "chunked with a parameter": (head(b"Transfer-Encoding: chunked;q=1\r\n", chunks_of(ROW)), BAD),
    "no coding in it": (head(b"Transfer-Encoding: \r\n" + LENGTH), BAD),
    "a vertical tab before chunked": (head(b"Transfer-Encoding: \x0bchunked\r\n", chunks_of(ROW)), BAD),
    "a folded coding": (head(b"Transfer-Encoding:\r\n chunked\r\n", chunks_of(ROW)), BAD),
    "a space before the colon of chunked": (head(b"Transfer-Encoding : chunked\r\n", chunks_of(ROW)), BAD),
    "CHUNKED between blanks": (head(b"Transfer-Encoding: \tCHUNKED \r\n", chunks_of(ROW)), OK),
    "chunks in HTTP/1.0": (head(CHUNKED, chunks_of(ROW), b"POST /predict HTTP/1.0"), BAD),
    "a chunk beyond 64 bits": (chunk(b"1000000000000001b\r\n"), BAD),
    "a chunk with a sign": (chunk(b"+1b\r\n"), BAD),
    "a negative chunk": (chunk(b"-1b\r\n"), BAD),
    "a chunk with 0x": (chunk(b"0x1b\r\n"), BAD),
    "a chunk with an underscore": (chunk(b"1_b\r\n"), BAD),
    "a chunk with a blank": (chunk(b"1b \r\n"), BAD),
    "a chunk without a size": (chunk(b"\r\n"), BAD),
    "a chunk that ends in a line feed": (chunk(b"1b\n"), BAD),
    "a chunk with nothing behind it": (chunk(b"1b\r\n", b"0\r\n\r\n"), BAD),
    "a chunk with more behind it": (chunk(b"1b\r\n", b"XX0\r\n\r\n"), BAD),
    "an extension": (chunk(b"1b;a=b\r\n"), OK),
    "an extension with a line feed": (chunk(b"1b;a\nb\r\n"), BAD),
    "an extension with a carriage return": (chunk(b"1b;a\rb\r\n"), BAD),
    "a trailer": (chunk(b"1b\r\n", b"\r\n0\r\nX-More: 1\r\n\r\n"), OK),
    "a length as a trailer": (chunk(b"1b\r\n", b"\r\n0\r\nContent-Length: 5\r\n\r\n"), BAD),
    "line feeds alone": (head(LENGTH).replace(b"\r\n", b"\n"), BAD),
    "a line feed behind a header": (head(b"X-One: 1\n" + LENGTH), BAD),
    "a carriage return in a header": (head(b"X-One: a\rb\r\n" + LENGTH), BAD),
    "a folded header": (head(b"X-One: a\r\n b\r\n" + LENGTH), BAD),
    "a space before a colon": (head(b"X-One : a\r\n" + LENGTH), BAD),
    "a space before the first header": (head(LENGTH).replace(b"Host", b" Host", 1), BAD),
    "a header without a colon": (head(b"X-One\r\n" + LENGTH), BAD),
    "a header without a name": (head(b": a\r\n" + LENGTH), BAD),
    "a name with a bracket": (head(b"X(One): a\r\n" + LENGTH), BAD),
    "a name beyond ASCII": (head("X-é: a\r\n".encode() + LENGTH), BAD),
    "a NUL in a name": (head(b"X\0: a\r\n" + LENGTH), BAD),
    "a NUL in a value": (head(b"X-One: a\0b\r\n" + LENGTH), BAD),
    "a control character in a value": (head(b"X-One: a\x01b\r\n" + LENGTH), BAD),
    "an underscore for a hyphen": (head(b"Transfer_Encoding: chunked\r\n" + LENGTH), OK),
    "CONNECT": (head(b"", INNER, b"CONNECT localhost:80 HTTP/1.1"), BAD),
    "CONNECT with a length": (head(length_of(INNER), INNER, b"CONNECT localhost:80 HTTP/1.1"), BAD),
    "HTTP/2.0": (head(LENGTH, ROW, b"POST /predict HTTP/2.0"), BAD),
    "the preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", BAD),
    "HTTP/0.9 by name": (head(LENGTH, ROW, b"POST /predict HTTP/0.9"), BAD),
    "HTTP/1.10": (head(LENGTH, ROW, b"POST /predict HTTP/1.10"), BAD),
    "http in small letters": (head(LENGTH, ROW, b"POST /predict http/1.1"), BAD),
    "a target without a slash": (head(LENGTH, ROW, b"POST predict HTTP/1.1"), BAD),
    "a target with a control character": (head(LENGTH, ROW, b"POST /pre\x01dict HTTP/1.1"), BAD),
    "an address as a target": (head(LENGTH, ROW, b"POST http://localhost:1/predict HTTP/1.1"), OK),
    "an address of another kind": (head(LENGTH, ROW, b"POST ftp://localhost/predict HTTP/1.1"), BAD),
    "an address with a user": (head(LENGTH, ROW, b"POST http://me@localhost/predict HTTP/1.1"), BAD),
    "an address of another server": (head(LENGTH, ROW, b"POST http://elsewhere.example/predict HTTP/1.1"), 421),
    "no host": (head(LENGTH).replace(HOST, b""), BAD),
    "two hosts": (head(HOST + LENGTH), BAD),
    "two hosts that differ": (head(b"Host: elsewhere.example\r\n" + LENGTH), BAD),
    "an empty host": (head(LENGTH).replace(HOST, b"Host:\r\n"), BAD),
    "a host with a blank": (head(LENGTH).replace(HOST, b"Host: local host\r\n"), BAD),
    "a host with a user": (head(LENGTH).replace(HOST, b"Host: me@localhost\r\n"), BAD),
    "a host with a path": (head(LENGTH).replace(HOST, b"Host: localhost/x\r\n"), BAD),
    "a list of hosts": (head(LENGTH).replace(HOST, b"Host: localhost, elsewhere\r\n"), BAD),
    "a port that is none": (head(LENGTH).replace(HOST, b"Host: localhost:8x\r\n"), BAD),
    "a host between blanks": (head(LENGTH).replace(HOST, b"Host: \tlocalhost \r\n"), OK),
}


@pytest.mark.parametrize("way", ["short", "long"])
@pytest.mark.parametrize("name", list(FRAMES))
def test_bytes_that_two_servers_could_read_differently_are_refused_once(
    servers: dict[str, Server], way: str, name: str
) -> None:
    """What is refused ends its connection, so that nothing behind it is answered; what is not, goes on."""
    raw, expected = FRAMES[name]
    with connect(servers[way].url) as sock:
        sock.sendall(raw + INNER)
        if expected == BAD:
            assert receive(sock, 2) == [BAD]
        else:
            assert receive(sock, 2) == [expected, 200]
            assert is_open(sock)


def test_http_1_0_needs_no_host(servers: dict[str, Server]) -> None:
    with connect(servers["short"].url) as sock:
        sock.sendall(b"POST /predict HTTP/1.0\r\n" + JSON + LENGTH + b"\r\n" + ROW + INNER)
        assert receive(sock, 2) == [200]


# --- requests sent ahead ------------------------------------------------------------------------------------------


def memory_mb(server: Server) -> float:
    assert server.process is not None
    return psutil.Process(server.process.pid).memory_info().rss / (1 << 20)


@pytest.mark.parametrize("raw", [INNER, head(LENGTH)], ids=["reads", "predictions"])
def test_a_flood_of_requests_on_one_connection_takes_no_memory(servers: dict[str, Server], raw: bytes) -> None:
    """Its client sends without reading; other clients are answered meanwhile. On the long way: each takes a while."""
    server = servers["long"]
    before = memory_mb(server)
    block = raw * (1 + (64 << 10) // len(raw))
    sent, peak = 0, before
    with connect(server.url) as sock:
        sock.setblocking(False)
        quiet = 0
        while quiet < 20 and sent < 64 << 20:  # until the system's buffers are full and stay so
            if select.select([], [sock], [], 0.05)[1]:
                sent += sock.send(block[sent % len(block) :])
                quiet = 0
            else:
                quiet += 1
            peak = max(peak, memory_mb(server))
        assert sent > 100_000
        assert server.client.get(server.url + "/health/live").status_code == 200
    assert peak - before < 16, "one head and one body, not thousands of requests"


def test_many_requests_sent_ahead_are_answered_each_in_order(servers: dict[str, Server]) -> None:
    """More than is read in one go, on both ways in turns."""
    paths = [b"/health/live", b"/nope", b"/models/active"]
    raws = [INNER.replace(b"/models/active", path) for path in paths] + [head(LENGTH)]
    count = 500
    with connect(servers["short"].url) as sock:
        sender = threading.Thread(target=lambda: sock.sendall(b"".join(raws) * count))
        sender.start()
        assert receive(sock, 4 * count) == [200, 404, 200, 200] * count
        sender.join(20)
        assert is_open(sock)


def test_large_bodies_sent_ahead_are_answered_in_order(servers: dict[str, Server]) -> None:
    body = b'{"instances": [' + b",".join([b"[1.0, 2.0]"] * 40_000) + b"]}"
    large = head(length_of(body), body)
    cut = head(CHUNKED, chunks_of(b"\r\n\r\n" * 50_000 + body))
    with connect(servers["short"].url) as sock:
        sender = threading.Thread(target=lambda: sock.sendall((large + cut + INNER) * 3))
        sender.start()
        assert receive(sock, 9) == [200] * 9
        sender.join(20)
        assert is_open(sock)


# --- clients that never read ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that lets clients go soon; its model answers with more than the system keeps for a socket."""
    with serving(tmp_path_factory.mktemp("impatient"), SERVING_SERVER__IDLE_SECONDS="0.5") as server:
        server.drop("m", 1, LinearRegression().fit([[0.0], [1.0]], [[0.1] * 8, [0.7] * 8]))
        server.wait_active("m", 1)
        yield server


MANY = b'{"instances": [' + b",".join([b"[0.123]"] * 100_000) + b"]}"


@pytest.mark.parametrize("requests", [1, 2])
def test_a_client_that_never_reads_its_answer_is_let_go(impatient: Server, requests: int) -> None:
    """A second request that was sent ahead waits for room that never comes."""
    assert impatient.process is not None
    process = psutil.Process(impatient.process.pid)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        address = urlsplit(impatient.url)
        client.connect((address.hostname, address.port))
        own = client.getsockname()[1]
        sender = threading.Thread(target=lambda: _send(client, head(length_of(MANY), MANY) * requests), daemon=True)
        sender.start()
        assert client.recv(1, socket.MSG_PEEK) == b"H", "the answer began"
        until(
            lambda: not any(one.raddr and one.raddr.port == own for one in process.net_connections("tcp")),
            "the end of the connection",
        )
        sender.join(20)
    assert impatient.predict("m", [[1.0]]).status_code == 200


def _send(sock: socket.socket, data: bytes) -> None:
    with contextlib.suppress(OSError):
        sock.sendall(data)
