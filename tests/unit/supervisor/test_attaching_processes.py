"""Processes that attach to control: what they are told first, what is refused, and what is left of those that end."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from serving import __version__
from serving.settings import Settings, dump_shared, make_shared
from serving.supervisor.attached_workers import AttachedWorkers
from serving.supervisor.status_board import StatusBoard
from serving.supervisor.worker_link import WorkerLink
from serving.telemetry.count_sheet import CountSheet
from serving.wire.control_socket import (
    Admission,
    Hello,
    Peer,
    connect_to_control,
    listen_for_processes,
    receive_admission,
    send_greeting,
)
from serving.wire.shared_words import make_words
from serving.wire.worker_channel import Received, WorkerChannel
from serving.wire.worker_messages import TYPES, StatusChange
from tests.e2e.harness import until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="several processes need Linux")


class Metrics:
    """Notes which workers are counted; `before_end` is called before one is counted no more."""

    def __init__(self) -> None:
        self.counted: dict[int, CountSheet] = {}
        self.before_end = lambda: None

    def start_worker(self, index: int, sheet: CountSheet, pid: int) -> None:
        assert pid
        assert index not in self.counted, "the one before is counted no more"
        self.counted[index] = sheet

    def end_worker(self, index: int, cpu_seconds: float) -> None:
        assert cpu_seconds == 0.0
        self.before_end()
        self.counted.pop(index).close()

    def requests_by_worker(self) -> dict[int, int]:
        return {}


class Control:
    """As much of control as attaching needs; every process that attaches serves at once."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.settings = make_shared(Settings(store={"path": directory}, state={"path": directory}))
        self.metrics = Metrics()
        self.board = StatusBoard(self._publish)
        self.planes = SimpleNamespace(add=lambda _: None, remove=lambda _: None)
        self.greeted = lambda: None
        self.listener = listen_for_processes(directory)
        self._children: list[subprocess.Popen[bytes]] = []
        self.workers = AttachedWorkers(self, self.settings, self.listener, make_words("test"))  # type: ignore[arg-type]
        self.workers.start()

    def _publish(self, change: StatusChange) -> None:
        for link in self.workers.list_links():
            link.channel.send(change)

    def greet(self, link: WorkerLink) -> None:
        self.board.show(link.channel.send)
        self.greeted()

    def tell(self) -> None:
        """Nobody is told anything."""

    def take(self, link: WorkerLink, received: Received) -> None:
        """Nobody asks anything."""

    def end_link(self, link: WorkerLink) -> None:
        """Nothing was under way."""

    def start_child(self) -> subprocess.Popen[bytes]:
        """Start a process that attaches, as far as control can tell."""
        child = subprocess.Popen(["sleep", "60"])
        self._children.append(child)
        return child

    def end_child(self, index: int) -> None:
        self._children[index].kill()

    def connect(self, counts: int, settings: dict[str, str] | None = None) -> socket.socket:
        sock = connect_to_control(self.directory)
        assert sock is not None
        sock.settimeout(20)
        send_greeting(sock, Hello(__version__, settings or dump_shared(self.settings)), [counts])
        return sock

    def close(self) -> None:
        for child in self._children:
            child.kill()
            child.wait()
        until(lambda: not self.workers.list_status(), "the end of all")


def greeting(sock: socket.socket) -> Admission | None:
    received = receive_admission(sock)
    if received is None:
        return None
    for fd in received[1]:
        os.close(fd)
    return received[0]


@pytest.fixture
def control(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Control]:
    found = Control(tmp_path)
    open_pidfd = os.pidfd_open
    monkeypatch.setattr(os, "pidfd_open", lambda _: open_pidfd(found.start_child().pid))
    yield found
    found.close()


def test_a_change_of_the_status_right_after_the_first_one_reaches_a_process(control: Control) -> None:
    """A change that is told to nobody would be missed for ever: each tells only what has changed."""
    control.greeted = lambda: control.board.tell_problem("something")
    seen: list[StatusChange] = []
    sheet = CountSheet.create()
    sock = control.connect(sheet.fd)
    assert greeting(sock) == Admission(0)
    sock.settimeout(None)
    channel = WorkerChannel(sock, TYPES, lambda received: seen.append(received.message))
    channel.start()
    until(lambda: [one.worker_problem for one in seen] == [None, "something"], "both changes")
    channel.close()
    sheet.close()


def test_memory_that_could_be_made_smaller_is_refused(control: Control) -> None:
    """Control reads it, and would be killed by the system where it ends."""
    unsealed = os.memfd_create("counts")
    os.ftruncate(unsealed, 4 << 20)
    small = CountSheet.create(records=1)
    for fd in (unsealed, small.fd, sys.stderr.fileno()):
        with control.connect(fd) as sock:
            refused = greeting(sock)
            assert refused is not None
            assert refused.refusal == "the memory in which this process counts is missing, or could be made smaller"
    os.close(unsealed)
    small.close()
    assert control.workers.list_status() == ()


def test_other_users_are_told_nothing_about_the_settings(control: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Peer, "is_trusted", False)
    sheet = CountSheet.create()
    with control.connect(sheet.fd, {"store.path": "another"}) as sock:
        assert greeting(sock) == Admission(refusal="this process is another user's")
    assert not control.workers.close_if_empty(60.0), "nor do they end a control that waits for its processes"
    sheet.close()


def test_an_index_is_free_when_the_process_before_is_counted_no_more(control: Control) -> None:
    """Otherwise the counts of the process that gets it would be closed in the place of the others."""
    first, second = CountSheet.create(), CountSheet.create()
    ending, may_end = threading.Event(), threading.Event()

    def hold() -> None:
        ending.set()
        may_end.wait(20)

    with control.connect(first.fd) as sock:
        assert greeting(sock) == Admission(0)
    control.metrics.before_end = hold
    control.end_child(0)
    assert ending.wait(20)
    with control.connect(second.fd) as sock:
        assert greeting(sock) == Admission(1)
    may_end.set()
    until(lambda: list(control.metrics.counted) == [1], "the end of the first one only")
    for sheet in (first, second):
        sheet.close()


def test_a_process_that_cannot_be_taken_now_attaches_again(control: Control) -> None:
    def fail() -> None:
        control.greeted = lambda: None
        raise OSError("no descriptors")

    control.greeted = fail
    sheet = CountSheet.create()
    with control.connect(sheet.fd) as sock:
        assert greeting(sock) == Admission(0)
        assert sock.recv(1 << 16) == b"", "the connection has ended"
    with control.connect(sheet.fd) as sock:
        assert greeting(sock) == Admission(0)
        assert sock.recv(1 << 16) != b"", "the status"
    sheet.close()
