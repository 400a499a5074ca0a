"""One connection, bytes in and bytes out: however its bytes are cut, whatever was known before, and what it leaves."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from uvicorn.server import ServerState

from serving.http1.connection_state import HttpState
from serving.http1.heads import MOST_KNOWN_BYTES, MOST_KNOWN_HEADS, KnownHead
from tests.fakes import run
from tests.unit.http1.wire import CHUNKED, HOST, LATER, OFFER, Application, Step, Trace, Wire, predict, request

CLOSE = b"Connection: close\r\n"
KNOWN = b"HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\n/predict now"
CHUNKS = b"3\r\nnow\r\n0\r\n\r\n"
WAIT, OTHER = request(b"/wait"), request(b"/other")
REQUESTS = {
    "a prediction": predict(),
    "a prediction that is not answered at once": predict(LATER),
    "a prediction in chunks": request(b"/predict", CHUNKED) + CHUNKS,
    "a prediction with trailers": request(b"/predict", CHUNKED) + CHUNKS[:-2] + b"X: y\r\n\r\n",
    "a prediction behind an offer": predict(headers=OFFER),
    "a prediction that asks first": predict(headers=b"Expect: 100-Continue\r\n"),
    "a prediction of HTTP/1.0": predict(version=b"1.0"),
    "the last prediction": predict(headers=CLOSE),
    "a prediction in absolute form": predict().replace(b" /", b" http://localhost/", 1),
    "a prediction for another server": predict().replace(b"localhost", b"example.com"),
    "a prediction with a line before it": b"\r\n" + predict(),
    "a GET": request(b"/other", method=b"GET"),
    "a body": request(b"/other", body=b"12345"),
    "an offer": request(b"/other", OFFER, b"12345"),
    "an answer before the body": request(b"/early", body=b"12345"),
    "two headers Host": request(b"/other", HOST),
    "no HTTP": b"\x16\x03\x01\r\n\r\n",
    "CONNECT": b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n",
}


def state_with_date() -> ServerState:
    state = ServerState()
    state.default_headers = [(b"date", b"today")]
    return state


def bytes_for(*steps: Step, application: Application | None = None) -> bytes:
    """Return all that a connection sends for these steps, and how it ends."""

    async def scenario() -> bytes:
        wire = Wire(application, state_with_date())
        await wire.play(*steps)
        return wire.transport.written + b"".join(b"<%b>" % end.encode() for end in wire.transport.ends)

    return run(scenario())


def in_any_order(answer: bytes) -> list[bytes]:
    """Return the lines of an answer but ``Connection: close``, which has its place by the way that was taken, and which
    uvicorn's oldest version does not say to HTTP/1.0.
    """
    return sorted(line for line in answer.split(b"\r\n") if line != b"connection: close")


def trace_of(*steps: Step, **server: float) -> Trace:
    async def scenario() -> Trace:
        return await Wire(**server).play(*steps)

    return run(scenario())


def test_an_answer_is_these_bytes() -> None:
    raw = b"HTTP/1.1 200 OK\r\ndate: today\r\ncontent-length: 12\r\n\r\n/predict now"
    assert bytes_for(predict()) == raw
    last = raw.replace(b"today\r\n", b"today\r\nconnection: close\r\n") + b"<close>"
    assert bytes_for(predict(headers=CLOSE)) == last
    assert bytes_for(predict(version=b"1.0")) == last
    assert bytes_for(predict(), predict(), predict()) == raw * 3


@pytest.mark.parametrize("name", REQUESTS)
def test_where_a_request_is_cut_does_not_show(name: str) -> None:
    raw = REQUESTS[name]
    whole = bytes_for(raw)
    assert whole.startswith(b"HTTP/1.1 ")
    if b"<" not in whole:
        assert bytes_for(raw, raw) == whole * 2
        assert bytes_for(raw * 2) == whole * 2

    async def scenario() -> None:
        for cut in range(1, len(raw)):
            wire = Wire(state=state_with_date())
            await wire.play(raw[:cut], raw[cut:])
            ends = b"".join(b"<%b>" % end.encode() for end in wire.transport.ends)
            assert in_any_order(wire.transport.written + ends) == in_any_order(whole), raw[:cut]

    run(scenario())


ONES = [predict(), predict(b"now "), predict(LATER), OTHER, request(b"/other", body=b"12345"), predict(headers=OFFER)]
ONES += [request(b"/predict", CHUNKED) + CHUNKS, request(b"/early", body=b"12345"), b"\r\n" + predict()]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(ONES), min_size=1, max_size=40), st.lists(st.integers(0, 2000), max_size=8))
def test_requests_are_answered_in_order_wherever_they_are_cut(requests: list[bytes], cuts: list[int]) -> None:
    async def scenario() -> None:
        application = Application(Wire().application.state.services.settings.server)
        expected = b""
        for raw in requests:
            alone = Wire(application)
            await alone.play(raw)
            expected += alone.transport.written
        together = b"".join(requests)
        places = [0, *sorted({cut for cut in cuts if cut < len(together)}), len(together)]
        wire = Wire(application)
        for start, end in pairwise(places):
            await wire.play(together[start:end])
        for _ in range(len(requests)):  # each may need a turn of the loop
            await wire.play(b"")
        assert wire.transport.written == expected
        assert wire.connection._state is HttpState.READY
        assert wire.limits.ahead_bytes == 0

    run(scenario())


JUNK = [
    b"\r\n",
    b"\x16\x03",
    b"x\r\n\r\n",
    b"GET / HTTP/1.1\r\n",
    HOST,
    b"\r\n",
    CHUNKED,
    CLOSE,
    b"0\r\n\r\n",
    b"z" * 40_000,
]
JUNK += [WAIT, OTHER, predict(), predict(LATER), request(b"/wait", OFFER), request(b"/early", body=b"12345")[:-2]]
JUNK += [request(b"/wait", CHUNKED), request(b"/wait-closing"), request(b"/wait-begun", CHUNKED), request(b"*")]
JUNK += [
    request(b"//a:b/predict", body=b"12")[:-1],
    request(b"http:///predict", body=b"12")[:-1],
    b"PRI * HTTP/2.0\r\n\r\n",
]


def answer_one(wire: Wire) -> None:
    if wire.application.waiting:
        wire.answer()


def let_one_deadline_pass(wire: Wire) -> None:
    if any(wire.connection in each for each in (wire.limits.heads, wire.limits.dropped, wire.limits.lingering)):
        wire.overdue()


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from([*JUNK, answer_one, let_one_deadline_pass, Wire.idle, Wire.send_away]), max_size=12))
def test_whatever_comes_the_connection_stays_in_its_table_and_leaves_nothing(steps: list[Step]) -> None:
    async def scenario() -> None:
        wire = Wire()
        for step in steps:
            if not (isinstance(step, bytes) and wire.transport.is_closing()):
                await wire.play(step)
        for _ in range(len(steps)):
            await wire.play(answer_one)
        wire.lose()
        assert wire.limits.ahead_bytes == 0
        assert wire.connection._state is HttpState.CLOSED
        limits = wire.limits
        assert not any(
            wire.connection in each for each in (limits.heads, limits.dropped, limits.lingering, limits.crowd)
        )
        assert wire.connection.timeout_keep_alive_task is None

    run(scenario())


# --- heads that are known ---------------------------------------------------------------------------------------------


def heads_known_to(wire: Wire) -> dict[bytes, KnownHead]:
    return wire.limits.known_heads_of(wire.application.names)._heads


def test_a_known_head_is_not_parsed_again_and_answered_alike() -> None:
    async def scenario() -> None:
        first = Wire()
        await first.play(predict())
        for wire in (first, Wire(first.application)):  # it is known to all connections of its listener
            wire.transport.written = b""
            wire.connection.parser = None
            await wire.play(predict(), predict())
            assert wire.transport.written == KNOWN * 2
        assert first.application.shortcut.asked == [first.application.shortcut.asked[0]] * 5
        other = Wire()  # of another listener
        other.connection.parser = None
        with pytest.raises(AttributeError):
            other.connection.data_received(predict())

    run(scenario())


@pytest.mark.parametrize("name", REQUESTS)
def test_a_known_head_changes_no_answer(name: str) -> None:
    async def scenario() -> bytes:
        wire = Wire(state=state_with_date())
        await wire.play(predict(), REQUESTS["a prediction with a line before it"], predict(headers=OFFER))
        wire.transport.written = b""
        await wire.play(REQUESTS[name])
        return wire.transport.written + b"".join(b"<%b>" % end.encode() for end in wire.transport.ends)

    assert run(scenario()) == bytes_for(REQUESTS[name])


@pytest.mark.parametrize(
    "steps",
    [
        (predict(LATER),),
        (predict(headers=CLOSE),),
        (predict(headers=b"Authorization: Bearer x\r\n"),),
        (predict(headers=b"Cookie: serving_session=x\r\n"),),
        (predict(headers=b"X-Request-Id: 1\r\n"),),
        (predict(headers=b"X: " + b"x" * MOST_KNOWN_BYTES + b"\r\n"),),
        (request(b"/predict", CHUNKED) + CHUNKS,),
        (predict() + predict(),),
        (predict()[:-1], predict()[-1:]),
        (OTHER + predict(),),
        # the end of a head that looks like a request of its own
        (b"POST /predict HTTP/1.1\r\nX: ", b"POST /other HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nnow"),
        (request(b"/other", body=predict())[: -len(predict())], predict()),
        (WAIT, predict(), Wire.answer),
        (request(b"/wait", body=b"now"), predict(), Wire.answer),
    ],
)
def test_what_is_no_whole_prediction_by_itself_is_not_remembered(steps: tuple[Step, ...]) -> None:
    async def scenario() -> None:
        wire = Wire()
        await wire.play(*steps)
        assert 200 in wire.trace
        assert heads_known_to(wire) == {}

    run(scenario())


def test_a_known_head_with_more_or_less_of_a_body_is_parsed() -> None:
    assert trace_of(predict(), predict() + OTHER) == [200] * 3
    assert trace_of(predict(), predict()[:-1], predict()[-1:]) == [200] * 2
    assert trace_of(predict(), predict()[:-3], b"now") == [200] * 2
    assert bytes_for(predict(), predict() + b"\r\n") == bytes_for(predict()) * 2


def test_a_known_head_is_answered_by_the_application_where_it_has_to_wait() -> None:
    later = predict(b"new")
    assert bytes_for(predict(), later) == bytes_for(predict()) + bytes_for(later)


def test_a_connection_whose_heads_have_ids_is_not_looked_up() -> None:
    async def scenario() -> None:
        wire = Wire()
        await wire.play(predict(headers=b"X-Request-Id: 1\r\n"))
        assert wire.connection._known_heads is None
        assert await wire.play(predict(), predict()) == [200] * 3
        assert heads_known_to(wire) == {}

    run(scenario())


def test_a_connection_whose_first_head_is_known_has_begun() -> None:
    async def scenario() -> None:
        wire = Wire()
        assert wire.connection in wire.limits.heads
        assert await wire.play(Wire.recognise, predict()) == [200]
        assert wire.connection not in wire.limits.heads
        assert wire.connection.timeout_keep_alive_task is not None

    run(scenario())


def test_known_heads_are_bounded() -> None:
    async def scenario() -> None:
        wire = Wire()
        for number in range(MOST_KNOWN_HEADS + 10):
            await wire.play(predict(headers=b"X: %d\r\n" % number))
        assert len(heads_known_to(wire)) == 10

    run(scenario())


# --- what an answer must wait for, and what it must not ---------------------------------------------------------------


def test_what_is_sent_ahead_is_read_when_it_is_its_turn() -> None:
    async def scenario() -> None:
        wire = Wire()
        await wire.play(WAIT, OTHER, predict())
        assert wire.transport.is_paused
        assert wire.limits.ahead_bytes == len(OTHER + predict())
        assert wire.application.began == ["/wait"]
        assert await wire.play(Wire.answer) == [200] * 3
        assert not wire.transport.is_paused
        assert wire.limits.ahead_bytes == 0

    run(scenario())


@pytest.mark.parametrize(
    "rest", [b"HELO x\r\n\r\n", request(b"/other", CHUNKED) + b"x\r\n", b"GET / HTTP/1.1\r\nA b\r\n\r\n"]
)
def test_what_cannot_be_read_leaves_the_answers_before_it_alone(rest: bytes) -> None:
    """Two that are being answered, one after the other, and then the end; nothing else, and nothing in between."""
    assert trace_of(WAIT + OTHER + rest, Wire.answer) == [200, 200, "eof"]


def test_headers_behind_a_body_are_none() -> None:
    async def scenario() -> None:
        wire = Wire()
        await wire.play(request(b"/other", CHUNKED) + CHUNKS[:-2] + b"X: y\r\n\r\n")
        assert [name for name, _ in wire.application.headers] == [b"host", b"transfer-encoding"]

    run(scenario())


@pytest.mark.parametrize("target", [b"/other", b"/wait", b"/predict"])
def test_nothing_is_sent_behind_a_refusal(target: bytes) -> None:
    """Not the leave to go on either, which the application gives when it asks for the body."""

    async def scenario() -> None:
        failures: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
        wire = Wire()
        trace = await wire.play(request(target, CHUNKED + b"Expect: 100-continue\r\n") + b"x\r\n")
        assert (trace, failures) == ([400, "eof"], [])

    run(scenario())


@pytest.mark.parametrize("last", [predict(headers=CLOSE), request(b"/other", CLOSE), predict(version=b"1.0")])
def test_nothing_behind_the_last_request_is_answered(last: bytes) -> None:
    async def scenario() -> None:
        wire = Wire()
        assert await wire.play(last + OTHER + request(b"/wait")) == [200, "close"]
        assert "/wait" not in wire.application.began

    run(scenario())


def test_a_queued_request_is_not_begun_when_an_earlier_answer_ends_the_connection() -> None:
    async def scenario() -> None:
        wire = Wire()
        await wire.play(request(b"/wait-closing") + request(b"/other", body=b"12345")[:-1])
        assert await wire.play(Wire.answer, b"5" + OTHER, Wire.overdue) == [200, "eof", "abort"]
        assert wire.application.began == ["/wait-closing"]

    run(scenario())


def test_a_head_behind_a_request_has_its_time_from_the_answer_on() -> None:
    async def scenario() -> None:
        wire = Wire()
        await wire.play(WAIT + OTHER[:9])
        assert wire.connection not in wire.limits.heads
        await wire.play(Wire.answer)
        assert wire.connection in wire.limits.heads
        assert await wire.play(OTHER[9:]) == [200, 200]
        assert wire.connection not in wire.limits.heads

    run(scenario())


def test_an_idle_connection_with_an_answer_its_client_has_not_taken_is_reset() -> None:
    def leave_unsent(wire: Wire) -> None:
        wire.transport.unsent_bytes = 1

    assert trace_of(predict(), Wire.idle) == [200, "close"]
    assert trace_of(predict(), leave_unsent, Wire.idle) == [200, "abort"]


@pytest.mark.parametrize("start", [(), (WAIT,), (predict()[:-1],), (predict()[:9],)])
def test_a_connection_at_work_is_not_idle(start: tuple[bytes, ...]) -> None:
    assert trace_of(*start, Wire.idle) == []


# --- too many, too large ----------------------------------------------------------------------------------------------


def test_one_connection_too_many_is_answered_probes_alone() -> None:
    async def scenario() -> None:
        state = state_with_date()
        first = Wire(state=state, max_connections=1)
        await first.play(predict())
        probe = request(b"/ping", method=b"GET")
        second = Wire(first.application, state)
        assert await second.play(probe, probe) == [200, 200]
        assert await second.play(predict()) == [200, 200, 503, "eof"]
        third = Wire(first.application, state)
        assert await third.play(predict()) == [503, "eof"]
        assert await first.play(predict()) == [200, 200]
        for wire in (first, second, third):
            wire.lose()
        assert await Wire(first.application, state).play(predict()) == [200]

    run(scenario())


def test_a_head_that_is_too_large_is_refused_however_it_is_cut() -> None:
    large = request(headers=b"X: " + b"x" * 2000 + b"\r\n")
    assert trace_of(large, max_header_kb=1) == [431, "eof"]
    assert trace_of(large[:500], large[500:1000], large[1000:], max_header_kb=1) == [431, "eof"]
    assert trace_of(predict() * 30, max_header_kb=1) == [200] * 30
