"""One host for several processes of the server: real hosts and replicas, each slot used over its own sockets."""

from __future__ import annotations

import contextlib
import gc
import mmap
import os
import select
import socket
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import psutil
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier

from serving import sandbox
from serving.domain.artifact import Artifact, StagedFile
from serving.domain.errors import HostFailed
from serving.domain.last_words import FAILED, read_last_words
from serving.domain.version import Format, VersionId
from serving.hosting import zygote_process
from serving.hosting.evaluating import evaluate_candidate
from serving.hosting.host_process import HostProcess, Slot
from serving.hosting.zygote import Zygote
from serving.lifecycle.evaluation_request import evaluation_request
from serving.rows.batch import Batch
from serving.settings import Settings
from serving.wire.frames import ARENA_BYTES, FrameKind, pack_prefix
from serving.wire.payloads import decode_answer, encode_batch
from serving.wire.stream import receive_frame, send_frame
from serving.wire.zygote_messages import MOST_CHANNELS, MOST_DESCRIPTORS, count_descriptors
from tests.e2e.harness import MATERIAL, PECULIAR, constant, peculiar, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has several processes of a server")
Start = Callable[..., HostProcess]
TIMEOUT = 30.0
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(200, 2))
MANY_ROWS = 3000


@pytest.fixture(scope="module")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    """Start a zygote for all tests of this file."""
    path = os.pathsep.join([str(MATERIAL), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    zygote = Zygote(sandbox.scrub_environment({**os.environ, "PYTHONPATH": path}), tmp_path_factory.mktemp("scratch"))
    yield zygote
    zygote.stop()


@pytest.fixture
def start(zygote: Zygote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Start a host that serves a model."""
    monkeypatch.setattr(zygote_process, "EXIT_SECONDS", TIMEOUT)  # the zygote has its time to say how a host ended
    started: list[HostProcess] = []

    def make(estimator: Any, slots: int, replicas: int = 1) -> HostProcess:
        path = tmp_path / "model.joblib"
        joblib.dump(estimator, path)
        file = StagedFile("model.joblib", "00", path.stat().st_size, path)
        artifact = Artifact(VersionId("m", "1", "sha256:00"), Format.JOBLIB, file, (file,), quiet_seconds=1)
        host = zygote.spawn(replicas, slots)
        started.append(host)
        settings = Settings.model_validate({"engine": {"compile": "off"}, "security": {"pickle_trusted": PECULIAR}})
        evaluation = evaluate_candidate(host, evaluation_request(artifact, settings), 60)
        assert evaluation.report.refusal is None
        return host

    yield make
    for host in started:
        end(host)


def end(host: HostProcess) -> None:
    """Close a host and wait until its process is gone, and the descriptor of that process with it."""
    host.close()
    host.exited.result(20)


def count_descriptors_here() -> int:
    """How many descriptors this process has open, without those that nothing holds any more."""
    gc.collect()
    return psutil.Process().num_fds()


class Worker:
    """What a process of the server has of a slot: a socket and an arena for each process that answers."""

    def __init__(self, slot: Slot) -> None:
        self.arenas = [mmap.mmap(arena_fd, ARENA_BYTES) for _, arena_fd in slot]
        self.sockets = [sock for sock, _ in slot]
        self.asked = [0] * len(slot)
        for sock, arena_fd in slot:
            os.close(arena_fd)
            sock.settimeout(TIMEOUT)

    def ask(self, rows: Any, method: str = "predict", replica: int = 0, most_rows: int = 0) -> None:
        """Ask one of the processes; a large request goes through the arena."""
        batch = Batch(len(rows), matrix=np.ascontiguousarray(rows, np.float64))
        header, buffers = encode_batch(method, batch)
        payload = b"".join(buffers)
        self.asked[replica] += 1
        is_large = len(payload) > 1 << 18
        head = pack_prefix(
            FrameKind.PREDICT,
            self.asked[replica],
            len(header),
            len(payload),
            in_arena=is_large,
            most_rows=most_rows,
        )
        if is_large:
            self.arenas[replica][: len(payload)] = payload
        self.sockets[replica].sendall(head + header + (b"" if is_large else payload))

    def receive(self, rows: int = 1, replica: int = 0) -> Any:
        """Return the answer to the last request."""
        frame = receive_frame(self.sockets[replica])
        assert frame is not None
        assert (frame.kind, frame.request_id) == (FrameKind.PREDICTION, self.asked[replica])
        return decode_answer(frame.header, frame.payload, rows).tensors[0]

    def close(self) -> None:
        """End, as the process of this slot does when it is killed."""
        for sock in self.sockets:
            sock.close()
        for arena in self.arenas:
            arena.close()


def take_workers(host: HostProcess) -> list[Worker]:
    """Use every slot of a host."""
    slots = []
    while (slot := host.take_slot()) is not None:
        slots.append(slot)
    return [Worker(slot) for slot in slots]


def has_ended(sock: socket.socket) -> bool:
    """Whether the other end is gone; it may not have read everything."""
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True


def end_workers(workers: list[Worker]) -> None:
    """Close every slot."""
    for worker in workers:
        worker.close()


def test_every_slot_is_answered_by_the_host_and_its_replicas(start: Start) -> None:
    host = start(constant(0, peculiar.Echo), slots=3, replicas=3)
    replica, other = sorted(psutil.Process(host.pid).children(), key=lambda child: child.pid)
    pids = (host.pid, replica.pid, other.pid)
    until(lambda: [*map(count_sockets, pids)] == [4, 3, 3], "each having its own sockets and no others")
    workers = take_workers(host)
    assert len(workers) == 3
    for worker in workers:
        worker.ask([[0.0, 0.0]], replica=0)
        worker.ask([[0.0, 0.0]], replica=1)
    for worker in workers:
        assert worker.receive(replica=0)[0] == host.pid
        assert worker.receive(replica=1)[0] == replica.pid
    end_workers(workers)


def test_the_first_slot_is_that_of_this_process_and_is_handed_out_last(start: Start) -> None:
    host = start(constant(4.0), slots=2)
    (sock, _) = host.channels[0]
    other = Worker(host.take_slot() or ())
    header, buffers = encode_batch("predict", Batch(1, matrix=np.zeros((1, 2))))
    send_frame(sock, FrameKind.PREDICT, 1, header, buffers)
    other.ask([[0.0, 0.0]])
    frame = receive_frame(sock)
    assert frame is not None
    assert frame.kind is FrameKind.PREDICTION
    assert other.receive()[0] == 4.0
    first = host.take_slot()
    assert first is not None
    assert first[0][0] is sock
    assert host.channels == ()
    assert host.take_slot() is None
    end_workers([other, Worker(first)])


def test_slots_that_were_not_taken_are_closed_with_the_host(start: Start) -> None:
    host = start(constant(4.0), slots=3)
    before = count_descriptors_here()
    taken = host.take_slot()
    end(host)
    assert host.take_slot() is None
    own = 2 * 2 + 1 + 2 + 1  # two slots with two descriptors each; the map of the first; lifeline, its map; the process
    assert count_descriptors_here() == before - own
    end_workers([Worker(taken or ())])


def test_many_ask_at_once_and_each_gets_its_own_answers(start: Start) -> None:
    """Small and large requests, together with others and alone; as the estimator itself answers."""
    labels = (X[:, 0] > 0).astype(int)
    estimator = HistGradientBoostingClassifier(max_iter=5).fit(X, labels)
    host = start(estimator, slots=4)
    workers = take_workers(host)

    def use(place: int) -> None:
        worker, random = workers[place], np.random.default_rng(place)
        for turn in range(60):
            rows = random.normal(size=(20_000 if turn == 30 else int(random.integers(1, 6)), 2))
            worker.ask(rows, "predict_proba", most_rows=0 if turn % 5 == 4 else 1024)
            np.testing.assert_array_equal(worker.receive(len(rows)), estimator.predict_proba(rows))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(use, range(4)))
    end_workers(workers)


def test_a_slow_model_answers_slots_in_turn(start: Start) -> None:
    """Whoever asks for a lot waits for it, and others do not: the last request of the first one takes ten minutes."""
    host = start(constant(4.0, peculiar.Slow), slots=2)
    greedy, modest = take_workers(host)
    process = psutil.Process(host.pid)
    process.suspend()
    until(lambda: process.status() == psutil.STATUS_STOPPED, "its being stopped: so it will read all of them at once")
    for turn in range(30):
        greedy.ask([[0.25 if turn < 29 else 600.0, 77.0]])
    process.resume()
    until(lambda: select.select(greedy.sockets, [], [], 0)[0], "the first answer")
    modest.ask([[0.0, 0.0]])
    assert modest.receive()[0] == 4.0
    end_workers([greedy, modest])


def test_workers_may_end_at_any_point(start: Start) -> None:
    """In the middle of a frame, and while their request is computed; the others never notice."""
    host = start(constant(4.0, peculiar.Slow), slots=4, replicas=2)
    first, second, third, last = take_workers(host)
    for replica in range(2):
        first.sockets[replica].sendall(pack_prefix(FrameKind.PREDICT, 1, 1000, 1 << 20) + b"{")
        second.ask([[0.2, 77.0]], replica=replica)
        third.ask(np.zeros((MANY_ROWS, 2)), replica=replica)
    end_workers([first, second, third])
    for replica in range(2):
        last.ask([[0.0, 0.0]], replica=replica)
        assert last.receive(replica=replica)[0] == 4.0
    until(lambda: count_sockets(host.pid) == 2, "only the last channel and the lifeline being there")
    (child,) = psutil.Process(host.pid).children()
    until(lambda: count_sockets(child.pid) == 1, "only the last channel being there")
    until(lambda: count_arenas(host.pid) == 2, "only that of the last channel, and the end of that of the lifeline")
    last.close()


def count_sockets(pid: int) -> int:
    """How many sockets a process has open."""
    count = 0
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it is being closed
            count += str(entry.readlink()).startswith("socket:")
    return count


def count_arenas(pid: int) -> int:
    """How many pieces of arenas a process has mapped."""
    return Path(f"/proc/{pid}/maps").read_text().count("serving-arena")


@pytest.mark.parametrize("replicas", [1, 3])
def test_the_end_of_the_lifeline_ends_everything(start: Start, replicas: int) -> None:
    """The server's first process is gone, and its workers are not yet: no host outlives it."""
    host = start(constant(4.0, peculiar.Slow), slots=2, replicas=replicas)
    children = psutil.Process(host.pid).children()
    assert len(children) == replicas - 1
    workers = take_workers(host)
    for replica in range(1, replicas):
        workers[0].ask([[600.0, 77.0]], replica=replica)
    host.socket.shutdown(socket.SHUT_RDWR)
    assert host.exited.result(20) == 0
    until(lambda: not any(child.is_running() for child in children), "the end of the replicas")
    for worker in workers:
        assert all(has_ended(sock) for sock in worker.sockets)
    end_workers(workers)


def test_a_host_stays_while_a_slot_is_left_and_ends_with_the_last(start: Start) -> None:
    host = start(constant(4.0), slots=2, replicas=2)
    first = Worker(host.take_slot() or ())
    first.close()
    until(lambda: count_sockets(host.pid) == 2, "its channel being dropped")
    second = Worker(host.take_slot() or ())
    for replica in range(2):
        second.ask([[0.0, 0.0]], replica=replica)
        assert second.receive(replica=replica)[0] == 4.0
    assert not host.exited.done()
    second.close()
    assert host.exited.result(20) == 0, "nobody can ask it any more"


def test_last_words_are_left_for_every_worker(start: Start) -> None:
    host = start(constant(4.0), slots=3)
    workers = take_workers(host)
    send_frame(host.socket, FrameKind.PREDICT, 1, b"{}")
    assert host.exited.result(20) == FAILED
    words = "the process failed (ProtocolError: a frame came over the lifeline of a serving host)"
    assert host.read_last_words() == words
    for worker in workers:
        assert read_last_words(worker.arenas[0], FAILED) == words
    end_workers(workers)


def test_more_descriptors_than_one_message_takes_reach_a_host(start: Start) -> None:
    slots = MOST_CHANNELS // 3
    assert count_descriptors(3, slots) > MOST_DESCRIPTORS
    host = start(constant(0, peculiar.Echo), slots=slots, replicas=3)
    workers = take_workers(host)
    assert len(workers) == slots
    for worker in (workers[0], workers[slots // 2], workers[-1]):
        for replica in range(3):
            worker.ask([[0.0, 0.0]], replica=replica)
        assert len({worker.receive(replica=replica)[0] for replica in range(3)}) == 3
    end_workers(workers)


def test_more_channels_than_a_host_can_have_are_refused(zygote: Zygote) -> None:
    with pytest.raises(HostFailed, match="2 replicas with 97 channels each, at most 192 are possible"):
        zygote.spawn(2, 97)


def test_a_host_whose_descriptors_do_not_all_arrive_is_not_started(
    zygote: Zygote, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel drops what the zygote may not open."""
    real = socket.send_fds
    monkeypatch.setattr(socket, "send_fds", lambda sock, raw, fds: real(sock, raw, fds[:-1] if len(fds) > 4 else fds))
    with pytest.raises(HostFailed, match="Too many open files"):
        zygote.spawn(2, 2)
    end(zygote.spawn())


def test_descriptors_that_cannot_be_had_are_said_and_leave_nothing(
    zygote: Zygote, monkeypatch: pytest.MonkeyPatch
) -> None:
    end(zygote.spawn())
    before = count_descriptors_here()
    made = []

    def make(*_: Any) -> tuple[socket.socket, socket.socket]:
        if len(made) == 3:
            raise OSError(24, "Too many open files")
        made.append(None)
        return real()

    real = socket.socketpair
    monkeypatch.setattr(socket, "socketpair", make)
    with pytest.raises(HostFailed, match="no host could be started: Too many open files"):
        zygote.spawn(2, 4)
    assert count_descriptors_here() == before
