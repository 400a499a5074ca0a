"""A servable whose model lives in its host process."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import mmap
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol

from serving.domain.batch import Batch, Prediction
from serving.domain.errors import (
    DeadlineExceeded,
    HostLost,
    InvalidInput,
    ModelFailed,
    Overloaded,
    ProtocolError,
    ServingError,
)
from serving.domain.signature import Method
from serving.host.protocol import Buffer, Frame, Kind, decode_object, decode_tensors, encode_batch
from serving.servable.link import HostLink

MAX_UNSENT_BYTES = 64 << 20
MAX_SENDS = 2
CLOSE_SECONDS = 5.0


class Process(Protocol):
    """A host process, as far as this module cares."""

    socket: socket.socket
    arena: mmap.mmap
    exited: Future[int | None]

    def kill(self) -> None:
        """Kill it."""
        ...

    def close(self) -> None:
        """Kill it and give its socket and arena back."""
        ...


@dataclass(slots=True, eq=False)
class _Pending:
    """One request on its way: what to send (again), until when, and who waits."""

    header: bytes
    buffers: Sequence[Buffer]
    ends_at: float
    limit_seconds: float
    answer: asyncio.Future[Prediction] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    sends: int = 0


class HostedEngine:
    """Sends batches to a host and survives its death. Event loop thread only, except where said.

    Many requests may be under way at once; the host answers them one after another. When the host dies, `on_lost` is
    called, requests wait for `attach` to bring another host, and those that were under way are sent once more.
    """

    def __init__(self, name: str, on_lost: Callable[[HostedEngine], None]) -> None:
        self.name = name
        self._on_lost = on_lost
        self._ids = itertools.count(1)
        self._pending: dict[int, _Pending] = {}
        self._link: HostLink | None = None
        self._process: Process | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._outage: ServingError | None = None
        self._is_closed = False

    @property
    def is_connected(self) -> bool:
        """True while a host is there to answer."""
        return self._link is not None

    async def attach(self, process: Process) -> None:
        """Answer through `process`, which has a warm model and waits for requests. What was waiting is sent now."""
        loop = asyncio.get_running_loop()
        process.socket.setblocking(False)
        _, link = await loop.create_connection(
            lambda: HostLink(process.arena, self._take, self._lost), sock=process.socket
        )
        if self._is_closed:
            link.close()
            process.kill()
            return
        self._link, self._process, self._outage = link, process, None
        for request_id, pending in self._pending.items():
            self._send(link, request_id, pending)

    async def predict(self, method: Method, batch: Batch, deadline_seconds: float) -> Prediction:
        """Answer one batch; see :class:`serving.servable.servable.Engine`."""
        link = self._link
        if self._outage is not None:
            raise self._outage
        if link is not None and link.unsent_bytes > MAX_UNSENT_BYTES:
            raise Overloaded("the model is still busy with earlier, larger requests; try again shortly")
        header, buffers = encode_batch(method, batch)
        request_id = next(self._ids)
        now = asyncio.get_running_loop().time()
        pending = _Pending(header, buffers, now + deadline_seconds, deadline_seconds)
        self._pending[request_id] = pending
        if link is not None:
            self._send(link, request_id, pending)
        if self._watch is None:
            self._arm(deadline_seconds)
        return await pending.answer

    def report_outage(self, error: ServingError) -> None:
        """No host could be started for now: answer everyone with `error`, at once, until one is attached."""
        if self._link is None:
            self._outage = error
            waiting, self._pending = self._pending, {}
            for pending in waiting.values():
                _settle(pending.answer, error)

    async def close(self) -> None:
        """End the host and wait until its process is gone. Called once, when no lease is left."""
        self._is_closed = True
        if self._watch is not None:
            self._watch.cancel()
        link, process = self._link, self._process
        self._link = self._process = None
        if link is not None:
            link.close()
        if process is None:
            return
        exited = asyncio.wrap_future(process.exited)
        try:
            await asyncio.wait_for(asyncio.shield(exited), CLOSE_SECONDS)
        except TimeoutError:
            process.kill()
            await exited
        finally:
            with contextlib.suppress(OSError):
                process.close()

    def _send(self, link: HostLink, request_id: int, pending: _Pending) -> None:
        pending.sends += 1
        link.send(request_id, pending.header, pending.buffers)

    def _take(self, frame: Frame) -> None:
        pending = self._pending.pop(frame.request_id, None)
        if pending is None:
            return  # it was given up at its deadline
        try:
            _settle(pending.answer, _read(frame))
        except ProtocolError as error:
            _settle(pending.answer, ModelFailed(f"the host's answer could not be read: {error}"))
            if self._process is not None:
                self._process.kill()

    def _lost(self, link: HostLink) -> None:
        if link is not self._link or self._is_closed:
            return
        process, self._link, self._process = self._process, None, None
        if process is not None:
            process.close()
        for request_id, pending in list(self._pending.items()):
            if pending.sends >= MAX_SENDS:
                del self._pending[request_id]
                error = HostLost("the process that holds the model died twice while it answered; try again shortly")
                _settle(pending.answer, error)
        self._on_lost(self)

    def _arm(self, seconds: float) -> None:
        self._watch = asyncio.get_running_loop().call_later(seconds, self._expire)

    def _expire(self) -> None:
        """Give up what is past its deadline; kill the host when it is stuck on the oldest of it."""
        self._watch = None
        now = asyncio.get_running_loop().time()
        oldest = next(iter(self._pending), None)
        for request_id, pending in list(self._pending.items()):
            if pending.ends_at > now:
                continue
            del self._pending[request_id]
            waited = f"no answer within {pending.limit_seconds:g} s (server.predict_seconds)"
            _settle(pending.answer, DeadlineExceeded(f"{waited}; send fewer rows or raise the setting"))
            if request_id == oldest and pending.sends and self._process is not None:
                self._process.kill()
        if self._pending:
            self._arm(max(0.0, min(pending.ends_at for pending in self._pending.values()) - now))


def _read(frame: Frame) -> Prediction | ServingError:
    fields = decode_object(frame.header)
    if frame.kind is Kind.PREDICTION:
        return Prediction(decode_tensors(fields.get("tensors") or (), frame.payload))
    detail = str(fields.get("detail"))
    if frame.kind is Kind.REFUSAL:
        return InvalidInput(detail)
    if frame.kind is Kind.FAILURE:
        return ModelFailed(detail)
    raise ProtocolError(f"{frame.kind.name} as an answer")


def _settle(answer: asyncio.Future[Prediction], outcome: Prediction | ServingError) -> None:
    if answer.done():
        return  # whoever waited has gone
    if isinstance(outcome, Prediction):
        answer.set_result(outcome)
    else:
        answer.set_exception(outcome)
