"""The event loop's end of a host's socket: whole frames out of a stream that may be cut anywhere."""

from __future__ import annotations

import asyncio
import mmap
import random
import socket
import threading
from typing import Any

import numpy as np
import pytest
import uvloop

from serving.host.protocol import ARENA_THRESHOLD_BYTES, Frame, Kind, pack_prefix
from serving.host.stream import receive_frame
from serving.servable.link import READ_BYTES, HostLink

SIZES = [0, 1, 8, 999, READ_BYTES - 40, READ_BYTES - 28, READ_BYTES, READ_BYTES + 1, 3 * READ_BYTES, 5]


def frame(number: int, size: int) -> bytes:
    header = b"{" + b" " * (number % 9) + b"}"
    return pack_prefix(Kind.PREDICTION, number, len(header), size) + header + random.Random(number).randbytes(size)


@pytest.mark.parametrize("step", [1, 27, 28, 29, 1000, READ_BYTES - 1, 1 << 30])
def test_frames_of_any_size_are_found_however_the_stream_is_cut(step: int) -> None:
    seen: list[Frame] = []
    link = HostLink(mmap.mmap(-1, 4096), seen.append, lambda: None)
    stream = memoryview(b"".join(frame(number, size) for number, size in enumerate(SIZES)))
    while stream:
        buffer = link.get_buffer(-1)
        count = min(step, len(buffer), len(stream))
        assert count, "there is always room for more"
        buffer[:count] = stream[:count]
        link.buffer_updated(count)
        stream = stream[count:]
    assert [each.request_id for each in seen] == list(range(len(SIZES)))
    for number, (each, size) in enumerate(zip(seen, SIZES, strict=True)):
        assert bytes(each.payload) == random.Random(number).randbytes(size)
        assert bytes(each.header).replace(b" ", b"") == b"{}"
        if size >= 8:
            assert np.frombuffer(each.payload, np.float64, size // 8).flags.aligned


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_frames_pass_both_ways_under_either_loop(run: Any) -> None:
    """Small ones and those between the arena and the socket; one beyond the arena takes the socket."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    arena = mmap.mmap(-1, 4 * ARENA_THRESHOLD_BYTES)
    sizes = [0, 8, ARENA_THRESHOLD_BYTES - 8, ARENA_THRESHOLD_BYTES, len(arena), len(arena) + 8]
    in_arena: list[bool] = []

    def echo() -> None:
        view = memoryview(arena)
        with theirs:
            while (received := receive_frame(theirs, view)) is not None:
                in_arena.append(received.payload.obj is view.obj)
                size = len(received.payload)
                head = pack_prefix(Kind.PREDICTION, received.request_id, len(received.header), size)
                theirs.sendall(head + received.header + received.payload)

    async def scenario() -> None:
        lost = asyncio.Event()
        answers: asyncio.Queue[Frame] = asyncio.Queue()
        link = HostLink(arena, answers.put_nowait, lost.set)
        await asyncio.get_running_loop().create_connection(lambda: link, sock=ours)
        for number, size in enumerate(sizes):
            payload = random.Random(number).randbytes(size)
            link.send(number, b"{}", [payload[: size // 2], payload[size // 2 :]])
            answer = await asyncio.wait_for(answers.get(), 20)
            assert (answer.request_id, bytes(answer.header), bytes(answer.payload)) == (number, b"{}", payload)
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
        link.send(1, b"{}", [])

    with theirs:
        asyncio.run(scenario())
        assert theirs.recv(1) == b""
