"""What waits for workers that do not accept, on real sockets: it goes to those that do, and nothing is lost."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from serving.ports import forwarding
from serving.ports.forwarding import ConnectionForwarder
from serving.ports.handover import count_waiting, give, take
from serving.ports.shared_port import SharedPort

WORKERS = 3


class Machine:
    """One port, its forwarder, and clients. Workers are only their ends of sockets: nobody accepts by itself."""

    def __init__(self) -> None:
        self.port = SharedPort.open("127.0.0.1", 0, WORKERS)
        self.forwarder = ConnectionForwarder((self.port,))
        self.clients: list[socket.socket] = []

    def connect(self, count: int) -> None:
        """Open connections; each says its number."""
        for _ in range(count):
            client = socket.create_connection(("127.0.0.1", self.port.port))
            client.sendall(b"%d" % len(self.clients))
            self.clients.append(client)

    def give_to(self, worker: int, *, has_answered: bool = False) -> None:
        """Pass a new connection to a worker."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            client = socket.create_connection(listener.getsockname())
            client.sendall(b"%d" % len(self.clients))
            self.clients.append(client)
            accepted, _ = listener.accept()
            with accepted:
                assert give(self.port.shares[0].giving[worker], accepted.fileno(), has_answered=has_answered)

    def take_all(self, worker: int) -> list[tuple[int, bool]]:
        """Take what a worker was passed; return which clients' connections, and whether one has answered on them."""
        found = []
        while (passed := take(self.port.shares[worker].taking)) is not None:
            with passed.connection as connection:
                found.append((int(connection.recv(10)), passed.has_answered))
        return found

    def fill(self, worker: int) -> int:
        """Pass to a worker as much as there is room for, and return how much that was."""
        before = len(self.clients)
        with socket.socket() as other:
            while give(self.port.shares[0].giving[worker], other.fileno()):
                before += 1
        return before - len(self.clients)

    def empty(self, worker: int) -> None:
        """Drop everything that was passed to a worker."""
        while (passed := take(self.port.shares[worker].taking)) is not None:
            passed.connection.close()

    def waiting(self) -> list[int]:
        """Return how many connections wait for each worker to take them."""
        return [count_waiting(one) for one in self.port.shares[0].giving]

    def close(self) -> None:
        """Give everything back."""
        for client in self.clients:
            client.close()
        self.forwarder.close()
        self.port.close()


@pytest.fixture
def machine() -> Iterator[Machine]:
    created = Machine()
    yield created
    created.close()


def test_what_waits_for_workers_that_do_not_accept_goes_to_the_others_evenly(machine: Machine) -> None:
    """Of three listeners two are not served; what the kernel gave to the third is its worker's."""
    for worker in range(2):
        machine.port.counts.publish(worker, worker * 4)
    machine.port.leave_out(1)
    machine.connect(30)
    machine.forwarder.forward(0)
    machine.forwarder.forward(0)
    taken = [number for number, _ in machine.take_all(0)]
    own = machine.port.shares[0].listeners[0]
    while len(taken) < 30:
        accepted, _ = own.accept()
        with accepted:
            taken.append(int(accepted.recv(10)))
    assert sorted(taken) == list(range(30))
    assert machine.take_all(1) == machine.take_all(2) == []


def test_it_goes_to_the_worker_with_the_fewest(machine: Machine) -> None:
    machine.port.counts.publish(0, 5)
    machine.port.counts.publish(1, 2)
    for _ in range(7):
        machine.give_to(2)
    machine.forwarder.forward(0)
    assert machine.waiting() == [2, 5, 0]


def test_what_was_passed_and_not_taken_goes_on_as_what_it_was(machine: Machine) -> None:
    machine.give_to(1, has_answered=True)
    machine.give_to(1)
    machine.port.counts.publish(0, 0)
    machine.port.counts.publish(1, 0)
    machine.forwarder.forward(0)
    assert machine.waiting() == [0, 2, 0]
    machine.forwarder.leave_out(1)
    machine.forwarder.forward(0)  # only wakes
    machine.forwarder.forward(0)
    assert machine.take_all(0) == [(0, True), (1, False)]


def test_without_a_worker_that_accepts_everything_waits_where_it_is(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is polled again and again, and nothing is accepted when the last worker has just stopped."""
    machine.connect(10)
    machine.give_to(1)
    looked = []
    monkeypatch.setattr(machine.forwarder, "_forward", looked.append)
    machine.forwarder.forward(0)
    assert looked == []
    monkeypatch.undo()
    for share in machine.port.shares:
        for one in (share.taking, *share.listeners):
            assert machine.forwarder._forward(forwarding._Source(machine.port, share.worker, one))
    accepted = 0
    for share in machine.port.shares:
        while True:
            try:
                share.listeners[0].accept()[0].close()
            except BlockingIOError:
                break
            accepted += 1
    assert (accepted, machine.waiting()) == (10, [0, 1, 0])


def test_where_there_is_no_room_connections_wait_and_none_is_lost(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First nowhere, then with the worker that they came for, and at last with one that accepts."""
    monkeypatch.setattr(forwarding, "FULL_SECONDS", 0.0001)
    machine.port.counts.publish(0, 0)
    machine.fill(0)
    machine.connect(20)
    machine.fill(1)
    machine.fill(2)
    before = machine.waiting()
    machine.forwarder.forward(0.01)
    assert machine.waiting() == before
    machine.empty(1)
    machine.empty(2)
    machine.forwarder.forward(0.01)
    assert sum(machine.waiting()[1:]) > 0
    machine.empty(0)
    machine.forwarder.forward(0.01)
    taken = {number for number, _ in machine.take_all(0)}
    own = machine.port.shares[0].listeners[0]
    while len(taken) < 20:
        accepted, _ = own.accept()
        with accepted:
            taken.add(int(accepted.recv(10)))
    assert taken == set(range(20))


def test_what_is_held_is_the_successors_when_it_accepts(machine: Machine) -> None:
    machine.port.counts.publish(0, 0)
    machine.give_to(1)
    passed = take(machine.port.shares[1].taking)
    assert passed is not None
    machine.fill(0)
    machine.fill(1)
    source = forwarding._Source(machine.port, 1, machine.port.shares[1].taking)
    assert not machine.forwarder._give(source, passed)
    machine.empty(1)
    machine.port.counts.publish(1, 0)
    machine.forwarder.forward(0)
    assert machine.take_all(1) == [(0, False)]


def test_what_is_held_at_the_end_is_closed(machine: Machine) -> None:
    machine.give_to(1)
    passed = take(machine.port.shares[1].taking)
    assert passed is not None
    machine.fill(0)
    machine.fill(1)
    machine.forwarder._give(forwarding._Source(machine.port, 1, machine.port.shares[1].taking), passed)
    machine.forwarder.close()
    machine.clients[0].settimeout(10)
    with pytest.raises(ConnectionResetError):  # what it had sent was not read
        machine.clients[0].recv(1)
    machine.forwarder = ConnectionForwarder(())


def test_without_a_free_descriptor_connections_wait(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarding, "FULL_SECONDS", 0.0001)
    monkeypatch.setattr(forwarding, "has_free_descriptor", lambda: False)
    machine.port.counts.publish(0, 0)
    machine.give_to(1)
    machine.forwarder.forward(0.01)
    assert machine.waiting() == [0, 1, 0]


def test_a_call_ends_when_another_thread_wakes_it(machine: Machine) -> None:
    thread = threading.Thread(target=machine.forwarder.forward, args=(60,))
    thread.start()
    machine.port.counts.publish(0, 0)
    machine.forwarder.expect_successor(1)
    machine.forwarder.leave_out(1)
    thread.join(20)
    assert not thread.is_alive()


def test_when_it_is_closed_calls_do_nothing() -> None:
    machine = Machine()
    machine.close()
    machine.forwarder.wake()
    machine.forwarder.leave_out(0)
    machine.forwarder.readmit(0)
    machine.forwarder.expect_successor(0)
