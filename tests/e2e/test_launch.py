"""Servers that tests start get a zygote that has imported everything, and are otherwise what they are for a user."""

from __future__ import annotations

import contextlib
from pathlib import Path

import psutil

from tests.e2e.harness import Server, constant, is_alive, serving, until, write_version

WAITED, STARTED = "zygote_source.py", "serving.host.forkserver"


def find_zygote(server: Server, kind: str) -> psutil.Process | None:
    """Return the zygote, a child of the server, if it is of this kind."""
    assert server.process is not None
    for child in psutil.Process(server.process.pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended, and was perhaps not reaped
            if any(part.endswith(kind) for part in child.cmdline()):
                return child
    return None


def find_parents(server: Server) -> list[int]:
    """Return whose children the hosts are; one of them may have ended just now."""
    found = []
    for host in server.hosts():
        with contextlib.suppress(psutil.NoSuchProcess):
            found.append(host.ppid())
    return found


def test_the_first_zygote_waits_for_the_server_and_the_next_one_is_started_as_always(tmp_path: Path) -> None:
    write_version(tmp_path / "store" / "m", 1, constant(1))
    with serving(tmp_path) as server:
        server.wait_active("m", 1)
        zygote = find_zygote(server, WAITED)
        assert zygote is not None
        assert find_zygote(server, STARTED) is None
        until(lambda: find_parents(server) == [zygote.pid], "the host that serves, and no other")
        assert not [name for name in zygote.environ() if name.startswith("SERVING_")]
        zygote.kill()
        until(lambda: find_zygote(server, STARTED), "another zygote")
        until(lambda: server.predict("m").status_code == 200, "an answer of another host")
    assert server.process is not None
    assert server.process.returncode == -9
    until(lambda: not is_alive(zygote), "its end")


def test_the_zygote_that_waits_is_not_taken_where_it_would_get_another_environment(tmp_path: Path) -> None:
    with serving(tmp_path, TZ="Pacific/Auckland") as server:
        zygote = until(lambda: find_zygote(server, STARTED), "the zygote")
        assert zygote.environ()["TZ"] == "Pacific/Auckland"
        assert find_zygote(server, WAITED) is None


def test_a_server_says_how_it_ended(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        assert server.stop() == 0
