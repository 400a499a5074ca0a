"""Reads the message of a call, after its token has been checked, and if there is room for it.

The size of a message is known only when it has arrived. Most arrive at once. A message that has not arrived after a
moment counts with the largest size allowed among the bodies of all requests (`serving.api.inflight`), until it arrives.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from serving.api.bodies import BodyTooSlow
from serving.api.inflight import Share, TooManyBytes
from serving.domain.errors import InvalidInput, ServingError
from serving.settings import ServerSettings

MOMENT_SECONDS = 0.05


class MessageReader:
    """Reads the one message of a call. Event loop thread only."""

    def __init__(self, settings: ServerSettings) -> None:
        most_mb = settings.max_body_mb if settings.grpc_max_mb is None else settings.grpc_max_mb
        self._most_bytes = int(most_mb * (1 << 20))
        self._seconds = settings.body_seconds

    async def read(self, messages: AsyncIterator[bytes], share: Share) -> bytes:
        """Return the message; raises TooManyBytes, BodyTooSlow, or InvalidInput if there is none."""
        task = asyncio.current_task()
        assert task is not None
        failures: list[ServingError] = []

        def stop(error: ServingError) -> None:
            if not failures:
                failures.append(error)
                task.cancel()

        def on_moment() -> None:
            try:
                share.take(self._most_bytes)
            except TooManyBytes as error:
                stop(error)

        loop = asyncio.get_running_loop()
        late = f"the message did not arrive within {self._seconds:g} seconds"
        timers = (
            loop.call_later(MOMENT_SECONDS, on_moment),
            loop.call_later(self._seconds, lambda: stop(BodyTooSlow(late))),
        )
        try:
            raw = await anext(messages, None)
        except asyncio.CancelledError:
            if not failures or task.uncancel():
                raise
            raise failures[0] from None
        finally:
            for timer in timers:
                timer.cancel()
        if raw is None:
            raise InvalidInput("the call has no message")
        share.settle(len(raw))
        return raw
