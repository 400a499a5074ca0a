"""Passing connections and counting them: what is given arrives once, and what is not taken waits."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator

import pytest

from serving.ports.handover import ConnectionDropped, count_waiting, give, make_pair, take
from serving.ports.open_counts import OpenCounts

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    taking, giving = make_pair()
    with taking, giving:
        yield taking, giving


@pytest.fixture
def connection() -> Iterator[Pair]:
    """Return both ends of one, the client's first."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        accepted, _ = listener.accept()
    with client, accepted:
        yield client, accepted


@pytest.mark.parametrize("has_answered", [False, True])
def test_a_connection_arrives_with_what_its_client_has_sent(pair: Pair, connection: Pair, has_answered: bool) -> None:
    taking, giving = pair
    client, accepted = connection
    client.sendall(b"before")
    assert take(taking) is None
    assert give(giving, accepted.fileno(), has_answered=has_answered)
    accepted.close()
    client.sendall(b" and after")
    passed = take(taking)
    assert passed is not None
    assert passed.has_answered == has_answered
    with passed.connection as taken:
        assert (taken.getblocking(), os.get_inheritable(taken.fileno())) == (False, False)
        assert taken.getpeername() == client.getsockname()
        assert taken.recv(100) == b"before and after"
        taken.sendall(b"answer")
        assert client.recv(100) == b"answer"
    assert client.recv(100) == b""
    assert take(taking) is None


def test_connections_wait_for_whoever_takes_next(pair: Pair, connection: Pair) -> None:
    """The process that was to take them is gone; another one that holds the same socket takes them."""
    taking, giving = pair
    client, accepted = connection
    successor = taking.dup()
    give(giving, accepted.fileno())
    accepted.close()
    taking.close()
    with successor:
        taken = take(successor)
        assert taken is not None
        taken.connection.close()
        assert client.recv(1) == b""


def test_what_does_not_fit_is_not_given_and_all_that_waits_is_counted(pair: Pair, connection: Pair) -> None:
    taking, giving = pair
    _, accepted = connection
    other = giving.dup()  # as other workers have it
    given = 0
    with other:
        while give(other if given % 2 else giving, accepted.fileno()):
            given += 1
            assert count_waiting(giving) == count_waiting(other) == given
        assert given > 50
        assert not give(other, accepted.fileno())
        for left in reversed(range(given)):
            taken = take(taking)
            assert taken is not None
            taken.connection.close()
            assert count_waiting(other) == left
        assert take(taking) is None
        assert give(giving, accepted.fileno())


def test_nothing_is_given_to_a_pair_whose_taking_end_is_gone(pair: Pair, connection: Pair) -> None:
    taking, giving = pair
    taking.close()
    assert not give(giving, connection[1].fileno())


def test_when_all_others_have_ended_there_is_nothing_to_take(pair: Pair) -> None:
    taking, giving = pair
    giving.close()
    assert take(taking) is None


def test_a_connection_for_which_there_is_no_descriptor_is_told(pair: Pair, connection: Pair) -> None:
    taking, giving = pair
    give(giving, connection[1].fileno())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))  # no number may be used, whichever are free
    try:
        with pytest.raises(ConnectionDropped, match="no descriptor left"):
            take(taking)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def counts() -> Iterator[OpenCounts]:
    created = OpenCounts.create(3)
    yield created
    created.close()


def test_a_worker_declines_until_it_has_published_a_count(counts: OpenCounts) -> None:
    assert counts.read() == [None, None, None]
    counts.publish(1, 0)
    counts.publish(2, 70_000)
    assert counts.read() == [None, 0, 70_000]
    counts.decline(1)
    assert counts.read() == [None, None, 70_000]


def test_a_worker_that_is_excluded_cannot_include_itself(counts: OpenCounts) -> None:
    counts.publish(0, 4)
    counts.exclude(0)
    counts.publish(0, 5)
    assert counts.read()[0] is None
    counts.include(0)
    assert counts.read()[0] == 5


def test_all_processes_see_the_same_counts(counts: OpenCounts) -> None:
    other = OpenCounts(os.dup(counts.descriptor), 3)
    child = os.fork()
    if not child:
        other.publish(0, 7)
        os._exit(0)
    os.waitpid(child, 0)
    other.publish(2, 9)
    assert counts.read() == [7, None, 9]
    other.close()
    assert counts.read() == [7, None, 9]
