"""Where a connection is in what its client sends."""

from __future__ import annotations

from enum import Enum, auto


class Place(Enum):
    """The place of the next byte.

    BETWEEN: before a request. HEAD: in its request line or its headers. OFFER: behind a head that offers another
    protocol, which is about to be read once more without that. HELD: in the body of a prediction that may be answered
    where its last byte is read. BODY: in any other body. DROPPED: in the rest of a body whose request has been
    answered. BROKEN: behind what is no HTTP; earlier requests are still being answered. LINGERING: behind the end of
    the last answer.

        BETWEEN -> HEAD -> HELD -> BODY -> DROPPED -> BETWEEN
                   HEAD -> OFFER -> HEAD
                   HEAD -> BODY; HELD, BODY -> BETWEEN
        any but LINGERING -> BROKEN -> LINGERING
        any -> LINGERING
    """

    BETWEEN = auto()
    HEAD = auto()
    OFFER = auto()
    HELD = auto()
    BODY = auto()
    DROPPED = auto()
    BROKEN = auto()
    LINGERING = auto()


# By these names, because a look into an enumeration takes longer than anything else that is done for each request.
BETWEEN, HEAD, OFFER, HELD = Place.BETWEEN, Place.HEAD, Place.OFFER, Place.HELD
BODY, DROPPED, BROKEN, LINGERING = Place.BODY, Place.DROPPED, Place.BROKEN, Place.LINGERING

OVER = (BROKEN, LINGERING)
