"""Workers of one port in one process, on real sockets: who serves a connection, and what happens when one cannot."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import uvicorn
import uvloop
from uvicorn.server import ServerState

from serving.http1 import acceptor
from serving.http1.acceptor import Acceptor
from serving.http1.connection_state import HttpState
from serving.http1.counted_connection import CountedConnection, OpenTally
from serving.ports.handover import count_waiting, give
from serving.ports.listening import open_listeners
from serving.ports.shared_port import PortShare, SharedPort
from serving.settings import ServerSettings
from tests.unit.http1.wire import Application, predict, request

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
SETTINGS = ServerSettings()


class Client:
    """One connection, which stays open. Each request has a target of its own, so that it is known who answered."""

    def __init__(self, workers: Workers, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._workers, self._reader, self.writer = workers, reader, writer
        self._asked: list[str] = []

    def send(self, path: str = "/other", kind: Callable[[bytes], bytes] = request) -> None:
        """Send a whole request."""
        self._asked.append(f"{path}-{self._workers.next_number()}")
        self.writer.write(kind(self._asked[-1].encode()))

    async def answer(self) -> int:
        """Return the worker that has answered the next request."""
        head = await self._reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        assert b"connection: close" not in head
        size = next(int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"content-length:"))
        body = await self._reader.readexactly(size)
        path = self._asked.pop(0)
        assert body.decode().startswith(path)
        (worker,) = [number for number, one in enumerate(self._workers.sites) if path in one.targets()]
        return worker

    async def ask(self) -> int:
        """Ask, and return the worker that answers."""
        self.send()
        return await self.answer()


class Site(Application):
    """What one worker answers with."""

    def targets(self) -> list[str]:
        """Return what was answered here, the short way or the long one."""
        return [*self.began, *(path for path, _, _ in self.shortcut.asked)]


class Workers:
    """Workers of one port on one loop. All connections arrive at the first one, which has the only listener."""

    def __init__(self, count: int, host: str = "127.0.0.1") -> None:
        (listeners,) = open_listeners(host, 0, 1)
        self.host, self.count = host, count
        self.port = SharedPort([listeners, *((),) * (count - 1)])
        self.sites = [Site(SETTINGS) for _ in range(count)]
        self.states = [ServerState() for _ in range(count)]
        self.acceptors: list[Acceptor] = []
        self.clients: list[Client] = []
        self._number = 0

    def next_number(self) -> int:
        """Return a number that was never returned before."""
        self._number += 1
        return self._number

    async def start(self, worker: int, most_open: int = 0) -> Acceptor:
        """Start one worker with descriptors of its own, as a process has them."""
        config = uvicorn.Config(
            self.sites[worker],  # type: ignore[arg-type]
            lifespan="off",
            ws="none",
            log_config=None,
            timeout_keep_alive=600,  # no connection is idle for too long, however slow the machine is
        )
        config.load()

        def connect(tally: OpenTally, has_answered: bool) -> asyncio.Protocol:
            return CountedConnection(config, self.states[worker], {}, tally=tally, has_answered=has_answered)

        descriptors = [os.dup(one) for one in self.port.shares[worker].descriptors()]
        started = Acceptor(PortShare.receive(worker, self.count, descriptors), connect, most_open)
        self.acceptors.append(started)
        await started.start()
        return started

    async def start_all(self) -> list[Acceptor]:
        """Start all workers."""
        return [await self.start(worker) for worker in range(self.count)]

    async def open(self) -> Client:
        """Open a connection."""
        self.clients.append(Client(self, *await asyncio.open_connection(self.host, self.port.port)))
        return self.clients[-1]

    async def ask(self) -> int:
        """Open a connection that stays open, and return the worker that answers on it."""
        return await (await self.open()).ask()

    def counts(self) -> list[int | None]:
        """Return what the supervisor sees."""
        return self.port.counts.read()

    def waiting(self, worker: int) -> int:
        """Return how many connections wait for a worker to take them."""
        return count_waiting(self.port.shares[0].giving[worker])

    def connections(self, worker: int) -> list[CountedConnection]:
        """Return the connections that a worker has open."""
        found = self.states[worker].connections
        assert all(isinstance(one, CountedConnection) for one in found)
        return list(found)  # type: ignore[arg-type]

    async def close(self) -> None:
        """Stop all, clients first."""
        for client in self.clients:
            client.writer.transport.abort()
        for site in self.sites:
            for event in site.waiting:
                event.set()
        for one in self.acceptors:
            one.close()
        await until(lambda: not any(state.connections for state in self.states))
        for one in self.acceptors:
            await one.wait_closed()
        self.port.close()


Scenario = Callable[[Workers], Awaitable[None]]


async def until(condition: Callable[[], object]) -> None:
    """Let the loop go on until the condition holds; whoever runs a scenario bounds the wait."""
    while not condition():
        await asyncio.sleep(0.001)


@pytest.fixture(params=LOOPS)
def run_with(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Run a scenario with workers, on each kind of loop."""

    def run(scenario: Scenario, count: int = 2, host: str = "127.0.0.1") -> None:
        async def bounded() -> None:
            workers = Workers(count, host)
            async with asyncio.timeout(20):
                try:
                    await scenario(workers)
                finally:
                    await workers.close()

        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            runner.run(bounded())

    return run


# --- new connections --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_connections_are_even(run_with: Callable[..., None], host: str, count: int) -> None:
    async def scenario(workers: Workers) -> None:
        await workers.start_all()
        answered = Counter([await workers.ask() for _ in range(3 * count)])
        assert answered == dict.fromkeys(range(count), 3)
        assert workers.counts() == [3] * count

    run_with(scenario, count, host)


def test_connections_that_are_accepted_in_one_turn_are_even(run_with: Callable[..., None]) -> None:
    async def scenario(workers: Workers) -> None:
        waiting = [await workers.open() for _ in range(40)]  # in the listener, before anybody accepts
        for worker in reversed(range(3)):
            await workers.start(worker)
        answered = Counter([await one.ask() for one in waiting])
        assert sum(answered.values()) == 40
        assert answered[0] - min(answered.values()) <= 1 + min(answered.values()) // 8
        assert abs(answered[1] - answered[2]) <= 1

    run_with(scenario, 3)


def test_a_connection_that_ends_is_counted_no_more(run_with: Callable[..., None]) -> None:
    async def scenario(workers: Workers) -> None:
        await workers.start_all()
        answered = [await workers.ask() for _ in range(4)]
        assert workers.counts() == [2, 2]
        for worker, client in zip(answered, list(workers.clients), strict=True):
            if worker == 1:
                client.writer.close()
        await until(lambda: workers.counts() == [2, 0])
        assert [await workers.ask() for _ in range(2)] == [1, 1]

    run_with(scenario)


def test_nothing_is_passed_to_a_worker_that_is_not_there(run_with: Callable[..., None]) -> None:
    """It has not started, the supervisor has left it out, or it has stopped."""

    async def scenario(workers: Workers) -> None:
        await workers.start(0)
        assert [await workers.ask() for _ in range(3)] == [0] * 3
        second = await workers.start(1)
        assert await workers.ask() == 1
        workers.port.leave_out(1)
        assert await workers.ask() == 0
        workers.port.readmit(1)
        assert await workers.ask() == 1
        second.close()
        assert await workers.ask() == 0
        await workers.start(1)
        assert await workers.ask() == 1

    run_with(scenario)


def test_what_was_passed_and_not_taken_is_the_successors(run_with: Callable[..., None]) -> None:
    async def scenario(workers: Workers) -> None:
        await workers.start(0)
        workers.port.counts.publish(1, 0)  # a worker that answers nothing, and is thought to be alive
        opened = [await workers.open() for _ in range(6)]
        await until(lambda: workers.counts() == [3, 0] and workers.waiting(1) == 3)
        await workers.start(1)
        assert Counter([await one.ask() for one in opened]) == {0: 3, 1: 3}
        assert workers.counts() == [3, 3]

    run_with(scenario)


def test_a_connection_that_cannot_be_passed_is_kept(
    run_with: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []
    monkeypatch.setattr(acceptor, "give", lambda *given: tried.append(given))

    async def scenario(workers: Workers) -> None:
        await workers.start_all()
        assert [await workers.ask() for _ in range(4)] == [0] * 4
        assert workers.counts() == [4, 0]

    run_with(scenario)
    assert len(tried) == 3


def test_a_connection_is_passed_only_once(run_with: Callable[..., None]) -> None:
    """The worker that it was passed to takes it, though by now it has more than others."""

    async def scenario(workers: Workers) -> None:
        await workers.start(0)
        workers.port.counts.publish(1, 0)
        for _ in range(8):
            await workers.open()
        await until(lambda: workers.counts()[0] == 4)
        workers.port.counts.publish(2, 0)
        await workers.start(1)
        await until(lambda: len(workers.connections(1)) == 4)
        assert workers.waiting(2) == 0

    run_with(scenario, 3)


def test_a_worker_counts_what_it_was_passed_and_has_not_taken(run_with: Callable[..., None]) -> None:
    async def scenario(workers: Workers) -> None:
        first, _ = await workers.start_all()
        await workers.ask()
        workers.port.counts.publish(1, 2)
        assert first._choose_for_new() is None
        with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()):
            accepted, _ = listener.accept()
            with accepted:
                for _ in range(2):
                    give(workers.port.shares[0].giving[0], accepted.fileno())
            assert first._choose_for_new() == 1
            await until(lambda: workers.waiting(0) == 0)

    run_with(scenario)


def test_a_worker_that_is_full_passes_on_every_connection(run_with: Callable[..., None]) -> None:
    """Of many connections a worker may have some more than others, but not more than there may be."""

    async def scenario(workers: Workers) -> None:
        await workers.start(0, most_open=20)
        answered = [await workers.ask() for _ in range(17)]
        assert set(answered) == {0}
        await workers.start(1)
        while await workers.ask() == 1:  # 1 has fewer by more than an eighth
            pass
        assert workers.counts() == [18, 16]
        assert [await workers.ask() for _ in range(6)] == [0, 1, 0, 1, 1, 1]

    run_with(scenario)


def test_a_client_that_left_before_its_connection_was_taken_leaves_nothing(run_with: Callable[..., None]) -> None:
    async def scenario(workers: Workers) -> None:
        await workers.start(0)
        workers.port.counts.publish(1, 0)
        assert await workers.ask() == 0
        client = await workers.open()
        await until(lambda: workers.waiting(1))
        client.writer.transport.abort()
        await workers.start(1)
        await until(lambda: not workers.waiting(1) and workers.counts() == [1, 0])
        assert await workers.ask() == 1

    run_with(scenario)


def test_what_is_no_connection_is_not_counted(run_with: Callable[..., None]) -> None:
    async def scenario(workers: Workers) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        _, second = await workers.start_all()
        with socket.socket(type=socket.SOCK_DGRAM) as other:
            assert give(workers.port.shares[1].giving[1], other.fileno())
        await until(lambda: not workers.waiting(1) and not second._starting)
        assert workers.counts() == [0, 0]

    run_with(scenario)


# --- without descriptors ----------------------------------------------------------------------------------------------


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    gc.collect()  # what earlier tests have left would be closed later, and leave descriptors
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_without_a_free_descriptor_connections_wait(
    run_with: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acceptor, "RETRY_SECONDS", 0.01)
    looks = []
    look = acceptor.has_free_descriptor
    monkeypatch.setattr(acceptor, "has_free_descriptor", lambda: looks.append(look()) or looks[-1])

    async def scenario(workers: Workers) -> None:
        await workers.start(0)
        workers.port.counts.publish(1, 0)
        assert await workers.ask() == 0
        client = await workers.open()
        await until(lambda: workers.waiting(1))
        await workers.start(1)
        with no_descriptor_left():
            await until(lambda: looks.count(False) > 3)
            assert workers.counts()[1] is None
            assert workers.waiting(1) == 1
        assert await client.ask() == 1
        assert workers.counts() == [1, 1]

    run_with(scenario)


def test_a_stop_while_no_descriptor_is_free_ends_the_tries(
    run_with: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acceptor, "RETRY_SECONDS", 0.001)
    monkeypatch.setattr(acceptor, "has_free_descriptor", lambda: False)

    async def scenario(workers: Workers) -> None:
        second = await workers.start(1)
        second.close()
        monkeypatch.setattr(acceptor, "has_free_descriptor", lambda: True)
        await asyncio.sleep(0.01)
        assert workers.counts() == [None, None]

    run_with(scenario)


# --- connections that are open ----------------------------------------------------------------------------------------


def test_a_worker_that_has_just_started_gets_its_part_of_open_connections(
    run_with: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those on which no request is under way at once, others after their answer."""
    monkeypatch.setattr(acceptor, "EVEN_SECONDS", 0.01)

    async def scenario(workers: Workers) -> None:
        await workers.start(0)
        clients = [await workers.open() for _ in range(6)]
        assert {await one.ask() for one in clients} == {0}
        for client in clients[:4]:
            client.send("/wait")
        await until(lambda: len(workers.sites[0].waiting) == 4)
        await workers.start(1)
        await until(lambda: workers.counts() == [4, 2])
        workers.sites[0].waiting[0].set()
        await until(lambda: workers.counts() == [3, 3])
        for event in workers.sites[0].waiting:
            event.set()
        assert [await one.answer() for one in clients[:4]] == [0] * 4
        assert Counter([await one.ask() for one in clients]) == {0: 3, 1: 3}
        assert workers.acceptors[0]._tally.relieve is None

    run_with(scenario)


def test_a_connection_that_goes_on_elsewhere_may_be_idle_for_as_long(run_with: Callable[..., None]) -> None:
    """One that nothing was asked on has to begin in time, as it had to before."""

    async def scenario(workers: Workers) -> None:
        first = await workers.start(0)
        asked, new = await workers.open(), await workers.open()
        assert await asked.ask() == 0
        await until(lambda: len(workers.connections(0)) == 2)
        await workers.start(1)
        first.close()
        assert not first.pass_on_open()
        await until(lambda: len(workers.connections(1)) == 2)
        limits = workers.connections(1)[0]._limits
        states = {one._state: (one in limits.heads, one.timeout_keep_alive_task) for one in workers.connections(1)}
        assert states[HttpState.OPENED] == (True, None)
        assert not states[HttpState.READY][0]
        assert states[HttpState.READY][1] is not None
        assert (await asked.ask(), await new.ask()) == (1, 1)

    run_with(scenario)


UNDER_WAY = {
    "a request that is being answered": (request(b"/wait-0"), b""),
    "one whose body is not there": (request(b"/wait-0", body=b"12345")[:-1], b"5"),
    "one whose head is not there": (predict()[:20], predict()[20:]),
    "two that came together": (request(b"/wait-0") + request(b"/wait-1"), b""),
    "one behind another": (request(b"/wait-0") + request(b"/wait-1")[:20], request(b"/wait-1")[20:]),
}


@pytest.mark.parametrize("name", UNDER_WAY)
def test_what_is_under_way_is_answered_first(run_with: Callable[..., None], name: str) -> None:
    before, after = UNDER_WAY[name]

    async def scenario(workers: Workers) -> None:
        first = await workers.start(0)
        client = await workers.open()
        assert await client.ask() == 0
        client.writer.write(before)
        (connection,) = workers.connections(0)
        await until(lambda: connection._state is not HttpState.READY)
        await workers.start(1)
        first.close()
        for _ in range(5):
            assert first.pass_on_open()
            await asyncio.sleep(0)
        sweeping = asyncio.create_task(sweep(first))
        client.writer.write(after)
        site = workers.sites[0]
        asked, answers = before + after, b""
        count = asked.count(b"POST ")
        for _ in range(count):
            if b"/wait" in asked:
                await until(lambda: site.waiting)
                site.waiting.pop(0).set()
            head = await client._reader.readuntil(b"\r\n\r\n")
            size = next(int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"content-length:"))
            answers += head + await client._reader.readexactly(size)
        assert answers.count(b"HTTP/1.1 200 ") == count
        await sweeping
        assert await client.ask() == 1

    run_with(scenario)


async def sweep(one: Acceptor) -> None:
    """Pass on what is open, in every turn of the loop."""
    while one.pass_on_open():
        await asyncio.sleep(0)


def test_a_connection_is_passed_on_as_soon_as_it_has_answered(run_with: Callable[..., None]) -> None:
    async def scenario(workers: Workers) -> None:
        first = await workers.start(0)
        client = await workers.open()
        client.send("/wait")
        await until(lambda: workers.sites[0].waiting)
        await workers.start(1)
        first.close()
        assert first.pass_on_open()
        workers.sites[0].waiting[0].set()
        assert await client.answer() == 0
        assert await client.ask() == 1

    run_with(scenario)


def test_a_connection_with_bytes_that_were_read_stays(run_with: Callable[..., None]) -> None:
    """It is so between an answer and the turn of the loop in which the next request is looked at."""

    async def scenario(workers: Workers) -> None:
        first, _ = await workers.start_all()
        client = await workers.open()
        assert await client.ask() == 0
        (connection,) = workers.connections(0)
        first.close()
        connection._ahead = request(b"/next")
        assert first.pass_on_open()
        connection._ahead = b""
        assert not first.pass_on_open()
        assert await client.ask() == 1

    run_with(scenario)


def test_a_connection_with_an_answer_that_is_not_read_stays(run_with: Callable[..., None]) -> None:
    async def scenario(workers: Workers) -> None:
        first = await workers.start(0)
        client = await workers.open()
        assert await client.ask() == 0
        await workers.start(1)
        (connection,) = workers.connections(0)
        client.writer.transport.pause_reading()
        answer = b"x" * (16 << 20)
        connection.transport.write(answer)
        first.close()
        assert first.pass_on_open()
        client.writer.transport.resume_reading()
        assert await client._reader.readexactly(len(answer)) == answer
        await until(lambda: not first.pass_on_open())
        assert await client.ask() == 1

    run_with(scenario)


def test_without_another_worker_nothing_is_passed_on(run_with: Callable[..., None]) -> None:
    async def scenario(workers: Workers) -> None:
        first, second = await workers.start_all()
        client = await workers.open()
        assert await client.ask() == 0
        second.close()
        first.close()
        assert not first.pass_on_open()
        assert await client.ask() == 0

    run_with(scenario)


def test_where_there_is_no_room_it_is_tried_again(run_with: Callable[..., None]) -> None:
    async def scenario(workers: Workers) -> None:
        first = await workers.start(0)
        client = await workers.open()
        assert await client.ask() == 0
        workers.port.counts.publish(1, 0)
        with socket.socket(type=socket.SOCK_DGRAM) as other:
            while give(workers.port.shares[0].giving[1], other.fileno()):
                pass
        first.close()
        assert first.pass_on_open()
        assert await client.ask() == 0
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        await workers.start(1)
        await until(lambda: not first.pass_on_open())
        assert await client.ask() == 1

    run_with(scenario)


# --- the stop ---------------------------------------------------------------------------------------------------------


def test_after_the_stop_connections_wait_for_the_successor(run_with: Callable[..., None]) -> None:
    async def scenario(workers: Workers) -> None:
        first = await workers.start(0)
        kept = await workers.open()
        assert await kept.ask() == 0
        first.close()
        first.close()
        waiting = await workers.open()
        waiting.send()
        assert await kept.ask() == 0  # those that are open go on
        assert workers.counts() == [None, None]
        await workers.start(0)
        assert await waiting.answer() == 0

    run_with(scenario)


def test_a_stop_leaves_no_descriptor_and_nothing_to_do(
    run_with: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acceptor, "EVEN_SECONDS", 0.001)
    failures = []

    def list_descriptors() -> set[tuple[str, str]]:
        """Return those that are open and what they are; those of earlier tests may be closed at any moment."""
        found = set()
        for entry in Path("/proc/self/fd").iterdir():
            with suppress(FileNotFoundError):
                found.add((entry.name, str(entry.readlink())))
        return found

    async def scenario(workers: Workers) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
        await workers.start(0)
        before = list_descriptors()
        second = await workers.start(1)
        assert [await workers.ask() for _ in range(2)] == [0, 1]
        second.close()
        await until(lambda: not second.pass_on_open())
        await second.wait_closed()
        workers.acceptors.remove(second)
        await until(lambda: workers.counts() == [2, None] and not workers.states[1].connections)
        await until(lambda: len(list_descriptors() - before) == 2 + 2)  # both connections, at both ends
        assert [await one.ask() for one in workers.clients] == [0, 0]
        await asyncio.sleep(0.01)
        assert failures == []

    run_with(scenario)


def test_a_connection_may_end_after_the_stop(run_with: Callable[..., None]) -> None:
    async def scenario(workers: Workers) -> None:
        share = PortShare.receive(1, 2, [os.dup(one) for one in workers.port.shares[1].descriptors()])
        tally = OpenTally(share)
        tally.invite()
        connection = asyncio.Protocol()
        tally.begin(connection)
        assert workers.counts() == [None, 1]
        tally.decline()
        share.close_handover()
        tally.end(connection)
        tally.decline()
        assert len(tally) == 0
        assert workers.counts() == [None, None]

    run_with(scenario)
