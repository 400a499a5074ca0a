"""The far end of a host's socket, played by a thread: real frames over a real socket."""

from __future__ import annotations

import contextlib
import mmap
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future

import numpy as np
import orjson

from serving.domain.batch import Batch
from serving.host.protocol import ARENA_BYTES, Kind, decode_batch, encode_tensors
from serving.host.stream import receive_frame, send_frame

Answer = Callable[[Batch], np.ndarray]


class StubProcess:
    """Looks like a HostProcess; `answer` may raise SystemExit to die without a word."""

    def __init__(self, answer: Answer) -> None:
        self.socket, self._theirs = socket.socketpair()
        self.arena = mmap.mmap(-1, ARENA_BYTES)
        self.exited: Future[int | None] = Future()
        self.was_killed = False
        self.arena_uses = 0
        self._answer = answer
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def kill(self) -> None:
        self.was_killed = True
        with contextlib.suppress(OSError):
            self._theirs.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.kill()
        self.socket.close()

    def join(self) -> None:
        self.close()
        self._thread.join(10)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        view = memoryview(self.arena)
        try:
            while (frame := receive_frame(self._theirs, view)) is not None:
                self.arena_uses += frame.payload.obj is view.obj
                _, batch = decode_batch(frame.header, frame.payload)
                descriptions, buffers = encode_tensors([self._answer(batch)])
                header = orjson.dumps({"tensors": descriptions})
                send_frame(self._theirs, Kind.PREDICTION, frame.request_id, header, buffers)
        except (SystemExit, OSError):
            pass
        finally:
            self._theirs.close()
            self.exited.set_result(0)


def doubled(batch: Batch) -> np.ndarray:
    """Answer twice the first column."""
    assert batch.matrix is not None
    return batch.matrix[:, 0] * 2
