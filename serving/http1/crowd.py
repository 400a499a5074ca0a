"""Connections beyond the most there may be: what probes a server's health is answered, everything else is sent away."""

from __future__ import annotations

from typing import Protocol

MOST = 32  # descriptors kept for them: see `serving.server`


class Crowded(Protocol):
    """A connection that can be closed."""

    def send_away(self) -> None:
        """Close the connection, and say why where nothing has been said yet."""


class Crowd:
    """The connections of one loop that came when there were too many, at most MOST of them. Event loop thread only.

    Where one more comes, the one that has been here longest leaves: a probe that comes and asks at
    once is answered, however many others came and ask nothing.
    """

    def __init__(self) -> None:
        self._members: dict[Crowded, None] = {}  # in the order they came

    def __contains__(self, one: object) -> bool:
        return one in self._members

    def admit(self, one: Crowded) -> None:
        """Let a connection in."""
        if len(self._members) >= MOST:
            first = next(iter(self._members))
            del self._members[first]
            first.send_away()
        self._members[one] = None

    def leave(self, one: Crowded) -> None:
        """Forget a connection; nothing happens when it is none of these."""
        self._members.pop(one, None)
