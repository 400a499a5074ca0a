"""The state of one connection, the events of a connection, and which state follows: one table.

A state says two things at once: where the next byte from the client belongs, and whether an answer is still under way.
`TRANSITIONS` is the whole machine. `serving.http1.connection` does the work of a transition.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto


class Event(Enum):
    """What happens to a connection.

    RESUME: another process has answered on this connection, and has passed it on between two requests.
    BEGIN: the first byte of a request is read. RECOGNISE: a whole prediction whose head is known is answered at once.
    PAUSE: the bytes that are here end within a head. HOLD: a head ends, and its request is a prediction that may be
    answered where its last byte is read. START: a request is given to the application. QUEUE: a request is given to the
    application, behind one that is being answered. END: the last byte of a request is read. ANSWER: the last answer
    under way is complete. ADVANCE: every earlier request is answered, and the application has the one being read.
    BREAK: what follows cannot be read, and an earlier answer is under way. LINGER: the last answer is sent; the client
    may not have sent everything. CLOSE: we close the connection.
    """

    RESUME = auto()
    BEGIN = auto()
    RECOGNISE = auto()
    PAUSE = auto()
    HOLD = auto()
    START = auto()
    QUEUE = auto()
    END = auto()
    ANSWER = auto()
    ADVANCE = auto()
    BREAK = auto()
    LINGER = auto()
    CLOSE = auto()


class HttpState(Enum):
    """The state of one connection. `after_...` is the state that follows an event; an impossible event has none.

    OPENED: no request has begun yet; one has to, in time. READY: every request is answered. HEAD: in a
    request line or headers, of which all bytes came at once so far. SLOW_HEAD: the same, but the bytes ended within it;
    the rest has to come in time. HELD: in the body of a prediction that may be answered where its last byte is read.
    BODY: in the body of a request that the application has. DROPPING: in the rest of a body whose request is answered.
    ANSWERING: behind a request that is being answered. HEAD_AHEAD, BODY_AHEAD: in a request behind one that is being
    answered. BROKEN: behind what cannot be read; earlier requests are being answered. LINGERING: behind the end of the
    last answer. CLOSED: nothing is read or sent any more.
    """

    OPENED = auto()
    READY = auto()
    HEAD = auto()
    SLOW_HEAD = auto()
    HELD = auto()
    BODY = auto()
    DROPPING = auto()
    ANSWERING = auto()
    HEAD_AHEAD = auto()
    BODY_AHEAD = auto()
    BROKEN = auto()
    LINGERING = auto()
    CLOSED = auto()

    # Filled from TRANSITIONS below. An attribute costs a fifth of two looks into dictionaries.
    after_resume: HttpState
    after_begin: HttpState
    after_recognise: HttpState
    after_pause: HttpState
    after_hold: HttpState
    after_start: HttpState
    after_queue: HttpState
    after_end: HttpState
    after_answer: HttpState
    after_advance: HttpState
    after_break: HttpState
    after_linger: HttpState
    after_close: HttpState


# By these names: a look into an enumeration takes longer than most of what is done for a request.
OPENED, READY, HEAD, SLOW_HEAD, HELD = (
    HttpState.OPENED,
    HttpState.READY,
    HttpState.HEAD,
    HttpState.SLOW_HEAD,
    HttpState.HELD,
)
BODY, DROPPING, ANSWERING = HttpState.BODY, HttpState.DROPPING, HttpState.ANSWERING
HEAD_AHEAD, BODY_AHEAD = HttpState.HEAD_AHEAD, HttpState.BODY_AHEAD
BROKEN, LINGERING, CLOSED = HttpState.BROKEN, HttpState.LINGERING, HttpState.CLOSED

# Beside these, a connection that is lost is CLOSED whatever its state was. HEAD begins and ends in itself where a head
# offers another protocol: the parser begins and ends such a request twice, see `connection`.
TRANSITIONS: Mapping[HttpState, Mapping[Event, HttpState]] = {
    OPENED: {
        Event.RESUME: READY,
        Event.BEGIN: HEAD,
        Event.RECOGNISE: READY,
        Event.CLOSE: CLOSED,
    },
    READY: {
        Event.BEGIN: HEAD,
        Event.RECOGNISE: READY,
        Event.CLOSE: CLOSED,
    },
    HEAD: {
        Event.BEGIN: HEAD,
        Event.PAUSE: SLOW_HEAD,
        Event.HOLD: HELD,
        Event.START: BODY,
        Event.END: HEAD,
        Event.LINGER: LINGERING,
    },
    SLOW_HEAD: {
        Event.BEGIN: SLOW_HEAD,
        Event.HOLD: HELD,
        Event.START: BODY,
        Event.END: SLOW_HEAD,
        Event.LINGER: LINGERING,
        Event.CLOSE: CLOSED,
    },
    HELD: {
        Event.START: BODY,
        Event.END: READY,
        Event.LINGER: LINGERING,
    },
    BODY: {
        Event.END: ANSWERING,
        Event.ANSWER: DROPPING,
        Event.BREAK: BROKEN,
        Event.LINGER: LINGERING,
        Event.CLOSE: CLOSED,
    },
    DROPPING: {
        Event.END: READY,
        Event.LINGER: LINGERING,
        Event.CLOSE: CLOSED,
    },
    ANSWERING: {
        Event.BEGIN: HEAD_AHEAD,
        Event.ANSWER: READY,
        Event.BREAK: BROKEN,
        Event.CLOSE: CLOSED,
    },
    HEAD_AHEAD: {
        Event.BEGIN: HEAD_AHEAD,
        Event.QUEUE: BODY_AHEAD,
        Event.END: HEAD_AHEAD,
        Event.ANSWER: SLOW_HEAD,
        Event.BREAK: BROKEN,
        Event.CLOSE: CLOSED,
    },
    BODY_AHEAD: {
        Event.END: ANSWERING,
        Event.ADVANCE: BODY,
        Event.BREAK: BROKEN,
        Event.LINGER: LINGERING,
        Event.CLOSE: CLOSED,
    },
    BROKEN: {
        Event.LINGER: LINGERING,
        Event.CLOSE: CLOSED,
    },
    LINGERING: {
        Event.CLOSE: CLOSED,
    },
    CLOSED: {
        Event.CLOSE: CLOSED,
    },
}

for _state, _moves in TRANSITIONS.items():
    for _event, _next in _moves.items():
        setattr(_state, f"after_{_event.name.lower()}", _next)

WAITING = (ANSWERING, HEAD_AHEAD, BODY_AHEAD)  # what comes now is not read before an answer is complete
OVER = (BROKEN, LINGERING, CLOSED)  # what comes now is never read
