"""A proxy before a server, as a company may have one: it holds streams back, refuses them, or stops passing them on."""

from __future__ import annotations

import contextlib
import http.client
import threading
from collections.abc import Iterator
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

_HOP_BY_HOP = {"connection", "transfer-encoding", "content-length", "keep-alive", "date", "server"}
_STREAM = "text/event-stream"


class Treatment(Enum):
    """What the proxy does with a stream."""

    PASS = "pass"
    HOLD = "hold"  # it waits for the end of the answer, which never comes
    REFUSE = "refuse"
    FREEZE = "freeze"  # it passes on what has come until then, and nothing more


class HoldingProxy(ThreadingHTTPServer):
    """Passes on what is asked of `upstream`, and treats streams as `treatment` says: when they ask, and later."""

    daemon_threads = True

    def __init__(self, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), _PassOn)
        self.upstream = upstream
        self.treatment = Treatment.PASS
        self.streams = 0
        self.frozen = 0  # streams of which nothing more is passed on
        self.ended = threading.Event()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_port}"


class _PassOn(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HoldingProxy

    def do_GET(self) -> None:
        address = urlsplit(self.server.upstream)
        is_stream = self.path.startswith("/events") and _STREAM in self.headers.get("Accept", "")
        self.server.streams += is_stream
        if is_stream and self.server.treatment is Treatment.REFUSE:
            self.send_error(502)
            return
        upstream = http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)
        with contextlib.closing(upstream):
            upstream.request("GET", self.path, headers=dict(self.headers))
            answer = upstream.getresponse()
            if is_stream:
                self._pass_stream(answer)
                return
            content = answer.read()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in _HOP_BY_HOP:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    def _pass_stream(self, answer: http.client.HTTPResponse) -> None:
        self.close_connection = True
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.headers["Content-Type"])
        self.end_headers()
        with contextlib.suppress(OSError):
            while line := answer.readline():
                if self.server.treatment in (Treatment.HOLD, Treatment.FREEZE):
                    self.server.frozen += 1
                    self.server.ended.wait()
                    return
                self.wfile.write(line)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@contextlib.contextmanager
def holding_proxy(upstream: str) -> Iterator[HoldingProxy]:
    """Run a proxy for the length of a ``with`` block."""
    with HoldingProxy(upstream) as proxy:
        thread = threading.Thread(target=proxy.serve_forever)
        thread.start()
        try:
            yield proxy
        finally:
            proxy.ended.set()
            proxy.shutdown()
            thread.join()
