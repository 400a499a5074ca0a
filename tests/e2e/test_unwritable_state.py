"""A state directory that cannot be written: the start ends with one line, unless there is something to serve from."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from tests.e2e.harness import Server, constant, serving, until

MEGABYTES = 64


@contextmanager
def mounted(path: Path, options: str) -> Iterator[None]:
    """Mount a file system of its own at `path` for the length of the block; skip where that is not allowed."""
    path.mkdir(exist_ok=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", path], check=False, capture_output=True)
    if done.returncode != 0:
        pytest.skip(f"nothing can be mounted here: {done.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", path], check=False)


@contextmanager
def a_file_in_its_place(state: Path) -> Iterator[None]:
    state.touch()
    yield


@contextmanager
def below_a_file(state: Path) -> Iterator[None]:
    state.parent.touch()
    yield


@contextmanager
def a_read_only_mount(state: Path) -> Iterator[None]:
    with mounted(state, "ro"):
        yield


@contextmanager
def a_full_disk(state: Path) -> Iterator[None]:
    with mounted(state, "size=64k"):
        (state / "ballast").write_bytes(bytes(64 << 10))
        yield


@contextmanager
def another_owner(state: Path) -> Iterator[None]:
    if os.geteuid() == 0:
        pytest.skip("root writes through any mode")
    state.mkdir(mode=0o500)
    yield
    state.chmod(0o700)


CASES: dict[Callable[[Path], AbstractContextManager[None]], tuple[str, str]] = {
    a_file_in_its_place: ("File exists", "move away what is there"),
    below_a_file: ("Not a directory", "move away what is there"),
    a_read_only_mount: ("Read-only file system", "mount it writable"),
    a_full_disk: ("No space left on device", "make room there"),
    another_owner: ("Permission denied", f"let user {os.geteuid()} write there"),
}


@pytest.mark.parametrize("spoil", CASES, ids=lambda spoil: spoil.__name__)
def test_the_start_ends_with_what_was_seen_and_what_to_do(
    tmp_path: Path, spoil: Callable[[Path], AbstractContextManager[None]]
) -> None:
    server = Server(tmp_path, imports_anew=False)
    server.state = tmp_path / "file" / "state" if spoil is below_a_file else server.state
    seen, advice = CASES[spoil]
    try:
        with spoil(server.state), pytest.raises(AssertionError, match="exited with 1"):
            server.start()
    finally:
        server.client.close()
        if server.process is not None and server.process.poll() is None:
            server.kill()
    (told,) = server.log_path.read_text().splitlines()
    (event,) = server.log()
    assert (event["event"], event["level"]) == ("cannot_start", "error")
    assert event["reason"] == (
        f"the state directory '{server.state}' cannot be written: {seen}, and holds no copy of a model, "
        f"so that nothing could become active; {event['reason'].rpartition('; ')[2]}"
    )
    assert f"; {advice}" in told
    assert told.count("or set state.path to another directory") == 1


def test_what_was_active_answers_from_its_copy_and_it_is_told(tmp_path: Path) -> None:
    """From a mount that has become read-only; when it can be written again all is as usual."""
    state = tmp_path / "server-state"
    with mounted(state, f"size={MEGABYTES}m"), serving(tmp_path) as server:
        server.drop("m", 1, constant(1))
        server.wait_active("m", 1)
        server.stop()
        remount(state, "ro")
        server.drop("m", 2, constant(2))
        offset = server.log_path.stat().st_size
        server.start(wait_ready=True)
        assert server.predict("m").json()["predictions"] == [1.0]
        told = [event for event in server.log(offset) if event.get("event") == "state_not_writable"]
        assert len(told) == 1
        assert f"'{state}' cannot be written: Read-only file system" in told[0]["reason"]
        server.operate("POST", "/refresh")
        assert server.get("/models")["state"]["is_held"]
        assert server.version("m", 2)["state"] == "DISCOVERED"
        assert server.predict("m").json()["predictions"] == [1.0]
        remount(state, "rw")
        server.wait_active("m", 2)
        server.kill()


def remount(state: Path, how: str) -> None:
    """Mount it anew; for a moment after a server has ended a process of its may still hold a file."""
    line = ["mount", "-o", f"remount,{how}", state]
    until(lambda: subprocess.run(line, check=False, capture_output=True).returncode == 0, f"a remount as {how}")
