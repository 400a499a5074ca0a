"""Opens one port for several workers, each with sockets of its own, and reserves a port that a library opens itself.

The kernel spreads new connections over the sockets of a port that have SO_REUSEPORT. It lets any process of the same
user join, so another server that was given the same port by mistake would get a share of the connections. So a port is
first opened without that option, which fails if anything else has the port, and the option is set afterwards.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

BACKLOG = 2048  # connections that wait for a worker: as many as uvicorn lets wait
MOST_TRIES = 16  # to find one port that is free on every address of a name
ALL_ADDRESSES = ("0.0.0.0", "::")  # noqa: S104  (what they mean, not where to listen)

Sockets: TypeAlias = tuple[socket.socket, ...]


@dataclass(frozen=True, slots=True)
class _Address:
    """Where to bind; `rest` is what follows the port. `is_dual`: an IPv6 socket that takes IPv4 as well."""

    family: int
    host: str
    rest: tuple[Any, ...] = ()
    is_dual: bool = False

    def bind(self, port: int, *, shares_port: bool = False) -> socket.socket:
        """Return a socket that is bound, in the way of asyncio. Raises OSError."""
        with contextlib.ExitStack() as opened:
            one = opened.enter_context(socket.socket(self.family, socket.SOCK_STREAM))
            one.setblocking(False)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if shares_port:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if self.family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(not self.is_dual))
            one.bind((self.host, port, *self.rest))
            opened.pop_all()
            return one


def open_listeners(host: str, port: int, workers: int, backlog: int = BACKLOG) -> tuple[Sockets, ...]:
    """Listen on a port, and return the sockets of each worker: one for each address of `host`. Blocks while a name is
    looked up.

    An empty `host` means all addresses. Port 0 takes one free port for all of them: see `port_of`. From now on
    connections wait in these sockets. When the last descriptor of a socket is closed, those that wait in it are reset:
    so the caller keeps them, and workers get copies. They do not block, and are closed on exec. Raises OSError if the
    name is not found, or if something else listens on the port.
    """
    addresses = _resolve(host)
    first = _listen_alone(addresses, port, backlog)
    groups = [first]
    try:
        for one in first:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        for _ in range(workers - 1):
            groups.append(_bind_all(addresses, port_of(first)))
            for one in groups[-1]:
                one.listen(backlog)
    except BaseException:
        for group in groups:
            close_all(group)
        raise
    return tuple(groups)


def reserve_port(host: str, port: int) -> Sockets:
    """Bind a port without listening, for processes of the same user that listen on it with SO_REUSEPORT. Blocks while a
    name is looked up.

    Until the sockets are closed no other program can listen on the port. They get no connections. Port 0 takes a free
    port: see `port_of`. 0.0.0.0 and :: both mean all addresses of both families, as gRPC has it. Raises OSError as
    `open_listeners` does.
    """
    addresses = _resolve(host)
    if any(address.host in ALL_ADDRESSES for address in addresses):
        has_ipv6 = _has_family(socket.AF_INET6)
        addresses = [_Address(socket.AF_INET6, "::", is_dual=True) if has_ipv6 else _Address(socket.AF_INET, "")]
    probes = _listen_alone(addresses, port, 1)
    try:
        for one in probes:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved = _bind_all(addresses, port_of(probes))
    finally:
        close_all(probes)  # only now: else anybody could take the port in between
    for one in reserved:  # it was for connections that have just ended; from now on it would let others listen here
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    return reserved


def port_of(sockets: Sequence[socket.socket]) -> int:
    """Return the port that all of these sockets have."""
    port: int = sockets[0].getsockname()[1]
    return port


def close_all(sockets: Iterable[socket.socket]) -> None:
    """Close sockets."""
    for one in sockets:
        one.close()


def _resolve(host: str) -> list[_Address]:
    """Return the addresses of a host in their order, each once, of the families that this machine has."""
    found = socket.getaddrinfo(host or None, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    addresses = dict.fromkeys(_Address(family, str(where[0]), where[2:]) for family, _, _, _, where in found)
    usable = [address for address in addresses if _has_family(address.family)]
    if not usable:
        raise OSError(errno.EAFNOSUPPORT, f"this machine has no address family of {host!r}")
    return usable


def _has_family(family: int) -> bool:
    try:
        socket.socket(family, socket.SOCK_STREAM).close()
    except OSError as error:
        if error.errno == errno.EAFNOSUPPORT:
            return False
        raise
    return True


def _listen_alone(addresses: Sequence[_Address], port: int, backlog: int) -> Sockets:
    """Listen where nothing else does, on the same port of every address. Raises OSError."""
    for _ in range(MOST_TRIES):
        with contextlib.ExitStack() as opened:
            sockets: list[socket.socket] = []
            try:
                for address in addresses:
                    one = opened.enter_context(address.bind(port_of(sockets) if sockets else port))
                    one.listen(backlog)
                    sockets.append(one)
            except OSError as error:
                if port == 0 and sockets and error.errno == errno.EADDRINUSE:
                    continue  # this port is free on the first addresses only
                raise
            opened.pop_all()
            return tuple(sockets)
    raise OSError(errno.EADDRINUSE, f"no port was free on all of {', '.join(one.host for one in addresses)}")


def _bind_all(addresses: Sequence[_Address], port: int) -> Sockets:
    """Bind a socket that shares the port, for each address."""
    with contextlib.ExitStack() as opened:
        sockets = tuple(opened.enter_context(address.bind(port, shares_port=True)) for address in addresses)
        opened.pop_all()
        return sockets
