"""A hosted engine: many requests at once, deadlines, and hosts that die."""

from __future__ import annotations

import asyncio
import contextlib
import select
import threading
from typing import Any

import numpy as np
import orjson
import pytest

from serving.domain.errors import DeadlineExceeded, HostLost, ModelFailed, Overloaded
from serving.plane import hosted_engine
from serving.plane.hosted_engine import HostedEngine
from serving.rows.batch import Batch
from serving.wire.frames import FrameKind, pack_prefix
from serving.wire.stream import send_frame
from tests.fakes import run
from tests.unit.plane.host_stub import Gate, Hosts, doubled, rows, until


def test_many_requests_at_once_each_get_their_own_answer(hosts: Hosts) -> None:
    async def scenario() -> list[float]:
        engine = HostedEngine("sklearn", lambda _: None)
        await engine.attach(hosts())
        answers = await asyncio.gather(*(engine.predict("predict", rows(i), 10) for i in range(200)))
        await engine.close()
        return [answer.list_rows()[0] for answer in answers]

    assert run(scenario()) == [2.0 * i for i in range(200)]


def test_large_requests_go_through_the_arena_one_after_another(
    hosts: Hosts,
) -> None:
    host = hosts()

    async def scenario() -> list[Any]:
        engine = HostedEngine("sklearn", lambda _: None)
        await engine.attach(host)
        batches = [rows(1.0, 20_000, 10), rows(2.0, 30_000, 10), rows(3.0), rows(4.0, 20_000, 10)]
        answers = await asyncio.gather(*(engine.predict("predict", batch, 10) for batch in batches))
        assert host.arena_uses == 3, "one request after another: it is always free"
        answers.append(await engine.predict("predict", rows(5.0, 20_000, 10), 10))
        await engine.close()
        return [set(answer.list_rows()) for answer in answers]

    assert run(scenario()) == [{2.0}, {4.0}, {6.0}, {8.0}, {10.0}]
    assert host.arena_uses == 4, "the one small request took the socket"


def test_requests_in_flight_are_sent_once_more_when_the_host_dies(hosts: Hosts) -> None:
    """One death costs nobody anything: the answers come from the next host."""

    def die(batch: Batch) -> np.ndarray:
        raise SystemExit

    lost = []

    async def scenario() -> list[float]:
        engine = HostedEngine("sklearn", lost.append)
        await engine.attach(hosts(die))
        requests = [asyncio.ensure_future(engine.predict("predict", rows(i), 10)) for i in range(5)]
        await until(lambda: lost)
        assert not engine.is_connected
        late = asyncio.ensure_future(engine.predict("predict", rows(9), 10))
        await asyncio.sleep(0)
        await engine.attach(hosts())
        answers = await asyncio.gather(*requests, late)
        await engine.close()
        return [answer.list_rows()[0] for answer in answers]

    assert run(scenario()) == [0.0, 2.0, 4.0, 6.0, 8.0, 18.0]
    assert len(lost) == 1


def test_a_request_that_was_under_way_in_two_deaths_is_given_up(hosts: Hosts) -> None:
    def die(batch: Batch) -> np.ndarray:
        raise SystemExit

    lost: list[HostedEngine] = []

    async def scenario() -> None:
        engine = HostedEngine("sklearn", lost.append)
        await engine.attach(hosts(die))
        request = asyncio.ensure_future(engine.predict("predict", rows(1), 10))
        for deaths in (1, 2):
            await until(lambda deaths=deaths: len(lost) == deaths)
            if deaths == 1:
                assert not request.done()
                await engine.attach(hosts(die))
        with pytest.raises(HostLost, match="twice"):
            await request
        await engine.close()

    run(scenario())


def test_a_deadline_gives_up_the_request_and_kills_the_host_that_is_stuck_on_it(
    hosts: Hosts,
) -> None:
    stuck = threading.Event()

    def hang(batch: Batch) -> np.ndarray:
        if batch.matrix is not None and batch.matrix[0, 0] == 13:
            stuck.wait(30)
            raise SystemExit
        return doubled(batch)

    host = hosts(hang)
    lost: list[HostedEngine] = []

    async def scenario() -> None:
        engine = HostedEngine("sklearn", lost.append)
        await engine.attach(host)
        poison = asyncio.ensure_future(engine.predict("predict", rows(13), 0.1))
        behind = asyncio.ensure_future(engine.predict("predict", rows(2), 30))
        with pytest.raises(DeadlineExceeded, match=r"0\.1 s"):
            await poison
        await until(lambda: lost)
        await engine.attach(hosts())
        assert (await behind).list_rows() == [4.0], "the request behind the stuck one must not suffer"
        await engine.close()

    run(scenario())
    stuck.set()
    assert host.was_killed


def test_an_outage_is_told_at_once_until_a_host_is_there_again(hosts: Hosts) -> None:
    async def scenario() -> None:
        engine = HostedEngine("sklearn", lambda _: None)
        waiting = asyncio.ensure_future(engine.predict("predict", rows(1), 30))
        await asyncio.sleep(0)
        engine.report_outage(HostLost("no memory"))
        with pytest.raises(HostLost, match="no memory"):
            await waiting
        with pytest.raises(HostLost, match="no memory"):
            await engine.predict("predict", rows(1), 30)
        await engine.attach(hosts())
        assert (await engine.predict("predict", rows(1), 30)).list_rows() == [2.0]
        await engine.close()

    run(scenario())


@pytest.mark.parametrize("is_lost_before", [True, False])
def test_when_no_other_host_comes_those_who_would_wait_for_one_are_told_at_once(
    hosts: Hosts, is_lost_before: bool
) -> None:
    """So it is with a version that is unloaded: until their deadline they would wait for nothing."""

    def die(batch: Batch) -> np.ndarray:
        raise SystemExit

    lost: list[HostedEngine] = []

    async def scenario() -> None:
        engine = HostedEngine("sklearn", lost.append)
        await engine.attach(hosts(die if is_lost_before else doubled))
        if not is_lost_before:
            engine.expect_no_host(HostLost("it is unloaded"))
            assert (await engine.predict("predict", rows(1), 30)).list_rows() == [2.0], "its host is still there"
            await engine.attach(hosts(die))
        requests = [asyncio.ensure_future(engine.predict("predict", rows(i), 30)) for i in range(3)]
        await until(lambda: lost)
        if is_lost_before:
            assert not any(request.done() for request in requests)
            engine.expect_no_host(HostLost("it is unloaded"))
        outcomes = await asyncio.gather(*requests, return_exceptions=True)
        assert [str(outcome) for outcome in outcomes] == ["it is unloaded"] * 3
        await engine.close()

    run(scenario())


def test_an_answer_that_cannot_be_read_costs_the_host_its_life(hosts: Hosts) -> None:
    gate = Gate()
    host = hosts(gate)
    lost: list[HostedEngine] = []

    async def scenario() -> None:
        engine = HostedEngine("sklearn", lost.append)
        await engine.attach(host)
        request = asyncio.ensure_future(engine.predict("predict", rows(1), 10))
        await until(lambda: host.rows == [1])
        host.theirs[0].sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await until(lambda: lost)
        engine.report_outage(ModelFailed("broken"))
        with pytest.raises(ModelFailed, match="broken"):
            await request
        await engine.close()

    run(scenario())
    gate.open()
    assert host.was_killed


def forged(tensors: list[Any], payload: bytes = b"") -> tuple[FrameKind, bytes, bytes]:
    return FrameKind.PREDICTION, orjson.dumps({"tensors": tensors}), payload


OBJECTS = b"[" + b'{"a":' * 9 + b"1" + b"}" * 9 + b"]"  # deeper than answers are
VIOLATIONS = {
    "too few rows": forged([{"dtype": "<f8", "shape": [0]}]),
    "too many rows": forged([{"dtype": "<f8", "shape": [9]}], bytes(72)),
    "no tensors": forged([]),
    "a tensor without rows": forged([{"dtype": "<f8", "shape": []}], bytes(8)),
    "no end of empty lists": forged([{"dtype": "<f8", "shape": [1, 1 << 40, 0]}]),
    "a dtype that there is not": forged([{"dtype": "|O", "shape": [1]}], bytes(8)),
    "objects in objects": forged([{"dtype": "json", "nbytes": len(OBJECTS)}], OBJECTS + bytes(-len(OBJECTS) % 8)),
    "more bytes than are described": forged([{"dtype": "<f8", "shape": [1]}], bytes(16)),
    "no list of tensors": (FrameKind.PREDICTION, b'{"tensors": 5}', b""),
    "no JSON": (FrameKind.PREDICTION, b"]", b""),
    "a refusal that says nothing": (FrameKind.REFUSAL, b"{}", b""),
    "a failure of numbers": (FrameKind.FAILURE, b'{"detail": 5}', b""),
    "a gate": (FrameKind.GATE_STARTED, b'{"gate": "load"}', b""),
    "a report": (FrameKind.REPORT, b"{}", b""),
    "a request": (FrameKind.PREDICT, b"{}", b""),
}


@pytest.mark.parametrize("name", sorted(VIOLATIONS))
def test_what_is_no_answer_costs_the_host_its_life_and_the_request_is_asked_again(hosts: Hosts, name: str) -> None:
    kind, header, payload = VIOLATIONS[name]
    gate = Gate()
    host, successor = hosts(gate), hosts()
    lost: list[HostedEngine] = []

    async def scenario() -> None:
        engine = HostedEngine("sklearn", lost.append)
        await engine.attach(host)
        request = asyncio.ensure_future(engine.predict("predict", rows(1), 10))
        await until(lambda: host.rows == [1])
        send_frame(host.theirs[0], kind, 1, header, [payload])
        await until(lambda: lost)
        assert not engine.is_connected
        assert engine.violation is not None
        assert "\n" not in engine.violation
        await engine.attach(successor)
        assert (await request).list_rows() == [2.0]
        await engine.close()

    run(scenario())
    gate.open()
    assert host.was_killed
    assert len(lost) == 1


def test_a_request_that_two_hosts_in_a_row_answer_with_nonsense_is_given_up(hosts: Hosts) -> None:
    kind, header, payload = VIOLATIONS["too many rows"]
    gate = Gate()
    lost: list[HostedEngine] = []

    async def scenario() -> None:
        engine = HostedEngine("sklearn", lost.append)
        request = asyncio.ensure_future(engine.predict("predict", rows(1), 10))
        for deaths in (1, 2):
            host = hosts(gate)
            await engine.attach(host)
            await until(lambda host=host: host.rows == [1])
            send_frame(host.theirs[0], kind, 1, header, [payload])
            await until(lambda deaths=deaths: len(lost) == deaths)
        with pytest.raises(HostLost, match="twice"):
            await request
        await engine.close()

    run(scenario())
    gate.open()


def test_what_went_together_when_a_host_answered_nonsense_is_asked_again_one_by_one(hosts: Hosts) -> None:
    gate = Gate()
    host, successor = hosts(lambda batch: gate(batch) if batch.rows == 1 else np.zeros(9)), hosts()

    async def scenario() -> None:
        engine = HostedEngine("sklearn", lambda _: None)
        await engine.attach(host)
        busy = asyncio.ensure_future(engine.predict("predict", rows(7), 10))
        await until(lambda: host.rows == [1])
        requests = [asyncio.ensure_future(engine.predict("predict", rows(value), 10)) for value in (1, 2, 3)]
        await asyncio.sleep(0)
        gate.open()
        assert (await busy).list_rows() == [14.0]
        await until(lambda: not engine.is_connected)
        await engine.attach(successor)
        assert [(await request).list_rows() for request in requests] == [[2.0], [4.0], [6.0]]
        await engine.close()

    run(scenario())
    assert host.rows == [1, 3]
    assert successor.rows == [1, 1, 1]


def test_a_host_that_speaks_without_being_asked_is_ended(hosts: Hosts) -> None:
    host = hosts()
    lost: list[HostedEngine] = []

    async def scenario() -> None:
        engine = HostedEngine("sklearn", lost.append)
        await engine.attach(host)
        assert (await engine.predict("predict", rows(1), 10)).list_rows() == [2.0]
        host.theirs[0].sendall(b"S")
        await until(lambda: lost)
        assert not engine.is_connected
        assert engine.violation == "broke the protocol (bytes without a request)"
        await engine.close()

    run(scenario())
    assert host.was_killed


def test_an_answer_that_dribbles_ends_at_the_deadline(hosts: Hosts) -> None:
    """Each byte is news to the socket; the deadline does not care."""
    gate = Gate()
    host = hosts(gate)
    lost: list[HostedEngine] = []
    over = threading.Event()

    def dribble() -> None:
        with contextlib.suppress(OSError):
            host.theirs[0].sendall(pack_prefix(FrameKind.PREDICTION, 1, 2, 1 << 20))
            while not over.wait(0.005):
                host.theirs[0].sendall(b" ")

    async def scenario() -> None:
        engine = HostedEngine("sklearn", lost.append)
        await engine.attach(host)
        request = asyncio.ensure_future(engine.predict("predict", rows(1), 0.3))
        await until(lambda: host.rows == [1])
        dribbling = asyncio.ensure_future(asyncio.to_thread(dribble))
        with pytest.raises(DeadlineExceeded):
            await request
        await until(lambda: lost)
        assert not engine.is_connected
        over.set()
        await dribbling
        await engine.close()

    run(scenario())
    gate.open()
    assert host.was_killed


def test_one_replica_that_breaks_the_protocol_ends_them_all(hosts: Hosts) -> None:
    """All have run the same code. What the others were answering is asked again, and held against nobody."""
    gate = Gate()
    host, successor = hosts(gate, 2), hosts(replicas=2)
    lost: list[HostedEngine] = []

    async def scenario() -> None:
        engine = HostedEngine("sklearn", lost.append)
        await engine.attach(host)
        requests = [asyncio.ensure_future(engine.predict("predict", rows(value), 10)) for value in (1, 2)]
        await until(lambda: host.rows == [1, 1])
        send_frame(host.theirs[1], FrameKind.REPORT, 1, b"{}")
        await until(lambda: lost)
        assert not engine.is_connected
        await engine.attach(successor)
        assert [(await request).list_rows() for request in requests] == [[2.0], [4.0]]
        await engine.close()

    run(scenario())
    gate.open()
    assert host.was_killed


def test_too_many_bytes_waiting_are_refused_until_they_have_gone(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosted_engine, "MAX_UNSENT_BYTES", 1000)
    gate = Gate()
    host = hosts(gate)

    async def scenario() -> None:
        engine = HostedEngine("sklearn", lambda _: None)
        await engine.attach(host)
        sent = [asyncio.ensure_future(engine.predict("predict", rows(value, 126), 10)) for value in (1, 2)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="try again"):
            await engine.predict("predict", rows(3), 10)
        gate.open()
        await asyncio.gather(*sent)
        assert (await engine.predict("predict", rows(4), 10)).list_rows() == [8.0]
        await engine.close()

    run(scenario())


def test_a_request_past_its_deadline_in_the_queue_is_told_so_and_never_sent(hosts: Hosts) -> None:
    gate = Gate()
    host = hosts(gate)

    async def scenario() -> None:
        engine = HostedEngine("sklearn", lambda _: None)
        await engine.attach(host)
        busy = asyncio.ensure_future(engine.predict("predict", rows(1), 30))
        late = asyncio.ensure_future(engine.predict("predict", rows(2), 0.01))
        behind = asyncio.ensure_future(engine.predict("predict", rows(3), 30))
        with pytest.raises(DeadlineExceeded, match=r"0\.01 s"):
            await late
        assert not host.was_killed, "it is not stuck on what it was never given"
        gate.open()
        assert (await busy).list_rows() == [2.0]
        assert (await behind).list_rows() == [6.0]
        await engine.close()

    run(scenario())
    assert host.rows == [1, 1]


def test_a_deadline_that_passed_unnoticed_still_keeps_its_request_from_being_sent(hosts: Hosts) -> None:
    """The answer before it may be seen first, when the loop comes back from something that took long."""
    gate = Gate()
    host = hosts(gate)

    async def scenario() -> None:
        engine = HostedEngine("sklearn", lambda _: None)
        await engine.attach(host)
        loop = asyncio.get_running_loop()
        busy = asyncio.ensure_future(engine.predict("predict", rows(1), 30))
        late = asyncio.ensure_future(engine.predict("predict", rows(2), 0.02))
        await until(lambda: host.rows == [1])
        passed = loop.time() + 0.02
        gate.open()
        while loop.time() <= passed or not select.select([host.channels[0][0]], [], [], 0)[0]:
            pass  # the loop is kept busy until both have happened
        with pytest.raises(DeadlineExceeded):
            await late
        assert (await busy).list_rows() == [2.0]
        await engine.close()

    run(scenario())
    assert host.rows == [1]


def test_one_of_several_sent_together_may_run_out_of_time_without_harm_to_the_others(hosts: Hosts) -> None:
    first, second = Gate(), Gate()
    host = hosts(lambda batch: (first if batch.rows == 1 else second)(batch))

    async def scenario() -> None:
        engine = HostedEngine("sklearn", lambda _: None)
        await engine.attach(host)
        busy = asyncio.ensure_future(engine.predict("predict", rows(1), 30))
        await until(lambda: host.rows == [1])
        late = asyncio.ensure_future(engine.predict("predict", rows(2), 30))
        patient = asyncio.ensure_future(engine.predict("predict", rows(3), 30))
        await asyncio.sleep(0)
        first.open()
        await busy
        await until(lambda: host.rows == [1, 2])
        assert engine._group is not None
        engine._group.replicas[0].members[0].ends_at = asyncio.get_running_loop().time()
        engine._expire_requests()
        with pytest.raises(DeadlineExceeded):
            await late
        assert not host.was_killed
        second.open()
        assert (await patient).list_rows() == [6.0]
        await engine.close()

    run(scenario())
