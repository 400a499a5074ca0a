"""Requests that come while a host is busy go to it together; what becomes of one is nothing to the others."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from serving.domain.errors import HostLost, InvalidInput, ModelFailed
from serving.plane.hosted_engine import HostedEngine
from serving.rows.batch import Batch
from tests.fakes import run
from tests.unit.plane.host_stub import Answer, Gate, Hosts, StubProcess, doubled, rows, until


class Busy:
    """An engine whose host is held by its first request, of one row, until `finish`."""

    def __init__(self, host: StubProcess, gate: Gate, **options: Any) -> None:
        self.lost: list[HostedEngine] = []
        self.engine = HostedEngine("sklearn", self.lost.append, **options)
        self.host = host
        self._gate = gate

    async def start(self) -> None:
        await self.engine.attach(self.host)
        self._first = self.ask(rows(1))
        await until(lambda: self.host.rows == [1])

    def ask(self, batch: Batch, method: Any = "predict") -> asyncio.Future[Any]:
        return asyncio.ensure_future(self.engine.predict(method, batch, 30))

    async def ask_all(self, batches: Sequence[Batch], method: Any = "predict") -> list[asyncio.Future[Any]]:
        asked = [self.ask(batch, method) for batch in batches]
        await asyncio.sleep(0)
        return asked

    async def finish(self) -> None:
        self._gate.open()
        assert (await self._first).list_rows() == [2.0]


def busy(hosts: Hosts, answer: Answer = doubled, **options: Any) -> Busy:
    """Make one; `answer` is given by the host to all but the first request."""
    gate = Gate()
    is_first = iter([True])
    return Busy(hosts(lambda batch: gate(batch) if next(is_first, False) else answer(batch)), gate, **options)


def test_a_lone_request_goes_to_an_idle_host_at_once(hosts: Hosts) -> None:
    """Nothing is waited for, so batching costs a quiet model nothing."""

    async def scenario() -> None:
        engine = HostedEngine("sklearn", lambda _: None)
        host = hosts()
        await engine.attach(host)
        request = asyncio.ensure_future(engine.predict("predict", rows(4), 30))
        await asyncio.sleep(0)
        assert engine._group is not None
        assert [member.batch.rows for member in engine._group.replicas[0].members] == [1]
        assert len(engine._queue) == 0
        assert (await request).list_rows() == [8.0]
        await engine.close()

    run(scenario())


def test_what_came_while_the_host_was_busy_goes_together_and_everybody_gets_their_own_rows(hosts: Hosts) -> None:
    one = busy(hosts, lambda batch: np.stack([batch.matrix[:, 0], -batch.matrix[:, 2]], axis=1))  # type: ignore[index]
    batches = [Batch(n, matrix=np.arange(3.0 * n).reshape(n, 3) + 100 * n) for n in (1, 2, 1, 5)]

    async def scenario() -> None:
        await one.start()
        asked = await one.ask_all(batches)
        await one.finish()
        for batch, request in zip(batches, asked, strict=True):
            assert batch.matrix is not None
            np.testing.assert_array_equal((await request).tensors[0], batch.matrix[:, [0, 2]] * [1, -1])
        await one.engine.close()

    run(scenario())
    assert one.host.rows == [1, 9]


def test_a_batch_has_at_most_so_many_rows_and_begins_with_the_oldest(hosts: Hosts) -> None:
    one = busy(hosts, max_batch_rows=4)

    async def scenario() -> None:
        await one.start()
        asked = await one.ask_all([rows(value, count) for value, count in enumerate([2, 1, 2, 7, 1, 3])])
        await one.finish()
        assert [(await request).list_rows()[0] for request in asked] == [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
        await one.engine.close()

    run(scenario())
    assert one.host.rows == [1, 3, 2, 7, 4], "none overtakes one of its kind, and what is too large goes alone"


def columns(number: float, text: Any, flag: Any = True) -> Batch:
    """Make one row of three columns."""
    flags = np.array([flag]) if isinstance(flag, bool) else [flag]
    return Batch(1, columns=(np.array([number]), [text], flags))


def test_columns_are_joined_part_by_part(hosts: Hosts) -> None:
    def answer(batch: Batch) -> Any:
        assert batch.columns is not None
        return [[float(number), text, bool(flag)] for number, text, flag in zip(*batch.columns, strict=True)]

    one = busy(hosts, answer)

    async def scenario() -> None:
        await one.start()
        asked = await one.ask_all([columns(1, "a"), columns(2, None, False), columns(3, "ü")])
        await one.finish()
        answers = [(await request).list_rows() for request in asked]
        assert answers == [[[1.0, "a", True]], [[2.0, None, False]], [[3.0, "ü", True]]]
        await one.engine.close()

    run(scenario())
    assert one.host.rows == [1, 3]


def test_only_requests_of_one_method_and_layout_go_together(hosts: Hosts) -> None:
    """The oldest is always in the next batch, so none is skipped for ever."""
    one = busy(hosts, lambda batch: np.zeros(batch.rows))

    async def scenario() -> None:
        await one.start()
        kinds: list[tuple[str, Batch]] = [
            ("predict", rows(1)),
            ("predict_proba", rows(1, 2)),
            ("predict", columns(1, "a")),
            ("predict", rows(1, 1, features=2)),
            ("predict", rows(1, 4)),
            ("predict_proba", rows(1)),
            ("predict", columns(2, "b")),
            ("predict", columns(2, "b", None)),
            ("predict", columns(2, 7)),
        ]
        asked = [one.ask(batch, method) for method, batch in kinds]
        await asyncio.sleep(0)
        await one.finish()
        await asyncio.gather(*asked)
        await one.engine.close()

    run(scenario())
    assert one.host.frames[1:] == [
        ("predict", 5),
        ("predict_proba", 3),
        ("predict", 2),
        ("predict", 1),
        ("predict", 1),
        ("predict", 1),
    ]


@pytest.mark.parametrize("error", [InvalidInput, ModelFailed])
def test_a_request_the_model_refuses_does_not_fail_its_neighbours(hosts: Hosts, error: type[Exception]) -> None:
    """Invariant 12: what was refused together is asked again one by one, and that answer counts."""

    def refuse(batch: Batch) -> Any:
        assert batch.matrix is not None
        if (batch.matrix == 13).any():
            raise error(f"not 13, in a batch of {batch.rows}")
        return doubled(batch)

    one = busy(hosts, refuse, max_batch_rows=3)

    async def scenario() -> None:
        await one.start()
        asked = await one.ask_all([rows(2), rows(13), rows(3), rows(4)])
        await one.finish()
        with pytest.raises(error, match="in a batch of 1"):
            await asked[1]
        assert [(await asked[place]).list_rows() for place in (0, 2, 3)] == [[4.0], [6.0], [8.0]]
        await one.engine.close()

    run(scenario())
    assert one.host.rows == [1, 3, 1, 1, 1, 1], "nobody else is sent with one of those"


def test_a_request_that_kills_its_host_kills_only_itself(hosts: Hosts) -> None:
    """Invariant 12: after a death each goes alone, so that nobody else is there when it happens again."""

    def die(batch: Batch) -> Any:
        assert batch.matrix is not None
        if (batch.matrix == 13).any():
            raise SystemExit
        return doubled(batch)

    one = busy(hosts, die)

    async def scenario() -> None:
        await one.start()
        asked = await one.ask_all([rows(2), rows(13), rows(3)])
        await one.finish()
        for deaths in (1, 2, 3):
            await until(lambda deaths=deaths: len(one.lost) == deaths)
            assert not one.engine.is_connected
            if deaths < 3:
                assert not asked[1].done(), "the death in company is held against nobody"
            await one.engine.attach(hosts(die))
        with pytest.raises(HostLost, match="twice"):
            await asked[1]
        assert [(await asked[place]).list_rows() for place in (0, 2)] == [[4.0], [6.0]]
        await one.engine.close()

    run(scenario())


def test_values_without_a_form_on_the_wire_fail_only_the_request_that_has_them(hosts: Hosts) -> None:
    one = busy(hosts, lambda batch: np.zeros(batch.rows))

    async def scenario() -> None:
        await one.start()
        asked = await one.ask_all([columns(1, 7), columns(1, 1 << 80), columns(1, 8)])
        await one.finish()
        with pytest.raises(InvalidInput, match="cannot be given"):
            await asked[1]
        assert [(await asked[place]).list_rows() for place in (0, 2)] == [[0.0], [0.0]]
        await one.engine.close()

    run(scenario())


def test_a_client_that_leaves_before_its_request_was_sent_takes_it_along(hosts: Hosts) -> None:
    one = busy(hosts)

    async def scenario() -> None:
        await one.start()
        asked = await one.ask_all([rows(2), rows(3, 5), rows(4)])
        asked[1].cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked[1]
        assert one.engine._queue.nbytes == 16, "nothing of it is kept"
        await one.finish()
        assert [(await asked[place]).list_rows() for place in (0, 2)] == [[4.0], [8.0]]
        await one.engine.close()

    run(scenario())
    assert one.host.rows == [1, 2]


def test_a_client_that_leaves_later_leaves_the_answers_of_the_others_in_their_places(hosts: Hosts) -> None:
    gate = Gate()
    one = busy(hosts, gate)

    async def scenario() -> None:
        await one.start()
        asked = await one.ask_all([rows(2), rows(3, 5), rows(4)])
        await one.finish()
        await until(lambda: one.host.rows == [1, 7])
        asked[1].cancel()
        await asyncio.sleep(0)
        gate.open()
        assert [(await asked[place]).list_rows() for place in (0, 2)] == [[4.0], [8.0]]
        await one.engine.close()

    run(scenario())
    assert one.host.rows == [1, 7]
