"""Decides which names a request may be addressed to: the header ``Host``, by ``server.hosts``.

A web page can make its own name resolve to this machine, and then read this server as if it were the page's own ("DNS
rebinding"). The page cannot choose the ``Host`` of its requests: that is the page's name. So a server that listens on a
loopback address, usually on a personal machine, answers to loopback names only.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address

from serving.domain.errors import Misdirected
from serving.domain.text import shorten

ANY = "*"
LOCALHOST = "localhost"
MAX_SEEN, MAX_SEEN_BYTES = 256, 512

# RFC 9110, 7.2, and RFC 3986, 3.2.2; but without the comma, which no name has and a list of names would
_HOST = re.compile(rb"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._~%!$&'()*+;=-]+))(?::[0-9]{0,5})?")


class ServerNames:
    """The names one listener answers to. Event loop thread only.

    `names` are those of ``server.hosts``; `bound_to` is the address the listener is bound to. `seen` holds headers that
    have passed before: for most requests this lookup is all that is needed.
    """

    def __init__(self, names: tuple[str, ...], bound_to: str) -> None:
        own = _normalize_name(bound_to)
        self._is_any = ANY in names or not (names or is_loopback(own))
        self._names = frozenset((own, *map(_normalize_name, names)))
        self.seen: set[bytes | None] = set()

    def require_own_name(self, header: bytes | None) -> None:
        """Raise Misdirected unless the header ``Host`` names this server; None: the request has no such header."""
        if header is None or header in self.seen:
            return
        name = parse_host(header) or ""
        if not (self._is_any or name in self._names or is_loopback(name)):
            shown = shorten(name, 100)
            raise Misdirected(
                f"this server does not answer to '{shown}'; if it should, add \"{shown}\" to server.hosts"
            )
        if len(header) > MAX_SEEN_BYTES:
            return
        if len(self.seen) >= MAX_SEEN:
            self.seen.clear()
        self.seen.add(header)


def parse_host(header: bytes) -> str | None:
    """Return the name in a header ``Host``, in lower case, without port, brackets and last dot; None: it is invalid."""
    found = _HOST.fullmatch(header.strip(b" \t"))
    if found is None:
        return None
    address, name = found.groups()
    if address is None:
        return _normalize_name(name.decode("ascii")) or None
    try:
        return str(IPv6Address(address.decode("ascii")))
    except ValueError:
        return None


def is_loopback(name: str) -> bool:
    """Say whether a name means the client's own machine everywhere: localhost, what ends in it, loopback addresses."""
    if name == LOCALHOST or name.endswith("." + LOCALHOST):
        return True
    try:
        address: IPv4Address | IPv6Address = ip_address(name)
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped.is_loopback
    return address.is_loopback


def why_not_a_server_name(text: str) -> str | None:
    """Say why a text cannot stand in ``server.hosts``; None: it can."""
    name = _normalize_name(text)
    if text == ANY or (":" in name and is_address(name)):
        return None
    found = parse_host(text.encode("utf-8", "replace"))
    if found is None:
        return "is no name of a server; expected one like models.example.com, or * for any"
    return None if found == name else "has a port; expected a name without a port"


def is_address(name: str) -> bool:
    """Say whether a name is an IP address, without brackets."""
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _normalize_name(name: str) -> str:
    plain = name.lower().removesuffix(".")
    try:
        return str(ip_address(plain.removeprefix("[").removesuffix("]")))
    except ValueError:
        return plain
