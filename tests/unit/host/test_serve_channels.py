"""Several channels of one process: answered in turn, none delayed by another, and computed together where allowed."""

from __future__ import annotations

import mmap
import os
import queue
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.domain.errors import InvalidInput
from serving.domain.last_words import FAILED, read_last_words, read_noted_request
from serving.host.channels import Channel, ChannelEnds, LastWords
from serving.host.serve_channels import serve_predictions
from serving.rows.batch import Batch, Prediction
from serving.wire.frames import ARENA_BYTES, PREFIX, FrameKind, pack_prefix
from serving.wire.payloads import decode_answer, decode_detail, encode_batch
from serving.wire.stream import READ_AHEAD_BYTES, receive_frame, send_frame
from tests.e2e.harness import until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="makes arenas with memfd_create")

SECONDS = 20
POISON = -13.0
LARGE_ROWS = 400_000
WIDE = -14.0


class Doubler:
    """A model that doubles the first column, waits for a permission before each batch, and notes what it was given.

    It refuses a batch with `POISON`, answers `WIDE` with many values, and gives the same memory with each answer to
    `LARGE_ROWS` rows.
    """

    def __init__(self) -> None:
        self.batches: list[list[Any]] = []
        self.permissions: queue.Queue[None] = queue.Queue()
        self.is_patient = False
        self.memory = np.zeros(LARGE_ROWS)

    def answer(self, method: str, batch: Batch) -> Prediction:
        column = (batch.columns or ())[0] if batch.matrix is None else batch.matrix[:, 0]
        self.batches.append(list(column[:5]))
        if self.is_patient:
            self.permissions.get(timeout=SECONDS)
        if POISON in list(column[:5]):
            raise InvalidInput("poison")
        if list(column) == [WIDE]:
            return Prediction((np.full((1, LARGE_ROWS), WIDE),))
        if batch.rows == LARGE_ROWS:
            self.memory[:] = np.asarray(column) * 2
            return Prediction((self.memory,))
        return Prediction(([value * 2 for value in column] if isinstance(column, list) else column * 2,))


class Asker:
    """The server's end of one channel."""

    def __init__(self) -> None:
        arena_fd = os.memfd_create("arena")
        os.ftruncate(arena_fd, ARENA_BYTES)
        self.inode = str(os.fstat(arena_fd).st_ino)
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(SECONDS)
        self.arena = mmap.mmap(arena_fd, ARENA_BYTES)
        self.theirs = ChannelEnds(theirs, arena_fd).open()
        self.sent = 0

    def pack(self, *values: Any, method: str = "predict", most_rows: int = 0, in_arena: bool = False) -> bytes:
        """Return the next request, for a row for each value."""
        columns = np.array(values) if not isinstance(values[0], str) else list(values)
        batch = (
            Batch(len(values), columns=(columns,))
            if isinstance(columns, list)
            else Batch(len(values), matrix=columns.reshape(-1, 1))
        )
        header, buffers = encode_batch(method, batch)
        payload = b"".join(buffers)
        self.sent += 1
        head = pack_prefix(
            FrameKind.PREDICT, self.sent, len(header), len(payload), most_rows=most_rows, in_arena=in_arena
        )
        if in_arena:
            self.arena[: len(payload)] = payload
            return head + header
        return head + header + payload

    def ask(self, *values: Any, **options: Any) -> None:
        self.socket.sendall(self.pack(*values, **options))

    def receive(self, rows: int = 1) -> tuple[int, Any]:
        """Return the number of the next answered request, and its answer, or why there is none."""
        frame = receive_frame(self.socket)
        assert frame is not None
        if frame.kind is not FrameKind.PREDICTION:
            return frame.request_id, decode_detail(frame.header)
        return frame.request_id, list(decode_answer(frame.header, frame.payload, rows).tensors[0])

    def close(self) -> None:
        self.socket.close()
        self.arena.close()


class Serving:
    """`serve_predictions` in a thread, with three channels and a lifeline."""

    def __init__(self, count: int = 3) -> None:
        self.model = Doubler()
        self.askers = [Asker() for _ in range(count)]
        self.channels: list[Channel] = [asker.theirs for asker in self.askers]
        self.lifeline, self.theirs = socket.socketpair()
        self.last_words = LastWords(*(channel.arena for channel in self.channels))
        self.outcome: queue.Queue[bool | Exception] = queue.Queue()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            model: Any = self.model
            self.outcome.put(serve_predictions(model, self.channels, self.last_words, self.theirs))
        except Exception as error:  # noqa: BLE001  (the test looks at it)
            self.outcome.put(error)

    def hold(self, asker: Asker) -> None:
        """Let the model begin a batch of one row that it does not finish before `release`."""
        before = len(self.model.batches)
        self.model.is_patient = True
        asker.ask(1.0)
        until(lambda: len(self.model.batches) > before, "the model computing")

    def release(self, batches: int = 1) -> None:
        """Let the model finish so many batches."""
        for _ in range(batches):
            self.model.permissions.put(None)

    def release_all(self) -> None:
        """Let the model finish this batch and all others."""
        self.model.is_patient = False
        self.release()

    def close(self) -> None:
        self.release_all()
        self.lifeline.close()
        self.thread.join(SECONDS)
        assert not self.thread.is_alive()
        for asker in self.askers:
            asker.theirs.socket.close()
            asker.close()
        self.theirs.close()


@pytest.fixture
def serving() -> Iterator[Serving]:
    running = Serving()
    yield running
    running.close()


def test_each_channel_gets_its_own_answers_in_order(serving: Serving) -> None:
    for number in range(1, 4):
        for place, asker in enumerate(serving.askers):
            asker.ask(float(10 * place + number))
    for place, asker in enumerate(serving.askers):
        assert [asker.receive() for _ in range(3)] == [(n, [2.0 * (10 * place + n)]) for n in range(1, 4)]


def test_a_channel_with_many_frames_does_not_starve_another(serving: Serving) -> None:
    """Those that came later are each answered after at most one more of the many."""
    many, *others = serving.askers
    serving.hold(many)
    many.socket.sendall(b"".join(many.pack(float(value)) for value in range(100, 150)))
    for asker in others:
        asker.ask(7.0)
    serving.release_all()
    for asker in others:
        assert asker.receive() == (1, [14.0])
    assert [many.receive() for _ in range(51)][-1] == (51, [298.0])
    order = [batch[0] for batch in serving.model.batches]
    assert order[:4] in ([1.0, 100.0, 7.0, 7.0], [1.0, 7.0, 7.0, 100.0])


def test_more_frames_than_are_read_at_once_are_each_answered_once(serving: Serving) -> None:
    many, other, _ = serving.askers
    serving.hold(many)
    raw = b"".join(many.pack(*([float(value)] * 300)) for value in range(60))
    assert len(raw) > 2 * READ_AHEAD_BYTES
    many.socket.sendall(raw)
    other.ask(7.0)
    serving.release_all()
    assert other.receive() == (1, [14.0])
    assert many.receive() == (1, [2.0])
    for value in range(60):
        assert many.receive(300) == (value + 2, [2.0 * value] * 300)
    assert len(serving.model.batches) == 62


def test_a_channel_that_reads_nothing_gets_no_second_answer(serving: Serving) -> None:
    """What a process keeps for a channel is one request and one answer at most."""
    slow, other, _ = serving.askers
    slow.socket.sendall(slow.pack(WIDE) + slow.pack(5.0))
    for value in range(3):
        other.ask(float(value))
        assert other.receive()[1] == [2.0 * value]
    until(lambda: [WIDE] in serving.model.batches, "the large answer being computed")
    other.ask(4.0)
    assert other.receive()[1] == [8.0]
    assert [5.0] not in serving.model.batches
    assert slow.receive()[0] == 1
    assert slow.receive() == (2, [10.0])


def test_half_a_frame_delays_no_other_channel(serving: Serving) -> None:
    slow, other, _ = serving.askers
    raw = slow.pack(*map(float, range(50_000)))
    begun = 0
    for end in (1, PREFIX.size - 1, PREFIX.size, PREFIX.size + 3, 1000, len(raw) - 1):
        slow.socket.sendall(raw[begun:end])
        begun = end
        other.ask(float(end))
        assert other.receive()[1] == [2.0 * end]
    slow.socket.sendall(raw[begun:])
    assert slow.receive(50_000) == (1, [2.0 * value for value in range(50_000)])


@pytest.mark.parametrize("begun", [0, 1, PREFIX.size, PREFIX.size + 5])
def test_a_channel_that_ends_at_any_point_is_dropped(serving: Serving, begun: int) -> None:
    gone, other, _ = serving.askers
    gone.socket.sendall(gone.pack(1.0)[:begun])
    gone.socket.close()
    for value in range(3):
        other.ask(float(value))
        assert other.receive()[1] == [2.0 * value]
    until(lambda: len(serving.last_words.memories) == 2, "its being dropped")
    assert not hasattr(gone.theirs, "arena"), "its memory is given back"


def test_a_channel_that_ends_while_its_answer_is_computed_is_dropped(serving: Serving) -> None:
    gone, other, _ = serving.askers
    serving.hold(gone)
    gone.socket.close()
    other.ask(4.0)
    serving.release_all()
    assert other.receive() == (1, [8.0])
    until(lambda: len(serving.last_words.memories) == 2, "its being dropped")


def test_the_memory_of_a_channel_that_ended_is_given_back(serving: Serving) -> None:
    """Also where a part of it was the request under way."""
    gone, other, _ = serving.askers
    serving.model.is_patient = True
    gone.ask(*([5.0] * 100_000), in_arena=True)
    until(lambda: serving.model.batches, "the model computing")
    gone.close()
    serving.release_all()
    other.ask(4.0)
    assert other.receive() == (1, [8.0])
    until(lambda: not is_mapped(gone), "the end of its mapping")
    assert is_mapped(other)


def is_mapped(asker: Asker) -> bool:
    """Whether the arena of a channel is mapped into this process."""
    maps = (line.split() for line in Path("/proc/self/maps").read_text().splitlines())
    return any(fields[4] == asker.inode and fields[5].startswith("/memfd:") for fields in maps if len(fields) > 5)


def test_a_channel_that_reads_nothing_delays_no_other_and_gets_its_own_answer(serving: Serving) -> None:
    """The model gives the same memory with every answer: what has not been sent must not change."""
    slow, other, _ = serving.askers
    slow.ask(*([3.0] * LARGE_ROWS))
    other.ask(*([4.0] * LARGE_ROWS))
    assert other.receive(LARGE_ROWS) == (1, [8.0] * LARGE_ROWS)
    other.ask(5.0)
    assert other.receive() == (2, [10.0])
    assert slow.receive(LARGE_ROWS) == (1, [6.0] * LARGE_ROWS)
    slow.ask(6.0)
    assert slow.receive() == (2, [12.0])


def test_a_channel_that_reads_nothing_and_ends_is_dropped(serving: Serving) -> None:
    slow, other, _ = serving.askers
    slow.ask(*([3.0] * LARGE_ROWS))
    other.ask(4.0)
    assert other.receive() == (1, [8.0])
    slow.socket.close()
    until(lambda: len(serving.last_words.memories) == 2, "its being dropped")
    other.ask(5.0)
    assert other.receive() == (2, [10.0])


def test_requests_that_wait_are_computed_together(serving: Serving) -> None:
    first, second, third = serving.askers
    serving.hold(first)
    for asker, values in ((first, (2.0, 3.0)), (second, (4.0,)), (third, (5.0, 6.0))):
        asker.ask(*values, most_rows=5)
    serving.release_all()
    assert first.receive() == (1, [2.0])
    assert first.receive(2) == (2, [4.0, 6.0])
    assert second.receive() == (1, [8.0])
    assert third.receive(2) == (1, [10.0, 12.0])
    assert serving.model.batches == [[1.0], [2.0, 3.0, 4.0, 5.0, 6.0]]


def test_of_requests_computed_together_only_the_refused_one_is_refused(serving: Serving) -> None:
    first, second, third = serving.askers
    serving.hold(first)
    for asker, value in ((first, 2.0), (second, POISON), (third, 4.0)):
        asker.ask(value, most_rows=100)
    serving.release_all()
    assert first.receive() == (1, [2.0])
    assert first.receive() == (2, [4.0])
    assert second.receive() == (1, "poison")
    assert third.receive() == (1, [8.0])
    assert serving.model.batches == [[1.0], [2.0, POISON, 4.0], [2.0], [POISON], [4.0]]


@pytest.mark.parametrize(
    ("asked", "batches"),
    [
        ([((2.0,), {}), ((3.0,), {}), ((4.0,), {})], [[2.0], [3.0], [4.0]]),
        ([((2.0,), {"most_rows": 9}), ((3.0,), {}), ((4.0,), {"most_rows": 9})], [[2.0, 4.0], [3.0]]),
        ([((2.0, 3.0), {"most_rows": 3}), ((4.0, 5.0), {"most_rows": 9}), ((6.0,), {"most_rows": 9})],
         [[2.0, 3.0, 6.0], [4.0, 5.0]]),
        ([((2.0,), {"most_rows": 9}), ((3.0,), {"most_rows": 9, "method": "predict_proba"}),
          ((4.0,), {"most_rows": 9})], [[2.0, 4.0], [3.0]]),
        ([((2.0,), {"most_rows": 9}), (("a",), {"most_rows": 9}), (("b",), {"most_rows": 9})], [[2.0], ["a", "b"]]),
        ([((2.0,), {"most_rows": 9}), ((3,), {"most_rows": 9}), ((4.0,), {"most_rows": 9})], [[2.0, 4.0], [3]]),
    ],
    ids=["nobody allows it", "one does not", "too many rows", "another method", "another layout", "another dtype"],
)  # fmt: skip
def test_what_may_not_be_computed_together_is_not(serving: Serving, asked: list[Any], batches: list[Any]) -> None:
    serving.hold(serving.askers[0])
    for asker, (values, options) in zip(serving.askers, asked, strict=True):
        asker.ask(*values, **options)
    serving.release_all()
    assert serving.askers[0].receive() == (1, [2.0])
    for asker, (values, _) in zip(serving.askers, asked, strict=True):
        assert asker.receive(len(values))[1] == [value * 2 for value in values]
    assert serving.model.batches[1:] == batches


def test_a_request_is_noted_while_it_is_computed_alone(serving: Serving) -> None:
    """When the process dies, those that only waited are not at fault, and no one of several computed together."""
    first, second, third = serving.askers
    serving.hold(first)
    second.ask(3.0, most_rows=9)
    third.ask(4.0, most_rows=9)
    assert [read_noted_request(asker.arena) for asker in serving.askers] == [1, 0, 0]
    serving.release()
    until(lambda: len(serving.model.batches) == 2, "the next batch being computed")
    assert serving.model.batches[1] == [3.0, 4.0]
    assert [read_noted_request(asker.arena) for asker in serving.askers] == [1, 0, 0]
    assert first.receive() == (1, [2.0])


def test_the_end_of_the_lifeline_ends_serving(serving: Serving) -> None:
    serving.lifeline.close()
    assert serving.outcome.get(timeout=SECONDS) is True


def test_a_frame_over_the_lifeline_is_an_error(serving: Serving) -> None:
    send_frame(serving.lifeline, FrameKind.PREDICT, 1, b"{}")
    assert "lifeline" in str(serving.outcome.get(timeout=SECONDS))


def test_the_end_of_every_channel_ends_serving(serving: Serving) -> None:
    for asker in serving.askers:
        assert serving.outcome.empty()
        asker.socket.close()
    assert serving.outcome.get(timeout=SECONDS) is False


@pytest.mark.parametrize("raw", [b"\0" * PREFIX.size, pack_prefix(FrameKind.LOAD, 0, 2, 0) + b"{}",
                                 pack_prefix(FrameKind.PREDICT, 1, 2, 0) + b"{}",
                                 pack_prefix(FrameKind.PREDICT, 1, 2, 1 << 31, in_arena=True) + b"{}"],
                         ids=["no frame", "another kind", "no header", "beyond the arena"])  # fmt: skip
def test_a_channel_with_what_is_no_request_is_dropped(serving: Serving, raw: bytes) -> None:
    wrong, other, _ = serving.askers
    wrong.socket.sendall(raw)
    assert wrong.socket.recv(1) == b""
    other.ask(4.0)
    assert other.receive() == (1, [8.0])


def test_last_words_are_left_in_every_channel_that_is_there(serving: Serving) -> None:
    gone, *others = serving.askers
    gone.socket.close()
    until(lambda: len(serving.last_words.memories) == 2, "its being dropped")
    serving.last_words.write("no memory", FAILED)
    assert read_last_words(gone.arena, FAILED) is None
    for asker in others:
        assert read_last_words(asker.arena, FAILED) == "the process failed (no memory)"
