"""How many bytes of request bodies are in memory, of all clients and protocols together: `server.max_inflight_mb`.

The limit of one body does not limit many at once: a hundred clients that never finish their bodies would take two
gigabytes. Bytes count from when they are read until their request has been answered.
"""

from __future__ import annotations

from types import TracebackType

from serving.domain.errors import Overloaded

SMALL_BYTES = 64 << 10
LARGE_SHARE = 0.75  # the rest is kept for small bodies
RETRY_SECONDS = 1


class TooManyBytes(Overloaded):
    """There is no room for a body now. `closes_connection`: the rest of it might never end."""

    closes_connection = False


class Inflight:
    """Counts the bytes of all bodies, up to a limit. Event loop thread only."""

    def __init__(self, max_mb: float) -> None:
        self.max_bytes = int(max_mb * (1 << 20))
        self.used_bytes = 0

    def share(self) -> Share:
        """Return an account for one request, to be closed with it."""
        return Share(self)


class Share:
    """The bytes of one request, until the end of its ``with`` block. Event loop thread only."""

    __slots__ = ("_all", "bytes")

    def __init__(self, everything: Inflight) -> None:
        self._all = everything
        self.bytes = 0

    def __enter__(self) -> Share:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._all.used_bytes -= self.bytes
        self.bytes = 0

    def take(self, size: int) -> None:
        """Count some more bytes; raises TooManyBytes if there is no room for them."""
        self.expect(size)
        self.bytes += size
        self._all.used_bytes += size

    def settle(self, size: int) -> None:
        """Replace the bytes counted until now by this number; raises TooManyBytes if there is no room."""
        self._all.used_bytes -= self.bytes
        self.bytes = 0
        self.take(size)

    def expect(self, size: int) -> None:
        """Raise TooManyBytes if there would be no room for these bytes now. A single request always has room."""
        used = self._all.used_bytes
        if used == self.bytes:
            return
        share = 1 if self.bytes + size <= SMALL_BYTES else LARGE_SHARE
        if used + size > share * self._all.max_bytes:
            limit = self._all.max_bytes / (1 << 20)
            raise TooManyBytes(
                f"the bodies of other requests take the {limit:g} MB there are for all; try again later", RETRY_SECONDS
            )
