"""A worker's link to control: in which order it does what it is told, and that it ends when it cannot."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from serving.domain.plan import Draining, Load, Loaded, Route, Unload
from serving.plane.active_reference import ActiveReference, ModelReference, read
from serving.plane.fair_turns import make_turns
from serving.settings import ReplaySettings
from serving.telemetry.metrics import Metrics
from serving.wire.shared_words import make_words, map_words
from serving.wire.worker_channel import Received, WorkerChannel
from serving.wire.worker_messages import TYPES, Leaving, LoadOrder, PrepareOrder, Sync
from serving.worker import remote_control
from serving.worker.remote_control import ORDER_FAILED, SUPERVISOR_GONE, RemoteControl
from tests.unit.supervisor.fake_workers import key_of, load_of

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="several workers need Linux")

ROOT = Path(__file__).parents[3]


class SlowPlane:
    """A plane whose loads wait until they may go on; notes what it does."""

    may_load: threading.Event
    done: list[str]

    def __init__(self, *_: Any, takes_over: bool, replay: ReplaySettings) -> None:
        assert not takes_over
        type(self).may_load, type(self).done = threading.Event(), []

    def load(self, command: Load, process: object = None) -> Loaded:
        assert process is None
        self.may_load.wait(20)
        self.done.append(f"loaded {command.key.version}")
        return Loaded(command.key)

    def unload(self, command: Unload) -> Draining:
        self.done.append(f"unloaded {command.key.version}")
        return Draining(command.key, 0)


def with_control(
    monkeypatch: pytest.MonkeyPatch, scene: Callable[[RemoteControl, WorkerChannel, list[Any]], None]
) -> None:
    """Run a scene in a thread, with a worker's control and the supervisor's end of its channel."""
    monkeypatch.setattr(remote_control, "Plane", SlowPlane)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    fd = make_words("test")
    told: list[Any] = []

    def note(received: Received) -> None:
        told.append(received.message)

    async def run() -> None:
        turns = make_turns()
        control = RemoteControl(SimpleNamespace(), theirs, map_words(fd), turns, Metrics("0"))  # type: ignore[arg-type]
        ended = threading.Event()
        supervisor = WorkerChannel(ours, TYPES, note, ended.set)
        supervisor.start()
        control.start()
        await asyncio.to_thread(scene, control, supervisor, told)
        control.stop()
        await asyncio.to_thread(ended.wait, 20)
        turns.executor.shutdown()

    asyncio.run(run())
    os.close(fd)


def test_a_version_is_unloaded_after_it_was_loaded_and_loaded_again_after_that(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that starts may be told to unload what it has not loaded yet."""

    def scene(_: RemoteControl, supervisor: WorkerChannel, told: list[Any]) -> None:
        first = supervisor.ask(LoadOrder.of(load_of(1)))
        supervisor.send(Unload(key_of(1)))
        again = supervisor.ask(LoadOrder.of(load_of(1)))
        supervisor.ask(Sync()).result(20)
        assert SlowPlane.done == []
        SlowPlane.may_load.set()
        for answer in (first, again):
            assert answer.result(20) == Loaded(key_of(1))
        assert SlowPlane.done == ["loaded 1", "unloaded 1", "loaded 1"]
        assert told == []

    with_control(monkeypatch, scene)


def test_a_worker_that_is_asked_to_end_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def scene(control: RemoteControl, supervisor: WorkerChannel, told: list[Any]) -> None:
        control.announce_stop()
        while not told:
            supervisor.ask(Sync()).result(20)
        assert told == [Leaving()]

    with_control(monkeypatch, scene)


def test_a_worker_that_cannot_do_what_it_is_told_ends() -> None:
    done = subprocess.run(
        [sys.executable, "-c", UNABLE], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == ORDER_FAILED, done.stderr
    assert "order_failed" in done.stdout


UNABLE = """
import asyncio, socket, types
from serving.domain.plan import Plan, Route
from serving.plane.fair_turns import make_turns
from serving.settings import ReplaySettings
from serving.telemetry.metrics import Metrics
from serving.wire.shared_words import make_words, map_words
from serving.wire.worker_channel import WorkerChannel
from serving.wire.worker_messages import TYPES, PrepareOrder
from serving.worker.remote_control import RemoteControl
from tests.unit.supervisor.fake_workers import key_of, prepare_of

async def run():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    words = map_words(make_words("test"))
    control = RemoteControl(types.SimpleNamespace(), theirs, words, make_turns(), Metrics("0"))
    control.start()
    supervisor = WorkerChannel(ours, TYPES, print)
    supervisor.start()
    supervisor.send(PrepareOrder.of(prepare_of(1, 7).plan))
    await asyncio.sleep(60)

asyncio.run(run())
"""


def test_a_process_that_goes_on_closes_the_channel_when_it_cannot_do_what_it_is_told() -> None:
    """In somebody's own application nothing ends the process: it attaches again."""

    async def run() -> list[int]:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        fd, given_up, ended = make_words("test"), list[int](), threading.Event()
        turns = make_turns()
        state: Any = SimpleNamespace()
        control = RemoteControl(state, theirs, map_words(fd), turns, Metrics("0"), given_up.append)
        supervisor = WorkerChannel(ours, TYPES, lambda _: None, ended.set)
        supervisor.start()
        control.start()
        supervisor.send(PrepareOrder(1, {"m": Route(key_of(1), (key_of(1),))}))  # which is not loaded
        await control.wait_until_lost()
        assert control.settle(), "what answered before answers"
        await asyncio.to_thread(ended.wait, 20)
        control.stop()
        turns.executor.shutdown()
        os.close(fd)
        return given_up

    assert asyncio.run(run()) == [ORDER_FAILED, SUPERVISOR_GONE]


def test_what_was_committed_at_the_loss_of_control_answers_though_it_was_never_told() -> None:
    """Another control may commit, and die before this process hears of it."""

    async def run() -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        fd, turns = make_words("test"), make_turns()
        words = map_words(fd, writes=True)
        before = ActiveReference({"before": ModelReference()}, committed=words)
        state: Any = SimpleNamespace(active=before, prepared=before)
        control = RemoteControl(state, theirs, words, turns, Metrics("0"), lambda _: None, takes_over=True)
        supervisor = WorkerChannel(ours, TYPES, lambda _: None)
        supervisor.start()
        control.start()
        await asyncio.wrap_future(supervisor.ask(PrepareOrder(1, {"m": Route(None, ())})))
        words[0] = 1
        supervisor.close()
        await control.wait_until_lost()
        assert control.settle(), "what was loaded here answers"
        assert "m" in read(state).models
        control.stop()
        turns.executor.shutdown()
        os.close(fd)

    asyncio.run(run())
