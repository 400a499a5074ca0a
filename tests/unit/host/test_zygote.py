"""The server's side of a zygote: what is left when it dies, and of its hosts' scratch directories."""

from __future__ import annotations

import contextlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from serving.domain.errors import HostFailed
from serving.host import sandbox
from serving.host.zygote import Zygote
from tests.e2e.harness import until

ROUNDS = 8


def zygotes_of_this_process() -> list[psutil.Process]:
    return [one for one in psutil.Process().children() if is_zygote(one)]


def is_zygote(child: psutil.Process) -> bool:
    """Whether it is one, or was: a zombie has no command line."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return child.status() == psutil.STATUS_ZOMBIE or "forkserver" in " ".join(child.cmdline())
    return False


def test_a_killed_zygote_leaves_no_zombie(tmp_path: Path) -> None:
    """Its socket ends before the process does: whoever looks too early never looks again."""
    zygote = Zygote(sandbox.scrub(os.environ), tmp_path / "scratch")
    before = {one.pid for one in zygotes_of_this_process()}
    for _ in range(ROUNDS):
        zygote.start()
        for one in zygotes_of_this_process():
            if one.pid not in before:
                one.kill()
        until(lambda: {one.pid for one in zygotes_of_this_process()} <= before, "the end of the zygote")
    zygote.stop()


def test_a_zygote_killed_before_it_starts_a_host_costs_nothing(tmp_path: Path) -> None:
    """A host that dies with its zygote is noticed first: whoever replaces it asks a zygote that is about to end."""
    zygote = Zygote(sandbox.scrub(os.environ), tmp_path / "scratch")
    before = {one.pid for one in zygotes_of_this_process()}
    zygote.start()
    first = zygote.spawn()
    (process,) = (one for one in zygotes_of_this_process() if one.pid not in before)
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


def test_what_killed_servers_left_is_removed_at_the_start(tmp_path: Path) -> None:
    left = tmp_path / "scratch" / "host-abandoned"
    left.mkdir(parents=True)
    (left / "file").write_text("left")
    zygote = Zygote(sandbox.scrub(os.environ), tmp_path / "scratch")
    zygote.start()
    assert not left.exists()
    zygote.stop()


def test_a_stopped_zygote_starts_nothing(tmp_path: Path) -> None:
    zygote = Zygote(sandbox.scrub(os.environ), tmp_path / "scratch")
    zygote.stop()
    with pytest.raises(HostFailed, match="stopping"):
        zygote.spawn()
