"""Checks the head of a request beyond the checks of the parser, and remembers heads that need not be parsed again.

The parser (llhttp, strict) refuses bare line feeds, folded lines, spaces before a colon, lengths that are no number or
come twice, and a length together with chunks. It allows two things by which two servers in a row could read different
requests in the same bytes: transfer codings that this server does not read, and a switch to another protocol.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from serving.domain.server_names import parse_host

Headers = Sequence[tuple[bytes, bytes]]

NOT_HTTP = "what was sent is not HTTP/1.1; is it TLS, or another protocol?"

_VERSIONS = ("1.1", "1.0")
_CHUNKED = b"chunked"
_SCHEMES = (b"http://", b"https://")
_OF_UPGRADES = frozenset({b"upgrade", b"http2-settings"})
_HOP = b"connection"

END_OF_HEAD = b"\r\n\r\n"
MOST_KNOWN_HEADS, MOST_KNOWN_BYTES = 512, 1024
# What such a head says is of its request alone, so it does not come again; and tokens and sessions are not kept.
_NEVER_KNOWN = frozenset({b"authorization", b"cookie", b"x-request-id", b"traceparent"})


class Target(NamedTuple):
    """A request target in absolute form, taken apart: RFC 9112, 3.2.2."""

    authority: bytes
    path: bytes


def find_fault(version: str, headers: Headers) -> str | None:
    """Return what is wrong with a head, None if nothing is. Names of headers are in lower case."""
    if version not in _VERSIONS:
        return f"HTTP/{version} is not spoken here; send HTTP/1.1"
    codings = [value.strip() for name, value in headers if name == b"transfer-encoding"]
    if codings and (version == "1.0" or b",".join(codings).lower() != _CHUNKED):
        return "'Transfer-Encoding' is something else than 'chunked', or beside HTTP/1.0; send a Content-Length"
    hosts = [value for name, value in headers if name == b"host"]
    if len(hosts) > 1:
        return f"there are {len(hosts)} headers 'Host'; send one"
    if not hosts:
        return None if version == "1.0" else "there is no header 'Host'; HTTP/1.1 needs one"
    if parse_host(hosts[0]) is None:
        return f"the header 'Host' is {hosts[0][:100].decode('latin-1')!r}; expected a name, or a name and a port"
    return None


def split_target(url: bytes) -> Target | None:
    """Take a target in absolute form apart; None if its scheme is neither http nor https, or it names a user."""
    scheme = next((scheme for scheme in _SCHEMES if url[: len(scheme)].lower() == scheme), None)
    if scheme is None:
        return None
    rest = url[len(scheme) :]
    end = min((place for place in map(rest.find, (b"/", b"?", b"#")) if place >= 0), default=len(rest))
    authority, path = rest[:end], rest[end:]
    if parse_host(authority) is None:
        return None
    return Target(authority, path if path.startswith(b"/") else b"/" + path)


def with_host(headers: Headers, authority: bytes) -> list[tuple[bytes, bytes]]:
    """Return the headers with the authority of the target as ``Host``: it replaces the header of the request."""
    return [(b"host", authority), *(header for header in headers if header[0] != b"host")]


def without_upgrade(method: bytes, url: bytes, version: str, headers: Headers) -> bytes:
    """Return the head of a request without its offer of another protocol: RFC 9110, 7.8."""
    lines = [b"%b %b HTTP/%b\r\n" % (method, url, version.encode())]
    for name, value in headers:
        if name in _OF_UPGRADES:
            continue
        if name == _HOP:
            options = [option.strip() for option in value.split(b",")]
            value = b", ".join(option for option in options if option.lower() not in _OF_UPGRADES)  # noqa: PLW2901
            if not value:
                continue
        lines.append(b"%b: %b\r\n" % (name, value))
    return b"".join([*lines, b"\r\n"])


class KnownHead(NamedTuple):
    """The result of parsing a head: the target, the headers, and how long the body is."""

    path: str
    fields: Mapping[bytes, bytes]
    body_bytes: int


class KnownHeads:
    """Heads of predictions that were answered at once, by their bytes. Event loop thread only.

    A client sends the same heads again and again. The same bytes at the same place mean the same request, so they need
    not be parsed again: parsing is a third of the work of a connection for a prediction. `find` takes the bytes of a
    head, with its blank line, and returns the result of parsing it, or None.
    """

    def __init__(self) -> None:
        self._heads: dict[bytes, KnownHead] = {}
        self.find = self._heads.get

    def remember(self, request: bytes, path: str, fields: Mapping[bytes, bytes], body_bytes: int) -> bool:
        """Remember the head of a request that may be whole, with nothing before it, and that does not close.

        Return False for a head that will not come again: other heads of its connection will not come again either.
        """
        if not _NEVER_KNOWN.isdisjoint(fields):
            return False
        end = len(request) - body_bytes
        head = request[:end]
        if end <= MOST_KNOWN_BYTES and head.find(END_OF_HEAD) == end - len(END_OF_HEAD):  # else there is more than one
            if len(self._heads) >= MOST_KNOWN_HEADS:
                self._heads.clear()
            self._heads[head] = KnownHead(path, fields, body_bytes)
        return True
