"""HTTP/1.1 over keep-alive sockets with as little client as possible, so that what is measured is the server."""

from __future__ import annotations

import re
import socket
from urllib.parse import urlsplit

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
END_OF_HEAD = b"\r\n\r\n"


def address_of(url: str) -> tuple[str, int]:
    """Return host and port of a URL."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port


def request_bytes(path: str, body: bytes) -> bytes:
    """Return a POST of JSON, ready to be sent again and again."""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return head.encode() + END_OF_HEAD + body


def cut_response(received: bytes | bytearray) -> tuple[int, bytes, int] | None:
    """Return status, body and the length of the first response in `received`; None while it is not complete."""
    end_of_head = received.find(END_OF_HEAD)
    if end_of_head < 0:
        return None
    length = _LENGTH.search(received, 0, end_of_head)
    if length is None:
        raise ValueError("a response without Content-Length")
    start = end_of_head + len(END_OF_HEAD)
    end = start + int(length[1])
    if len(received) < end:
        return None
    return int(received[9:12]), bytes(received[start:end]), end


def connect(address: tuple[str, int]) -> socket.socket:
    """Return a connected socket that sends at once."""
    sock = socket.create_connection(address, timeout=60)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


class Connection:
    """One connection, one request at a time. Blocks."""

    def __init__(self, url: str) -> None:
        self._socket = connect(address_of(url))

    @property
    def port(self) -> int:
        """The port on this side."""
        port: int = self._socket.getsockname()[1]
        return port

    def exchange(self, request: bytes) -> tuple[int, bytes]:
        """Send a request of `request_bytes` and return status and body of its answer."""
        self.send(request)
        return self.receive()

    def send(self, request: bytes) -> None:
        """Send a request of `request_bytes`; `receive` its answer before the next one."""
        self._socket.sendall(request)

    def receive(self) -> tuple[int, bytes]:
        """Return status and body of the answer to what was sent."""
        received = bytearray()
        while (response := cut_response(received)) is None:
            chunk = self._socket.recv(65536)
            if not chunk:
                raise ConnectionError("the server closed the connection")
            received += chunk
        return response[0], response[1]

    def close(self) -> None:
        """Close it."""
        self._socket.close()
