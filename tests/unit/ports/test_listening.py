"""Opening one port several times, on real sockets: who else may have it, and on which addresses."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import pytest

from serving.ports import listening
from serving.ports.listening import Sockets, close_all, open_listeners, port_of, reserve_port

HOSTS = ("127.0.0.1", "::1", "")
Opening = Callable[[str, int], Any]


@contextmanager
def opened(host: str, port: int = 0, workers: int = 3) -> Iterator[tuple[Sockets, ...]]:
    groups = open_listeners(host, port, workers)
    try:
        yield groups
    finally:
        for group in groups:
            close_all(group)


def listen(host: str, port: int, *options: int) -> socket.socket:
    """Listen as another program would, with these options on."""
    one = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        for option in options:
            one.setsockopt(socket.SOL_SOCKET, option, 1)
        one.bind((host, port))
        one.listen()
    except BaseException:
        one.close()
        raise
    return one


def open_two(host: str, port: int) -> None:
    """Open a port for two workers, and close it."""
    with opened(host, port, 2):
        pass


def reserve(host: str, port: int) -> None:
    """Reserve a port, and close it."""
    close_all(reserve_port(host, port))


@pytest.mark.parametrize("host", HOSTS)
def test_each_worker_listens_on_the_same_free_port_of_every_address(host: str) -> None:
    with opened(host) as groups:
        names = [[one.getsockname() for one in group] for group in groups]
        assert len(names) == 3
        assert names[0] == names[1] == names[2]
        assert {name[1] for name in names[0]} == {port_of(groups[0])}
        assert [name[0] for name in names[0]] == ([host] if host else ["0.0.0.0", "::"])
        for one in (one for group in groups for one in group):
            assert one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            assert not one.getblocking()
            assert not os.get_inheritable(one.fileno())
            if one.family == socket.AF_INET6:
                assert one.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_connections_are_spread_over_the_sockets_from_the_first_on(host: str) -> None:
    with opened(host) as groups, ExitStack() as clients:
        for _ in range(60):
            clients.enter_context(socket.create_connection((host, port_of(groups[0]))))
        accepted = [0] * 3
        for worker, (one,) in enumerate(groups):
            while True:
                try:
                    one.accept()[0].close()
                except BlockingIOError:
                    break
                accepted[worker] += 1
        assert sum(accepted) == 60
        assert min(accepted) > 0


@pytest.mark.parametrize("opening", [open_two, reserve])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("options", [(), (socket.SO_REUSEADDR,), (socket.SO_REUSEADDR, socket.SO_REUSEPORT)])
def test_a_port_that_another_program_has_is_an_error(opening: Opening, host: str, options: tuple[int, ...]) -> None:
    """Also one that would share it."""
    with closing(listen(host, 0, *options)) as other, pytest.raises(OSError, match="in use") as raised:
        opening(host, other.getsockname()[1])
    assert raised.value.errno == errno.EADDRINUSE


@pytest.mark.parametrize("opening", [open_two, reserve])
@pytest.mark.parametrize("host", HOSTS)
def test_a_port_that_another_server_of_this_kind_has_is_an_error(opening: Opening, host: str) -> None:
    with opened(host) as groups, pytest.raises(OSError, match="in use"):
        opening(host, port_of(groups[0]))
    with closing_all(reserve_port(host, 0)) as reserved, pytest.raises(OSError, match="in use"):
        opening(host, port_of(reserved))


@contextmanager
def closing_all(sockets: Sockets) -> Iterator[Sockets]:
    try:
        yield sockets
    finally:
        close_all(sockets)


@pytest.mark.parametrize("opening", [open_two, reserve])
def test_connections_that_ended_a_moment_ago_do_not_keep_the_port(opening: Opening) -> None:
    with opened("127.0.0.1", 0, 1) as ((listener,),):
        port = port_of((listener,))
        with socket.create_connection(("127.0.0.1", port)) as client:
            listener.setblocking(True)
            listener.accept()[0].close()  # this side closes first, and keeps the port in TIME_WAIT
            assert client.recv(1) == b""
    with pytest.raises(OSError, match="in use"):
        listen("127.0.0.1", port).close()
    opening("127.0.0.1", port)


@pytest.mark.parametrize("options", [(), (socket.SO_REUSEADDR,)])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "0.0.0.0", "::"])
def test_a_reserved_port_is_for_those_who_share_it(host: str, options: tuple[int, ...]) -> None:
    with closing_all(reserve_port(host, 0)) as reserved:
        port = port_of(reserved)
        with pytest.raises(OSError, match="in use"):
            listen(host, port, *options)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((host, port), timeout=5)
        with closing(listen(host, port, *options, socket.SO_REUSEPORT)) as sharing:
            for _ in range(20):  # all reach the one that listens
                with socket.create_connection((host, port), timeout=5):
                    sharing.accept()[0].close()


def test_all_addresses_are_reserved_in_both_families() -> None:
    for host in ("", "0.0.0.0", "::"):
        with closing_all(reserve_port(host, 0)) as reserved:
            for other in ("127.0.0.1", "::1"):
                with pytest.raises(OSError, match="in use"):
                    listen(other, port_of(reserved), socket.SO_REUSEADDR)


def test_a_port_that_is_being_reserved_is_nobody_elses_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    def close_and_try(sockets: Sockets) -> None:
        port = port_of(sockets)
        close_all(sockets)
        with pytest.raises(OSError, match="in use"):
            listen("127.0.0.1", port).close()

    monkeypatch.setattr(listening, "close_all", close_and_try)
    with closing_all(reserve_port("127.0.0.1", 0)) as reserved:
        assert port_of(reserved)


def _addresses(*hosts: str) -> Callable[..., list[Any]]:
    """Stand in for the resolver."""

    def found(*_: Any, **__: Any) -> list[Any]:
        stream = socket.SOCK_STREAM
        families = [socket.AF_INET6 if ":" in host else socket.AF_INET for host in hosts]
        return [
            (family, stream, 6, "", (host, 0, 0, 0) if ":" in host else (host, 0))
            for host, family in zip(hosts, families, strict=True)
        ]

    return found


def test_a_name_of_several_addresses_is_listened_on_at_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", _addresses("127.0.0.1", "127.0.0.2", "::1", "127.0.0.1"))
    with opened("several") as groups:
        port = port_of(groups[0])
        for group in groups:
            assert [one.getsockname()[:2] for one in group] == [
                (host, port) for host in ("127.0.0.1", "127.0.0.2", "::1")
            ]
    with closing_all(reserve_port("several", 0)) as reserved:
        assert [one.getsockname()[0] for one in reserved] == ["127.0.0.1", "127.0.0.2", "::1"]
        assert len({one.getsockname()[1] for one in reserved}) == 1


def test_a_free_port_is_free_on_every_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel chooses it for the first one; where it is taken on the second, another one is tried."""
    monkeypatch.setattr(socket, "getaddrinfo", _addresses("127.0.0.1", "127.0.0.2"))
    tried = []
    bind = listening._Address.bind

    def bind_late(address: Any, port: int, **options: Any) -> socket.socket:
        if address.host == "127.0.0.2" and not tried:
            tried.append(listen("127.0.0.2", port))
        return bind(address, port, **options)

    monkeypatch.setattr(listening._Address, "bind", bind_late)
    with opened("several", 0, 1) as (group,):
        assert port_of(group) != port_of(tried)
    with pytest.raises(OSError, match="in use"):  # one that was asked for is not replaced by another one
        open_listeners("several", port_of(tried), 1)
    close_all(tried)


def test_a_family_that_this_machine_lacks_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.socket

    def without_ipv6(family: int = socket.AF_INET, *rest: Any, **more: Any) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
        return real(family, *rest, **more)

    monkeypatch.setattr(socket, "socket", without_ipv6)
    monkeypatch.setattr(socket, "getaddrinfo", _addresses("127.0.0.1", "::1"))
    with opened("several", 0, 1) as (group,):
        assert [one.getsockname()[0] for one in group] == ["127.0.0.1"]
    monkeypatch.setattr(socket, "getaddrinfo", _addresses("::1"))
    with pytest.raises(OSError, match="no address family of 'six'"):
        open_listeners("six", 0, 1)
    monkeypatch.setattr(socket, "getaddrinfo", _addresses("::"))
    with pytest.raises(OSError, match="no address family"):
        reserve_port("::", 0)
    monkeypatch.setattr(socket, "getaddrinfo", _addresses("0.0.0.0"))
    with closing_all(reserve_port("0.0.0.0", 0)) as reserved:
        assert [one.getsockname()[0] for one in reserved] == ["0.0.0.0"]


def test_nothing_stays_open_when_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", _addresses("127.0.0.1", "127.0.0.2"))
    made: list[socket.socket] = []

    class Noted(socket.socket):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            made.append(self)

    with closing(listen("127.0.0.2", 0)) as other:
        monkeypatch.setattr(socket, "socket", Noted)
        for opening in (open_two, reserve):
            with pytest.raises(OSError, match="in use"):
                opening("several", other.getsockname()[1])
    assert made
    assert [one for one in made if one.fileno() >= 0] == []
