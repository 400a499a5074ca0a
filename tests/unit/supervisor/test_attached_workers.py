"""Which processes may attach to control, and when it ends. The process that attaches is that of the tests."""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from serving import __version__
from serving.settings import Settings, dump_shared, make_shared
from serving.supervisor.attached_workers import AttachedWorkers
from serving.telemetry.count_sheet import CountSheet
from serving.telemetry.service_metrics import ServiceMetrics
from serving.wire.control_socket import (
    Admission,
    Hello,
    connect_to_control,
    listen_for_processes,
    receive_admission,
    send_greeting,
)
from serving.wire.shared_words import make_words
from tests.e2e.harness import until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="several processes need Linux")

SETTINGS = make_shared(Settings())
SAME = Hello(__version__, dump_shared(SETTINGS))
OTHER = Hello(__version__, SAME.settings | {"store.settle_seconds": "9.0"})
NEWER = Hello("9.0", SAME.settings, wire=SAME.wire + 1)


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[AttachedWorkers]:
    planes = SimpleNamespace(add=lambda _: None, remove=lambda _: None)
    control: Any = SimpleNamespace(
        metrics=ServiceMetrics("0"),
        tell=lambda: None,
        greet=lambda _: None,
        take=lambda *_: None,
        planes=planes,
        end_link=lambda _: None,
    )
    with listen_for_processes(tmp_path) as listener:
        workers = AttachedWorkers(control, SETTINGS, listener, make_words("test"))
        workers.start()
        yield workers


@contextlib.contextmanager
def greeting(directory: Path, hello: Hello, sheet: CountSheet) -> Iterator[tuple[Admission | None, socket.socket]]:
    """Say hello and yield what control answers, None when it closes the connection."""
    sock = connect_to_control(directory)
    assert sock is not None
    with sock:
        sock.settimeout(20)
        send_greeting(sock, hello, [sheet.fd])
        received = receive_admission(sock)
        yield None if received is None else received[0], sock


@pytest.fixture
def sheet() -> Iterator[CountSheet]:
    sheet = CountSheet.create()
    yield sheet
    sheet.close()


def test_a_process_of_the_same_kind_attaches_and_keeps_its_index(
    workers: AttachedWorkers, sheet: CountSheet, tmp_path: Path
) -> None:
    with greeting(tmp_path, SAME, sheet) as (admission, _):
        assert admission == Admission(0)
        until(lambda: len(workers.list_links()) == 1, "a link")
        assert not workers.close_if_empty(0.0)
    until(lambda: not workers.list_links(), "the end of the link")
    with greeting(tmp_path, SAME, sheet) as (admission, _):
        assert admission == Admission(0), "it is known by the memory in which it counts"
        assert [one.index for one in workers.list_status()] == [0]


@pytest.mark.parametrize(
    ("hello", "reason"),
    [
        (OTHER, "store.settle_seconds is 9.0 in this process and 0.5 in the others"),
        (NEWER, "this process runs release 9.0 of serving"),
    ],
    ids=["settings", "release"],
)
def test_another_kind_is_refused_while_there_are_processes(
    hello: Hello, reason: str, workers: AttachedWorkers, sheet: CountSheet, tmp_path: Path
) -> None:
    other = CountSheet.create()
    with greeting(tmp_path, SAME, sheet), greeting(tmp_path, hello, other) as (admission, _):
        assert admission is not None
        assert admission.refusal is not None
        assert reason in admission.refusal
    assert not workers.close_if_empty(0.0)
    other.close()


@pytest.mark.parametrize("hello", [OTHER, NEWER], ids=["settings", "release"])
def test_control_without_processes_makes_room_for_another_kind(
    hello: Hello, workers: AttachedWorkers, sheet: CountSheet, tmp_path: Path
) -> None:
    """A manager has ended all processes, and starts them again with other settings, or after an update."""
    with greeting(tmp_path, hello, sheet) as (admission, _):
        assert admission is None
    assert workers.close_if_empty(99.0), "it has to end now, without lingering"
    with greeting(tmp_path, SAME, sheet) as (admission, _):
        assert admission is None, "it takes none any more"


def test_processes_are_told_why_control_cannot_start(
    workers: AttachedWorkers, sheet: CountSheet, tmp_path: Path
) -> None:
    workers.refuse("the disk is on fire")
    with greeting(tmp_path, SAME, sheet) as (admission, _):
        assert admission == Admission(refusal="the disk is on fire")
