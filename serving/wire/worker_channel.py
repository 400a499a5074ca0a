"""The channel between the supervisor and one worker: packets of JSON with descriptors, questions and their answers.

It is a Unix socket that keeps packets apart (SOCK_SEQPACKET, Linux only). A packet is a prefix and a JSON document::

    u8       what it is: the place of its type among the channel's types
    u8       flags: 1 = it answers a question; 2 = the document lies in memory, whose descriptor comes first
    u16      0
    u32      number of the question that it is or answers; 0 for neither

A document of more than `INLINE_BYTES` is handed over in anonymous memory, as a packet has to fit into the socket's
buffer. Both ends are this package's own processes, of one release and one user: neither is an enemy of the other.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import queue
import socket
import struct
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from typing import Any

import structlog
from pydantic import TypeAdapter

from serving.domain.errors import ServingError

INLINE_BYTES = 32 << 10
MOST_DESCRIPTORS = 250  # of one packet; the system takes 253
_PREFIX = struct.Struct("<BBHI")
_ANSWERS, _IN_MEMORY = 1, 2
_MOST_BYTES = _PREFIX.size + INLINE_BYTES
_CLOSE_SECONDS = 5.0

Descriptors = Sequence[int]
Handler = Callable[["Received"], None]

log = structlog.get_logger("serving.workers")


class ChannelClosed(ServingError):
    """The process at the other end is gone, or has closed the channel."""


class Received:
    """One packet: its message, and the descriptors that came with it, which belong to whoever takes it."""

    __slots__ = ("_channel", "_number", "descriptors", "message")

    def __init__(self, channel: WorkerChannel, number: int, message: Any, descriptors: list[int]) -> None:
        self._channel, self._number = channel, number
        self.message, self.descriptors = message, descriptors

    def answer(self, message: Any) -> None:
        """Answer a question. Any thread; waits for nothing, and is harmless when the other end is gone."""
        self._channel.send(message, number=self._number, answers=True)


class WorkerChannel:
    """One end of a channel. `send` and `ask` wait for nothing and may be called by any thread.

    One thread writes, one reads. The latter calls `handler` with each packet that is no answer, and `on_end` once when
    the other end is gone; neither should block for long. `types` are the types of messages, the same at both ends.
    """

    def __init__(
        self,
        sock: socket.socket,
        types: Sequence[type],
        handler: Handler,
        on_end: Callable[[], None] = lambda: None,
        name: str = "worker",
    ) -> None:
        self._socket = sock
        self._handler = handler
        self._on_end = on_end
        self._types = tuple(types)
        self._kinds = {each: kind for kind, each in enumerate(self._types)}
        self._numbers = itertools.count(1)
        self._questions: dict[int, Future[Any]] = {}
        self._lock = threading.Lock()
        self._is_closed = False
        self._outbox: queue.SimpleQueue[tuple[bytes, list[int]] | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, name=f"serving-{name}-in", daemon=True)
        self._writer = threading.Thread(target=self._write, name=f"serving-{name}-out", daemon=True)

    def start(self) -> None:
        """Start to read and to write."""
        self._writer.start()  # before the reader, which waits for it when the other end is gone already
        self._reader.start()

    def send(self, message: Any, descriptors: Descriptors = (), *, number: int = 0, answers: bool = False) -> None:
        """Send a message with copies of `descriptors`, which stay the caller's. Nothing is told when that fails."""
        kind = self._kinds[type(message)]
        document = _adapter_of(type(message)).dump_json(message)
        copies = [os.dup(each) for each in descriptors]
        flags = _ANSWERS if answers else 0
        if len(document) > INLINE_BYTES:
            copies.insert(0, _write_memory(document))
            document, flags = b"", flags | _IN_MEMORY
        assert len(copies) <= MOST_DESCRIPTORS
        with self._lock:
            if not self._is_closed:
                self._outbox.put((_PREFIX.pack(kind, flags, 0, number) + document, copies))
                return
        _close_all(copies)

    def ask(self, message: Any, descriptors: Descriptors = ()) -> Future[Any]:
        """Send a question; the future gets its answer, or ChannelClosed when there will be none."""
        answer: Future[Any] = Future()
        with self._lock:
            if self._is_closed:
                answer.set_exception(ChannelClosed("the other process is gone"))
                return answer
            number = next(self._numbers)
            self._questions[number] = answer
        self.send(message, descriptors, number=number)
        return answer

    def close(self) -> None:
        """End the channel; what was sent before is written first, if the other end reads it."""
        with self._lock:
            self._is_closed = True
        self._outbox.put(None)

    # --- the threads -------------------------------------------------------------------------------------------------

    def _write(self) -> None:
        try:
            while (packet := self._outbox.get()) is not None:
                data, descriptors = packet
                try:
                    socket.send_fds(self._socket, [data], descriptors)
                finally:
                    _close_all(descriptors)
        except OSError:
            pass  # the other end is gone; the reader tells it
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def _read(self) -> None:
        try:
            while self._read_packet():
                pass
        except OSError:
            pass
        finally:
            self._end()

    def _read_packet(self) -> bool:
        data, descriptors, flags, _ = socket.recv_fds(self._socket, _MOST_BYTES, MOST_DESCRIPTORS)
        if not data:
            return False
        if flags & socket.MSG_CTRUNC:  # this process may open no more descriptors: what was meant cannot be known
            _close_all(descriptors)
            log.error("descriptors_lost", reason="this process has no descriptors left", effect="the channel is closed")
            return False
        kind, flags, _, number = _PREFIX.unpack_from(data)
        document = _read_memory(descriptors.pop(0)) if flags & _IN_MEMORY else data[_PREFIX.size :]
        message = _adapter_of(self._types[kind]).validate_json(document)
        if flags & _ANSWERS:
            _close_all(descriptors)
            with self._lock:
                question = self._questions.pop(number, None)
            if question is not None:
                with contextlib.suppress(InvalidStateError):  # it was given up
                    question.set_result(message)
        else:
            self._take(Received(self, number, message, descriptors))
        return True

    def _take(self, received: Received) -> None:
        try:
            self._handler(received)
        except Exception:
            log.exception("message_failed", message_type=type(received.message).__name__)

    def _end(self) -> None:
        self.close()
        with self._lock:
            questions, self._questions = list(self._questions.values()), {}
        for question in questions:
            with contextlib.suppress(InvalidStateError):
                question.set_exception(ChannelClosed("the other process is gone"))
        self._writer.join(_CLOSE_SECONDS)
        self._socket.close()
        self._on_end()


_ADAPTERS: dict[type, TypeAdapter[Any]] = {}


def _adapter_of(kind: type) -> TypeAdapter[Any]:
    found = _ADAPTERS.get(kind)
    if found is None:
        found = _ADAPTERS[kind] = TypeAdapter(kind)
    return found


def _write_memory(document: bytes) -> int:
    fd = os.memfd_create("serving-packet", os.MFD_CLOEXEC)
    left = memoryview(document)
    while left:
        left = left[os.write(fd, left) :]
    return fd


def _read_memory(fd: int) -> bytes:
    """Return a document, and close its memory. It is read, not mapped: what is mapped may become smaller meanwhile."""
    with open(fd, "rb", buffering=0) as file:
        file.seek(0)
        return file.read()


def _close_all(descriptors: Descriptors) -> None:
    for fd in descriptors:
        os.close(fd)
