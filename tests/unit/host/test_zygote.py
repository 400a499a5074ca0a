"""The server's side of a zygote: what is left when it dies, and of its hosts' scratch directories."""

from __future__ import annotations

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


def children() -> set[psutil.Process]:
    """This process's children, zombies included; by their command lines nobody knows them until they have executed."""
    return set(psutil.Process().children())


def test_a_killed_zygote_leaves_no_zombie(tmp_path: Path) -> None:
    """Its socket ends before the process does: whoever looks too early never looks again."""
    zygote = Zygote(sandbox.scrub(os.environ), tmp_path / "scratch")
    before = children()
    for _ in range(ROUNDS):
        zygote.start()
        (process,) = children() - before
        process.kill()
        until(lambda: children() <= before, "the end of the zygote")
    zygote.stop()


def test_a_zygote_killed_before_it_starts_a_host_costs_nothing(tmp_path: Path) -> None:
    """A host that dies with its zygote is noticed first: whoever replaces it asks a zygote that is about to end."""
    zygote = Zygote(sandbox.scrub(os.environ), tmp_path / "scratch")
    before = children()
    zygote.start()
    first = zygote.spawn()
    (process,) = children() - before
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
