"""The event loop's end of a host's socket: whole frames out of a stream that may be cut anywhere."""

from __future__ import annotations

import asyncio
import mmap
import random
import socket
import threading
import tracemalloc
from typing import Any

import numpy as np
import pytest
import uvloop

from serving.domain.last_words import RESERVED_BYTES
from serving.plane.host_link import READ_BYTES, HostLink
from serving.wire.frames import ARENA_THRESHOLD_BYTES, BOUNDS, FLAG_ARENA, MAGIC, PREFIX, Frame, FrameKind, pack_prefix
from serving.wire.stream import receive_frame

SIZES = [0, 1, 8, 999, READ_BYTES - 40, READ_BYTES - 28, READ_BYTES, READ_BYTES + 1, 3 * READ_BYTES, 5]
MOST_BYTES = 1 << 20


class Wire(asyncio.Transport):
    """A transport that keeps what is written, and whether it was cut."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.is_cut = False

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))

    def writelines(self, list_of_data: Any) -> None:
        self.written.extend(map(bytes, list_of_data))

    def abort(self) -> None:
        self.is_cut = True


class Link(HostLink):
    """A link on a wire of its own; `seen` has the answers that were taken."""

    def __init__(self) -> None:
        self.seen: list[Frame] = []
        super().__init__(mmap.mmap(-1, 4096), self.seen.append, lambda: None)
        self.wire = Wire()
        self.connection_made(self.wire)

    def ask(self, most_bytes: int = MOST_BYTES) -> None:
        self.send(b"{}", [], most_bytes)

    def feed(self, stream: bytes, step: int = 1 << 30) -> None:
        """Receive bytes, no more than so many at once, until they are over or the link is cut."""
        rest = memoryview(stream)
        while rest and not self.wire.is_cut:
            buffer = self.get_buffer(-1)
            count = min(step, len(buffer), len(rest))
            assert count, "there is always room for more"
            buffer[:count] = rest[:count]
            self.buffer_updated(count)
            rest = rest[count:]


def frame(number: int, size: int) -> bytes:
    header = b"{" + b" " * (number % 9) + b"}"
    return pack_prefix(FrameKind.PREDICTION, number, len(header), size) + header + random.Random(number).randbytes(size)


@pytest.mark.parametrize("step", [1, 27, 28, 29, 1000, READ_BYTES - 1, 1 << 30])
def test_answers_of_any_size_are_found_however_the_stream_is_cut(step: int) -> None:
    link = Link()
    for number, size in enumerate(SIZES, 1):
        link.ask()
        link.feed(frame(number, size), step)
        assert len(link.seen) == number
        answer = link.seen[-1]
        assert answer.request_id == number
        assert bytes(answer.payload) == random.Random(number).randbytes(size)
        assert bytes(answer.header).replace(b" ", b"") == b"{}"
        if size >= 8:
            assert np.frombuffer(answer.payload, np.float64, size // 8).flags.aligned
    assert link.violation is None


FORGED = {
    "before anything was asked": (0, frame(1, 8), "without a request"),
    "a byte before anything was asked": (0, b"S", "without a request"),
    "a second answer": (1, frame(1, 8) + frame(1, 8), "after an answer"),
    "a byte after an answer": (1, frame(1, 8) + b"S", "after an answer"),
    "a byte after an empty answer": (1, frame(1, 0) + b"S", "after an answer"),
    "the answer to the next request": (1, frame(2, 8), "answer to 1 was expected"),
    "the answer to no request": (1, frame(0, 8), "answer to 1 was expected"),
    "an answer larger than the request may have": (1, frame(1, MOST_BYTES + 1)[: PREFIX.size], "at most 1048576"),
    "no frame": (1, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "not a frame"),
    "a kind that there is not": (1, PREFIX.pack(MAGIC, 99, 0, 0, 0, 1, 0), "unknown frame kind 99"),
    "an answer in the arena": (1, PREFIX.pack(MAGIC, FrameKind.PREDICTION, FLAG_ARENA, 0, 2, 1, 0), "arena"),
    "unknown flags": (1, PREFIX.pack(MAGIC, FrameKind.PREDICTION, 2, 0, 2, 1, 0), "not a frame"),
    **{
        f"{kind.name} as an answer": (1, pack_prefix(kind, 1, 2, 0) + b"{}", "answer to 1 was expected")
        for kind in set(FrameKind) - {FrameKind.PREDICTION, FrameKind.REFUSAL, FrameKind.FAILURE}
    },
    **{
        f"{kind.name} with too long a {part}": (1, pack_prefix(kind, 1, *sizes), f"{kind.name} too large")
        for kind in (FrameKind.PREDICTION, FrameKind.REFUSAL, FrameKind.FAILURE)
        for part, sizes in {
            "header": (BOUNDS[kind].header_bytes + 1, 0),
            "payload": (2, BOUNDS[kind].payload_bytes + 1),
        }.items()
    },
}


@pytest.mark.parametrize("step", [1, 1 << 30])
@pytest.mark.parametrize("name", sorted(FORGED))
def test_whatever_else_comes_ends_the_link_and_is_named(name: str, step: int) -> None:
    asked, stream, reason = FORGED[name]
    link = Link()
    for _ in range(asked):
        link.ask()
    link.feed(stream, step)
    if link.seen and not link.wire.is_cut:  # the answer was whole before the byte that is too much was there
        link.feed(b"S")
    assert link.wire.is_cut
    assert not link.is_connected
    assert link.violation is not None
    assert "\n" not in link.violation
    assert reason in link.violation or (step == 1 and "without a request" in link.violation)


def test_an_answer_that_is_too_large_takes_no_memory() -> None:
    link = Link()
    link.ask(most_bytes=1 << 40)
    tracemalloc.start()
    try:
        link.feed(pack_prefix(FrameKind.PREDICTION, 1, 2, 1 << 39))
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    assert link.wire.is_cut


def test_what_an_answer_has_not_brought_yet_takes_no_memory_that_it_may_not_have() -> None:
    link = Link()
    link.ask(most_bytes=3 * READ_BYTES)
    link.feed(frame(1, 3 * READ_BYTES)[:-1], 1000)
    assert not link.seen
    link.feed(frame(1, 3 * READ_BYTES)[-1:])
    assert len(link.seen) == 1


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_frames_pass_both_ways_under_either_loop(run: Any) -> None:
    """Small ones and those between the arena and the socket; one beyond the arena takes the socket."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    arena = mmap.mmap(-1, 4 * ARENA_THRESHOLD_BYTES)
    most = len(arena) - RESERVED_BYTES
    sizes = [0, 8, ARENA_THRESHOLD_BYTES - 8, ARENA_THRESHOLD_BYTES, most, most + 8]
    in_arena: list[bool] = []

    def echo() -> None:
        view = memoryview(arena)
        with theirs:
            while (received := receive_frame(theirs, view)) is not None:
                in_arena.append(received.payload.obj is view.obj)
                size = len(received.payload)
                head = pack_prefix(FrameKind.PREDICTION, received.request_id, len(received.header), size)
                theirs.sendall(head + received.header + received.payload)

    async def scenario() -> None:
        lost = asyncio.Event()
        answers: asyncio.Queue[Frame] = asyncio.Queue()
        link = HostLink(arena, answers.put_nowait, lost.set)
        await asyncio.get_running_loop().create_connection(lambda: link, sock=ours)
        for number, size in enumerate(sizes):
            payload = random.Random(number).randbytes(size)
            link.send(b"{}", [payload[: size // 2], payload[size // 2 :]], size)
            answer = await asyncio.wait_for(answers.get(), 20)
            assert (answer.request_id, bytes(answer.header), bytes(answer.payload)) == (number + 1, b"{}", payload)
        link.close()
        await asyncio.wait_for(lost.wait(), 20)
        assert not link.is_connected

    thread = threading.Thread(target=echo)
    thread.start()
    run(scenario())
    thread.join(10)
    assert in_arena == [False, False, False, True, True, False]


def test_what_is_no_frame_ends_the_link() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)

    async def scenario() -> None:
        lost = asyncio.Event()
        link = HostLink(mmap.mmap(-1, 4096), lambda _: None, lost.set)
        await asyncio.get_running_loop().create_connection(lambda: link, sock=ours)
        assert link.is_connected
        theirs.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await asyncio.wait_for(lost.wait(), 20)
        assert not link.is_connected
        link.send(b"{}", [], 8)

    with theirs:
        asyncio.run(scenario())
        assert theirs.recv(1) == b""
