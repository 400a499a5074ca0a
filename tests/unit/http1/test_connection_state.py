"""Every transition of a connection's state, by bytes in and bytes out, and that none is there for nothing."""

from __future__ import annotations

import pytest

from serving.http1.connection_state import TRANSITIONS, Event, HttpState
from tests.fakes import run
from tests.unit.http1.wire import CHUNKED, LATER, OFFER, Step, Trace, Wire, predict, request

GET = request(b"/other", method=b"GET")
WAIT, CLOSING, EARLY = request(b"/wait"), request(b"/wait-closing"), request(b"/early", body=b"12345")
FAILING, CLOSING_FAILING = request(b"/early-failing", body=b"12345"), request(b"/wait-closing-failing")
OFFERING = request(b"/wait", OFFER)
BODY = request(b"/wait", body=b"12345")
BEGUN = request(b"/wait-begun", CHUNKED)  # their bodies follow
UPLOAD = request(b"/wait", CHUNKED)
JUNK = b"\x16\x03\x01\r\n\r\n"
answer, overdue, idle, send_away = Wire.answer, Wire.overdue, Wire.idle, Wire.send_away

# For each transition: what is done, what the client sees of it, and the state at the end.
CASES: dict[tuple[HttpState, Event], tuple[tuple[Step, ...], Trace, HttpState]] = {
    (HttpState.OPENED, Event.RESUME): ((Wire.resume, idle), ["close"], HttpState.CLOSED),
    (HttpState.OPENED, Event.BEGIN): ((b"\r\n", WAIT[:9]), [], HttpState.SLOW_HEAD),
    (HttpState.OPENED, Event.RECOGNISE): ((Wire.recognise, predict()), [200], HttpState.READY),
    (HttpState.OPENED, Event.CLOSE): ((b"\r\n", overdue), ["close"], HttpState.CLOSED),
    (HttpState.READY, Event.BEGIN): ((predict(), GET), [200, 200], HttpState.READY),
    (HttpState.READY, Event.RECOGNISE): ((predict(), predict()), [200, 200], HttpState.READY),
    (HttpState.READY, Event.CLOSE): ((predict(), b"\r\n", idle), [200, "close"], HttpState.CLOSED),
    (HttpState.HEAD, Event.BEGIN): ((OFFERING, answer), [200], HttpState.READY),
    (HttpState.HEAD, Event.PAUSE): ((WAIT[:9], overdue), [408, "close"], HttpState.CLOSED),
    (HttpState.HEAD, Event.HOLD): ((predict(),), [200], HttpState.READY),
    (HttpState.HEAD, Event.START): ((BODY[:-1],), [], HttpState.BODY),
    (HttpState.HEAD, Event.END): ((OFFERING, answer), [200], HttpState.READY),
    (HttpState.HEAD, Event.LINGER): (
        (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",),
        [400, "eof"],
        HttpState.LINGERING,
    ),
    (HttpState.SLOW_HEAD, Event.BEGIN): ((OFFERING[:9], OFFERING[9:], answer), [200], HttpState.READY),
    (HttpState.SLOW_HEAD, Event.HOLD): ((predict()[:9], predict()[9:]), [200], HttpState.READY),
    (HttpState.SLOW_HEAD, Event.START): ((BODY[:9], BODY[9:-1]), [], HttpState.BODY),
    (HttpState.SLOW_HEAD, Event.END): ((OFFERING[:9], OFFERING[9:], answer), [200], HttpState.READY),
    (HttpState.SLOW_HEAD, Event.LINGER): ((WAIT[:9], b"x" * 40_000), [431, "eof"], HttpState.LINGERING),
    (HttpState.SLOW_HEAD, Event.CLOSE): ((WAIT[:9], overdue), [408, "close"], HttpState.CLOSED),
    (HttpState.HELD, Event.START): ((predict(LATER),), [200], HttpState.READY),
    (HttpState.HELD, Event.END): ((predict(),), [200], HttpState.READY),
    (HttpState.HELD, Event.LINGER): (
        (request(b"/predict", CHUNKED) + b"x\r\n",),
        [400, "eof"],
        HttpState.LINGERING,
    ),
    (HttpState.BODY, Event.END): ((BODY[:-1], BODY[-1:]), [], HttpState.ANSWERING),
    (HttpState.BODY, Event.ANSWER): ((EARLY[:-1], overdue), [200, "abort"], HttpState.CLOSED),
    (HttpState.BODY, Event.BREAK): ((BEGUN, b"x\r\n", answer), [200, "eof"], HttpState.LINGERING),
    (HttpState.BODY, Event.LINGER): ((UPLOAD, b"x\r\n"), [400, "eof"], HttpState.LINGERING),
    (HttpState.BODY, Event.CLOSE): ((BODY[:-1], send_away), ["abort"], HttpState.CLOSED),
    (HttpState.DROPPING, Event.END): ((EARLY[:-1], EARLY[-1:], GET), [200, 200], HttpState.READY),
    (HttpState.DROPPING, Event.LINGER): ((FAILING[:-1],), [200, "eof"], HttpState.LINGERING),
    (HttpState.DROPPING, Event.CLOSE): ((EARLY[:-1], overdue), [200, "abort"], HttpState.CLOSED),
    (HttpState.ANSWERING, Event.BEGIN): ((WAIT + GET[:9], GET[9:], answer), [200, 200], HttpState.READY),
    (HttpState.ANSWERING, Event.ANSWER): ((WAIT, answer, GET), [200, 200], HttpState.READY),
    (HttpState.ANSWERING, Event.BREAK): ((WAIT, Wire.fill, GET, answer), [200, "eof"], HttpState.LINGERING),
    (HttpState.ANSWERING, Event.CLOSE): ((CLOSING, answer), [200, "close"], HttpState.CLOSED),
    (HttpState.HEAD_AHEAD, Event.BEGIN): ((WAIT + OFFERING, answer, answer), [200, 200], HttpState.READY),
    (HttpState.HEAD_AHEAD, Event.QUEUE): ((WAIT + GET, answer), [200, 200], HttpState.READY),
    (HttpState.HEAD_AHEAD, Event.END): ((WAIT + OFFERING, answer, answer), [200, 200], HttpState.READY),
    (HttpState.HEAD_AHEAD, Event.ANSWER): (
        (WAIT + GET[:9], answer, overdue),
        [200, 408, "close"],
        HttpState.CLOSED,
    ),
    (HttpState.HEAD_AHEAD, Event.BREAK): (
        (WAIT + b"GET / HTTP/1.1\r\nA b\r\n\r\n", answer),
        [200, "eof"],
        HttpState.LINGERING,
    ),
    (HttpState.HEAD_AHEAD, Event.CLOSE): ((CLOSING + GET[:9], answer), [200, "close"], HttpState.CLOSED),
    (HttpState.BODY_AHEAD, Event.END): ((WAIT + BODY, answer, answer), [200, 200], HttpState.READY),
    (HttpState.BODY_AHEAD, Event.ADVANCE): (
        (WAIT + BODY[:-1], answer, BODY[-1:], answer),
        [200, 200],
        HttpState.READY,
    ),
    (HttpState.BODY_AHEAD, Event.BREAK): (
        (WAIT + UPLOAD + b"x\r\n", answer),
        [200, "eof"],
        HttpState.LINGERING,
    ),
    (HttpState.BODY_AHEAD, Event.LINGER): (
        (CLOSING + BODY[:-1], answer),
        [200, "eof"],
        HttpState.LINGERING,
    ),
    (HttpState.BODY_AHEAD, Event.CLOSE): ((WAIT + BODY[:-1], send_away), ["abort"], HttpState.CLOSED),
    (HttpState.BROKEN, Event.LINGER): ((WAIT + JUNK, answer), [200, "eof"], HttpState.LINGERING),
    (HttpState.BROKEN, Event.CLOSE): ((WAIT + JUNK, send_away), ["abort"], HttpState.CLOSED),
    (HttpState.LINGERING, Event.CLOSE): ((JUNK, JUNK, overdue), [400, "eof", "abort"], HttpState.CLOSED),
    (HttpState.CLOSED, Event.CLOSE): ((CLOSING_FAILING, answer), [200, "close", "close"], HttpState.CLOSED),
}
ALL = [(state, event) for state, moves in TRANSITIONS.items() for event in moves]


def outcome_of(state: HttpState, event: Event) -> tuple[Trace, HttpState]:
    """Play the case of one transition."""
    steps = CASES[state, event][0]

    async def scenario() -> tuple[Trace, HttpState]:
        wire = Wire()
        return await wire.play(*steps), wire.connection._state

    return run(scenario())


def name_of(case: tuple[HttpState, Event]) -> str:
    return f"{case[0].name}-{case[1].name}"


@pytest.mark.parametrize("case", ALL, ids=name_of)
def test_each_transition_is_taken_and_shows(case: tuple[HttpState, Event]) -> None:
    assert outcome_of(*case) == CASES[case][1:]


@pytest.mark.parametrize("case", ALL, ids=name_of)
def test_each_transition_is_needed_by_its_case(case: tuple[HttpState, Event], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it the case ends in another way: so the case takes it."""
    state, event = case
    monkeypatch.delattr(state, f"after_{event.name.lower()}")
    try:
        outcome = outcome_of(*case)
    except Exception:  # noqa: BLE001
        return
    assert outcome != CASES[case][1:]


def test_nothing_has_a_case_that_is_no_transition() -> None:
    assert set(CASES) == set(ALL)


def test_every_state_can_be_reached_and_left() -> None:
    reached = {HttpState.OPENED}
    while more := {after for state in reached for after in TRANSITIONS[state].values()} - reached:
        reached |= more
    assert reached == set(HttpState) == set(TRANSITIONS)
