"""Which names a listener answers to, and what is a name at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.domain.errors import Misdirected
from serving.domain.server_names import MAX_SEEN, ServerNames, is_loopback, parse_host, why_not_a_server_name

LOOPBACK = ["localhost", "a.localhost", "127.0.0.1", "127.255.0.9", "::1", "::ffff:127.0.0.1"]


@pytest.mark.parametrize(
    ("header", "name"),
    [
        (b"localhost", "localhost"),
        (b"LocalHost:8000", "localhost"),
        (b"localhost.:1", "localhost"),
        (b"[::1]:8000", "::1"),
        (b"[0:0:0:0:0:0:0:1]", "::1"),
        (b" a.example\t", "a.example"),
        (b"a_b", "a_b"),
        (b"", None),
        (b":80", None),
        (b"a b", None),
        (b"a,b", None),
        (b"a/b", None),
        (b"me@a", None),
        (b"a:b", None),
        (b"a:123456", None),
        (b"::1", None),
        (b"[::1", None),
        (b"[1]", None),
        (b"\xc3\xa9", None),
    ],
)
def test_a_header_has_one_name_or_none(header: bytes, name: str | None) -> None:
    assert parse_host(header) == name


@pytest.mark.parametrize("name", LOOPBACK)
def test_loopback_names(name: str) -> None:
    assert is_loopback(name)


@pytest.mark.parametrize("name", ["localhost.example", "notlocalhost", "128.0.0.1", "::2", "127.1", "0.0.0.0", ""])
def test_names_of_other_machines(name: str) -> None:
    assert not is_loopback(name)


@pytest.mark.parametrize("bound_to", ["127.0.0.1", "localhost", "::1", "127.0.0.2"])
def test_on_a_loopback_address_only_loopback_names_are_answered(bound_to: str) -> None:
    names = ServerNames((), bound_to)
    for good in (b"localhost:1", b"[::1]", b"127.0.0.1"):
        names.require_own_name(good)
    with pytest.raises(Misdirected, match=r"add \"evil.example\" to server.hosts"):
        names.require_own_name(b"evil.example")


@pytest.mark.parametrize(
    ("hosts", "bound_to"), [((), "0.0.0.0"), ((), "::"), ((), "10.0.0.1"), ((), "box"), (("*",), "127.0.0.1")]
)
def test_elsewhere_every_name_is_answered(hosts: tuple[str, ...], bound_to: str) -> None:
    ServerNames(hosts, bound_to).require_own_name(b"anything.example")


def test_names_that_are_given_are_answered_in_any_spelling() -> None:
    names = ServerNames(("Models.Example.com", "[2001:db8::1]"), "10.0.0.1")
    for good in (b"models.example.com", b"MODELS.example.com.:80", b"[2001:DB8:0::1]", b"10.0.0.1:8000", b"localhost"):
        names.require_own_name(good)
    for bad in (b"example.com", b"a.models.example.com", b"10.0.0.2"):
        with pytest.raises(Misdirected):
            names.require_own_name(bad)


def test_what_is_remembered_is_bounded_and_only_what_was_right() -> None:
    names = ServerNames(("*",), "::")
    for number in range(3 * MAX_SEEN):
        names.require_own_name(b"name%d" % number)
    assert 0 < len(names.seen) <= MAX_SEEN
    names.seen.clear()
    names.require_own_name(b"a" * 30_000)
    assert not names.seen
    strict = ServerNames((), "127.0.0.1")
    with pytest.raises(Misdirected):
        strict.require_own_name(b"evil.example")
    assert not strict.seen


@pytest.mark.parametrize("text", ["models.example.com", "*", "localhost", "[::1]", "::1", "10.0.0.1", "A.b."])
def test_names_that_may_be_set(text: str) -> None:
    assert why_not_a_server_name(text) is None


@pytest.mark.parametrize("text", ["", "a b", "http://a", "a/b", "a:80", "[::1]:80", "*.example.com/", "é"])
def test_texts_that_are_no_names(text: str) -> None:
    assert why_not_a_server_name(text)


@given(st.binary(max_size=40))
def test_no_header_is_more_than_refused(header: bytes) -> None:
    name = parse_host(header)
    assert name is None or (name == name.lower() and name)
