"""Sends one long body to a server: in pieces, and only once the server wants it."""

from __future__ import annotations

import http.client
import json
import select
import socket
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from serving.cli.client import CallFailed, ServerClient
from serving.cli.output import one_line

ASK_SECONDS = 5.0  # a server, or a proxy before it, that does not say 'continue' is sent the body all the same
ANSWER_SECONDS = 1800.0  # the gates run meanwhile
_MAX_ANSWER_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class UploadAnswer:
    """What a server has answered: the status, and the JSON document."""

    status: int
    document: dict[str, Any]


def send_upload(
    server: ServerClient, target: str, size: int, chunks: Iterable[bytes], headers: Mapping[str, str]
) -> UploadAnswer:
    """PUT a body of `size` bytes and return the answer, whatever its status. Blocks. Raises CallFailed."""
    parts = urlsplit(server.url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=server.timeout_seconds)
    try:
        connection.putrequest("PUT", parts.path + target, skip_accept_encoding=True)
        for name, value in {**headers, "Content-Length": str(size), "Expect": "100-continue"}.items():
            connection.putheader(name, value)
        connection.endheaders()
        if _wants_body(connection.sock):
            _send_all(connection, chunks)
        connection.sock.settimeout(ANSWER_SECONDS)
        response = connection.getresponse()
        raw = response.read(_MAX_ANSWER_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise CallFailed(one_line(server.explain_no_answer(error))) from None
    finally:
        connection.close()
    try:
        document = json.loads(raw)
        if isinstance(document, dict):
            return UploadAnswer(response.status, document)
    except ValueError:
        pass
    raise CallFailed(one_line(f"{server.url} answered {response.status} {response.reason}; is it a serving server?"))


def _wants_body(sock: socket.socket) -> bool:
    """Wait until the server has said that it reads the body, or has refused it. What it says first stays unread.

    Nothing of an encrypted connection can be looked at without reading it, so there the body is always sent.
    """
    if isinstance(sock, ssl.SSLSocket):
        return True
    readable, _, _ = select.select([sock], [], [], ASK_SECONDS)
    return not readable or b" 100 " in sock.recv(16, socket.MSG_PEEK)


def _send_all(connection: http.client.HTTPConnection, chunks: Iterable[bytes]) -> None:
    """Send the body. A server that has answered before its end reads no more: its answer says why."""
    try:
        for chunk in chunks:
            connection.send(chunk)
    except (BrokenPipeError, ConnectionResetError):
        pass
