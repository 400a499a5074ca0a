"""The server's side of a zygote: what is left when it dies, and of its hosts' scratch directories."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from serving.domain.errors import HostFailed
from serving.host import sandbox
from serving.host.zygote import Zygote
from tests.e2e.harness import until

ROUNDS = 8


def zygotes_of_this_process() -> list[psutil.Process]:
    mine = psutil.Process().children()
    return [one for one in mine if one.status() == psutil.STATUS_ZOMBIE or "forkserver" in " ".join(one.cmdline())]


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
