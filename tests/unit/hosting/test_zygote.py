"""The server's side of a zygote: its end, its replacement, and the scratch directories of its hosts."""

from __future__ import annotations

import errno
import os
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from structlog.testing import capture_logs

from serving import sandbox
from serving.domain.errors import HostFailed
from serving.domain.last_words import FAILED
from serving.host import forkserver
from serving.hosting import zygote_process
from serving.hosting.zygote import HostProcess, Zygote
from serving.wire.frames import FrameKind
from serving.wire.stream import send_frame
from serving.wire.zygote_messages import EVENT, Op
from tests.e2e.harness import is_alive, until

ROUNDS = 8


def find_children() -> set[psutil.Process]:
    """The children of this process, zombies included. Not by command line: a child has its own only after exec."""
    return set(psutil.Process().children())


def test_a_killed_zygote_leaves_no_zombie(tmp_path: Path) -> None:
    """Its socket ends before the process does: the server has to wait for the process."""
    zygote = Zygote(sandbox.scrub_environment(os.environ), tmp_path / "scratch")
    before = find_children()
    for _ in range(ROUNDS):
        zygote.start()
        (process,) = find_children() - before
        process.kill()
        until(lambda: find_children() <= before, "the end of the zygote")
    zygote.stop()


def test_a_zygote_killed_before_it_starts_a_host_costs_nothing(tmp_path: Path) -> None:
    """The server may notice the end of a host first, and then asks a zygote that is about to end for another one."""
    zygote = Zygote(sandbox.scrub_environment(os.environ), tmp_path / "scratch")
    before = find_children()
    zygote.start()
    first = zygote.spawn()
    (process,) = find_children() - before
    process.suspend()
    with ThreadPoolExecutor(1) as pool:
        spawning = pool.submit(zygote.spawn)
        until(lambda: len(list((tmp_path / "scratch").iterdir())) == 2, "its being asked")
        process.kill()
        second = spawning.result()
    assert psutil.pid_exists(second.pid)
    zygote.stop()
    first.close()
    second.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    running = Zygote(sandbox.scrub_environment(os.environ), tmp_path_factory.mktemp("shared") / "scratch")
    before = find_children()
    running.start()
    yield running
    running.stop()
    assert find_children() <= before, "a zygote is left"


@pytest.fixture
def zygote(shared: Zygote) -> Iterator[Zygote]:
    """A zygote that earlier tests may have used: the first host of a test may replace a process that they stopped."""
    before = find_children()
    yield shared
    until(lambda: len(find_children()) <= len(before), "the end of every process but the one that starts hosts now")


def find_zygote(host: HostProcess) -> psutil.Process:
    parent = psutil.Process(host.pid).parent()
    assert parent is not None
    return parent


def list_threads(process: psutil.Process) -> list[str]:
    return [(task / "comm").read_text().strip() for task in Path(f"/proc/{process.pid}/task").iterdir()]


def test_a_zygote_and_what_it_forks_have_one_thread(zygote: Zygote) -> None:
    """Some libraries start threads when they are imported: a lock that such a thread holds stays locked in a host."""
    host = zygote.spawn()
    assert len(list_threads(find_zygote(host))) == 1, list_threads(find_zygote(host))
    host.close()


ANOTHER_THREAD = """
import ctypes, threading

def wait() -> None:
    ctypes.CDLL(None).prctl(15, b"stranger", 0, 0, 0)  # PR_SET_NAME
    named.set()
    threading.Event().wait()

named = threading.Event()
threading.Thread(target=wait, daemon=True).start()
named.wait()
"""


def test_a_zygote_reports_a_thread_besides_the_main_one(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(ANOTHER_THREAD)
    environment = sandbox.scrub_environment({**os.environ, "PYTHONPATH": str(tmp_path)})
    zygote = Zygote(environment, tmp_path / "scratch")
    with capture_logs() as logs:
        host = zygote.spawn()
    assert "stranger" in list_threads(find_zygote(host))
    host.close()
    zygote.stop()
    (warned,) = [one for one in logs if one["event"] == "zygote_not_single_threaded"]
    assert warned["thread"] == "stranger"


def give_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let zygotes have their time to say how a host has ended, where they are not stopped."""
    monkeypatch.setattr(zygote_process, "EXIT_SECONDS", 60.0)


def test_a_stopped_zygote_is_replaced_and_its_hosts_go_on(zygote: Zygote, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its hosts need it only so that they die with it; the next host has another parent."""
    first = zygote.spawn()
    stopped = find_zygote(first)
    stopped.suspend()
    second = zygote.spawn()
    assert find_zygote(second) != stopped
    assert not first.exited.done()
    assert is_alive(psutil.Process(first.pid))
    first.close()
    assert first.exited.result(20) is None, "the one that could say how it ended is stopped"
    until(lambda: not is_alive(stopped), "the end of a zygote without hosts")
    assert not second.exited.done()
    third = zygote.spawn()
    assert find_zygote(third) == find_zygote(second)
    give_time(monkeypatch)
    for host in (second, third):
        host.close()
        assert host.exited.result(20) == -signal.SIGKILL


def test_a_zygote_that_resumes_after_its_replacement_starts_no_host(
    zygote: Zygote, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_time(monkeypatch)
    first = zygote.spawn()
    stopped = find_zygote(first)
    stopped.suspend()
    second = zygote.spawn()
    stopped.resume()
    until(lambda: [child.pid for child in stopped.children()] == [first.pid], "the end of what it was asked for first")
    first.close()
    assert first.exited.result(20) == -signal.SIGKILL
    until(lambda: not is_alive(stopped), "the end of a zygote without hosts")
    second.close()


def test_a_zygote_that_is_stopped_while_it_imports_is_replaced(tmp_path: Path) -> None:
    zygote = Zygote(sandbox.scrub_environment(os.environ), tmp_path / "scratch")
    before = find_children()
    zygote.start()
    (process,) = find_children() - before
    process.suspend()
    host = zygote.spawn()
    assert find_zygote(host) != process
    assert not is_alive(process)
    host.close()
    zygote.stop()
    assert find_children() <= before, "a zygote is left"


def test_the_end_of_a_host_is_seen_when_its_zygote_is_stopped(zygote: Zygote) -> None:
    host = zygote.spawn()
    find_zygote(host).suspend()
    psutil.Process(host.pid).kill()
    assert host.exited.result(20) is None
    host.close()


def test_a_host_whose_own_code_fails_says_how(zygote: Zygote, monkeypatch: pytest.MonkeyPatch) -> None:
    give_time(monkeypatch)
    host = zygote.spawn()
    send_frame(host.socket, FrameKind.EVALUATE, 0, b"not JSON")
    assert host.returncode(20) == FAILED
    words = host.read_last_words()
    host.close()
    assert words is not None
    assert words.startswith("the process failed (ValidationError: ")


def test_a_host_that_is_given_up_is_killed_whatever_its_zygote_does(zygote: Zygote) -> None:
    host = zygote.spawn()
    process = psutil.Process(host.pid)
    find_zygote(host).suspend()
    process.suspend()
    host.close()
    until(lambda: not is_alive(process), "its end")


def test_a_failed_fork_harms_no_other_host(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair()
    arena, other = os.pipe()
    more = os.pipe()

    def refuse() -> int:
        raise BlockingIOError(errno.EAGAIN, "no more processes")

    monkeypatch.setattr(os, "fork", refuse)
    hosts: dict[int, int] = {}
    forkserver._spawn_host(theirs, 7, [arena, other, *more], (1, 1), [], hosts)
    assert EVENT.unpack(ours.recv(100)) == (Op.NOT_STARTED, 7, errno.EAGAIN)
    assert hosts == {}
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(arena)
    ours.close()
    theirs.close()


def test_files_left_by_killed_servers_are_removed_at_the_start(tmp_path: Path) -> None:
    left = tmp_path / "scratch" / "host-abandoned"
    left.mkdir(parents=True)
    (left / "file").write_text("left")
    zygote = Zygote(sandbox.scrub_environment(os.environ), tmp_path / "scratch")
    zygote.start()
    assert not left.exists()
    zygote.stop()


def test_no_scratch_directory_is_too_deep_to_be_removed(tmp_path: Path) -> None:
    """A deep directory that a host left must not keep the server from starting, nor its space on the disk."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "file").touch()
    host = tmp_path / "scratch" / "host-abandoned"
    host.mkdir(parents=True)
    (host / "link").symlink_to(elsewhere)
    (host / "empty").mkdir()
    inside = os.open(host, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("deeper", dir_fd=inside)
        inside, above = os.open("deeper", os.O_RDONLY, dir_fd=inside), inside
        os.close(above)
    os.close(os.open("file", os.O_CREAT, dir_fd=inside))
    os.close(inside)
    zygote = Zygote(sandbox.scrub_environment(os.environ), tmp_path / "scratch")
    zygote.start()
    assert not host.exists()
    assert (elsewhere / "file").exists()
    zygote.stop()


def test_a_stopped_zygote_starts_nothing(tmp_path: Path) -> None:
    zygote = Zygote(sandbox.scrub_environment(os.environ), tmp_path / "scratch")
    zygote.stop()
    with pytest.raises(HostFailed, match="stopping"):
        zygote.spawn()


def test_a_zygote_of_another_release_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the package is upgraded on disk under a running server, and a zygote starts after that."""
    monkeypatch.setattr(zygote_process, "WIRE_VERSION", 7)
    zygote = Zygote(sandbox.scrub_environment(os.environ), tmp_path / "scratch")
    before = find_children()
    for _ in range(2):
        with pytest.raises(HostFailed, match="replaced by another release while it runs: restart the server"):
            zygote.spawn()
        until(lambda: find_children() <= before, "the end of the refused zygote")
    monkeypatch.undo()
    zygote.spawn().close()
    zygote.stop()
