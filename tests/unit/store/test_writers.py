"""Is somebody still writing a file?"""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from serving.store.writers import is_open_for_writing
from tests.unit.store.files import write


def open_descriptors(path: Path) -> int:
    """How many descriptors of this process lead to a file. Those that other tests have left may be closed meanwhile."""
    found = 0
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found += entry.readlink() == path.resolve()
    return found


def test_a_file_nobody_has_open_is_not_being_written(tmp_path: Path) -> None:
    assert not is_open_for_writing(write(tmp_path / "file"))


def test_a_file_is_being_written_until_its_writer_closes_it(tmp_path: Path) -> None:
    path = write(tmp_path / "file")
    with path.open("r+b"):
        assert is_open_for_writing(path)
    assert not is_open_for_writing(path)


def test_readers_are_not_writers(tmp_path: Path) -> None:
    path = write(tmp_path / "file")
    with path.open("rb"):
        assert not is_open_for_writing(path)


def test_a_writable_mapping_is_a_writer(tmp_path: Path) -> None:
    path = write(tmp_path / "file")
    with path.open("r+b") as file:
        mapping = mmap.mmap(file.fileno(), 0)
    assert is_open_for_writing(path)
    mapping.close()
    assert not is_open_for_writing(path)


def test_a_writer_in_another_process_is_seen(tmp_path: Path) -> None:
    path = write(tmp_path / "file")
    script = "import sys; file = open(sys.argv[1], 'r+b'); print('open', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", script, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"open\n"
        assert is_open_for_writing(path)
        writer.communicate()
    assert not is_open_for_writing(path)


def test_the_probe_leaves_neither_a_lease_nor_a_descriptor(tmp_path: Path) -> None:
    path = write(tmp_path / "file")
    is_open_for_writing(path)
    with path.open("r+b"):
        is_open_for_writing(path)
        assert open_descriptors(path) == 1, "that of this test"
    assert open_descriptors(path) == 0


def test_a_broken_lease_would_not_end_the_process() -> None:
    assert signal.getsignal(signal.SIGURG) is signal.SIG_DFL
    signal.raise_signal(signal.SIGURG)


@pytest.mark.parametrize("kind", ["missing", "directory", "fifo", "socket"])
def test_what_cannot_be_told_is_not_being_written(tmp_path: Path, kind: str) -> None:
    path = tmp_path / kind
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    assert not is_open_for_writing(path)


def test_a_system_without_leases_cannot_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("fcntl.F_SETLEASE")
    path = write(tmp_path / "file")
    with path.open("r+b"):
        assert not is_open_for_writing(path)
