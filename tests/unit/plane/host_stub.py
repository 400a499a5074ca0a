"""The far end of a host's sockets, played by threads: real frames over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import mmap
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import numpy as np
import orjson

from serving.domain.errors import InvalidInput, ModelFailed
from serving.domain.last_words import note_request
from serving.rows.batch import Batch
from serving.wire.frames import ARENA_BYTES, FrameKind
from serving.wire.payloads import decode_batch, encode_detail, encode_tensors
from serving.wire.stream import receive_frame, send_frame

Answer = Callable[[Batch], Any]
Hosts = Callable[..., "StubProcess"]


class StubProcess:
    """Looks like a HostProcess; `answer` may raise SystemExit to die without a word.

    `frames` lists method and rows of each request as it came. Replicas end with the first thread, the host itself.
    """

    def __init__(self, answer: Answer, replicas: int = 1) -> None:
        pairs = [socket.socketpair() for _ in range(replicas)]
        self.channels = tuple((ours, mmap.mmap(-1, ARENA_BYTES)) for ours, _ in pairs)
        self.theirs = [theirs for _, theirs in pairs]
        self.exited: Future[int | None] = Future()
        self.was_killed = False
        self.arena_uses = 0
        self.frames: list[tuple[str, int]] = []
        self._answer = answer
        self._threads = [threading.Thread(target=self._run, args=(place,)) for place in range(replicas)]
        for thread in self._threads:
            thread.start()

    @property
    def rows(self) -> list[int]:
        """How many rows each request had."""
        return [rows for _, rows in self.frames]

    def kill(self) -> None:
        self.was_killed = True
        self._hang_up()

    def close(self) -> None:
        self.kill()
        for sock, _ in self.channels:
            sock.close()

    def join(self) -> None:
        self.close()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()

    def _hang_up(self) -> None:
        for theirs in self.theirs:
            with contextlib.suppress(OSError):
                theirs.shutdown(socket.SHUT_RDWR)

    def _run(self, place: int) -> None:
        sock, view = self.theirs[place], memoryview(self.channels[place][1])
        try:
            while (frame := receive_frame(sock, view)) is not None:
                self.arena_uses += frame.payload.obj is view.obj
                method, batch = decode_batch(frame.header, frame.payload)
                self.frames.append((method, batch.rows))
                note_request(self.channels[place][1], frame.request_id)
                try:
                    descriptions, buffers = encode_tensors([self._answer(batch)])
                except (InvalidInput, ModelFailed) as error:
                    kind = FrameKind.REFUSAL if isinstance(error, InvalidInput) else FrameKind.FAILURE
                    send_frame(sock, kind, frame.request_id, encode_detail(str(error)))
                else:
                    header = orjson.dumps({"tensors": descriptions})
                    send_frame(sock, FrameKind.PREDICTION, frame.request_id, header, buffers)
        except (SystemExit, OSError):
            pass
        finally:
            sock.close()
            if place == 0:
                self._hang_up()
                self.exited.set_result(0)


class Gate:
    """Answers twice the first column, but holds every answer back until `open`."""

    def __init__(self) -> None:
        self._opened = threading.Event()

    def __call__(self, batch: Batch) -> np.ndarray:
        assert self._opened.wait(30)
        return doubled(batch)

    def open(self) -> None:
        self._opened.set()


def doubled(batch: Batch) -> np.ndarray:
    """Answer twice the first column."""
    assert batch.matrix is not None
    return batch.matrix[:, 0] * 2


def rows(value: float, count: int = 1, features: int = 1) -> Batch:
    """Make rows that hold nothing but `value`."""
    return Batch(count, matrix=np.full((count, features), value))


async def until(condition: Callable[[], Any]) -> None:
    """Wait for a condition; one that never comes true fails."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)
