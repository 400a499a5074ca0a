"""Several processes that answer for one version: side by side, and on without the one that is gone."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any

import numpy as np
import pytest

from serving.domain.errors import DeadlineExceeded, HostLost
from serving.plane.hosted_engine import HostedEngine
from serving.rows.batch import Batch
from tests.fakes import run
from tests.unit.plane.host_stub import Gate, Hosts, doubled, rows, until


def ask(engine: HostedEngine, value: float, seconds: float = 30) -> asyncio.Future[Any]:
    return asyncio.ensure_future(engine.predict("predict", rows(value), seconds))


def test_replicas_answer_side_by_side_and_only_what_finds_all_busy_waits(hosts: Hosts) -> None:
    gate = Gate()
    host = hosts(gate, 3)

    async def scenario() -> None:
        engine = HostedEngine("sklearn", lambda _: None)
        await engine.attach(host)
        assert engine.is_whole
        asked = [ask(engine, value) for value in range(5)]
        await until(lambda: len(host.rows) == 3)
        gate.open()
        assert [(await request).list_rows() for request in asked] == [[2.0 * value] for value in range(5)]
        await engine.close()

    run(scenario())
    assert host.rows == [1, 1, 1, 2], "the two that found all busy go together to the first that is free"


def test_a_replica_that_dies_is_missed_but_its_requests_are_answered_by_the_others(hosts: Hosts) -> None:
    lost: list[HostedEngine] = []
    deaths = threading.Semaphore(1)

    def die_once(batch: Batch) -> Any:
        assert batch.matrix is not None
        if batch.matrix[0, 0] == 13 and deaths.acquire(blocking=False):
            raise SystemExit
        return gate(batch) if batch.matrix[0, 0] == 1 else doubled(batch)

    gate = Gate()
    host, another = hosts(die_once, 2), hosts(replicas=2)

    async def scenario() -> None:
        engine = HostedEngine("sklearn", lost.append)
        await engine.attach(host)
        held = ask(engine, 1)  # the first process has this, so the second, a replica, gets the next
        dies = ask(engine, 13)
        await until(lambda: lost)
        assert engine.is_connected
        assert not engine.is_whole
        engine.report_outage(HostLost("no memory for another"))
        assert not dies.done(), "an outage is none while anybody answers"
        gate.open()
        assert (await dies).list_rows() == [26.0]
        assert (await held).list_rows() == [2.0]
        await engine.attach(another)
        assert engine.is_whole
        assert host.was_killed, "what is left of the old group ends, once it has nothing to answer"
        assert (await ask(engine, 3)).list_rows() == [6.0]
        await engine.close()

    run(scenario())
    assert another.rows == [1]
    assert len(lost) == 1


def test_what_an_old_group_is_answering_it_may_finish_when_another_takes_its_place(hosts: Hosts) -> None:
    gate = Gate()
    old, new = hosts(gate, 2), hosts(lambda batch: doubled(batch) + 100, 2)

    async def scenario() -> None:
        engine = HostedEngine("sklearn", lambda _: None)
        await engine.attach(old)
        held = ask(engine, 1)
        await until(lambda: old.rows == [1])
        await engine.attach(new)
        assert (await ask(engine, 1)).list_rows() == [102.0]
        assert not old.was_killed
        gate.open()
        assert (await held).list_rows() == [2.0]
        assert old.was_killed
        await engine.close()

    run(scenario())
    assert old.rows == [1]


def test_requests_on_replicas_are_not_blamed_for_the_death_of_their_host(hosts: Hosts) -> None:
    """A poison that reaches the host itself takes all replicas along; those on them get any number of tries."""
    lost: list[HostedEngine] = []
    gate = Gate()

    def answer(batch: Batch) -> Any:
        assert batch.matrix is not None
        if batch.matrix[0, 0] == 13:
            while len(groups[-1].rows) < 2:
                pass  # until the other one is under way too
            raise SystemExit
        return gate(batch)

    groups = [hosts(answer, 2)]

    async def scenario() -> None:
        engine = HostedEngine("sklearn", lost.append)
        await engine.attach(groups[0])
        poison, good = ask(engine, 13), ask(engine, 2)
        for deaths in (1, 2):
            await until(lambda deaths=deaths: len(lost) == deaths)
            assert not engine.is_connected
            if deaths == 2:
                with pytest.raises(HostLost, match="twice"):
                    await poison
                gate.open()
            groups.append(hosts(answer, 2))
            await engine.attach(groups[-1])
        assert (await good).list_rows() == [4.0]
        await engine.close()

    run(scenario())


def test_a_stuck_replica_is_told_of_and_left_alone_while_others_answer(hosts: Hosts) -> None:
    lost: list[HostedEngine] = []
    gate = Gate()

    def answer(batch: Batch) -> Any:
        assert batch.matrix is not None
        return gate(batch) if batch.matrix[0, 0] == 13 else doubled(batch)

    host = hosts(answer, 2)

    async def scenario() -> None:
        engine = HostedEngine("sklearn", lost.append)
        await engine.attach(host)
        with pytest.raises(DeadlineExceeded):
            await ask(engine, 13, 0.05)
        assert len(lost) == 1
        assert engine.is_connected
        assert not engine.is_whole
        assert not host.was_killed
        assert (await ask(engine, 2)).list_rows() == [4.0]
        gate.open()
        await until(lambda: engine.is_whole)
        assert (await ask(engine, 3)).list_rows() == [6.0]
        await engine.close()

    run(scenario())


def test_when_every_process_is_stuck_the_host_is_killed(hosts: Hosts) -> None:
    lost: list[HostedEngine] = []
    gate = Gate()
    host = hosts(gate, 2)

    async def scenario() -> None:
        engine = HostedEngine("sklearn", lost.append)
        await engine.attach(host)
        outcomes = await asyncio.gather(ask(engine, 1, 0.05), ask(engine, 2, 0.05), return_exceptions=True)
        assert all(isinstance(outcome, DeadlineExceeded) for outcome in outcomes)
        await until(lambda: host.was_killed)
        assert lost
        assert not engine.is_connected
        await engine.close()

    run(scenario())
    gate.open()


def test_a_host_that_died_before_it_was_attached_is_noticed(hosts: Hosts) -> None:
    lost: list[HostedEngine] = []
    host = hosts(replicas=2)

    async def scenario() -> None:
        engine = HostedEngine("sklearn", lost.append)
        host._hang_up()
        await engine.attach(host)
        waiting = ask(engine, 1)
        await until(lambda: lost)
        await until(lambda: not engine.is_connected)
        await engine.attach(hosts())
        assert (await waiting).list_rows() == [2.0]
        await engine.close()

    run(scenario())


def test_a_replica_that_died_while_the_others_were_being_attached_is_noticed(hosts: Hosts) -> None:
    lost: list[HostedEngine] = []
    host = hosts(replicas=8)

    async def scenario() -> None:
        engine = HostedEngine("sklearn", lost.append)
        host.theirs[1].shutdown(socket.SHUT_RDWR)
        await engine.attach(host)
        await until(lambda: lost)
        assert engine.is_connected
        assert not engine.is_whole
        await engine.close()

    run(scenario())


def test_closing_ends_every_process_and_waits_for_the_host(hosts: Hosts) -> None:
    host = hosts(replicas=3)

    async def scenario() -> None:
        engine = HostedEngine("sklearn", lambda _: None)
        await engine.attach(host)
        np.testing.assert_array_equal((await ask(engine, 1)).tensors[0], [2.0])
        await engine.close()
        assert host.exited.done()
        assert not engine.is_connected

    run(scenario())
